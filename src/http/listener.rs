//! Where connections come from: TCP, or a Unix socket that knows who is at the other end.

use core::net::SocketAddr;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener, UnixStream};

use super::settings::ApiAddress;

/// Owner and group may connect; who of them is let in, the peer's uid decides.
const SOCKET_MODE: u32 = 0o660;

/// A byte stream to one client.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// One accepted connection.
pub(super) struct Arrival {
    pub(super) stream: Box<dyn Stream>,
    /// Whether the peer's user may speak here; always true on TCP.
    pub(super) is_allowed: bool,
}

/// Where a listener is bound, with the port that the system chose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bound {
    /// A TCP address.
    Tcp(SocketAddr),
    /// Path of a socket file.
    Unix(PathBuf),
}

/// A bound listener. Dropping it stops listening and removes the socket file.
#[derive(Debug)]
pub struct Listener(Kind);

#[derive(Debug)]
enum Kind {
    Tcp(TcpListener),
    Unix(UnixSocket),
}

impl Listener {
    /// Binds where `address` says.
    ///
    /// # Errors
    /// As [`Self::tcp`] and [`Self::unix`].
    pub async fn bind(address: &ApiAddress) -> io::Result<Self> {
        match address {
            ApiAddress::Tcp(address) => Self::tcp(*address).await,
            ApiAddress::Unix { path, uids } => Self::unix(path, uids).await,
        }
    }

    /// Binds a TCP address; port 0 lets the system choose.
    ///
    /// # Errors
    /// The system's error, for instance [`ErrorKind::AddrInUse`].
    pub async fn tcp(address: SocketAddr) -> io::Result<Self> {
        Ok(Self(Kind::Tcp(TcpListener::bind(address).await?)))
    }

    /// Binds a Unix socket, mode 0660, that lets in our own uid, root and `uids`.
    ///
    /// A socket file on which nobody answers is left over from a sidecar that was killed, and is
    /// replaced.
    ///
    /// # Errors
    /// [`ErrorKind::AddrInUse`] when somebody answers there, [`ErrorKind::AlreadyExists`] when the
    /// file is no socket, else the system's error.
    pub async fn unix(path: &Path, uids: &[u32]) -> io::Result<Self> {
        remove_stale(path).await?;
        let listener = UnixListener::bind(path)?;
        let metadata = fs::symlink_metadata(path)?;
        let file = (metadata.dev(), metadata.ino());
        let own_uid = UnixStream::pair()?.0.peer_cred()?.uid();
        // From here on the file is removed on every way out.
        let socket =
            UnixSocket { listener, path: path.to_owned(), file, own_uid, uids: uids.to_vec() };
        fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE))?;
        Ok(Self(Kind::Unix(socket)))
    }

    /// Where it is bound.
    ///
    /// # Errors
    /// The system's error, if it does not know its own socket.
    pub fn bound(&self) -> io::Result<Bound> {
        match &self.0 {
            Kind::Tcp(listener) => listener.local_addr().map(Bound::Tcp),
            Kind::Unix(socket) => Ok(Bound::Unix(socket.path.clone())),
        }
    }

    /// Waits for one connection.
    ///
    /// # Cancel safety
    /// Safe: a connection that was not returned is still in the kernel's queue.
    pub(super) async fn accept(&self) -> io::Result<Arrival> {
        match &self.0 {
            Kind::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Answers are small and complete: waiting to fill a segment only adds latency.
                let _ = stream.set_nodelay(true);
                Ok(Arrival { stream: Box::new(stream), is_allowed: true })
            }
            Kind::Unix(socket) => {
                let (stream, _) = socket.listener.accept().await?;
                let is_allowed = stream
                    .peer_cred()
                    .is_ok_and(|peer| is_allowed(peer.uid(), socket.own_uid, &socket.uids));
                Ok(Arrival { stream: Box::new(stream), is_allowed })
            }
        }
    }
}

/// A bound Unix socket and the file that stands for it.
#[derive(Debug)]
struct UnixSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file as we made it.
    file: (u64, u64),
    own_uid: u32,
    uids: Vec<u32>,
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        // Somebody may have put another file there; that one is not ours to remove.
        let is_ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.file);
        if is_ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Root may read our memory anyway; refusing it would only surprise.
fn is_allowed(uid: u32, own_uid: u32, uids: &[u32]) -> bool {
    uid == own_uid || uid == 0 || uids.contains(&uid)
}

async fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(io::Error::new(ErrorKind::AlreadyExists, "the file there is no socket"));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path).await {
        // Only a refusal proves that nobody listens; any other failure is left to the operator.
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::new(ErrorKind::AddrInUse, "another process answers there")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_uid_root_and_listed_uids_are_let_in() {
        assert!(is_allowed(1000, 1000, &[]));
        assert!(is_allowed(0, 1000, &[]));
        assert!(is_allowed(1001, 1000, &[1001]));
        assert!(!is_allowed(1002, 1000, &[1001]));
    }
}
