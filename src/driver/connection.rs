//! The connection's life: attempts with full-jitter pauses, one link at a time.
//!
//! A link never reconnects by itself. When it ends, its buffers end with it, the bridge is told,
//! and only then is a new one tried, so nothing that the gate has revoked meanwhile can follow.
//!
//! An attempt subscribes to nothing and asks for nothing. Streams and consumer are looked at over
//! the link itself, so that the bridge's cut and its echo hold for that as for everything else.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::{BrokerState, ReadFault, Unavailable};
use crate::nats::assets::{AssetFault, AssetReport};
use crate::nats::backoff::backoff;
use crate::nats::link::{ConnectFault, Link, LinkEvent};
use crate::nats::settings::Settings;
use crate::protocol::packet::RuntimeId;
use crate::protocol::presence::Held;
use crate::protocol::view::FleetView;

/// Failed attempts in a row after which the broker counts as disconnected and not as connecting.
const PATIENCE_ATTEMPTS: u32 = 3;
/// A link that ended sooner counts as a failed attempt, so that whatever ends each new link at once
/// finds growing pauses and not a loop.
const STEADY_AFTER: Duration = Duration::from_secs(2);
/// How many such attempts count: pauses of up to 0.8 s, since the broker is there after all.
const SHORT_LIVES_MAX: u32 = 3;

/// How long a link that has to be left waits for what is unanswered on it: a server that is about
/// to stop goes on answering for 10 s.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(3);

/// What a look at streams and consumer has found.
type Look = JoinHandle<Result<AssetReport, AssetFault>>;

/// A link that is up, or an attempt to get one.
#[derive(Debug)]
enum Connection {
    /// An attempt, in a task of its own from its pause on: it waits for nobody.
    Connecting(JoinHandle<Result<Link, ConnectFault>>),
    Up(Box<Up>),
}

#[derive(Debug)]
struct Up {
    link: Link,
    since: Instant,
    /// A look at streams and consumer that is under way.
    look: Option<Look>,
    /// Something was missed while that look was under way, which may have been too early to see it.
    look_again: bool,
    /// Presence that is being read.
    reads: JoinSet<Read>,
    /// The own one is to be read after the first look, which makes sure of its bucket.
    reads_own_next: bool,
    /// Whether there was a first look, which also sees to what an earlier connection has left.
    is_prepared: bool,
    /// It is to be left by then, and takes nothing new.
    leave_by: Option<Instant>,
}

impl Drop for Up {
    fn drop(&mut self) {
        self.stop_looking();
    }
}

impl Up {
    fn stop_looking(&mut self) {
        self.look_again = false;
        if let Some(look) = self.look.take() {
            look.abort();
        }
        self.reads.abort_all();
        self.reads_own_next = false;
    }

    fn read_own(&mut self, me: RuntimeId) {
        let reading = self.link.presence(me);
        self.reads.spawn(async move { Read::Own(reading.await) });
    }

    fn is_silent(&self) -> bool {
        self.link.unanswered() == 0 && self.link.is_read()
    }
}

/// Reads of presence under way, beyond which who looks at a fleet has to come again.
const FLEET_READS_MAX: usize = 8;

/// What a read of presence has found.
#[derive(Debug)]
pub(super) enum Read {
    /// Of ourselves; `None` where the broker does not say.
    Own(Option<Held>),
    /// Of peers, as far as the broker says.
    Peers(Vec<(RuntimeId, Held)>),
    /// Of a fleet, for who looks at it; `None` where the broker does not say.
    Fleet(Option<Vec<(String, Held)>>, oneshot::Sender<Result<FleetView, ReadFault>>),
}

