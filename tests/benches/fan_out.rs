//! Throughput of `POST /field/state` beside a bare client that publishes the same bytes to the same
//! stream with the same in-flight window, in one run. Prints ratios; asserts nothing about time.
//!
//! `cargo bench --bench fan_out`. Under `cargo test` it exits at once.

#![allow(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    reason = "a test may panic, and measures with the real clock"
)]

#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use async_nats::jetstream::{self, Context};
use bytes::Bytes;
use driftgate::config::{Config, read_from_disk};
use driftgate::http::listener::Bound;
use driftgate::sidecar::Sidecar;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper_util::rt::TokioIo;
use support::nats_server::NatsServer;
use tokio::net::TcpStream;

/// Unacknowledged packets at a time, on both sides of the comparison.
const WINDOW: usize = 256;
/// Packets of one measurement, so that every row takes about as long.
const PACKETS: usize = 30_000;
/// Most reporters at a time. Fewer where a report makes more packets: enough to keep the window
/// full, and not so many that newer reports supersede older ones before they are sent.
const REPORTERS_MAX: usize = 64;

type Report = Result<(), Box<dyn std::error::Error>>;

fn main() -> Report {
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run())
}

async fn run() -> Report {
    let mut output = std::io::stdout();
    writeln!(output, "targets  reports/s  packets/s  bare client  ratio  (window {WINDOW})")?;
    for targets in [1_usize, 10, 100] {
        let server = NatsServer::start();
        let folder = tempfile::tempdir()?;
        let config = config(folder.path(), &server.url(), targets)?;
        let sidecar = Sidecar::start(&config).await?;
        let Bound::Tcp(api) = sidecar.api.clone() else { return Err("not TCP".into()) };
        warm_up(api).await?;
        let client = async_nats::connect(server.url()).await?;
        let context =
            jetstream::context::ContextBuilder::new().max_ack_inflight(WINDOW).build(client);
        let (payload, headers) = sample(&context).await?;
        // Turn about, three times; the median pair counts, for the machine is noisy.
        let mut rounds = Vec::new();
        for round in 0..3 {
            let reports = PACKETS / targets;
            let before = stored(&sidecar).await?;
            let start = Instant::now();
            report_all(api, reports, (2 * WINDOW / targets).clamp(2, REPORTERS_MAX)).await?;
            let seconds = start.elapsed().as_secs_f64();
            let packets = stored(&sidecar).await? - before;
            let ours = packets / seconds;
            let bare = publish_all(&context, &payload, &headers, round).await?;
            rounds.push((ours / bare, packets / seconds / to_f64(targets), ours, bare));
        }
        rounds.sort_by(|left, right| left.0.total_cmp(&right.0));
        let (ratio, reports, ours, bare) = rounds[1];
        writeln!(output, "{targets:>7}  {reports:>9.0}  {ours:>9.0}  {bare:>11.0}  {ratio:>5.2}")?;
        sidecar.stop().await;
    }
    Ok(())
}

fn to_f64(count: usize) -> f64 {
    u32::try_from(count).map(f64::from).unwrap_or(f64::MAX)
}

