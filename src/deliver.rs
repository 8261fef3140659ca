//! Hands accepted packets to the runtime, if it asked for that: one POST under way per source.
//!
//! The newest packet of each source waits here, only as its number; its bytes are asked for when
//! its turn comes, together with whether it may still be handed on. While a POST runs, newer
//! packets supersede each other behind it (P5); nothing but a cut ends it before its time. Sources
//! take turns, and at most [`REQUESTS_MAX`] requests run at once over all of them. A packet is
//! done, and may be acknowledged to the broker, after the runtime's 2xx, when a newer one took its
//! place, or when it is given up. A runtime that refuses or is away is asked again after growing
//! pauses (P10); what comes in is evidence, so the answer's body is not looked at.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, Uri, header};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, timeout_at};

use crate::protocol::packet::RuntimeId;
use crate::protocol::refusal::Fault;

/// Requests under way at once, over all sources: a runtime is one process.
pub const REQUESTS_MAX: usize = 4;
/// Times that one packet is offered to a runtime that answers and refuses it, or does not answer.
pub const ATTEMPTS_MAX: u32 = 6;
/// First pause after a failed attempt; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// Longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// How long a connection is kept for the next request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// What is read of an answer's body, so that its connection can be used again; a longer answer
/// costs its connection.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Where and how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `http://host:port/path` of the runtime.
    pub url: Uri,
    /// Bound on one attempt. Default 2 s.
    pub timeout: Duration,
}

/// Why an attempt, or a packet, failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It may not be handed on any more.
    #[error("{}", .0.word())]
    Barred(Fault),
    /// As the message says.
    #[error("the connection to the runtime broke before its answer")]
    Broken,
    /// Another status than 2xx.
    #[error("the runtime refuses what is delivered")]
    Refused,
    /// As the message says.
    #[error("the runtime does not answer in time")]
    Timeout,
    /// As the message says.
    #[error("no connection to the runtime")]
    Unreachable,
}

impl Failure {
    /// The metric label.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Barred(fault) => fault.word(),
            Self::Broken => "broken",
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
        }
    }
}

/// One packet on its way, by its number and where its acknowledgement goes.
#[derive(Clone, Debug)]
struct Parcel {
    seq: u64,
    reply: String,
    attempts: u32,
}

/// One source.
#[derive(Debug, Default)]
struct Lane {
    /// The newest packet that is not under way.
    next: Option<Parcel>,
    under_way: Option<Parcel>,
    /// It failed last and is not asked for before its pause is over.
    is_resting: bool,
    /// Failed attempts in a row.
    failures: u32,
    /// The highest number that is done with.
    done: u64,
}

/// What a task was started for.
#[derive(Debug)]
enum Task {
    /// The POST of a source's packet.
    Post(RuntimeId),
    /// A source's pause.
    Rest(RuntimeId),
    /// The pause of all, for the runtime was not there.
    RestAll,
}

/// How a request went.
pub type Outcome = Result<(), Failure>;

/// How a task ended.
#[derive(Debug)]
pub struct Ended(Task, Outcome);

/// What was counted, for the metrics.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Packets that the runtime took.
    pub done: u64,
    /// Packets that a newer one of their source took the place of.
    pub superseded: u64,
    /// Packets that were given up.
    pub given_up: u64,
    /// Failed attempts, and packets that were not offered any more, by [`Failure::word`].
    pub failed: BTreeMap<&'static str, u64>,
}

