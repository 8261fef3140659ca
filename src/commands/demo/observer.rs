//! A foreign eye on the broker: a connection of its own that counts what really crosses.
//!
//! It shares nothing with the sidecars but the server, and reads packets as any subscriber would. A
//! **mark** is a message of its own on the same subscription. The server hands messages to one
//! connection in the order in which it took them, so whatever a sidecar had published before a mark
//! was sent is seen before the mark, and what is seen after it was published after it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::{Client, Message, Subscriber};
use futures_util::StreamExt as _;
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Everything of the fleet.
const EVERYTHING: &str = "driftgate.v1.>";
/// Where the marks go. No stream takes it.
const MARKS: &str = "driftgate.v1.demo";
/// How long a mark may take from us to us.
const MARK_TIMEOUT: Duration = Duration::from_secs(5);
/// Violations that are kept in words; one is enough to fail.
const WORDS_MAX: usize = 8;

/// What a mark says about one sidecar.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mark {
    /// The reply to the closing report of this sequence number has left.
    Closed(u64),
    /// A report that may reopen is about to be made.
    Opening,
}

/// What was seen so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Observed {
    /// Sequence numbers of the packets, by source and target.
    pub(super) packets: BTreeMap<(String, String), BTreeSet<u64>>,
    /// Packets that came once more under the same number.
    pub(super) twice: u64,
    /// Transition notices.
    pub(super) notices: u64,
    /// Largest drift index in any packet.
    pub(super) drift_max: f64,
    /// Packets that came while their source was closed, or from before a closing that was over.
    pub(super) broken: Vec<String>,
    /// Sidecars that owe silence.
    closed: BTreeSet<String>,
    /// By source, the number up to which nothing may come any more.
    floors: BTreeMap<String, u64>,
}

/// Marks under way: who waits for which. Each sidecar has at most one.
#[derive(Debug, Default)]
struct Marks {
    waiting: BTreeMap<u64, oneshot::Sender<()>>,
    sent: u64,
}

impl Observed {
    /// How many different packets crossed.
    pub(super) fn count(&self) -> u64 {
        sum(self.packets.values())
    }

    /// How many different packets crossed from `source`.
    pub(super) fn from(&self, source: &str) -> u64 {
        sum(self.packets.iter().filter(|((from, _), _)| from == source).map(|(_, seqs)| seqs))
    }

    /// Whether any packet of `source` carries this sequence number.
    pub(super) fn has(&self, source: &str, seq: u64) -> bool {
        self.packets.iter().any(|((from, _), seqs)| from == source && seqs.contains(&seq))
    }

    fn packet(&mut self, subject: &str, bytes: &[u8]) {
        let Some((source, target, seq, drift)) = read(subject, bytes) else {
            self.violation(format!("an unreadable packet on {subject}"));
            return;
        };
        if !self.packets.entry((source.clone(), target)).or_default().insert(seq) {
            self.twice += 1;
        }
        self.drift_max = self.drift_max.max(drift);
        if self.closed.contains(&source) {
            self.violation(format!("packet {seq} of {source} while closed"));
        } else if self.floors.get(&source).is_some_and(|floor| seq <= *floor) {
            self.violation(format!("packet {seq} of {source} from before a closing"));
        }
    }

    fn mark(&mut self, text: &str) {
        match text.split_once(' ') {
            Some((source, "opening")) => {
                self.closed.remove(source);
            }
            Some((source, seq)) => {
                self.closed.insert(source.to_owned());
                self.floors.insert(source.to_owned(), seq.parse().unwrap_or(0));
            }
            None => {}
        }
    }

    fn violation(&mut self, words: String) {
        if self.broken.len() < WORDS_MAX {
            self.broken.push(words);
        }
    }
}

fn sum<'a>(sets: impl Iterator<Item = &'a BTreeSet<u64>>) -> u64 {
    sets.map(|seqs| u64::try_from(seqs.len()).unwrap_or(u64::MAX)).sum()
}

