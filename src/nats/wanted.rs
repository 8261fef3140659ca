//! What the streams and the consumer must be, and what a difference costs.
//!
//! Each field that carries a promise has one place here: the value we create with, and the
//! sentence that an operator reads when the broker has another.

use serde_json::{Value, json};

use super::monitor;
use super::settings::Settings;
use super::subject::{AssetName, covers};
use crate::config::Durability;

const SECOND_NS: u64 = 1_000_000_000;
/// How long a packet is of use to a reader that was away, in seconds.
pub const STATE_AGE_S: u64 = 3_600;
const MAX_AGE_NS: u64 = STATE_AGE_S * SECOND_NS;
/// How long refused bytes are kept for whoever looks into them.
const QUARANTINE_MAX_AGE_NS: u64 = 7 * 24 * 3_600 * SECOND_NS;
/// Within this an id is recognised: longer than any retry of one packet.
const DUPLICATE_WINDOW_NS: u64 = 120 * SECOND_NS;
/// Packets kept per source and target: a state is superseded, not queued.
pub const STATE_EACH: u64 = 8;
/// Refused messages kept per target: a flood displaces itself and nobody else's evidence.
const QUARANTINE_PER_TARGET_MAX: u64 = 1_000;
/// Consumers, one per runtime. Set explicitly, since newer servers cap at 1000 otherwise.
const CONSUMERS_MAX: u64 = 20_000;
/// Largest message of either stream, in bytes: far above a packet, far below what would fill a
/// reader's memory with 256 of them.
const MESSAGE_BYTES_MAX: u64 = 64 * 1024;
/// Larger by what the server adds when it stores.
const QUARANTINE_BYTES_MAX: u64 = 2 * MESSAGE_BYTES_MAX;
const ACK_WAIT_NS: u64 = 30 * SECOND_NS;
/// Unacknowledged packets under way: what the sidecar's memory is bounded by.
const ACK_PENDING_MAX: u64 = 256;
/// Packets that wait for one runtime and say that it is deaf: four full windows.
const UNPROCESSED_CRITICAL: u64 = 4 * ACK_PENDING_MAX;
/// A consumer that nobody pulled from for so long belongs to a runtime that is gone.
const INACTIVE_THRESHOLD_NS: u64 = 7 * 24 * 3_600 * SECOND_NS;
/// Copies from which on the loss of one server loses nothing.
const REPLICATED_MIN: i64 = 3;
/// The tag of servers that write to disk before they acknowledge (`sync_interval: always`).
const SYNCED_TAG: &str = "sync:always";

/// One stream that we rely on.
#[derive(Debug)]
pub(super) struct Stream<'a> {
    pub(super) name: &'a AssetName,
    /// Whether we may create it: a stream that others fill by sourcing is theirs to make.
    pub(super) is_ours: bool,
    replicas: u8,
    durability: Durability,
    purpose: Purpose,
}

#[derive(Debug)]
enum Purpose {
    /// Takes packets on this subject.
    State(String),
    /// Is filled from the streams of others.
    Sourced,
    /// Takes refused bytes on this subject.
    Quarantine(String),
}

impl Purpose {
    fn description(&self) -> &'static str {
        match self {
            Self::State(_) => "Driftgate: the newest packets of each source for each target",
            Self::Sourced => "Driftgate: packets of other clusters",
            Self::Quarantine(_) => "Driftgate: what was refused, and why in Driftgate-Reason",
        }
    }

    /// What `nats server check stream` warns of.
    fn thresholds(&self) -> &'static [(&'static str, u64)] {
        match self {
            Self::State(_) => &[],
            Self::Sourced => &[("lag-critical", 1_000)],
            // One subject for each runtime that refused something: one is worth a look, many are
            // an attack or a key that was changed on one side only.
            Self::Quarantine(_) => &[("subjects-warn", 1), ("subjects-critical", 10)],
        }
    }
}

impl<'a> Stream<'a> {
    /// Where we publish.
    pub(super) fn state_out(settings: &'a Settings) -> Self {
        Self {
            name: &settings.broker.stream_out,
            is_ours: true,
            replicas: settings.broker.replicas,
            durability: settings.broker.durability,
            purpose: Purpose::State(settings.broker.prefix.every_state()),
        }
    }

