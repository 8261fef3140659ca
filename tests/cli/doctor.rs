//! `driftgate doctor` on broken brokers: what it says, and that its own command mends it.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::nats_cli;
use crate::support::nats_server::{NatsServer, eventually, shipped_grants};
use crate::support::sidecar::{Plan, Sidecar};

const KEY: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
const STATE: &str = "DRIFTGATE_STATE";

/// Every code, in the order of the table.
const CODES: usize = 24;

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
        let patient = Self { folder, url: url.to_owned() };
        patient.with("")
    }

    /// More configuration, which wins key by key.
    fn with(self, more: &str) -> Self {
        std::fs::write(self.path("more.toml"), more).unwrap();
        self
    }

    /// With memory snapshots.
    fn with_snapshots(self) -> Self {
        self.with("[[peers]]\nid = \"critic\"\nexport = [\"state\", \"snapshot\"]")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn looked_at(&self, words: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_driftgate"))
            .arg("doctor")
            .arg("--config")
            .arg(self.path("driftgate.toml"))
            .arg("--config")
            .arg(self.path("more.toml"))
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

    /// Whether nothing of a code is bad.
    fn is_fine_with(&self, code: &str) {
        let (_, found) = self.findings();
        assert!(found.iter().all(|row| row[1] != code), "{code}: {found:?}");
    }

    /// Runs a shell command in which `nats` speaks to the broker; `false` where there is no `nats`.
    fn shell(&self, command: &str) -> bool {
        let Some(program) = nats_cli::program() else { return false };
        let folder = program.parent().unwrap().display();
        let url = &self.url;
        let script = format!("export NATS_URL={url} PATH={folder}:$PATH\n{command}");
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
        let [one, other] = &found[..] else { panic!("only that names are not pinned: {found:?}") };
        assert_eq!(one[..2], ["warn", "DG-PERMISSION-002"]);
        assert_eq!(other[..2], ["warn", "DG-PERMISSION-004"]);
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
    let skipped = found.iter().filter(|row| row[0] == "skip").count();
    assert_eq!(
        skipped,
        CODES - 5,
        "all but this machine, the credentials and their way: {found:?}"
    );
    let server = NatsServer::start();
    let output = Patient::new(&server.url()).looked_at(&["--category", "server"]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.lines().all(|line| line.starts_with("ok    DG-SERVER-00")), "{text}");
}

#[test]
fn a_bucket_with_other_settings_is_named_and_mended() {
    let server = NatsServer::start();
    let patient = Patient::new(&server.url()).with_snapshots();
    for bucket in ["presence", "capabilities", "manifests", "snapshots"] {
        patient.fails_with("DG-BUCKET-001", &format!("bucket driftgate-{bucket} is absent"));
    }
    for (command, stream, text) in [
        ("kv add driftgate-presence --storage memory", "KV_driftgate-presence", "storage is not"),
        ("kv add driftgate-presence --history 5", "KV_driftgate-presence", "per_subject is 5"),
        ("kv add driftgate-manifests --ttl 60s", "KV_driftgate-manifests", "max_age is set"),
        ("object add driftgate-snapshots --ttl 1h", "OBJ_driftgate-snapshots", "max_age is set"),
        (
            "stream add KV_driftgate-capabilities --subjects 'x.>' --defaults",
            "KV_driftgate-capabilities",
            "it is not ours",
        ),
    ] {
        if !patient.shell(&format!("nats stream rm -f {stream}; nats {command}")) {
            return;
        }
        patient.fails_with("DG-BUCKET-001", text);
        assert!(patient.mended());
    }
}

#[test]
fn an_account_without_room_is_said_before_anything_fails() {
    let account = |limits: &str| {
        format!(
            "accounts: {{ A: {{ jetstream: {{ {limits} }}, users: [{{user: a, password: b}}] }} }}\n\
             no_auth_user: a\n"
        )
    };
    let server = NatsServer::start_with(&account("max_streams: 1, max_file: 1G"));
    let patient = Patient::new(&server.url()).with_snapshots();
    let fix = patient.fails_with("DG-JETSTREAM-003", "6 streams and buckets are still to be made");
    assert!(fix.contains("--js-streams"), "{fix}");
    server.reload_with(&account("max_streams: 10, max_file: 2097152"));
    let (_, found) = patient.findings();
    let row = found.iter().find(|row| row[1] == "DG-JETSTREAM-003").unwrap();
    assert!(row[0] == "warn" && row[2].starts_with("2 MiB of the account's storage"), "{row:?}");
    let none = "accounts: { A: { users: [{user: a, password: b}] } }\nno_auth_user: a\n";
    let server = NatsServer::start_with(none);
    let patient = Patient::new(&server.url());
    patient.fails_with("DG-JETSTREAM-001", "no JetStream for us");
    let (_, found) = patient.findings();
    assert!(found.iter().any(|row| row[0] == "skip" && row[1] == "DG-STREAM-001"), "{found:?}");
}

#[test]
fn what_may_not_be_done_and_what_may_be_done_too_much_is_said_for_each_subject() {
    let user = |permissions: &str| {
        format!(
            "authorization {{ users = [{{user: a, password: b, permissions: {{ {permissions} }} }}] }}\n\
             no_auth_user: a\n"
        )
    };
    let server = NatsServer::start_with(&user(
        "publish: {deny: \"$JS.ACK.>\"}, subscribe: {deny: \"$SRV.>\"}",
    ));
    let patient = Patient::new(&server.url());
    let acks = "$JS.ACK.DRIFTGATE_STATE.driftgate-planner.>";
    let fix = patient.fails_with("DG-PERMISSION-003", &format!("publish {acks}: packets for it"));
    assert!(fix.contains(acks) && fix.contains("\"$SRV.*\""), "{fix}");
    patient.fails_with(
        "DG-PERMISSION-003",
        "it may not subscribe $SRV.*: handshakes and the micro service",
    );
    let (_, found) = patient.findings();
    let excess: Vec<&str> = found
        .iter()
        .filter(|row| row[1] == "DG-PERMISSION-004")
        .map(|row| row[2].as_str())
        .collect();
    for subject in ["$KV.driftgate-presence.critic", "$JS.API.STREAM.DELETE.", "_INBOX.critic.>"] {
        assert!(excess.iter().any(|text| text.contains(subject)), "{subject}: {excess:?}");
    }
    server.reload_with(&user("subscribe: {deny: \"_INBOX.>\"}"));
    patient.fails_with("DG-PERMISSION-005", "_INBOX.planner");
    let patient = patient.with("[nats]\ninbox_prefix = \"answers\"");
    patient.fails_with("DG-PERMISSION-005", "peers answer only below _INBOX");
}

#[test]
fn the_shipped_grants_are_enough_and_not_too_much() {
    let server = NatsServer::start_with(&shipped_grants());
    let provision =
        "[nats]\nprovision = false\n[[peers]]\nid = \"critic\"\nimport = [\"snapshot\"]";
    let patient = Patient::new(&server.url()).with(provision);
    for code in ["DG-PERMISSION-001", "DG-PERMISSION-003", "DG-PERMISSION-004", "DG-SERVER-003"] {
        patient.is_fine_with(code);
    }
}

#[test]
fn a_source_that_stands_still_is_seen_though_its_lag_says_0() {
    let server = NatsServer::start();
    let patient = Patient::new(&server.url()).with("[nats]\nstream_in = \"FAR\"");
    // Begins with a message that is not there yet: the same sight as one that has stopped.
    let far = r#"{"name": "FAR", "sources": [{"name": "NEAR", "opt_start_seq": 100},
                  {"name": "NOBODY"}], "storage": "file"}"#;
    if !patient.shell(&format!(
        "nats stream add NEAR --subjects 'near.>' --defaults && nats req near.x 1 && \
         nats req near.x 2 && nats req '$JS.API.STREAM.CREATE.FAR' '{far}'"
    )) {
        return;
    }
    // Heard once its consumer stands.
    eventually("NEAR", || {
        patient.findings().1.iter().all(|row| !row[2].contains("NEAR of FAR has"))
    });
    let fix = patient.fails_with("DG-STREAM-002", "source NOBODY of FAR");
    assert!(fix.starts_with("nats stream info NOBODY"), "{fix}");
    let text = "NEAR of FAR stands at 0 of 2, and its lag says 0: it has stopped";
    let fix = patient.fails_with("DG-STREAM-002", text);
    assert_eq!(fix, "nats stream cluster step-down FAR");
}

