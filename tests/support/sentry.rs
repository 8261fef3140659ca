//! An observer that holds every packet of one source against the replies to its reports, as they
//! arrive: the checker of P1 and P2.
//!
//! A marker published after a closing reply comes back on the same subscription as the packets, and
//! a server routes in the order in which it handles. So a packet behind the marker whose number is
//! not above the closing one was handled after the reply that promised silence: a leak.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use async_nats::Message;
use driftgate::protocol::keyring::Keyring;
use serde_json::Value;
use tokio::sync::watch;

use super::forge::fleet_keyring;
use super::observer::Packet;
use super::raw::{self, Writer};
use super::wait::LONG;

/// After which a marker is published again.
const PATIENCE: Duration = Duration::from_secs(1);
const MARKER: &str = "driftgate.v1.state.sentry.marker.";
/// Between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(20);

/// What the sentry has seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Number and target of each packet that verifies, with its index.
    pub(crate) packets: BTreeMap<(u64, String), f64>,
    /// How many messages they were: a packet may be published again.
    pub(crate) messages: u64,
    /// Messages on the source's subjects that do not verify.
    pub(crate) broken: u64,
    /// Packets that came after a marker that promised they would not, and data of the source on
    /// any subject but that of packets: nothing that is watched here sends such.
    pub(crate) leaks: Vec<String>,
    /// Packets with a lower number than one before them for the same target.
    pub(crate) fallen: u64,
    newest: BTreeMap<String, u64>,
    markers: BTreeSet<u64>,
    /// The sentry lost messages: its word is worth nothing.
    is_blind: bool,
}

/// The replies to the reports of one source.
#[derive(Debug, Default)]
pub(crate) struct Replies {
    /// Status word of each target's packet by the report's number.
    pub(crate) lines: BTreeMap<u64, BTreeMap<String, String>>,
    /// Reports whose gate was closed: verdict `block` or `isolate`.
    pub(crate) refused: BTreeSet<u64>,
    pub(crate) confirmed: u64,
    pub(crate) unconfirmed: u64,
    /// Reports that got no reply: the sidecar died, or said 503.
    pub(crate) lost: u64,
}

impl Replies {
    /// Books one reply.
    pub(crate) fn add(&mut self, reply: &Value) {
        let seq = reply["seq"].as_u64().expect("a number");
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let lines = reply["packets"].as_array().expect("a list");
        let lines = lines.iter().map(|line| (word(&line["target"]), word(&line["status"])));
        let is_new = self.lines.insert(seq, lines.collect()).is_none();
        assert!(is_new, "two reports have the number {seq}");
        if matches!(reply["verdict"].as_str(), Some("block" | "isolate")) {
            self.refused.insert(seq);
        }
        match reply["barrier"].as_str() {
            Some("confirmed") => self.confirmed += 1,
            Some(_) => self.unconfirmed += 1,
            None => {}
        }
    }

    /// Takes over the replies of another reporter.
    pub(crate) fn join(&mut self, other: Self) {
        let numbers = self.lines.len() + other.lines.len();
        self.lines.extend(other.lines);
        assert_eq!(self.lines.len(), numbers, "two reports have one number");
        self.refused.extend(other.refused);
        self.confirmed += other.confirmed;
        self.unconfirmed += other.unconfirmed;
        self.lost += other.lost;
    }
}

/// See the module's documentation.
#[derive(Clone)]
pub(crate) struct Sentry {
    client: watch::Receiver<Option<Writer>>,
    seen: Arc<Mutex<Seen>>,
    count: watch::Receiver<u64>,
}

impl Sentry {
    /// Watches the packets of `source`.
    pub(crate) async fn start(url: &str, source: &str) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (told, count) = watch::channel(0);
        let (client, current) = watch::channel(None);
        let watching =
            watch_all(url.to_owned(), source.to_owned(), Arc::clone(&seen), told, client);
        tokio::spawn(watching);
        let sentry = Self { client: current, seen, count };
        sentry.closed(0).await;
        sentry
    }

    /// The reply to the report of that number promised silence: from its marker on, no packet up to
    /// that number may arrive. Returns when the marker is back.
    pub(crate) async fn closed(&self, seq: u64) {
        let subject = format!("{MARKER}{seq}");
        let mut count = self.count.clone();
        let deadline = Instant::now() + LONG;
        loop {
            let client = self.client.borrow().clone();
            if let Some(client) = client {
                // A connection that is gone is replaced, and the marker sent again.
                let _ = client.publish(&subject, b"").await;
            }
            let back = count.wait_for(|_| self.seen().markers.contains(&seq));
            if tokio::time::timeout(PATIENCE, back).await.is_ok_and(|back| back.is_ok()) {
                return;
            }
            // A server that was killed took the marker with it.
            assert!(Instant::now() < deadline, "the marker {seq} does not come back");
        }
    }

    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("no test panics with it")
    }

    /// Holds what was seen against the replies. `strict`: every report got its reply, so a packet
    /// without one is a leak too; else it must at least be a stable one (P1). Returns the number of
    /// packets.
    pub(crate) fn check(&self, replies: &Replies, strict: bool) -> usize {
        let seen = self.seen();
        assert!(!seen.is_blind, "the sentry was too slow");
        let mut leaks = seen.leaks.clone();
        for ((seq, target), di) in &seen.packets {
            if *di >= 0.5 {
                leaks.push(format!("{seq} for {target} has the index {di}"));
            }
            let status = replies.lines.get(seq).map(|lines| lines.get(target).map(String::as_str));
            let is_allowed = match status {
                Some(Some("stored" | "pending" | "superseded" | "failed")) => true,
                Some(_) => false,
                None => !strict,
            };
            if !is_allowed || replies.refused.contains(seq) {
                leaks.push(format!("{seq} for {target} was answered {status:?}"));
            }
        }
        assert_eq!(leaks, Vec::<String>::new(), "{} leaks", leaks.len());
        for (seq, lines) in &replies.lines {
            for (target, _) in lines.iter().filter(|(_, status)| *status == "stored") {
                let is_seen = seen.packets.contains_key(&(*seq, target.clone()));
                assert!(is_seen || !strict, "{seq} for {target} is stored and was never seen");
            }
        }
        seen.packets.len()
    }
}

