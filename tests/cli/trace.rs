//! `driftgate trace FILE`: no sidecar, no broker, a configuration.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "in a test a panic is the report; the clippy setting does not reach helpers"
)]

use std::fs;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n";

/// A configuration with two peers, and what stands beside it.
fn folder(more: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("k1"), KEY).unwrap();
    let text = format!(
        "[runtime]\nid = \"planner\"\nattractor_type = \"symbolic\"\n[[peers]]\nid = \"critic\"\n\
         export = [\"state\"]\n[[peers]]\nid = \"monitor\"\nimport = [\"state\"]\n[integrity]\n\
         sign_with = \"k1\"\nkeys = [{{ id = \"k1\", file = {:?} }}]\n{more}",
        at("k1")
    );
    fs::write(at("driftgate.toml"), text).unwrap();
    folder
}

fn report(cycle: u64, sdi: f64) -> Value {
    json!({
        "cycle": cycle,
        "attractor_state":
            {"id": "a-1", "type": "symbolic", "stability": 0.91, "phase": "stable", "scr": 0.8},
        "drift_metrics": {"sdi": sdi, "sv": 0.1, "pd": 0.1},
        "response": "canary",
    })
}

fn trace(folder: &tempfile::TempDir, words: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_driftgate"))
        .arg("trace")
        .arg("--config")
        .arg(folder.path().join("driftgate.toml"))
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
    child.wait_with_output().unwrap()
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn a_file_is_explained_without_a_sidecar() {
    let folder = folder("");
    let file = folder.path().join("report.json");
    fs::write(&file, report(7, 0.2).to_string()).unwrap();
    let file = file.to_str().unwrap();
    let explained: Value =
        serde_json::from_str(&text(&trace(&folder, &["--json", file], ""))).unwrap();
    assert_eq!(
        (&explained["gate"]["before"], &explained["gate"]["after"]),
        (&json!("blocked"), &json!("open"))
    );
    assert_eq!(
        explained["targets"],
        json!([{"target": "critic", "mode": "minimal",
        "inspection": "passed", "status": "pending", "stream_seq": null}])
    );
    let said = text(&trace(&folder, &[file], ""));
    for line in [
        "parse    profile srip-05: attractor id of 3 bytes, type symbolic, stability 0.91, phase \
         stable; retention -; ignored keys of 8 bytes\n",
        "cycle    first, none missed\n",
        "index    native 0.16666666666666666 (sdi 0.2, sv 0.1, pd 0.1, scr 0.8)\n",
        "used 0.16666666666666666, native where native is accepted\n",
        "gate     blocked -> open, the table asks for open\n",
        "verdict  export\nreasons  -\n",
        "assertion, invariants, transform, evaluation, evidence  pending\n",
        "reopens  -\n",
    ] {
        assert!(said.contains(line), "{line}\nis not in\n{said}");
    }
    let row = said.lines().find(|line| line.starts_with("di_block ")).unwrap();
    assert_eq!(
        row.split_whitespace().collect::<Vec<_>>().join(" "),
        "di_block blocked di 0.16666666666666666 >= 0.5, not >= 0.6"
    );
    assert!(!said.contains("canary") && !explained.to_string().contains("canary"));
}

#[test]
fn the_last_report_of_a_run_is_explained_after_the_others_were_judged() {
    let folder = folder("[containment]\nreopen = 0.2\nblock = 0.3\nisolate = 0.4\n");
    let run = [report(1, 0.2), report(4, 0.6)].map(|report| report.to_string()).join("\n");
    let said = text(&trace(&folder, &["-"], &run));
    assert!(said.contains("cycle    next, 2 missed\n"), "{said}");
    assert!(said.contains("gate     open -> blocked, the table asks for blocked\n"), "{said}");
    assert!(said.contains("reopens  a report with di < 0.2, posture stable"), "{said}");
    let row = said.lines().find(|line| line.starts_with("di_block ")).unwrap();
    assert!(row.ends_with("yes"), "{said}");
    assert!(said.contains("not begun   held\n"), "{said}");
}

#[test]
fn shadow_and_a_report_that_is_refused_are_explained_as_such() {
    let folder = folder("[containment]\nmode = \"shadow\"\n");
    let said = text(&trace(&folder, &["-"], &report(1, 0.2).to_string()));
    assert!(said.contains("; planner, shadow\n"), "{said}");
    assert!(said.contains("verdict  observe\n") && said.contains("evidence  shadow\n"), "{said}");
    let said = text(&trace(&folder, &["-"], &report(1, 7.0).to_string()));
    let refused = "refused at /drift_metrics/sdi: must be between 0 and 1, is 7.0\n";
    assert!(said.contains(refused), "{said}");
    let mut odd = report(1, 0.2);
    odd["safety_flags"] = json!({"canary": true});
    let said = text(&trace(&folder, &["-"], &odd.to_string()));
    assert!(said.contains("refused at /safety_flags and an unknown key of 7 bytes: "), "{said}");
    assert!(!said.contains("canary"), "{said}");
}

#[test]
fn what_is_no_report_or_no_configuration_says_so() {
    let folder = folder("");
    let code = |words: &[&str], input: &str| trace(&folder, words, input).status.code();
    assert_eq!(code(&["-"], "no report"), Some(65));
    assert_eq!(code(&["/nowhere/report.json"], ""), Some(66));
    assert_eq!(code(&["-", "--next"], ""), Some(64));
    fs::write(folder.path().join("driftgate.toml"), "[runtime]\nid = 7\n").unwrap();
    assert_eq!(code(&["-"], &report(1, 0.2).to_string()), Some(78));
}