fn config(
    folder: &std::path::Path,
    url: &str,
    targets: usize,
) -> Result<Config, Box<dyn std::error::Error>> {
    let key = folder.join("k1");
    std::fs::write(&key, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")?;
    let mut text = format!(
        "[runtime]\nid = \"planner\"\nattractor_type = \"symbolic\"\n\
         [nats]\nurl = [\"{url}\"]\nwindow = {WINDOW}\n\
         [listen]\napi = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n\
         [integrity]\nsign_with = \"k1\"\nkeys = [{{ id = \"k1\", file = \"{}\" }}]\n\
         [snapshot]\nspool = \"{}\"\n[log]\nlevel = \"error\"\n",
        key.display(),
        folder.join("spool").display(),
    );
    for target in 0..targets {
        text.push_str(&format!("[[peers]]\nid = \"t{target}\"\nexport = [\"state\"]\n"));
    }
    let file = folder.join("driftgate.toml");
    std::fs::write(&file, text)?;
    let config = Config::load(&[file], &BTreeMap::new(), &read_from_disk);
    config.map_err(|mistakes| mistakes.to_string().into())
}

fn body(cycle: usize) -> Bytes {
    Bytes::from(format!(
        r#"{{"cycle":{cycle},"attractor_state":{{"id":"a-1","type":"symbolic","stability":0.91,"phase":"stable","scr":0.8}},"drift_metrics":{{"sdi":0.2,"sv":0.1,"pd":0.1}}}}"#
    ))
}

/// Until the first report is stored: connected, provisioned, open.
async fn warm_up(api: SocketAddr) -> Report {
    let mut connection = Connection::open(api).await?;
    let mut pause = tokio::time::interval(Duration::from_millis(20));
    for cycle in 1..500 {
        pause.tick().await;
        let reply = connection.post(body(cycle)).await?;
        if reply.windows(8).any(|bytes| bytes == b"\"stored\"") {
            return Ok(());
        }
    }
    Err("nothing was stored".into())
}

struct Connection {
    api: SocketAddr,
    sender: hyper::client::conn::http1::SendRequest<Full<Bytes>>,
}

impl Connection {
    async fn open(api: SocketAddr) -> Result<Self, Box<dyn std::error::Error>> {
        let stream = TcpStream::connect(api).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { api, sender })
    }

    async fn post(&mut self, body: Bytes) -> Result<Bytes, Box<dyn std::error::Error>> {
        let request = Request::post("/field/state")
            .header("host", self.api.to_string())
            .header("content-type", "application/json")
            .body(Full::new(body))?;
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        if !response.status().is_success() {
            return Err(format!("status {}", response.status()).into());
        }
        Ok(response.into_body().collect().await?.to_bytes())
    }
}

async fn report_all(api: SocketAddr, reports: usize, reporters: usize) -> Report {
    let mut tasks = FuturesUnordered::new();
    for _ in 0..reporters {
        tasks.push(async move {
            let mut connection = Connection::open(api).await?;
            for _ in 0..reports / reporters {
                // Without cycle numbers, as a runtime may: reporters have no order between them.
                let body = Bytes::from_static(
                    br#"{"attractor_state":{"id":"a-1","type":"symbolic","stability":0.91,"phase":"stable","scr":0.8},"drift_metrics":{"sdi":0.2,"sv":0.1,"pd":0.1}}"#,
                );
                connection.post(body).await?;
            }
            Ok::<(), Box<dyn std::error::Error>>(())
        });
    }
    while let Some(done) = tasks.next().await {
        done?;
    }
    Ok(())
}

async fn stored(sidecar: &Sidecar) -> Result<f64, Box<dyn std::error::Error>> {
    let books = sidecar.handle.books().await?;
    let stored: u64 = books.ledgers.iter().map(|(_, ledger)| ledger.stored).sum();
    Ok(u32::try_from(stored).map(f64::from)?)
}

async fn sample(context: &Context) -> Result<(Bytes, HeaderMap), Box<dyn std::error::Error>> {
    let stream = context.get_stream("DRIFTGATE_STATE").await?;
    let message = stream.get_last_raw_message_by_subject("driftgate.v1.state.planner.t0").await?;
    Ok((message.payload, message.headers))
}

/// The bare client: the same bytes, headers, stream and window.
async fn publish_all(
    context: &Context,
    payload: &Bytes,
    headers: &HeaderMap,
    round: usize,
) -> Result<f64, Box<dyn std::error::Error>> {
    let start = Instant::now();
    let mut acks = FuturesUnordered::new();
    for number in 0..PACKETS {
        if acks.len() >= WINDOW {
            acks.next().await.ok_or("no acknowledgement")??;
        }
        let mut headers = headers.clone();
        headers.insert("Nats-Msg-Id", format!("bare-{round}-{number}"));
        let subject = "driftgate.v1.state.planner.t0";
        let ack = context.publish_with_headers(subject, headers, payload.clone()).await?;
        acks.push(ack.into_future());
    }
    while let Some(ack) = acks.next().await {
        ack?;
    }
    Ok(to_f64(PACKETS) / start.elapsed().as_secs_f64())
}
