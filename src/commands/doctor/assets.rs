//! What of ours stands at the broker, against what the configuration promises.

use std::time::Duration;

use serde_json::Value;

use super::{Finding, Patient, server};
use crate::commands::status;
use crate::config::{Durability, show_duration};
use crate::nats::survey::{Compared, Source, Survey};
use crate::protocol::memory;
use crate::protocol::presence::Condition;
use crate::sidecar::memory_file;

/// A source says at least every few seconds that it is there.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// From here on a stream says how far it has come with each source.
const SERVER_WITH_SEQ: (u64, u64) = (2, 15);

pub(super) fn streams(_: &Patient<'_>, _: &Survey, assets: &[Compared]) -> Vec<Finding> {
    compared(assets, "stream ")
}

pub(super) fn consumer(_: &Patient<'_>, _: &Survey, assets: &[Compared]) -> Vec<Finding> {
    compared(assets, "consumer ")
}

pub(super) fn buckets(_: &Patient<'_>, _: &Survey, assets: &[Compared]) -> Vec<Finding> {
    compared(assets, "bucket ")
}

fn compared(assets: &[Compared], kind: &str) -> Vec<Finding> {
    let ours = assets.iter().filter(|asset| asset.name.starts_with(kind));
    let finding = |asset: &Compared| {
        if asset.differences.is_empty() {
            Finding::ok(format!("{} is as promised", asset.name))
        } else {
            Finding::fail(asset.differences.join("; "), asset.fix.clone())
        }
    };
    ours.map(finding).collect()
}

/// Whether a stream keeps the durability is said with the stream; here, what the word is worth.
pub(super) fn durability(patient: &Patient<'_>, _: &Survey, _: &[Compared]) -> Vec<Finding> {
    let says = "nats.durability is";
    vec![match patient.settings.broker.durability {
        Durability::Acked => {
            Finding::ok(format!("{says} acked: power loss may take what a server has just stored"))
        }
        Durability::Replicated => {
            Finding::ok(format!("{says} replicated: three servers have what is acknowledged"))
        }
        // No client is told.
        Durability::Synced => Finding {
            fix: "curl -s http://SERVER:8222/varz | jq .jetstream.config.sync_interval".to_owned(),
            ..Finding::skip(format!(
                "{says} synced: whether each server syncs always is told by its monitor alone"
            ))
        },
    }]
}

/// What fills the stream that we pull from. A source can stand still while its lag says 0, so its
/// place is held against its origin's last.
pub(super) fn sources(_: &Patient<'_>, seen: &Survey, _: &[Compared]) -> Vec<Finding> {
    if seen.sources.is_empty() {
        return vec![Finding::ok("no other stream fills ours")];
    }
    let tells_place = server::numbers(seen) >= SERVER_WITH_SEQ;
    seen.sources.iter().map(|source| place(source, tells_place)).collect()
}

fn place(source: &Source, tells_place: bool) -> Finding {
    let Source { name, fills, last, told } = source;
    let number = |field: &str| told.get(field).and_then(Value::as_i64).unwrap_or(0);
    let place = told.get("seq").and_then(Value::as_u64).unwrap_or(0);
    let error = told.pointer("/error/description").and_then(Value::as_str);
    let silent = Duration::from_nanos(u64::try_from(number("active")).unwrap_or(0));
    let there =
        format!("nats stream info {name}, where it stands: it must be there and let through");
    let again = format!("nats stream cluster step-down {fills}");
    match (error, last) {
        (Some(error), _) => Finding::fail(format!("source {name} of {fills}: {error}"), there),
        (None, _) if number("active") < 0 => {
            Finding::fail(format!("source {name} of {fills} has never been heard"), there)
        }
        (None, _) if silent > SILENCE_MAX => {
            let span = show_duration(Duration::from_secs(silent.as_secs()));
            Finding::fail(format!("source {name} of {fills} was not heard for {span}"), again)
        }
        (None, Some(last)) if tells_place && place < *last => {
            let text = format!("source {name} of {fills} stands at {place} of {last}");
            match number("lag") {
                0 => Finding::fail(format!("{text}, and its lag says 0: it has stopped"), again),
                _ => Finding::ok(format!("{text}, and is catching up")),
            }
        }
        (None, Some(last)) if tells_place => {
            Finding::ok(format!("source {name} of {fills} has come to {last}"))
        }
        (None, _) => Finding::ok(format!("source {name} of {fills} is heard")),
    }
}

/// Whoever is present under our name, and is not the sidecar of this spool.
pub(super) fn twin(patient: &Patient<'_>, seen: &Survey, _: &[Compared]) -> Vec<Finding> {
    let (config, me) = (patient.config, &patient.config.runtime.id);
    let held = seen.presence.as_ref();
    let Some(bytes) = held.and_then(|held| held.bytes.as_ref()) else {
        return vec![Finding::ok("nobody is present under our name")];
    };
    let Some(presence) = status::open(config, me.as_str(), bytes) else {
        let text = "the entry of presence under our name does not verify: somebody else wrote it";
        let fix = "pin who writes there: the grants stand in deploy/nats.conf";
        return vec![Finding::fail(text, fix)];
    };
    let bytes = std::fs::read(memory_file(config)).unwrap_or_default();
    let ours = memory::read(&bytes).head.and_then(|head| head.instance);
    let instance = presence.instance;
    vec![match presence.condition(patient.now) {
        Condition::Live if ours != Some(instance) => {
            let text = format!(
                "another sidecar is {me}: instance {instance}, started {}, with another spool",
                presence.started
            );
            let fix = "stop one of them, or give one a runtime.id of its own";
            Finding::fail(text, fix)
        }
        Condition::Live => Finding::ok("the sidecar that is present under our name is this one"),
        Condition::Cut | Condition::Stale => Finding::ok("nobody is present under our name now"),
    }]
}
