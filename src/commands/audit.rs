//! `driftgate audit verify`: reads a hash-chained audit log back and says whether it is whole.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::sysexits;
use crate::protocol::audit::{Broken, Link, Summary, Verifier};

/// Longest run of bytes without a newline that is read: above the 1 MiB that the writer looks back
/// for the traces of a crash. Anything longer is no audit log.
const PIECE_BYTES_MAX: u64 = 2 * 1024 * 1024;

/// Arguments of `driftgate audit`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    act: Act,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Act {
    /// Finds deleted, altered, repeated and reordered lines
    Verify(Verify),
}

#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  driftgate audit verify /var/lib/driftgate/audit.jsonl*
  driftgate audit verify --head 3f6c...e1 audit.jsonl

Exits 0 when every line is in its place, 65 with the first line that is not.

A chain cannot show that its end was cut off, or that all of it was made anew. The sidecar logs the
head of its chain at every start and stop; give one that was kept elsewhere with --head.")]
struct Verify {
    /// The files of one log, rotated ones too, in any order
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The hash of a line that has to be there
    #[arg(long, value_name = "HEX")]
    head: Option<String>,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

/// Why there is no summary.
enum Fault {
    Unreadable(PathBuf, io::Error),
    /// Where, and the line there.
    Broken(PathBuf, u64, Broken),
}

/// Verifies the files that `arguments` name and writes what they hold to `output`.
#[must_use]
pub fn run(arguments: &Arguments, output: &mut dyn Write) -> ExitCode {
    let Act::Verify(verify) = &arguments.act;
    let (written, code) = match check(verify) {
        Ok(summary) if verify.json => {
            (writeln!(output, "{}", to_json(&summary)), ExitCode::SUCCESS)
        }
        Ok(summary) => (write_summary(&summary, output), ExitCode::SUCCESS),
        Err(Fault::Broken(path, line, broken)) => {
            let path = path.display().to_string();
            let written = if verify.json {
                let broken = json!({ "whole": false, "file": path, "line": line,
                                     "why": broken.why.to_string() });
                writeln!(output, "{broken}")
            } else {
                writeln!(output, "broken    {path}:{line}: {}", broken.why)
            };
            (written, ExitCode::from(sysexits::DATA_ERROR))
        }
        Err(Fault::Unreadable(path, error)) => (
            writeln!(io::stderr(), "driftgate audit: {}: {error}", path.display()),
            ExitCode::from(sysexits::NO_INPUT),
        ),
    };
    match written.and_then(|()| output.flush()) {
        Ok(()) => code,
        Err(_) => ExitCode::from(sysexits::IO_ERROR),
    }
}

fn write_summary(summary: &Summary, output: &mut dyn Write) -> io::Result<()> {
    let Summary { lines, first_seq, last_seq, first_time, last_time, .. } = summary;
    writeln!(output, "whole     {lines} lines, {first_seq} to {last_seq}")?;
    if *first_seq > 1 {
        writeln!(output, "          older lines were rotated away or not given")?;
    }
    writeln!(output, "time      {first_time} to {last_time}")?;
    writeln!(output, "chain     {}", summary.chain)?;
    writeln!(output, "head      {}", summary.head)?;
    writeln!(output, "starts    {}, {} of them after a crash", summary.starts, summary.crashes)?;
    writeln!(output, "torn      {} writes cut short", summary.torn)?;
    writeln!(output, "lost      {} events", summary.lost)
}

fn to_json(summary: &Summary) -> Value {
    json!({
        "whole": true, "lines": summary.lines, "first_seq": summary.first_seq,
        "last_seq": summary.last_seq, "first_time": summary.first_time,
        "last_time": summary.last_time, "chain": summary.chain, "head": summary.head,
        "starts": summary.starts, "crashes": summary.crashes, "torn": summary.torn,
        "lost": summary.lost,
    })
}

fn check(verify: &Verify) -> Result<Summary, Fault> {
    let mut verifier = Verifier::new(verify.head.as_ref().map(|head| head.to_ascii_lowercase()));
    // Where each file begins, in lines of the whole log.
    let mut places: Vec<(u64, PathBuf)> = Vec::new();
    let mut lines = 0;
    let locate = |places: &[(u64, PathBuf)], broken: Broken| {
        let place = places.iter().rev().find(|(before, _)| broken.line > *before);
        let (before, path) = place.cloned().unwrap_or_default();
        Fault::Broken(path, broken.line.saturating_sub(before), broken)
    };
    for path in in_order(&verify.files)? {
        let unreadable = |error| Fault::Unreadable(path.clone(), error);
        places.push((lines, path.clone()));
        let mut reader = BufReader::new(File::open(&path).map_err(unreadable)?);
        while let Some((line, is_whole)) = next_line(&mut reader).map_err(unreadable)? {
            lines += 1;
            verifier.feed(&line).map_err(|broken| locate(&places, broken))?;
            if !is_whole {
                verifier.unterminated();
            }
        }
    }
    verifier.finish().map_err(|broken| locate(&places, broken))
}

/// The oldest file first, by the sequence number of its first line; as given where that cannot be
/// read. The shell's order is of no use: it puts the newest file first.
fn in_order(files: &[PathBuf]) -> Result<Vec<PathBuf>, Fault> {
    let mut numbered = Vec::new();
    for path in files {
        let unreadable = |error| Fault::Unreadable(path.clone(), error);
        let mut reader = BufReader::new(File::open(path).map_err(unreadable)?);
        let first = next_line(&mut reader).map_err(unreadable)?;
        let seq = first.and_then(|(line, _)| Link::read(&line).ok()).map(|link| link.seq);
        numbered.push((seq, path.clone()));
    }
    if numbered.iter().all(|(seq, _)| seq.is_some()) {
        numbered.sort();
    }
    Ok(numbered.into_iter().map(|(_, path)| path).collect())
}

/// The next line without its newline, and whether it had one.
fn next_line(reader: &mut BufReader<File>) -> io::Result<Option<(Vec<u8>, bool)>> {
    let mut line = Vec::new();
    reader.take(PIECE_BYTES_MAX).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    let is_whole = line.ends_with(b"\n");
    if is_whole {
        line.pop();
    }
    Ok(Some((line, is_whole)))
}
