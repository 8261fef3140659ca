//! What can be set about the two listeners, typed; `main` fills it from the configuration.
//!
//! Every bound of the local interface is named here with its default and its reason. Reading files
//! and environment deliberately is not here.

use crate::protocol::digest::Digest;
use core::fmt;
use core::net::SocketAddr;
use core::time::Duration;
use std::path::PathBuf;

use subtle::ConstantTimeEq;

/// Connections served at once on one listener. One runtime needs a handful; 256 leaves room for a
/// careless client without a pool, and bounds what the listener can hold to
/// 256 x (head + body) = 68 MiB.
pub const CONNECTIONS_MAX: usize = 256;
/// Bytes of request line and headers together. Our longest route with a token is under 1 KiB.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Header fields in one request.
pub const HEADERS_MAX: usize = 64;
/// Longest wait for a whole request head, and so also the longest idle time of a kept connection.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// The same on the admin listener: probes and scrapers send their whole head at once.
pub const ADMIN_HEAD_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest wait for a client that reads no byte of its answer.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for requests in flight at stop. Shorter than the 30 s that Kubernetes gives a pod.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// One connection in this many may be a stream: 64 of [`CONNECTIONS_MAX`], which is a console, some
/// terminals and exporters. What stays open never takes the place of a report.
pub const STREAM_SHARE: usize = 4;
/// Longest silence on a stream, which a comment then ends: below the idle timeouts of common
/// proxies, 30 to 60 s.
pub const HEARTBEAT: Duration = Duration::from_secs(15);
/// Bytes of a report, before and after decoding. A report has some 20 leaves (under 1 KiB); public
/// runtimes write up to some tens of KiB per cycle.
pub const BODY_BYTES_MAX: usize = 256 * 1024;
/// Longest wait for a whole report body, from the end of its head.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Shortest bearer token, in bytes: what no guessing over loopback reaches.
pub const TOKEN_BYTES_MIN: usize = 16;
/// Longest bearer token, in bytes; it must fit the head with room to spare.
pub const TOKEN_BYTES_MAX: usize = 512;

/// Limits of one listener's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// See [`CONNECTIONS_MAX`]. One more is answered 503 and closed, so that a client learns at
    /// once what is wrong instead of waiting in the kernel's queue (P10).
    pub connections_max: usize,
    /// See [`HEAD_BYTES_MAX`].
    pub head_bytes_max: usize,
    /// See [`HEADERS_MAX`].
    pub headers_max: usize,
    /// See [`HEAD_TIMEOUT`].
    pub head_timeout: Duration,
    /// See [`WRITE_TIMEOUT`].
    pub write_timeout: Duration,
    /// See [`DRAIN_TIMEOUT`].
    pub drain_timeout: Duration,
    /// See [`HEARTBEAT`].
    pub heartbeat: Duration,
}

impl Limits {
    /// Streams at a time; see [`STREAM_SHARE`].
    #[must_use]
    pub fn streams_max(&self) -> usize {
        let others = self.connections_max.saturating_sub(1);
        self.connections_max.div_ceil(STREAM_SHARE).min(others)
    }
}

impl Limits {
    /// The same for the admin listener, whose clients have less to say.
    #[must_use]
    pub fn admin(self) -> Self {
        Self { head_timeout: self.head_timeout.min(ADMIN_HEAD_TIMEOUT), ..self }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: CONNECTIONS_MAX,
            head_bytes_max: HEAD_BYTES_MAX,
            headers_max: HEADERS_MAX,
            head_timeout: HEAD_TIMEOUT,
            write_timeout: WRITE_TIMEOUT,
            drain_timeout: DRAIN_TIMEOUT,
            heartbeat: HEARTBEAT,
        }
    }
}

/// Limits of a report body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyLimits {
    /// See [`BODY_BYTES_MAX`].
    pub bytes_max: usize,
    /// See [`BODY_TIMEOUT`].
    pub timeout: Duration,
}