#[test]
fn a_credential_that_cannot_be_read_or_has_ended_is_a_failed_check() {
    let server = NatsServer::start();
    let patient = Patient::new(&server.url());
    let creds = patient.path("creds");
    std::fs::write(&creds, "not credentials").unwrap();
    let patient = patient.with(&format!("[nats]\ncreds_file = {creds:?}"));
    std::fs::remove_file(&creds).unwrap();
    let fix = patient.fails_with("DG-CREDENTIAL-001", "cannot be read: No such file");
    assert!(fix.ends_with(&format!("YOURS {}", creds.display())), "{fix}");
    let (ends, found) = patient.findings();
    assert_eq!((ends, found.iter().filter(|row| row[0] == "fail").count()), (1, 1), "{found:?}");
    std::fs::write(&creds, "").unwrap();
    patient.fails_with("DG-CREDENTIAL-001", "is empty");
    std::fs::write(&creds, "not credentials").unwrap();
    let fix = patient.fails_with("DG-CREDENTIAL-001", "its JWT cannot be read");
    assert!(fix.contains("nsc generate creds"), "{fix}");
    std::fs::write(&creds, " ").unwrap();
    patient.fails_with("DG-CREDENTIAL-001", "is empty");
    let seed = nkeys::KeyPair::new_user().seed().unwrap();
    for (exp, text) in [(1_600_000_000, "2020-09-13T12:26:40.000Z, which is over"), (0, "")] {
        let claims = format!("{{\"name\": \"planner\", \"exp\": {exp}}}");
        let claims = base64::Engine::encode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, claims);
        let file = format!(
            "-----BEGIN NATS USER JWT-----\nx.{claims}.x\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        );
        std::fs::write(&creds, file).unwrap();
        if exp == 0 {
            patient.is_fine_with("DG-CREDENTIAL-001");
        } else {
            let fix = patient.fails_with("DG-CREDENTIAL-001", text);
            assert!(fix.starts_with("nsc edit user planner --expiry 90d"), "{fix}");
        }
    }
}