/// What happened to the connection while the driver waited.
#[derive(Debug)]
pub(super) enum Change {
    Up,
    Failed(ConnectFault),
    Event(LinkEvent),
    /// Streams and consumer were looked at, for the first time on this link or once more.
    Looked {
        first: bool,
        outcome: Result<AssetReport, AssetFault>,
    },
    /// Presence was read.
    Read(Read),
    /// A link that was to be left has nothing unanswered any more, or its time is over.
    Left,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Connector {
    settings: Settings,
    connection: Connection,
    /// Failed attempts and short-lived links in a row.
    attempt: u32,
    connections: u64,
    /// Repairs since something last worked.
    repairs: u32,
    presence_expires: bool,
    /// When there was last a link; the start, before the first one.
    lost_at: Instant,
    /// Time without a link, up to the last one that was made.
    away: Duration,
}

impl Connector {
    /// Begins with an attempt at once.
    pub(super) fn new(settings: Settings) -> Self {
        let connection = begin(&settings, Instant::now());
        Self {
            settings,
            connection,
            attempt: 0,
            connections: 0,
            repairs: 0,
            presence_expires: false,
            lost_at: Instant::now(),
            away: Duration::ZERO,
        }
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    fn up(&mut self) -> Option<&mut Up> {
        match &mut self.connection {
            Connection::Up(up) => Some(up),
            Connection::Connecting(_) => None,
        }
    }

    pub(super) fn link(&mut self) -> Option<&mut Link> {
        self.up().map(|up| &mut up.link)
    }

    /// The link with what it was made from.
    pub(super) fn link_and_settings(&mut self) -> Option<(&mut Link, &Settings)> {
        match &mut self.connection {
            Connection::Up(up) => Some((&mut up.link, &self.settings)),
            Connection::Connecting(_) => None,
        }
    }

    /// Whether packets may go out and come in: the stream was looked at, and the link stays.
    pub(super) fn is_prepared(&self) -> bool {
        match &self.connection {
            Connection::Up(up) => up.is_prepared && up.leave_by.is_none(),
            Connection::Connecting(_) => false,
        }
    }

    pub(super) fn state(&self) -> BrokerState {
        match &self.connection {
            Connection::Up(up) if up.is_prepared || up.look.is_none() => BrokerState::Connected,
            Connection::Connecting(_) if self.attempt >= PATIENCE_ATTEMPTS => {
                BrokerState::Disconnected
            }
            Connection::Up(_) | Connection::Connecting(_) => BrokerState::Connecting,
        }
    }

    /// Connections made so far.
    pub(super) fn connections(&self) -> u64 {
        self.connections
    }

    /// Time without a link since the start.
    pub(super) fn away(&self) -> Duration {
        match &self.connection {
            Connection::Up(_) => self.away,
            Connection::Connecting(_) => self.away.saturating_add(self.lost_at.elapsed()),
        }
    }

    /// Waits for the next change.
    ///
    /// # Cancel safety
    /// Safe: attempts run in tasks of their own, events stay in their channel.
    pub(super) async fn changed(&mut self) -> Change {
        match &mut self.connection {
            Connection::Up(up) => {
                if up.leave_by.is_some() && up.is_silent() {
                    return Change::Left;
                }
                let leave_by = up.leave_by.unwrap_or(up.since);
                tokio::select! {
                    event = up.link.event() => Change::Event(event),
                    outcome = finished(&mut up.look), if up.look.is_some() => {
                        up.look = None;
                        let first = !std::mem::replace(&mut up.is_prepared, true);
                        if std::mem::take(&mut up.reads_own_next) {
                            up.read_own(self.settings.runtime_id.clone());
                        }
                        if std::mem::take(&mut up.look_again) {
                            self.repair();
                        }
                        Change::Looked { first, outcome }
                    }
                    // A task that was cut off has no result.
                    Some(Ok(read)) = up.reads.join_next(), if !up.reads.is_empty() => {
                        Change::Read(read)
                    }
                    () = tokio::time::sleep_until(leave_by), if up.leave_by.is_some() => {
                        Change::Left
                    }
                }
            }
            Connection::Connecting(task) => {
                let fault = match task.await {
                    Ok(Ok(link)) => {
                        self.connection = Connection::Up(Box::new(Up {
                            link,
                            since: Instant::now(),
                            look: None,
                            look_again: false,
                            reads: JoinSet::new(),
                            reads_own_next: false,
                            is_prepared: false,
                            leave_by: None,
                        }));
                        self.connections += 1;
                        self.away = self.away.saturating_add(self.lost_at.elapsed());
                        return Change::Up;
                    }
                    Ok(Err(fault)) => fault,
                    Err(error) => ConnectFault::Starved(error.to_string()),
                };
                self.pause();
                Change::Failed(fault)
            }
        }
    }

    /// The link has its subscription for answers: makes sure of streams and consumer, if that was
    /// not done on it yet. What differs weakens promises; it does not keep us from connecting.
    pub(super) fn prepare(&mut self) {
        if let Some(up) = self.up()
            && !up.is_prepared
            && up.look.is_none()
        {
            // Deaf for its answers, the look would wait for each of them. A link that cannot take
            // the question is about to end.
            let _ = up.link.listen();
            let looking = up.link.provision(true);
            up.look = Some(tokio::spawn(looking));
        }
    }

    /// Reads the own presence, when its bucket was looked at.
    pub(super) fn read_own(&mut self) {
        let me = self.settings.runtime_id.clone();
        if let Some(up) = self.up() {
            if up.is_prepared {
                up.read_own(me);
            } else {
                up.reads_own_next = true;
            }
        }
    }

    /// Reads the presence of peers.
    pub(super) fn read_peers(&mut self, peers: Vec<RuntimeId>) {
        if let Some(up) = self.up() {
            let reading = up.link.presences(peers);
            up.reads.spawn(async move { Read::Peers(reading.await) });
        }
    }

    /// Reads the presence of a fleet.
    pub(super) fn read_fleet(
        &mut self,
        owners: Option<Vec<RuntimeId>>,
        answer: oneshot::Sender<Result<FleetView, ReadFault>>,
    ) {
        match self.up() {
            Some(up) if up.reads.len() < FLEET_READS_MAX => {
                let reading = up.link.fleet(owners);
                up.reads.spawn(async move { Read::Fleet(reading.await, answer) });
            }
            Some(_) => drop(answer.send(Err(Unavailable::Overloaded(1).into()))),
            None => drop(answer.send(Err(ReadFault::NoBroker))),
        }
    }

    /// The bucket of presence was looked at.
    pub(super) fn bucket_seen(&mut self, expires: bool) {
        self.presence_expires = expires;
    }

    /// Whether entries of presence can expire.
    pub(super) fn presence_expires(&self) -> bool {
        self.presence_expires
    }

    /// Streams or consumer seem to be missing: looks at them after a pause that grows. The link
    /// goes on; what it cannot publish waits. A look that is under way may have seen them before
    /// they went, and is followed by another.
    pub(super) fn repair(&mut self) {
        let pause = backoff(self.repairs, random());
        if let Some(up) = self.up() {
            if up.look.is_some() {
                up.look_again = true;
                return;
            }
            let looking = up.link.provision(false);
            up.look = Some(tokio::spawn(async move {
                tokio::time::sleep(pause).await;
                looking.await
            }));
            self.repairs = self.repairs.saturating_add(1);
        }
    }

    /// Something worked: the next repair is quick again.
    pub(super) fn worked(&mut self) {
        self.repairs = 0;
    }

    /// Isolated: the broker is asked for nothing more. What was asked for ends with the cut.
    pub(super) fn stop_looking(&mut self) {
        if let Some(up) = self.up() {
            up.stop_looking();
        }
    }

    /// The server is about to stop: nothing new goes out on this link, and it is left when what is
    /// unanswered on it is answered.
    pub(super) fn leave(&mut self) {
        if let Some(up) = self.up() {
            up.leave_by.get_or_insert_with(|| Instant::now() + LEAVE_TIMEOUT);
        }
    }

    /// An event that is there already.
    pub(super) fn try_event(&mut self) -> Option<LinkEvent> {
        self.link()?.try_event()
    }

    /// Ends the link with its buffers and plans the next attempt.
    pub(super) async fn sever(&mut self) {
        let now = Instant::now();
        if let Some(up) = self.up() {
            let is_steady = up.since.elapsed() >= STEADY_AFTER;
            self.attempt = if is_steady { 0 } else { self.attempt.min(SHORT_LIVES_MAX) };
        }
        match self.pause() {
            Connection::Up(mut up) => {
                self.lost_at = now;
                up.link.sever().await;
            }
            Connection::Connecting(task) => task.abort(),
        }
    }

    /// Begins the next attempt; gives what it takes the place of.
    fn pause(&mut self) -> Connection {
        let pause: Duration = backoff(self.attempt, random());
        self.attempt = self.attempt.saturating_add(1);
        let next = begin(&self.settings, Instant::now() + pause);
        std::mem::replace(&mut self.connection, next)
    }
}

impl Drop for Connector {
    fn drop(&mut self) {
        if let Connection::Connecting(task) = &self.connection {
            task.abort();
        }
    }
}

/// An attempt that begins when its pause is over, whatever else is being done then.
fn begin(settings: &Settings, after: Instant) -> Connection {
    let settings = settings.clone();
    Connection::Connecting(tokio::spawn(async move {
        tokio::time::sleep_until(after).await;
        Link::connect(&settings).await
    }))
}

/// Each `RandomState` is seeded by the operating system: enough for jitter.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

async fn finished(look: &mut Option<Look>) -> Result<AssetReport, AssetFault> {
    match look {
        // It does not panic, and nobody else aborts it.
        Some(look) => look.await.unwrap_or(Err(AssetFault::Revoked)),
        None => std::future::pending().await,
    }
}
