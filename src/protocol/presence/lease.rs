//! Who of several instances holds a runtime's name.
//!
//! Each instance writes the name's one entry under the condition that nobody else has written since
//! it read it. A newcomer that finds another live instance there stays fenced, writes nothing, and
//! claims the name when its runtime is fit to open. Whoever then loses a write reads why: a higher
//! claim has replaced it; anything else it writes anew. The bucket proves nothing, so what does not
//! verify fences nobody, and a bucket that cannot be read fences nobody for longer than the entry
//! that it was fenced by counts.

use core::time::Duration;

use super::{Instance, Presence, REFRESH, TTL};
use crate::protocol::reason::Reason;
use crate::protocol::refusal::Refusal;
use crate::protocol::time::Now;

/// Another live sidecar has the id of our runtime. While it does, the gate is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fence {
    /// It was there first.
    Twin,
    /// It has taken over.
    Replaced,
}

impl Fence {
    /// What the gate's reasons say of it.
    #[must_use]
    pub fn reason(self) -> Reason {
        match self {
            Self::Twin => Reason::Twin,
            Self::Replaced => Reason::Replaced,
        }
    }
}

/// What a look at the own entry has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// The broker does not say: no bucket, no permission, no answer.
    Unreachable,
    /// What stands there.
    Found {
        /// Its sequence number on the bucket's stream; 0 when nothing stands there.
        revision: u64,
        /// A verified entry, nothing, or why what stands there counts as nothing.
        entry: Result<Option<Presence>, Refusal>,
    },
}

/// What is to be done with the bucket now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseStep {
    /// Read the own entry.
    Read,
    /// Write it with this claim, if the newest sequence number of the key is still this one.
    Write {
        /// What to write.
        claim: u64,
        /// The condition.
        expected: u64,
    },
}

/// Where this instance stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Standing {
    /// Nobody else is known to hold the name.
    Free,
    /// Another live instance holds it, until then unless it is seen again.
    Waiting(Duration),
    /// The same, and this one has been found fit to open: it claims.
    Claiming(Duration),
    /// A higher claim has taken the name over.
    Replaced(Duration),
}

/// What the broker owes an answer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Asked {
    Nothing,
    Read(Duration),
    Write(Duration),
}

/// See the module's documentation. One at a time is asked of the broker, and each connection begins
/// with a read.
#[derive(Clone, Debug)]
pub struct Lease {
    me: Instance,
    /// The life before this one on the same disk, which is over.
    earlier: Option<Instance>,
    standing: Standing,
    /// What the name is held by; 0 before the first claim.
    claim: u64,
    /// The highest verified claim of others.
    highest: u64,
    /// The newest sequence number of the key, as far as it is known.
    revision: Option<u64>,
    asked: Asked,
    /// Whether this connection has had its read.
    is_read: bool,
    /// Whether any connection has.
    has_read: bool,
    /// When to write or read again.
    due: Duration,
    /// Refreshes so far, for their jitter.
    rounds: u64,
}

impl Lease {
    /// An instance that has read and written nothing.
    #[must_use]
    pub fn new(me: Instance, earlier: Option<Instance>) -> Self {
        Self {
            me,
            earlier,
            standing: Standing::Free,
            claim: 0,
            highest: 0,
            revision: None,
            asked: Asked::Nothing,
            is_read: false,
            has_read: false,
            due: Duration::ZERO,
            rounds: 0,
        }
    }

    /// Whose lease it is.
    #[must_use]
    pub fn instance(&self) -> Instance {
        self.me
    }

    /// Why the gate has to stay closed, if it has.
    #[must_use]
    pub fn fence(&self) -> Option<Fence> {
        match self.standing {
            Standing::Free => None,
            Standing::Waiting(_) | Standing::Claiming(_) => Some(Fence::Twin),
            Standing::Replaced(_) => Some(Fence::Replaced),
        }
    }

