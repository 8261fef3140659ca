//! `driftgate watch`: what it tells without a terminal, and a terminal that is afterwards as it
//! was.

use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::time::timeout;

use crate::commands::{code, driftgate, json};
use crate::support::nats_server::NatsServer;
use crate::support::sidecar::{Plan, Sidecar};
use crate::support::wait::{LONG, until};

#[tokio::test(flavor = "multi_thread")]
async fn without_a_terminal_it_tells_what_status_tells() {
    let server = NatsServer::start();
    let sidecar = Sidecar::connected(Plan::new("planner", &["critic"], &server.url())).await;
    sidecar.report(0.3).await;
    let config = sidecar.folder().join("base.toml").display().to_string();
    let told = until("an open entry", async || {
        let told = json(&driftgate(&["watch", "-c", &config, "--once", "--json"]).await);
        (told["runtimes"][0]["band"] == "open").then_some(told)
    })
    .await;
    let status = json(&driftgate(&["status", "-c", &config, "--json"]).await);
    let keys = |told: &Value| -> Vec<String> {
        told["runtimes"][0].as_object().unwrap().keys().cloned().collect()
    };
    assert_eq!(keys(&told), keys(&status));
    let table = driftgate(&["watch", "-c", &config]).await;
    assert_eq!(code(&table), 0);
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.starts_with("RUNTIME") && table.contains("planner"), "{table}");
    assert!(!table.contains('\u{1b}'), "{table}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_terminal_is_given_back_after_a_key_and_after_a_signal() {
    let server = NatsServer::start();
    let sidecar = Sidecar::connected(Plan::new("planner", &["critic"], &server.url())).await;
    sidecar.report(0.3).await;
    let config = sidecar.folder().join("base.toml").display().to_string();
    for (size, end) in [("cols 80 rows 24", "key"), ("cols 20 rows 5", "TERM")] {
        let folder = tempfile::tempdir().unwrap();
        let pid = folder.path().join("pid");
        let program = env!("CARGO_BIN_EXE_driftgate");
        let line = format!(
            "stty {size}; echo before $(stty -g); sh -c 'echo $$ > {}; exec {program} watch -c \
             {config}'; echo ended $?; echo after $(stty -g)",
            pid.display()
        );
        // A terminal of its own, which writes down what it is sent.
        let mut command = Command::new("script");
        command.args(["-qec", &line, "/dev/null"]).env_remove("NO_COLOR");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let Ok(mut child) = command.spawn() else {
            println!("SKIPPED: no `script`, which makes a terminal");
            return;
        };
        let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut bytes = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        while !text(&bytes).contains("planner") {
            let read = timeout(LONG, output.read_buf(&mut bytes)).await.expect("a picture");
            assert!(read.unwrap() > 0, "ended early: {}", text(&bytes));
        }
        if end == "key" {
            input.write_all(b"q").await.unwrap();
        } else {
            let id = std::fs::read_to_string(&pid).unwrap();
            let killed = Command::new("kill").args(["-s", end, id.trim()]).status().await;
            assert!(killed.unwrap().success());
        }
        timeout(LONG, output.read_to_end(&mut bytes)).await.expect("an end in time").unwrap();
        drop(input);
        let text = text(&bytes);
        let (before, shown) = text.split_once("\x1b[?1049h").expect("a screen of its own");
        let (_, after) = shown.split_once("\x1b[?1049l").expect("the screen is given back");
        assert!(after.contains("\x1b[?25h") && after.contains("ended 0"), "{end}: {after}");
        let told = |text: &str, word: &str| {
            let (_, rest) = text.split_once(word).expect("its settings");
            rest.lines().next().unwrap_or_default().trim().to_owned()
        };
        assert_eq!(told(before, "before "), told(after, "after "), "{end}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_when_its_terminal_is_gone() {
    let server = NatsServer::start();
    let sidecar = Sidecar::connected(Plan::new("planner", &["critic"], &server.url())).await;
    let config = sidecar.folder().join("base.toml").display().to_string();
    let folder = tempfile::tempdir().unwrap();
    let pid = folder.path().join("pid");
    let program = env!("CARGO_BIN_EXE_driftgate");
    // Whoever starts it in a session that is not told of a hang-up: SIGHUP is ignored.
    let line = format!(
        "stty cols 80 rows 24; trap '' HUP; echo $$ > {}; exec {program} watch -c {config}",
        pid.display()
    );
    let mut command = Command::new("script");
    command.args(["-qec", &line, "/dev/null"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let Ok(mut child) = command.spawn() else {
        println!("SKIPPED: no `script`, which makes a terminal");
        return;
    };
    let mut output = child.stdout.take().unwrap();
    let mut bytes = Vec::new();
    while !String::from_utf8_lossy(&bytes).contains("planner") {
        let read = timeout(LONG, output.read_buf(&mut bytes)).await.expect("a picture");
        assert!(read.unwrap() > 0, "ended early");
    }
    let id = std::fs::read_to_string(&pid).unwrap();
    child.kill().await.unwrap();
    let process = std::path::PathBuf::from(format!("/proc/{}", id.trim()));
    until("its end", async || (!process.exists()).then_some(())).await;
}