impl Default for BodyLimits {
    fn default() -> Self {
        Self { bytes_max: BODY_BYTES_MAX, timeout: BODY_TIMEOUT }
    }
}

/// Limits of one stream of reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamLimits {
    /// Lines without an answer: as many as there may be packets without an acknowledgement.
    pub window: usize,
    /// Longest wait for a client that reads none of its answers.
    pub read_timeout: Duration,
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self { window: 256, read_timeout: Duration::from_secs(2) }
    }
}

/// Where the API listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiAddress {
    /// TCP, loopback unless the operator insists.
    Tcp(SocketAddr),
    /// A Unix socket, mode 0660.
    Unix {
        /// Path of the socket file.
        path: PathBuf,
        /// Peer uids that are let in besides our own and root.
        uids: Vec<u32>,
    },
}

/// The API listener.
#[derive(Clone, Debug)]
pub struct ApiSettings {
    /// Where it listens.
    pub address: ApiAddress,
    /// `Host` values let in besides `127.0.0.1`, `localhost` and `[::1]` with the bound port, as a
    /// client sends them: with the port unless it is 80. Not used on a Unix socket.
    pub hosts: Vec<String>,
    /// `Origin` values let in, exactly as a browser sends them. Empty: no browser page may ask.
    pub origins: Vec<String>,
    /// When set, every request must carry it.
    pub token: Option<Token>,
    /// Releases an operator's hold, and opens the other operator's routes too. `None`: no route
    /// releases.
    pub operator_token: Option<Token>,
    /// Whether reports are taken here.
    pub reports: bool,
    /// Limits of its connections.
    pub limits: Limits,
    /// Limits of a report body.
    pub body: BodyLimits,
    /// Limits of a stream of reports.
    pub stream: StreamLimits,
}

impl Default for ApiSettings {
    fn default() -> Self {
        Self {
            address: ApiAddress::Tcp(SocketAddr::from(([127, 0, 0, 1], 7405))),
            hosts: Vec::new(),
            origins: Vec::new(),
            token: None,
            operator_token: None,
            reports: true,
            limits: Limits::default(),
            body: BodyLimits::default(),
            stream: StreamLimits::default(),
        }
    }
}

/// The console's listener.
#[derive(Clone, Debug, Default)]
pub struct ConsoleSettings {
    /// What every look at data asks for. Without one nobody sees any, unless it is `open`.
    pub token: Option<Token>,
    /// Whether data is shown without a token: where nobody else shares the machine.
    pub is_open: bool,
    /// Names by which it may be called beside loopback's, with any port.
    pub hosts: Vec<String>,
    /// Whether all that are there are shown, or the configured peers.
    pub shows_all: bool,
}

/// A bearer token, kept as its digest: it cannot be printed, and comparing tells neither where a
/// guess differs nor how long the token is.
#[derive(Clone)]
pub struct Token(Digest);

/// Why a text is no bearer token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// It holds a byte that RFC 6750 section 2.1 does not allow.
    #[error("may hold letters, digits and -._~+/= only")]
    Character,
    /// Its length is out of bounds.
    #[error("must be {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX} bytes long")]
    Length,
}

impl Token {
    /// Takes a token as RFC 6750 section 2.1 writes it (`b64token`), without surrounding space.
    ///
    /// # Errors
    /// [`TokenFault`], the operator's fault; it never shows the token.
    pub fn new(text: &str) -> Result<Self, TokenFault> {
        if !(TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&text.len()) {
            return Err(TokenFault::Length);
        }
        if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte)) {
            return Err(TokenFault::Character);
        }
        Ok(Self(Digest::of(text.as_bytes())))
    }

    /// Whether `guess` is the token; takes the same time for every guess of one length.
    #[must_use]
    pub fn matches(&self, guess: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(Digest::of(guess).as_bytes()).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token(..)")
    }
}
