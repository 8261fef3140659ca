//! `driftgate doctor`: a live broker against what the configuration promises, and what mends it.
//!
//! It asks and never changes: each finding has the command that would. What is wanted of streams
//! and consumer, and what a difference costs, is said where the sidecar says it (`nats`).

use std::collections::BTreeMap;
use std::io::{Write as _, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::PossibleValuesParser;

use super::api::load;
use super::sysexits::{self, Fault};
use crate::nats::assets::AssetFault;
use crate::nats::link::ConnectFault;
use crate::nats::settings::Settings;
use crate::nats::survey::{Survey, survey};
use crate::protocol::packet::PACKET_BYTES_MAX;

/// Below it presence entries do not expire by themselves.
const SERVER_MIN: (u64, u64) = (2, 11);
/// A packet with its headers.
const PAYLOAD_MIN: usize = PACKET_BYTES_MAX + 4 * 1024;

const CATEGORIES: [&str; 5] = ["connection", "server", "jetstream", "assets", "permissions"];

const EXAMPLES: &str = "Examples:
  driftgate doctor --config driftgate.toml
  driftgate doctor -c driftgate.toml --category assets --json

It changes nothing. Each code is explained in docs/doctor.md. Exit codes: 0 no check failed, 1 one
did, 69 no broker answers, 78 a bad configuration.";

/// Holds a live broker against what the configuration promises
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Doctor {
    /// The sidecar's configuration; a later file wins
    #[arg(short, long, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// Shows these checks only
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(CATEGORIES))]
    category: Vec<String>,
    /// Prints JSON instead of the table
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, strum::IntoStaticStr)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
enum Severity {
    Ok,
    Warn,
    Fail,
    Skip,
}

/// One line of what is said.
#[derive(Clone, Debug, serde::Serialize)]
struct Check {
    code: &'static str,
    category: &'static str,
    severity: Severity,
    text: String,
    fix: String,
    doc: String,
}

impl Check {
    fn new(code: &'static str, category: &'static str, finding: Finding) -> Self {
        let (severity, text, fix) = finding;
        let doc = format!("docs/doctor.md#{}", code.to_ascii_lowercase());
        Self { code, category, severity, text, fix, doc }
    }
}

/// How bad, what, and the command that mends it.
type Finding = (Severity, String, String);

fn fine(text: impl Into<String>) -> Finding {
    (Severity::Ok, text.into(), String::new())
}

fn skipped(why: &str) -> Finding {
    (Severity::Skip, why.to_owned(), String::new())
}

/// Looks and says what was found.
///
/// # Errors
/// [`Fault`]: the configuration cannot be used, or the output cannot be written.
pub async fn run(
    doctor: &Doctor,
    environment: &BTreeMap<String, String>,
) -> Result<ExitCode, Fault> {
    let config = load(&doctor.config, environment)?;
    let settings = Settings::of(&config);
    let peer = config.peers.keys().next();
    let (mut checks, is_away) = match survey(&settings, peer).await {
        Ok(survey) => (checks(&survey), false),
        Err(fault) => {
            let is_away = !matches!(fault, ConnectFault::Denied(_) | ConnectFault::Tls(_));
            (vec![Check::new(code_of(&fault), "connection", unconnected(&fault))], is_away)
        }
    };
    if !doctor.category.is_empty() {
        checks.retain(|check| doctor.category.iter().any(|name| name == check.category));
    }
    let text = if doctor.json {
        format!("{}\n", serde_json::json!({ "checks": checks }))
    } else {
        table(&checks)
    };
    stdout()
        .write_all(text.as_bytes())
        .map_err(|error| Fault::new(sysexits::IO_ERROR, format!("standard output: {error}")))?;
    let has_failed = checks.iter().any(|check| check.severity == Severity::Fail);
    Ok(match (is_away, has_failed) {
        (true, _) => ExitCode::from(sysexits::UNAVAILABLE),
        (false, true) => ExitCode::FAILURE,
        (false, false) => ExitCode::SUCCESS,
    })
}

fn code_of(fault: &ConnectFault) -> &'static str {
    match fault {
        ConnectFault::Denied(_) | ConnectFault::Secret(_) => "DG-CONNECTION-002",
        ConnectFault::Tls(_) => "DG-CONNECTION-003",
        ConnectFault::Starved(_) | ConnectFault::TimedOut | ConnectFault::Unreachable(_) => {
            "DG-CONNECTION-001"
        }
    }
}