/// Source, target, sequence number and drift index, all from the packet's own bytes; the subject
/// has to agree.
fn read(subject: &str, bytes: &[u8]) -> Option<(String, String, u64, f64)> {
    let packet: Value = serde_json::from_slice(bytes).ok()?;
    let text = |pointer: &str| packet.pointer(pointer)?.as_str();
    let source = text("/header/source_runtime_id")?;
    let target = text("/header/target_runtime_id")?;
    let seq = text("/signature/integrity_token")?.split(':').nth(2)?.parse().ok()?;
    let drift = packet.pointer("/payload/drift_metrics/di")?.as_f64()?;
    (subject == format!("driftgate.v1.state.{source}.{target}"))
        .then(|| (source.to_owned(), target.to_owned(), seq, drift))
}

/// The observer failed, which says nothing about the sidecars.
#[derive(Debug, thiserror::Error)]
pub(super) enum ObserverFault {
    #[error("the observer cannot connect: {0}")]
    Connect(String),
    #[error("the observer has lost its connection")]
    Deaf,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Observer {
    client: Client,
    seen: Arc<Mutex<Observed>>,
    marks: Arc<Mutex<Marks>>,
    task: JoinHandle<()>,
}

impl Observer {
    /// Connects and looks. Everything published after this returns is seen. Of the `sources`
    /// silence is expected until their first [`Mark::Opening`].
    pub(super) async fn connect(url: &str, sources: &[&str]) -> Result<Self, ObserverFault> {
        let connect = |error: &dyn core::fmt::Display| ObserverFault::Connect(error.to_string());
        let options = async_nats::ConnectOptions::new().name("driftgate-demo-observer");
        let client = options.connect(url).await.map_err(|error| connect(&error))?;
        let messages = client.subscribe(EVERYTHING).await.map_err(|error| connect(&error))?;
        let closed = sources.iter().map(|source| (*source).to_owned()).collect();
        let seen = Arc::new(Mutex::new(Observed { closed, ..Observed::default() }));
        let marks = Arc::new(Mutex::new(Marks::default()));
        let task = tokio::spawn(look(messages, Arc::clone(&seen), Arc::clone(&marks)));
        let observer = Self { client, seen, marks, task };
        // Its coming back proves that the subscription stands.
        observer.send("ready").await?;
        Ok(observer)
    }

    /// Puts a mark about `source` into the stream of messages, and waits until it has come by.
    pub(super) async fn mark(&self, source: &str, mark: Mark) -> Result<(), ObserverFault> {
        match mark {
            Mark::Closed(seq) => self.send(&format!("{source} {seq}")).await,
            Mark::Opening => self.send(&format!("{source} opening")).await,
        }
    }

    /// Waits until everything that the server took before this call has been seen.
    pub(super) async fn catch_up(&self) -> Result<(), ObserverFault> {
        self.send("end").await
    }

    async fn send(&self, text: &str) -> Result<(), ObserverFault> {
        let (sender, own) = oneshot::channel();
        let number = {
            let mut marks = lock(&self.marks);
            marks.sent += 1;
            let number = marks.sent;
            marks.waiting.insert(number, sender);
            number
        };
        let payload = format!("{number} {text}").into();
        self.client.publish(MARKS, payload).await.map_err(|_| ObserverFault::Deaf)?;
        let seen = timeout(MARK_TIMEOUT, own).await.map_err(|_| ObserverFault::Deaf)?;
        seen.map_err(|_| ObserverFault::Deaf)
    }

    /// What was seen so far.
    pub(super) fn seen(&self) -> Observed {
        lock(&self.seen).clone()
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A lock is held for one message at a time and nothing in between can panic half-way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn look(mut messages: Subscriber, seen: Arc<Mutex<Observed>>, marks: Arc<Mutex<Marks>>) {
    while let Some(Message { subject, payload, .. }) = messages.next().await {
        let mut seen = lock(&seen);
        let kind = subject.split('.').nth(2).unwrap_or_default();
        match kind {
            "state" => seen.packet(&subject, &payload),
            "containment" => seen.notices += 1,
            "demo" => {
                let text = core::str::from_utf8(&payload).unwrap_or_default();
                let (number, text) = text.split_once(' ').unwrap_or_default();
                seen.mark(text);
                let waits = number
                    .parse()
                    .ok()
                    .and_then(|number: u64| lock(&marks).waiting.remove(&number));
                if let Some(waits) = waits {
                    // Whoever gave up waiting has said so.
                    let _ = waits.send(());
                }
            }
            _ => {}
        }
    }
}
