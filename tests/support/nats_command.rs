//! The same command line with exit codes, and a home of its own.

#![allow(dead_code, reason = "not every test file has a use for it")]
#![allow(clippy::print_stderr, reason = "a test that is left out has to say so loudly")]

use std::path::PathBuf;
use std::process::Command;

use super::nats_server::NatsServer;

/// The command, on one server, with a home of its own.
pub(crate) struct NatsCli {
    program: PathBuf,
    url: String,
    home: tempfile::TempDir,
}

impl NatsCli {
    /// The program that `NATS_CLI` names, else the one on the path; says so loudly where there is
    /// none.
    pub(crate) fn on(server: &NatsServer) -> Option<Self> {
        let named = std::env::var_os("NATS_CLI").map(PathBuf::from);
        let program = named.unwrap_or_else(|| PathBuf::from("nats"));
        let works = Command::new(&program).arg("--version").output();
        if !works.is_ok_and(|output| output.status.success()) {
            eprintln!(
                "SKIPPED: no `nats` command: set NATS_CLI or install it. NOTHING WAS TESTED."
            );
            return None;
        }
        let home = tempfile::tempdir().expect("a temporary folder");
        Some(Self { program, url: server.url(), home })
    }

    /// Exit code and standard output of one command.
    pub(crate) fn run(&self, arguments: &[&str]) -> (i32, String) {
        let output = Command::new(&self.program)
            .env("HOME", self.home.path())
            .env("XDG_CONFIG_HOME", self.home.path())
            .args(["--server", &self.url])
            .args(arguments)
            .output()
            .expect("it runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code().unwrap_or(-1), text)
    }
}
