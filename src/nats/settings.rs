//! What a connection needs to know, typed. The configuration makes it; nothing here reads the
//! configuration, and secrets are named by file and read at each connect, so that a rotated file
//! is used from the next connection on.

use core::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use async_nats::{ConnectOptions, ServerAddr};

use super::subject::{AssetName, Prefix};
use crate::config::Durability;
use crate::protocol::packet::RuntimeId;

/// Largest credentials, nkey or token file, in bytes: they hold one short secret.
pub const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// Address of one server: `nats://host:port` or `tls://host:port`, without user or password.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerUrl(ServerAddr);

impl ServerUrl {
    pub(super) fn address(&self) -> &ServerAddr {
        &self.0
    }
}

/// A text that is no [`ServerUrl`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAServerUrl {
    /// Not `nats://host:port` or `tls://host:port`.
    #[error("must be nats://host:port or tls://host:port")]
    Malformed,
    /// Secrets come by file (`nats.creds_file`, `nats.nkey_file`).
    #[error("must not hold a user or password: name a credentials file instead")]
    HoldsSecret,
}

impl FromStr for ServerUrl {
    type Err = NotAServerUrl;

    fn from_str(text: &str) -> Result<Self, NotAServerUrl> {
        let address: ServerAddr = text.parse().map_err(|_| NotAServerUrl::Malformed)?;
        if address.has_user_pass() || address.password().is_some() {
            return Err(NotAServerUrl::HoldsSecret);
        }
        let is_plain = !address.is_websocket() && !address.host().is_empty();
        let url = address.clone().into_inner();
        let is_bare = matches!(url.path(), "" | "/") && url.query().is_none();
        (is_plain && is_bare).then_some(Self(address)).ok_or(NotAServerUrl::Malformed)
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, host, port) = (self.0.scheme(), self.0.host(), self.0.port());
        if host.contains(':') {
            write!(formatter, "{scheme}://[{host}]:{port}")
        } else {
            write!(formatter, "{scheme}://{host}:{port}")
        }
    }
}

impl fmt::Debug for ServerUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// How we prove to the server who we are. Files are read at each connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// A credentials file: JWT and nkey seed.
    CredsFile(PathBuf),
    /// No proof, or the TLS client certificate alone.
    None,
    /// A file with an nkey seed.
    NkeyFile(PathBuf),
    /// A file with a token.
    TokenFile(PathBuf),
}

/// TLS towards the server. Public roots of the system always count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Refuse a server without TLS. A `tls://` address, or a server that demands TLS, gets it
    /// anyway.
    pub required: bool,
    /// Speak TLS before the server's greeting: for servers with `handshake_first`.
    pub first: bool,
    /// PEM file with more root certificates.
    pub ca: Option<PathBuf>,
    /// PEM files of our own certificate chain and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Everything that connecting, publishing, pulling and provisioning need.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Servers of one cluster, at least one. Attempts start at a random one. Servers that the
    /// cluster advertises are not used: the configuration says who is trusted.
    pub urls: Vec<ServerUrl>,
    /// What our subjects begin with.
    pub prefix: Prefix,
    /// Who we are: the source of what we publish, the target of what we pull.
    pub runtime_id: RuntimeId,
    /// What our reply subjects begin with; the server must let us subscribe to `{inbox}.>`.
    pub inbox_prefix: Prefix,
    /// Our proof of identity.
    pub credentials: Credentials,
    /// TLS.
    pub tls: Tls,
    /// Deadline of one [`Link::connect`](super::link::Link::connect), all servers together.
    pub connect_timeout: Duration,
    /// How often an idle connection is probed. Two unanswered probes end the link, so a peer that
    /// vanished silently is noticed within three times this.
    pub ping_interval: Duration,
    /// The JetStream domain of streams, consumers and buckets; without it the server's own.
    pub domain: Option<AssetName>,
    /// Deadline of one JetStream API call of [`assets`](super::assets).
    pub call_timeout: Duration,
    /// The stream that our packets are stored on.
    pub stream_out: AssetName,
    /// The stream that packets for us are pulled from; differs from `stream_out` where clusters
    /// are joined by sourcing.
    pub stream_in: AssetName,
    /// The stream that keeps refused inbound bytes.
    pub stream_quarantine: AssetName,
    /// Create assets that are absent; otherwise only bind and compare.
    pub provision: bool,
    /// Replicas of the streams, 1 to 5.
    pub replicas: u8,
    /// What streams must promise beyond their acknowledgement.
    pub durability: Durability,
}

