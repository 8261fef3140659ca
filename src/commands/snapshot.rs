//! `driftgate snapshot`: push, read, list and restore memory snapshots.
//!
//! `put` and `get` go through the local sidecar: its gate decides whether anything may leave, and
//! the spool is its own. `ls` and `restore` go straight to the bucket with the configuration's
//! broker and keys, and need no sidecar: the same listing, verifying and restoring. What
//! deliberately is not here: a way to push past a gate.

use std::collections::BTreeMap;
use std::io::{Write, stderr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;

use crate::protocol::digest::Digest;
use crate::protocol::time::Timestamp;

use super::api;
use super::files::Files;
use super::sysexits::{Fault, INTERRUPTED};

mod bar;
mod bucket;
mod get;
mod put;
mod target;

/// Pushes, reads, lists and restores memory snapshots
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  driftgate snapshot put memory.bin\n  \
                        driftgate snapshot get --source planner memory.bin\n  \
                        driftgate snapshot ls --config driftgate.toml planner\n  \
                        driftgate snapshot restore --config driftgate.toml planner memory.bin")]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Clone, Debug, Subcommand)]
enum Action {
    /// Gives one to the local sidecar, which stores it when its gate is open
    #[command(after_help = "Examples:\n  driftgate snapshot put memory.bin\n  \
                            driftgate snapshot put --config driftgate.toml --json memory.bin\n  \
                            tar c memory | driftgate snapshot put --media-type application/x-tar -\n\n\
                            Exit codes: 0 stored, unchanged, or safe on the sidecar's disk; 75 the \
                            gate is not open; 69 nobody answers or has room.")]
    Put {
        #[command(flatten)]
        sidecar: api::Options,
        /// What the bytes are, for whoever reads them
        #[arg(long, value_name = "TYPE", default_value = "application/octet-stream")]
        media_type: String,
        /// Prints the answer as JSON
        #[arg(long)]
        json: bool,
        /// What to push; `-` is standard input
        file: PathBuf,
    },
    /// Reads one from the local sidecar, verified
    #[command(after_help = "Examples:\n  driftgate snapshot get memory.bin\n  \
                            driftgate snapshot get --source critic --api unix:/run/driftgate.sock \
                            - | tar x\n\n\
                            Exit codes: 66 there is none; 75 the gate is isolated; 65 what is \
                            there is not what was signed.")]
    Get {
        #[command(flatten)]
        sidecar: api::Options,
        /// Whose; the sidecar's own runtime when absent
        #[arg(long, value_name = "ID")]
        source: Option<String>,
        /// Which, by the SHA-256 of its bytes, `sha256:` and 64 hex digits; the newest when absent
        #[arg(long, value_name = "SHA256", value_parser = digest)]
        digest: Option<Digest>,
        /// Where to; `-` is standard output
        out: PathBuf,
    },
    /// Lists the verified snapshots of a runtime, oldest first, straight from the bucket
    #[command(after_help = "Example:\n  driftgate snapshot ls --config driftgate.toml planner")]
    Ls {
        #[command(flatten)]
        config: Files,
        /// Prints one JSON object per line
        #[arg(long)]
        json: bool,
        /// Whose
        runtime: String,
    },
    /// Restores one straight from the bucket
    #[command(
        after_help = "Example:\n  driftgate snapshot restore --config driftgate.toml planner \
                            memory.bin"
    )]
    Restore {
        #[command(flatten)]
        config: Files,
        /// Its number; the newest when absent
        #[arg(long)]
        seq: Option<u64>,
        /// Whose
        runtime: String,
        /// Where to; `-` is standard output
        out: PathBuf,
    },
}

/// Runs it.
///
/// # Errors
/// [`Fault`], with what to say.
pub async fn run(
    arguments: &Arguments,
    environment: &BTreeMap<String, String>,
    now: Timestamp,
) -> Result<ExitCode, Fault> {
    tokio::select! {
        outcome = act(&arguments.action, environment, now) => outcome?,
        // What is half written goes away with it.
        Ok(()) = tokio::signal::ctrl_c() => return Err(Fault::new(INTERRUPTED, "interrupted")),
    }
    Ok(ExitCode::SUCCESS)
}

async fn act(
    action: &Action,
    environment: &BTreeMap<String, String>,
    now: Timestamp,
) -> Result<(), Fault> {
    match action {
        Action::Put { sidecar, media_type, json, file } => {
            put::run(sidecar, environment, file, media_type, *json).await
        }
        Action::Get { sidecar, source, digest, out } => {
            get::run(sidecar, environment, source.as_deref(), *digest, out).await
        }
        Action::Ls { config, json, runtime } => {
            bucket::list(config, (environment, now), runtime, *json).await
        }
        Action::Restore { config, seq, runtime, out } => {
            bucket::restore(config, (environment, now), runtime, *seq, out).await
        }
    }
}

/// One line on standard error.
fn say(line: &str) {
    // Nothing is left to be told when standard error is gone.
    drop(writeln!(stderr(), "{line}"));
}

fn digest(text: &str) -> Result<Digest, &'static str> {
    Digest::parse(text).ok_or(Digest::RULE)
}
