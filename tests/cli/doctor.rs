//! `driftgate doctor` on broken brokers: what it says, and that its own command mends it.

use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::nats_server::NatsServer;

const KEY: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
const STATE: &str = "DRIFTGATE_STATE";

/// A patient: the configuration, and the broker it names.
struct Patient {
    folder: TempDir,
    url: String,
}

impl Patient {
    fn new(url: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        std::fs::write(path.join("key"), KEY).unwrap();
        let text = format!(
            "[runtime]\nid = \"planner\"\nattractor_type = \"symbolic\"\n\
             [nats]\nurl = [\"{url}\"]\nconnect_timeout = \"2s\"\n\
             [integrity]\nsign_with = \"k1\"\nkeys = [{{ id = \"k1\", file = \"{0}/key\" }}]\n\
             [snapshot]\nspool = \"{0}/spool\"\n[[peers]]\nid = \"critic\"\nexport = [\"state\"]\n",
            path.display()
        );
        std::fs::write(path.join("driftgate.toml"), text).unwrap();
        Self { folder, url: url.to_owned() }
    }

    fn looked_at(&self, words: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_driftgate"))
            .arg("doctor")
            .arg("--config")
            .arg(self.folder.path().join("driftgate.toml"))
            .args(words)
            .output()
            .unwrap()
    }

    /// Exit code, and what is not fine: severity, code, text, fix.
    fn findings(&self) -> (i32, Vec<[String; 4]>) {
        let output = self.looked_at(&["--json"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let all: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{said}"));
        let checks = all["checks"].as_array().unwrap();
        let mut keys: Vec<&String> = checks[0].as_object().unwrap().keys().collect();
        keys.sort_unstable();
        assert_eq!(keys, ["category", "code", "doc", "fix", "severity", "text"]);
        let bad = checks.iter().filter(|check| check["severity"] != "ok");
        let row = |check: &Value| {
            ["severity", "code", "text", "fix"].map(|key| check[key].as_str().unwrap().to_owned())
        };
        (output.status.code().unwrap(), bad.map(row).collect())
    }

    fn fails_with(&self, code: &str, text: &str) -> String {
        let (ends, found) = self.findings();
        assert_eq!(ends, 1, "{found:?}");
        let row = found.iter().find(|row| row[1] == code && row[2].contains(text));
        row.unwrap_or_else(|| panic!("{code} {text}: {found:?}"))[3].clone()
    }

    /// Runs a shell command in which `nats` speaks to the broker; `false` where there is no `nats`.
    fn shell(&self, command: &str) -> bool {
        let has_nats = Command::new("nats").arg("--version").output().is_ok();
        if !has_nats {
            println!("SKIPPED: there is no nats command: {command}");
            return false;
        }
        let script = format!("export NATS_URL={}\n{command}", self.url);
        let output = Command::new("sh").arg("-c").arg(&script).output().unwrap();
        assert!(output.status.success(), "{command}: {output:?}");
        true
    }

    /// Runs the fixes of all that fails until nothing does; one may need another first.
    fn mended(&self) -> bool {
        for _ in 0..3 {
            let (ends, found) = self.findings();
            if ends == 0 {
                return true;
            }
            for [severity, _, _, fix] in found {
                if severity == "fail" && !self.shell(&fix) {
                    return false;
                }
            }
        }
        let (ends, found) = self.findings();
        assert_eq!(ends, 0, "{found:?}");
        true
    }
}

#[test]
fn an_empty_broker_gets_all_that_the_configuration_promises_by_the_commands_alone() {
    let server = NatsServer::start();
    let patient = Patient::new(&server.url());
    patient.fails_with("DG-STREAM-001", "stream DRIFTGATE_STATE is absent");
    patient.fails_with("DG-STREAM-001", "stream DRIFTGATE_QUARANTINE is absent");
    patient.fails_with("DG-CONSUMER-001", "is absent");
    if patient.mended() {
        let text = String::from_utf8(patient.looked_at(&[]).stdout).unwrap();
        assert!(text.contains("DG-CONSUMER-001"), "{text}");
        let (_, found) = patient.findings();
        assert_eq!(found.len(), 1, "only that names are not pinned: {found:?}");
        assert_eq!(found[0][..2], ["warn", "DG-PERMISSION-002"]);
    }
}

#[test]
fn a_stream_with_other_settings_is_named_and_mended() {
    let server = NatsServer::start();
    let patient = Patient::new(&server.url());
    let base = "nats stream add DRIFTGATE_STATE --subjects 'driftgate.v1.state.*.*' --defaults";
    for (options, text) in [
        ("--dupe-window 5s", "duplicate_window is 5 s"),
        ("--storage memory", "storage is memory"),
        ("--retention work", "retention is workqueue"),
        ("--max-msgs-per-subject 1", "max_msgs_per_subject is 1"),
    ] {
        if !patient.shell(&format!("{base} {options}")) {
            return;
        }
        patient.fails_with("DG-STREAM-001", text);
        assert!(patient.mended());
        patient.shell(&format!("nats stream rm -f {STATE}"));
    }
}

#[test]
fn what_the_server_lacks_is_said() {
    let server = NatsServer::start_with("max_payload: 8192\n");
    Patient::new(&server.url()).fails_with("DG-SERVER-002", "max_payload is 8192");
    let server = NatsServer::start_with("authorization { token: s3cr3t }\n");
    Patient::new(&server.url()).fails_with("DG-CONNECTION-002", "refused our credentials");
    let server = NatsServer::start_with(
        "authorization { users = [{user: a, password: b, permissions: {publish: \"$JS.API.>\"}}] }\n\
         no_auth_user: a\n",
    );
    let patient = Patient::new(&server.url());
    patient.fails_with("DG-PERMISSION-001", "does not permit");
    let (_, found) = patient.findings();
    assert!(found.iter().all(|row| row[1] != "DG-PERMISSION-002"), "its names are pinned");
    let server = NatsServer::start_with(
        "authorization { users = [{user: a, password: b, permissions: {publish: \"x\"}}] }\n\
         no_auth_user: a\n",
    );
    Patient::new(&server.url()).fails_with("DG-JETSTREAM-001", "does not permit");
}

#[test]
fn without_a_broker_it_ends_with_69_and_a_category_may_be_chosen() {
    let patient = Patient::new("nats://127.0.0.1:1");
    let (ends, found) = patient.findings();
    assert_eq!((ends, found[0][1].as_str()), (69, "DG-CONNECTION-001"));
    let server = NatsServer::start();
    let output = Patient::new(&server.url()).looked_at(&["--category", "server"]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.lines().count() == 2 && text.contains("DG-SERVER-001"), "{text}");
}
