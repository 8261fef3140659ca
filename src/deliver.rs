//! Hands accepted packets to the runtime, if it asked for that: the POST of each and the pauses.
//! Which is handed on, and when, says `protocol/delivery.rs`.
//!
//! What comes in is evidence, so the answer's body is not looked at.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, Uri, header};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, timeout_at};

use crate::protocol::delivery::{Miss, Rest, Schedule, Start};
use crate::protocol::envelope::Admission;
use crate::protocol::packet::RuntimeId;
use crate::protocol::refusal::Fault;

pub use crate::protocol::delivery::{ATTEMPTS_MAX, REQUESTS_MAX};

/// How long a connection is kept for the next request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// What is read of an answer's body, so that its connection can be used again; a longer answer
/// costs its connection.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

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

/// What a task was started for.
#[derive(Debug)]
enum Task {
    /// The POST of a source's packet.
    Post(RuntimeId),
    /// A source's pause, or that of all.
    Rest(Option<RuntimeId>),
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

/// See the module's documentation.
#[derive(Debug)]
pub struct Deliveries {
    /// `http://host:port/path` of the runtime.
    url: Uri,
    /// Bound on one attempt.
    timeout: Duration,
    client: Client<HttpConnector, Full<Bytes>>,
    schedule: Schedule<String>,
    tasks: JoinSet<Outcome>,
    names: HashMap<Id, Task>,
    /// Failed attempts, and packets that were not offered any more.
    failed: BTreeMap<&'static str, u64>,
}

impl Deliveries {
    /// Nothing under way. `url` is `http://host:port/path` of the runtime, `timeout` the bound on
    /// one attempt. Must be called within a tokio runtime.
    #[must_use]
    pub fn new(url: Uri, timeout: Duration) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(timeout));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(REQUESTS_MAX)
            .build(connector);
        Self {
            url,
            timeout,
            client,
            schedule: Schedule::default(),
            tasks: JoinSet::new(),
            names: HashMap::new(),
            failed: BTreeMap::new(),
        }
    }

    /// What was counted so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let totals = self.schedule.totals();
        Counts {
            done: totals.done,
            superseded: totals.superseded,
            given_up: totals.given_up,
            failed: self.failed.clone(),
        }
    }

    /// See [`Schedule::take`].
    #[must_use]
    pub fn take(&mut self, source: RuntimeId, seq: u64, reply: String) -> Option<String> {
        self.schedule.take(source, seq, reply)
    }

    /// Starts what may start. `packet` is asked for that of a source and number, unless it may not
    /// be handed on any more. Gives back what is to be acknowledged for that.
    #[must_use]
    pub fn start(
        &mut self,
        packet: impl Fn(&RuntimeId, u64) -> Result<(Bytes, Admission), Fault>,
    ) -> Vec<String> {
        let mut given_up = Vec::new();
        while let Some(start) = self.schedule.start(&packet) {
            match start {
                Start::Request { source, seq, bytes } => {
                    let (client, url) = (self.client.clone(), self.url.clone());
                    let post = post(client, (url, self.timeout), (&source, seq), bytes);
                    let id = self.tasks.spawn(post).id();
                    self.names.insert(id, Task::Post(source));
                }
                Start::GivenUp { reply, fault } => {
                    self.fail(Failure::Barred(fault));
                    given_up.push(reply);
                }
            }
        }
        given_up
    }

    fn fail(&mut self, failure: Failure) {
        *self.failed.entry(failure.word()).or_default() += 1;
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
            Task::Rest(source) => {
                self.schedule.rested(source);
                None
            }
            Task::Post(source) => {
                let outcome_of = outcome.map_err(|failure| {
                    self.fail(failure);
                    if failure == Failure::Unreachable { Miss::Absent } else { Miss::Failed }
                });
                let (reply, rest) = self.schedule.answered(source, outcome_of);
                if let Some(rest) = rest {
                    self.rest(rest);
                }
                Some((reply, outcome))
            }
        }
    }

    fn rest(&mut self, Rest { source, pause }: Rest) {
        let rest = async move {
            tokio::time::sleep(pause).await;
            Ok(())
        };
        let id = self.tasks.spawn(rest).id();
        self.names.insert(id, Task::Rest(source));
    }

    /// Isolated: ends what is under way and forgets what waits (P4).
    pub fn cut(&mut self) {
        self.tasks.abort_all();
        self.tasks = JoinSet::new();
        self.names.clear();
        self.schedule.cut();
    }
}

/// One attempt.
fn post(
    client: Client<HttpConnector, Full<Bytes>>,
    (url, timeout): (Uri, Duration),
    (source, seq): (&RuntimeId, u64),
    (bytes, admission): (Bytes, Admission),
) -> impl Future<Output = Outcome> + use<> {
    let request = Request::post(url)
        .header(header::CONTENT_TYPE, "application/ld+json")
        .header("Driftgate-Source", source.as_str())
        .header("Driftgate-Seq", seq)
        .header("Driftgate-External", "true")
        .header("Driftgate-Allowed-Use", admission.allowed_use.join(", "))
        .body(Full::new(bytes));
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
