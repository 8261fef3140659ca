//! A runtime that takes deliveries: a tiny HTTP server whose mood the test sets.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::wait::until;

/// How it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    /// With this status.
    Answers(u16),
    /// Not at all: it closes the connection.
    Hangs,
    /// With 204, after so many milliseconds.
    Slow(u64),
    /// Never.
    Silent,
}

/// One delivery as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    pub(crate) mood: Mood,
    pub(crate) source: String,
    pub(crate) seq: u64,
    pub(crate) body: String,
}

/// What it has seen.
#[derive(Debug, Default)]
struct Seen {
    taken: Vec<Taken>,
    connections: usize,
    /// Requests under way now, by source.
    under_way: BTreeMap<String, usize>,
    /// The most that were under way at once, of one source and of all.
    most: (usize, usize),
}

/// The server.
pub(crate) struct Runtime {
    address: SocketAddr,
    mood: watch::Sender<Mood>,
    hang_ups: watch::Sender<u64>,
    seen: Arc<Mutex<Seen>>,
    accepting: JoinHandle<()>,
}

impl Runtime {
    pub(crate) async fn start(mood: Mood) -> Self {
        Self::start_at("127.0.0.1:0", mood).await
    }

    pub(crate) async fn start_at(address: &str, mood: Mood) -> Self {
        let listener = TcpListener::bind(address).await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (mood, mind) = watch::channel(mood);
        let (hang_ups, hang_up) = watch::channel(0);
        let seen = Arc::new(Mutex::new(Seen::default()));
        let all = Arc::clone(&seen);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                all.lock().expect("no test panics with it").connections += 1;
                tokio::spawn(serve(stream, mind.clone(), hang_up.clone(), Arc::clone(&all)));
            }
        });
        Self { address, mood, hang_ups, seen, accepting }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/inbox", self.address)
    }

    pub(crate) fn turn(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }

    pub(crate) fn taken(&self) -> Vec<Taken> {
        self.seen.lock().expect("no test panics with it").taken.clone()
    }

    /// The most requests that were under way at once: of one source, and of all.
    pub(crate) fn most(&self) -> (usize, usize) {
        self.seen.lock().expect("no test panics with it").most
    }

    /// Requests under way now.
    pub(crate) fn under_way(&self) -> usize {
        self.seen.lock().expect("no test panics with it").under_way.values().sum()
    }

    /// Closes every connection on which a request waits for an answer that does not come.
    pub(crate) fn hang_up(&self) {
        self.hang_ups.send_modify(|count| *count += 1);
    }

    pub(crate) fn connections(&self) -> usize {
        self.seen.lock().expect("no test panics with it").connections
    }

    /// Waits for a delivery of that number in that mood.
    pub(crate) async fn takes(&self, mood: Mood, seq: u64) {
        until("a delivery", async || {
            self.taken().iter().any(|taken| taken.mood == mood && taken.seq == seq).then_some(())
        })
        .await;
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// One connection, request after request.
async fn serve(
    stream: TcpStream,
    mind: watch::Receiver<Mood>,
    mut hang_up: watch::Receiver<u64>,
    seen: Arc<Mutex<Seen>>,
) {
    let mut stream = BufReader::new(stream);
    while let Some(source) = take(&mut stream, &mind, &seen).await {
        let mood = *mind.borrow();
        hang_up.mark_unchanged();
        let answered = tokio::select! {
            answered = answer(&mut stream, mood) => answered,
            _ = hang_up.changed() => None,
        };
        let mut seen = seen.lock().expect("no test panics with it");
        *seen.under_way.entry(source).or_default() -= 1;
        if answered.is_none() {
            return;
        }
    }
}

/// Reads one request; gives back its source.
async fn take(
    stream: &mut BufReader<TcpStream>,
    mind: &watch::Receiver<Mood>,
    seen: &Mutex<Seen>,
) -> Option<String> {
    let (mut seq, mut length, mut source) = (0, 0, String::new());
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let header = line.trim().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        match header.split_once(": ") {
            Some(("driftgate-seq", text)) => seq = text.parse().ok()?,
            Some(("driftgate-source", text)) => source = text.to_owned(),
            Some(("content-length", text)) => length = text.parse().ok()?,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    let body = String::from_utf8_lossy(&body).into_owned();
    let mood = *mind.borrow();
    let mut seen = seen.lock().expect("no test panics with it");
    seen.taken.push(Taken { mood, source: source.clone(), seq, body });
    let of_source = seen.under_way.entry(source.clone()).or_default();
    *of_source += 1;
    let most = (*of_source, seen.under_way.values().sum());
    seen.most = (seen.most.0.max(most.0), seen.most.1.max(most.1));
    Some(source)
}

/// `None` when the connection is over.
async fn answer(stream: &mut BufReader<TcpStream>, mood: Mood) -> Option<()> {
    let status = match mood {
        Mood::Answers(status) => status,
        Mood::Hangs => return None,
        Mood::Slow(pause_ms) => {
            // The pause ends early when the sidecar hangs up.
            let pause = Duration::from_millis(pause_ms);
            let _ = tokio::time::timeout(pause, stream.fill_buf()).await;
            204
        }
        // Until the sidecar gives up.
        Mood::Silent => {
            stream.read_u8().await.ok()?;
            return None;
        }
    };
    let answer = format!("HTTP/1.1 {status} mood\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(answer.as_bytes()).await.ok()
}
