//! What the server and its JetStream are.

use serde_json::Value;

use super::{Finding, Patient};
use crate::nats::STATE_EACH;
use crate::nats::assets::AssetFault;
use crate::nats::object::CHUNK_BYTES;
use crate::nats::survey::{Compared, Survey};
use crate::protocol::packet::PACKET_BYTES_MAX;
use crate::protocol::time::Timestamp;

/// Below it presence entries do not expire by themselves.
const SERVER_MIN: (u64, u64) = (2, 11);
/// The level of the JetStream API with messages that expire.
const API_LEVEL_MIN: u64 = 1;
/// What headers may add to a message.
const HEADERS_BYTES: usize = 4 * 1024;
/// A packet with its headers.
const PAYLOAD_MIN: usize = PACKET_BYTES_MAX + HEADERS_BYTES;
/// A difference of clocks that is worth a word, in milliseconds.
const SKEW_MS: i64 = 1000;
const MIB: i64 = 1024 * 1024;

/// Major and minor of the server.
pub(super) fn numbers(seen: &Survey) -> (u64, u64) {
    let mut numbers = seen.server.rsplit(' ').next().unwrap_or_default().split('.');
    let mut number = || numbers.next().and_then(|part| part.parse::<u64>().ok()).unwrap_or(0);
    (number(), number())
}

pub(super) fn version(_: &Patient<'_>, seen: &Survey) -> Vec<Finding> {
    let server = &seen.server;
    if numbers(seen) >= SERVER_MIN {
        return vec![Finding::ok(format!("the server is {server}"))];
    }
    let text = format!("the server is {server}: entries do not expire by themselves");
    vec![Finding::warn(text, "upgrade nats-server to 2.11 or newer")]
}

pub(super) fn payload(patient: &Patient<'_>, seen: &Survey) -> Vec<Finding> {
    let bytes = seen.max_payload;
    let fix = "set max_payload = 1MB in the server's configuration; nats-server --signal reload";
    vec![if bytes < PAYLOAD_MIN {
        let text =
            format!("max_payload is {bytes}: a packet may have {PAYLOAD_MIN} with its headers");
        Finding::fail(text, fix)
    } else if bytes < CHUNK_BYTES + HEADERS_BYTES && patient.has_snapshots {
        let text = format!("max_payload is {bytes}: snapshots go in chunks below {CHUNK_BYTES}");
        Finding::warn(text, fix)
    } else {
        Finding::ok(format!("messages of up to {bytes} bytes are taken"))
    }]
}

/// By the time that the server's word about us was made at.
pub(super) fn clock(patient: &Patient<'_>, seen: &Survey) -> Vec<Finding> {
    let told = seen.user.as_ref().and_then(|user| user.pointer("/server/time"));
    let Some(theirs) = told.and_then(Value::as_str).and_then(Timestamp::parse) else {
        return vec![Finding::skip("the broker does not tell its time")];
    };
    let skew_max = patient.config.containment.clock_skew_max.as_millis();
    vec![skewed(theirs, seen.asked, i64::try_from(skew_max).unwrap_or(i64::MAX))]
}

fn skewed(theirs: Timestamp, asked: (Timestamp, Timestamp), max_ms: i64) -> Finding {
    let (before, after) = (asked.0.unix_ms(), asked.1.unix_ms());
    // The server read its clock somewhere between: what can be explained by that is no difference.
    let ahead_ms = match theirs.unix_ms() {
        theirs if theirs < before => theirs - before,
        theirs if theirs > after => theirs - after,
        _ => 0,
    };
    let text = format!("the broker's clock is {ahead_ms} ms ahead of ours");
    let fix = "chronyc makestep, on the machine whose clock is wrong";
    match ahead_ms.abs() {
        ms if ms > max_ms => Finding::fail(
            format!("{text}: peers refuse what is dated so, or we refuse theirs"),
            fix,
        ),
        ms if ms > SKEW_MS => Finding::warn(text, fix),
        _ => Finding::ok("the broker's clock agrees with ours"),
    }
}

pub(super) fn jetstream(_: &Patient<'_>, seen: &Survey) -> Vec<Finding> {
    vec![match &seen.assets {
        Ok(_) => Finding::ok("JetStream answers"),
        Err(fault) => {
            let fix = match fault {
                AssetFault::NoJetStream => "start the server with JetStream: nats-server -js",
                AssetFault::Denied { .. } => "allow it: the grants stand in deploy/nats.conf",
                AssetFault::Connect(_)
                | AssetFault::Malformed(_)
                | AssetFault::Refused { .. }
                | AssetFault::Revoked
                | AssetFault::TimedOut(_) => "nats server check jetstream",
            };
            Finding::fail(fault.to_string(), fix)
        }
    }]
}

