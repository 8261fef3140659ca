//! The two commands of a first visit, `demo` and `run --dev`, as processes against a real
//! nats-server: they keep their word, and leave nothing behind.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use futures_util::StreamExt;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

/// How long anything here may take before the test fails: far above what it takes.
const PATIENCE: Duration = Duration::from_secs(40);

#[tokio::test]
async fn a_demo_keeps_every_promise_and_its_sums_add_up() {
    let folder = tempfile::tempdir().unwrap();
    let output = end(driftgate(folder.path(), &["demo", "--seconds", "4", "--json"])).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    let summary: Value = serde_json::from_str(&text).unwrap();

    let promises = summary["promises"].as_array().unwrap();
    let codes: Vec<&str> =
        promises.iter().map(|promise| promise["promise"].as_str().unwrap()).collect();
    assert_eq!(codes, ["P1", "P2", "P3", "P4", "P8"]);
    assert!(promises.iter().all(|promise| promise["held"] == true), "{text}");
    assert_eq!(summary["held"], true);
    assert_eq!(summary["interrupted"], false);

    let (mut stored, mut received) = (0, 0);
    for sidecar in summary["sidecars"].as_array().unwrap() {
        let number = |pointer: &str| sidecar.pointer(pointer).unwrap().as_u64().unwrap();
        let parts = ["stored", "superseded", "throttled", "held", "revoked", "failed", "pending"];
        let sum: u64 = parts.iter().map(|part| number(&format!("/packets/{part}"))).sum();
        assert_eq!(sum, number("/reports") * number("/targets"), "{sidecar}");
        assert_eq!(number("/packets/pending"), 0, "{sidecar}");
        assert_eq!(number("/seen"), number("/packets/stored"), "{sidecar}");
        let drifts = sidecar["id"] == "planner";
        for part in ["throttled", "held"] {
            assert_eq!(number(&format!("/packets/{part}")) > 0, drifts, "{sidecar}");
        }
        stored += number("/packets/stored");
        received += number("/received") + number("/waiting");
    }
    assert!(stored > 0 && stored == received, "{text}");
    assert_eq!(summary["observer"]["packets"], stored);
    assert_nothing_is_left(folder.path(), summary["nats_server"]["url"].as_str().unwrap()).await;
}

#[tokio::test]
async fn a_packet_that_crosses_a_closed_gate_fails_the_demo() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = driftgate(folder.path(), &["demo", "--seconds", "6"]);
    let mut lines = lines(&mut child);
    let mut text = read_until(&mut lines, |line| line.contains("curl")).await;
    let client = async_nats::connect(nats_url(&text)).await.unwrap();
    let mut packets = client.subscribe("driftgate.v1.state.planner.critic").await.unwrap();
    let packet = timeout(PATIENCE, packets.next()).await.unwrap().unwrap();
    text += &read_until(&mut lines, |line| line.contains("-> isolated")).await;
    client.publish(packet.subject, packet.payload).await.unwrap();
    text += &read_until(&mut lines, |line| line.starts_with("After ")).await;
    assert_eq!(status(child).await, Some(1), "{text}");
    assert!(text.contains("P2 barrier ............ BROKEN"), "{text}");
    assert_nothing_is_left(folder.path(), &nats_url(&text)).await;
}

#[tokio::test]
async fn an_interrupted_demo_ends_with_its_summary_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = driftgate(folder.path(), &["demo", "--seconds", "600"]);
    let mut lines = lines(&mut child);
    let mut text = read_until(&mut lines, |line| line.contains("critic   blocked -> open")).await;
    signal(&child, "INT").await;
    text += &read_until(&mut lines, |line| line.starts_with("After ")).await;
    assert_eq!(status(child).await, Some(0), "{text}");
    assert!(text.contains("interrupted before P1, P2, P3, P4 could be seen"), "{text}");
    assert!(text.contains("P8 accounting ......... held"), "{text}");
    assert_nothing_is_left(folder.path(), &nats_url(&text)).await;
}

