//! The real `nats` command: `$NATS_CLI`, else the one beside `$NATS_SERVER`, else that of `PATH`.

#![allow(dead_code, reason = "not every test file has a use for it")]
#![allow(clippy::print_stderr, reason = "a test that is left out has to say so loudly")]

use std::path::PathBuf;
use std::process::Command;

/// The command, if there is one; said loudly where there is none.
pub(crate) fn program() -> Option<PathBuf> {
    let named = std::env::var_os("NATS_CLI").map(PathBuf::from);
    let beside =
        std::env::var_os("NATS_SERVER").map(|path| PathBuf::from(path).with_file_name("nats"));
    let program =
        named.or_else(|| beside.filter(|path| path.is_file())).unwrap_or_else(|| "nats".into());
    if Command::new(&program).arg("--version").output().is_ok() {
        return Some(program);
    }
    eprintln!("SKIPPED: no `nats` command at {}: NATS_CLI names one", program.display());
    None
}

/// What it says to a server; `None` where there is no such command.
pub(crate) fn nats(url: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program()?).args(["--server", url]).args(arguments).output();
    let output = output.expect("it has just said its version");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "nats {arguments:?}: {said}{complained}");
    Some(said)
}
