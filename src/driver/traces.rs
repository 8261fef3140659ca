//! Reports explained, and what would become of one: what only looks.
//!
//! Who asks for the next report waits here; its explanation is given with its answer.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::run::Driver;
use super::{Command, Handle, ReadFault, Unavailable};
use crate::protocol::bridge::{Answer, Traced};
use crate::protocol::canonical::Json;
use crate::protocol::view::{Ticket, TraceView};

/// How long the next report is waited for.
pub const NEXT_TIMEOUT: Duration = Duration::from_secs(10);
/// Who may wait for it at a time: people, not programs.
const WATCHERS_MAX: usize = 8;
/// Seconds until a place may be free.
const WATCHERS_RETRY_S: u32 = 5;

/// Which report is to be explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceOf {
    /// The newest one.
    Newest,
    /// That of this number.
    Seq(u64),
    /// The one that comes next.
    Next,
}

type Asker = oneshot::Sender<Result<TraceView, ReadFault>>;

/// Somebody who waits for the next report.
pub(super) struct Watcher {
    asker: Asker,
    /// The report that came, as it was explained then: it may be one of the newest no longer when
    /// its answer is given.
    report: Option<(Ticket, TraceView)>,
}

impl Handle {
    /// One report explained, in every band. The next one is waited for, until it is answered, for
    /// at most [`NEXT_TIMEOUT`].
    ///
    /// # Errors
    /// [`ReadFault`].
    pub async fn trace(&self, which: TraceOf) -> Result<TraceView, ReadFault> {
        if which != TraceOf::Next {
            return self.view(|answer| Command::Trace { which, answer }).await?;
        }
        let (answer, reply) = oneshot::channel();
        self.try_send(Command::Trace { which, answer })?;
        match timeout(NEXT_TIMEOUT, reply).await {
            Ok(answer) => answer.map_err(|_| Unavailable::Stopping)?,
            Err(_) => Err(ReadFault::NoneCame),
        }
    }

    /// What would become of a report now, or of what is not even a document. Nothing changes by it.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub async fn check(&self, document: Option<Json>) -> Result<Answer, Unavailable> {
        self.view(|answer| Command::Check { document, answer }).await
    }
}

impl Driver {
    pub(super) fn trace(&mut self, which: TraceOf, asker: Asker) {
        let which = match which {
            TraceOf::Newest => Traced::Newest,
            TraceOf::Seq(seq) => Traced::Seq(seq),
            TraceOf::Next => return self.watch(asker),
        };
        drop(asker.send(self.bridge.trace(which).ok_or(ReadFault::NotKept)));
    }

    fn watch(&mut self, asker: Asker) {
        self.watchers.retain(|watcher| !watcher.asker.is_closed());
        if self.watchers.len() < WATCHERS_MAX {
            self.watchers.push(Watcher { asker, report: None });
        } else {
            drop(asker.send(Err(Unavailable::Overloaded(WATCHERS_RETRY_S).into())));
        }
    }

    /// A report came in under this ticket. A retry is none.
    pub(super) fn watched(&mut self, ticket: Ticket) {
        for watcher in self.watchers.iter_mut().filter(|watcher| watcher.report.is_none()) {
            let trace = self.bridge.trace(Traced::Ticket(ticket));
            watcher.report = trace.map(|trace| (ticket, trace));
        }
    }

    /// Its answer is given.
    pub(super) fn tell_watchers(&mut self, ticket: Ticket) {
        let waits = |watcher: &mut Watcher| {
            watcher.report.as_ref().is_some_and(|(report, _)| *report == ticket)
        };
        for Watcher { asker, report } in self.watchers.extract_if(.., waits) {
            let now = self.bridge.trace(Traced::Ticket(ticket));
            if let Some(trace) = now.or_else(|| report.map(|(_, trace)| trace)) {
                drop(asker.send(Ok(trace)));
            }
        }
    }
}
