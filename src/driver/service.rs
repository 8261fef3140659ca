//! The micro service `driftgate` (NATS ADR-32): what `nats micro` sees of this sidecar.
//!
//! It says what is there and where the gate stands, never a packet. While the gate is neither open
//! nor in caution its endpoints answer 423; isolated it answers nothing, for then the server shows
//! no subscription of ours. What deliberately is not here: subscriptions, floods and reply
//! subjects, which are `nats::responder`'s.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Value, json};
use strum::VariantArray as _;
use tokio::task::JoinSet;

use super::run::Driver;
use crate::nats::responder::{Asked, Dropped, Endpoint, Question, SERVICE, ServiceSubject};
use crate::nats::subject::Prefix;
use crate::nats::{HeaderMap, Subject};
use crate::protocol::gate::{Band, Mode};
use crate::protocol::packet::{PROTOCOL_VERSION, RuntimeId};
use crate::protocol::presence::Instance;
use crate::protocol::time::{Now, Timestamp};
use crate::snapshots::Snapshots;

/// Indices that may be read at one time; a question more is told to come later.
const LISTS_MAX: usize = 4;
/// What `nats micro info` shows.
const DESCRIPTION: &str = "Driftgate sidecar: gate, peers and snapshots of one runtime";
const ERROR: &str = "Nats-Service-Error";
const ERROR_CODE: &str = "Nats-Service-Error-Code";

/// What an endpoint cannot answer: a code and a text for the asker.
type Problem = (u16, &'static str);
const NOT_OPEN: Problem = (423, "the gate is not open");
const BUSY: Problem = (503, "too many indices are being read");
const NO_INDEX: Problem = (503, "the index cannot be read now");

/// What one endpoint has done.
#[derive(Clone, Debug, Default)]
struct Statistics {
    requests: u64,
    errors: u64,
    last_error: String,
    time: Duration,
}

/// An index that was read for an asker.
#[derive(Debug)]
pub(super) struct Listed {
    reply: Subject,
    since: Duration,
    outcome: Result<Value, Problem>,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Service {
    runtime_id: RuntimeId,
    prefix: Prefix,
    /// The service's id: the instance that presence shows.
    instance: String,
    started: Timestamp,
    statistics: BTreeMap<Endpoint, Statistics>,
    snapshots: Option<Snapshots>,
    lists: JoinSet<Listed>,
    dropped: BTreeMap<Dropped, u64>,
}

impl Service {
    pub(super) fn new(
        runtime_id: RuntimeId,
        prefix: Prefix,
        instance: Option<Instance>,
        snapshots: Option<Snapshots>,
        now: Now,
    ) -> Self {
        Self {
            runtime_id,
            prefix,
            // Without randomness there is no instance, and no connection either.
            instance: instance.unwrap_or(Instance::new(0)).to_string(),
            started: now.wall,
            statistics: BTreeMap::new(),
            snapshots,
            lists: JoinSet::new(),
            dropped: BTreeMap::new(),
        }
    }

    /// Questions without an answer, by reason.
    pub(super) fn dropped(&self) -> BTreeMap<&'static str, u64> {
        self.dropped.iter().map(|(reason, count)| (reason.word(), *count)).collect()
    }

    /// Nothing that was asked before a cut is answered.
    pub(super) fn cut(&mut self) {
        self.lists = JoinSet::new();
    }

    /// An index that was read; pending while none is being read.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn listed(&mut self) -> Listed {
        loop {
            match self.lists.join_next().await {
                Some(Ok(listed)) => return listed,
                // It does not panic, and a cut forgets it.
                Some(Err(_)) => {}
                None => std::future::pending().await,
            }
        }
    }

    fn count(&mut self, endpoint: Endpoint, time: Duration, problem: Option<Problem>) {
        let statistics = self.statistics.entry(endpoint).or_default();
        statistics.requests += 1;
        statistics.time += time;
        if let Some((code, text)) = problem {
            statistics.errors += 1;
            statistics.last_error = format!("{code}:{text}");
        }
    }

    /// What every answer begins with, and what comes after it.
    fn answer(&self, kind: &str, more: Value) -> Value {
        let mut answer = json!({
            "type": format!("io.nats.micro.v1.{kind}_response"),
            "name": SERVICE,
            "id": self.instance,
            "version": env!("CARGO_PKG_VERSION"),
            "metadata": {
                "runtime_id": self.runtime_id,
                "protocol_version": PROTOCOL_VERSION,
                "version": env!("CARGO_PKG_VERSION"),
            },
        });
        if let (Value::Object(answer), Value::Object(more)) = (&mut answer, more) {
            answer.extend(more);
        }
        answer
    }

    fn ping(&self) -> Value {
        self.answer("ping", Value::Null)
    }

    fn info(&self) -> Value {
        let endpoint = |endpoint: &Endpoint| {
            let subject = self.prefix.service(&self.runtime_id, endpoint.word());
            json!({ "name": endpoint.word(), "subject": subject.as_str(), "queue_group": "",
                    "metadata": {} })
        };
        let endpoints: Value = Endpoint::VARIANTS.iter().map(endpoint).collect();
        self.answer("info", json!({ "description": DESCRIPTION, "endpoints": endpoints }))
    }

    fn stats(&self) -> Value {
        let endpoint = |endpoint: &Endpoint| {
            let subject = self.prefix.service(&self.runtime_id, endpoint.word());
            let Statistics { requests, errors, last_error, time } =
                self.statistics.get(endpoint).cloned().unwrap_or_default();
            let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
            json!({ "name": endpoint.word(), "subject": subject.as_str(), "queue_group": "",
                    "num_requests": requests, "num_errors": errors, "last_error": last_error,
                    "processing_time": nanoseconds,
                    "average_processing_time": nanoseconds.checked_div(requests).unwrap_or(0) })
        };
        let endpoints: Value = Endpoint::VARIANTS.iter().map(endpoint).collect();
        self.answer("stats", json!({ "started": self.started, "endpoints": endpoints }))
    }
}

