//! An operator's hold on a sidecar that runs: by route, file and signal; what survives a kill; what
//! the broker sees; what the audit log says afterwards.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::nats_server::{NatsServer, PATIENCE, eventually};
use serde_json::{Value, json};

/// Base64 of 32 bytes of 7.
const KEY: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n";
/// What releases.
const OPERATOR_TOKEN: &str = "the-operators-own-token";
/// A report with DI 0.1667.
const GOOD: &str = r#"{"attractor_state": {"id": "a-1", "type": "symbolic", "stability": 0.91,
    "phase": "stable", "scr": 0.8}, "drift_metrics": {"sdi": 0.2, "sv": 0.1, "pd": 0.1}}"#;

/// A folder with a configuration, across several lives of one sidecar.
struct Home {
    folder: tempfile::TempDir,
}

/// One life. Killed by its id when dropped.
struct Life {
    child: Child,
    api: String,
    admin: String,
}

impl Home {
    fn new(nats: &str) -> Self {
        Self::with(nats, "")
    }

    /// With more sections.
    fn with(nats: &str, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display();
        let text = format!(
            "[runtime]\nid = \"planner\"\n[[peers]]\nid = \"critic\"\nexport = [\"state\"]\n\
             import = [\"state\"]\n[nats]\nurl = [\"{nats}\"]\n[listen]\napi = \"127.0.0.1:0\"\n\
             admin = \"127.0.0.1:0\"\noperator_token_file = \"{path}/operator\"\n\
             [integrity]\nsign_with = \"k1\"\n\
             keys = [{{ id = \"k1\", file = \"{path}/k1\" }}]\n[snapshot]\n\
             spool = \"{path}/spool\"\n[audit]\nfile = \"{path}/audit.jsonl\"\n{more}"
        );
        for (name, secret) in [("k1", KEY), ("operator", OPERATOR_TOKEN)] {
            let path = folder.path().join(name);
            fs::write(&path, secret).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        fs::write(folder.path().join("driftgate.toml"), text).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Whether the memory on disk says that the file holds.
    fn keeps_a_file_hold(&self) -> bool {
        let text = fs::read_to_string(self.path("spool/memory.json")).unwrap_or_default();
        let head = text.lines().next().unwrap_or_default();
        let head = serde_json::from_str::<Value>(head).unwrap_or_default();
        head["slot"]["head"]["held_by"]["file"] == true
    }

    fn hold_file(&self) -> PathBuf {
        self.path("spool/hold")
    }

    fn start(&self) -> Life {
        let mut child = Command::new(env!("CARGO_BIN_EXE_driftgate"))
            .args(["run", "--config"])
            .arg(self.path("driftgate.toml"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        let fields = loop {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "it ended before it had started");
            let entry: Value = serde_json::from_str(&line).unwrap();
            if entry["message"].as_str().is_some_and(|text| text.starts_with("started")) {
                break entry;
            }
        };
        // Somebody has to read the rest, or the pipe fills.
        #[expect(clippy::disallowed_methods, reason = "a blocking pipe wants a thread of its own")]
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        let address = |name: &str| fields[name].as_str().unwrap().replace("http://", "");
        Life { child, api: address("api"), admin: address("admin") }
    }

    /// What `driftgate audit verify` says; the exit code has to be 0.
    fn verified(&self) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_driftgate"))
            .args(["audit", "verify"])
            .arg(self.path("audit.jsonl"))
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{text}");
        text
    }

    /// The lines of one kind of event.
    fn audited(&self, event: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.path("audit.jsonl")).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["event"] == event).collect()
    }
}

impl Life {
    fn ask(address: &str, head: &str, body: &str) -> (u16, Value) {
        Self::ask_with(address, head, "", body)
    }

