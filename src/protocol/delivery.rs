//! Which accepted packet is handed to the runtime next: one request under way per source.
//!
//! The newest packet of each source waits here, only as its number; whether it may still be handed
//! on is asked when its turn comes. While a request runs, newer packets supersede each other behind
//! it (P5); nothing but a cut ends it before its time. Sources take turns, and at most
//! [`REQUESTS_MAX`] requests run at once over all of them. A packet is done, and may be
//! acknowledged to the broker, after the runtime has taken it, when a newer one took its place, or
//! when it is given up. A runtime that refuses or is away is asked again after growing pauses
//! (P10). What deliberately is not here: the requests, and the waiting.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use super::packet::RuntimeId;

/// Requests under way at once, over all sources: a runtime is one process.
pub const REQUESTS_MAX: usize = 4;
/// Times that one packet is offered to a runtime that answers and refuses it, or does not answer.
pub const ATTEMPTS_MAX: u32 = 6;
/// First pause after a failed attempt; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// Longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// One packet on its way, by its number and what acknowledges it.
#[derive(Clone, Debug)]
struct Parcel<R> {
    seq: u64,
    reply: R,
    attempts: u32,
}

/// One source.
#[derive(Clone, Debug)]
struct Lane<R> {
    /// The newest packet that is not under way.
    next: Option<Parcel<R>>,
    under_way: Option<Parcel<R>>,
    /// It failed last and is not asked for before its pause is over.
    is_resting: bool,
    /// Failed attempts in a row.
    failures: u32,
    /// The newest number that is done with.
    done: u64,
}

/// Why the runtime has not taken a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// It was not there, for any source.
    Absent,
    /// It refused, or did not answer.
    Failed,
}

/// A pause that has to end with [`Schedule::rested`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rest {
    /// Whose; `None` where the runtime was away.
    pub source: Option<RuntimeId>,
    /// How long.
    pub pause: Duration,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Packets that the runtime took.
    pub done: u64,
    /// Packets that a newer one of their source took the place of.
    pub superseded: u64,
    /// Packets that were given up.
    pub given_up: u64,
}

/// See the module's documentation. `R` is what acknowledges a packet to the broker.
#[derive(Clone, Debug)]
pub struct Schedule<R> {
    /// Bounded by the peers that were ever configured.
    lanes: BTreeMap<RuntimeId, Lane<R>>,
    /// Sources with a packet and neither a request nor a pause under way, in the order of turns.
    turns: VecDeque<RuntimeId>,
    requests: usize,
    is_resting: bool,
    /// Attempts in a row that found no runtime.
    absences: u32,
    totals: Totals,
}

impl<R> Default for Schedule<R> {
    fn default() -> Self {
        Self {
            lanes: BTreeMap::new(),
            turns: VecDeque::new(),
            requests: 0,
            is_resting: false,
            absences: 0,
            totals: Totals::default(),
        }
    }
}

