//! The connection's life: attempts with full-jitter pauses, one link at a time.
//!
//! A link never reconnects by itself. When it ends, its buffers end with it, the bridge is told,
//! and only then is a new one tried, so nothing that the gate has revoked meanwhile can follow.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::BrokerState;
use crate::nats::assets::{self, AssetReport};
use crate::nats::backoff::backoff;
use crate::nats::link::{ConnectFault, Link, LinkEvent};
use crate::nats::settings::Settings;

/// Failed attempts in a row after which the broker counts as disconnected and not as connecting.
const PATIENCE_ATTEMPTS: u32 = 3;
/// A link that ended sooner counts as a failed attempt, so that whatever ends each new link at once
/// finds growing pauses and not a loop.
const STEADY_AFTER: Duration = Duration::from_secs(2);
/// How many such attempts count: pauses of up to 0.8 s, since the broker is there after all.
const SHORT_LIVES_MAX: u32 = 3;

/// A link that is up, or an attempt to get one.
#[derive(Debug)]
pub(super) enum Connection {
    /// An attempt, in a task of its own from its pause on: it waits for nobody.
    Connecting {
        task: JoinHandle<Result<Up, ConnectFault>>,
        /// When its pause is over.
        after: Instant,
    },
    Up {
        link: Link,
        since: Instant,
    },
}

/// What a successful attempt brings.
#[derive(Debug)]
pub(super) struct Up {
    pub(super) link: Link,
    /// `None` when the assets were not looked at (isolated).
    pub(super) assets: Option<Result<AssetReport, String>>,
}

/// What happened to the connection while the driver waited.
#[derive(Debug)]
pub(super) enum Change {
    Up(Option<Result<AssetReport, String>>),
    Failed(ConnectFault),
    Event(LinkEvent),
    /// Streams and consumer were looked at again.
    Repaired(Result<AssetReport, String>),
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Connector {
    settings: Settings,
    /// Whether an attempt may look at streams and consumer: an isolated sidecar asks for nothing.
    provisions: watch::Sender<bool>,
    connection: Connection,
    /// Failed attempts and short-lived links in a row.
    attempt: u32,
    connections: u64,
    /// Looks at streams and consumer again, after a pause, while the link goes on.
    repair: Option<JoinHandle<Result<AssetReport, String>>>,
    /// Repairs since something last worked.
    repairs: u32,
}

impl Connector {
    /// Begins with an attempt at once.
    pub(super) fn new(settings: Settings, provisions: bool) -> Self {
        let provisions = watch::Sender::new(provisions);
        let connection = begin(&settings, &provisions, Instant::now());
        Self {
            settings,
            provisions,
            connection,
            attempt: 0,
            connections: 0,
            repair: None,
            repairs: 0,
        }
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(super) fn link(&mut self) -> Option<&mut Link> {
        match &mut self.connection {
            Connection::Up { link, .. } => Some(link),
            Connection::Connecting { .. } => None,
        }
    }

    /// The link with what it was made from.
    pub(super) fn link_and_settings(&mut self) -> Option<(&mut Link, &Settings)> {
        match &mut self.connection {
            Connection::Up { link, .. } => Some((link, &self.settings)),
            Connection::Connecting { .. } => None,
        }
    }

    pub(super) fn state(&self) -> BrokerState {
        match &self.connection {
            Connection::Up { .. } => BrokerState::Connected,
            Connection::Connecting { .. } => {
                if self.attempt < PATIENCE_ATTEMPTS {
                    BrokerState::Connecting
                } else {
                    BrokerState::Disconnected
                }
            }
        }
    }

    /// Connections made so far.
    pub(super) fn connections(&self) -> u64 {
        self.connections
    }

    /// Whether attempts from here on may look at streams and consumer.
    pub(super) fn provision(&self, provisions: bool) {
        self.provisions.send_if_modified(|held| std::mem::replace(held, provisions) != provisions);
    }

    /// Waits for the next change.
    ///
    /// # Cancel safety
    /// Safe: attempts run in tasks of their own, events stay in their channel.
    pub(super) async fn changed(&mut self) -> Change {
        match &mut self.connection {
            Connection::Up { link, .. } => {
                tokio::select! {
                    event = link.event() => Change::Event(event),
                    outcome = finished(&mut self.repair), if self.repair.is_some() => {
                        self.repair = None;
                        Change::Repaired(outcome)
                    }
                }
            }
            Connection::Connecting { task, .. } => {
                let outcome = task.await;
                let fault = match outcome {
                    Ok(Ok(Up { link, assets })) => {
                        let since = Instant::now();
                        self.connection = Connection::Up { link, since };
                        self.connections += 1;
                        return Change::Up(assets);
                    }
                    Ok(Err(fault)) => fault,
                    Err(error) => ConnectFault::Starved(error.to_string()),
                };
                self.pause();
                Change::Failed(fault)
            }
        }
    }

    /// Streams or consumer seem to be missing: looks at them after a pause that grows, on a
    /// connection of its own. The link goes on; what it cannot publish waits.
    pub(super) fn repair(&mut self) {
        if self.repair.is_some() || self.link().is_none() {
            return;
        }
        let pause = backoff(self.repairs, random());
        self.repairs = self.repairs.saturating_add(1);
        let settings = self.settings.clone();
        self.repair = Some(tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            assets::ensure(&settings).await.map_err(|fault| fault.to_string())
        }));
    }