    /// Where we pull from, if that is another stream.
    pub(super) fn state_in(settings: &'a Settings) -> Option<Self> {
        (settings.broker.stream_in != settings.broker.stream_out).then_some(Self {
            name: &settings.broker.stream_in,
            is_ours: false,
            replicas: settings.broker.replicas,
            durability: settings.broker.durability,
            purpose: Purpose::Sourced,
        })
    }

    /// Where refused bytes go.
    pub(super) fn quarantine(settings: &'a Settings) -> Self {
        Self {
            name: &settings.broker.stream_quarantine,
            is_ours: true,
            replicas: settings.broker.replicas,
            durability: settings.broker.durability,
            purpose: Purpose::Quarantine(settings.broker.prefix.every_quarantine()),
        }
    }

    /// The configuration to create it with.
    pub(super) fn config(&self) -> Value {
        let (subjects, per_subject, max_age, message_bytes) = match &self.purpose {
            Purpose::State(subject) => {
                (vec![subject.as_str()], STATE_EACH, MAX_AGE_NS, MESSAGE_BYTES_MAX)
            }
            Purpose::Sourced => (Vec::new(), STATE_EACH, MAX_AGE_NS, MESSAGE_BYTES_MAX),
            Purpose::Quarantine(subject) => (
                vec![subject.as_str()],
                QUARANTINE_PER_TARGET_MAX,
                QUARANTINE_MAX_AGE_NS,
                QUARANTINE_BYTES_MAX,
            ),
        };
        let mut config = json!({
            "name": self.name.as_str(),
            "subjects": subjects,
            "retention": "limits",
            "discard": "old",
            "storage": "file",
            "num_replicas": self.replicas,
            "max_age": max_age,
            "max_msgs": -1,
            "max_bytes": -1,
            "max_msg_size": message_bytes,
            "max_msgs_per_subject": per_subject,
            "max_consumers": CONSUMERS_MAX,
            "duplicate_window": DUPLICATE_WINDOW_NS,
            "allow_direct": true,
            "description": self.purpose.description(),
            "metadata": monitor::metadata(self.replicas, self.purpose.thresholds()),
        });
        if let (Durability::Synced, Some(config)) = (self.durability, config.as_object_mut()) {
            config.insert("placement".to_owned(), json!({ "tags": [SYNCED_TAG] }));
        }
        config
    }

    /// What of `config` weakens a promise.
    pub(super) fn differences(&self, config: &Value) -> Vec<String> {
        let mut sentences = Sentences::about(format!("stream {}", self.name), config);
        sentences.common(self.replicas);
        sentences.durability(self.durability);
        match &self.purpose {
            Purpose::State(subject) => {
                sentences.subject(subject);
                sentences.packets();
                sentences.duplicate_window();
                sentences.consumers();
            }
            // Its duplicate window must be 0: sourcing recognises ids across all sources.
            Purpose::Sourced => {
                sentences.packets();
                sentences.consumers();
            }
            Purpose::Quarantine(subject) => sentences.subject(subject),
        }
        sentences.said
    }
}

/// Our durable pull consumer.
#[derive(Debug)]
pub(super) struct Consumer<'a> {
    pub(super) stream: &'a AssetName,
    pub(super) name: AssetName,
    pub(super) filter: String,
    replicas: u8,
}

impl<'a> Consumer<'a> {
    /// The one of `settings.runtime_id`.
    pub(super) fn of(settings: &'a Settings) -> Self {
        Self {
            stream: &settings.broker.stream_in,
            name: settings.consumer(),
            filter: settings.broker.prefix.every_state_for(&settings.runtime_id),
            replicas: settings.broker.replicas,
        }
    }