fn unconnected(fault: &ConnectFault) -> Finding {
    let fix = match fault {
        ConnectFault::Denied(_) => "nats server check connection, with the same credentials",
        ConnectFault::Secret(_) => "mend the file that the text names",
        ConnectFault::Tls(_) => "set nats.tls.ca_file to the authority of the server's certificate",
        ConnectFault::Starved(_) | ConnectFault::TimedOut | ConnectFault::Unreachable(_) => {
            "start the broker, or mend nats.url"
        }
    };
    (Severity::Fail, fault.to_string(), fix.to_owned())
}

fn checks(survey: &Survey) -> Vec<Check> {
    let mut checks = vec![
        Check::new("DG-CONNECTION-001", "connection", fine("the broker answers and knows us")),
        Check::new("DG-SERVER-001", "server", version(survey)),
        Check::new("DG-SERVER-002", "server", payload(survey)),
    ];
    match &survey.assets {
        Ok(assets) => {
            checks.push(Check::new("DG-JETSTREAM-001", "jetstream", fine("JetStream answers")));
            for asset in assets {
                let is_stream = asset.name.starts_with("stream ");
                let code = if is_stream { "DG-STREAM-001" } else { "DG-CONSUMER-001" };
                let finding = if asset.differences.is_empty() {
                    fine(format!("{} is as promised", asset.name))
                } else {
                    (Severity::Fail, asset.differences.join("; "), asset.fix.clone())
                };
                checks.push(Check::new(code, "assets", finding));
            }
        }
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
            let finding = (Severity::Fail, fault.to_string(), fix.to_owned());
            checks.push(Check::new("DG-JETSTREAM-001", "jetstream", finding));
        }
    }
    checks.push(Check::new("DG-PERMISSION-001", "permissions", export(survey)));
    checks.push(Check::new("DG-PERMISSION-002", "permissions", forgery(survey)));
    checks
}

fn version(survey: &Survey) -> Finding {
    let server = &survey.server;
    let mut numbers = server.rsplit(' ').next().unwrap_or_default().split('.');
    let mut number = || numbers.next().and_then(|part| part.parse::<u64>().ok()).unwrap_or(0);
    if (number(), number()) >= SERVER_MIN {
        return fine(format!("the server is {server}"));
    }
    let text = format!("the server is {server}: entries do not expire by themselves");
    (Severity::Warn, text, "upgrade nats-server to 2.11 or newer".to_owned())
}

fn payload(survey: &Survey) -> Finding {
    let bytes = survey.max_payload;
    if bytes >= PAYLOAD_MIN {
        return fine(format!("messages of up to {bytes} bytes are taken"));
    }
    let text = format!("max_payload is {bytes}: a packet may have {PAYLOAD_MIN} with its headers");
    let fix = "set max_payload = 1MB in the server's configuration; nats-server --signal reload";
    (Severity::Fail, text, fix.to_owned())
}

fn export(survey: &Survey) -> Finding {
    match survey.may_export {
        Some(true) => fine("packets to the first peer may be published"),
        Some(false) => {
            let text = "the broker does not permit to publish packets under our own name";
            let fix = "allow it: the grants stand in deploy/nats.conf";
            (Severity::Fail, text.to_owned(), fix.to_owned())
        }
        None => skipped("no peer, or no answer"),
    }
}

fn forgery(survey: &Survey) -> Finding {
    match survey.may_forge {
        Some(false) => fine("packets under a peer's name may not be published"),
        Some(true) => {
            let text = "the broker lets us publish under a peer's name: only signatures tell";
            let fix = "pin each runtime to its name: the grants stand in deploy/nats.conf";
            (Severity::Warn, text.to_owned(), fix.to_owned())
        }
        None => skipped("no peer, or no answer"),
    }
}

fn table(checks: &[Check]) -> String {
    let line = |check: &Check| {
        let severity: &str = check.severity.into();
        let fix =
            if check.fix.is_empty() { String::new() } else { format!("  fix: {}\n", check.fix) };
        format!("{severity:4}  {:17}  {}\n{fix}", check.code, check.text)
    };
    checks.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_guide_has_a_section_for_every_code_and_no_other() {
        let (source, _) = include_str!("doctor.rs").split_once("#[cfg(test)]").unwrap();
        let of = |text: &'static str, mark: &'static str| {
            let mut codes: Vec<&str> = text
                .split(mark)
                .skip(1)
                .filter_map(|rest| rest.split(['"', '\n']).next())
                .collect();
            codes.sort_unstable();
            codes.dedup();
            codes
        };
        let documented = of(include_str!("../../docs/doctor.md"), "## DG-");
        assert_eq!(of(source, "\"DG-"), documented);
        assert!(documented.len() > 9);
    }
}
