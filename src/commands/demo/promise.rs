//! The promises that the demonstration checks, each against evidence that does
//! not come from the sidecar that gives it: the script knows what it reported, the observer what
//! crossed, the server what is subscribed.

use std::collections::BTreeSet;
use std::time::Duration;

use super::observer::Observed;
use crate::protocol::gate::{BLOCK_MAX, Band, ISOLATE_MAX, REOPEN_MAX};
use crate::protocol::view::{Barrier, Decision, ReportReply};

/// How a promise fared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Broken,
    Held,
    /// Nothing happened yet that could have broken it.
    Unseen,
}

/// One line of the summary.
#[derive(Clone, Debug)]
pub(super) struct Promise {
    pub(super) code: &'static str,
    pub(super) name: &'static str,
    pub(super) outcome: Outcome,
    pub(super) evidence: String,
}

/// One report and its reply, as the script saw them.
#[derive(Debug)]
pub(super) struct Replied<'a> {
    pub(super) source: &'a str,
    /// The gate value of what the script reported, not what the reply says.
    pub(super) drift: f64,
    pub(super) before: Band,
    pub(super) reply: &'a ReportReply,
    pub(super) took: Duration,
}

/// Everything that was noted for judging.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    refused: BTreeSet<(String, u64)>,
    closings: u32,
    unconfirmed: u32,
    slowest: Duration,
    /// Reports of a closed gate in the caution band, which must not reopen it.
    latched: u32,
    reopened: u32,
    unlatched: Vec<String>,
    looks: u32,
    /// Subscriptions that the server showed while isolated.
    subscribed: u64,
    blind_looks: u32,
    book_looks: u32,
    unbalanced: u32,
    faults: Vec<String>,
}

/// Faults that are kept in words; one is enough to fail.
const FAULTS_MAX: usize = 8;

impl Evidence {
    /// Notes one reply.
    pub(super) fn replied(&mut self, replied: &Replied<'_>) {
        let Replied { source, drift, before, reply, took } = *replied;
        if matches!(reply.verdict, Decision::Block | Decision::Isolate) {
            self.refused.insert((source.to_owned(), reply.seq));
        }
        if let Some(barrier) = reply.barrier {
            self.closings += 1;
            self.slowest = self.slowest.max(took);
            self.unconfirmed += u32::from(barrier == Barrier::Unconfirmed);
        }
        let should_be = expected(before, drift);
        if reply.band != should_be {
            let words = format!("{drift:.4} took {before} to {}, not {should_be}", reply.band);
            self.unlatched.push(words);
            self.unlatched.truncate(FAULTS_MAX);
        } else if before.is_closed() && should_be == Band::Open {
            // The first report of each sidecar opens a gate that nothing has closed yet.
            self.reopened += u32::from(self.closings > 0);
        } else if before.is_closed() && drift < BLOCK_MAX {
            self.latched += 1;
        }
    }

    /// Notes how many subscriptions the server showed of an isolated sidecar; `None` when it could
    /// not be asked.
    pub(super) fn looked(&mut self, subscriptions: Option<u64>) {
        match subscriptions {
            Some(count) => {
                self.looks += 1;
                self.subscribed += count;
            }
            None => self.blind_looks += 1,
        }
    }

    /// Notes whether the books of one sidecar added up at one moment.
    pub(super) fn balanced(&mut self, is_balanced: bool) {
        self.book_looks += 1;
        self.unbalanced += u32::from(!is_balanced);
    }

    /// Notes what went wrong with the demonstration itself. It fails for it.
    pub(super) fn fault(&mut self, words: String) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(words);
        }
    }

    /// What went wrong with the demonstration itself.
    pub(super) fn faults(&self) -> &[String] {
        &self.faults
    }

    /// Every promise, as far as it has been seen. `accounts` says how the final sums came out;
    /// `None` while the run lasts, for packets on their way are in some sums and not in others.
    pub(super) fn judge(
        &self,
        seen: &Observed,
        accounts: Option<Result<String, String>>,
    ) -> Vec<Promise> {
        vec![
            self.unstable_export(seen),
            self.barrier(seen),
            self.hysteresis(),
            self.isolation(),
            self.accounting(accounts),
        ]
    }

    fn unstable_export(&self, seen: &Observed) -> Promise {
        let escaped = self.refused.iter().filter(|(source, seq)| seen.has(source, *seq)).count();
        let is_broken = escaped > 0 || seen.drift_max >= BLOCK_MAX;
        let words = format!(
            "{} refused reports, {escaped} crossed; top drift {:.3}",
            self.refused.len(),
            seen.drift_max
        );
        Promise::new("P1", "no unstable export", is_broken, !self.refused.is_empty(), words)
    }

    fn barrier(&self, seen: &Observed) -> Promise {
        let mut words = format!(
            "{} closings, slowest {:.1} ms, then {} packets",
            self.closings,
            self.slowest.as_secs_f64() * 1000.0,
            seen.broken.len()
        );
        if self.unconfirmed > 0 {
            // What the promise then says: the connection was dropped, and the reply said so.
            words.push_str(&format!("; {} by dropping the connection", self.unconfirmed));
        }
        Promise::new("P2", "barrier", !seen.broken.is_empty(), self.closings > 0, words)
    }

    fn hysteresis(&self) -> Promise {
        let words = self.unlatched.first().cloned().unwrap_or_else(|| {
            format!(
                "{} of {REOPEN_MAX} to {BLOCK_MAX} stayed closed, reopened {}x",
                self.latched, self.reopened
            )
        });
        let is_seen = self.latched > 0 && self.reopened > 0;
        Promise::new("P3", "hysteresis", !self.unlatched.is_empty(), is_seen, words)
    }

    fn isolation(&self) -> Promise {
        let mut words =
            format!("{} looks at /connz: {} subscriptions", self.looks, self.subscribed);
        if self.blind_looks > 0 {
            words.push_str(&format!("; {} unanswered", self.blind_looks));
        }
        Promise::new("P4", "isolation", self.subscribed > 0, self.looks > 0, words)
    }

    fn accounting(&self, accounts: Option<Result<String, String>>) -> Promise {
        let (is_wrong, words) = match accounts {
            None => (false, format!("{} looks, {} unbalanced", self.book_looks, self.unbalanced)),
            Some(Ok(words)) => (false, words),
            Some(Err(words)) => (true, words),
        };
        Promise::new(
            "P8",
            "accounting",
            is_wrong || self.unbalanced > 0,
            self.book_looks > 0,
            words,
        )
    }
}

impl Promise {
    fn new(
        code: &'static str,
        name: &'static str,
        is_broken: bool,
        is_seen: bool,
        evidence: String,
    ) -> Self {
        let outcome = match (is_broken, is_seen) {
            (true, _) => Outcome::Broken,
            (false, true) => Outcome::Held,
            (false, false) => Outcome::Unseen,
        };
        Self { code, name, outcome, evidence }
    }
}

/// The band that the specification asks for, written here once more: an index below the reopening
/// mark opens, whatever came before; a closed gate otherwise only gets tighter.
fn expected(before: Band, drift: f64) -> Band {
    let read = if drift >= ISOLATE_MAX {
        Band::Isolated
    } else if drift >= BLOCK_MAX {
        Band::Blocked
    } else if drift >= REOPEN_MAX {
        Band::Caution
    } else {
        return Band::Open;
    };
    if before.is_closed() { before.max(read) } else { read }
}
