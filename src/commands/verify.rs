//! `driftgate verify`: are these packets what they claim to be?
//!
//! Says of each packet what a receiving sidecar would say of its content: shape, checksum, tag,
//! stability, and with `--max-age` freshness. What deliberately is not here: address, authority and
//! replay, which depend on who receives.

mod pieces;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use self::pieces::{Piece, Pieces};
use super::files::Files;
use super::sysexits;
use crate::config::{Config, read_from_disk};
use crate::keys;
use crate::protocol::gate::BLOCK_MAX;
use crate::protocol::packet::StatePacket;
use crate::protocol::seal::{Fault, Keyring, Refusal, Unproven, unstable};
use crate::protocol::time::Timestamp;

/// How much is read at once, in bytes: what a pipe holds.
const CHUNK_BYTES_MAX: usize = 64 * 1024;
/// How far ahead a timestamp may lie when freshness is checked.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(30);

/// Arguments of `driftgate verify`.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(after_help = "Examples:
  nats sub --raw 'driftgate.v1.state.>' | driftgate verify --key-file k1=/etc/driftgate/keys/k1
  driftgate verify --config driftgate.toml packets.jsonl
  driftgate verify --checksum-only packets.jsonl

Exit code: 0 when every packet is good, 65 when one is bad or there was none, 66 when FILE cannot be
opened, 74 when reading or writing fails, 78 when there is no usable key.")]
pub struct Arguments {
    /// A key to verify with: its id and its file (repeatable)
    #[arg(long = "key-file", value_name = "ID=PATH", value_parser = parse_key_file,
          conflicts_with = "config")]
    pub key_files: Vec<(String, PathBuf)>,
    /// Where the configuration is read from.
    #[command(flatten)]
    pub config: Files,
    /// Without keys: checks shape and checksum, which anyone can make, and proves nothing
    #[arg(long, conflicts_with_all = ["key_files", "config"])]
    pub checksum_only: bool,
    /// Refuses packets older than this, or more than 30 s ahead
    #[arg(long, value_name = "SECONDS")]
    pub max_age: Option<u64>,
    /// Prints one JSON object per line
    #[arg(long)]
    pub json: bool,
    /// Packets, one a line, concatenated or pretty-printed [default: standard input]
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
}

fn parse_key_file(text: &str) -> Result<(String, PathBuf), &'static str> {
    match text.split_once('=') {
        Some((id, path)) if !id.is_empty() && !path.is_empty() => Ok((id.into(), path.into())),
        Some(_) | None => Err("must be ID=PATH"),
    }
}

/// Verifies a stream of packets and writes one line for each to `output`.
///
/// `environment` holds the variables of the process, for `--config`; `clock` is asked only with
/// `--max-age`.
#[must_use]
pub fn run(
    arguments: &Arguments,
    environment: &BTreeMap<String, String>,
    clock: &dyn Fn() -> Timestamp,
    output: &mut dyn Write,
) -> ExitCode {
    let (proof, block) = match proof(arguments, environment) {
        Ok(proof) => proof,
        Err(problem) => return complain(sysexits::CONFIG, &problem),
    };
    let max_age = arguments.max_age.map(Duration::from_secs);
    let check = Check { proof, block, max_age, clock, json: arguments.json };
    let totals = match &arguments.file {
        None => verify(&mut io::stdin().lock(), output, &check),
        Some(path) => match File::open(path) {
            Ok(mut file) => verify(&mut file, output, &check),
            Err(error) => {
                return complain(sysexits::NO_INPUT, &format!("{}: {error}", path.display()));
            }
        },
    };
    match totals {
        Ok(totals) if totals.bad == 0 && totals.good > 0 => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(sysexits::DATA_ERROR),
        Err(error) => complain(sysexits::IO_ERROR, &error.to_string()),
    }
}

fn complain(code: u8, problem: &str) -> ExitCode {
    // Nobody is left to tell when standard error is gone.
    let _ = writeln!(io::stderr(), "driftgate verify: {problem}");
    ExitCode::from(code)
}

/// What proves a packet, and the block mark to hold it against.
fn proof(
    arguments: &Arguments,
    environment: &BTreeMap<String, String>,
) -> Result<(Proof, f64), String> {
    if arguments.checksum_only {
        return Ok((Proof::ChecksumOnly, BLOCK_MAX));
    }
    let files = arguments.config.paths(environment);
    if arguments.key_files.is_empty() && !files.is_empty() {
        let config = Config::load(&files, environment, &read_from_disk)
            .map_err(|mistakes| format!("the configuration is wrong:\n{mistakes}"))?;
        let block = config.containment.block;
        return Ok((Proof::Keyed(config.keyring), block));
    }
    if arguments.key_files.is_empty() {
        return Err("no key: a checksum alone proves nothing, for anyone can make one. Give \
                    --key-file ID=PATH or --config FILE, or say --checksum-only"
            .into());
    }
    let mut material = Vec::new();
    for (id, path) in &arguments.key_files {
        let file = keys::read(path).map_err(|fault| fault.to_string())?;
        if let Some(warning) = &file.warning {
            let _ = writeln!(io::stderr(), "driftgate verify: warning: {warning}");
        }
        material.push((id.clone(), file.material));
    }
    let keyring = Keyring::new(material, None).map_err(|fault| fault.to_string())?;
    Ok((Proof::Keyed(keyring), BLOCK_MAX))
}