#[tokio::test]
async fn a_demo_that_is_ended_gives_the_terminal_back() {
    for (no_color, is_coloured) in [("", true), ("1", false)] {
        let folder = tempfile::tempdir().unwrap();
        let pid = folder.path().join("pid");
        let program = env!("CARGO_BIN_EXE_driftgate");
        let line = format!(
            "stty cols 90 rows 30; echo $$ > {}; exec {program} demo --seconds 600",
            pid.display()
        );
        // A terminal of its own, which writes down what it is sent.
        let mut command = Command::new("script");
        command.args(["-qec", &line, "/dev/null"]).env("NO_COLOR", no_color);
        command.env("TMPDIR", folder.path()).stdin(Stdio::null()).stdout(Stdio::piped());
        let Ok(mut child) = command.kill_on_drop(true).spawn() else {
            println!("SKIPPED: no `script`, which makes a terminal");
            return;
        };
        let mut output = child.stdout.take().unwrap();
        let mut bytes = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        while !text(&bytes).contains("OPEN") {
            let read = timeout(PATIENCE, output.read_buf(&mut bytes)).await.expect("a picture");
            assert!(read.unwrap() > 0, "ended early: {}", text(&bytes));
        }
        let id = std::fs::read_to_string(&pid).unwrap();
        std::fs::remove_file(&pid).unwrap();
        let killed = Command::new("kill").args(["-s", "TERM", id.trim()]).status().await;
        assert!(killed.unwrap().success());
        timeout(PATIENCE, output.read_to_end(&mut bytes)).await.expect("an end in time").unwrap();
        assert_eq!(status(child).await, Some(0));
        let text = text(&bytes);
        let (before, shown) = text.split_once("\x1b[?1049h").expect("a screen of its own");
        let (picture, after) = shown.split_once("\x1b[?1049l").expect("the screen is given back");
        assert!(before.contains("look at it from another terminal"), "{before}");
        assert!(picture.contains("isolates"), "{picture}");
        // The colour of an open gate.
        let is_green = picture.contains("\x1b[38;5;2");
        assert_eq!(is_green, is_coloured, "{picture}");
        assert!(after.contains("\x1b[?25h") && after.contains("After "), "{after}");
        assert_nothing_is_left(folder.path(), &nats_url(before)).await;
    }
}

