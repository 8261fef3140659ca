//! `driftgate run --dev`: one sidecar to try, with nothing configured.
//!
//! Its own nats-server with a temporary store, a fresh key, id `local`, loopback only; the banner's
//! commands work as they are pasted. SIGINT, SIGTERM and SIGHUP leave nothing behind.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write, stderr, stdout};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use tracing::Level;

use super::colour::When;
use super::fleet::{Fleet, FleetFault, Member, connected};
use super::signals::{OperatorSignals, StopSignals};
use super::sysexits::Fault;
use crate::http::listener::Bound;
use crate::nats::child::{self, ChildServer};
use crate::sidecar::{Sidecar, StartFault};
use crate::telemetry::{self, LogFormat};

/// Ports of the README's examples; free ones are taken where these are not to be had.
const API_PORT: u16 = 7405;
const ADMIN_PORT: u16 = 7406;

/// Why there is no sidecar.
#[derive(Debug, thiserror::Error)]
enum DevFault {
    #[error(transparent)]
    Fleet(#[from] FleetFault),
    #[error(transparent)]
    Start(#[from] StartFault),
}

/// Runs until told to stop. `environment` is only asked for the nats-server.
pub(super) async fn run(
    color: When,
    environment: &BTreeMap<String, String>,
    operator: OperatorSignals,
    mut signals: StopSignals,
) -> Result<(), Fault> {
    let program = child::find(environment).map_err(Fault::unavailable)?;
    let has_colours = color.applies(environment, stderr().is_terminal());
    telemetry::start_log(Level::INFO, LogFormat::Text, has_colours).map_err(Fault::unavailable)?;
    let (server, sidecar) = tokio::select! {
        started = start(&program) => started.map_err(Fault::unavailable)?,
        _ = signals.recv() => return Ok(()),
    };
    // Whoever closes standard output does not want to read it; the sidecar runs all the same.
    let _ = stdout().write_all(banner(&server, &sidecar).as_bytes());
    let _ = stdout().flush();
    let operator = tokio::spawn(operator.obey(sidecar.handle.clone()));
    signals.recv().await;
    operator.abort();
    let _ = sidecar.stop().await;
    server.stop().await;
    Ok(())
}

async fn start(program: &Path) -> Result<(ChildServer, Sidecar), String> {
    let server = ChildServer::start(program).await.map_err(|fault| fault.to_string())?;
    let fleet = Fleet::new(&server).map_err(|fault| fault.to_string())?;
    let sidecar = match sidecar(&fleet, API_PORT, ADMIN_PORT).await {
        Err(DevFault::Start(StartFault::Api(..) | StartFault::Admin(..))) => {
            sidecar(&fleet, 0, 0).await
        }
        other => other,
    };
    let sidecar = sidecar.map_err(|fault| fault.to_string())?;
    connected(std::iter::once(&sidecar)).await;
    Ok((server, sidecar))
}

/// The sidecar on these ports of loopback; 0 is any free one.
async fn sidecar(fleet: &Fleet<'_>, api: u16, admin: u16) -> Result<Sidecar, DevFault> {
    let member = Member {
        id: "local",
        // Somebody has to be a target, or nothing would be published.
        peers: &[("observer", false)],
        api: SocketAddr::from((Ipv4Addr::LOCALHOST, api)),
        admin: SocketAddr::from((Ipv4Addr::LOCALHOST, admin)),
        console: true,
    };
    Ok(Sidecar::start(&fleet.config(&member)?).await?)
}

/// Address of the console.
fn page(sidecar: &Sidecar) -> String {
    match sidecar.console {
        Some(address) => format!("http://{address}/"),
        None => "no console: its port cannot be had".to_owned(),
    }
}

/// Every command is indented by two spaces, its further lines by more, and works as it is pasted.
fn banner(server: &ChildServer, sidecar: &Sidecar) -> String {
    let api = match &sidecar.api {
        Bound::Tcp(address) => format!("http://{address}"),
        Bound::Unix(path) => path.display().to_string(),
    };
    let admin = format!("http://{}", sidecar.admin);
    let nats = server.url();
    let post = format!(
        "curl -sw '\\n' {api}/field/state \\\n    -H 'Content-Type: application/json' -d '{{"
    );
    let attractor = r#""id": "a-1", "type": "symbolic", "phase": "stable""#;
    format!(
        r#"
driftgate {version}, nats-server {server_version}; runtime `local`, its one peer `observer`

# A good report: the gate opens, and a packet for `observer` is stored.
  {post}
    "attractor_state": {{{attractor},
                        "stability": 0.9, "scr": 0.8}},
    "drift_metrics": {{"sdi": 0.2, "sv": 0.1, "pd": 0.1}}}}'

# A drifting one, di 0.52: held; the gate stays closed until a report under 0.45.
  {post}
    "attractor_state": {{{attractor},
                        "stability": 0.9, "scr": 0.7}},
    "drift_metrics": {{"sdi": 0.4, "sv": 0.35, "pd": 0.35}}}}'

# What the gate stands on, and what the runtime sees of the field.
  curl -sw '\n' {api}/aegida/safety
  curl -sw '\n' {api}/field/state

# All of it on one page, for a browser.
  {console}

# Probe and metrics.
  curl -sw '\n' {admin}/readyz
  curl -s {admin}/metrics

# The broker's side, in another terminal.
  nats --server {nats} sub 'driftgate.v1.>'
  nats --server {nats} stream ls
  nats --server {nats} consumer ls DRIFTGATE_STATE

Ctrl-C ends it and leaves nothing behind.

"#,
        console = page(sidecar),
        version = env!("CARGO_PKG_VERSION"),
        server_version = server.version(),
    )
}
