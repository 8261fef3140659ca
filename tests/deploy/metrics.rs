//! What is said of the metrics: the page, and the alerts as promtool judges them.

use std::fs;
use std::process::Command;

use driftgate::sidecar::metrics_manual;

use super::definition::path;

/// `make documents` sets the variable and so writes the page.
#[test]
fn documents_of_the_metrics() {
    let (file, written) = (path("docs/metrics.md"), metrics_manual());
    if std::env::var_os("DRIFTGATE_WRITE_DOCUMENTS").is_some() {
        fs::write(&file, &written).unwrap();
    }
    let found = fs::read_to_string(&file).unwrap_or_default();
    let differs = found.lines().zip(written.lines()).find(|(a, b)| a != b);
    assert_eq!(differs, None, "docs/metrics.md: run `make documents`");
    assert_eq!(found.len(), written.len(), "docs/metrics.md: run `make documents`");
}

/// `PROMTOOL` names one that is not on the path.
#[test]
fn promtool_takes_the_alerts_and_they_wake_when_their_tests_say() {
    let promtool = std::env::var_os("PROMTOOL").unwrap_or_else(|| "promtool".into());
    for (verb, file) in [("check", "driftgate-rules.yaml"), ("test", "driftgate-rules_test.yaml")] {
        let mut command = Command::new(&promtool);
        command.args([verb, "rules", file]).current_dir(path("deploy/prometheus"));
        let Ok(output) = command.output() else {
            println!("SKIPPED: promtool is not installed, so no alert was tried");
            return;
        };
        let said = [output.stdout, output.stderr].map(|said| String::from_utf8(said).unwrap());
        assert!(output.status.success(), "promtool {verb} rules {file}: {}", said.concat());
    }
}
