//! `driftgate send` as a person or a script runs it.

use std::process::{Output, Stdio};

use serde_json::Value;
use tokio::process::Command;

use crate::support::nats_server::NatsServer;
use crate::support::sidecar::{Plan, Sidecar};
use crate::support::wait::LONG;

pub(crate) async fn driftgate(words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_driftgate"));
    command.args(words).stdin(Stdio::null()).kill_on_drop(true);
    tokio::time::timeout(LONG, command.output()).await.expect("its end").expect("a program")
}

pub(crate) fn code(output: &Output) -> i32 {
    output.status.code().expect("it was not killed")
}

pub(crate) fn json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{text} {said}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_of_each_band_brings_the_gate_there() {
    let server = NatsServer::start();
    let sidecar = Sidecar::connected(Plan::new("planner", &["critic"], &server.url())).await;
    let api = sidecar.api.to_string();
    for (band, verdict, ends) in [
        ("open", "export", 0),
        ("caution", "throttle", 0),
        ("blocked", "block", 75),
        ("isolated", "isolate", 75),
    ] {
        let sent = driftgate(&["send", "--api", &api, "--band", band, "--json"]).await;
        let reply = json(&sent);
        assert_eq!((&reply["band"], &reply["verdict"]), (&band.into(), &verdict.into()), "{reply}");
        assert_eq!(code(&sent), ends);
    }
    let sent = driftgate(&["send", "--api", &api, "--cycle", "7"]).await;
    let text = String::from_utf8(sent.stdout).unwrap();
    assert!(text.starts_with("verdict  export\nband     open\ndi       0.2"), "{text}");
    assert!(text.contains("packet   critic  stored  at 2"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_word_that_no_table_knows_blocks_and_a_sidecar_that_is_away_is_said() {
    let server = NatsServer::start();
    let sidecar = Sidecar::connected(Plan::new("planner", &[], &server.url())).await;
    let api = sidecar.api.to_string();
    let blocked = driftgate(&["send", "--api", &api, "--phase", "drifting"]).await;
    assert_eq!(code(&blocked), 75);
    let refused = driftgate(&["send", "--api", &api, "--di", "7"]).await;
    assert_ne!(code(&refused), 0);
    drop(sidecar);
    let absent = driftgate(&["send", "--api", &api]).await;
    let said = String::from_utf8_lossy(&absent.stderr);
    assert_eq!(code(&absent), 69, "{said}");
    assert!(said.contains("no sidecar answers at"), "{said}");
}
