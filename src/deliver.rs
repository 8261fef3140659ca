//! Hands accepted packets to the runtime, if it asked for that: one POST per packet, newest first.
//!
//! One slot per source: a newer packet supersedes an undelivered older one, because state is
//! superseded and not queued (P5). A packet is acknowledged to the broker after the runtime's 2xx,
//! or when it was superseded. A runtime that is slow or away costs bounded memory and is asked
//! again with growing pauses (P10); what comes in is evidence, so the answer's body is not read.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Uri, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::protocol::packet::RuntimeId;

/// First pause after a failed delivery; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// Longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Commands that may wait for the courier: the broker leaves at most 256 unacknowledged.
const COMMANDS_MAX: usize = 512;

/// Where and how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `http://host:port/path` of the runtime.
    pub url: Uri,
    /// Bound on one attempt. Default 2 s.
    pub timeout: Duration,
}

/// One accepted packet on its way to the runtime.
#[derive(Clone, Debug)]
pub struct Parcel {
    /// Who sent it.
    pub source: RuntimeId,
    /// Its sequence number.
    pub seq: u64,
    /// The packet as it came.
    pub bytes: Bytes,
    /// Where its acknowledgement goes.
    pub reply: String,
}

/// What became of a parcel. The driver acknowledges `Done` and `Superseded` to the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The runtime answered 2xx.
    Done {
        /// Acknowledgement subject.
        reply: String,
    },
    /// A newer packet of the same source took its place.
    Superseded {
        /// Acknowledgement subject.
        reply: String,
    },
}

enum Order {
    Take(Parcel),
    Clear,
}

/// Gives parcels to the courier's task.
#[derive(Debug)]
pub struct Courier {
    orders: mpsc::Sender<Order>,
    task: JoinHandle<()>,
}

impl Courier {
    /// Starts the courier; what became of each parcel arrives on the receiver.
    #[must_use]
    pub fn start(settings: Settings) -> (Self, mpsc::Receiver<Delivery>) {
        let (orders, inbox) = mpsc::channel(COMMANDS_MAX);
        let (outcomes, receiver) = mpsc::channel(COMMANDS_MAX);
        let task = tokio::spawn(run(settings, inbox, outcomes));
        (Self { orders, task }, receiver)
    }

    /// Takes a parcel; `false` when the courier is swamped, and the broker will deliver it again.
    #[must_use]
    pub fn take(&self, parcel: Parcel) -> bool {
        self.orders.try_send(Order::Take(parcel)).is_ok()
    }

    /// Drops everything undelivered: the gate is isolated, nothing inbound reaches the runtime.
    pub fn clear(&self) {
        // A full queue cannot hold this back: the task is stopped instead and takes its parcels
        // with it; the broker redelivers what was not acknowledged.
        if self.orders.try_send(Order::Clear).is_err() {
            self.task.abort();
        }
    }
}

impl Drop for Courier {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Default)]
struct Slots {
    /// Newest undelivered parcel of each source. Bounded by the configured peers.
    parcels: BTreeMap<RuntimeId, Parcel>,
    turns: VecDeque<RuntimeId>,
}

impl Slots {
    /// Puts a parcel in; gives back the older one that it supersedes.
    fn put(&mut self, parcel: Parcel) -> Option<Parcel> {
        let source = parcel.source.clone();
        let seq = parcel.seq;
        let older = self.parcels.insert(source.clone(), parcel);
        if older.is_none() {
            self.turns.push_back(source);
        }
        // The same packet again only brings a fresher acknowledgement subject.
        older.filter(|older| older.seq != seq)
    }

    fn first(&self) -> Option<Parcel> {
        self.turns.front().and_then(|source| self.parcels.get(source)).cloned()
    }

    fn done(&mut self, delivered: &Parcel) {
        if let Some(source) = self.turns.pop_front() {
            let is_same =
                self.parcels.get(&source).is_some_and(|parcel| parcel.seq == delivered.seq);
            if is_same {
                self.parcels.remove(&source);
            } else if self.parcels.contains_key(&source) {
                self.turns.push_back(source);
            }
        }
    }

    fn clear(&mut self) {
        self.parcels.clear();
        self.turns.clear();
    }
}

async fn run(
    settings: Settings,
    mut orders: mpsc::Receiver<Order>,
    outcomes: mpsc::Sender<Delivery>,
) {
    let mut slots = Slots::default();
    let mut pause = Duration::ZERO;
    let mut resume = Instant::now();
    loop {
        let next = slots.first();
        tokio::select! {
            biased;
            order = orders.recv() => match order {
                None => return,
                Some(Order::Clear) => slots.clear(),
                Some(Order::Take(parcel)) => {
                    if let Some(older) = slots.put(parcel)
                        && outcomes.send(Delivery::Superseded { reply: older.reply }).await.is_err()
                    {
                        return;
                    }
                }
            },
            delivered = deliver(&settings, next.as_ref(), resume), if next.is_some() => {
                let Some(parcel) = next else { continue };
                if delivered {
                    pause = Duration::ZERO;
                    slots.done(&parcel);
                    if outcomes.send(Delivery::Done { reply: parcel.reply }).await.is_err() {
                        return;
                    }
                } else {
                    pause = (pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
                    resume = Instant::now() + pause;
                }
            }
        }
    }
}

/// One attempt, after the pause. An order that arrives meanwhile cancels it; the runtime may then
/// see the packet twice, which evidence with a sequence number allows.
async fn deliver(settings: &Settings, parcel: Option<&Parcel>, resume: Instant) -> bool {
    let Some(parcel) = parcel else { return false };
    tokio::time::sleep_until(resume).await;
    let attempt = tokio::time::timeout(settings.timeout, post(settings, parcel)).await;
    match attempt {
        Ok(Ok(status)) if status.is_success() => true,
        Ok(Ok(status)) => {
            tracing::warn!(source = %parcel.source, status = status.as_u16(), "the runtime refused a delivery");
            false
        }
        Ok(Err(error)) => {
            tracing::warn!(source = %parcel.source, %error, "delivery to the runtime failed");
            false
        }
        Err(_) => {
            tracing::warn!(source = %parcel.source, "the runtime did not answer a delivery in time");
            false
        }
    }
}

async fn post(
    settings: &Settings,
    parcel: &Parcel,
) -> Result<hyper::StatusCode, Box<dyn std::error::Error + Send + Sync>> {
    let authority = settings.url.authority().ok_or("the URL names no host")?;
    let address = (authority.host(), authority.port_u16().unwrap_or(80));
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Dropped with this attempt, so a stalled runtime keeps no connection of ours.
    let connection = tokio::spawn(connection);
    let request = Request::post(settings.url.path_and_query().map_or("/", |path| path.as_str()))
        .header(header::HOST, authority.as_str())
        .header(header::CONTENT_TYPE, "application/ld+json")
        .header("Driftgate-Source", parcel.source.as_str())
        .header("Driftgate-Seq", parcel.seq)
        .header("Driftgate-External", "true")
        .body(Full::new(parcel.bytes.clone()))?;
    let response = sender.send_request(request).await?;
    connection.abort();
    Ok(response.status())
}
