//! `driftgate replay`: what the gate would have done with a recorded run.
//!
//! It translates with the profile and judges with the judge that the sidecar uses, so it says what
//! the sidecar would have said. What it deliberately does not do: seal or publish anything, or read
//! the clock; a recorded run has no silence.

mod explain;
mod log;
mod outcome;
mod plot;
mod table;

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::profiles::{self, LoadFault};
use crate::protocol::canonical::{Json, SyntaxFault};
use crate::protocol::drift::{Coherence, Provenance};
use crate::protocol::judge::Policy;
use crate::protocol::profile::Profile;
use log::{LOG_BYTES_MAX, LogFault, Recorded};
use outcome::Outcome;

/// Reports per sent report in caution: the sidecar's default.
const CAUTION_EVERY: u32 = 3;
/// Most key names that a refusal repeats.
const KEYS_SHOWN_MAX: usize = 12;
/// Longest key name that a refusal repeats, in characters: a key may hold anything.
const KEY_CHARS_MAX: usize = 32;

const EXAMPLES: &str = "Examples:
  driftgate replay run.json
  driftgate replay run.json --accept derived --assumed-scr 0.8 --svg run.svg
  driftgate replay run.json --explain 7
  tail -n 500 cycles.jsonl | driftgate replay - --json

LOG is a JSON object with `cycles`, a JSON array, JSON Lines, or one report. Its shape is recognised
by content. Exit codes: 0 replayed, 65 not a log of a governed runtime, 66 no such file or cycle, 78 a bad
profile.";

/// Shows what the gate would have done with a recorded run
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Replay {
    /// The recorded run, or `-` for standard input
    #[arg(value_name = "LOG")]
    log: PathBuf,
    /// How it is read: srip-05, reference-0.3, reference-0.1, or a profile file [default: by
    /// content]
    #[arg(long, value_name = "NAME|FILE")]
    profile: Option<String>,
    /// The weakest drift metrics that count as evidence
    #[arg(long, default_value = "native", value_parser = provenance())]
    accept: Provenance,
    /// Coherence that is assumed where the runtime reports none: above 0, at most 1
    #[arg(long, value_name = "X", value_parser = coherence)]
    assumed_scr: Option<Coherence>,
    /// Prints JSON instead of the table
    #[arg(long)]
    json: bool,
    /// Explains one cycle instead, by its number: the parts of its index, each reason in words, and
    /// what would reopen
    #[arg(long, value_name = "CYCLE")]
    explain: Option<u64>,
    /// Also draws drift against the thresholds
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

fn provenance() -> impl TypedValueParser<Value = Provenance> {
    PossibleValuesParser::new(["native", "reported", "derived"]).map(|word| match word.as_str() {
        "reported" => Provenance::Reported,
        "derived" => Provenance::Derived,
        _ => Provenance::Native,
    })
}

fn coherence(text: &str) -> Result<Coherence, String> {
    let number: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    Coherence::new(number).ok_or_else(|| "must be above 0 and at most 1".to_owned())
}

/// Why there is no replay.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The log cannot be opened or read.
    #[error("{path}: {source}")]
    Unreadable {
        /// As given.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The log is not one.
    #[error("{path}: {source}")]
    Log {
        /// As given.
        path: String,
        /// What is wrong with it.
        source: LogFault,
    },
    /// Nothing in the log says how stable the runtime was.
    #[error(transparent)]
    NotGoverned(#[from] NotGoverned),
    /// The log has no such cycle.
    #[error("--explain: {0}")]
    NoCycle(String),
    /// The profile cannot be had.
    #[error("--profile: {0}")]
    Profile(#[from] LoadFault),
    /// The picture cannot be written.
    #[error("--svg {path}: {source}")]
    Svg {
        /// As given.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The output cannot be written.
    #[error("output: {0}")]
    Output(#[from] io::Error),
}

impl Fault {
    /// The exit code, from sysexits.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Log { .. } | Self::NotGoverned(_) => 65,
            Self::Unreadable { .. } | Self::NoCycle(_) => 66,
            Self::Svg { .. } => 73,
            Self::Output(_) => 74,
            Self::Profile(_) => 78,
        }
    }
}

/// A log without drift metrics: text only, or a bare model's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotGoverned {
    cycles: usize,
    found: Vec<String>,
    first: Option<String>,
}

impl fmt::Display for NotGoverned {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cycles, found, first } = self;
        writeln!(formatter, "not_a_governed_runtime: none of the {cycles} cycles can be judged")?;
        writeln!(formatter, "  found    {}", found.join(", "))?;
        match first {
            Some(first) => writeln!(formatter, "  first    {first}")?,
            None => writeln!(
                formatter,
                "  missing  drift metrics and a phase: /drift_metrics/{{sdi,sv,pd}} with \
                 /attractor_state/{{scr,phase}},\n           or /drift_metrics/{{tonal,total}} \
                 with /attractor_state/phase, or /drift_total with /phase"
            )?,
        }
        write!(
            formatter,
            "  A log of texts says what was said, not how stable the runtime was. Record its \
             metrics each cycle\n  in the native shape (README, \"a report\"), or name where its \
             own metrics stand with --profile FILE\n  (config/profiles/ has examples)."
        )
    }
}

