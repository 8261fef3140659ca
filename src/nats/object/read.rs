//! Reading many messages of the bucket's stream in order, with a bounded number under way.
//!
//! An ephemeral consumer that nobody acknowledges to, pulled from in small batches. It is deleted
//! when the reader is dropped, and by the server when we are gone.

use std::sync::atomic::{AtomicU64, Ordering};

use async_nats::{Message, StatusCode};
use serde_json::json;
use tokio::sync::mpsc;

use super::StoreFault;
use crate::nats::requests::Requests;
use crate::nats::session::clipped;
use crate::protocol::time::Timestamp;

/// Messages that are asked for and not yet read: 4 MiB of our chunks.
const READ_WINDOW: u64 = 32;
/// What waits to be read: as much, and statuses between.
const MESSAGES_LEN_MAX: usize = 64;
/// The server forgets a consumer that was not pulled from for so long.
const INACTIVE_NS: u64 = 60_000_000_000;

/// Makes a name for each subscription.
static READERS_STARTED: AtomicU64 = AtomicU64::new(0);

/// See the module.
#[derive(Debug)]
pub(super) struct Reader {
    requests: Requests,
    stream: String,
    consumer: String,
    /// Names the subscription on its connection.
    id: u64,
    inbox: String,
    messages: mpsc::Receiver<Message>,
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
        requests: &Requests,
        stream: &str,
        filter: &str,
        newest_only: bool,
        consumer: String,
    ) -> Result<Self, StoreFault> {
        let id = READERS_STARTED.fetch_add(1, Ordering::Relaxed);
        let (inbox, messages) = requests.read(id, MESSAGES_LEN_MAX).await?;
        let mut reader = Self {
            requests: requests.clone(),
            stream: stream.to_owned(),
            consumer,
            id,
            inbox,
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
        let answer = reader.requests.demand(&call, &body).await?;
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
                let body = json!({ "batch": batch, "no_wait": true });
                self.requests.pull(&call, &self.inbox, &body).await?;
                self.unasked -= batch;
                self.expected += batch;
            }
        }
        if self.expected == 0 {
            return Ok(None);
        }
        let message = self.requests.delivered(&mut self.messages).await?;
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
    /// Orders the end of the subscription here and now, also when reading is given up on, so that
    /// it comes before any later echo.
    fn drop(&mut self) {
        let call = format!("CONSUMER.DELETE.{}.{}", self.stream, self.consumer);
        self.requests.end_read(self.id, &call);
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
