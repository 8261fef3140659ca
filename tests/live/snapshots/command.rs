//! `driftgate snapshot` as a person or a script runs it: what it prints, writes and ends with.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use driftgate::protocol::digest::Digest;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::process::Command;

use crate::support::nats_server::NatsServer;
use crate::support::report::report;
use crate::support::sidecar::Sidecar;
use crate::support::snapshots::{ask, noise, plan};
use crate::support::wait::{LONG, until};

const QUICK: &str = "[listen]\nreply_timeout = \"300ms\"\n[containment]\nbarrier_timeout = \"300ms\"\n\
                     [nats]\nping_interval = \"1s\"";
/// More than what sockets hold back on their way.
const LARGE_BYTES: usize = 48 << 20;

async fn run(program: &str, arguments: &[&OsStr]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    tokio::time::timeout(LONG, command.output()).await.expect("its end").expect("a program")
}

/// `driftgate snapshot WORD ...` with the API's address.
async fn snapshot(api: &str, words: &[&str]) -> Output {
    let [action, words @ ..] = words else { panic!("an action") };
    let words = [&["snapshot", action, "--api", api], words].concat();
    let words: Vec<&OsStr> = words.iter().map(OsStr::new).collect();
    run(env!("CARGO_BIN_EXE_driftgate"), &words).await
}

/// Its one line on standard error.
fn said(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(!text.contains(['\r', '\x1b']), "nothing is drawn into a pipe: {text:?}");
    text.trim_end().to_owned()
}

fn receipt(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text} {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"))
}

