//! What this sidecar must be allowed at the broker, and nothing else.
//!
//! Each subject that the files below publish to or subscribe to stands here once, with the reason
//! for it. Deliberately not here: how a server, an account or a callout writes permissions down
//! (`commands/permissions.rs`), and who wrote what, which no permission proves and every signature
//! does.

use strum::VariantArray as _;

use super::responder::ServiceSubject;
use super::settings::Settings;
use super::subject::{AssetName, CAPABILITIES, MANIFESTS, PRESENCE, SNAPSHOTS};
use super::survey::USER_INFO;

/// One subject that is granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The subject, wildcards included.
    pub subject: String,
    /// What it is for.
    pub why: &'static str,
}

/// All that one user may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// Where it may publish.
    pub publish: Vec<Grant>,
    /// What it may subscribe to.
    pub subscribe: Vec<Grant>,
}

impl Grants {
    /// Of the sidecar of `settings.runtime_id`: what it needs to run, and with `nats.provision`
    /// also what it needs to make the streams, buckets and its consumer.
    #[must_use]
    pub fn of_sidecar(settings: &Settings) -> Self {
        let mut grants = Self::default();
        grants.add_packets(settings);
        grants.add_questions(settings);
        grants.add_keys(settings);
        grants.add_snapshots(settings);
        let why = "what `driftgate doctor` asks: who it is, and its room";
        grants.say(why, USER_INFO);
        grants.call(settings, why, "INFO");
        if settings.broker.provision {
            grants.add_provision(settings);
        }
        grants
    }

    /// Of whoever makes the streams, buckets and the consumer of one runtime, where its sidecar
    /// says `nats.provision = false`; `*` in the place of the id makes it so for all.
    #[must_use]
    pub fn of_provisioner(settings: &Settings) -> Self {
        let mut grants = Self::default();
        grants.add_provision(settings);
        for stream in streams(settings).into_iter().filter(|stream| is_made(settings, stream)) {
            let why = "what differs from the configuration, mended";
            grants.call(settings, why, &format!("STREAM.UPDATE.{stream}"));
        }
        let why = "a look at what stands there already";
        let consumer = format!("{}.{}", settings.broker.stream_in, settings.consumer());
        grants.call(settings, why, &format!("CONSUMER.INFO.{consumer}"));
        for stream in streams(settings) {
            grants.call(settings, why, &format!("STREAM.INFO.{stream}"));
        }
        grants.listen("replies", format!("{}.>", settings.inbox_prefix().as_str()));
        grants
    }

    fn say(&mut self, why: &'static str, subject: impl Into<String>) {
        self.publish.push(Grant { subject: subject.into(), why });
    }

    fn listen(&mut self, why: &'static str, subject: impl Into<String>) {
        self.subscribe.push(Grant { subject: subject.into(), why });
    }

    /// A server maps the API of its own domain to the plain subject before it looks at permissions,
    /// and that of another domain not: which of them the domain is, a configuration does not know.
    fn call(&mut self, settings: &Settings, why: &'static str, call: &str) {
        self.say(why, settings.api(call));
        if settings.broker.domain.is_some() {
            self.say(why, format!("$JS.API.{call}"));
        }
    }

    /// The second token from the prefix is always the sender, or for quarantine the owner.
    fn add_packets(&mut self, settings: &Settings) {
        let (prefix, me) = (&settings.broker.prefix, &settings.runtime_id);
        let why = "what it says, under its own name alone";
        self.say(why, format!("{}.state.{me}.*", prefix.as_str()));
        self.say(why, prefix.telemetry(me).as_str());
        self.say(why, prefix.containment(me).as_str());
        self.say(why, prefix.snapshot(me).as_str());
        self.say(why, prefix.quarantine(me).as_str());
        let why = "what peers say, which is checked by its signature";
        self.listen(why, prefix.every_telemetry());
        self.listen(why, prefix.every_containment());
        let (stream, consumer) = (&settings.broker.stream_in, settings.consumer());
        let why = "packets for it: pulled by its own consumer, acknowledged in both forms";
        self.call(settings, why, &format!("STREAM.INFO.{stream}"));
        self.call(settings, why, &format!("CONSUMER.INFO.{stream}.{consumer}"));
        self.call(settings, why, &format!("CONSUMER.MSG.NEXT.{stream}.{consumer}"));
        self.say(why, format!("$JS.ACK.{stream}.{consumer}.>"));
        self.say(why, format!("$JS.ACK.*.*.{stream}.{consumer}.>"));
        let why = "a look at the other streams, for what falls short of the configuration";
        for stream in [&settings.broker.stream_out, &settings.broker.stream_quarantine] {
            if *stream != settings.broker.stream_in {
                self.call(settings, why, &format!("STREAM.INFO.{stream}"));
            }
        }
    }