#[test]
fn what_travels_in_the_clear_and_what_the_machine_lacks_is_said_without_a_broker() {
    let patient = Patient::new("nats://192.0.2.1:4222");
    let spool = patient.path("key").join("spool");
    let patient = patient.with(&format!(
        "[nats]\nconnect_timeout = \"100ms\"\n[snapshot]\nspool = {spool:?}\n\
         spool_bytes_max = \"1000GiB\""
    ));
    let (ends, found) = patient.findings();
    let has = |severity: &str, code: &str, text: &str| {
        let mut rows = found.iter();
        rows.any(|row| row[..2] == [severity, code] && row[2].contains(text))
    };
    assert_eq!(ends, 69);
    assert!(has("warn", "DG-CONNECTION-004", "neither loopback nor TLS"), "{found:?}");
    assert!(has("fail", "DG-SPOOL-001", "cannot be written"), "{found:?}");
    assert!(has("warn", "DG-SPOOL-002", "1024000 MiB"), "{found:?}");
    let server = NatsServer::start();
    let patient = Patient::new(&server.url()).with("[nats.tls]\nrequired = true");
    patient.fails_with("DG-CONNECTION-003", "TLS failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_twin_is_told_from_the_sidecar_of_this_spool() {
    let server = NatsServer::start();
    let sidecar = Sidecar::connected(Plan::new("planner", &["critic"], &server.url())).await;
    sidecar.report(0.3).await;
    let patient = Patient::new(&server.url());
    let said = |patient: &Patient| {
        let (_, found) = patient.findings();
        found.into_iter().find(|row| row[1] == "DG-TWIN-001")
    };
    crate::support::wait::until("the twin", async || said(&patient)).await;
    let text = said(&patient).unwrap()[2].clone();
    assert!(text.starts_with("another sidecar is planner: instance "), "{text}");
    let own = sidecar.folder().join("spool");
    let own = patient.with(&format!("[snapshot]\nspool = {own:?}"));
    assert_eq!(said(&own), None, "it is this one");
}
