//! From the report that closes the gate to the reply that promises silence, beside what a bare
//! client's round trips through the same broker take, in turns.

use std::time::{Duration, Instant};

use async_nats::jetstream;
use futures_util::StreamExt as _;

use super::process::Times;
use super::support::http::Caller;
use super::support::nats_server::NatsServer;
use super::support::report::report;
use super::support::sidecar::{Plan, Sidecar};
use super::table::Row;

const ROUNDS: usize = 2_000;
/// Rounds before those that count.
const WARM_UP: usize = 200;

pub(crate) async fn measure() -> Vec<Row> {
    let server = NatsServer::start();
    let sidecar = Sidecar::connected(Plan::new("planner", &["critic"], &server.url())).await;
    let client = async_nats::connect(server.url()).await.unwrap();
    let mut own = client.subscribe("bench.own").await.unwrap();
    let context = jetstream::new(client.clone());
    let payload = bytes::Bytes::from(vec![b'x'; 900]);
    let mut caller = Caller::new(sidecar.api);
    let (mut echo, mut stored, mut held, mut closing) =
        (Times::default(), Times::default(), Times::default(), Times::default());
    for round in 0..WARM_UP + ROUNDS {
        if round == WARM_UP {
            for times in [&mut echo, &mut stored, &mut held, &mut closing] {
                times.clear();
            }
        }
        post(&mut caller, 0.30, "stored").await;
        closing.push(post(&mut caller, 0.51, "held").await);
        held.push(post(&mut caller, 0.52, "held").await);
        let begin = Instant::now();
        client.publish("bench.own", "".into()).await.unwrap();
        own.next().await.unwrap();
        echo.push(begin.elapsed());
        let begin = Instant::now();
        let sent = context.publish("driftgate.v1.state.bench.critic", payload.clone()).await;
        sent.unwrap().await.unwrap();
        stored.push(begin.elapsed());
    }
    let row = |name: &str, ours: &mut Times, bare: &mut Times, share: f64| {
        let times = Some([ours.quantiles(), bare.quantiles()]);
        Row { times, ..Row::of(name, "us", ours.at(share), Some(bare.at(share))) }
    };
    vec![
        row("closing, p50, to own echoes", &mut closing, &mut echo, 0.5),
        row("closing, p99, to own echoes", &mut closing, &mut echo, 0.99),
        row("closing, p99, to publish + ack", &mut closing, &mut stored, 0.99),
        row("held report, p50, to own echoes", &mut held, &mut echo, 0.5),
    ]
}

async fn post(caller: &mut Caller, di: f64, status: &str) -> Duration {
    let answer = caller.post("/field/state", &report(di)).await.unwrap();
    let reply = answer.json();
    assert_eq!(reply["packets"][0]["status"], status, "{reply}");
    answer.took
}
