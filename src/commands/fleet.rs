//! Sidecars that need no configuration: theirs is written here and read like any other.
//!
//! `run --dev` has one, `demo` three. All of them use one own nats-server, one fresh key that lies
//! in the server's temporary folder, and loopback.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::config::{Config, Mistakes, read_from_disk};
use crate::driver::BrokerState;
use crate::keys::{self, NoRandomness};
use crate::nats::child::ChildServer;
use crate::protocol::keyring::Alg;
use crate::sidecar::Sidecar;

/// The name under which the written configuration is read. It is not a file.
const NAME: &str = "fleet.toml";
/// Port of the console where it can be had.
const CONSOLE_PORT: u16 = 7407;
/// How long the sidecars may take to connect and provision; it takes some 50 ms.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two looks at whether they have.
const POLL: Duration = Duration::from_millis(10);

/// What the sidecars of a fleet share.
#[derive(Debug)]
pub(super) struct Fleet<'a> {
    server: &'a ChildServer,
    key: PathBuf,
}

/// One sidecar of a fleet.
#[derive(Debug)]
pub(super) struct Member<'a> {
    pub(super) id: &'a str,
    /// Each peer's id, and whether it is also heard.
    pub(super) peers: &'a [(&'a str, bool)],
    pub(super) api: SocketAddr,
    pub(super) admin: SocketAddr,
    /// Whether it has the console.
    pub(super) console: bool,
}

/// Why a fleet cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum FleetFault {
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    #[error("the key cannot be written: {0}")]
    Key(#[from] io::Error),
    /// Nobody's fault but ours: the text below is wrong.
    #[error("the built-in configuration is wrong: {0}")]
    Config(#[from] Mistakes),
}

impl<'a> Fleet<'a> {
    /// Writes a fresh key into the server's folder.
    pub(super) fn new(server: &'a ChildServer) -> Result<Self, FleetFault> {
        let fresh = keys::generate(Alg::HmacSha256)?;
        let key = Self::key_of(server);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&key)?;
        writeln!(file, "{}", fresh.secret_text)?;
        Ok(Self { server, key })
    }

    /// The file of the key `k1` of every sidecar on this server.
    pub(super) fn key_of(server: &ChildServer) -> PathBuf {
        server.folder().join("key")
    }

    /// The audit log of one sidecar.
    pub(super) fn audit_of(server: &ChildServer, id: &str) -> PathBuf {
        server.folder().join(format!("audit-{id}.jsonl"))
    }

    /// The configuration of one sidecar. The environment has no say: nothing of it is needed.
    pub(super) fn config(&self, member: &Member<'_>) -> Result<Config, FleetFault> {
        let text = self.text(member);
        let read = |path: &Path| {
            if path == Path::new(NAME) {
                Ok(text.clone().into_bytes())
            } else {
                read_from_disk(path)
            }
        };
        let config = Config::load(&[PathBuf::from(NAME)], &BTreeMap::new(), &read)?;
        // No agent shares this machine with it: there is nobody to hide the page's data from.
        Ok(Config { open_console: true, ..config })
    }

    fn text(&self, member: &Member<'_>) -> String {
        let Member { id, peers, api, admin, console } = member;
        let console =
            if *console { format!("console = \"{}\"\n", console_address()) } else { String::new() };
        let spool = self.server.folder().join(format!("spool-{id}"));
        let mut text = format!(
            "[runtime]\nid = \"{id}\"\nattractor_type = \"symbolic\"\nprofile = \"srip-05\"\n\
             [nats]\nurl = [\"{}\"]\n[listen]\napi = \"{api}\"\nadmin = \"{admin}\"\n{console}\
             [integrity]\nsign_with = \"k1\"\nkeys = [{{ id = \"k1\", file = {} }}]\n\
             [snapshot]\nspool = {}\n[audit]\nfile = {}\n",
            self.server.url(),
            quoted(&self.key),
            quoted(&spool),
            quoted(&Self::audit_of(self.server, id)),
        );
        for (peer, is_heard) in *peers {
            let scopes = r#"["state", "snapshot", "telemetry"]"#;
            let import = if *is_heard { scopes } else { "[]" };
            // Writing into a String does not fail.
            let _ =
                write!(text, "[[peers]]\nid = \"{peer}\"\nexport = {scopes}\nimport = {import}\n");
        }
        text
    }
}

/// Where a console listens by itself: on its usual port, unless that is taken.
fn console_address() -> SocketAddr {
    let usual = SocketAddr::from((Ipv4Addr::LOCALHOST, CONSOLE_PORT));
    match std::net::TcpListener::bind(usual) {
        Ok(_) => usual,
        Err(_) => SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
    }
}

/// A path as a TOML string; JSON's escapes are among TOML's.
fn quoted(path: &Path) -> String {
    serde_json::Value::from(path.to_string_lossy()).to_string()
}

/// Waits until every sidecar has its broker, so that the first report is not left pending. Gives up
/// after [`CONNECT_TIMEOUT`]; what then is missing is seen in what follows.
pub(super) async fn connected(sidecars: impl Iterator<Item = &Sidecar> + Clone) -> bool {
    let is_up = |sidecar: &Sidecar| sidecar.handle.readiness().broker == BrokerState::Connected;
    let all = async {
        while !sidecars.clone().all(is_up) {
            sleep(POLL).await;
        }
    };
    timeout(CONNECT_TIMEOUT, all).await.is_ok()
}
