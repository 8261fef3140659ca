//! `driftgate snapshot`: what is in the bucket, and a snapshot out of it, without a sidecar.
//!
//! The same listing, verifying and restoring as the sidecar's. What deliberately is not here:
//! pushing and reading through a sidecar, which any HTTP client does.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write, stderr, stdout};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Subcommand;

use super::sysexits;
use crate::config::{Config, read_from_disk};
use crate::protocol::packet::RuntimeId;
use crate::protocol::snapshot::Manifest;
use crate::snapshots::bucket::Bucket;
use crate::snapshots::fetch::{Source, fetch, manifests};

/// Progress is drawn again after so many bytes.
const DRAW_BYTES: u64 = 1024 * 1024;

/// Lists and restores memory snapshots
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  driftgate snapshot ls --config driftgate.toml planner\n  \
                        driftgate snapshot restore --config driftgate.toml planner memory.bin")]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Clone, Debug, Subcommand)]
enum Action {
    /// Lists the verified snapshots of a runtime, oldest first
    Ls {
        /// Configuration with the broker and the keys
        #[arg(long, value_name = "FILE")]
        config: Vec<PathBuf>,
        /// Whose
        runtime: String,
    },
    /// Restores one straight from the bucket
    Restore {
        /// Configuration with the broker and the keys
        #[arg(long, value_name = "FILE")]
        config: Vec<PathBuf>,
        /// Its number; the newest when absent
        #[arg(long)]
        seq: Option<u64>,
        /// Whose
        runtime: String,
        /// Where to
        out: PathBuf,
    },
}

/// Runs it.
pub async fn run(arguments: &Arguments, environment: &BTreeMap<String, String>) -> ExitCode {
    let outcome = match &arguments.action {
        Action::Ls { config, runtime } => list(config, environment, runtime).await,
        Action::Restore { config, seq, runtime, out } => {
            restore(config, environment, runtime, *seq, out).await
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, text)) => {
            // Nothing is left to be told when standard error is gone.
            drop(writeln!(stderr(), "driftgate: {text}"));
            ExitCode::from(code)
        }
    }
}

type Fault = (u8, String);

struct Found {
    bucket: Bucket,
    manifests: Vec<Manifest>,
    bytes_max: u64,
}

async fn look(
    files: &[PathBuf],
    environment: &BTreeMap<String, String>,
    runtime: &str,
) -> Result<Found, Fault> {
    let config = Config::load(files, environment, &read_from_disk)
        .map_err(|mistakes| (sysexits::CONFIG, mistakes.to_string()))?;
    let id = RuntimeId::new(runtime)
        .ok_or_else(|| (sysexits::CONFIG, format!("{runtime:?} is not a runtime id")))?;
    let unavailable = |text: String| (sysexits::UNAVAILABLE, text);
    let settings = crate::sidecar::nats_settings(&config)
        .map_err(|fault| (sysexits::CONFIG, fault.to_string()))?;
    let bucket = Bucket::open(&settings).await.map_err(|fault| unavailable(fault.to_string()))?;
    let key_id = config.peers.get(&id).and_then(|peer| peer.key_id.clone());
    let source = Source { id, key_id, floor: 0 };
    let manifests = manifests(&bucket, &source, &config.integrity.keyring)
        .await
        .map_err(|fault| unavailable(fault.to_string()))?;
    Ok(Found { bucket, manifests, bytes_max: config.snapshot.bytes_max })
}

async fn list(
    files: &[PathBuf],
    environment: &BTreeMap<String, String>,
    runtime: &str,
) -> Result<(), Fault> {
    let found = look(files, environment, runtime).await?;
    let mut output = stdout();
    for manifest in &found.manifests {
        let written = writeln!(
            output,
            "{}  {}  {}  {} bytes  {} stored  {} objects  {}",
            manifest.seq,
            manifest.time,
            manifest.kind().word(),
            manifest.size,
            manifest.stored_bytes,
            manifest.objects.len(),
            manifest.digest,
        );
        // A reader that has seen enough is no fault.
        if written.is_err() {
            break;
        }
    }
    found.bucket.sever().await;
    Ok(())
}

async fn restore(
    files: &[PathBuf],
    environment: &BTreeMap<String, String>,
    runtime: &str,
    seq: Option<u64>,
    out: &std::path::Path,
) -> Result<(), Fault> {
    let found = look(files, environment, runtime).await?;
    let manifest = match seq {
        None => found.manifests.last(),
        Some(seq) => found.manifests.iter().find(|manifest| manifest.seq == seq),
    };
    let manifest = manifest
        .ok_or_else(|| (sysexits::UNAVAILABLE, format!("no such snapshot of {runtime}")))?;
    let drawn = AtomicU64::new(0);
    let draw = |done: u64| {
        if stderr().is_terminal() && done >= drawn.load(Ordering::Relaxed) + DRAW_BYTES {
            drawn.store(done, Ordering::Relaxed);
            drop(write!(stderr(), "\r{} of {} bytes", done, manifest.stored_bytes));
        }
    };
    let plain = fetch(&found.bucket, manifest, found.bytes_max, &draw)
        .await
        .map_err(|fault| (sysexits::UNAVAILABLE, fault.to_string()))?;
    found.bucket.sever().await;
    std::fs::write(out, plain.bytes())
        .map_err(|error| (sysexits::UNAVAILABLE, format!("{}: {error}", out.display())))?;
    drop(writeln!(
        stderr(),
        "{}: {} bytes, {}, from {} objects",
        out.display(),
        plain.size(),
        plain.digest(),
        manifest.objects.len(),
    ));
    Ok(())
}
