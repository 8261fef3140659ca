//! What a connection needs to know. Secrets are named by file and read at each connect, so that a
//! rotated file is used from the next connection on.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_nats::ConnectOptions;

use super::subject::{AssetName, Prefix};
use crate::config::{self, Config};
use crate::protocol::packet::RuntimeId;

/// Largest credentials, nkey or token file, in bytes: they hold one short secret.
pub const SECRET_BYTES_MAX: u64 = 64 * 1024;
/// Deadline of one JetStream API call.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Everything that connecting, publishing, pulling and provisioning need.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who we are: the source of what we publish, the target of what we pull.
    pub runtime_id: RuntimeId,
    /// The broker. Attempts start at a random one of its addresses. Servers that the cluster
    /// advertises are not used: the configuration says who is trusted.
    pub broker: config::Nats,
    /// TLS towards it. Public roots of the system always count.
    pub tls: config::Tls,
    /// Deadline of one JetStream API call of [`assets`](super::assets).
    pub call_timeout: Duration,
}

impl Settings {
    /// What a configuration says.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self {
            runtime_id: config.runtime.id.clone(),
            broker: config.nats.clone(),
            tls: config.tls.clone(),
            call_timeout: CALL_TIMEOUT,
        }
    }

    /// What our reply subjects begin with; the server must let us subscribe to `{inbox}.>`.
    #[must_use]
    pub fn inbox_prefix(&self) -> Prefix {
        let set = self.broker.inbox_prefix.clone();
        set.unwrap_or_else(|| Prefix::inbox_of(&self.runtime_id))
    }

    /// Name of our durable consumer on `stream_in`.
    #[must_use]
    pub fn consumer(&self) -> AssetName {
        AssetName::consumer_of(&self.runtime_id)
    }

    /// The subject of a JetStream API call such as `STREAM.INFO.NAME`.
    #[must_use]
    pub fn api(&self, call: &str) -> String {
        match &self.broker.domain {
            Some(domain) => format!("$JS.{domain}.API.{call}"),
            None => format!("$JS.API.{call}"),
        }
    }

    /// The call of such a subject; any other is shown as it is.
    pub(super) fn call_of<'a>(&self, subject: &'a str) -> &'a str {
        subject.strip_prefix(self.api("").as_str()).unwrap_or(subject)
    }

    /// What the file of credentials holds that the configuration names, if it names one.
    ///
    /// # Errors
    /// [`UnreadableSecret`].
    pub fn secret(&self) -> Result<Option<String>, UnreadableSecret> {
        let broker = &self.broker;
        let files = [&broker.creds_file, &broker.nkey_file, &broker.token_file];
        files.into_iter().flatten().next().map(|path| read_secret(path)).transpose()
    }

    /// Options for one connection; the caller adds what concerns its life.
    pub(super) fn options(&self) -> Result<ConnectOptions, UnreadableSecret> {
        let mut options = ConnectOptions::new()
            .name(format!("driftgate-{}", self.runtime_id))
            .custom_inbox_prefix(self.inbox_prefix().as_str())
            .require_tls(self.tls.required)
            .ping_interval(self.broker.ping_interval)
            .request_timeout(Some(self.call_timeout))
            .ignore_discovered_servers();
        if self.tls.first {
            options = options.tls_first();
        }
        if let Some(ca) = &self.tls.ca_file {
            options = options.add_root_certificates(ca.clone());
        }
        if let (Some(certificate), Some(key)) = (&self.tls.cert_file, &self.tls.key_file) {
            options = options.add_client_certificate(certificate.clone(), key.clone());
        }
        if let Some(path) = &self.broker.creds_file {
            // async-nats finds the seed only where the line after it ends.
            let text = format!("{}\n", read_secret(path)?);
            options =
                options.credentials(&text).map_err(|_| UnreadableSecret::at(path, NOT_CREDS))?;
        }
        if let Some(path) = &self.broker.nkey_file {
            options = options.nkey(read_secret(path)?);
        }
        if let Some(path) = &self.broker.token_file {
            options = options.token(read_secret(path)?);
        }
        Ok(options)
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
