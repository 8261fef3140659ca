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
/// The sidecar to try, and its peer: somebody has to be a target, or nothing would be published.
const LOCAL: &str = "local";
const OBSERVER: &str = "observer";

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
    has_peer: bool,
    color: When,
    environment: &BTreeMap<String, String>,
    operator: OperatorSignals,
    mut signals: StopSignals,
) -> Result<(), Fault> {
    let program = child::find(environment).map_err(Fault::unavailable)?;
    let has_colours = color.applies(environment, stderr().is_terminal());
    telemetry::start_log(Level::INFO, LogFormat::Text, has_colours).map_err(Fault::unavailable)?;
    let Stage { sidecar, peer, server, .. } = tokio::select! {
        started = start(&program, has_peer) => started.map_err(Fault::unavailable)?,
        _ = signals.recv() => return Ok(()),
    };
    // Whoever closes standard output does not want to read it; the sidecar runs all the same.
    let _ = stdout().write_all(banner(&server, &sidecar, peer.as_ref()).as_bytes());
    let _ = stdout().flush();
    let operator = tokio::spawn(operator.obey(sidecar.handle.clone()));
    signals.recv().await;
    operator.abort();
    let _ = sidecar.stop().await;
    if let Some(peer) = peer {
        let _ = peer.stop().await;
    }
    server.stop().await;
    Ok(())
}

/// What runs.
struct Stage {
    sidecar: Sidecar,
    peer: Option<Sidecar>,
    server: ChildServer,
}

async fn start(program: &Path, has_peer: bool) -> Result<Stage, String> {
    let server = ChildServer::start(program).await.map_err(|fault| fault.to_string())?;
    let fleet = Fleet::new(&server).map_err(|fault| fault.to_string())?;
    let peers = [(OBSERVER, has_peer)];
    let started = match start_one(&fleet, LOCAL, &peers, [API_PORT, ADMIN_PORT]).await {
        Err(DevFault::Start(StartFault::Api(..) | StartFault::Admin(..))) => {
            start_one(&fleet, LOCAL, &peers, [0, 0]).await
        }
        other => other,
    };
    let sidecar = started.map_err(|fault| fault.to_string())?;
    let peer = if has_peer {
        let started = start_one(&fleet, OBSERVER, &[(LOCAL, true)], [0, 0]).await;
        Some(started.map_err(|fault| fault.to_string())?)
    } else {
        None
    };
    connected([Some(&sidecar), peer.as_ref()].into_iter().flatten()).await;
    Ok(Stage { sidecar, peer, server })
}

/// The sidecar on these ports of loopback; 0 is any free one.
async fn start_one(
    fleet: &Fleet<'_>,
    id: &str,
    peers: &[(&str, bool)],
    [api, admin]: [u16; 2],
) -> Result<Sidecar, DevFault> {
    let member = Member {
        id,
        peers,
        api: SocketAddr::from((Ipv4Addr::LOCALHOST, api)),
        admin: SocketAddr::from((Ipv4Addr::LOCALHOST, admin)),
        console: id == LOCAL,
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

fn url(sidecar: &Sidecar) -> String {
    match &sidecar.api {
        Bound::Tcp(address) => format!("http://{address}"),
        Bound::Unix(path) => path.display().to_string(),
    }
}

/// How packets come in is seen.
fn inbound(api: &str, peer: Option<&Sidecar>) -> String {
    let Some(peer) = peer else {
        return "# A second sidecar, to see what comes in: run --dev --peer.\n\n".to_owned();
    };
    let (peer, api) = (url(peer), api.trim_start_matches("http://"));
    let peer_api = peer.trim_start_matches("http://").to_owned();
    format!(
        "# The second sidecar, `observer`: what it reports comes in at `local`, and the other way.\n  \
         driftgate send --api {peer_api}\n  \
         curl -sw '\\n' http://{api}/field/state\n  \
         driftgate send --api {api}\n  \
         curl -sw '\\n' {peer}/field/state\n\n"
    )
}

/// Every command is indented by two spaces, its further lines by more, and works as it is pasted.
fn banner(server: &ChildServer, sidecar: &Sidecar, peer: Option<&Sidecar>) -> String {
    let api = url(sidecar);
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

# All of it on one page, for a browser: {console}

# Probe and metrics.
  curl -sw '\n' {admin}/readyz
  curl -s {admin}/metrics

# The broker's side, in another terminal.
  nats --server {nats} sub 'driftgate.v1.>'
  nats --server {nats} stream ls
  nats --server {nats} consumer ls DRIFTGATE_STATE
  nats --server {nats} sub --raw 'driftgate.v1.state.>' | driftgate verify --key-file k1={key}

# What the gate did, hash-chained, and whether the chain is whole.
  tail -f {audit}
  driftgate audit verify {audit}

{inbound}Ctrl-C ends it and leaves nothing behind.

"#,
        console = page(sidecar),
        version = env!("CARGO_PKG_VERSION"),
        server_version = server.version(),
        key = Fleet::key_of(server).display(),
        audit = Fleet::audit_of(server, LOCAL).display(),
        inbound = inbound(&api, peer),
    )
}
