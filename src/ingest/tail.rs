//! Placeholder until the follower lands.
use crate::config::Tail;
use crate::protocol::canonical::{Json, SyntaxFault};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
/// A line.
#[derive(Debug)]
pub enum Line {
    /// A report.
    Report(Json),
    /// Unreadable.
    Unreadable {
        /// Line number.
        line_number: u64,
        /// Why.
        fault: SyntaxFault,
    },
    /// The file.
    Fault(String),
}
/// Follows.
pub fn follow(settings: Tail) -> (mpsc::Receiver<Line>, JoinHandle<()>) {
    let (_sender, receiver) = mpsc::channel(1);
    (receiver, tokio::spawn(async move { drop(settings) }))
}