fn file(folder: &Path, name: &str, bytes: &[u8]) -> String {
    let path = folder.join(name);
    std::fs::write(&path, bytes).expect("the folder is ours");
    path.to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn put_and_get_go_through_the_gate_and_come_back_whole() {
    let mut server = NatsServer::start();
    let sidecar = Sidecar::connected(plan("planner", "critic", &server.url()).with(QUICK)).await;
    let (api, folder) = (sidecar.api.to_string(), sidecar.folder());
    let first = noise(21, 300_000);
    let second = [first.as_slice(), b"and one line more"].concat();
    let (old, new) = (file(folder, "old", &first), file(folder, "new", &second));
    let out = folder.join("out").to_str().unwrap().to_owned();

    // The gate starts closed: nothing is taken, and the line says what opens it.
    let closed = snapshot(&api, &["put", &old]).await;
    assert_eq!((closed.status.code(), closed.stdout.len()), (Some(75), 0));
    let text = said(&closed);
    assert!(text.starts_with("driftgate: the gate is blocked"), "{text}");
    assert!(text.contains("what opens it: a report with di < 0.45"), "{text}");

    sidecar.report(0.2).await;
    let stored = receipt(&snapshot(&api, &["put", "--json", &old]).await);
    assert_eq!((&stored["status"], &stored["kind"]), (&"stored".into(), &"full".into()));
    assert_eq!(stored["digest"], Digest::of(&first).to_string());
    let plain = snapshot(&api, &["put", &new]).await;
    let text = String::from_utf8(plain.stdout).unwrap();
    assert!(text.starts_with("stored  ") && text.contains("  300017 bytes  sha256:"), "{text}");
    assert!(text.trim_end().ends_with(stored["digest"].as_str().unwrap()), "its base: {text}");
    assert!(plain.stderr.is_empty(), "nothing is drawn into a pipe");
    let same = receipt(&snapshot(&api, &["put", "--json", &new]).await);
    assert_eq!((&same["status"], &same["kind"]), (&"unchanged".into(), &"delta".into()));

    let newest = snapshot(&api, &["get", &out]).await;
    assert_eq!(said(&newest), format!("{out}: 300017 bytes, {}", Digest::of(&second)));
    assert_eq!(std::fs::read(&out).unwrap(), second);
    let digest = Digest::of(&first).to_string();
    let older = snapshot(&api, &["get", "--digest", &digest, "-"]).await;
    assert!(older.status.success() && older.stdout == first, "{}", said(&older));

    // What is refused changes nothing that is there.
    let unknown = Digest::of(b"never").to_string();
    let folder_name = folder.to_str().unwrap();
    let missing = folder.join("missing").to_str().unwrap().to_owned();
    for (words, code) in [
        (["get", "--digest", unknown.as_str(), out.as_str()].as_slice(), 66),
        (&["get", "--source", "stranger", &out], 66),
        (&["get", "--source", "a.b", &out], 65),
        (&["get", folder_name], 73),
        (&["get", "/dev/null"], 73),
        (&["put", &missing], 66),
        (&["put", folder_name], 66),
    ] {
        let refused = snapshot(&api, words).await;
        assert_eq!(refused.status.code(), Some(code), "{words:?} {}", said(&refused));
        assert!(said(&refused).starts_with("driftgate: "));
    }
    assert_eq!(std::fs::read(&out).unwrap(), second);
    let left = std::fs::read_dir(folder).unwrap().flatten();
    let left = left.filter(|file| file.file_name().to_string_lossy().starts_with(".tmp"));
    assert_eq!(left.count(), 0, "no half file is left");

    // The broker is away: safe on disk, and it says so.
    server.kill();
    let spooled = snapshot(&api, &["put", &old]).await;
    let text = String::from_utf8_lossy(&spooled.stdout).into_owned();
    assert!(spooled.status.success() && text.contains("safe on the sidecar's disk"), "{text}");
    sidecar.report(0.7).await;
    let isolated = snapshot(&api, &["get", &out]).await;
    assert_eq!((isolated.status.code(), said(&isolated).contains("isolated")), (Some(75), true));
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_input_whose_length_nobody_knows_is_pushed_and_listed() {
    let server = NatsServer::start();
    let sidecar = Sidecar::connected(plan("planner", "critic", &server.url())).await;
    let (api, folder) = (sidecar.api.to_string(), sidecar.folder());
    sidecar.report(0.2).await;
    let mut child = Command::new(env!("CARGO_BIN_EXE_driftgate"))
        .args(["snapshot", "put", "--json", "--media-type", "text/plain", "--api", &api, "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&noise(22, 200_000)).await.unwrap();
    let piped = receipt(&child.wait_with_output().await.unwrap());
    assert_eq!((&piped["status"], &piped["size"]), (&"stored".into(), &200_000.into()));
    let base = folder.join("base.toml");
    let words = ["snapshot", "ls", "--json", "--config", base.to_str().unwrap(), "planner"];
    let listed = run(env!("CARGO_BIN_EXE_driftgate"), &words.map(OsStr::new)).await;
    assert!(listed.status.success() && listed.stderr.is_empty(), "nothing is drawn into a pipe");
    let lines = String::from_utf8(listed.stdout).unwrap();
    let items: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(items.len(), 1);
    assert_eq!((&items[0]["seq"], &items[0]["media_type"]), (&piped["seq"], &"text/plain".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_ends_a_push_whose_input_does_not_end() {
    let server = NatsServer::start();
    let sidecar = Sidecar::connected(plan("planner", "critic", &server.url())).await;
    sidecar.report(0.2).await;
    let mut child = Command::new(env!("CARGO_BIN_EXE_driftgate"))
        .args(["snapshot", "put", "--api", &sidecar.api.to_string(), "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    // Enough to take a place in the spool.
    input.write_all(&[b'x'; 20 * 1024]).await.unwrap();
    let spool = sidecar.folder().join("spool/snapshots");
    let files = || std::fs::read_dir(&spool).unwrap().count();
    until("the push to begin", async || (files() > 1).then_some(())).await;
    let id = child.id().unwrap().to_string();
    assert!(run("kill", &["-s", "INT", &id].map(OsStr::new)).await.status.success());
    let ended = tokio::time::timeout(LONG, child.wait_with_output()).await.unwrap().unwrap();
    assert_eq!((ended.status.code(), said(&ended)), (Some(130), "driftgate: interrupted".into()));
    until("nothing of it to be left", async || (files() == 1).then_some(())).await;
    drop(input);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_and_a_unix_socket_are_enough_to_reach_it() {
    let server = NatsServer::start();
    let folder = tempfile::tempdir().unwrap();
    let token = file(folder.path(), "token", b"0123456789abcdef\n");
    set_private(Path::new(&token));
    let listen = format!("[listen]\ntoken_file = {token:?}\nallowed_hosts = [\"localhost\"]\n");
    let sidecar = Sidecar::connected(plan("planner", "critic", &server.url()).with(&listen)).await;
    let bearer = "Authorization: Bearer 0123456789abcdef\r\nContent-Type: application/json\r\n";
    let opened = ask(sidecar.api, "POST /field/state", bearer, report(0.2).as_bytes()).await;
    assert_eq!(opened.unwrap().status, 200);
    let bytes = file(folder.path(), "bytes", b"memory");

    let api = sidecar.api.to_string();
    let stranger = snapshot(&api, &["put", &bytes]).await;
    assert_eq!(stranger.status.code(), Some(77), "{}", said(&stranger));
    let config = sidecar.folder().join("more.toml");
    let base = sidecar.folder().join("base.toml");
    let [config, base] = [config, base].map(|path| path.to_str().unwrap().to_owned());
    let words = ["put", "--json", "--config", &base, "--config", &config, &bytes];
    assert_eq!(receipt(&snapshot(&api, &words).await)["status"], "stored");

    // A socket in front of it stands for the sidecar's own.
    let socket = folder.path().join("api.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let address = sidecar.api;
    let bridge = tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut far = TcpStream::connect(address).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    let api = format!("unix:{}", socket.display());
    let words = ["get", "--token-file", &token, "-"];
    let got = snapshot(&api, &words).await;
    assert_eq!((got.status.success(), got.stdout.as_slice()), (true, b"memory".as_slice()));
    bridge.abort();
    let nobody = format!("unix:{}", folder.path().join("nobody").display());
    assert_eq!(snapshot(&nobody, &["get", "-"]).await.status.code(), Some(69));
}

fn set_private(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let permissions = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(path, permissions).expect("our file");
}

/// A sidecar that takes its time: it wants the body, reads a third, and the rest only after
/// a while.
async fn slow_sidecar(bytes: Vec<u8>) -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api = listener.local_addr().unwrap().to_string();
    let serving = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            assert!(String::from_utf8(head).unwrap().contains("expect: 100-continue"));
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
            let mut body = vec![0; bytes.len() / 3];
            stream.read_exact(&mut body).await.unwrap();
            let mut ticks = tokio::time::interval(Duration::from_millis(700));
            ticks.tick().await;
            ticks.tick().await;
            let mut rest = vec![0; bytes.len() - body.len()];
            stream.read_exact(&mut rest).await.unwrap();
            body.extend(rest);
            assert!(body == bytes, "the body as it was");
            let answer = serde_json::json!({ "digest": Digest::of(&body).to_string(), "seq": 1,
                "size": body.len(), "kind": "full", "stored_bytes": 9, "base": null });
            let answer = answer.to_string();
            let head = format!("HTTP/1.1 201 Created\r\nContent-Length: {}\r\n\r\n", answer.len());
            stream.write_all((head + &answer).as_bytes()).await.unwrap();
        }
    });
    (api, serving)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bar_is_drawn_on_a_terminal_and_never_into_a_pipe() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = noise(23, LARGE_BYTES);
    let memory = file(folder.path(), "memory", &bytes);
    let (api, serving) = slow_sidecar(bytes).await;
    let piped = snapshot(&api, &["put", &memory]).await;
    assert!(piped.status.success(), "{}", String::from_utf8_lossy(&piped.stderr));
    assert!(piped.stderr.is_empty() && !piped.stdout.contains(&b'\r'), "nothing but the answer");

    let program = env!("CARGO_BIN_EXE_driftgate");
    let line = format!("stty cols 100; {program} snapshot put --api {api} {memory}");
    let words = ["-q", "-e", "-c", &line, "/dev/null"].map(OsStr::new);
    if Command::new("script").arg("--version").output().await.is_err() {
        println!("SKIPPED: `script` is not installed, so there is no terminal to draw on");
        return;
    }
    let begin = std::time::Instant::now();
    let drawn = run("script", &words).await;
    let most = usize::try_from(begin.elapsed().as_millis() / 200).unwrap();
    let text = String::from_utf8(drawn.stdout).unwrap();
    assert!(drawn.status.success(), "{text}");
    let pictures: Vec<&str> = text.split('\r').filter(|line| line.contains(" %  ")).collect();
    // Five pictures a second at most; a busy machine may leave some out.
    assert!((1..=most).contains(&pictures.len()), "{text:?}");
    for picture in pictures {
        for part in ["put  [#", "] ", " MiB of 48.00 MiB  ", "MiB/s  ", "s left"] {
            assert!(picture.contains(part), "{part}: {picture:?}");
        }
    }
    let last = text.trim_end().rsplit('\r').next().unwrap_or_default();
    assert!(last.contains("stored  1"), "the bar makes way for the answer: {text:?}");
    serving.abort();
}
