//! One running sidecar, put together from a configuration: driver, listeners, metrics.
//!
//! `run` starts one for a process, `demo` starts three in one. Order of a start: keys and profile,
//! memory, listeners bound, driver, served; nothing waits for the broker or the runtime. What
//! deliberately is not here: signals and files that change, which are the process's.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::{Config, SecretFile};
use crate::driver::{self, Handle};
use crate::http::listener::{Bound, Listener};
use crate::http::settings::{
    ApiAddress, ApiSettings, BodyLimits, Limits, StreamLimits, Token, TokenFault,
};
use crate::http::{self, server};
use crate::nats::settings::Settings;
use crate::protocol::bridge::Identity;
use crate::protocol::presence::{Instance, Life};
use crate::snapshots::Worker;
use crate::snapshots::spool::SpoolFault;
use crate::telemetry::{Condition, Conditions, Feed};

mod console;
pub mod follow;
mod hold;
mod manifest;
mod reload;
mod room;
mod tally;

use tally::Tally;
pub use tally::metrics_manual;

/// How long a stop waits for requests in flight. Kubernetes leaves a native sidecar as little as 2
/// s, and the driver needs its part of that.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(400);

/// How long a stop may take as a whole, whatever hangs: above all bounds of its parts together.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a sidecar does not start. The process ends with it; a supervisor shows it.
#[derive(Debug, thiserror::Error)]
pub enum StartFault {
    /// The API listener cannot be bound.
    #[error("listen.api: {0}: {1}")]
    Api(String, io::Error),
    /// The admin listener cannot be bound.
    #[error("listen.admin: {0}: {1}")]
    Admin(SocketAddr, io::Error),
    /// Another sidecar uses the same spool.
    #[error("snapshot.spool: {0}")]
    Spool(SpoolFault),
    /// A bearer token cannot be used.
    #[error("listen.token_file, listen.operator_token_file: {0}")]
    Token(TokenFault),
}

/// The sidecar's driver is gone; the process is about to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sidecar stops")]
pub struct Stopping;

/// A sidecar that runs.
#[derive(Debug)]
pub struct Sidecar {
    /// Asks its driver.
    pub handle: Handle,
    /// Where the API listens.
    pub api: Bound,
    /// Where the admin listener listens.
    pub admin: SocketAddr,
    /// Where the console listens, if it does.
    pub console: Option<SocketAddr>,
    tally: Arc<Tally>,
    intake: watch::Sender<bool>,
    worker: Option<Worker>,
    stop: watch::Sender<bool>,
    probes: watch::Sender<bool>,
    driver: JoinHandle<()>,
    hold_watch: JoinHandle<()>,
    api_server: JoinHandle<server::Stopped>,
    admin_server: JoinHandle<server::Stopped>,
    console_server: Option<JoinHandle<server::Stopped>>,
}

impl Sidecar {
    /// Starts a sidecar. When this returns, both listeners answer.
    ///
    /// # Errors
    /// [`StartFault`]; nothing is left running.
    pub async fn start(config: &Config) -> Result<Self, StartFault> {
        // The listeners come first: a port that is taken must leave nothing behind, no lock either.
        let api_settings = api_settings(config)?;
        let no_api = |error| StartFault::Api(config.listen.api.to_string(), error);
        let api = Listener::bind(&api_settings.address).await.map_err(no_api)?;
        let bound = api.bound().map_err(no_api)?;
        let no_admin = |error| StartFault::Admin(config.listen.admin, error);
        let admin = Listener::tcp(config.listen.admin).await.map_err(no_admin)?;
        let Bound::Tcp(admin_address) = admin.bound().map_err(no_admin)? else {
            return Err(no_admin(io::ErrorKind::Unsupported.into()));
        };
        let conditions = Conditions::new();
        let memory_file = memory_file(config);
        let (memory, holds) = driver::load_memory(&memory_file, config.peers.keys(), &conditions);
        let hold_file = config.hold_file();
        hold::make_room(&hold_file);
        let held = hold::exists(&hold_file).unwrap_or_else(|error| {
            conditions.begin(Condition::HoldFileUnseen, error.to_string());
            holds.file
        });
        let feed = Feed::start();
        let room = room::start(config, &conditions, &feed)?;
        let (snapshots, uploads, worker) = room::parts(room);
        let options = driver::Options {
            identity: Identity { life: life(), ..config.identity() },
            live: manifest::live(config),
            memory,
            holds: holds.at_start(held),
            memory_file: Some(memory_file),
            audit: config.audit.clone(),
            nats: Settings::of(config),
            deliver: config.deliver.clone(),
            snapshots,
            uploads,
            conditions,
            feed,
        };
        let (intake, intake_ends) = watch::channel(false);
        let (stop, stop_ends) = watch::channel(false);
        let (probes, probes_end) = watch::channel(false);
        let (handle, driver) = driver::spawn(options, stop_ends);
        let hold_watch = tokio::spawn(hold::watch(hold_file, held, handle.clone()));
        let tally = Arc::<Tally>::default();
        let console = console::start(config, &api_settings, &handle, &tally, probes_end.clone());
        let (console, console_server) = console.await.unzip();
        let listeners = [(api, intake_ends), (admin, probes_end)];
        let hosts = config.listen.admin_hosts.clone();
        let [api_server, admin_server] =
            serve(&handle, &api_settings, &bound, &tally, hosts, listeners);
        Ok(Self {
            handle,
            api: bound,
            admin: admin_address,
            console,
            tally,
            intake,
            worker,
            stop,
            probes,
            driver,
            hold_watch,
            api_server,
            admin_server,
            console_server,
        })
    }