impl std::error::Error for NotGoverned {}

/// Replays a log and says on `stderr` what stands in the way of it. `stdin` is read only where the
/// log is `-`.
#[must_use]
pub fn run(
    replay: &Replay,
    stdin: &mut dyn Read,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) -> ExitCode {
    match write(replay, stdin, stdout, stderr) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            // Nobody is left to be told where even this cannot be written; the exit code remains.
            let _ = writeln!(stderr, "driftgate replay: {fault}");
            ExitCode::from(fault.exit_code())
        }
    }
}

/// Replays a log. What is no result, as the list of invalid reports beside JSON, goes to `stderr`.
///
/// # Errors
/// [`Fault`]; its [`Fault::exit_code`] is the process's.
pub fn write(
    replay: &Replay,
    stdin: &mut dyn Read,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) -> Result<(), Fault> {
    let cycles = read_log(&replay.log, stdin)?;
    let profile = match &replay.profile {
        Some(name) => profiles::load(name)?,
        None => recognise(&cycles).ok_or_else(|| not_governed(&cycles, None))?,
    };
    let policy =
        Policy { accept: replay.accept, assumed_scr: replay.assumed_scr, ..Policy::default() };
    let outcome = Outcome::of(&cycles, profile, policy, CAUTION_EVERY);
    if outcome.rows.iter().all(|row| row.problem.is_some()) {
        let first = outcome.rows.iter().find_map(|row| row.problem.clone());
        return Err(not_governed(&cycles, first).into());
    }
    if let Some(path) = &replay.svg {
        std::fs::write(path, plot::draw(&outcome))
            .map_err(|source| Fault::Svg { path: path.display().to_string(), source })?;
    }
    let explained = replay.explain.map(|cycle| explain::find(&outcome, cycle)).transpose()?;
    let written = if let Some(row) = explained {
        explain::write(&outcome, row, replay.json, stdout)
    } else if replay.json {
        table::write_invalid(&outcome, stderr)?;
        table::write_json(&outcome, stdout)
    } else {
        table::write(&outcome, stdout)
    };
    match written {
        // Whoever reads has seen enough (`| head`).
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// The reports of a log, and what is none.
///
/// # Errors
/// [`Fault`].
pub(super) fn documents(
    log: &Path,
    stdin: &mut dyn Read,
) -> Result<Vec<Result<Json, SyntaxFault>>, Fault> {
    Ok(read_log(log, stdin)?.into_iter().map(|recorded| recorded.document).collect())
}

fn read_log(log: &Path, stdin: &mut dyn Read) -> Result<Vec<Recorded>, Fault> {
    let path = log.display().to_string();
    let unreadable = |source| Fault::Unreadable { path: path.clone(), source };
    let mut bytes = Vec::new();
    if path == "-" {
        stdin.take(LOG_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    } else {
        let file = File::open(log).map_err(unreadable)?;
        file.take(LOG_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    }
    log::read(&bytes).map_err(|source| Fault::Log { path: path.clone(), source })
}

/// The built-in profile of the first cycle that has one.
fn recognise(cycles: &[Recorded]) -> Option<Profile> {
    cycles.iter().find_map(|cycle| profiles::recognise(cycle.document.as_ref().ok()?))
}

fn not_governed(cycles: &[Recorded], first: Option<String>) -> NotGoverned {
    let members = cycles.iter().find_map(|cycle| cycle.document.as_ref().ok()?.as_object());
    let keys = members.into_iter().flat_map(|members| members.keys()).take(KEYS_SHOWN_MAX);
    let printable = |key: &String| -> String {
        key.chars()
            .take(KEY_CHARS_MAX)
            .map(|letter| if letter.is_control() { '?' } else { letter })
            .collect()
    };
    NotGoverned { cycles: cycles.len(), found: keys.map(printable).collect(), first }
}