impl Counts {
    fn fail(&mut self, failure: Failure) {
        *self.failed.entry(failure.word()).or_default() += 1;
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Deliveries {
    settings: Settings,
    client: Client<HttpConnector, Full<Bytes>>,
    /// Bounded by the peers that were ever configured.
    lanes: BTreeMap<RuntimeId, Lane>,
    /// Sources with a packet and neither a request nor a pause under way, in the order of turns.
    turns: VecDeque<RuntimeId>,
    tasks: JoinSet<Outcome>,
    names: HashMap<Id, Task>,
    requests: usize,
    is_resting: bool,
    /// Attempts in a row that found no runtime.
    absences: u32,
    counts: Counts,
}

impl Deliveries {
    /// Nothing under way. Must be called within a tokio runtime.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(settings.timeout));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(REQUESTS_MAX)
            .build(connector);
        Self {
            settings,
            client,
            lanes: BTreeMap::new(),
            turns: VecDeque::new(),
            tasks: JoinSet::new(),
            names: HashMap::new(),
            requests: 0,
            is_resting: false,
            absences: 0,
            counts: Counts::default(),
        }
    }

    /// What was counted so far.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Takes the newest accepted packet of a source, or one that the broker brings again. Gives
    /// back what is to be acknowledged at once: an older one whose place it takes, or itself when
    /// it is done with.
    #[must_use]
    pub fn take(&mut self, source: RuntimeId, seq: u64, reply: String) -> Option<String> {
        let lane = self.lanes.entry(source.clone()).or_default();
        if seq <= lane.done {
            return Some(reply);
        }
        if let Some(same) = lane.under_way.as_mut().filter(|parcel| parcel.seq == seq) {
            same.reply = reply;
            return None;
        }
        let older = lane.next.replace(Parcel { seq, reply, attempts: 0 });
        match older {
            Some(older) if older.seq < seq => {
                self.counts.superseded += 1;
                Some(older.reply)
            }
            // The same packet again brings a fresher acknowledgement subject and no more attempts.
            Some(older) => {
                if let Some(next) = &mut lane.next {
                    next.attempts = older.attempts;
                }
                None
            }
            None => {
                if lane.under_way.is_none() && !lane.is_resting {
                    self.turns.push_back(source);
                }
                None
            }
        }
    }

    /// Starts what may start. `bytes` is asked for the packet of a source and number, unless it may
    /// not be handed on any more. Gives back what is to be acknowledged for that.
    #[must_use]
    pub fn start(
        &mut self,
        bytes: impl Fn(&RuntimeId, u64) -> Result<Bytes, Fault>,
    ) -> Vec<String> {
        let mut given_up = Vec::new();
        while !self.is_resting && self.requests < REQUESTS_MAX {
            let Some(source) = self.turns.pop_front() else { break };
            let Some(lane) = self.lanes.get_mut(&source) else { continue };
            let Some(mut next) = lane.next.take() else { continue };
            match bytes(&source, next.seq) {
                Ok(bytes) => {
                    let post = post(self.client.clone(), &self.settings, &source, next.seq, bytes);
                    next.attempts += 1;
                    lane.under_way = Some(next);
                    let id = self.tasks.spawn(post).id();
                    self.names.insert(id, Task::Post(source));
                    self.requests += 1;
                }
                Err(fault) => {
                    lane.done = next.seq;
                    self.counts.fail(Failure::Barred(fault));
                    self.counts.given_up += 1;
                    given_up.push(next.reply);
                }
            }
        }
        given_up
    }

    /// Waits for the end of a request or a pause; for ever when there is none.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn ended(&mut self) -> Ended {
        loop {
            let Some(joined) = self.tasks.join_next_with_id().await else {
                return std::future::pending().await;
            };
            if let Some(ended) = self.named(joined) {
                return ended;
            }
        }
    }

    /// One that has ended already.
    pub fn try_ended(&mut self) -> Option<Ended> {
        let joined = self.tasks.try_join_next_with_id()?;
        self.named(joined)
    }

    fn named(&mut self, joined: Result<(Id, Outcome), JoinError>) -> Option<Ended> {
        // A task that panicked said nothing, and the connection is gone with it.
        let (id, outcome) = joined.unwrap_or_else(|error| (error.id(), Err(Failure::Broken)));
        Some(Ended(self.names.remove(&id)?, outcome))
    }

    /// Books an end. `None` unless it is that of a request: what is to be acknowledged, if
    /// anything, and how the request went.
    pub fn book(&mut self, Ended(task, outcome): Ended) -> Option<(Option<String>, Outcome)> {
        match task {
            Task::RestAll => self.is_resting = false,
            Task::Rest(source) => {
                let lane = self.lanes.get_mut(&source)?;
                lane.is_resting = false;
                if lane.next.is_some() {
                    self.turns.push_back(source);
                }
            }
            Task::Post(source) => {
                self.requests -= 1;
                if let Err(failure) = outcome {
                    self.counts.fail(failure);
                }
                return Some((self.answered(source, outcome), outcome));
            }
        }
        None
    }

