//! Every command of the documents' console blocks, run by a shell with the real `nats`, and what
//! it says held against what stands there.

#![allow(clippy::disallowed_methods, reason = "a shell is given a path")]

use std::path::Path;
use std::process::Command;

use crate::support::forge::{draft, fleet_keyring, sign, unix_ms};
use crate::support::http::Caller;
use crate::support::nats_cli;
use crate::support::nats_server::NatsServer;
use crate::support::observer::stored;
use crate::support::sidecar::{Plan, Sidecar};
use crate::support::wait::until;

/// Stands for whatever differs from run to run.
const ELLIPSIS: char = '…';

/// What each may have from the others.
const KINDS: &str = r#"["state", "snapshot", "telemetry"]"#;

/// One command of a console block and what it is said to print.
#[derive(Debug, PartialEq)]
pub(crate) struct Step {
    pub(crate) command: String,
    pub(crate) expected: Vec<String>,
}

/// The steps of every console block, in order.
pub(crate) fn steps(text: &str) -> Vec<Step> {
    let blocks = text.split("```console\n").skip(1);
    let mut steps: Vec<Step> = Vec::new();
    for block in blocks.filter_map(|rest| rest.split("```").next()) {
        for line in block.lines() {
            match (line.strip_prefix("$ "), steps.last_mut()) {
                (Some(command), _) => {
                    steps.push(Step { command: command.to_owned(), expected: Vec::new() });
                }
                (None, Some(step)) => step.expected.push(line.to_owned()),
                (None, None) => panic!("output without a command: {line}"),
            }
        }
    }
    steps
}

/// One space for each run of them, so that the width of a table's columns does not matter.
fn squeezed(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn is_like(line: &str, expected: &str) -> bool {
    let (line, expected) = (squeezed(line), squeezed(expected));
    let mut pieces = expected.split(ELLIPSIS).map(str::trim);
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    let mut last = first;
    for piece in pieces {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
        last = piece;
    }
    // What does not end in an ellipsis ends the line.
    expected.ends_with(ELLIPSIS) || rest.is_empty() || line.ends_with(last)
}

/// The first expected line that is not there. `nats` prints headers in no order.
pub(crate) fn missing<'a>(said: &str, expected: &'a [String]) -> Option<&'a str> {
    let is_there = |line: &&String| said.lines().any(|found| is_like(found, line));
    expected.iter().find(|line| !is_there(line)).map(String::as_str)
}

#[test]
fn what_is_said_is_held_against_what_was_said() {
    let text = "x\n```console\n$ a | b\none …\n…two\n$ c\n```\ny\n```console\n$ d\n```\n";
    let found = steps(text);
    assert_eq!(found.len(), 3);
    assert_eq!(found[0].expected, ["one …", "…two"]);
    assert_eq!(missing("zero\none  1\nand two", &found[0].expected), None);
    assert_eq!(missing("and two\none 1", &found[0].expected), None, "in any order");
    assert_eq!(missing("none", &found[0].expected), Some("one …"));
    assert!(!is_like("one two", "one"));
    assert!(is_like("│ a   │ 17 │", "│ a │ … │"));
}

struct Shell<'a> {
    folder: &'a Path,
    url: String,
}

impl Shell<'_> {
    fn run(&self, command: &str) -> String {
        let path = std::env::var("PATH").unwrap_or_default();
        let output = Command::new("timeout")
            .args(["60", "sh", "-c", command])
            .current_dir(self.folder)
            .env("HOME", self.folder)
            .env("XDG_CONFIG_HOME", self.folder)
            .env("NATS_URL", &self.url)
            .env("PATH", format!("{}:{path}", self.folder.display()))
            .output()
            .expect("a shell");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complained = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}\n{said}{complained}");
        // `nats` tells much on standard error.
        said + &complained
    }
}