    fn ask_with(address: &str, head: &str, more: &str, body: &str) -> (u16, Value) {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let length = body.len();
        let request = format!(
            "{head} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n{more}Connection: close\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap_or(Value::Null))
    }

    fn order(&self, act: &str, body: &Value) -> Value {
        let (status, reply) = self.order_with(act, OPERATOR_TOKEN, body);
        assert_eq!(status, 200, "{reply}");
        reply
    }

    fn order_with(&self, act: &str, token: &str, body: &Value) -> (u16, Value) {
        let more = format!("Authorization: Bearer {token}\r\n");
        Self::ask_with(&self.api, &format!("POST /operator/{act}"), &more, &body.to_string())
    }

    fn report(&self) -> Value {
        Self::ask(&self.api, "POST /field/state", GOOD).1
    }

    fn safety(&self) -> Value {
        Self::ask(&self.api, "GET /aegida/safety", "").1
    }

    fn readiness(&self) -> Value {
        Self::ask(&self.admin, "GET /readyz", "").1
    }

    fn is_held(&self) -> bool {
        self.safety()["operator_hold"] == true
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    /// `kill -9`.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and its end.
    fn stop(mut self) {
        self.signal("TERM");
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Nobody listens there.
const NOWHERE: &str = "nats://127.0.0.1:1";

#[test]
fn an_isolate_survives_a_kill_and_its_release_waits_for_a_good_report() {
    let home = Home::new(NOWHERE);
    let life = home.start();
    assert_eq!(life.report()["band"], "open");
    let order = json!({"reason": "odd replies", "by": "eve"});
    let expected = json!({
        "band": "isolated", "operator_hold": true, "held_by": ["command"],
        "barrier": "confirmed", "survives_restart": true,
        "audited": true,
    });
    assert_eq!(life.order("isolate", &order), expected);
    let hold = &life.safety()["hold"];
    assert_eq!((&hold["by"], &hold["reason"]), (&json!("eve"), &json!("odd replies")));
    assert!(hold["at"].is_string());
    life.kill();
    let life = home.start();
    let safety = life.safety();
    assert_eq!((&safety["band"], &safety["operator_hold"]), (&json!("isolated"), &json!(true)));
    assert_eq!(life.report()["verdict"], "isolate");
    let reply = life.order("release", &json!({"by": "eve"}));
    assert_eq!(reply["band"], "isolated", "a release opens nothing");
    assert_eq!((&reply["held_by"], &reply["barrier"]), (&json!([]), &Value::Null));
    life.kill();
    let life = home.start();
    assert_eq!((life.is_held(), &life.safety()["band"]), (false, &json!("blocked")));
    assert_eq!(life.report()["band"], "open");
    life.stop();
    let text = home.verified();
    assert!(text.contains("starts    3, 2 of them after a crash"), "{text}");
    let acts = home.audited("operator");
    assert_eq!(acts.len(), 2);
    let detail = json!({
        "act": "isolate", "way": "http", "by": "eve", "reason": "odd replies", "operator_hold": true,
    });
    assert_eq!(acts[0]["detail"], detail);
    assert_eq!(acts[1]["detail"]["act"], "release");
    assert_eq!(home.audited("stopped").len(), 1);
}

#[test]
fn the_hold_file_isolates_while_it_is_there_and_its_hold_survives_a_kill() {
    let home = Home::new(NOWHERE);
    let life = home.start();
    assert_eq!(life.report()["band"], "open");
    fs::write(home.hold_file(), "").unwrap();
    eventually("the file isolates", || life.is_held());
    assert_eq!(life.safety()["band"], "isolated");
    let reply = life.order("release", &json!({}));
    assert_eq!(reply["held_by"], json!(["file"]), "the file goes on holding");
    life.kill();
    let life = home.start();
    assert!(life.is_held(), "from the first moment on");
    fs::remove_file(home.hold_file()).unwrap();
    eventually("its removal releases", || !life.is_held());
    assert_eq!(life.safety()["band"], "isolated", "and opens nothing");
    assert_eq!(life.report()["band"], "open");
    // Lost with the container while nobody looked: the hold stays until a release.
    fs::write(home.hold_file(), "").unwrap();
    eventually("the file isolates and that is kept", || home.keeps_a_file_hold());
    life.kill();
    fs::remove_file(home.hold_file()).unwrap();
    let life = home.start();
    assert!(life.is_held());
    assert_eq!(life.order("release", &json!({}))["operator_hold"], false);
    life.stop();
    home.verified();
    let ways = home.audited("operator");
    assert!(ways.iter().any(|line| line["detail"]["way"] == "file"), "{ways:?}");
}

#[test]
fn two_signals_do_the_same_where_http_and_disk_are_down() {
    let home = Home::new(NOWHERE);
    let life = home.start();
    assert_eq!(life.report()["band"], "open");
    life.signal("USR1");
    eventually("SIGUSR1 isolates", || life.is_held());
    life.stop();
    let life = home.start();
    assert!(life.is_held());
    life.signal("USR2");
    eventually("SIGUSR2 releases", || !life.is_held());
    assert_eq!(life.report()["band"], "open");
    life.stop();
    assert!(home.verified().contains("starts    2, 0 of them"));
    let ways: Vec<Value> =
        home.audited("operator").iter().map(|line| line["detail"]["way"].clone()).collect();
    assert_eq!(ways, ["signal", "signal"]);
}

#[test]
fn a_hold_that_cannot_be_kept_is_in_force_and_says_so() {
    let home = Home::new(NOWHERE);
    let life = home.start();
    assert_eq!(life.report()["band"], "open");
    // A folder in the place of the file: it cannot be renamed over.
    fs::remove_file(home.path("spool/memory.json")).unwrap();
    fs::create_dir_all(home.path("spool/memory.json/in-the-way")).unwrap();
    let reply = life.order("isolate", &json!({"reason": "drill"}));
    assert_eq!((&reply["band"], &reply["survives_restart"]), (&json!("isolated"), &json!(false)));
    let degraded = |life: &Life| life.readiness()["degraded"].to_string();
    eventually("readiness says so", || degraded(&life).contains("would not survive a restart"));
    fs::remove_dir_all(home.path("spool/memory.json")).unwrap();
    eventually("and heals", || !degraded(&life).contains("would not survive a restart"));
    life.kill();
    assert!(home.start().is_held(), "kept after all");
}

#[test]
fn an_audit_log_that_cannot_be_written_degrades_readiness_and_stops_nothing() {
    let home = Home::new(NOWHERE);
    fs::create_dir(home.path("audit.jsonl")).unwrap();
    let life = home.start();
    let degraded = |life: &Life| life.readiness()["degraded"].to_string();
    eventually("readiness says so", || degraded(&life).contains("not a regular file"));
    assert_eq!(life.report()["band"], "open");
    let reply = life.order("isolate", &json!({}));
    assert_eq!((&reply["band"], &reply["audited"]), (&json!("isolated"), &json!(false)));
    fs::remove_dir(home.path("audit.jsonl")).unwrap();
    eventually("and heals", || !degraded(&life).contains("audit"));
    life.stop();
    home.verified();
    assert_eq!(home.audited("operator").len(), 1, "what waited was written");
}

#[test]
fn what_nobody_can_read_is_audited_and_none_of_its_text_is() {
    const CANARY: &str = "canary-in-a-report";
    let home = Home::new(NOWHERE);
    let life = home.start();
    let malformed = GOOD.replace("0.91", "7").replace("a-1", CANARY);
    assert_eq!(Life::ask(&life.api, "POST /field/state", &malformed).0, 422);
    assert_eq!(Life::ask(&life.api, "POST /field/state", CANARY).0, 400);
    life.stop();
    let rules: Vec<Value> =
        home.audited("report_refused").iter().map(|line| line["rule"][0].clone()).collect();
    assert_eq!(rules, ["malformed", "unreadable"]);
    assert!(!fs::read_to_string(home.path("audit.jsonl")).unwrap().contains(CANARY));
}

#[test]
fn the_broker_itself_shows_that_an_isolate_was_answered_after_the_silence() {
    let server = NatsServer::start();
    let home = Home::new(&server.url());
    let life = home.start();
    let subscribed = || server.subscriptions_of("planner").is_some_and(|list| !list.is_empty());
    eventually("connected", || life.readiness()["broker"] == "connected");
    let reply = life.report();
    assert_eq!(reply["packets"][0]["status"], "stored", "{reply}");
    eventually("subscribed", subscribed);
    let reply = life.order("isolate", &json!({"by": "eve"}));
    assert_eq!(reply["barrier"], "confirmed");
    assert_eq!(server.subscriptions_of("planner"), Some(Vec::new()), "at once (P4)");
    assert_eq!(life.report()["packets"][0]["status"], "held");
    // A second isolate has nothing left to wait for.
    assert_eq!(life.order("isolate", &json!({}))["barrier"], Value::Null);
    life.order("release", &json!({}));
    assert_eq!(life.report()["packets"][0]["status"], "stored");
    eventually("subscribed again", subscribed);
    life.stop();
    home.verified();
    assert_eq!(home.audited("barrier")[0]["rule"], json!(["confirmed"]));
    let bands: Vec<Value> =
        home.audited("transition").iter().map(|line| line["detail"]["to"].clone()).collect();
    assert_eq!(bands, ["open", "isolated", "open"]);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a time is taken")]
fn a_frozen_broker_delays_an_isolate_by_its_bound_and_no_more() {
    let server = NatsServer::start();
    let home = Home::new(&server.url());
    let life = home.start();
    eventually("connected", || life.readiness()["broker"] == "connected");
    assert_eq!(life.report()["packets"][0]["status"], "stored");
    server.freeze();
    let begun = Instant::now();
    let reply = life.order("isolate", &json!({}));
    assert_eq!(reply["barrier"], "unconfirmed");
    assert_eq!((&reply["band"], &reply["survives_restart"]), (&json!("isolated"), &json!(true)));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    server.thaw();
}

#[test]
fn the_runtime_can_isolate_and_cannot_lift_the_hold() {
    let home = Home::new(NOWHERE);
    let life = home.start();
    assert_eq!(life.report()["band"], "open");
    let (status, reply) = life.order_with("isolate", "not-the-operators-token", &json!({}));
    assert_eq!((status, &reply["band"]), (200, &json!("isolated")));
    let (status, reply) = life.order_with("release", "not-the-operators-token", &json!({}));
    assert_eq!((status, &reply["type"]), (401, &json!("urn:driftgate:problem:unauthorized")));
    assert!(life.is_held());
    assert_eq!(life.report()["band"], "isolated");
    life.order("release", &json!({}));
    assert_eq!((life.is_held(), &life.safety()["hold"]), (false, &Value::Null));
}

#[test]
fn reports_over_http_can_be_turned_off_alone() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let tail = format!("[ingest]\nhttp = false\n[ingest.tail]\npath = {:?}\n", file.path());
    let home = Home::with(NOWHERE, &tail);
    let life = home.start();
    let (status, problem) = Life::ask(&life.api, "POST /field/state", GOOD);
    assert_eq!((status, &problem["type"]), (403, &json!("urn:driftgate:problem:no-reports")));
    assert_eq!(life.safety()["band"], "blocked");
    assert_eq!(life.order("isolate", &json!({}))["band"], "isolated");
}

#[test]
fn a_refused_report_that_closed_the_gate_says_where_it_stands() {
    let home = Home::new(NOWHERE);
    let life = home.start();
    assert_eq!(life.report()["band"], "open");
    let (status, problem) = Life::ask(&life.api, "POST /field/state", &GOOD.replace("0.91", "7"));
    assert_eq!((status, &problem["band"]), (422, &json!("blocked")));
    assert_eq!(
        (&problem["reasons"], &problem["barrier"]),
        (&json!(["invalid"]), &json!("confirmed"))
    );
    assert_eq!(life.report()["band"], "open");
    let (status, problem) = Life::ask(&life.api, "POST /field/state", "no document");
    assert_eq!((status, &problem["band"]), (400, &json!("blocked")));
    assert_eq!(problem["barrier"], "confirmed");
    // What closes nothing says nothing of the gate.
    let (status, problem) = Life::ask(&life.api, "GET /nowhere", "");
    assert_eq!((status, problem.get("band")), (404, None));
}