    fn answered(&mut self, source: RuntimeId, outcome: Outcome) -> Option<String> {
        let lane = self.lanes.get_mut(&source)?;
        let parcel = lane.under_way.take()?;
        let Err(failure) = outcome else {
            (self.absences, lane.failures) = (0, 0);
            lane.done = parcel.seq;
            self.counts.done += 1;
            if lane.next.is_some() {
                self.turns.push_back(source);
            }
            return Some(parcel.reply);
        };
        let ended = if lane.next.is_some() {
            self.counts.superseded += 1;
            true
        } else {
            let gives_up = failure != Failure::Unreachable && parcel.attempts >= ATTEMPTS_MAX;
            self.counts.given_up += u64::from(gives_up);
            gives_up
        };
        let reply = if ended {
            lane.done = parcel.seq;
            Some(parcel.reply)
        } else {
            // Who was not there has refused nothing.
            let attempts = parcel.attempts - u32::from(failure == Failure::Unreachable);
            lane.next = Some(Parcel { attempts, ..parcel });
            None
        };
        if failure == Failure::Unreachable {
            // It is away for all sources alike; this one keeps its turn.
            self.turns.push_front(source);
            if !self.is_resting {
                self.is_resting = true;
                self.absences = self.absences.saturating_add(1);
                self.rest(self.absences, Task::RestAll);
            }
        } else {
            lane.failures = lane.failures.saturating_add(1);
            lane.is_resting = true;
            let failures = lane.failures;
            self.rest(failures, Task::Rest(source));
        }
        reply
    }

    fn rest(&mut self, failures: u32, task: Task) {
        let doublings = failures.saturating_sub(1).min(16);
        let pause = PAUSE_MIN.saturating_mul(1 << doublings).min(PAUSE_MAX);
        let rest = async move {
            tokio::time::sleep(pause).await;
            Ok(())
        };
        let id = self.tasks.spawn(rest).id();
        self.names.insert(id, task);
    }

    /// Isolated: ends what is under way and forgets what waits; nothing inbound reaches the runtime
    /// (P4). What was not acknowledged comes again.
    pub fn cut(&mut self) {
        self.tasks.abort_all();
        self.tasks = JoinSet::new();
        self.names.clear();
        self.turns.clear();
        self.requests = 0;
        self.is_resting = false;
        for lane in self.lanes.values_mut() {
            (lane.next, lane.under_way, lane.is_resting) = (None, None, false);
        }
    }
}

/// One attempt.
fn post(
    client: Client<HttpConnector, Full<Bytes>>,
    settings: &Settings,
    source: &RuntimeId,
    seq: u64,
    bytes: Bytes,
) -> impl Future<Output = Outcome> + use<> {
    let request = Request::post(settings.url.clone())
        .header(header::CONTENT_TYPE, "application/ld+json")
        .header("Driftgate-Source", source.as_str())
        .header("Driftgate-Seq", seq)
        .header("Driftgate-External", "true")
        .body(Full::new(bytes));
    let timeout = settings.timeout;
    async move {
        // A URL that makes no request was refused when the configuration was read.
        let request = request.map_err(|_| Failure::Unreachable)?;
        let deadline = Instant::now() + timeout;
        let response = timeout_at(deadline, client.request(request)).await;
        let response = response.map_err(|_| Failure::Timeout)?.map_err(|error| {
            tracing::debug!(%error, "delivery to the runtime failed");
            if error.is_connect() { Failure::Unreachable } else { Failure::Broken }
        })?;
        let status = response.status();
        // What the runtime did with the packet is said by its status; the rest is courtesy.
        let rest = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect();
        drop(timeout_at(deadline, rest).await);
        if status.is_success() { Ok(()) } else { Err(Failure::Refused) }
    }
}
