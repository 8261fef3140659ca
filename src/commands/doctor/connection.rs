//! Whether there is a connection, as whom, and who reads along.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::{Finding, Patient};
use crate::nats::link::ConnectFault;
use crate::nats::survey::SurveyFault;
use crate::protocol::time::Timestamp;

/// A credential that ends sooner is worth a word, in milliseconds.
const EXPIRES_SOON_MS: i64 = 7 * 24 * 3_600_000;

/// Where a connection ends, in the order of getting further.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    /// Not tried.
    Nowhere,
    /// No server.
    Away,
    /// No trust in it.
    Strange,
    /// It does not trust us.
    Unknown,
    /// There is one.
    Through,
}

fn reach(patient: &Patient<'_>) -> Reach {
    match &patient.seen {
        Ok(_) | Err(SurveyFault::Deaf(_)) => Reach::Through,
        Err(SurveyFault::Connect(fault)) => match fault {
            ConnectFault::Denied(_) => Reach::Unknown,
            ConnectFault::Secret(_) => Reach::Nowhere,
            ConnectFault::Tls(_) => Reach::Strange,
            ConnectFault::Starved(_) | ConnectFault::TimedOut | ConnectFault::Unreachable(_) => {
                Reach::Away
            }
        },
    }
}

/// Whether there is no broker at all.
pub(super) fn is_away(patient: &Patient<'_>) -> bool {
    reach(patient) == Reach::Away
}

/// Says of one stage whether it was passed, was the end, or was not come to.
fn stage(patient: &Patient<'_>, here: Reach, passed: &str, fix: &str) -> Vec<Finding> {
    let reach = reach(patient);
    let fault = patient.seen.as_ref().err().map(ToString::to_string).unwrap_or_default();
    vec![match reach.cmp(&here) {
        core::cmp::Ordering::Less => Finding::skip("not looked at: no connection came so far"),
        core::cmp::Ordering::Equal => Finding::fail(fault, fix),
        core::cmp::Ordering::Greater => Finding::ok(passed),
    }]
}

pub(super) fn reached(patient: &Patient<'_>) -> Vec<Finding> {
    stage(patient, Reach::Away, "the broker answers", "start the broker, or mend nats.url")
}

pub(super) fn trusted(patient: &Patient<'_>) -> Vec<Finding> {
    let fix = "set nats.tls.ca_file to the authority of the server's certificate";
    stage(patient, Reach::Strange, "we trust the server, or TLS is not asked for", fix)
}

pub(super) fn known(patient: &Patient<'_>) -> Vec<Finding> {
    let fix = "nats server check connection, with the same credentials";
    stage(patient, Reach::Unknown, "the broker knows us", fix)
}

pub(super) fn sealed(patient: &Patient<'_>) -> Vec<Finding> {
    let all = patient.config.warnings(patient.now);
    let found: Vec<Finding> = all
        .iter()
        .filter(|warning| warning.key == "nats.url")
        .map(|warning| Finding::warn(warning.to_string(), "set nats.tls.required = true"))
        .collect();
    if found.is_empty() { vec![Finding::ok("nothing travels in the clear")] } else { found }
}

pub(super) fn credential(patient: &Patient<'_>) -> Vec<Finding> {
    if let Err(fault) = patient.settings.secret() {
        let fix = format!("sudo install -m 0400 -o \"$(id -u)\" YOURS {}", fault.path.display());
        return vec![Finding::fail(fault.to_string(), fix)];
    }
    let Some(path) = &patient.settings.broker.creds_file else {
        return vec![Finding::ok("our credentials can be read, and do not expire by themselves")];
    };
    let claims = patient.settings.secret().ok().flatten().as_deref().and_then(claims);
    let Some(claims) = claims else {
        let text = format!("{}: its JWT cannot be read", path.display());
        return vec![Finding::fail(text, "nsc generate creds makes another")];
    };
    let name = claims.get("name").and_then(Value::as_str).unwrap_or("NAME");
    let Some(ends) = claims.get("exp").and_then(Value::as_i64).filter(|ends| *ends > 0) else {
        return vec![Finding::ok("our credentials can be read, and do not expire")];
    };
    let ends = Timestamp::from_unix_ms(ends.saturating_mul(1000));
    let fix = format!(
        "nsc edit user {name} --expiry 90d && nsc generate creds --name {name} --output-file {}",
        path.display()
    );
    let text = format!("{}: its JWT ends at {ends}", path.display());
    vec![match ends.unix_ms() - patient.now.unix_ms() {
        ..=0 => Finding::fail(format!("{text}, which is over"), fix),
        1..EXPIRES_SOON_MS => Finding::warn(format!("{text}, within a week"), fix),
        _ => Finding::ok(text),
    }]
}

/// What the JWT of a credentials file says. Not proven: the broker does that.
fn claims(creds: &str) -> Option<Value> {
    let mut lines = creds.lines().skip_while(|line| !line.contains("BEGIN NATS USER JWT"));
    let body = lines.nth(1)?.trim().split('.').nth(1)?;
    let bytes = URL_SAFE_NO_PAD.decode(body.trim_end_matches('=')).ok()?;
    serde_json::from_slice(&bytes).ok()
}
