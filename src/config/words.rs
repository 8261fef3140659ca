//! What a key can say where it is neither a number nor a text.

use core::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Whose presence the console shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fleet {
    /// Whom the configuration names.
    #[default]
    Peers,
    /// Everybody whose entry verifies.
    All,
}

/// Where the drift metrics of a packet may come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub enum DriftSource {
    /// The runtime reported all four parts.
    Native,
    /// Or a profile computed parts that it does not report.
    Derived,
}

/// How sure a stored packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub enum Durability {
    /// The stream has acknowledged it.
    Acked,
    /// And the stream has at least three replicas.
    Replicated,
    /// And it stands on servers that write to disk before they acknowledge (placement tag
    /// `sync:always`).
    Synced,
}

/// Where the API listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listener {
    /// An address and port; port 0 takes a free one.
    Tcp(SocketAddr),
    /// A Unix socket, an absolute path.
    Unix(PathBuf),
}

impl fmt::Display for Listener {
    /// As a configuration writes it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(formatter, "{address}"),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

impl Listener {
    /// Whether only processes of this machine (in a pod: of this pod) can reach it.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

/// What becomes of packets that arrive while blocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub enum BlockedInbound {
    /// They reach the runtime as evidence.
    Deliver,
    /// They stay on the stream.
    Hold,
}

/// What the caution band does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub enum Caution {
    /// One report in `caution_every` is sent.
    Throttle,
    /// The strict reading of SRIP-05 section 9: nothing is sent.
    Block,
}