    /// The configuration to create it with.
    ///
    /// `last_per_subject`: a new consumer gets the newest packet of each source and what follows.
    /// `all` would deliver an hour of superseded state, and `new` nothing until each peer happens
    /// to speak again. A newest packet that is too old is refused as `expired` like any other.
    ///
    /// It has as many replicas as the stream: with fewer, the loss of one server would leave the
    /// runtime deaf although its packets are there.
    pub(super) fn config(&self) -> Value {
        json!({
            "name": self.name.as_str(),
            "durable_name": self.name.as_str(),
            "deliver_policy": "last_per_subject",
            "filter_subject": self.filter,
            "ack_policy": "explicit",
            "ack_wait": ACK_WAIT_NS,
            "max_ack_pending": ACK_PENDING_MAX,
            "max_deliver": -1,
            "replay_policy": "instant",
            "num_replicas": self.replicas,
            "inactive_threshold": INACTIVE_THRESHOLD_NS,
            "description": format!("Driftgate: the packets for one runtime, {}", self.filter),
            "metadata": monitor::metadata(1, &[
                ("outstanding-ack-critical", ACK_PENDING_MAX),
                ("unprocessed-critical", UNPROCESSED_CRITICAL),
            ]),
        })
    }

    /// What of `config` weakens a promise.
    pub(super) fn differences(&self, config: &Value) -> Vec<String> {
        let mut sentences = Sentences::about(format!("consumer {}", self.name), config);
        sentences.delivery(&self.filter);
        sentences.survival(self.replicas);
        sentences.said
    }
}

/// The difference report of one asset.
struct Sentences<'a> {
    about: String,
    config: &'a Value,
    said: Vec<String>,
}

impl<'a> Sentences<'a> {
    fn about(about: String, config: &'a Value) -> Self {
        Self { about, config, said: Vec::new() }
    }

