//! The followed file: its lines go to the driver one after the other, and whatever breaks the feed
//! closes the gate (P6).

use std::time::Duration;

use crate::config::Tail;
use crate::driver::{Handle, ReportFault, Unavailable};
use crate::ingest::tail::{Line, LineFault, follow};
use crate::protocol::canonical::SyntaxFault;
use crate::protocol::profile::Malformed;
use crate::telemetry::Condition;

/// Pause before a reader that died is started again, and before a busy driver is told once more.
const PAUSE: Duration = Duration::from_millis(500);

/// Follows the file, if there is one to follow, until it is aborted.
///
/// The log says what is wrong with a line and not where in it: a pointer may quote a key of the
/// runtime's own, which is raw text (P9). `driftgate replay` on the file names the field.
pub async fn pass_on(tail: Option<Tail>, handle: Handle) {
    let Some(tail) = tail else { return };
    loop {
        let (mut lines, reader) = follow(tail.clone());
        while let Some(line) = lines.recv().await {
            match line {
                Line::Report(document) => {
                    handle.conditions().end(Condition::FeedBroken);
                    report(&handle, document).await;
                }
                Line::Unreadable { line_number, fault } => {
                    let problem = match fault {
                        LineFault::Syntax(SyntaxFault { problem, .. }) => problem,
                        LineFault::NotUtf8 { .. } | LineFault::TooLong { .. } => fault.to_string(),
                    };
                    tracing::warn!(line_number, problem, "tailed line cannot be read");
                    close(&handle).await;
                }
                Line::Fault(fault) => broken(&handle, fault).await,
            }
        }
        // It ends by itself only when it dies.
        let ended = reader.await.err().map_or_else(String::new, |error| format!(": {error}"));
        broken(&handle, format!("{}: reading it failed{ended}", tail.path.display())).await;
        tokio::time::sleep(PAUSE).await;
    }
}

async fn report(handle: &Handle, document: crate::protocol::canonical::Json) {
    match handle.report(document, None).await {
        Ok(reply) => tracing::debug!(verdict = reply.verdict.word(), "tailed report"),
        Err(ReportFault::Malformed { malformed: Malformed { problem, .. }, .. }) => {
            tracing::warn!(problem, "tailed report refused");
        }
        Err(ReportFault::Unavailable(fault)) => {
            tracing::warn!(%fault, "tailed report not taken");
        }
    }
}

async fn broken(handle: &Handle, text: String) {
    handle.conditions().begin(Condition::FeedBroken, text);
    close(handle).await;
}

/// Closes the gate as a report does that nobody can read. A driver that is too busy to be told is
/// told again: a broken feed says nothing later that would close it.
async fn close(handle: &Handle) {
    while let Err(Unavailable::Overloaded(_)) = handle.unreadable().await {
        tokio::time::sleep(PAUSE).await;
    }
}