/// Three runtimes whose packets have crossed.
async fn fleet(url: &str) -> [Sidecar; 3] {
    let names = ["planner", "critic", "scribe"];
    let mut fleet = Vec::new();
    for me in names {
        let peers = names
            .into_iter()
            .filter(|name| *name != me)
            .map(|name| format!("{{ id = {name:?}, export = {KINDS}, import = {KINDS} }}"));
        let peers = format!("peers = [{}]", peers.collect::<Vec<_>>().join(", "));
        fleet.push(Sidecar::connected(Plan::new(me, &[], url).with(&peers)).await);
    }
    for sidecar in &fleet {
        sidecar.stores().await;
    }
    fleet.try_into().unwrap_or_else(|_| unreachable!("three names"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_the_cookbook_says_what_stands_there() {
    let Some(nats) = nats_cli::program() else { return };
    let text = include_str!("../../docs/nats-cookbook.md");
    let server = NatsServer::start();
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(&nats, folder.path().join("nats")).unwrap();
    let ours = env!("CARGO_BIN_EXE_driftgate");
    std::os::unix::fs::symlink(ours, folder.path().join("driftgate")).unwrap();
    let shell = Shell { folder: folder.path(), url: server.url() };
    let fleet = fleet(&server.url()).await;
    prepare(&fleet, &server, folder.path()).await;
    let steps = steps(text);
    println!("{} commands of the cookbook are run", steps.len());
    for Step { command, expected } in steps {
        let is_announced = command.contains("containment");
        let said = if is_announced {
            // It waits for something to happen.
            let waiting = tokio::task::spawn_blocking({
                let (folder, url) = (folder.path().to_owned(), shell.url.clone());
                let command = command.clone();
                move || Shell { folder: &folder, url }.run(&command)
            });
            let [_, critic, _] = &fleet;
            let mut is_open = false;
            until("the command to have heard enough", async || {
                is_open = !is_open;
                critic.report(if is_open { 0.3 } else { 0.55 }).await;
                waiting.is_finished().then_some(())
            })
            .await;
            waiting.await.unwrap()
        } else {
            shell.run(&command)
        };
        let missing = missing(&said, &expected);
        assert_eq!(missing, None, "$ {command}\n{said}");
    }
}

/// A snapshot, a stranger's packet, and then one runtime that is blocked and one that is isolated.
async fn prepare(fleet: &[Sidecar; 3], server: &NatsServer, folder: &Path) {
    let [planner, critic, scribe] = fleet;
    let files = ["base.toml", "more.toml"].map(|name| planner.folder().join(name));
    let [base, more] = files.map(|path| std::fs::read_to_string(path).unwrap());
    std::fs::write(folder.join("planner.toml"), format!("{more}\n{base}")).unwrap();
    std::fs::copy(planner.folder().join("k1"), folder.join("k1.key")).unwrap();
    let client = async_nats::connect(server.url()).await.unwrap();
    let headers = "Content-Type: application/json\r\n";
    let mut caller = Caller::new(planner.api);
    let answer = caller.call("PUT", "/memory/snapshot", headers, r#"{"memory": "a"}"#).await;
    let answer = answer.unwrap();
    assert!(matches!(answer.status, 201 | 202), "{}", answer.text());
    // It is stored when a peer has said that it takes snapshots.
    until("the snapshot to be stored", async || {
        let manifests = async_nats::jetstream::new(client.clone());
        let stream = manifests.get_stream("KV_driftgate-manifests").await.ok()?;
        (stream.cached_info().state.messages > 0).then_some(())
    })
    .await;
    let seq = u64::try_from(unix_ms()).unwrap() * 1000;
    let packet = sign(&draft("stranger", "planner"), &fleet_keyring(), seq);
    client.publish("driftgate.v1.state.stranger.planner", packet.into()).await.unwrap();
    client.flush().await.unwrap();
    until("the stranger's packet to be refused", async || {
        let kept = stored(&client, "DRIFTGATE_QUARANTINE").await;
        (!kept.is_empty()).then_some(())
    })
    .await;
    critic.report(0.55).await;
    scribe.report(0.65).await;
}
