//! What the broker lets us do: too little, and too much.

use core::fmt::Write as _;

use serde_json::Value;

use super::{Finding, Patient};
use crate::config;
use crate::nats::grants::{Grant, Grants};
use crate::nats::settings::Settings;
use crate::nats::subject::{
    AssetName, CAPABILITIES, MANIFESTS, PRESENCE, Prefix, SNAPSHOTS, covers,
};
use crate::nats::survey::{Survey, SurveyFault};
use crate::protocol::packet::RuntimeId;

const GRANTS: &str = "driftgate permissions --for nats writes the grants";
const PUBLISH: &str = "publish";
const SUBSCRIBE: &str = "subscribe";
const UNTOLD: &str = "the broker does not tell: allow to publish to $SYS.REQ.USER.INFO";

/// The direction, as the broker names it, and the subject with what it is for.
type Use = (&'static str, Grant);

pub(super) fn export(_: &Patient<'_>, seen: &Survey) -> Vec<Finding> {
    vec![match seen.may_export {
        Some(true) => Finding::ok("packets to the first peer may be published"),
        Some(false) => {
            let text = "the broker does not permit to publish packets under our own name";
            Finding::fail(text, format!("allow it: {GRANTS}"))
        }
        None => Finding::skip("no peer, or no answer"),
    }]
}

pub(super) fn forgery(_: &Patient<'_>, seen: &Survey) -> Vec<Finding> {
    vec![match seen.may_forge {
        Some(false) => Finding::ok("packets under a peer's name may not be published"),
        Some(true) => {
            let text = "the broker lets us publish under a peer's name: only signatures tell";
            Finding::warn(text, format!("pin each runtime to its name: {GRANTS}"))
        }
        None => Finding::skip("no peer, or no answer"),
    }]
}

pub(super) fn missing(patient: &Patient<'_>, seen: &Survey) -> Vec<Finding> {
    let Some(user) = &seen.user else { return vec![Finding::skip(UNTOLD)] };
    let wanted = wanted(patient);
    let count = wanted.len();
    let lacking: Vec<Use> = wanted.into_iter().filter(|one| !permits(user, one)).collect();
    if lacking.is_empty() {
        return vec![Finding::ok(format!("all {count} subjects that we use are permitted"))];
    }
    let finding = |(direction, grant): &Use| {
        let text = format!("it may not {direction} {}: {}", grant.subject, grant.why);
        Finding::fail(text, allowing(patient.settings, user, &lacking))
    };
    lacking.iter().map(finding).collect()
}

/// All that we use; what snapshots take only where there are any.
fn wanted(patient: &Patient<'_>) -> Vec<Use> {
    let Grants { publish, subscribe } = Grants::of_sidecar(patient.settings);
    let publish = publish.into_iter().map(|grant| (PUBLISH, grant));
    let all = publish.chain(subscribe.into_iter().map(|grant| (SUBSCRIBE, grant)));
    let is_of_snapshots =
        |subject: &str| [MANIFESTS, SNAPSHOTS].iter().any(|bucket| subject.contains(bucket));
    all.filter(|(_, grant)| patient.has_snapshots || !is_of_snapshots(&grant.subject)).collect()
}

pub(super) fn excess(patient: &Patient<'_>, seen: &Survey) -> Vec<Finding> {
    let Some(user) = &seen.user else { return vec![Finding::skip(UNTOLD)] };
    let fix = "driftgate permissions --for nats writes what is enough";
    if user.pointer("/data/permissions").is_none() {
        let text = "this user has no permissions: it may write and read what is others'";
        return vec![Finding::warn(text, fix)];
    }
    let mut found = Vec::new();
    if user.pointer("/data/permissions/responses").is_some() {
        let text = "allow_responses lends our rights to whoever asks, for any reply subject";
        found.push(Finding::warn(text, fix));
    }
    let (others, wanted) = (foreign(patient), wanted(patient));
    let is_wanted = |(direction, grant): &Use| {
        wanted.iter().any(|(other, one)| other == direction && covers(&one.subject, &grant.subject))
    };
    let able = others.iter().filter(|one| permits(user, one) && !is_wanted(one));
    found.extend(able.map(|(direction, grant)| {
        let text = format!("it may {direction} {}: {}", grant.subject, grant.why);
        Finding::warn(text, fix)
    }));
    if found.is_empty() {
        let text = format!("none of {} subjects of others is permitted", others.len());
        found.push(Finding::ok(text));
    }
    found
}

/// What is not ours to do, and who does it could.
fn foreign(patient: &Patient<'_>) -> Vec<Use> {
    let me = &patient.settings.runtime_id;
    let config::Nats { prefix, stream_in, stream_out, .. } = &patient.settings.broker;
    let somebody = RuntimeId::new("driftgate-probe");
    let Some(other) = patient.config.peers.keys().next().or(somebody.as_ref()) else {
        return Vec::new();
    };
    let consumer = AssetName::consumer_of(other);
    let api = |call: String| patient.settings.api(&call);
    let all = [
        (PUBLISH, prefix.state(other, me).into_string(), "packets of others, forged"),
        (PUBLISH, prefix.containment(other).into_string(), "notices of others, forged"),
        (PUBLISH, prefix.telemetry(other).into_string(), "telemetry of others, forged"),
        (PUBLISH, prefix.quarantine(other).into_string(), "evidence of others, displaced"),
        (PUBLISH, format!("$KV.{PRESENCE}.{other}"), "others, made to look away"),
        (PUBLISH, format!("$KV.{CAPABILITIES}.{other}"), "manifests of others, lost"),
        (PUBLISH, format!("$KV.{MANIFESTS}.{other}.1"), "snapshots of others, lost"),
        (PUBLISH, api(format!("STREAM.DELETE.{stream_out}")), "everybody's packets, removed"),
        (PUBLISH, api(format!("STREAM.UPDATE.{stream_out}")), "everybody's stream, changed"),
        (PUBLISH, api(format!("STREAM.PURGE.{stream_out}")), "everybody's packets, removed"),
        (PUBLISH, api(format!("CONSUMER.DELETE.{stream_in}.{consumer}")), "others, made deaf"),
        (
            PUBLISH,
            api(format!("CONSUMER.MSG.NEXT.{stream_in}.{consumer}")),
            "others' packets, taken",
        ),
        (PUBLISH, api(format!("CONSUMER.CREATE.{stream_in}.x.>")), "others' packets, read"),
        (SUBSCRIBE, prefix.every_state(), "others' packets, read"),
        (SUBSCRIBE, prefix.handshake(other).into_string(), "others' handshakes, answered"),
        (SUBSCRIBE, format!("{}.>", Prefix::inbox_of(other).as_str()), "others' answers, read"),
    ];
    let grant = |(direction, subject, why)| (direction, Grant { subject, why });
    all.into_iter().map(grant).collect()
}

pub(super) fn inbox(patient: &Patient<'_>) -> Vec<Finding> {
    let prefix = patient.settings.inbox_prefix();
    let prefix = prefix.as_str();
    let usual = Prefix::inbox_of(&patient.settings.runtime_id);
    vec![match &patient.seen {
        _ if prefix != "_INBOX" && !prefix.starts_with("_INBOX.") => {
            let text = format!("nats.inbox_prefix is {prefix}: peers answer only below _INBOX");
            Finding::fail(text, format!("set nats.inbox_prefix = \"{}\"", usual.as_str()))
        }
        Err(SurveyFault::Deaf(words)) => {
            Finding::fail(words.clone(), format!("permit to subscribe to {prefix}.>: {GRANTS}"))
        }
        Err(SurveyFault::Connect(_)) => Finding::skip("not looked at: there is no connection"),
        Ok(_) => Finding::ok(format!("answers are heard below {prefix}")),
    }]
}

/// Whether a user may do all of it.
fn permits(user: &Value, (direction, grant): &Use) -> bool {
    let Some(lists) = user.pointer(&format!("/data/permissions/{direction}")) else { return true };
    let list = |name: &str| -> Vec<&str> {
        let entries = lists.get(name).and_then(Value::as_array).into_iter().flatten();
        // A queue's name may follow.
        entries.filter_map(|entry| entry.as_str()?.split(' ').next()).collect()
    };
    let (allow, deny) = (list("allow"), list("deny"));
    let subject = grant.subject.as_str();
    let is_denied = deny.iter().any(|deny| covers(deny, subject) || covers(subject, deny));
    !is_denied && (allow.is_empty() || allow.iter().any(|allow| covers(allow, subject)))
}

/// What permits it: a command where users are JWTs, else the lines for the server.
fn allowing(settings: &Settings, user: &Value, uses: &[Use]) -> String {
    let list = |wanted: &str, separator: &str| {
        let ours = uses.iter().filter(|(direction, _)| *direction == wanted);
        ours.map(|(_, grant)| grant.subject.as_str()).collect::<Vec<_>>().join(separator)
    };
    let mut fix = String::new();
    if settings.broker.creds_file.is_some() {
        let name = user.pointer("/data/user_name").and_then(Value::as_str).unwrap_or("NAME");
        // Writing into a String does not fail.
        let _ = write!(fix, "nsc edit user {name}");
        for (flag, subjects) in [("pub", list(PUBLISH, ",")), ("sub", list(SUBSCRIBE, ","))] {
            if !subjects.is_empty() {
                let _ = write!(fix, " --allow-{flag} '{subjects}'");
            }
        }
        return fix;
    }
    for (name, subjects) in
        [("publish", list(PUBLISH, "\", \"")), ("subscribe", list(SUBSCRIBE, "\", \""))]
    {
        if !subjects.is_empty() {
            let _ = write!(fix, "{name} allow: [\"{subjects}\"] ");
        }
    }
    fix + "for this user in the server's configuration"
}