#[tokio::test]
async fn the_banner_of_run_dev_works_as_it_is_pasted() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = driftgate(folder.path(), &["run", "--dev"]);
    let mut lines = lines(&mut child);
    let banner = read_until(&mut lines, |line| line.starts_with("Ctrl-C ends it")).await;
    let commands = commands(&banner);
    let curls: Vec<&String> =
        commands.iter().filter(|command| command.starts_with("curl ")).collect();
    let mut answers = Vec::new();
    for command in &curls {
        answers.push(paste(command).await);
    }
    let expected = [
        r#""verdict":"export","#,
        r#""verdict":"block","#,
        r#""band":"blocked""#,
        r#""runtime_id":"local""#,
        r#""broker":"connected""#,
        "driftgate_packets",
    ];
    assert_eq!(answers.len(), expected.len(), "{banner}");
    for (answer, expected) in answers.iter().zip(expected) {
        assert!(answer.contains(expected), "{expected} is not in {answer}");
    }
    assert!(answers[0].contains(r#"{"target":"observer","status":"stored""#), "{}", answers[0]);

    let nats: Vec<&String> =
        commands.iter().filter(|command| command.starts_with("nats --server nats://")).collect();
    assert_eq!(nats.len(), 4, "{banner}");
    let audit = commands.iter().find(|command| command.starts_with("driftgate audit")).unwrap();
    assert!(run_pasted(audit).await.contains("whole "), "{audit}");
    let follow = commands.iter().filter(|command| command.starts_with("tail -f /")).count();
    assert_eq!(curls.len() + nats.len() + 1 + follow, commands.len(), "{banner}");
    assert_nats_lines_work(&nats, curls[0]).await;
    let client = async_nats::connect(nats_url(&banner)).await.unwrap();
    let info = client.request("$JS.API.CONSUMER.NAMES.DRIFTGATE_STATE", "".into()).await.unwrap();
    let info: Value = serde_json::from_slice(&info.payload).unwrap();
    assert_eq!(info["consumers"], serde_json::json!(["driftgate-local"]));

    signal(&child, "TERM").await;
    assert_eq!(status(child).await, Some(0));
    assert_nothing_is_left(folder.path(), &nats_url(&banner)).await;
}

/// With the `nats` command: each line as it stands, but that it ends after one message.
async fn assert_nats_lines_work(lines: &[&String], report: &str) {
    if Command::new("nats").arg("--version").output().await.is_err() {
        println!("SKIPPED: no `nats` command to paste its lines for");
        return;
    }
    for line in lines.iter().filter(|line| line.contains(" ls")) {
        let expected =
            if line.contains("consumer") { "driftgate-local" } else { "DRIFTGATE_STATE" };
        assert!(run_pasted(line).await.contains(expected), "{line}");
    }
    let verified = lines.iter().find(|line| line.contains("| driftgate verify")).unwrap();
    let line = verified.replace(" sub --raw", " sub --count 1 --raw");
    let pasted = tokio::spawn(async move { run_pasted(&line).await });
    while !pasted.is_finished() {
        // A report under the mark, and so a packet.
        paste(report).await;
    }
    let said = pasted.await.unwrap();
    assert!(said.contains("ok local->observer") && said.contains("1 ok, 0 bad"), "{said}");
}

/// What a shell answers that finds this program as `driftgate`.
async fn run_pasted(command: &str) -> String {
    let folder = Path::new(env!("CARGO_BIN_EXE_driftgate")).parent().unwrap().display();
    let path = format!("{folder}:{}", std::env::var_os("PATH").unwrap_or_default().display());
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).env("PATH", path).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(PATIENCE, shell.output()).await.expect("an end").unwrap();
    assert!(output.status.success(), "{command}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn with_a_peer_what_one_reports_comes_in_at_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = driftgate(folder.path(), &["run", "--dev", "--peer"]);
    let mut lines = lines(&mut child);
    let banner = read_until(&mut lines, |line| line.starts_with("Ctrl-C ends it")).await;
    let (_, second) = banner.split_once("# The second sidecar").expect("its commands");
    let commands = commands(second);
    assert_eq!(commands.len(), 4, "{second}");
    for (send, look, source) in [(0, 1, "observer"), (2, 3, "local")] {
        let sent = run_pasted(&commands[send]).await;
        assert!(sent.contains("verdict  export"), "{sent}");
        let seen = async {
            loop {
                let field = paste(&commands[look]).await;
                if field.contains(&format!(r#""{source}""#)) && field.contains("drift_metrics") {
                    return;
                }
            }
        };
        timeout(PATIENCE, seen).await.expect("it comes in");
    }
    signal(&child, "TERM").await;
    assert_eq!(status(child).await, Some(0));
    assert_nothing_is_left(folder.path(), &nats_url(&banner)).await;
}

#[tokio::test]
async fn plain_lines_tell_the_story_with_a_legend_and_the_line_that_verifies() {
    let folder = tempfile::tempdir().unwrap();
    let output = end(driftgate(folder.path(), &["demo", "--seconds", "4"])).await;
    let text = String::from_utf8(output.stdout).unwrap();
    let mut rest = text.as_str();
    for expected in [
        "| driftgate verify --key-file k1=/",
        "Gates: open sends all; caution sends 1 in 3;",
        "        Open: ",
        "        Blocked: drift reached 0.50.",
        "        Reopened: ",
        "        Isolated: ",
        "        Reopened: ",
    ] {
        let (_, after) =
            rest.split_once(expected).unwrap_or_else(|| panic!("{expected} in {text}"));
        rest = after;
    }
}

#[tokio::test]
async fn two_dev_sidecars_find_ports_beside_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let mut apis = Vec::new();
    let mut children = Vec::new();
    for _ in 0..2 {
        let mut child = driftgate(folder.path(), &["run", "--dev"]);
        let mut lines = lines(&mut child);
        let banner = read_until(&mut lines, |line| line.starts_with("Ctrl-C ends it")).await;
        let safety = commands(&banner).into_iter().find(|command| command.contains("/safety"));
        apis.push(safety.unwrap());
        children.push((child, lines));
    }
    assert_ne!(apis[0], apis[1]);
    for api in &apis {
        assert!(paste(api).await.contains(r#""runtime_id":"local""#));
    }
    for (child, _lines) in children {
        signal(&child, "INT").await;
        assert_eq!(status(child).await, Some(0));
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn without_a_nats_server_they_say_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [&["demo"][..], &["run", "--dev"]] {
        for (named, said) in [(None, "`make demo` fetches one"), (Some("/"), "NATS_SERVER names /")]
        {
            let mut command = Command::new(env!("CARGO_BIN_EXE_driftgate"));
            command.args(arguments).env_clear().current_dir(folder.path());
            command.envs(named.map(|named| ("NATS_SERVER", named)));
            let output = timeout(PATIENCE, command.output()).await.unwrap().unwrap();
            assert_eq!(output.status.code(), Some(69));
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(text.contains(said), "{text}");
        }
    }
}

#[tokio::test]
async fn a_program_that_lies_in_the_present_folder_is_not_run() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    for place in [".tools/bin", "bin"] {
        let program = folder.path().join(place).join("nats-server");
        std::fs::create_dir_all(program.parent().unwrap()).unwrap();
        std::fs::write(&program, "#!/bin/sh\n: > \"${0%/*}/ran\"\n").unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        for arguments in [&["demo"][..], &["run", "--dev"]] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_driftgate"));
            command.args(arguments).env_clear().current_dir(folder.path());
            command.env("PATH", "bin");
            let output = timeout(PATIENCE, command.output()).await.unwrap().unwrap();
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(text.contains("no nats-server found"), "{text}");
            assert!(!program.with_file_name("ran").exists(), "{place}: it was run");
        }
    }
}

/// Starts the built binary; what it makes in the temporary folder is made in `folder`.
fn driftgate(folder: &Path, arguments: &[&str]) -> Child {
    assert!(
        std::env::var_os("NATS_SERVER").is_some(),
        "NATS_SERVER is not set: these tests run against a real nats-server (2.10 or newer). \
         `make test` finds one; or set NATS_SERVER to the program's path"
    );
    Command::new(env!("CARGO_BIN_EXE_driftgate"))
        .args(arguments)
        .env("TMPDIR", folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

async fn end(child: Child) -> Output {
    timeout(PATIENCE, child.wait_with_output()).await.expect("an end in time").unwrap()
}

async fn status(mut child: Child) -> Option<i32> {
    timeout(PATIENCE, child.wait()).await.expect("an end in time").unwrap().code()
}

fn lines(child: &mut Child) -> Lines<BufReader<ChildStdout>> {
    BufReader::new(child.stdout.take().unwrap()).lines()
}

/// Everything up to and with the first line that `is_last` takes.
async fn read_until(
    lines: &mut Lines<BufReader<ChildStdout>>,
    is_last: impl Fn(&str) -> bool,
) -> String {
    let mut text = String::new();
    loop {
        let line = timeout(PATIENCE, lines.next_line()).await.expect("a line in time").unwrap();
        let line = line.unwrap_or_else(|| panic!("ended early: {text}"));
        text = text + &line + "\n";
        if is_last(&line) {
            return text;
        }
    }
}

async fn signal(child: &Child, name: &str) {
    let id = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-s", name, &id]).status().await.unwrap().success());
}

/// The commands of a text: lines indented by two spaces, each with its further-indented lines.
fn commands(text: &str) -> Vec<String> {
    let mut commands: Vec<String> = Vec::new();
    for line in text.lines() {
        match (line.strip_prefix("    "), line.strip_prefix("  "), commands.last_mut()) {
            (Some(_), _, Some(command)) => *command = format!("{command}\n{line}"),
            (_, Some(line), _) => commands.push(line.to_owned()),
            _ => {}
        }
    }
    commands
}

fn nats_url(text: &str) -> String {
    let start = text.find("nats://").expect("a url");
    text[start..].split_whitespace().next().unwrap().to_owned()
}

/// What a shell answers to the pasted command; where there is no curl, what it would have fetched.
async fn paste(command: &str) -> String {
    let mut shell = Command::new("sh");
    let output = timeout(PATIENCE, shell.args(["-c", command]).output()).await.unwrap().unwrap();
    if output.status.code() != Some(127) {
        assert!(output.status.success(), "{command}");
        return String::from_utf8(output.stdout).unwrap();
    }
    let (_, rest) = command.split_once("http://").unwrap();
    let url = rest.split_whitespace().next().unwrap();
    let (host, path) = url.split_once('/').unwrap();
    let body = rest.split_once("-d '").map(|(_, body)| body.trim_end_matches('\''));
    let method = if body.is_some() { "POST" } else { "GET" };
    let body = body.unwrap_or_default();
    let request = format!(
        "{method} /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(host).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

/// Neither a file in the temporary folder nor a server that listens.
async fn assert_nothing_is_left(folder: &Path, nats_url: &str) {
    let left: Vec<_> = std::fs::read_dir(folder).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
    let address = nats_url.strip_prefix("nats://").unwrap();
    assert!(TcpStream::connect(address).await.is_err(), "{address} still answers");
}
