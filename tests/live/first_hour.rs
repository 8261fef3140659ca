//! The clients of `docs/first-hour.md`, run as they stand there against a real sidecar: each
//! reports, reads its peer, pushes, follows, takes a delivery and copes with every answer.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::forge::{draft, fleet_keyring, sign, unix_ms};
use crate::support::nats_server::NatsServer;
use crate::support::observer::Observer;
use crate::support::sidecar::{Plan, Sidecar};

/// What both say, in this order but for the events, which come when they come.
const SAID: [&str; 6] = [
    "good: export open",
    "memory: 202 sha256:",
    "drifting: block di_block di_jump sdi_recovery pd_recovery sv_reflective confirmed",
    "memory: kept for later: snapshots are accepted in band open only",
    "refused: The report breaks its profile: /drift_metrics/sdi: must be between 0 and 1",
    "good again: export open",
];
/// What must be among it, wherever.
const HEARD: [&str; 3] = ["event: open -> blocked di_block", "delivered: critic ", "peer critic: "];

fn client(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/clients").join(name)
}

/// What a program says of its version, when there is one.
fn version(program: &str) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Whether this Node runs TypeScript as it is.
fn strips_types(version: &str) -> bool {
    let mut numbers = version.trim_start_matches('v').split('.').map(|part| part.parse().ok());
    let (major, minor) = (numbers.next().flatten(), numbers.next().flatten());
    (major, minor) >= (Some(22), Some(18)) && major.is_some()
}

async fn first_hour(mut command: Command) {
    let server = NatsServer::start();
    let observer = Observer::start(&server.url()).await;
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let more = format!(
        "[deliver]\nurl = \"http://127.0.0.1:{port}/\"\n\n[[peers]]\nid = \"critic\"\n\
         export = [\"state\", \"snapshot\"]\nimport = [\"state\"]\n"
    );
    let plan = Plan::new("planner", &[], &server.url()).with(&more);
    let planner = Sidecar::connected(plan).await;
    let seq = u64::try_from(unix_ms()).unwrap() * 1000;
    let packet = sign(&draft("critic", "planner"), &fleet_keyring(), seq);
    observer.store("driftgate.v1.state.critic.planner", &packet).await;

    command
        .env("DRIFTGATE_API", format!("http://{}", planner.api))
        .env("DELIVER_PORT", port.to_string())
        .env("WAIT_S", "60");
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complained}");
    let mut rest = said.as_str();
    for line in SAID {
        let (_, after) = rest.split_once(line).unwrap_or_else(|| panic!("no {line:?} in\n{said}"));
        rest = after;
    }
    for line in HEARD {
        assert!(said.contains(line), "no {line:?} in\n{said}");
    }
    assert!(said.contains(&format!("critic {seq} for ")), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_in_python_reports_reads_pushes_follows_and_takes_deliveries() {
    if version("python3").is_none() {
        println!("SKIPPED: there is no python3. THE CLIENT WAS NOT RUN.");
        return;
    }
    let mut command = Command::new("python3");
    command.arg(client("runtime.py"));
    first_hour(command).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_in_typescript_does_the_same() {
    let Some(node) = version("node") else {
        println!("SKIPPED: there is no node. THE CLIENT WAS NOT RUN.");
        return;
    };
    let mut command = Command::new("node");
    let folder = tempfile::tempdir().unwrap();
    if strips_types(&node) {
        command.arg(client("runtime.mts"));
    } else if let Some(compiler) = std::env::var_os("DRIFTGATE_TSC") {
        let compiled = Command::new(compiler)
            .args(["--target", "es2022", "--module", "nodenext", "--strict", "--skipLibCheck"])
            .args(["--types", "node", "--outDir"])
            .arg(folder.path())
            .arg("--typeRoots")
            .arg(std::env::var_os("DRIFTGATE_TYPES").unwrap())
            .arg(client("runtime.mts"))
            .output()
            .unwrap();
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stdout));
        command.arg(folder.path().join("runtime.mjs"));
    } else {
        println!(
            "SKIPPED: node {node} does not run TypeScript and DRIFTGATE_TSC names no compiler; \
             `make clients` fetches one. THE CLIENT WAS NOT RUN."
        );
        return;
    }
    first_hour(command).await;
}

#[test]
fn a_node_that_strips_types_is_told_from_an_older_one() {
    let newer = ["v22.18.0", "v24.1.2"].map(strips_types);
    let older = ["v20.20.2", "v22.6.0", ""].map(strips_types);
    assert_eq!((newer, older), ([true; 2], [false; 3]));
}
