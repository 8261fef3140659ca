//! Live events for whoever listens at the local interface (`GET /phase/telemetry`).
//!
//! One ring for all listeners, each with a place of its own in it. Sending never waits (P10): a
//! listener that does not keep up loses the oldest events, and learns how many. While nobody
//! listens, or has within the last [`RING_LEN`] events, an event is only counted.
//!
//! Every event is a JSON object under one of these names. Members are added, never renamed or
//! removed; a reader ignores what it does not know. What came from a peer says `external: true`.
//!
//! - `phase`: a report that the gate let through, ours or a peer's (`protocol/phase.rs`). What is
//!   not known is absent.
//! - `held`: a report that the gate refused, or that was none, is answered: `seq` (null for what is
//!   no report), `band`, `reasons`. No number of a refused report is told.
//! - `transition`: the gate changes its band. As in `transitions` of `GET /aegida/safety`: `from`,
//!   `to`, `at`, `reasons`, `cycle`, `di`, `seq`, `drift_source`.
//! - `notice`: a peer's gate has moved, as its signed notice says. `external`, `source`, `band`,
//!   `reasons` and `at`, since when.
//! - `packet`: something came in. `external`, `source`, `seq`, `status` (`accepted`, `refused`) and
//!   the `fault` of what was refused.
//! - `snapshot`: a memory snapshot moves to or from the broker. Its start, its end, and at most 5
//!   times a second between: `direction`, `runtime_id`, `seq`, `digest`, `bytes_done`,
//!   `bytes_total`, `bytes_per_s`, `remaining_s`, `state` (`snapshots/progress.rs`).
//! - `lagged`: this listener was too slow, or what it asks for is not told again. `events`: how
//!   many it does not get; null when that cannot be known.
//!
//! **The gate.** No phase is told of a report that the gate refused, so with the first closing
//! cycle the phases end; transitions go on, in every band, for they are how a closing is seen. When
//! the gate isolates, what came from peers is taken out of the ring, also for a listener that lags,
//! and nothing more of theirs is told until it opens (P4). A listener that comes back gets again
//! what was told since the event that it names, back to the opening of the gate and no further:
//! neither a closing nor what happened while closed is told twice (P5).
//!
//! Raw text of the runtime is in none of them (P9): words of ours, ids, digests and numbers.
//!
//! What deliberately is not here: HTTP, and how many may listen (`http/phase_telemetry.rs`).

use core::fmt;
use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio::sync::watch;

use crate::protocol::gate::Band;

/// Events that a listener may lag behind, or be sent again: some 30 s of one transfer and a
/// flapping gate beside it, in less than 100 KiB for all listeners together.
pub const RING_LEN: usize = 256;
/// The same as a number of events.
const RING_EVENTS: u64 = 256;
/// Listeners are woken group by group, and all else that waits has its turn between two of them:
/// a thousand listeners of one report must not stand before its own reply.
const GROUPS: usize = 64;

/// Sends events. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Feed {
    /// Held for as long as it takes to add or copy one event, never across a wait.
    ring: Arc<Mutex<Ring>>,
    /// Number of the newest event, for the task that wakes the groups.
    newest: Arc<watch::Sender<u64>>,
    groups: Groups,
    /// Tells the events of this life from those of another.
    life: u32,
}

/// The same number, for the listeners.
type Groups = Arc<[watch::Sender<u64>]>;

#[derive(Debug)]
struct Ring {
    /// Oldest first, numbers rising.
    events: VecDeque<Numbered>,
    newest: u64,
    /// What happened up to here is not told again.
    floor: u64,
    /// Events since somebody listened.
    unheard: u64,
    band: Band,
}

#[derive(Debug)]
struct Numbered {
    number: u64,
    external: bool,
    name: &'static str,
    data: Arc<str>,
}

/// Names one event of one life; its text is what `Last-Event-ID` brings back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventId {
    life: u32,
    number: u64,
}

impl fmt::Display for EventId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:08x}-{}", self.life, self.number)
    }
}

impl EventId {
    /// Reads what its `Display` writes; `None` for any other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (life, number) = text.split_once('-')?;
        let is_plain = life.len() == 8
            && life.bytes().all(|byte| byte.is_ascii_hexdigit())
            && number.bytes().all(|byte| byte.is_ascii_digit());
        let life = u32::from_str_radix(life, 16).ok().filter(|_| is_plain)?;
        Some(Self { life, number: number.parse().ok()? })
    }
}

/// Where a listener begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With what happens next.
    Now,
    /// After the event that it names, as far as that is told again; `None` names none of ours.
    After(Option<EventId>),
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Which one; `None` for `lagged`, which stands for others.
    pub id: Option<EventId>,
    /// Its name.
    pub name: &'static str,
    /// Its JSON object, in one line.
    pub data: Arc<str>,
}

