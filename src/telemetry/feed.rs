//! Live events for whoever listens at the local interface (`GET /phase/telemetry`).
//!
//! One ring for all listeners. Sending never waits (P10): a listener that does not keep up loses
//! the oldest events, and learns how many. Without listeners an event is not even written down.
//!
//! Every event is a JSON object under one of these names. Members are added, never renamed or
//! removed; a reader ignores what it does not know.
//!
//! - `transition`: the gate changes its band. As in `transitions` of `GET /aegida/safety`: `from`,
//!   `to`, `at`, `reasons`, `cycle`, `di`, `seq`, `drift_source`.
//! - `snapshot`: a memory snapshot moves to or from the broker. Its start, its end, and at most 5
//!   times a second between: `direction`, `runtime_id`, `seq`, `digest`, `bytes_done`,
//!   `bytes_total`, `bytes_per_s`, `remaining_s`, `state` (`snapshots/progress.rs`).
//! - `lost`: this listener was too slow. `events`: how many it has not seen, the oldest.
//!
//! Raw text of the runtime is in none of them (P9): words of ours, ids, digests and numbers.
//!
//! What deliberately is not here: HTTP, and how many may listen (`http/phase_telemetry.rs`).

use std::sync::Arc;

use serde::Serialize;
use tokio::sync::broadcast;

/// Events that a listener may lag behind: some 30 s of one transfer and a flapping gate beside it,
/// in less than 100 KiB for all listeners together.
pub const QUEUE_MAX: usize = 256;

/// Sends events. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Feed(broadcast::Sender<Event>);

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its name.
    pub name: &'static str,
    /// Its JSON object, in one line.
    pub data: Arc<str>,
}

/// One listener's place in the ring.
#[derive(Debug)]
pub struct Subscription(broadcast::Receiver<Event>);

/// The object of a `lost` event.
#[derive(Serialize)]
struct Lost {
    events: u64,
}

impl Feed {
    /// A feed that nobody listens to yet.
    #[must_use]
    pub fn new() -> Self {
        Self(broadcast::channel(QUEUE_MAX).0)
    }

    /// Sends what `document` makes, if anybody listens. Never waits.
    pub fn send<T: Serialize>(&self, name: &'static str, document: impl FnOnce() -> T) {
        if self.0.receiver_count() == 0 {
            return;
        }
        if let Some(event) = Event::of(name, &document()) {
            // The last listener may have gone meanwhile.
            let _ = self.0.send(event);
        }
    }

    /// Listens from now on.
    #[must_use]
    pub fn subscribe(&self) -> Subscription {
        Subscription(self.0.subscribe())
    }
}

impl Default for Feed {
    fn default() -> Self {
        Self::new()
    }
}

impl Event {
    /// `None` for what has no JSON form, which no document of ours is.
    fn of(name: &'static str, document: &impl Serialize) -> Option<Self> {
        let data = serde_json::to_string(document).ok()?;
        Some(Self { name, data: data.into() })
    }
}

impl Subscription {
    /// The next event; `lost` in place of those that this listener was too slow for. `None` when
    /// nobody is left who could send.
    ///
    /// # Cancel safety
    /// Safe: an event that was not returned is still there.
    pub async fn next(&mut self) -> Option<Event> {
        match self.0.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(events)) => Event::of("lost", &Lost { events }),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_listener_loses_the_oldest_and_is_told_how_many() {
        let feed = Feed::new();
        feed.send("transition", || -> u64 { panic!("nobody listens, nothing is made") });
        let mut slow = feed.subscribe();
        let sent = u64::try_from(QUEUE_MAX).unwrap() + 3;
        for number in 0..sent {
            feed.send("snapshot", || number);
        }
        let first = slow.next().await.unwrap();
        assert_eq!((first.name, &*first.data), ("lost", r#"{"events":3}"#));
        for number in 3..sent {
            let event = slow.next().await.unwrap();
            assert_eq!((event.name, &*event.data), ("snapshot", &*number.to_string()));
        }
        drop(feed);
        assert_eq!(slow.next().await, None);
    }
}
