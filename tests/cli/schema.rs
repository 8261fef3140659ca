//! `driftgate schema`, and what a wrong command line is told.

use std::process::{Command, Output};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

fn driftgate(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_driftgate")).args(arguments).output().expect("it runs")
}

#[test]
fn each_document_is_listed_with_the_digest_of_its_bytes() {
    let list: Value = serde_json::from_slice(&driftgate(&["schema", "--json"]).stdout).unwrap();
    let list = list["schemas"].as_array().unwrap();
    let names: Vec<&str> = list.iter().map(|entry| entry["name"].as_str().unwrap()).collect();
    for name in ["audit", "capabilities", "config", "manifest", "openapi", "packet", "report"] {
        assert!(names.contains(&name), "{names:?}");
    }
    for entry in list {
        let document = driftgate(&["schema", entry["name"].as_str().unwrap()]);
        assert_eq!(document.status.code(), Some(0));
        assert!(serde_json::from_slice::<Value>(&document.stdout).is_ok());
        let hex: String =
            Sha256::digest(&document.stdout).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(entry["digest"], format!("sha256:{hex}"));
    }
}

#[test]
fn a_wrong_command_line_ends_with_64_and_help_with_0() {
    let wrong: [&[&str]; 4] = [&["schema", "nothing"], &["run", "--no-such"], &["no-such"], &[]];
    for arguments in wrong {
        let output = driftgate(arguments);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
    let named = driftgate(&["schema", "nothing"]);
    assert!(String::from_utf8_lossy(&named.stderr).contains("manifest"), "the list is shown");
    for arguments in [&["--help"][..], &["--version"], &["schema", "--help"]] {
        assert_eq!(driftgate(arguments).status.code(), Some(0), "{arguments:?}");
    }
}