/// What makes a packet good.
#[derive(Debug)]
pub enum Proof {
    /// Its tag, under a key of this ring.
    Keyed(Keyring),
    /// Its checksum. Proves only that it was not damaged by accident.
    ChecksumOnly,
}

/// What is checked of each packet.
pub struct Check<'a> {
    /// Who made it.
    pub proof: Proof,
    /// Its index must be below.
    pub block: f64,
    /// How old it may be; `None` for recorded packets.
    pub max_age: Option<Duration>,
    /// The time of day, asked only when `max_age` is set.
    pub clock: &'a dyn Fn() -> Timestamp,
    /// Whether lines are JSON.
    pub json: bool,
}

impl core::fmt::Debug for Check<'_> {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter
            .debug_struct("Check")
            .field("proof", &self.proof)
            .field("block", &self.block)
            .field("max_age", &self.max_age)
            .field("json", &self.json)
            .finish_non_exhaustive()
    }
}

/// How many packets were good and bad.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Packets that passed.
    pub good: u64,
    /// Packets that did not, and whatever else stood in the stream.
    pub bad: u64,
}

/// Reads packets from `source` until it ends and prints to `sink` one line each, as they come, and
/// a summary.
///
/// # Errors
/// Of the source or the sink.
pub fn verify(
    source: &mut impl Read,
    sink: &mut dyn Write,
    check: &Check<'_>,
) -> io::Result<Totals> {
    let mut pieces = Pieces::default();
    let mut report = Report { totals: Totals::default(), bad_line: None };
    let mut chunk = vec![0; CHUNK_BYTES_MAX];
    loop {
        let length = match source.read(&mut chunk) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        for byte in chunk.iter().take(length) {
            if let Some(piece) = pieces.push(*byte) {
                report.piece(&piece, sink, check)?;
            }
        }
        sink.flush()?;
    }
    if let Some(piece) = pieces.finish() {
        report.piece(&piece, sink, check)?;
    }
    let Totals { good, bad } = report.totals;
    let (word, what) = match check.proof {
        Proof::Keyed(_) => ("keyed", ""),
        Proof::ChecksumOnly => {
            ("checksum-only", " (checksums only: this does not say who made them)")
        }
    };
    let packets = good.saturating_add(bad);
    if check.json {
        let sums = json!({ "packets": packets, "good": good, "bad": bad, "proof": word });
        writeln!(sink, "{sums}")?;
    } else {
        writeln!(sink, "{packets} packets: {good} ok, {bad} bad{what}")?;
    }
    sink.flush()?;
    Ok(report.totals)
}

struct Report {
    totals: Totals,
    /// The line of the last piece, when it was bad: what follows on it is the rest of the damage.
    bad_line: Option<u64>,
}

impl Report {
    fn piece(&mut self, piece: &Piece, sink: &mut dyn Write, check: &Check<'_>) -> io::Result<()> {
        if piece.content.is_err() && self.bad_line == Some(piece.line) {
            return Ok(());
        }
        let judged = match &piece.content {
            Ok(bytes) => check.judge(bytes),
            Err(problem) => Err(Refusal::malformed("/", problem)),
        };
        match judged {
            Ok(Good { packet, seq, key_id }) => {
                self.totals.good = self.totals.good.saturating_add(1);
                self.bad_line = None;
                let (source, target) =
                    (&packet.header.source_runtime_id, &packet.header.target_runtime_id);
                let di = packet.payload.di.value();
                if check.json {
                    let good = json!({ "ok": true, "line": piece.line, "source": source,
                                       "target": target, "seq": seq, "key_id": key_id, "di": di });
                    return writeln!(sink, "{good}");
                }
                writeln!(sink, "ok {source}->{target} {seq} {key_id} {di}")
            }
            Err(refusal) => {
                self.totals.bad = self.totals.bad.saturating_add(1);
                self.bad_line = Some(piece.line);
                if check.json {
                    let bad = json!({ "ok": false, "line": piece.line,
                                      "refusal": refusal.to_string() });
                    return writeln!(sink, "{bad}");
                }
                writeln!(sink, "BAD line {}: {refusal}", piece.line)
            }
        }
    }
}

/// What is printed of a good packet.
struct Good {
    packet: StatePacket,
    seq: u64,
    key_id: String,
}

impl Check<'_> {
    fn judge(&self, bytes: &[u8]) -> Result<Good, Refusal> {
        let good = match &self.proof {
            Proof::Keyed(keyring) => {
                let verified = keyring.open(bytes)?;
                let key_id = verified.key_id().to_owned();
                Good { packet: verified.packet().clone(), seq: verified.seq(), key_id }
            }
            Proof::ChecksumOnly => {
                let unproven = Unproven::read(bytes)?;
                let key_id = unproven.key_id().to_owned();
                Good { packet: unproven.packet().clone(), seq: unproven.seq(), key_id }
            }
        };
        if let Some(detail) = unstable(&good.packet, self.block) {
            return Err(Refusal { fault: Fault::Unstable, detail });
        }
        if let Some(max_age) = self.max_age {
            let (now, sent) = ((self.clock)(), good.packet.header.timestamp);
            let detail = if now.since(sent) > max_age {
                format!("/header/timestamp: {} s old", now.since(sent).as_secs())
            } else if sent.since(now) > CLOCK_SKEW_MAX {
                format!("/header/timestamp: {} s ahead", sent.since(now).as_secs())
            } else {
                return Ok(good);
            };
            return Err(Refusal { fault: Fault::Expired, detail });
        }
        Ok(good)
    }
}
