//! `driftgate doctor`: a live broker against what the configuration promises, and what mends it.
//!
//! It asks and never changes: each finding has the command that would. What is wanted of streams,
//! buckets and consumer, and what a difference costs, is said where the sidecar says it (`nats`).
//! The checks stand in one table, `CHECKS`.

use std::collections::BTreeMap;
use std::io::{self, Write as _, stdout};
use std::path::Path;
use std::process::ExitCode;

use clap::builder::PossibleValuesParser;
use nkeys::KeyPair;
use serde_json::{Value, json};

use super::files::Files;
use super::sysexits::{self, Fault};
use crate::config::{Config, Mistake, read_from_disk};
use crate::nats::settings::Settings;
use crate::nats::survey::{Clock, Compared, Survey, SurveyFault, survey};
use crate::protocol::time::Timestamp;

mod assets;
mod connection;
mod machine;
mod permissions;
mod server;

const CATEGORIES: [&str; 6] =
    ["connection", "server", "jetstream", "assets", "permissions", "machine"];

const EXAMPLES: &str = "Examples:
  driftgate doctor --config driftgate.toml
  driftgate doctor -c driftgate.toml --category assets --json

It changes nothing. Each code is explained in docs/doctor.md. Exit codes: 0 no check failed, 1 one
did, 69 no broker answers, 78 a bad configuration.";

/// Holds a live broker against what the configuration promises
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Doctor {
    #[command(flatten)]
    config: Files,
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

/// How bad, what, and what mends it: a command where one can.
#[derive(Clone, Debug)]
struct Finding {
    severity: Severity,
    text: String,
    fix: String,
}

impl Finding {
    fn new(severity: Severity, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { severity, text: text.into(), fix: fix.into() }
    }

    fn ok(text: impl Into<String>) -> Self {
        Self::new(Severity::Ok, text, "")
    }

    fn warn(text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(Severity::Warn, text, fix)
    }

    fn fail(text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(Severity::Fail, text, fix)
    }

    fn skip(why: impl Into<String>) -> Self {
        Self::new(Severity::Skip, why, "")
    }
}

/// Who is looked at.
struct Patient<'a> {
    config: &'a Config,
    settings: &'a Settings,
    /// Whether any peer takes or gives memory snapshots.
    has_snapshots: bool,
    now: Timestamp,
    seen: Result<Survey, SurveyFault>,
}

