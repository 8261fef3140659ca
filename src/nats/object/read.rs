//! Reading many messages of the bucket's stream in order, with a bounded number under way.
//!
//! An ephemeral consumer that nobody acknowledges to, pulled from in small batches. It is deleted
//! when the reader is dropped, and by the server when we are gone.

use std::sync::Arc;

use async_nats::{Message, StatusCode, Subscriber};
use futures_util::FutureExt;
use serde_json::json;

use super::StoreFault;
use super::line::Line;
use crate::nats::session::clipped;
use crate::protocol::time::Timestamp;

/// Messages that are asked for and not yet read: 4 MiB of our chunks.
const READ_WINDOW: u64 = 32;
/// The server forgets a consumer that was not pulled from for so long.
const INACTIVE_NS: u64 = 60_000_000_000;

/// See the module.
#[derive(Debug)]
pub(super) struct Reader {
    line: Arc<Line>,
    stream: String,
    consumer: String,
    inlet: String,
    messages: Subscriber,
    /// Messages that were there at the start, and were not asked for yet.
    unasked: u64,
    /// Asked for and not yet here.
    expected: u64,
    /// How many there were at the start.
    pub(super) total: u64,
}

impl Reader {
    /// Begins to read what `filter` matches: everything, or the newest of each subject.
    pub(super) async fn start(
        line: &Arc<Line>,
        stream: &str,
        filter: &str,
        newest_only: bool,
        consumer: String,
    ) -> Result<Self, StoreFault> {
        let (inlet, messages) = line.inlet()?;
        let mut reader = Self {
            line: Arc::clone(line),
            stream: stream.to_owned(),
            consumer,
            inlet,
            messages,
            unasked: 0,
            expected: 0,
            total: 0,
        };
        let name = reader.consumer.as_str();
        let body = json!({
            "stream_name": stream,
            "config": {
                "name": name,
                "deliver_policy": if newest_only { "last_per_subject" } else { "all" },
                "filter_subject": filter,
                "ack_policy": "none",
                "replay_policy": "instant",
                "inactive_threshold": INACTIVE_NS,
                "mem_storage": true,
                "num_replicas": 1,
            },
            "action": "create",
        });
        let call = format!("CONSUMER.CREATE.{stream}.{name}.{filter}");
        let answer = reader.line.demand(&call, &body).await?;
        let malformed = || StoreFault::Malformed(format!("the answer to {call}"));
        reader.total =
            answer.get("num_pending").and_then(serde_json::Value::as_u64).ok_or_else(malformed)?;
        reader.unasked = reader.total;
        Ok(reader)
    }

    /// The next message; `None` when all that were there at the start, or those that still are,
    /// have been read.
    pub(super) async fn next(&mut self) -> Result<Option<Message>, StoreFault> {
        if self.expected <= READ_WINDOW / 2 {
            let batch = self.unasked.min(READ_WINDOW - self.expected);
            if batch > 0 {
                let call = format!("CONSUMER.MSG.NEXT.{}.{}", self.stream, self.consumer);
                self.line.pull(&call, &self.inlet, &json!({ "batch": batch, "no_wait": true }))?;
                self.unasked -= batch;
                self.expected += batch;
            }
        }
        if self.expected == 0 {
            return Ok(None);
        }
        let message = self.line.delivered(&mut self.messages).await?;
        match message.status {
            None | Some(StatusCode::OK) => {
                self.expected -= 1;
                Ok(Some(message))
            }
            // Some of them were deleted meanwhile.
            Some(StatusCode::NOT_FOUND | StatusCode::TIMEOUT) => Ok(None),
            Some(status) => {
                let words = message.description.unwrap_or_default();
                Err(StoreFault::Interrupted(clipped(&format!("{status} {words}"))))
            }
        }
    }
}

impl Drop for Reader {
    /// Hands the end of the subscription to the connection here and now, also when reading is given
    /// up on: async-nats alone would do it at some later time, perhaps after the line's last echo.
    fn drop(&mut self) {
        // Without room the connection is stalled and about to be severed.
        let _ = tokio::task::unconstrained(self.messages.unsubscribe()).now_or_never();
        self.line.tell(&format!("CONSUMER.DELETE.{}.{}", self.stream, self.consumer));
    }
}

/// What the broker says of a delivered message: its place on the stream, and when it was stored.
/// It stands in the reply subject, `$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.`
/// `<consumer seq>.<time>.<pending>`, perhaps with `<domain>.<account hash>` in front.
pub(super) fn stamp(message: &Message) -> Option<(u64, Timestamp)> {
    let tokens: Vec<&str> = message.reply.as_ref()?.strip_prefix("$JS.ACK.")?.split('.').collect();
    let first = if tokens.len() == 7 { 0 } else { 2 };
    let seq = tokens.get(first + 3)?.parse().ok()?;
    let time_ns: i64 = tokens.get(first + 5)?.parse().ok()?;
    Some((seq, Timestamp::from_unix_ms(time_ns / 1_000_000)))
}