    /// Something worked: the next repair is quick again.
    pub(super) fn worked(&mut self) {
        self.repairs = 0;
    }

    /// Isolated: the broker is asked for nothing, by a look at streams and consumer neither. An
    /// attempt to connect that may be at one begins anew without it.
    pub(super) fn stop_provisioning(&mut self) {
        self.provision(false);
        self.stop_repair();
        if let Connection::Connecting { task, after } = &self.connection {
            task.abort();
            self.connection = begin(&self.settings, &self.provisions, *after);
        }
    }

    fn stop_repair(&mut self) {
        if let Some(task) = self.repair.take() {
            task.abort();
        }
    }

    /// An event that is there already.
    pub(super) fn try_event(&mut self) -> Option<LinkEvent> {
        match &mut self.connection {
            Connection::Up { link, .. } => link.try_event(),
            Connection::Connecting { .. } => None,
        }
    }

    /// Ends the link with its buffers and plans the next attempt.
    pub(super) async fn sever(&mut self) {
        self.stop_repair();
        if let Connection::Up { since, .. } = &self.connection {
            let is_steady = since.elapsed() >= STEADY_AFTER;
            self.attempt = if is_steady { 0 } else { self.attempt.min(SHORT_LIVES_MAX) };
        }
        match self.pause() {
            Connection::Up { link, .. } => link.sever().await,
            Connection::Connecting { task, .. } => task.abort(),
        }
    }

    /// Begins the next attempt; gives what it takes the place of.
    fn pause(&mut self) -> Connection {
        let pause: Duration = backoff(self.attempt, random());
        self.attempt = self.attempt.saturating_add(1);
        let next = begin(&self.settings, &self.provisions, Instant::now() + pause);
        std::mem::replace(&mut self.connection, next)
    }
}

impl Drop for Connector {
    fn drop(&mut self) {
        self.stop_repair();
        if let Connection::Connecting { task, .. } = &self.connection {
            task.abort();
        }
    }
}

/// An attempt that begins when its pause is over, whatever else is being done then.
fn begin(settings: &Settings, provisions: &watch::Sender<bool>, after: Instant) -> Connection {
    let (settings, provisions) = (settings.clone(), provisions.subscribe());
    let task = tokio::spawn(async move {
        tokio::time::sleep_until(after).await;
        let provisions = *provisions.borrow();
        attempt(settings, provisions).await
    });
    Connection::Connecting { task, after }
}

/// Each `RandomState` is seeded by the operating system: enough for jitter.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

async fn finished(
    task: &mut Option<JoinHandle<Result<AssetReport, String>>>,
) -> Result<AssetReport, String> {
    match task {
        Some(task) => task.await.unwrap_or_else(|error| Err(error.to_string())),
        None => std::future::pending().await,
    }
}

async fn attempt(settings: Settings, provision: bool) -> Result<Up, ConnectFault> {
    // Missing or different assets weaken promises; they do not keep us from connecting.
    let assets = if provision {
        Some(assets::prepare(&settings).await.map_err(|fault| fault.to_string()))
    } else {
        None
    };
    let link = Link::connect(&settings).await?;
    Ok(Up { link, assets })
}