/// What a check looks at; where that is missing it is skipped.
#[derive(Clone, Copy)]
enum Look {
    /// This machine, or whether there is a connection.
    Alone(fn(&Patient<'_>) -> Vec<Finding>),
    Broker(fn(&Patient<'_>, &Survey) -> Vec<Finding>),
    JetStream(fn(&Patient<'_>, &Survey, &[Compared]) -> Vec<Finding>),
}

/// Code, category, and the look.
type Check = (&'static str, &'static str, Look);

/// Everything that is looked at, in the order in which it is said.
const CHECKS: [Check; 24] = {
    use Look::{Alone, Broker, JetStream};
    [
        ("DG-CONNECTION-001", "connection", Alone(connection::reached)),
        ("DG-CONNECTION-002", "connection", Alone(connection::known)),
        ("DG-CONNECTION-003", "connection", Alone(connection::trusted)),
        ("DG-CONNECTION-004", "connection", Alone(connection::sealed)),
        ("DG-CREDENTIAL-001", "connection", Alone(connection::credential)),
        ("DG-SERVER-001", "server", Broker(server::version)),
        ("DG-SERVER-002", "server", Broker(server::payload)),
        ("DG-SERVER-003", "server", Broker(server::clock)),
        ("DG-JETSTREAM-001", "jetstream", Broker(server::jetstream)),
        ("DG-JETSTREAM-002", "jetstream", JetStream(server::api_level)),
        ("DG-JETSTREAM-003", "jetstream", JetStream(server::room)),
        ("DG-STREAM-001", "assets", JetStream(assets::streams)),
        ("DG-STREAM-002", "assets", JetStream(assets::sources)),
        ("DG-CONSUMER-001", "assets", JetStream(assets::consumer)),
        ("DG-BUCKET-001", "assets", JetStream(assets::buckets)),
        ("DG-DURABILITY-001", "assets", JetStream(assets::durability)),
        ("DG-TWIN-001", "assets", JetStream(assets::twin)),
        ("DG-PERMISSION-001", "permissions", Broker(permissions::export)),
        ("DG-PERMISSION-002", "permissions", Broker(permissions::forgery)),
        ("DG-PERMISSION-003", "permissions", Broker(permissions::missing)),
        ("DG-PERMISSION-004", "permissions", Broker(permissions::excess)),
        ("DG-PERMISSION-005", "permissions", Alone(permissions::inbox)),
        ("DG-SPOOL-001", "machine", Alone(machine::spool)),
        ("DG-SPOOL-002", "machine", Alone(machine::disk)),
    ]
};

/// One line of what is said.
struct Row {
    check: Check,
    finding: Finding,
}

impl Row {
    fn to_json(&self) -> Value {
        let ((code, category, _), Finding { severity, text, fix }) = (self.check, &self.finding);
        let doc = format!("docs/doctor.md#{}", code.to_ascii_lowercase());
        json!({
            "code": code, "category": category, "severity": severity, "text": text, "fix": fix,
            "doc": doc,
        })
    }

    fn to_text(&self) -> String {
        let Finding { severity, text, fix } = &self.finding;
        let severity: &str = severity.into();
        let fix = if fix.is_empty() { String::new() } else { format!("  fix: {fix}\n") };
        format!("{severity:4}  {:17}  {text}\n{fix}", self.check.0)
    }
}

impl Patient<'_> {
    fn looked_at(&self, look: Look) -> Vec<Finding> {
        match (look, &self.seen) {
            (Look::Alone(look), _) => look(self),
            (_, Err(_)) => vec![Finding::skip("not looked at: there is no connection")],
            (Look::Broker(look), Ok(seen)) => look(self, seen),
            (Look::JetStream(look), Ok(seen)) => match &seen.assets {
                Ok(assets) => look(self, seen, assets),
                Err(_) => vec![Finding::skip("not looked at: JetStream does not answer")],
            },
        }
    }
}

/// Reads the configuration. A file of credentials that is missing or empty is for the table to say:
/// something that can be parsed stands in for it, and no connection is made with that.
fn load(files: &Files, environment: &BTreeMap<String, String>) -> Result<Config, Fault> {
    let files = files.paths(environment);
    let of_credentials = |mistake: &Mistake| {
        ["nats.creds_file", "nats.nkey_file", "nats.token_file"].contains(&mistake.key.as_str())
    };
    Config::load(&files, environment, &read_from_disk)
        .or_else(|mistakes| {
            if !mistakes.listed().iter().all(of_credentials) {
                return Err(mistakes);
            }
            // Whatever else is named can be read, or it would be among the mistakes.
            let stand_in = |path: &Path| match read_from_disk(path) {
                Ok(content) if !content.is_empty() => Ok(content),
                _ => KeyPair::new_user().seed().map(String::into_bytes).map_err(io::Error::other),
            };
            Config::load(&files, environment, &stand_in).map_err(|_| mistakes)
        })
        .map_err(|mistakes| Fault::new(sysexits::CONFIG, mistakes.to_string()))
}

/// Looks and says what was found.
///
/// # Errors
/// [`Fault`]: the configuration cannot be used, or the output cannot be written.
pub async fn run(
    doctor: &Doctor,
    environment: &BTreeMap<String, String>,
    clock: Clock<'_>,
) -> Result<ExitCode, Fault> {
    let config = &load(&doctor.config, environment)?;
    let settings = &Settings::of(config);
    let has_snapshots =
        config.peers.values().any(|peer| peer.export.snapshot || peer.import.snapshot);
    let seen = survey(settings, config.peers.keys().next(), has_snapshots, clock).await;
    let patient = Patient { config, settings, has_snapshots, now: clock(), seen };
    let mut rows = Vec::new();
    for check in CHECKS {
        if doctor.category.is_empty() || doctor.category.iter().any(|name| name == check.1) {
            let found = patient.looked_at(check.2).into_iter();
            rows.extend(found.map(|finding| Row { check, finding }));
        }
    }
    let text: String = if doctor.json {
        let checks: Vec<Value> = rows.iter().map(Row::to_json).collect();
        format!("{}\n", json!({ "checks": checks }))
    } else {
        rows.iter().map(Row::to_text).collect()
    };
    stdout()
        .write_all(text.as_bytes())
        .map_err(|error| Fault::new(sysexits::IO_ERROR, format!("standard output: {error}")))?;
    let has_failed = rows.iter().any(|row| row.finding.severity == Severity::Fail);
    Ok(match (connection::is_away(&patient), has_failed) {
        (true, _) => ExitCode::from(sysexits::UNAVAILABLE),
        (false, true) => ExitCode::FAILURE,
        (false, false) => ExitCode::SUCCESS,
    })
}

#[cfg(test)]
mod tests {
    use super::{CATEGORIES, CHECKS};

    #[test]
    fn the_guide_has_a_section_for_every_code_and_no_other() {
        let guide = include_str!("../../docs/doctor.md");
        let headings = guide.lines().filter_map(|line| line.strip_prefix("## "));
        let documented: Vec<&str> = headings.filter(|heading| heading.starts_with("DG-")).collect();
        let codes: Vec<&str> = CHECKS.iter().map(|check| check.0).collect();
        assert_eq!(codes, documented);
        for category in CATEGORIES {
            assert!(guide.contains(&format!("`{category}`")), "{category}");
        }
        assert!(CHECKS.iter().all(|check| CATEGORIES.contains(&check.1)));
    }
}