impl Driver {
    /// Opens the subscriptions for questions that the gate lets stand.
    pub(super) async fn open_services(&mut self) {
        // In shadow nobody is told anything but that we are there.
        let services = match self.bridge.mode() {
            Mode::Enforce => ServiceSubject::VARIANTS,
            Mode::Shadow => &[
                ServiceSubject::Everyone,
                ServiceSubject::Fleet,
                ServiceSubject::Instance,
                ServiceSubject::Endpoints,
            ],
        };
        let instance = self.service.instance.clone();
        self.order(|link| link.open_services(services, &instance)).await;
    }

    /// Somebody asks.
    pub(super) fn asked(&mut self, question: Result<Question, Dropped>) {
        let answered = question.and_then(|question| {
            let now = self.clock.now();
            if !self.bridge.may_answer() || self.bridge.is_overdue(now) {
                return Err(Dropped::Closed);
            }
            match question.asked {
                Asked::Ping => self.respond(&question.reply, &self.service.ping()),
                Asked::Info => self.respond(&question.reply, &self.service.info()),
                Asked::Stats => self.respond(&question.reply, &self.service.stats()),
                Asked::Endpoint(endpoint) => self.serve(now, endpoint, question.reply),
                Asked::Handshake => self.answer_handshake(&question),
            }
        });
        self.count_dropped(answered);
    }

    fn count_dropped(&mut self, answered: Result<(), Dropped>) {
        if let Err(dropped) = answered {
            *self.service.dropped.entry(dropped).or_default() += 1;
            tracing::debug!(reason = dropped.word(), "a question got no answer");
        }
    }

    fn respond(&mut self, reply: &Subject, body: &impl Serialize) -> Result<(), Dropped> {
        self.send_answer(reply, HeaderMap::new(), serde_json::to_vec(body).unwrap_or_default())
    }

    pub(super) fn send_answer(
        &mut self,
        reply: &Subject,
        headers: HeaderMap,
        body: Vec<u8>,
    ) -> Result<(), Dropped> {
        let link = self.connector.link().ok_or(Dropped::Connection)?;
        self.keeper.doubt();
        link.respond(reply, headers, Bytes::from(body))
    }

    /// Answers for an endpoint, now or when the index is read.
    fn serve(&mut self, now: Now, endpoint: Endpoint, reply: Subject) -> Result<(), Dropped> {
        let outcome = match endpoint {
            _ if !self.may_show() => Err(NOT_OPEN),
            Endpoint::Peers => Ok(json!({ "peers": self.bridge.peer_modes(now) })),
            Endpoint::Safety => Ok(json!(self.bridge.safety(now).without_refused())),
            Endpoint::Snapshots if self.service.lists.len() >= LISTS_MAX => Err(BUSY),
            Endpoint::Snapshots => match self.service.snapshots.clone() {
                None => Ok(json!({ "snapshots": [] })),
                Some(snapshots) => {
                    self.service.lists.spawn(async move {
                        // What is unsent or revoked is ours to know.
                        let index = snapshots.list(None).await.map(|mut items| {
                            items.retain(|item| item.state == "stored");
                            json!({ "snapshots": items })
                        });
                        Listed { reply, since: now.mono, outcome: index.map_err(|_| NO_INDEX) }
                    });
                    return Ok(());
                }
            },
        };
        self.finish(endpoint, &reply, now.mono, outcome)
    }

    /// An index was read: the gate may have closed meanwhile.
    pub(super) fn listed(&mut self, listed: Listed) {
        let Listed { reply, since, outcome } = listed;
        let outcome = outcome.and_then(|index| self.may_show().then_some(index).ok_or(NOT_OPEN));
        let answered = match self.bridge.may_answer() {
            true => self.finish(Endpoint::Snapshots, &reply, since, outcome),
            false => Err(Dropped::Closed),
        };
        self.count_dropped(answered);
    }

    fn finish(
        &mut self,
        endpoint: Endpoint,
        reply: &Subject,
        since: Duration,
        outcome: Result<Value, Problem>,
    ) -> Result<(), Dropped> {
        let time = self.clock.now().mono.saturating_sub(since);
        self.service.count(endpoint, time, outcome.as_ref().err().copied());
        match outcome {
            Ok(body) => self.respond(reply, &body),
            Err((code, text)) => {
                let mut headers = HeaderMap::new();
                headers.insert(ERROR, text);
                headers.insert(ERROR_CODE, code.to_string().as_str());
                self.send_answer(reply, headers, json!({ "error": text }).to_string().into_bytes())
            }
        }
    }

    /// Whether endpoints show anything: what the gate would export, and where it exports at all.
    fn may_show(&self) -> bool {
        let is_open = matches!(self.bridge.band(), Band::Open | Band::Caution);
        is_open && !self.bridge.is_closing() && self.bridge.mode() == Mode::Enforce
    }
}
