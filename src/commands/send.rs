//! `driftgate send`: a sample report to the local sidecar, and what the gate made of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Write as _, stdout};
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use http_body_util::Full;
use hyper::Request;
use hyper::header::CONTENT_TYPE;
use serde_json::{Value, json};

use super::api::{Api, Options};
use super::sysexits::{self, Fault};

/// Above every answer time that a sidecar may be configured for.
pub(super) const REPLY_TIMEOUT: Duration = Duration::from_secs(90);
/// The coherence of a sample.
const SCR: f64 = 0.8;
/// Largest index of a sample: its parts are fractions.
const DI_MAX: f64 = 1.0;

const EXAMPLES: &str = "Examples:
  driftgate send
  driftgate send --band blocked
  driftgate send --check --di 0.6
  driftgate send --di 0.47 --cycle 12 --json --api unix:/run/driftgate.sock

The sample is in the native shape (profile srip-05). It is a report like any other and moves the
gate. Exit codes: 0 judged, and the gate is not closed; 75 the gate is closed; 65 refused; 69 nobody
answers.";

/// Sends a sample report to the local sidecar
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Send {
    #[command(flatten)]
    sidecar: Options,
    /// Its drift index, 0 to 1; at 0 it is no evidence [default: 0.2]
    #[arg(long, value_name = "X", value_parser = index, conflicts_with = "band")]
    di: Option<f64>,
    /// A drift index in the middle of this band
    #[arg(long, value_parser = PossibleValuesParser::new(BANDS.map(|(word, _)| word)))]
    band: Option<String>,
    /// Its phase word
    #[arg(long, value_name = "WORD", default_value = "stable")]
    phase: String,
    /// Its cycle number [default: none]
    #[arg(long, value_name = "N")]
    cycle: Option<u64>,
    /// Asks what would happen; nothing is moved, sent or counted
    #[arg(long)]
    check: bool,
    /// Prints the answer as JSON
    #[arg(long)]
    json: bool,
}

/// Each band, and an index in it by the specification's marks.
const BANDS: [(&str, f64); 4] =
    [("open", 0.2), ("caution", 0.475), ("blocked", 0.55), ("isolated", 0.65)];

fn index(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| (0.0..=DI_MAX).contains(number));
    number.ok_or_else(|| "must be a number from 0 to 1".to_owned())
}

/// Sends it and prints the answer.
///
/// # Errors
/// [`Fault`], with what to say.
pub async fn run(send: &Send, environment: &BTreeMap<String, String>) -> Result<ExitCode, Fault> {
    let api = Api::find(&send.sidecar, environment)?;
    let path = if send.check { "/field/state?check" } else { "/field/state" };
    let request = Request::post(path)
        .header(CONTENT_TYPE, "application/json")
        .body(Full::from(sample(send).to_string()))
        .map_err(Fault::unavailable)?;
    let reply = api.ask(request, REPLY_TIMEOUT).await?;
    let text = if send.json { format!("{reply}\n") } else { table(&reply) };
    stdout()
        .write_all(text.as_bytes())
        .map_err(|error| Fault::new(sysexits::IO_ERROR, format!("standard output: {error}")))?;
    let is_closed = matches!(word(&reply, "band"), "blocked" | "isolated");
    Ok(if is_closed { ExitCode::from(sysexits::TEMPORARY) } else { ExitCode::SUCCESS })
}

/// A report in the native shape. Up to an index of 0.68 no part is past its own critical mark, so
/// that the index alone decides.
fn sample(send: &Send) -> Value {
    let of_band = |band: &String| BANDS.iter().find(|(word, _)| word == band);
    let di = send.di.or_else(|| send.band.as_ref().and_then(of_band).map(|(_, di)| *di));
    let di = di.unwrap_or(0.2);
    let sum = 3.0 * SCR * di;
    let (sdi, sv) = (sum / 3.0, sum * 0.39);
    let mut report = json!({
        "attractor_state": {"id": "sample", "type": "symbolic", "stability": 0.9,
                            "phase": send.phase, "scr": SCR},
        "drift_metrics": {"sdi": sdi, "sv": sv, "pd": sum - sdi - sv, "di": di},
    });
    if let (Some(cycle), Some(members)) = (send.cycle, report.as_object_mut()) {
        members.insert("cycle".to_owned(), cycle.into());
    }
    report
}

fn word<'a>(value: &'a Value, member: &str) -> &'a str {
    value.get(member).and_then(Value::as_str).unwrap_or("-")
}

/// A JSON list of words as one text.
pub(super) fn words(list: Option<&Value>) -> String {
    let list = list.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let words: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
    if words.is_empty() { "-".to_owned() } else { words.join(", ") }
}

fn table(reply: &Value) -> String {
    let shown = |member: &str| reply.get(member).map_or_else(String::new, Value::to_string);
    let mut text = format!(
        "verdict  {}\nband     {}\ndi       {} ({})\nreasons  {}\nseq      {}\n",
        word(reply, "verdict"),
        word(reply, "band"),
        shown("di"),
        word(reply, "drift_source"),
        words(reply.get("reasons")),
        shown("seq"),
    );
    if reply.get("check").is_some() {
        text.push_str("check    nothing of this has happened\n");
    }
    if let Some(barrier) = reply.get("barrier").and_then(Value::as_str) {
        let _ = writeln!(text, "barrier  {barrier}");
    }
    let packets = reply.get("packets").and_then(Value::as_array);
    for packet in packets.into_iter().flatten() {
        let place = packet.get("stream_seq").map_or_else(String::new, |seq| format!("  at {seq}"));
        let _ = writeln!(
            text,
            "packet   {}  {}{place}",
            word(packet, "target"),
            word(packet, "status")
        );
    }
    text
}
