//! Who waits for which answer, found by a token that nobody can guess.

use std::collections::BTreeMap;

use async_nats::{Message, Subject};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::nats::session::QUEUE_LEN_MAX;

/// Random bytes fetched at a time.
const RANDOM_BYTES: usize = 512;
const NONCE_BYTES: usize = 8;

/// Random numbers, fetched from the system many at a time.
pub(super) struct Nonces {
    bytes: [u8; RANDOM_BYTES],
    used: usize,
}

impl Nonces {
    pub(super) fn new() -> Self {
        Self { bytes: [0; RANDOM_BYTES], used: RANDOM_BYTES }
    }

    /// `None` when the system has no randomness.
    pub(super) fn next(&mut self) -> Option<u64> {
        if self.used >= RANDOM_BYTES {
            getrandom::fill(&mut self.bytes).ok()?;
            self.used = 0;
        }
        let bytes = self.bytes.get(self.used..)?.first_chunk::<NONCE_BYTES>()?;
        self.used += NONCE_BYTES;
        Some(u64::from_le_bytes(*bytes))
    }
}

impl core::fmt::Debug for Nonces {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str("Nonces")
    }
}

/// Why there will be no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::nats) enum Unanswered {
    /// The server does not permit the subject, in its words.
    Denied(String),
    /// The connection sends, or hears, nothing more.
    Revoked,
    /// It was not sent, for another reason.
    NotSent(super::NotSent),
}

pub(in crate::nats) type Answer = Result<Message, Unanswered>;

/// Who is told an answer.
#[derive(Debug)]
pub(in crate::nats) enum Waiter {
    /// A task, with its place in the window if something is stored. The place stays taken until
    /// the answer comes or the connection ends, also when nobody waits any more.
    Caller(oneshot::Sender<Answer>, Option<OwnedSemaphorePermit>),
    /// The connection's owner, by a token of its own.
    Token(u64),
}

/// One publish that is unanswered.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) subject: Subject,
    pub(super) nonce: u64,
    /// What had been sent with it.
    pub(super) mark: u64,
    pub(super) waiter: Waiter,
}

/// All of them, oldest first, at most [`QUEUE_LEN_MAX`]: the oldest beyond that has been given up
/// on long ago.
#[derive(Debug, Default)]
pub(super) struct Table {
    entries: BTreeMap<u64, Pending>,
    numbers: u64,
    tokens: usize,
}

impl Table {
    /// The number of the next entry, and its reply subject.
    pub(super) fn next_reply(&mut self, inbox: &str, nonce: u64) -> (u64, String) {
        self.numbers += 1;
        (self.numbers, format!("{inbox}.a.{:x}-{nonce:016x}", self.numbers))
    }

    pub(super) fn add(&mut self, number: u64, pending: Pending) {
        while self.entries.len() >= QUEUE_LEN_MAX {
            let oldest = self.entries.pop_first();
            self.count_out(oldest.as_ref().map(|(_, pending)| pending));
        }
        self.tokens += usize::from(matches!(pending.waiter, Waiter::Token(_)));
        self.entries.insert(number, pending);
    }

    fn count_out(&mut self, gone: Option<&Pending>) {
        let is_token = gone.is_some_and(|pending| matches!(pending.waiter, Waiter::Token(_)));
        self.tokens = self.tokens.saturating_sub(usize::from(is_token));
    }

    /// The entry of a reply subject's last part; `None` for what is no token of ours.
    pub(super) fn take(&mut self, token: &str) -> Option<Pending> {
        let (number, nonce) = token.split_once('-')?;
        let number = u64::from_str_radix(number, 16).ok()?;
        let nonce = u64::from_str_radix(nonce, 16).ok()?;
        self.entries.get(&number).filter(|pending| pending.nonce == nonce)?;
        let pending = self.entries.remove(&number);
        self.count_out(pending.as_ref());
        pending
    }

    /// The entries of a subject: a refusal names the subject alone, and holds for all under way.
    pub(super) fn take_subject(&mut self, subject: &str) -> Vec<Pending> {
        let is_of = |(_, pending): &(&u64, &Pending)| pending.subject.as_str() == subject;
        let numbers: Vec<u64> = self.entries.iter().filter(is_of).map(|(key, _)| *key).collect();
        let taken = numbers.into_iter().filter_map(|number| self.entries.remove(&number));
        let taken: Vec<Pending> = taken.collect();
        taken.iter().for_each(|pending| self.count_out(Some(pending)));
        taken
    }

    /// Nothing will be answered any more.
    pub(super) fn cut(&mut self) {
        for (_, pending) in core::mem::take(&mut self.entries) {
            if let Waiter::Caller(caller, _) = pending.waiter {
                // Nobody waits any more.
                let _ = caller.send(Err(Unanswered::Revoked));
            }
        }
        self.tokens = 0;
    }

    /// The owner's publishes.
    pub(super) fn tokens(&self) -> usize {
        self.tokens
    }
}