    fn add_questions(&mut self, settings: &Settings) {
        self.say(
            "a handshake goes to another's subject by its nature",
            format!("{}.handshake.*", settings.broker.prefix.as_str()),
        );
        // Whoever asks names the reply subject, and allow_responses would lend him this user's
        // rights to any subject.
        self.say("answers, and its own echoes", "_INBOX.>");
        let inbox = settings.inbox_prefix();
        if !inbox.as_str().starts_with("_INBOX.") {
            self.say("its own echoes", format!("{}.>", inbox.as_str()));
        }
        let why = "handshakes and the micro service: by kind, by name and by instance";
        for service in ServiceSubject::VARIANTS {
            self.listen(why, service.subject(settings, "*"));
        }
        let why = "replies, under a prefix that nobody else may read";
        self.listen(why, format!("{}.>", inbox.as_str()));
    }

    fn add_keys(&mut self, settings: &Settings) {
        let me = &settings.runtime_id;
        for bucket in [PRESENCE, CAPABILITIES] {
            self.say("its own key of each bucket", format!("$KV.{bucket}.{me}"));
            let why = "the keys of others, to read";
            self.call(settings, why, &format!("STREAM.INFO.KV_{bucket}"));
            self.call(settings, why, &format!("DIRECT.GET.KV_{bucket}.>"));
        }
    }

    fn add_snapshots(&mut self, settings: &Settings) {
        let why = "the manifests of its own snapshots";
        self.say(why, format!("$KV.{MANIFESTS}.{}.>", settings.runtime_id));
        // Objects travel under a hash of their name, so a server cannot pin them; the signed
        // manifest does. Whoever may write there may also remove what others have written.
        self.say("the bytes of snapshots", format!("$O.{SNAPSHOTS}.>"));
        let why = "the bytes of its own snapshots that are no longer needed";
        self.call(settings, why, &format!("STREAM.PURGE.OBJ_{SNAPSHOTS}"));
        let why = "snapshots, its own and those of others, to list and read";
        for stream in [format!("KV_{MANIFESTS}"), format!("OBJ_{SNAPSHOTS}")] {
            self.call(settings, why, &format!("STREAM.INFO.{stream}"));
            self.call(settings, why, &format!("CONSUMER.CREATE.{stream}.>"));
            self.call(settings, why, &format!("CONSUMER.MSG.NEXT.{stream}.>"));
            self.call(settings, why, &format!("CONSUMER.DELETE.{stream}.>"));
        }
        let why = "one object's description, by its name";
        self.call(settings, why, &format!("STREAM.MSG.GET.OBJ_{SNAPSHOTS}"));
    }

    fn add_provision(&mut self, settings: &Settings) {
        for stream in streams(settings).into_iter().filter(|stream| is_made(settings, stream)) {
            let why = "nats.provision: the streams and buckets, where they are absent";
            self.call(settings, why, &format!("STREAM.CREATE.{stream}"));
        }
        let (stream, consumer) = (&settings.broker.stream_in, settings.consumer());
        let why = "nats.provision: its own consumer";
        self.call(settings, why, &format!("CONSUMER.CREATE.{stream}.{consumer}.>"));
    }
}

/// Whether it is ours to make: a stream that others fill comes with the clusters.
fn is_made(settings: &Settings, stream: &str) -> bool {
    let broker = &settings.broker;
    stream != broker.stream_in.as_str() || broker.stream_in == broker.stream_out
}

/// Every stream that the configuration promises, those behind buckets included.
fn streams(settings: &Settings) -> Vec<String> {
    let broker = &settings.broker;
    let mut names: Vec<String> = [&broker.stream_out, &broker.stream_in, &broker.stream_quarantine]
        .into_iter()
        .map(AssetName::to_string)
        .collect();
    names.extend([PRESENCE, CAPABILITIES, MANIFESTS].map(|bucket| format!("KV_{bucket}")));
    names.push(format!("OBJ_{SNAPSHOTS}"));
    names.sort();
    names.dedup();
    names
}