pub(super) fn api_level(_: &Patient<'_>, seen: &Survey, _: &[Compared]) -> Vec<Finding> {
    let Some(account) = &seen.account else { return vec![Finding::skip(UNTOLD)] };
    let level = account.pointer("/api/level").and_then(Value::as_u64).unwrap_or(0);
    let text = format!("the level of the JetStream API is {level}");
    vec![if level < API_LEVEL_MIN {
        let text = format!("{text}: entries do not expire by themselves");
        Finding::warn(text, "upgrade nats-server to 2.11 or newer")
    } else {
        Finding::ok(text)
    }]
}

const UNTOLD: &str = "the broker does not tell: allow to publish to $JS.API.INFO";

/// The account's limits against what there is and what is still to be made.
pub(super) fn room(patient: &Patient<'_>, seen: &Survey, assets: &[Compared]) -> Vec<Finding> {
    let Some(account) = &seen.account else { return vec![Finding::skip(UNTOLD)] };
    let replicas = i64::from(patient.settings.broker.replicas);
    let tier = account.pointer(&format!("/tiers/R{replicas}")).unwrap_or(account);
    let used = |field: &str| tier.get(field).and_then(Value::as_i64).unwrap_or(0);
    // Unlimited is -1.
    let left = |limit: &str, field: &str| {
        let limit = tier.pointer(&format!("/limits/{limit}")).and_then(Value::as_i64);
        limit.filter(|limit| *limit >= 0).map_or(i64::MAX, |limit| limit - used(field))
    };
    let absent = assets.iter().filter(|asset| asset.is_absent);
    let (consumers, streams): (Vec<_>, Vec<_>) =
        absent.partition(|asset| asset.name.starts_with("consumer "));
    let mut found = Vec::new();
    let fix = |flag: &str| {
        format!(
            "nsc edit account --{flag} N, or the account's jetstream limits in the server's configuration"
        )
    };
    for (what, limit, field, needed, flag) in [
        ("streams and buckets", "max_streams", "streams", streams.len(), "js-streams"),
        ("consumers", "max_consumers", "consumers", consumers.len(), "js-consumer"),
    ] {
        let left = left(limit, field);
        if left < i64::try_from(needed).unwrap_or(i64::MAX) {
            let text =
                format!("{needed} {what} are still to be made, and there is room for {left}");
            found.push(Finding::fail(text, fix(flag)));
        }
    }
    let must_bound = tier.pointer("/limits/max_bytes_required").and_then(Value::as_bool);
    if must_bound == Some(true) && !streams.is_empty() {
        let text = "the account takes only streams with max_bytes, and ours have none";
        found.push(Finding::fail(text, "nsc edit account --js-max-bytes-required=false"));
    }
    let (left, needed) = (left("max_storage", "storage"), bytes_needed(patient));
    if left < needed {
        let text = format!(
            "{} MiB of the account's storage are left; packets and snapshots may take {} MiB",
            left / MIB,
            needed / MIB
        );
        let fix = fix("js-disk-storage");
        found.push(if left <= 0 { Finding::fail(text, fix) } else { Finding::warn(text, fix) });
    }
    if found.is_empty() {
        let (streams, consumers) = (used("streams"), used("consumers"));
        let text = format!(
            "there is room: {streams} streams, {consumers} consumers, {} MiB are taken",
            used("storage") / MIB
        );
        found.push(Finding::ok(text));
    }
    found
}

/// What our packets and snapshots may take at most, all copies together.
fn bytes_needed(patient: &Patient<'_>) -> i64 {
    let config = patient.config;
    let targets = config.peers.values().filter(|peer| peer.export.state).count();
    let packets = u64::try_from(targets * PAYLOAD_MIN).unwrap_or(u64::MAX);
    let snapshots = if patient.has_snapshots { config.snapshot.stored_bytes_max } else { 0 };
    let once = packets.saturating_mul(STATE_EACH).saturating_add(snapshots);
    i64::try_from(once.saturating_mul(patient.settings.broker.replicas.into())).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::{Timestamp, skewed};

    #[test]
    fn a_clock_differs_only_by_what_the_way_does_not_explain() {
        let at = Timestamp::from_unix_ms;
        for (theirs, severity, text) in [
            (10_000, Severity::Ok, "agrees"),
            (10_400, Severity::Ok, "agrees"),
            (11_400, Severity::Ok, "agrees"),
            (11_402, Severity::Warn, "1002 ms ahead"),
            (8_000, Severity::Warn, "-2000 ms ahead"),
            (40_401, Severity::Fail, "30001 ms ahead"),
        ] {
            let finding = skewed(at(theirs), (at(10_000), at(10_400)), 30_000);
            assert_eq!(finding.severity, severity, "{theirs}: {finding:?}");
            assert!(finding.text.contains(text), "{finding:?}");
        }
    }
}
