//! `driftgate trace`: one report explained step by step, from a sidecar that runs or from a file.

mod text;

use std::collections::BTreeMap;
use std::io::{Write as _, stdin, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use http_body_util::Full;
use hyper::Request;
use serde_json::{Value, json};

use super::api::{Api, Options};
use super::files::Files;
use super::replay;
use super::sysexits::{self, Fault};
use crate::driver::{NEXT_TIMEOUT, VIEW_TIMEOUT};
use crate::protocol::bridge::{Bridge, Memory, Traced};
use crate::protocol::time::{Now, Timestamp};
use crate::protocol::view::Ticket;

const EXAMPLES: &str = "Examples:
  driftgate trace
  driftgate trace --next --json | jq '.table[] | select(.applies)'
  driftgate trace --seq 1795399649030000
  driftgate trace --config driftgate.toml report.json

Without FILE it asks the local sidecar, for the newest report unless told otherwise; the newest 32
are kept. With FILE it needs no sidecar and no broker: a gate that starts with the configuration
judges every report in it, in the shapes that replay reads, and the last one is explained. Texts of
a report are shown as their length. Exit codes: 0 explained; 65 no report; 66 no such report or
file; 69 nobody answers; 78 a wrong configuration.";

/// Explains one report step by step
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Trace {
    #[command(flatten)]
    sidecar: Options,
    /// A report, or a run of them, or `-` for standard input
    #[arg(value_name = "FILE", conflicts_with_all = ["next", "seq", "api"])]
    file: Option<PathBuf>,
    /// Waits for the next report, 10 s at most
    #[arg(long, conflicts_with = "seq")]
    next: bool,
    /// The report of this number
    #[arg(long, value_name = "N")]
    seq: Option<u64>,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

/// Explains it on standard output.
///
/// # Errors
/// [`Fault`], with what to say.
pub async fn run(
    trace: &Trace,
    environment: &BTreeMap<String, String>,
    now: &(dyn Fn() -> Timestamp + Sync),
) -> Result<ExitCode, Fault> {
    let explained = match &trace.file {
        Some(file) => judge(trace, file, environment, now())?,
        None => ask(trace, environment).await?,
    };
    let text = if trace.json { format!("{explained}\n") } else { text::of(&explained) };
    stdout()
        .write_all(text.as_bytes())
        .map_err(|error| Fault::new(sysexits::IO_ERROR, format!("standard output: {error}")))?;
    Ok(ExitCode::SUCCESS)
}

async fn ask(trace: &Trace, environment: &BTreeMap<String, String>) -> Result<Value, Fault> {
    let api = Api::find(&trace.sidecar, environment)?;
    let query = match trace.seq {
        Some(seq) => format!("?seq={seq}"),
        None if trace.next => "?seq=next".to_owned(),
        None => String::new(),
    };
    let request = Request::get(format!("/aegida/trace{query}"))
        .body(Full::default())
        .map_err(Fault::unavailable)?;
    api.ask(request, NEXT_TIMEOUT + VIEW_TIMEOUT + Duration::from_secs(3)).await
}

/// The newest report of the local sidecar, explained for people.
///
/// # Errors
/// [`Fault`]: nobody answers, or there is no report.
pub(super) async fn newest(
    files: &Files,
    environment: &BTreeMap<String, String>,
) -> Result<String, Fault> {
    let sidecar = Options::from(files.clone());
    let trace = Trace { sidecar, file: None, next: false, seq: None, json: false };
    Ok(text::of(&ask(&trace, environment).await?))
}

/// What a gate would make of the reports in a file that starts with this configuration.
fn judge(
    trace: &Trace,
    file: &Path,
    environment: &BTreeMap<String, String>,
    now: Timestamp,
) -> Result<Value, Fault> {
    let config = trace.sidecar.load(environment)?;
    let reports = replay::documents(file, &mut stdin())
        .map_err(|fault| Fault::new(fault.exit_code(), fault.to_string()))?;
    let now = Now { wall: now, mono: Duration::ZERO };
    let mut bridge = Bridge::new(config.identity(), config.live(), Memory::default(), now);
    for (number, report) in (1..).zip(reports) {
        // Nothing is there that an effect could have an effect on.
        drop(match report {
            Ok(document) => bridge.report(now, Ticket(number), &document, None),
            Err(_) => bridge.unreadable(now, Ticket(number)),
        });
    }
    let explained = bridge.trace(Traced::Newest);
    explained
        .map(|explained| json!(explained))
        .ok_or_else(|| Fault::new(sysexits::DATA_ERROR, format!("{}: no report", file.display())))
}
