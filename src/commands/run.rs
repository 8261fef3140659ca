//! `driftgate run`: the sidecar's process.
//!
//! Configuration, log, sidecar; then signals and changed files; on SIGTERM or SIGINT no new
//! reports, drain, exit 0. A configuration that is wrong ends the process with 78 and every mistake
//! at once.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::signals::OperatorSignals;
use super::sysexits;
use crate::config::{Config, Effect, Mistakes, read_from_disk};
use crate::http::listener::Bound;
use crate::sidecar::{Sidecar, follow};
use crate::telemetry;

/// How often the configuration's files are looked at for changes. Kubernetes swaps a mounted
/// ConfigMap by renaming a link, so the looked-at thing is the time and size behind the path.
const WATCH_INTERVAL: Duration = Duration::from_secs(5);

/// Runs the sidecar.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  driftgate run --config /etc/driftgate/driftgate.toml\n  \
                        driftgate run --dev\n\nSIGHUP reads the configuration again; SIGTERM \
                        drains and exits 0; SIGUSR1 isolates and SIGUSR2 releases.")]
pub struct Run {
    /// A TOML or YAML file; a later one wins over an earlier one, and DRIFTGATE__SECTION__KEY over
    /// all
    #[arg(long, value_name = "FILE")]
    pub config: Vec<PathBuf>,
    /// Needs no configuration: its own nats-server with a temporary store, a fresh key, id `local`,
    /// loopback only
    #[arg(long, conflicts_with = "config")]
    pub dev: bool,
}

/// Runs until told to stop.
pub async fn run(run: &Run, environment: &BTreeMap<String, String>) -> ExitCode {
    let Ok(operator) = OperatorSignals::listen() else {
        return say(sysexits::UNAVAILABLE, "signals cannot be listened to");
    };
    if run.dev {
        return super::dev::run(environment, operator).await;
    }
    let load = || Config::load(&run.config, environment, &read_from_disk);
    let config = match load() {
        Ok(config) => config,
        Err(mistakes) => return refuse(&mistakes),
    };
    if let Err(fault) = telemetry::start_log(config.log.level, config.log.format) {
        return say(sysexits::CONFIG, &fault.to_string());
    }
    let sidecar = match Sidecar::start(&config).await {
        Ok(sidecar) => sidecar,
        Err(fault) => return say(sysexits::UNAVAILABLE, &fault.to_string()),
    };
    let (Ok(hangup), Ok(mut terminate), Ok(mut interrupt)) = (
        signal(SignalKind::hangup()),
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        return say(sysexits::UNAVAILABLE, "signals cannot be listened to");
    };
    let api = match &sidecar.api {
        Bound::Tcp(address) => format!("http://{address}"),
        Bound::Unix(path) => format!("unix:{}", path.display()),
    };
    tracing::info!(
        runtime_id = %config.runtime.id,
        version = env!("CARGO_PKG_VERSION"),
        api,
        admin = %format!("http://{}", sidecar.admin),
        peers = config.peers.len(),
        "started, gate blocked until the first good report"
    );
    let tail = tokio::spawn(follow::pass_on(config.tail(), sidecar.handle.clone()));
    let signals = tokio::spawn(operator.obey(sidecar.handle.clone()));
    let watched = run.config.clone();
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = reload(&load, config, &watched, &sidecar, hangup) => {}
    }
    tracing::info!("stopping: no new reports, draining");
    tail.abort();
    signals.abort();
    if !sidecar.stop().await {
        return ExitCode::from(sysexits::SOFTWARE);
    }
    tracing::info!("stopped");
    ExitCode::SUCCESS
}

/// Reloads on SIGHUP and when a file changes. A bad new configuration changes nothing and is
/// reported. Never ends.
async fn reload(
    load: &impl Fn() -> Result<Config, Mistakes>,
    mut current: Config,
    files: &[PathBuf],
    sidecar: &Sidecar,
    mut hangup: Signal,
) {
    let mut stamps = stamps(files, &current);
    let mut look = tokio::time::interval(WATCH_INTERVAL);
    loop {
        tokio::select! {
            _ = hangup.recv() => {}
            _ = look.tick() => {
                let fresh = self::stamps(files, &current);
                if fresh == stamps {
                    continue;
                }
                stamps = fresh;
            }
        }
        match load() {
            Err(mistakes) => {
                tracing::error!(%mistakes, "configuration not reloaded; the old one stays");
            }
            Ok(next) => {
                for change in Config::difference(&current, &next) {
                    if change.effect == Effect::Restart {
                        tracing::warn!(key = change.key, "takes effect after a restart");
                    }
                }
                match sidecar.reload(&next) {
                    Ok(()) => current = next,
                    Err(fault) => {
                        tracing::error!(%fault, "configuration not reloaded; the old one stays");
                    }
                }
            }
        }
    }
}

/// Time and size of every file that the configuration is made of.
fn stamps(files: &[PathBuf], config: &Config) -> Vec<Option<(SystemTime, u64)>> {
    let stamp = |path: &std::path::Path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    let secrets = config.secret_files();
    files
        .iter()
        .map(PathBuf::as_path)
        .chain(secrets.iter().map(|(_, path)| *path))
        .map(stamp)
        .collect()
}

fn refuse(mistakes: &Mistakes) -> ExitCode {
    say(sysexits::CONFIG, &mistakes.to_string())
}

/// Says on standard error why the process ends, and with which code.
pub(super) fn say(code: u8, text: &str) -> ExitCode {
    // Nothing is left to be told when standard error is gone.
    drop(writeln!(std::io::stderr(), "driftgate: {text}"));
    ExitCode::from(code)
}
