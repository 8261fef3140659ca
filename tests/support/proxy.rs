//! A TCP proxy that misbehaves on demand: latency, stall, cut, reset, byte limit, corruption, each
//! way apart.
//!
//! A stalled way is not read either, so what follows piles up in the kernels on both sides, as it
//! does before a machine that has stopped. A half-open connection is one whose both ways are
//! stalled for ever: cut and stall choose between connections that are there and those to come.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Bytes on their way at a time, in chunks of [`CHUNK_BYTES`].
const CHUNKS_MAX: usize = 64;
const CHUNK_BYTES: usize = 16 * 1024;
/// The bit that is flipped: makes another letter of most, and of no digit another digit.
pub(crate) const FLIP: u8 = 0x10;

/// What is changed where: one byte, so many before the beginning of these words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Garble {
    pub(crate) words: &'static [u8],
    pub(crate) before: usize,
    pub(crate) flip: u8,
}

/// What happens to the bytes of one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) latency: Duration,
    pub(crate) stalled: bool,
    /// One bit of every so many bytes is flipped; 0 flips none.
    pub(crate) corrupt_every: u64,
    /// Where a chunk holds certain words, one byte is changed.
    pub(crate) garbled: Option<Garble>,
    /// Each connection ends after so many bytes, in the middle of whatever they were.
    pub(crate) bytes_max: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Rules {
    up: Way,
    down: Way,
    /// Connections of earlier generations are ended.
    generation: u64,
    /// They are ended by a reset, which throws away what is under way.
    resets: bool,
    /// Connections up to this generation never move a byte again and are never ended.
    abandoned: u64,
    refuses: bool,
}

/// Stands between a sidecar and its broker.
pub(crate) struct Proxy {
    address: SocketAddr,
    rules: watch::Sender<Rules>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free port and passes on to `url`.
    pub(crate) async fn start(url: &str) -> Self {
        let upstream: SocketAddr =
            url.trim_start_matches("nats://").parse().expect("an address and a port");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (rules, followed) = watch::channel(Rules { generation: 1, ..Rules::default() });
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let refuses = followed.borrow().refuses;
                if !refuses && let Ok(server) = TcpStream::connect(upstream).await {
                    tokio::spawn(join(client, server, followed.clone()));
                }
            }
        });
        Self { address, rules, accepting }
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Sets what happens to bytes for the broker.
    pub(crate) fn up(&self, way: Way) {
        self.rules.send_modify(|rules| rules.up = way);
    }

    /// Sets what happens to bytes from the broker.
    pub(crate) fn down(&self, way: Way) {
        self.rules.send_modify(|rules| rules.down = way);
    }

    /// Both ways stand still, for the connections that are there and those to come.
    pub(crate) fn stall(&self, stalled: bool) {
        self.rules.send_modify(|rules| {
            rules.up.stalled = stalled;
            rules.down.stalled = stalled;
        });
    }

    /// Ends the connections that are there.
    pub(crate) fn cut(&self) {
        self.end(false);
    }

    /// The same by a reset: what was under way is gone.
    pub(crate) fn reset(&self) {
        self.end(true);
    }

    /// The connections that are there fall silent for ever; new ones are as good as any.
    pub(crate) fn abandon(&self) {
        self.rules.send_modify(|rules| {
            rules.abandoned = rules.generation;
            rules.generation += 1;
        });
    }

    /// Whether new connections are turned away.
    pub(crate) fn refuse(&self, refuses: bool) {
        self.rules.send_modify(|rules| rules.refuses = refuses);
    }

    fn end(&self, resets: bool) {
        self.rules.send_modify(|rules| {
            rules.generation += 1;
            rules.resets = resets;
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// One connection, until either side or a rule ends it.
async fn join(client: TcpStream, server: TcpStream, mut rules: watch::Receiver<Rules>) {
    let born = rules.borrow_and_update().generation;
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    let up = Passage { rules: rules.clone(), born, way: |rules| rules.up };
    let down = Passage { rules, born, way: |rules| rules.down };
    // Whichever way ends first takes the other with it.
    tokio::select! {
        () = up.run(client_read, server_write) => {}
        () = down.run(server_read, client_write) => {}
    }
}

/// One way of one connection.
#[derive(Clone)]
struct Passage {
    rules: watch::Receiver<Rules>,
    born: u64,
    way: fn(&Rules) -> Way,
}

impl Passage {
    /// Passes bytes on, through a pipe that holds each chunk for the latency of its arrival.
    async fn run(self, read: OwnedReadHalf, mut write: OwnedWriteHalf) {
        let (chunks, mut pipe) = mpsc::channel::<(Instant, Bytes)>(CHUNKS_MAX);
        let mut gate = self.clone();
        let reading = async {
            self.clone().read(read, chunks).await;
            // The pipe is closed now; what is in it still has to go.
            std::future::pending::<()>().await;
        };
        let writing = async {
            while let Some((due, chunk)) = pipe.recv().await {
                // The fault itself, not a wait of the test.
                tokio::time::sleep_until(due).await;
                if gate.moves().await.is_none() || write.write_all(&chunk).await.is_err() {
                    return;
                }
            }
        };
        let mut rules = self.rules.clone();
        let ended = rules.wait_for(|rules| self.born < rules.generation && !self.is_lost(rules));
        let resets = tokio::select! {
            () = reading => false,
            () = writing => false,
            rules = ended => rules.is_ok_and(|rules| rules.resets),
        };
        if resets {
            let _ = write.as_ref().set_zero_linger();
        }
    }

    async fn read(mut self, mut read: OwnedReadHalf, chunks: mpsc::Sender<(Instant, Bytes)>) {
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut passed = 0_u64;
        while let Some(way) = self.moves().await {
            let count = tokio::select! {
                // Looks at the rules again before another byte is read, also where both are there.
                biased;
                changed = self.rules.changed() => if changed.is_ok() { continue } else { return },
                count = read.read(&mut buffer) => match count {
                    Ok(0) | Err(_) => return,
                    Ok(count) => count,
                },
            };
            let left = way.bytes_max.map_or(u64::MAX, |max| max.saturating_sub(passed));
            let kept = count.min(usize::try_from(left).unwrap_or(usize::MAX));
            for byte in buffer.iter_mut().take(kept) {
                passed += 1;
                if way.corrupt_every > 0 && passed.is_multiple_of(way.corrupt_every) {
                    *byte ^= FLIP;
                }
            }
            if let Some(Garble { words, before, flip }) = way.garbled {
                for place in before..(kept + 1).saturating_sub(words.len()) {
                    if buffer[place..].starts_with(words) {
                        buffer[place - before] ^= flip;
                    }
                }
            }
            let chunk = Bytes::copy_from_slice(buffer.get(..kept).unwrap_or_default());
            if chunks.send((Instant::now() + way.latency, chunk)).await.is_err() || kept < count {
                return;
            }
        }
    }

    /// Waits until this way moves; `None` when the proxy is gone.
    async fn moves(&mut self) -> Option<Way> {
        let (born, way) = (self.born, self.way);
        let moving = |rules: &Rules| rules.abandoned < born && !way(rules).stalled;
        self.rules.wait_for(moving).await.ok().map(|rules| way(&rules))
    }

    fn is_lost(&self, rules: &Rules) -> bool {
        self.born <= rules.abandoned
    }
}
