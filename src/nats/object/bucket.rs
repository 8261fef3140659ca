//! The stream that is a bucket: created where absent, else compared.

use serde_json::{Value, json};

use super::StoreFault;
use crate::nats::monitor;
use crate::nats::requests::{RequestFault, Requests};
use crate::nats::subject::{CAPABILITIES, MANIFESTS, PRESENCE};

/// JetStream error "stream not found".
const ERR_STREAM_ABSENT: u32 = 10_059;
/// JetStream error "stream name already in use": somebody was faster.
const ERR_STREAM_TAKEN: u32 = 10_058;
const DUPLICATE_WINDOW_NS: u64 = 120_000_000_000;

/// A bucket as it should be.
pub(in crate::nats) struct Wanted {
    name: String,
    pub(in crate::nats) stream: String,
    subjects: Vec<String>,
    replicas: u8,
    description: &'static str,
    /// What its kind needs beside what all buckets have.
    more: Value,
}

/// A bucket as it is.
pub(in crate::nats) struct Found {
    /// What of it weakens a promise, one sentence each.
    pub(in crate::nats) differences: Vec<String>,
    /// Whether single messages of it can expire.
    pub(in crate::nats) expires: bool,
}

impl Wanted {
    /// ADR-20's, without the broker's own compression: what we store is compressed.
    pub(in crate::nats) fn objects(bucket: &str, replicas: u8) -> Self {
        Self {
            name: bucket.to_owned(),
            stream: format!("OBJ_{bucket}"),
            subjects: vec![format!("$O.{bucket}.C.>"), format!("$O.{bucket}.M.>")],
            replicas,
            description: "Driftgate: memory snapshots, zstd frames and deltas",
            more: json!({ "max_msgs_per_subject": -1 }),
        }
    }

    /// ADR-8's, with one value of each key.
    pub(in crate::nats) fn kv(bucket: &str, replicas: u8) -> Self {
        Self {
            name: bucket.to_owned(),
            stream: format!("KV_{bucket}"),
            subjects: vec![format!("$KV.{bucket}.>")],
            replicas,
            description: match bucket {
                PRESENCE => "Driftgate: who is there, in which band, and why",
                MANIFESTS => "Driftgate: the signed manifest of each snapshot",
                CAPABILITIES => "Driftgate: what each runtime can do",
                _ => "Driftgate",
            },
            more: json!({ "max_msgs_per_subject": 1, "deny_delete": true }),
        }
    }

    fn config(&self) -> Value {
        let mut config = json!({
            "name": self.stream,
            "subjects": self.subjects,
            "retention": "limits",
            "discard": "new",
            "storage": "file",
            "compression": "none",
            "num_replicas": self.replicas,
            "max_age": 0,
            "max_msgs": -1,
            "max_bytes": -1,
            "max_msg_size": -1,
            "max_consumers": -1,
            "duplicate_window": DUPLICATE_WINDOW_NS,
            "allow_rollup_hdrs": true,
            "allow_direct": true,
            "description": self.description,
            "metadata": monitor::metadata(self.replicas, &[]),
            // Servers before 2.11 do not know it and leave it out.
            "allow_msg_ttl": true,
        });
        if let (Some(config), Some(more)) = (config.as_object_mut(), self.more.as_object()) {
            config.extend(more.clone());
        }
        config
    }
}

/// Makes sure of the bucket.
pub(in crate::nats) async fn ensure(
    requests: &Requests,
    wanted: &Wanted,
) -> Result<Found, StoreFault> {
    let mut found = look(requests, &wanted.stream).await?;
    if found.is_none() && requests.settings.broker.provision {
        let call = format!("STREAM.CREATE.{}", wanted.stream);
        match requests.call(&call, &wanted.config()).await? {
            Ok(_) => {}
            Err(error) if error.err_code == ERR_STREAM_TAKEN => {}
            Err(error) => return Err(RequestFault::refused(&call, &error).into()),
        }
        found = look(requests, &wanted.stream).await?;
    }
    let found = found.ok_or_else(|| StoreFault::Absent(wanted.name.clone()))?;
    Ok(Found {
        differences: differences(wanted, &found),
        expires: found.get("allow_msg_ttl").and_then(Value::as_bool).unwrap_or_default(),
    })
}

async fn look(requests: &Requests, stream: &str) -> Result<Option<Value>, StoreFault> {
    let call = format!("STREAM.INFO.{stream}");
    match requests.call(&call, &Value::Null).await? {
        Ok(mut answer) => match answer.get_mut("config").map(Value::take) {
            Some(config) => Ok(Some(config)),
            None => Err(StoreFault::Malformed(format!("the answer to {call}"))),
        },
        Err(error) if error.err_code == ERR_STREAM_ABSENT => Ok(None),
        Err(error) => Err(RequestFault::refused(&call, &error).into()),
    }
}

fn differences(wanted: &Wanted, config: &Value) -> Vec<String> {
    let (bucket, replicas) = (&wanted.name, wanted.replicas);
    let kept_each = wanted.more.get("max_msgs_per_subject").and_then(Value::as_i64);
    let word = |field: &str| config.get(field).and_then(Value::as_str).unwrap_or_default();
    let number = |field: &str| config.get(field).and_then(Value::as_i64).unwrap_or_default();
    let flag = |field: &str| config.get(field).and_then(Value::as_bool).unwrap_or_default();
    let kept = number("num_replicas");
    let checks = [
        (
            word("storage") != "file",
            "storage is not file: what is stored is lost with the server process".to_owned(),
        ),
        (
            kept < i64::from(replicas),
            format!(
                "num_replicas is {kept}, configured are {replicas}: fewer failures are survived"
            ),
        ),
        (
            !matches!(word("persist_mode"), "" | "default"),
            "persist_mode is not default: the broker says stored before it has written".to_owned(),
        ),
        (
            word("retention") != "limits",
            "retention is not limits: reading removes chunks".to_owned(),
        ),
        (
            word("discard") != "new",
            "discard is not new: a full bucket drops the chunks of older snapshots".to_owned(),
        ),
        (
            number("max_age") > 0,
            "max_age is set: chunks expire while snapshots depend on them".to_owned(),
        ),
        (
            kept_each == Some(-1) && number("max_msgs_per_subject") > 0,
            "max_msgs_per_subject is set: large objects lose chunks".to_owned(),
        ),
        (
            !matches!(word("compression"), "" | "none"),
            "compression is on: what is compressed is compressed again".to_owned(),
        ),
        (
            !flag("allow_rollup_hdrs"),
            "allow_rollup_hdrs is off: no object can be described".to_owned(),
        ),
        (flag("no_ack"), "no_ack is set: no chunk is ever acknowledged".to_owned()),
        (flag("sealed"), "it is sealed: nothing can be stored".to_owned()),
    ];
    let said = checks.into_iter().filter(|(differs, _)| *differs);
    said.map(|(_, sentence)| format!("bucket {bucket}: {sentence}")).collect()
}
