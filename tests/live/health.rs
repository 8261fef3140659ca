//! `driftgate health` as a probe of a container runs it.

use std::fs;

use serde_json::Value;
use tokio::process::Command;

use super::commands::{code, driftgate, json};
use crate::support::nats_server::NatsServer;
use crate::support::sidecar::{Plan, Sidecar};
use crate::support::wait::LONG;

fn out(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn health_says_what_the_probes_say_and_ends_accordingly() {
    let server = NatsServer::start();
    let sidecar = Sidecar::connected(Plan::new("planner", &["critic"], &server.url())).await;
    let admin = sidecar.admin.to_string();
    let alive = driftgate(&["health", "--admin", &admin]).await;
    assert_eq!((code(&alive), out(&alive).as_str()), (0, "alive\n"));
    let ready = driftgate(&["health", "--admin", &admin, "--ready"]).await;
    assert_eq!((code(&ready), out(&ready).lines().next()), (0, Some("ready")));
    let said = json(&driftgate(&["health", "--admin", &admin, "--ready", "--json"]).await);
    assert_eq!(said["healthy"], true);
    assert_eq!((&said["probe"], &said["admin"]), (&"/readyz".into(), &admin.as_str().into()));
    assert_eq!(said["readiness"]["broker"], "connected");
    // The broker is nobody's health: its absence is told, and restarts nothing.
    drop(server);
    let alone = driftgate(&["health", "--admin", &admin]).await;
    assert_eq!(code(&alone), 0);
    drop(sidecar);
    let gone = driftgate(&["health", "--admin", &admin]).await;
    assert_eq!(code(&gone), 1);
    let text = format!("not alive: no sidecar answers at {admin}: ");
    assert!(out(&gone).starts_with(&text), "{}", out(&gone));
    let gone = driftgate(&["health", "--admin", &admin, "--ready", "--json"]).await;
    let said = json(&gone);
    assert_eq!(
        (code(&gone), &said["healthy"], &said["readiness"]),
        (1, &false.into(), &Value::Null)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_in_the_configuration_is_no_illness() {
    let sidecar = Sidecar::start(Plan::new("planner", &[], "nats://127.0.0.1:1")).await;
    let folder = tempfile::tempdir().unwrap();
    let file = |text: &str| {
        let path = folder.path().join("driftgate.toml");
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let admin = format!("[listen]\nadmin = \"{}\"\n", sidecar.admin);
    let wrong = file(&format!("{admin}colour = \"red\"\n[nats]\nwindow = 0\n"));
    let alive = driftgate(&["health", "--config", &wrong]).await;
    assert_eq!((code(&alive), out(&alive).as_str()), (0, "alive\n"));
    // What listens everywhere is asked here.
    let everywhere = format!("[listen]\nadmin = \"0.0.0.0:{}\"\n", sidecar.admin.port());
    assert_eq!(code(&driftgate(&["health", "--config", &file(&everywhere)]).await), 0);
    for (text, named) in [
        ("[listen]\nadmin = \"here\"\n", "listen.admin: must be an IP address and a port"),
        ("[listen]\nadmin = \"127.0.0.1:0\"\n", "name the address with --admin"),
        ("[listen\n", "cannot be parsed"),
    ] {
        let unknown = driftgate(&["health", "--config", &file(text)]).await;
        let said = String::from_utf8_lossy(&unknown.stderr);
        assert_eq!(code(&unknown), 78, "{said}");
        assert!(said.contains(named), "{said}");
    }
    // As in a pod: the environment says where, and no file is opened.
    let mut asked = Command::new(env!("CARGO_BIN_EXE_driftgate"));
    asked.args(["health", "--config", &file("[listen\n")]).kill_on_drop(true);
    asked.env("DRIFTGATE__LISTEN__ADMIN", sidecar.admin.to_string());
    assert_eq!(code(&asked.output().await.unwrap()), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_never_answers_is_not_waited_for() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let admin = silent.local_addr().unwrap().to_string();
    let asked = tokio::time::timeout(LONG, driftgate(&["health", "--admin", &admin])).await;
    let asked = asked.expect("a bounded wait");
    assert_eq!(code(&asked), 1);
    assert!(out(&asked).contains("its answer takes too long"), "{}", out(&asked));
}