    /// Whether it is known on this connection who holds the name, as far as it can be.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.is_read
    }

    /// Whether no write is unanswered.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        !matches!(self.asked, Asked::Write(_))
    }

    /// The connection, or its subscription for answers, is new or gone.
    pub fn reset(&mut self) {
        self.asked = Asked::Nothing;
        self.revision = None;
        self.is_read = false;
        self.due = Duration::ZERO;
    }

    /// The runtime's report would open the gate. An instance that waits claims the name; what it
    /// opens by is a later report, when the name is its own.
    pub fn fit(&mut self) {
        if let Standing::Waiting(until) = self.standing {
            self.standing = Standing::Claiming(until);
            self.due = Duration::ZERO;
        }
    }

    /// The gate has moved: what stands in the bucket, or is on its way there, is no longer true.
    pub fn touch(&mut self) {
        self.due = Duration::ZERO;
    }

    /// Who was known to hold the name and has not been seen since counts no more.
    pub fn lapse(&mut self, now: Duration) {
        if let Standing::Waiting(until) | Standing::Claiming(until) | Standing::Replaced(until) =
            self.standing
            && until <= now
        {
            self.standing = Standing::Free;
            self.revision = None;
            self.touch();
        }
        // An answer that never comes: what the key holds is unknown.
        if let Asked::Read(until) | Asked::Write(until) = self.asked
            && until <= now
        {
            self.is_read |= matches!(self.asked, Asked::Read(_));
            self.asked = Asked::Nothing;
            self.revision = None;
            self.wait(now);
        }
    }

    /// When [`Self::lapse`] or [`Self::next`] has something to do by time alone.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        let asked = match self.asked {
            Asked::Nothing => self.due,
            Asked::Read(until) | Asked::Write(until) => until,
        };
        match self.standing {
            Standing::Free => asked,
            Standing::Waiting(until) | Standing::Claiming(until) | Standing::Replaced(until) => {
                asked.min(until)
            }
        }
    }

    /// What to do now; its answer is waited for until `now` and `timeout`.
    pub fn next(&mut self, now: Now, timeout: Duration) -> Option<LeaseStep> {
        if self.asked != Asked::Nothing || self.due > now.mono {
            return None;
        }
        let until = now.mono.saturating_add(timeout);
        self.due = Duration::MAX;
        match self.revision.filter(|_| self.writes()) {
            Some(expected) => {
                self.asked = Asked::Write(until);
                Some(LeaseStep::Write { claim: self.take_claim(now), expected })
            }
            None => {
                self.asked = Asked::Read(until);
                Some(LeaseStep::Read)
            }
        }
    }

    /// What to write at once, before the connection is cut; `None` when the name is not ours to
    /// write, or when it is not known what stands there.
    pub fn last(&mut self, now: Now, timeout: Duration) -> Option<LeaseStep> {
        let is_ours = self.standing == Standing::Free && self.asked == Asked::Nothing;
        let expected = self.revision.filter(|_| is_ours)?;
        self.asked = Asked::Write(now.mono.saturating_add(timeout));
        self.due = Duration::MAX;
        Some(LeaseStep::Write { claim: self.take_claim(now), expected })
    }

    /// The answer to a read; whether it is the first of this life and another life says that an
    /// operator holds the runtime. Claims and times further ahead than `skew_max` are believed of
    /// nobody.
    pub fn found(&mut self, now: Now, skew_max: Duration, reading: &Reading) -> bool {
        if !matches!(self.asked, Asked::Read(_)) {
            return false;
        }
        self.asked = Asked::Nothing;
        self.is_read = true;
        let Reading::Found { revision, entry } = reading else {
            self.revision = None;
            self.wait(now.mono);
            return false;
        };
        let is_first = !core::mem::replace(&mut self.has_read, true);
        self.revision = Some(*revision);
        let rival = entry.as_ref().ok().and_then(Option::as_ref).filter(|entry| {
            let horizon = now.wall.plus(skew_max);
            let is_ahead = entry.at > horizon || entry.claim > horizon.unix_us();
            entry.instance != self.me && Some(entry.instance) != self.earlier && !is_ahead
        });
        let Some(rival) = rival else {
            self.own(now.mono);
            return false;
        };
        let is_held = is_first && rival.hold;
        self.highest = self.highest.max(rival.claim);
        let left = TTL.saturating_sub(now.wall.since(rival.at));
        if left.is_zero() || rival.has_stopped() {
            self.own(now.mono);
            return is_held;
        }
        let until = now.mono.saturating_add(left);
        let is_higher = (rival.claim, rival.instance) > (self.claim, self.me);
        let is_claiming = matches!(self.standing, Standing::Claiming(_));
        self.standing = if is_claiming && (self.claim == 0 || !is_higher) {
            Standing::Claiming(until)
        } else if self.claim == 0 {
            Standing::Waiting(until)
        } else if is_higher {
            Standing::Replaced(until)
        } else {
            Standing::Free
        };
        if self.writes() {
            self.touch();
        } else {
            self.wait(now.mono);
        }
        is_held
    }

    /// The answer to a write: the key's new sequence number, or `None` when the condition failed.
    pub fn written(&mut self, now: Now, revision: Option<u64>) {
        if self.is_quiet() {
            return;
        }
        self.asked = Asked::Nothing;
        self.revision = revision;
        match revision {
            Some(_) => {
                self.standing = Standing::Free;
                self.wait(now.mono);
            }
            // Somebody else has written: read who.
            None => self.touch(),
        }
    }

    /// The broker did not take a write: tried again when the next one is due.
    pub fn unwritten(&mut self, now: Now) {
        if !self.is_quiet() {
            self.asked = Asked::Nothing;
            self.revision = None;
            self.wait(now.mono);
        }
    }

    fn writes(&self) -> bool {
        matches!(self.standing, Standing::Free | Standing::Claiming(_))
    }

    /// Nobody else is there.
    fn own(&mut self, now: Duration) {
        self.standing = Standing::Free;
        self.due = now;
    }

    /// A claim stands as long as no higher one is known.
    fn take_claim(&mut self, now: Now) -> u64 {
        if self.claim <= self.highest {
            self.claim = now.wall.unix_us().max(self.highest.saturating_add(1));
        }
        self.claim
    }

    /// Until the next refresh: a tenth more or less, so that a fleet that started together does not
    /// stay together. The instance is random, which is all the randomness that this takes. What was
    /// touched meanwhile does not wait.
    fn wait(&mut self, now: Duration) {
        if self.due != Duration::MAX {
            return;
        }
        self.rounds = self.rounds.wrapping_add(1);
        let spread = REFRESH.as_millis() / 5;
        let mixed = self.me.0.rotate_left(u32::try_from(self.rounds % 128).unwrap_or(0));
        let jitter = u64::try_from(mixed % (spread + 1)).unwrap_or(0);
        self.due = now + REFRESH * 9 / 10 + Duration::from_millis(jitter);
    }
}
