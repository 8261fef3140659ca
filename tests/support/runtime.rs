//! A runtime that takes deliveries: a tiny HTTP server whose mood the test sets.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

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
    /// Never.
    Silent,
}

/// One delivery as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    pub(crate) mood: Mood,
    pub(crate) seq: u64,
    pub(crate) body: String,
}

/// The server.
pub(crate) struct Runtime {
    address: SocketAddr,
    mood: watch::Sender<Mood>,
    taken: Arc<Mutex<Vec<Taken>>>,
    accepting: JoinHandle<()>,
}

impl Runtime {
    pub(crate) async fn start(mood: Mood) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (mood, mind) = watch::channel(mood);
        let taken = Arc::new(Mutex::new(Vec::new()));
        let list = Arc::clone(&taken);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(take(stream, *mind.borrow(), Arc::clone(&list)));
            }
        });
        Self { address, mood, taken, accepting }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/inbox", self.address)
    }

    pub(crate) fn turn(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }

    pub(crate) fn taken(&self) -> Vec<Taken> {
        self.taken.lock().expect("no test panics with it").clone()
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

async fn take(stream: TcpStream, mood: Mood, list: Arc<Mutex<Vec<Taken>>>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let (mut seq, mut length) = (0, 0);
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        let header = line.trim().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        match header.split_once(": ") {
            Some(("driftgate-seq", text)) => seq = text.parse().ok()?,
            Some(("content-length", text)) => length = text.parse().ok()?,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    let body = String::from_utf8_lossy(&body).into_owned();
    list.lock().expect("no test panics with it").push(Taken { mood, seq, body });
    match mood {
        Mood::Answers(status) => {
            let answer = format!("HTTP/1.1 {status} mood\r\nContent-Length: 2\r\n\r\nok");
            stream.write_all(answer.as_bytes()).await.ok()
        }
        // Until the sidecar gives up.
        Mood::Silent => stream.read_u8().await.ok().map(|_| ()),
    }
}