/// Buckets whose entries say where a gate stands, or what a sidecar can: nothing of its runtime.
const STATE_FREE: [&str; 2] = ["driftgate-presence.", "driftgate-capabilities."];
/// Members that a packet has and such an entry has not.
const STATE: [&str; 6] =
    ["payload", "attractor_state", "drift_metrics", "di", "memory_snapshot", "safety_flags"];

/// A member of a packet in a document that has none, as deep as it may lie. What a fault has made
/// unreadable holds nothing.
fn foreign_member(payload: &[u8]) -> Option<&'static str> {
    fn find(value: &Value) -> Option<&'static str> {
        match value {
            Value::Object(members) => {
                let own = STATE.into_iter().find(|name| members.contains_key(*name));
                own.or_else(|| members.values().find_map(find))
            }
            Value::Array(elements) => elements.iter().find_map(find),
            _ => None,
        }
    }
    find(&serde_json::from_slice(payload).ok()?)
}

/// Watches on one connection after the other. It reads no headers: whatever a fault has made of
/// them must not blind the one who judges.
async fn watch_all(
    url: String,
    source: String,
    seen: Arc<Mutex<Seen>>,
    told: watch::Sender<u64>,
    client: watch::Sender<Option<Writer>>,
) {
    let keyring = fleet_keyring();
    let mut closed_through = 0;
    let mut ticks = tokio::time::interval(PAUSE);
    while !told.is_closed() {
        ticks.tick().await;
        let Some((writer, mut reader)) = raw::connect(&url).await else { continue };
        if writer.subscribe(">").await.is_none() {
            continue;
        }
        client.send_replace(Some(writer));
        while let Some(message) = reader.next().await {
            let mut seen = seen.lock().expect("no test panics with it");
            seen.take(&message, &source, &keyring, &mut closed_through);
            drop(seen);
            told.send_modify(|count| *count += 1);
        }
        seen.lock().expect("no test panics with it").is_blind |= reader.was_slow;
    }
}

impl Seen {
    fn take(&mut self, message: &Message, source: &str, keyring: &Keyring, closed: &mut u64) {
        if let Some(seq) = message.subject.strip_prefix(MARKER) {
            let seq: u64 = seq.parse().expect("a number of ours");
            *closed = seq.max(*closed);
            self.markers.insert(seq);
            return;
        }
        // What the broker hands to a consumer is heard here too, told by its acknowledgement
        // subject; it left the source earlier.
        if message.reply.as_ref().is_some_and(|reply| reply.starts_with("$JS.ACK.")) {
            return;
        }
        if let Some(bucket) = message.subject.strip_prefix("$KV.")
            && STATE_FREE.iter().any(|name| bucket.starts_with(name))
        {
            if let Some(member) = foreign_member(&message.payload) {
                self.leaks.push(format!("{member} on {}", message.subject));
            }
            return;
        }
        let data = ["driftgate.v1.telemetry.", "driftgate.v1.snapshot.", "$O.", "$KV."];
        if data.iter().any(|start| message.subject.starts_with(start)) {
            self.leaks.push(format!("data on {}", message.subject));
            return;
        }
        let Some(packet) = Packet::of(message).filter(|packet| packet.source == source) else {
            return;
        };
        // A subject that changed on the way names another target than the sealed header does.
        let is_whole = keyring.open(&packet.bytes).is_ok_and(|verified| {
            verified.packet().header.target_runtime_id.as_str() == packet.target
        });
        if !is_whole {
            self.broken += 1;
            return;
        }
        self.messages += 1;
        if packet.seq <= *closed {
            self.leaks.push(format!("{} after the marker of {closed}", packet.seq));
        }
        let newest = self.newest.entry(packet.target.clone()).or_default();
        self.fallen += u64::from(packet.seq < *newest);
        *newest = packet.seq.max(*newest);
        let di = packet.di();
        self.packets.insert((packet.seq, packet.target), di);
    }
}