impl Settings {
    /// The defaults for one runtime.
    #[must_use]
    pub fn new(runtime_id: RuntimeId, urls: Vec<ServerUrl>) -> Self {
        Self {
            urls,
            prefix: Prefix::of_version_1(),
            inbox_prefix: Prefix::inbox_of(&runtime_id),
            runtime_id,
            credentials: Credentials::None,
            tls: Tls::default(),
            connect_timeout: Duration::from_secs(5),
            ping_interval: Duration::from_secs(10),
            domain: None,
            call_timeout: Duration::from_secs(5),
            stream_out: AssetName::of_state(),
            stream_in: AssetName::of_state(),
            stream_quarantine: AssetName::of_quarantine(),
            provision: true,
            replicas: 1,
            durability: Durability::Acked,
        }
    }

    /// Name of our durable consumer on `stream_in`.
    #[must_use]
    pub fn consumer(&self) -> AssetName {
        AssetName::consumer_of(&self.runtime_id)
    }

    /// The subject of a JetStream API call such as `STREAM.INFO.NAME`.
    pub(super) fn api(&self, call: &str) -> String {
        match &self.domain {
            Some(domain) => format!("$JS.{domain}.API.{call}"),
            None => format!("$JS.API.{call}"),
        }
    }

    /// The call of such a subject; any other is shown as it is.
    pub(super) fn call_of<'a>(&self, subject: &'a str) -> &'a str {
        subject.strip_prefix(self.api("").as_str()).unwrap_or(subject)
    }

    /// Options for one connection; the caller adds what concerns its life.
    pub(super) fn options(&self) -> Result<ConnectOptions, UnreadableSecret> {
        let mut options = ConnectOptions::new()
            .name(format!("driftgate-{}", self.runtime_id))
            .custom_inbox_prefix(self.inbox_prefix.as_str())
            .require_tls(self.tls.required)
            .ping_interval(self.ping_interval)
            .request_timeout(Some(self.call_timeout))
            .ignore_discovered_servers();
        if self.tls.first {
            options = options.tls_first();
        }
        if let Some(ca) = &self.tls.ca {
            options = options.add_root_certificates(ca.clone());
        }
        if let Some((certificate, key)) = &self.tls.identity {
            options = options.add_client_certificate(certificate.clone(), key.clone());
        }
        Ok(match &self.credentials {
            Credentials::CredsFile(path) => {
                let text = read_secret(path)?;
                options.credentials(&text).map_err(|_| UnreadableSecret::at(path, NOT_CREDS))?
            }
            Credentials::None => options,
            Credentials::NkeyFile(path) => options.nkey(read_secret(path)?),
            Credentials::TokenFile(path) => options.token(read_secret(path)?),
        })
    }
}

const NOT_CREDS: &str = "is not a credentials file (JWT and nkey seed)";

/// A credentials file that cannot be used. Never shows its content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path} {reason}", path = .path.display())]
pub struct UnreadableSecret {
    /// The file.
    pub path: PathBuf,
    /// What is wrong, to be read after the path.
    pub reason: String,
}

impl UnreadableSecret {
    fn at(path: &Path, reason: impl Into<String>) -> Self {
        Self { path: path.to_owned(), reason: reason.into() }
    }
}

fn read_secret(path: &Path) -> Result<String, UnreadableSecret> {
    let unreadable =
        |error: std::io::Error| UnreadableSecret::at(path, format!("cannot be read: {error}"));
    if std::fs::metadata(path).map_err(unreadable)?.len() > SECRET_BYTES_MAX {
        return Err(UnreadableSecret::at(path, "is too large for a secret"));
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    let secret = text.trim();
    if secret.is_empty() {
        return Err(UnreadableSecret::at(path, "is empty"));
    }
    Ok(secret.to_owned())
}
