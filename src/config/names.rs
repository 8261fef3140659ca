//! Names at the broker and its address, valid by type: what is read from a file can then be used
//! as it is. What a subject holds behind its prefix is not known here.

use core::fmt;

use async_nats::ServerAddr;

use crate::protocol::packet::RuntimeId;

/// Longest prefix, in bytes: leaves room for two ids in what every server accepts as a subject.
pub const PREFIX_BYTES_MAX: usize = 64;
/// Longest name of a stream, consumer or domain, in bytes: what the server recommends is 32, a
/// consumer's name holds a runtime id of 64, and a stream's is a folder at the server.
pub const ASSET_NAME_BYTES_MAX: usize = 128;

/// Whether `text` is one token of `[A-Za-z0-9_-]`.
fn is_token(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    !text.is_empty() && text.bytes().all(allowed)
}

/// The name of a stream, consumer or domain: `[A-Za-z0-9_-]`, 1 to [`ASSET_NAME_BYTES_MAX`] bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AssetName(String);

impl AssetName {
    /// `None` when `text` is no such name.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        (text.len() <= ASSET_NAME_BYTES_MAX && is_token(text)).then(|| Self(text.to_owned()))
    }

    /// The durable consumer of one runtime: `driftgate-{id}`.
    #[must_use]
    pub fn consumer_of(runtime: &RuntimeId) -> Self {
        Self(format!("driftgate-{runtime}"))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AssetName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// What all our subjects begin with, `driftgate.v1` by default: tokens of `[A-Za-z0-9_-]` with dots
/// between them, at most [`PREFIX_BYTES_MAX`] bytes. Also the form of an inbox prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix(String);

impl Prefix {
    /// `None` when `text` is no such prefix.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let fits = text.len() <= PREFIX_BYTES_MAX && text.split('.').all(is_token);
        fits.then(|| Self(text.to_owned()))
    }

    /// The prefix of our replies: `_INBOX.{id}`, so that a server can grant each runtime its own.
    #[must_use]
    pub fn inbox_of(runtime: &RuntimeId) -> Self {
        Self(format!("_INBOX.{runtime}"))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Address of one server: `nats://host:port` or `tls://host:port`, without user or password, which
/// come by file.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerUrl(ServerAddr);

impl ServerUrl {
    /// `None` when `text` is no such address. A path, query or fragment would be ignored in
    /// silence, so it is none.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let address: ServerAddr = text.parse().ok()?;
        let is_plain = matches!(address.scheme(), "nats" | "tls") && !address.host().is_empty();
        let bare = text.split_once("://").map_or(text, |(_, rest)| rest);
        (is_plain && !bare.contains(['/', '?', '#', '@'])).then_some(Self(address))
    }

    pub(crate) fn address(&self) -> &ServerAddr {
        &self.0
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