    /// Stops in order and in time. `false` when a part did not end in `STOP_TIMEOUT`: then it is
    /// no longer waited for, and the end of the process ends it.
    pub async fn stop(self) -> bool {
        let in_time = tokio::time::timeout(STOP_TIMEOUT, self.stop_in_order()).await.is_ok();
        if !in_time {
            tracing::error!("a part of the sidecar did not stop in time; it is not waited for");
        }
        in_time
    }

    /// No new reports, drain, and the probes last, so that they answer while draining.
    async fn stop_in_order(self) {
        self.intake.send_replace(true);
        drop(self.api_server.await);
        if let Some(worker) = self.worker
            && !worker.stop().await.confirmed
        {
            tracing::warn!("the broker has not confirmed what was sent of snapshots");
        }
        self.stop.send_replace(true);
        drop(self.driver.await);
        self.hold_watch.abort();
        self.probes.send_replace(true);
        drop(self.admin_server.await);
        if let Some(console) = self.console_server {
            drop(console.await);
        }
    }
}

/// This life of the sidecar; without randomness it has no name to be told by, and is not shown.
fn life() -> Option<Life> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).ok()?;
    let instance = Instance::new(u128::from_le_bytes(random));
    Some(Life { instance, version: env!("CARGO_PKG_VERSION").to_owned() })
}

/// Where the memory is kept: beside the snapshots, on the volume that outlives the container.
#[must_use]
pub fn memory_file(config: &Config) -> PathBuf {
    config.snapshot.spool.join("memory.json")
}

fn api_settings(config: &Config) -> Result<ApiSettings, StartFault> {
    let listen = &config.listen;
    let token = |secret: &Option<SecretFile>| {
        let text = secret.as_ref().map(|file| String::from_utf8_lossy(file.secret.expose()));
        text.map(|text| Token::new(&text)).transpose().map_err(StartFault::Token)
    };
    let limits = Limits {
        connections_max: listen.connections_max,
        head_timeout: listen.header_timeout,
        drain_timeout: DRAIN_TIMEOUT,
        ..Limits::default()
    };
    Ok(ApiSettings {
        address: match &listen.api {
            crate::config::Listener::Tcp(address) => ApiAddress::Tcp(*address),
            crate::config::Listener::Unix(path) => {
                ApiAddress::Unix { path: path.clone(), uids: listen.socket_uids.clone() }
            }
        },
        hosts: listen.allowed_hosts.clone(),
        origins: listen.allowed_origins.clone(),
        token: token(&listen.token_file)?,
        operator_token: token(&listen.operator_token_file)?,
        reports: config.ingest.http,
        limits,
        body: BodyLimits {
            bytes_max: usize::try_from(listen.body_bytes_max).unwrap_or(usize::MAX),
            ..BodyLimits::default()
        },
        stream: StreamLimits { window: config.nats.window, read_timeout: listen.reply_timeout },
    })
}

/// Serves the API and the admin listener, each until its flag turns true.
fn serve(
    handle: &Handle,
    settings: &ApiSettings,
    bound: &Bound,
    tally: &Arc<Tally>,
    admin_hosts: Vec<String>,
    [api, admin]: [(Listener, watch::Receiver<bool>); 2],
) -> [JoinHandle<server::Stopped>; 2] {
    let observer = tally.counting();
    let api_router = http::api_router(handle.clone(), settings, bound, observer.clone());
    let metrics = tally.metrics(handle);
    let admin_router = http::admin_router(handle.clone(), metrics, admin_hosts, observer.clone());
    let (limits, admin_limits) = (settings.limits, settings.limits.admin());
    let parts = [(api, api_router, limits), (admin, admin_router, admin_limits)];
    parts.map(|((listener, end), router, limits)| {
        tokio::spawn(server::serve(listener, router, limits, observer.clone(), ended(end)))
    })
}

async fn ended(mut flag: watch::Receiver<bool>) {
    while !*flag.borrow_and_update() {
        if flag.changed().await.is_err() {
            return;
        }
    }
}
