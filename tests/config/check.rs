//! `driftgate check`: what would run, or everything that is wrong.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use driftgate::commands::check::{Check, run};
use driftgate::commands::sysexits;
use driftgate::protocol::time::Timestamp;

/// A configuration with every table in it.
const WHOLE: &str = include_str!("../fixtures/whole.toml");
/// Base64 of 32 bytes of 7.
const KEY: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n";

#[test]
fn check_says_what_would_run_and_warns_of_what_is_probably_not_meant() {
    let folder = tempfile::tempdir().unwrap();
    let (key, file) = (folder.path().join("k1"), folder.path().join("driftgate.toml"));
    fs::write(&key, KEY).unwrap();
    let text = WHOLE
        .replace("/etc/driftgate/keys/k1", key.to_str().unwrap())
        .replace("# expires", "expires")
        .replace("nats://127.0.0.1:4222", "nats://broker.example:4222")
        + "[[peers]]\nid = \"mute\"\n";
    fs::write(&file, text).unwrap();
    let (code, shown) = check(&file, "2028-01-01T00:00:00Z");
    assert_eq!(code, format!("{:?}", ExitCode::SUCCESS), "{shown}");
    for expected in [
        "runtime      planner (symbolic), profile srip-05",
        "critic: export state, snapshot, telemetry; import state, snapshot, telemetry; until 2027-01-01T00:00:00.000Z",
        "reopens below 0.45, blocks at 0.5, isolates at 0.6; caution sends 1 report in 3",
        "silence blocks after 2m, isolates after never",
        "listen       api 127.0.0.1:7405, admin 127.0.0.1:7406",
        "signs with k1, verifies with k1",
        "warning: peers: the authorisation of critic ended",
        "warning: peers: mute is listed with neither export nor import",
        "warning: nats.url: broker.example is neither loopback nor TLS",
    ] {
        assert!(shown.contains(expected), "missing: {expected}\nin:\n{shown}");
    }
    assert!(!shown.contains(KEY.trim()));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(check(&file, "2028-01-01T00:00:00Z").1.contains("can be read by everybody"));
        // As a Kubernetes volume has it: readable, and only where the volume is mounted.
        let projected = folder.path().join("..data");
        fs::create_dir(&projected).unwrap();
        fs::rename(&key, projected.join("k1")).unwrap();
        std::os::unix::fs::symlink("..data/k1", &key).unwrap();
        assert!(!check(&file, "2028-01-01T00:00:00Z").1.contains("can be read by"));
        fs::remove_file(&key).unwrap();
        fs::rename(projected.join("k1"), &key).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o400)).unwrap();
        assert!(!check(&file, "2028-01-01T00:00:00Z").1.contains("can be read by"));
    }
}

#[test]
fn check_warns_where_one_peer_could_speak_for_another() {
    let folder = tempfile::tempdir().unwrap();
    let (key, file) = (folder.path().join("k1"), folder.path().join("driftgate.toml"));
    fs::write(&key, KEY).unwrap();
    let key = key.to_str().unwrap();
    let text = WHOLE.replace("/etc/driftgate/keys/k1", key);
    let two_keys = text.replace(
        "keys = [{ id = \"k1\"",
        &format!("keys = [{{ id = \"k2\", file = \"{key}\" }}, {{ id = \"k1\""),
    );
    let monitor = "[[peers]]\nid = \"monitor\"\nimport = [\"state\"]\nkey_id = \"k2\"\n";
    let pinned = two_keys.replace("id = \"critic\"", "id = \"critic\"\nkey_id = \"k1\"");
    for (text, is_warned) in [
        (text, false),
        (two_keys.clone(), false),
        (format!("{two_keys}{monitor}"), true),
        (format!("{pinned}{monitor}"), false),
    ] {
        fs::write(&file, &text).unwrap();
        let (_, shown) = check(&file, "2026-01-01T00:00:00Z");
        let warning = "warning: peers: critic has no key_id";
        assert_eq!(shown.contains(warning), is_warned, "{text}\n{shown}");
    }
}

#[test]
fn check_warns_where_the_runtime_could_lift_the_hold() {
    let folder = tempfile::tempdir().unwrap();
    let (key, file) = (folder.path().join("k1"), folder.path().join("driftgate.toml"));
    fs::write(&key, KEY).unwrap();
    let text = WHOLE.replace("/etc/driftgate/keys/k1", key.to_str().unwrap());
    let tail = "[ingest.tail]\npath = \"/shared/cycles.jsonl\"\n";
    for (hold_file, is_warned) in
        [("/shared/hold", true), ("/shared/further/hold", true), ("/operator/hold", false)]
    {
        let text = format!("{text}{tail}[containment]\nhold_file = \"{hold_file}\"\n");
        fs::write(&file, text).unwrap();
        let (_, shown) = check(&file, "2026-01-01T00:00:00Z");
        let warning = "warning: containment.hold_file: ";
        assert_eq!(shown.contains(warning), is_warned, "{hold_file}\n{shown}");
    }
}

#[test]
fn one_token_for_runtime_and_operator_is_a_mistake() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for (name, secret) in [("k1", KEY), ("one", "0123456789abcdef"), ("two", "0123456789abcdeg")] {
        fs::write(path(name), secret).unwrap();
    }
    let text = WHOLE.replace("/etc/driftgate/keys/k1", path("k1").to_str().unwrap());
    for (operator, is_refused) in [("one", true), ("two", false)] {
        let tokens = format!(
            "[listen]\ntoken_file = {:?}\noperator_token_file = {:?}\n",
            path("one"),
            path(operator)
        );
        fs::write(path("driftgate.toml"), text.replace("[listen]\n", &tokens)).unwrap();
        let (_, shown) = check(&path("driftgate.toml"), "2026-01-01T00:00:00Z");
        let mistake = "listen.operator_token_file: must hold another token";
        assert_eq!(shown.contains(mistake), is_refused, "{shown}");
    }
}

#[test]
fn check_exits_78_with_all_mistakes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("driftgate.toml");
    fs::write(&file, "[nats]\nwindow = 0\n").unwrap();
    let (code, shown) = check(&file, "2028-01-01T00:00:00Z");
    assert_eq!(code, format!("{:?}", ExitCode::from(sysexits::CONFIG)));
    assert!(shown.contains("nats.window: ") && shown.ends_with("4 mistakes\n"), "{shown}");
}

#[test]
fn a_variable_that_is_not_utf_8_is_named_and_exits_78() {
    let value = OsStr::from_bytes(b"deb\xffug");
    for (name, is_ours) in [("DRIFTGATE__LOG__LEVEL", true), ("ANOTHERS", false)] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_driftgate"));
        let output = command.args(["check", "--config", "/absent.toml"]).env(name, value).output();
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(78));
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(said.contains("DRIFTGATE__LOG__LEVEL: is not UTF-8"), is_ours, "{said}");
    }
}

fn check(file: &Path, now: &str) -> (String, String) {
    let mut output = Vec::new();
    let now = Timestamp::parse(now).unwrap_or_default();
    let code = run(
        &Check { config: vec![file.to_owned()].into(), json: false },
        &BTreeMap::new(),
        None,
        now,
        &mut output,
    );
    (format!("{code:?}"), String::from_utf8_lossy(&output).into_owned())
}
