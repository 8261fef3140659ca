//! `driftgate run`: the sidecar's process.
//!
//! Configuration, log, sidecar; then signals and changed files; on SIGTERM or SIGINT no new
//! reports, drain, exit 0. A configuration that is wrong ends the process with 78 and every mistake
//! at once.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, stderr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;

use super::check;
use super::colour::When;
use super::files::Files;
use super::signals::{OperatorSignals, Stop, StopSignals};
use super::sysexits::{self, Fault};
use crate::config::{Config, MemoryLimit, Mistakes, read_from_disk};
use crate::http::listener::Bound;
use crate::protocol::time::Timestamp;
use crate::sidecar::{Sidecar, Stopping, follow};
use crate::telemetry::{self, Condition, LogLevel};

/// How often the configuration's files are looked at for changes. Kubernetes swaps a mounted
/// ConfigMap by renaming a link, so the looked-at thing is the time and size behind the path.
const WATCH_INTERVAL: Duration = Duration::from_secs(5);

/// Runs the sidecar
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  driftgate run --config /etc/driftgate/driftgate.toml\n  \
                        driftgate run --dev --peer\n\nSIGHUP reads the configuration again; SIGTERM \
                        drains and exits 0; SIGUSR1 isolates and SIGUSR2 releases.")]
pub struct Run {
    /// Where the configuration is read from.
    #[command(flatten)]
    pub config: Files,
    /// Needs no configuration: its own nats-server with a temporary store, a fresh key, id `local`,
    /// loopback only
    #[arg(long, conflicts_with = "config")]
    pub dev: bool,
    /// With --dev, starts a second sidecar `observer`, which hears `local` and is heard by it
    #[arg(long, requires = "dev")]
    pub peer: bool,
}

/// Runs until told to stop. `limit` is the memory that its container has, `now` tells which
/// authorisations have ended.
///
/// # Errors
/// [`Fault`], when it cannot begin.
pub async fn run(
    run: &Run,
    color: When,
    environment: &BTreeMap<String, String>,
    limit: Option<MemoryLimit>,
    now: &dyn Fn() -> Timestamp,
) -> Result<ExitCode, Fault> {
    // First of all: until somebody listens, each of them would end the process.
    let (operator, mut signals) = (OperatorSignals::listen()?, StopSignals::listen()?);
    if run.dev {
        super::dev::run(run.peer, color, environment, operator, signals).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let sources =
        Sources { files: run.config.paths(environment), environment: environment.clone(), limit };
    let has_colours = color.applies(environment, stderr().is_terminal());
    let mistaken = |mistakes: Mistakes| Fault::new(sysexits::CONFIG, mistakes.to_string());
    let config = sources.load().map_err(mistaken)?;
    let log = telemetry::start_log(config.log.level, config.log.format, has_colours)
        .map_err(Fault::unavailable)?;
    let sidecar = tokio::select! {
        started = Sidecar::start(&config) => started.map_err(Fault::unavailable)?,
        () = asked_to_stop(&mut signals) => return Ok(ExitCode::SUCCESS),
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
    say_fit(&config);
    let tail = tokio::spawn(follow::pass_on(config.tail(), sidecar.handle.clone()));
    let operator = tokio::spawn(operator.obey(sidecar.handle.clone()));
    // One that waits is enough: whoever asks again wants what is in the files then.
    let (ask, asked) = mpsc::channel(1);
    let reloads = keep_up(Arc::new(sources), config, &sidecar, &log, now, asked);
    let stopped = async {
        while signals.recv().await == Stop::Hangup {
            let _ = ask.try_send(());
        }
    };
    tokio::select! {
        () = stopped => {}
        () = reloads => {}
    }
    tracing::info!("stopping: no new reports, draining");
    tail.abort();
    operator.abort();
    if !sidecar.stop().await {
        return Ok(ExitCode::from(sysexits::SOFTWARE));
    }
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// Says what the container's memory limit made of the configuration.
fn say_fit(config: &Config) {
    let Some(fit) = config.fit.as_ref().filter(|fit| !fit.shrunk.is_empty()) else { return };
    tracing::info!(
        limit_bytes = fit.limit.0,
        bytes_max = config.snapshot.bytes_max,
        cache_bytes_max = config.snapshot.cache_bytes_max,
        shrunk = fit.shrunk.join(", "),
        "the container's memory limit leaves snapshots less than the defaults"
    );
}

/// SIGHUP means nothing before there is something to reload.
async fn asked_to_stop(signals: &mut StopSignals) {
    while signals.recv().await == Stop::Hangup {}
}

/// What the configuration is read from.
#[derive(Debug)]
struct Sources {
    files: Vec<PathBuf>,
    environment: BTreeMap<String, String>,
    /// As it was at the start: what it fitted takes a restart.
    limit: Option<MemoryLimit>,
}

/// Path, time and size of a file; no time when it cannot be seen.
type Stamp = (PathBuf, Option<(SystemTime, u64)>);

impl Sources {
    fn load(&self) -> Result<Config, Mistakes> {
        Config::load_within(self.limit, &self.files, &self.environment, &read_from_disk)
    }

    /// Every file that a configuration is made of, as it is now.
    fn stamps(&self, config: &Config) -> Vec<Stamp> {
        let stamp = |path: &Path| {
            let metadata = std::fs::metadata(path).ok();
            let seen = metadata.and_then(|seen| Some((seen.modified().ok()?, seen.len())));
            (path.to_owned(), seen)
        };
        let secrets = config.secret_files();
        let named = config.runtime.capabilities.as_ref().map(|(path, _)| path.as_path());
        let secrets = secrets.iter().map(|(_, path)| *path).chain(named);
        self.files.iter().map(PathBuf::as_path).chain(secrets).map(stamp).collect()
    }
}

/// Reloads when asked and when a file has changed; one that could not be read is tried again at
/// each look. Ends with the sidecar's driver.
async fn keep_up(
    sources: Arc<Sources>,
    mut config: Config,
    sidecar: &Sidecar,
    log: &LogLevel,
    now: &dyn Fn() -> Timestamp,
    mut asked: mpsc::Receiver<()>,
) {
    let mut seen = sources.stamps(&config);
    let mut is_unread = false;
    let mut look = tokio::time::interval(WATCH_INTERVAL);
    warn(&config, sidecar, now());
    loop {
        let is_asked = tokio::select! {
            asked = asked.recv() => asked.is_some(),
            _ = look.tick() => false,
        };
        // Before the files are read, so that a change while they are is seen at the next look.
        let fresh = sources.stamps(&config);
        if !is_asked && !is_unread && fresh == seen {
            continue;
        }
        let reader = Arc::clone(&sources);
        // A disk that hangs holds up this task and nobody else.
        let Ok(read) = tokio::task::spawn_blocking(move || reader.load()).await else { return };
        is_unread = read.is_err();
        match sidecar.reload(&config, read).await {
            Ok(Some(taken)) => config = taken,
            Ok(None) => {}
            Err(Stopping) => return,
        }
        seen = fresh;
        log.set(config.log.level);
        warn(&config, sidecar, now());
    }
}

/// Says what is allowed and probably not meant: in the log once, and in `/readyz` while it is so.
fn warn(config: &Config, sidecar: &Sidecar, now: Timestamp) {
    let conditions = sidecar.handle.conditions();
    let warnings: Vec<String> = check::warnings(config, now);
    for warning in &warnings {
        if !conditions.says(Condition::Configuration, warning) {
            tracing::warn!(warning, "configuration");
        }
    }
    conditions.set(Condition::Configuration, warnings);
}
