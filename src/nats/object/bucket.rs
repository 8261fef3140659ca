//! The stream that is a bucket: created where absent, else compared.

use serde_json::{Value, json};

use super::StoreFault;
use crate::nats::asset::{Asset, stream_update};
use crate::nats::monitor;
use crate::nats::requests::Requests;
use crate::nats::subject::{CAPABILITIES, MANIFESTS, PRESENCE, SNAPSHOTS, covers};

const DUPLICATE_WINDOW_NS: u64 = 120_000_000_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// ADR-8, with one value of each key.
    Entries,
    /// ADR-20.
    Objects,
}

/// A bucket as it should be.
pub(in crate::nats) struct BucketSpec {
    bucket: String,
    pub(in crate::nats) stream: String,
    kind: Kind,
    replicas: u8,
}

/// A bucket as it is.
pub(in crate::nats) struct Found {
    /// What of it weakens a promise, one sentence each.
    pub(in crate::nats) differences: Vec<String>,
    /// Whether single messages of it can expire.
    pub(in crate::nats) expires: bool,
}

impl BucketSpec {
    /// ADR-20's, without the broker's own compression: what we store is compressed.
    pub(in crate::nats) fn objects(bucket: &str, replicas: u8) -> Self {
        let stream = format!("OBJ_{bucket}");
        Self { bucket: bucket.to_owned(), stream, kind: Kind::Objects, replicas }
    }

    /// ADR-8's, with one value of each key.
    pub(in crate::nats) fn kv(bucket: &str, replicas: u8) -> Self {
        let stream = format!("KV_{bucket}");
        Self { bucket: bucket.to_owned(), stream, kind: Kind::Entries, replicas }
    }

    /// All that a sidecar uses, without or with memory snapshots.
    pub(in crate::nats) fn all(replicas: u8, snapshots: bool) -> Vec<Self> {
        let mut all = vec![Self::kv(PRESENCE, replicas), Self::kv(CAPABILITIES, replicas)];
        if snapshots {
            all.extend([Self::kv(MANIFESTS, replicas), Self::objects(SNAPSHOTS, replicas)]);
        }
        all
    }

    fn subjects(&self) -> Vec<String> {
        let bucket = &self.bucket;
        match self.kind {
            Kind::Entries => vec![format!("$KV.{bucket}.>")],
            Kind::Objects => vec![format!("$O.{bucket}.C.>"), format!("$O.{bucket}.M.>")],
        }
    }

    fn config(&self) -> Value {
        let description = match self.bucket.as_str() {
            PRESENCE => "Driftgate: who is there, in which band, and why",
            MANIFESTS => "Driftgate: the signed manifest of each snapshot",
            CAPABILITIES => "Driftgate: what each runtime can do",
            SNAPSHOTS => "Driftgate: memory snapshots, zstd frames and deltas",
            _ => "Driftgate",
        };
        let (kept_each, deny_delete) = match self.kind {
            Kind::Entries => (1, true),
            Kind::Objects => (-1, false),
        };
        json!({
            "name": self.stream,
            "subjects": self.subjects(),
            "retention": "limits",
            "discard": "new",
            "storage": "file",
            "compression": "none",
            "num_replicas": self.replicas,
            "max_age": 0,
            "max_msgs": -1,
            "max_msgs_per_subject": kept_each,
            "max_bytes": -1,
            "max_msg_size": -1,
            "max_consumers": -1,
            "duplicate_window": DUPLICATE_WINDOW_NS,
            "deny_delete": deny_delete,
            "allow_rollup_hdrs": true,
            "allow_direct": true,
            "description": description,
            "metadata": monitor::metadata(self.replicas, &[]),
            // Servers before 2.11 do not know it and leave it out.
            "allow_msg_ttl": true,
        })
    }
}

/// Makes sure of the bucket.
pub(in crate::nats) async fn ensure(
    requests: &Requests,
    wanted: &BucketSpec,
) -> Result<Found, StoreFault> {
    let (found, _) = requests.provide(wanted).await?;
    let found = found.ok_or_else(|| StoreFault::Absent(wanted.bucket.clone()))?;
    Ok(Found {
        differences: wanted.differences(&found),
        expires: found.get("allow_msg_ttl").and_then(Value::as_bool).unwrap_or_default(),
    })
}

impl Asset for BucketSpec {
    fn name(&self) -> String {
        format!("bucket {}", self.bucket)
    }

    fn lookup(&self) -> String {
        format!("STREAM.INFO.{}", self.stream)
    }

    fn creation(&self) -> Option<(String, Value)> {
        Some((format!("STREAM.CREATE.{}", self.stream), self.config()))
    }

    fn differences(&self, config: &Value) -> Vec<String> {
        differences(self, config)
    }

    fn removal(&self) -> String {
        format!("nats stream rm -f {}", self.stream)
    }

    fn update(&self, config: &Value) -> Option<(String, Value)> {
        stream_update(&self.stream, &self.config(), config)
    }
}

fn differences(wanted: &BucketSpec, config: &Value) -> Vec<String> {
    let word = |field: &str| config.get(field).and_then(Value::as_str).unwrap_or_default();
    let number = |field: &str| config.get(field).and_then(Value::as_i64).unwrap_or_default();
    let flag = |field: &str| config.get(field).and_then(Value::as_bool).unwrap_or_default();
    let (kept, kept_each) = (number("num_replicas"), number("max_msgs_per_subject"));
    let has_objects = wanted.kind == Kind::Objects;
    let subjects = config.get("subjects").and_then(Value::as_array);
    let takes = |wanted: &String| {
        let mut taken = subjects.into_iter().flatten().filter_map(Value::as_str);
        taken.any(|subject| covers(subject, wanted))
    };
    let checks = [
        (
            !wanted.subjects().iter().all(takes),
            format!("its subjects are not {}: it is not ours", wanted.subjects().join(" ")),
        ),
        (
            word("storage") != "file",
            "storage is not file: what is stored is lost with the server process".to_owned(),
        ),
        (
            kept < i64::from(wanted.replicas),
            format!(
                "num_replicas is {kept}, configured are {}: fewer failures are survived",
                wanted.replicas
            ),
        ),
        (
            !matches!(word("persist_mode"), "" | "default"),
            "persist_mode is not default: the broker says stored before it has written".to_owned(),
        ),
        (
            word("retention") != "limits",
            "retention is not limits: reading removes what is stored".to_owned(),
        ),
        (
            word("discard") != "new",
            "discard is not new: a full bucket drops what stands there".to_owned(),
        ),
        (number("max_age") > 0, "max_age is set: what is still needed expires".to_owned()),
        (
            has_objects && kept_each > 0,
            "max_msgs_per_subject is set: large objects lose chunks".to_owned(),
        ),
        (
            !has_objects && kept_each != 1,
            format!("max_msgs_per_subject is {kept_each}, not 1: what is superseded piles up"),
        ),
        (
            !has_objects && !flag("allow_direct"),
            "allow_direct is off: no entry can be read".to_owned(),
        ),
        (
            !matches!(word("compression"), "" | "none"),
            "compression is on: what is compressed is compressed again".to_owned(),
        ),
        (
            !flag("allow_rollup_hdrs"),
            "allow_rollup_hdrs is off: nothing can be described or deleted".to_owned(),
        ),
        (flag("no_ack"), "no_ack is set: nothing that is stored is acknowledged".to_owned()),
        (flag("sealed"), "it is sealed: nothing can be stored".to_owned()),
    ];
    let said = checks.into_iter().filter(|(differs, _)| *differs);
    said.map(|(_, sentence)| format!("bucket {}: {sentence}", wanted.bucket)).collect()
}