/// One listener's place in the ring.
#[derive(Debug)]
pub struct Subscription {
    ring: Arc<Mutex<Ring>>,
    newest: watch::Receiver<u64>,
    life: u32,
    /// Number of the newest event that it has seen.
    seen: u64,
    /// What it is to hear of what it does not get.
    lagged: Option<Lagged>,
}

/// The object of a `lagged` event.
#[derive(Clone, Copy, Debug, Serialize)]
struct Lagged {
    events: Option<u64>,
}

impl Feed {
    /// A feed that nobody listens to yet, of a gate that is blocked. Its listeners are woken by a
    /// task that this spawns, which ends with the last clone.
    #[must_use]
    pub fn start() -> Self {
        let ring = Ring {
            events: VecDeque::new(),
            newest: 0,
            floor: 0,
            unheard: RING_EVENTS,
            band: Band::Blocked,
        };
        // Seeded by the operating system: enough to tell two lives apart.
        let [a, b, c, d, ..] = RandomState::new().hash_one(0_u8).to_le_bytes();
        let newest = watch::Sender::new(0);
        let groups: Groups = (0..GROUPS).map(|_| watch::Sender::new(0)).collect();
        tokio::spawn(wake(newest.subscribe(), Arc::clone(&groups)));
        Self {
            ring: Arc::new(Mutex::new(ring)),
            newest: Arc::new(newest),
            groups,
            life: u32::from_le_bytes([a, b, c, d]),
        }
    }

    /// Sends what `document` makes, if anybody may hear it. Never waits.
    pub fn send<T: Serialize>(&self, name: &'static str, document: impl FnOnce() -> T) {
        self.push(name, false, document);
    }

    /// Sends something that a peer sent; nothing while isolated (P4). Never waits.
    pub fn send_external<T: Serialize>(&self, name: &'static str, document: impl FnOnce() -> T) {
        self.push(name, true, document);
    }

    /// The gate enters a band: to be called before its transition is sent.
    pub fn enter(&self, band: Band) {
        let mut ring = lock(&self.ring);
        ring.band = band;
        if band == Band::Isolated {
            ring.events.retain(|event| !event.external);
        }
    }

    fn push<T: Serialize>(&self, name: &'static str, external: bool, document: impl FnOnce() -> T) {
        let mut ring = lock(&self.ring);
        if external && ring.band == Band::Isolated {
            return;
        }
        ring.newest += 1;
        let number = ring.newest;
        if ring.band.is_closed() {
            ring.floor = number;
        }
        if self.groups.iter().any(|group| group.receiver_count() > 0) {
            ring.unheard = 0;
        } else if ring.unheard >= RING_EVENTS {
            ring.events.clear();
            ring.floor = number;
            return;
        } else {
            ring.unheard += 1;
        }
        // No document of ours is without a JSON form.
        let Ok(data) = serde_json::to_string(&document()) else { return };
        if ring.events.len() >= RING_LEN {
            ring.events.pop_front();
        }
        ring.events.push_back(Numbered { number, external, name, data: data.into() });
        drop(ring);
        self.newest.send_replace(number);
    }

    /// Listens.
    #[must_use]
    pub fn subscribe(&self, start: Start) -> Subscription {
        // The receiver first, so that from here on every event is written down.
        let least = self.groups.iter().min_by_key(|group| group.receiver_count());
        let newest = least.unwrap_or(&self.newest).subscribe();
        let ring = lock(&self.ring);
        let (seen, lagged) = match start {
            Start::Now => (ring.newest, None),
            Start::After(Some(id)) if id.life == self.life && id.number <= ring.newest => {
                // What is not told again counts as missed.
                let missed = ring.floor.saturating_sub(id.number);
                let lagged = (missed > 0).then_some(Lagged { events: Some(missed) });
                (id.number.max(ring.floor), lagged)
            }
            Start::After(_) => (ring.newest, Some(Lagged { events: None })),
        };
        drop(ring);
        Subscription { ring: Arc::clone(&self.ring), newest, life: self.life, seen, lagged }
    }
}

impl Subscription {
    /// The newest event that it has seen.
    #[must_use]
    pub fn id(&self) -> EventId {
        EventId { life: self.life, number: self.seen }
    }

    /// The next event; `lagged` in place of those that this listener does not get. `None` when
    /// nobody is left who could send.
    ///
    /// # Cancel safety
    /// Safe: an event that was not returned is still there.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(lagged) = self.lagged.take() {
                let data = serde_json::to_string(&lagged).ok()?;
                return Some(Event { id: None, name: "lagged", data: data.into() });
            }
            if let Some(event) = self.advance() {
                return Some(event);
            }
            if self.lagged.is_none() {
                self.newest.changed().await.ok()?;
            }
        }
    }

    /// Goes to the next event that is there, or past those that are not there any more.
    fn advance(&mut self) -> Option<Event> {
        let ring = lock(&self.ring);
        let next = ring.events.partition_point(|event| event.number <= self.seen);
        let event = ring.events.get(next)?;
        let missed = event.number.saturating_sub(self.seen + 1);
        if missed > 0 {
            self.seen += missed;
            self.lagged = Some(Lagged { events: Some(missed) });
            return None;
        }
        self.seen = event.number;
        let id = Some(EventId { life: self.life, number: event.number });
        Some(Event { id, name: event.name, data: Arc::clone(&event.data) })
    }
}

