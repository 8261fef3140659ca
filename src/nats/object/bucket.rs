//! The stream that is a bucket: created where absent, else compared.

use serde_json::{Value, json};

use super::StoreFault;
use crate::nats::requests::{RequestFault, Requests};

/// JetStream error "stream not found".
const ERR_STREAM_ABSENT: u32 = 10_059;
/// JetStream error "stream name already in use": somebody was faster.
const ERR_STREAM_TAKEN: u32 = 10_058;
const DUPLICATE_WINDOW_NS: u64 = 120_000_000_000;

/// Makes sure of the bucket; returns what of it weakens a promise, one sentence each.
pub(super) async fn ensure(requests: &Requests, bucket: &str) -> Result<Vec<String>, StoreFault> {
    let settings = &requests.settings;
    let mut found = look(requests, bucket).await?;
    if found.is_none() && settings.provision {
        let call = format!("STREAM.CREATE.OBJ_{bucket}");
        match requests.call(&call, &config(bucket, settings.replicas)).await? {
            Ok(_) => {}
            Err(error) if error.err_code == ERR_STREAM_TAKEN => {}
            Err(error) => return Err(RequestFault::refused(&call, &error).into()),
        }
        found = look(requests, bucket).await?;
    }
    let found = found.ok_or_else(|| StoreFault::Absent(bucket.to_owned()))?;
    Ok(differences(bucket, settings.replicas, &found))
}

async fn look(requests: &Requests, bucket: &str) -> Result<Option<Value>, StoreFault> {
    let call = format!("STREAM.INFO.OBJ_{bucket}");
    match requests.call(&call, &Value::Null).await? {
        Ok(mut answer) => match answer.get_mut("config").map(Value::take) {
            Some(config) => Ok(Some(config)),
            None => Err(StoreFault::Malformed(format!("the answer to {call}"))),
        },
        Err(error) if error.err_code == ERR_STREAM_ABSENT => Ok(None),
        Err(error) => Err(RequestFault::refused(&call, &error).into()),
    }
}

/// ADR-20's, without the broker's own compression: what we store is compressed.
fn config(bucket: &str, replicas: u8) -> Value {
    json!({
        "name": format!("OBJ_{bucket}"),
        "subjects": [format!("$O.{bucket}.C.>"), format!("$O.{bucket}.M.>")],
        "retention": "limits",
        "discard": "new",
        "storage": "file",
        "compression": "none",
        "num_replicas": replicas,
        "max_age": 0,
        "max_msgs": -1,
        "max_bytes": -1,
        "max_msg_size": -1,
        "max_msgs_per_subject": -1,
        "max_consumers": -1,
        "duplicate_window": DUPLICATE_WINDOW_NS,
        "allow_rollup_hdrs": true,
        "allow_direct": true,
    })
}

fn differences(bucket: &str, replicas: u8, config: &Value) -> Vec<String> {
    let word = |field: &str| config.get(field).and_then(Value::as_str).unwrap_or_default();
    let number = |field: &str| config.get(field).and_then(Value::as_i64).unwrap_or_default();
    let flag = |field: &str| config.get(field).and_then(Value::as_bool).unwrap_or_default();
    let kept = number("num_replicas");
    let checks = [
        (
            word("storage") != "file",
            "storage is not file: snapshots are lost with the server process".to_owned(),
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
            number("max_msgs_per_subject") > 0,
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