    fn word(&self, field: &str) -> &'a str {
        self.config.get(field).and_then(Value::as_str).unwrap_or_default()
    }

    /// A number; absent is 0, unlimited is -1.
    fn number(&self, field: &str) -> i64 {
        self.config.get(field).and_then(Value::as_i64).unwrap_or_default()
    }

    fn flag(&self, field: &str) -> bool {
        self.config.get(field).and_then(Value::as_bool).unwrap_or_default()
    }

    fn say(&mut self, sentence: &str) {
        self.said.push(format!("{}: {sentence}", self.about));
    }

    fn say_if(&mut self, differs: bool, sentence: impl FnOnce() -> String) {
        if differs {
            let sentence = sentence();
            self.say(&sentence);
        }
    }

    /// Holds for every stream of ours.
    fn common(&mut self, replicas: u8) {
        let storage = self.word("storage");
        self.say_if(storage != "file", || {
            format!(
                "storage is {storage}, not file: what is stored is lost with the server process"
            )
        });
        let kept = self.number("num_replicas");
        self.say_if(kept < i64::from(replicas), || {
            format!(
                "num_replicas is {kept}, configured are {replicas}: fewer failures are survived"
            )
        });
        let persist_mode = self.word("persist_mode");
        self.say_if(!matches!(persist_mode, "" | "default"), || {
            format!("persist_mode is {persist_mode}: the broker says stored before it has written")
        });
        let retention = self.word("retention");
        self.say_if(retention != "limits", || {
            format!("retention is {retention}, not limits: one reader's acknowledgement removes a message for all")
        });
        let discard = self.word("discard");
        self.say_if(discard != "old", || {
            format!("discard is {discard}, not old: a full stream refuses the newest state")
        });
        let answers_nothing = self.flag("no_ack");
        self.say_if(answers_nothing, || {
            "no_ack is set: no publish is ever acknowledged".to_owned()
        });
        let is_sealed = self.flag("sealed");
        self.say_if(is_sealed, || "it is sealed: nothing can be stored".to_owned());
    }

    /// Holds for every stream of ours: what `nats.durability` promises of it.
    fn durability(&mut self, durability: Durability) {
        let kept = self.number("num_replicas");
        self.say_if(durability >= Durability::Replicated && kept < REPLICATED_MIN, || {
            format!(
                "num_replicas is {kept}, fewer than {REPLICATED_MIN}: what is stored is not replicated as nats.durability promises"
            )
        });
        let tags = self.config.pointer("/placement/tags").and_then(Value::as_array);
        let is_tagged = tags.is_some_and(|tags| tags.iter().any(|tag| tag == SYNCED_TAG));
        self.say_if(durability == Durability::Synced && !is_tagged, || {
            format!(
                "placement has no tag {SYNCED_TAG}: what is stored is not synced as nats.durability promises"
            )
        });
    }

    fn subject(&mut self, wanted: &str) {
        let subjects: Vec<&str> = self
            .config
            .get("subjects")
            .and_then(Value::as_array)
            .map(|subjects| subjects.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default();
        self.say_if(!subjects.iter().any(|subject| covers(subject, wanted)), || {
            format!(
                "subjects are {subjects:?} without {wanted}: what is published there is not stored"
            )
        });
    }

    fn packets(&mut self) {
        let kept = self.number("max_msgs_per_subject");
        let wanted = i64::try_from(STATE_EACH).unwrap_or(i64::MAX);
        self.say_if(kept != wanted, || {
            let cost = if (1..wanted).contains(&kept) {
                "packets vanish before a slow reader has read them"
            } else {
                "superseded state piles up"
            };
            format!("max_msgs_per_subject is {kept}, not {STATE_EACH}: {cost}")
        });
        self.max_age();
    }

    fn max_age(&mut self) {
        let age_ns = self.number("max_age");
        self.say_if(u64::try_from(age_ns).ok() != Some(MAX_AGE_NS), || {
            format!(
                "max_age is {}, not 1 h: packets are kept shorter or longer than promised",
                seconds(age_ns)
            )
        });
    }

    fn duplicate_window(&mut self) {
        let window_ns = self.number("duplicate_window");
        self.say_if(u64::try_from(window_ns).is_ok_and(|ns| ns < DUPLICATE_WINDOW_NS), || {
            format!(
                "duplicate_window is {}, less than 2 min: a packet published again is stored twice",
                seconds(window_ns)
            )
        });
    }

    fn consumers(&mut self) {
        let consumers = self.number("max_consumers");
        self.say_if(u64::try_from(consumers).unwrap_or(0) < CONSUMERS_MAX, || {
            format!(
                "max_consumers is {consumers}, not {CONSUMERS_MAX}: runtimes beyond it, or beyond the server's default of 1000, receive nothing"
            )
        });
    }

    /// Holds for our consumer: 0 replicas are those of its stream.
    fn survival(&mut self, replicas: u8) {
        let kept = self.number("num_replicas");
        self.say_if(kept != 0 && kept < i64::from(replicas), || {
            format!(
                "num_replicas is {kept}, configured are {replicas}: nothing is received while its server is away"
            )
        });
    }

    /// Holds for our consumer.
    fn delivery(&mut self, filter: &str) {
        let filtered = self.word("filter_subject");
        self.say_if(filtered != filter, || {
            format!("filter_subject is {filtered:?}, not {filter}: packets for us are missed, or others' are delivered")
        });
        let policy = self.word("ack_policy");
        self.say_if(policy != "explicit", || {
            format!("ack_policy is {policy}, not explicit: a packet counts as read before it is handed over")
        });
        let pending = self.number("max_ack_pending");
        let bound = i64::try_from(ACK_PENDING_MAX).unwrap_or(i64::MAX);
        self.say_if(!(1..=bound).contains(&pending), || {
            format!("max_ack_pending is {pending}, not at most {ACK_PENDING_MAX}: more is under way than is kept in memory for it")
        });
        let wait_ns = self.number("ack_wait");
        self.say_if(u64::try_from(wait_ns).ok() != Some(ACK_WAIT_NS), || {
            format!(
                "ack_wait is {}, not 30 s: packets come again too early or too late",
                seconds(wait_ns)
            )
        });
        let attempts = self.number("max_deliver");
        self.say_if(attempts > 0, || {
            format!("max_deliver is {attempts}, not unlimited: a packet is given up unread")
        });
        let pushes_to = self.word("deliver_subject");
        self.say_if(!pushes_to.is_empty(), || {
            format!("it pushes to {pushes_to:?}: it cannot be pulled from")
        });
        let start = self.word("deliver_policy");
        self.say_if(start == "all", || {
            "deliver_policy is all, not last_per_subject: superseded state is delivered".to_owned()
        });
        let hides_bodies = self.flag("headers_only");
        self.say_if(hides_bodies, || {
            "headers_only is set: packets arrive without their bytes".to_owned()
        });
    }
}

/// A duration for a sentence.
fn seconds(nanoseconds: i64) -> String {
    format!("{} s", nanoseconds / i64::try_from(SECOND_NS).unwrap_or(i64::MAX))
}
