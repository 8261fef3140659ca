//! A sidecar that has nothing to do, and one that starts, beside a process with a bare client.

use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::process::{child, cpu, memory, wakeups, watch_for};
use super::support::http::Caller;
use super::support::nats_server::NatsServer;
use super::support::sidecar::{Plan, Sidecar, binary};
use super::table::Row;

/// How long is watched.
const SPAN: Duration = Duration::from_secs(60);
const PEERS: [&str; 10] = ["p0", "p1", "p2", "p3", "p4", "p5", "p6", "p7", "p8", "p9"];
const STARTS: usize = 11;

/// A process that ends with us.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) async fn measure() -> Vec<Row> {
    let server = NatsServer::start();
    let sidecar = Sidecar::connected(Plan::new("planner", &PEERS, &server.url())).await;
    sidecar.stores().await;
    let mut bare = Guard(child("wait", &server.url()).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(bare.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    // What follows from the start is over.
    watch_for(Duration::from_secs(15)).await;
    let processes = [sidecar.id(), bare.0.id()];
    let before = processes.map(|process| (cpu(process), wakeups(process)));
    watch_for(SPAN).await;
    let after = processes.map(|process| (cpu(process), wakeups(process)));
    let seconds = SPAN.as_secs_f64();
    let [spent, woken] = [
        [0, 1].map(|side| (after[side].0 - before[side].0).as_secs_f64() * 1e3 / seconds),
        [0, 1].map(|side| (after[side].1.saturating_sub(before[side].1)) as f64 / seconds),
    ];
    let mib = |name: &str| processes.map(|process| memory(process, name) / 1024.0);
    let row = |name: &str, unit, [ours, bare]: [f64; 2]| Row::of(name, unit, ours, Some(bare));
    vec![
        row("idle, 10 peers, resident", "MiB", mib("VmRSS:")),
        row("idle, 10 peers, private", "MiB", mib("RssAnon:")),
        row("idle, 10 peers, wakeups", "1/s", woken),
        row("idle, 10 peers, CPU", "ms/s", spent),
    ]
}

/// From the process's birth to `/readyz` with a connected broker, the median of some.
pub(crate) async fn start() -> Vec<Row> {
    let server = NatsServer::start();
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        ours.push(start_ours(&server).await);
        let begin = Instant::now();
        assert!(child("connect", &server.url()).status().unwrap().success());
        bare.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    let median = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    vec![Row::of("start to ready and connected", "ms", median(&mut ours), Some(median(&mut bare)))]
}

async fn start_ours(server: &NatsServer) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let [api, admin] = [free(), free()];
    let listen = format!("[listen]\napi = \"{api}\"\nadmin = \"{admin}\"\n");
    let files = Plan::new("planner", &PEERS, &server.url()).with(&listen).files_in(folder.path());
    let mut command = Command::new(binary());
    command.arg("run").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    for file in &files {
        command.arg("--config").arg(file);
    }
    let begin = Instant::now();
    let sidecar = Guard(command.spawn().unwrap());
    let mut caller = Caller::new(admin);
    loop {
        if let Ok(answer) = caller.get("/readyz").await
            && answer.status == 200
            && answer.json()["broker"] == "connected"
        {
            break;
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "it does not start");
        watch_for(Duration::from_micros(500)).await;
    }
    let took = begin.elapsed().as_secs_f64() * 1e3;
    drop(sidecar);
    took
}

/// A port that nobody listens on now.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