impl<R> Schedule<R> {
    /// What was counted so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Whether nothing waits and nothing is under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.lanes.values().all(|lane| lane.next.is_none() && lane.under_way.is_none())
    }

    /// Takes the newest accepted packet of a source, or one that the broker brings again. Gives
    /// back what is to be acknowledged at once: an older one whose place it takes, or itself when
    /// it is done with.
    #[must_use]
    pub fn take(&mut self, source: RuntimeId, seq: u64, reply: R) -> Option<R> {
        let lane = self.lanes.entry(source.clone()).or_insert_with(|| Lane {
            next: None,
            under_way: None,
            is_resting: false,
            failures: 0,
            done: 0,
        });
        if seq == lane.done {
            return Some(reply);
        }
        if let Some(same) = lane.under_way.as_mut().filter(|parcel| parcel.seq == seq) {
            same.reply = reply;
            return None;
        }
        let older = lane.next.replace(Parcel { seq, reply, attempts: 0 });
        match older {
            Some(older) if older.seq != seq => {
                self.totals.superseded += 1;
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

    /// Starts the next request, if one may start. `bytes` is asked for the packet of a source and
    /// number, unless it may not be handed on any more.
    #[must_use]
    pub fn start<B, E>(
        &mut self,
        bytes: impl Fn(&RuntimeId, u64) -> Result<B, E>,
    ) -> Option<Start<R, B, E>> {
        while !self.is_resting && self.requests < REQUESTS_MAX {
            let source = self.turns.pop_front()?;
            let Some(lane) = self.lanes.get_mut(&source) else { continue };
            let Some(mut next) = lane.next.take() else { continue };
            let seq = next.seq;
            match bytes(&source, seq) {
                Ok(bytes) => {
                    next.attempts += 1;
                    lane.under_way = Some(next);
                    self.requests += 1;
                    return Some(Start::Request { source, seq, bytes });
                }
                Err(fault) => {
                    lane.done = seq;
                    self.totals.given_up += 1;
                    return Some(Start::GivenUp { reply: next.reply, fault });
                }
            }
        }
        None
    }

    /// Books how the request of a source has ended. Gives back what is to be acknowledged, and the
    /// pause that begins.
    pub fn answered(
        &mut self,
        source: RuntimeId,
        outcome: Result<(), Miss>,
    ) -> (Option<R>, Option<Rest>) {
        self.requests = self.requests.saturating_sub(1);
        let Some(lane) = self.lanes.get_mut(&source) else { return (None, None) };
        let Some(parcel) = lane.under_way.take() else { return (None, None) };
        let Err(miss) = outcome else {
            (self.absences, lane.failures) = (0, 0);
            lane.done = parcel.seq;
            self.totals.done += 1;
            if lane.next.is_some() {
                self.turns.push_back(source);
            }
            return (Some(parcel.reply), None);
        };
        let ended = if lane.next.is_some() {
            self.totals.superseded += 1;
            true
        } else {
            let gives_up = miss == Miss::Failed && parcel.attempts >= ATTEMPTS_MAX;
            self.totals.given_up += u64::from(gives_up);
            gives_up
        };
        let reply = if ended {
            lane.done = parcel.seq;
            Some(parcel.reply)
        } else {
            // Who was not there has refused nothing.
            let attempts = parcel.attempts - u32::from(miss == Miss::Absent);
            lane.next = Some(Parcel { attempts, ..parcel });
            None
        };
        let rest = match miss {
            Miss::Failed => {
                lane.failures = lane.failures.saturating_add(1);
                lane.is_resting = true;
                Some(Rest { pause: pause(lane.failures), source: Some(source) })
            }
            Miss::Absent => {
                // It is away for all sources alike; this one keeps its turn.
                self.turns.push_front(source);
                (!core::mem::replace(&mut self.is_resting, true)).then(|| {
                    self.absences = self.absences.saturating_add(1);
                    Rest { pause: pause(self.absences), source: None }
                })
            }
        };
        (reply, rest)
    }

    /// A pause is over.
    pub fn rested(&mut self, source: Option<RuntimeId>) {
        let Some(source) = source else {
            self.is_resting = false;
            return;
        };
        if let Some(lane) = self.lanes.get_mut(&source) {
            lane.is_resting = false;
            if lane.next.is_some() {
                self.turns.push_back(source);
            }
        }
    }

    /// Isolated: what is under way has ended and what waits is forgotten; nothing inbound reaches
    /// the runtime (P4). What was not acknowledged comes again.
    pub fn cut(&mut self) {
        self.turns.clear();
        self.requests = 0;
        self.is_resting = false;
        for lane in self.lanes.values_mut() {
            (lane.next, lane.under_way, lane.is_resting) = (None, None, false);
        }
    }
}

/// What became of a source's turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start<R, B, E> {
    /// The request is to be made; it ends with [`Schedule::answered`].
    Request {
        /// Whose packet.
        source: RuntimeId,
        /// Its number.
        seq: u64,
        /// What was asked for.
        bytes: B,
    },
    /// It may not be handed on any more.
    GivenUp {
        /// What is to be acknowledged.
        reply: R,
        /// Why.
        fault: E,
    },
}

fn pause(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    PAUSE_MIN.saturating_mul(1 << doublings).min(PAUSE_MAX)
}