/// Passes on to one group after the other that something has happened, until the feed is gone.
async fn wake(mut newest: watch::Receiver<u64>, groups: Groups) {
    while newest.changed().await.is_ok() {
        let number = *newest.borrow_and_update();
        for group in groups.iter().filter(|group| group.receiver_count() > 0) {
            group.send_replace(number);
            tokio::task::yield_now().await;
        }
    }
}

/// Whoever held it panicked between two whole events, at worst.
fn lock(ring: &Mutex<Ring>) -> MutexGuard<'_, Ring> {
    ring.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn hears(listener: &mut Subscription, name: &str, data: &str) -> Option<EventId> {
        let event = listener.next().await.unwrap();
        assert_eq!((event.name, &*event.data), (name, data));
        event.id
    }

    fn open() -> Feed {
        let feed = Feed::start();
        feed.enter(Band::Open);
        feed
    }

    #[tokio::test]
    async fn a_slow_listener_loses_the_oldest_and_is_told_how_many() {
        let feed = open();
        feed.send("transition", || -> u64 { panic!("nobody listens, nothing is made") });
        let mut slow = feed.subscribe(Start::Now);
        let sent = RING_EVENTS + 3;
        for number in 0..sent {
            feed.send("snapshot", || number);
        }
        hears(&mut slow, "lagged", r#"{"events":3}"#).await;
        for number in 3..sent {
            hears(&mut slow, "snapshot", &number.to_string()).await;
        }
        drop(feed);
        assert_eq!(slow.next().await, None);
    }

    #[tokio::test]
    async fn who_comes_back_hears_again_what_was_told_since_and_once() {
        let feed = open();
        let mut first = feed.subscribe(Start::Now);
        feed.send("phase", || 1);
        let id = hears(&mut first, "phase", "1").await;
        drop(first);
        feed.send("phase", || 2);
        let id = EventId::parse(&id.unwrap().to_string());
        let mut again = feed.subscribe(Start::After(id));
        hears(&mut again, "phase", "2").await;
        feed.send("phase", || 3);
        hears(&mut again, "phase", "3").await;
        // Of another life, or of none.
        let foreign = EventId { life: feed.life.wrapping_add(1), number: 1 };
        let ahead = EventId { life: feed.life, number: 99 };
        for id in [Some(foreign), Some(ahead), None] {
            let mut lost = feed.subscribe(Start::After(id));
            hears(&mut lost, "lagged", r#"{"events":null}"#).await;
            feed.send("phase", || 4);
            hears(&mut lost, "phase", "4").await;
        }
    }

    #[tokio::test]
    async fn p5_nothing_from_before_an_opening_is_told_again() {
        let feed = open();
        let mut first = feed.subscribe(Start::Now);
        feed.send("phase", || 1);
        let id = hears(&mut first, "phase", "1").await;
        feed.send("phase", || 2);
        feed.enter(Band::Blocked);
        feed.send("transition", || "closed");
        feed.send_external("packet", || 3);
        let mut while_closed = feed.subscribe(Start::After(id));
        hears(&mut while_closed, "lagged", r#"{"events":3}"#).await;
        feed.enter(Band::Open);
        feed.send("transition", || "open");
        feed.send("phase", || 4);
        let mut later = feed.subscribe(Start::After(id));
        hears(&mut later, "lagged", r#"{"events":3}"#).await;
        hears(&mut later, "transition", "\"open\"").await;
        hears(&mut later, "phase", "4").await;
        // Who was there all the time has missed nothing.
        for data in ["2", "\"closed\"", "3", "\"open\"", "4"] {
            assert_eq!(&*first.next().await.unwrap().data, data);
        }
    }

    #[tokio::test]
    async fn p4_an_isolated_feed_tells_nothing_of_peers_any_more_not_even_to_who_lags() {
        let feed = open();
        let mut slow = feed.subscribe(Start::Now);
        feed.send_external("packet", || 1);
        feed.enter(Band::Isolated);
        feed.send_external("packet", || 2);
        feed.send("transition", || "isolated");
        hears(&mut slow, "lagged", r#"{"events":1}"#).await;
        hears(&mut slow, "transition", "\"isolated\"").await;
    }

    #[test]
    fn only_an_id_of_ours_is_read() {
        let id = EventId { life: 7, number: 12 };
        assert_eq!(EventId::parse("00000007-12"), Some(id));
        for text in ["", "-", "00000007-", "7-12", "+0000007-1", "00000007-+1", "00000007-1-2"] {
            assert_eq!(EventId::parse(text), None, "{text}");
        }
    }
}
