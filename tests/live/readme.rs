//! Every command of the README, found in its fenced blocks and run by a shell beside a
//! `driftgate run --dev`. What no test can run is listed here with its reason, and nothing else may
//! stand there.

#![allow(clippy::disallowed_methods, reason = "a shell is given a path")]
#![allow(clippy::print_stderr, reason = "a test that is left out has to say so loudly")]

use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use crate::cookbook::{Step, missing, steps};
use crate::support::nats_cli;
use crate::support::wait::until;

const README: &str = include_str!("../../README.md");
const HERE: &str = env!("CARGO_MANIFEST_DIR");

/// Beginnings of commands that are not run here, and why not.
const LEFT_OUT: [(&str, &str); 4] = [
    ("make demo", "tests/cli/demo.rs runs what it runs"),
    ("make test", "this is part of it"),
    ("kubectl ", "needs a cluster: tests/deploy/kubernetes"),
    ("docker ", "needs a daemon: tests/deploy"),
];
/// Ones that do not end by themselves, and what they say when they are under way.
const ENDLESS: [(&str, &str); 3] = [
    ("driftgate run --config", "\"started"),
    ("driftgate run --dev", "Ctrl-C ends it"),
    ("nats sub ", "driftgate.v1."),
];
/// Exit codes that are an answer, and no fault of the command.
const ANSWERS: [(&str, &[i32]); 2] = [("driftgate send", &[0, 75]), ("driftgate doctor", &[0, 1])];

/// Every command of the shell blocks and console blocks, in order; console blocks with what they
/// are said to print.
fn commands(text: &str) -> Vec<Step> {
    let mut found = Vec::new();
    for (index, block) in text.split("```").enumerate().filter(|(index, _)| index % 2 == 1) {
        let (kind, body) = block.split_once('\n').expect("a block has lines");
        match kind {
            "sh" => found.extend(
                body.lines()
                    .filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
                    .map(|line| Step { command: line.to_owned(), expected: Vec::new() }),
            ),
            "console" => found.extend(steps(&format!("```{block}```"))),
            "toml" | "text" | "json" | "yaml" => {}
            other => panic!("block {index} is {other:?}: say how its commands are run"),
        }
    }
    found
}

/// The entry of a table whose beginning a command has.
fn entry<'a, T>(table: &'a [(&str, T)], command: &str) -> Option<&'a T> {
    table.iter().find(|(start, _)| command.starts_with(start)).map(|(_, value)| value)
}

/// The commands' programs, and what of the README they read.
fn prepare(folder: &Path, nats: &Path) {
    let link = |from: &Path, name: &str| {
        std::os::unix::fs::symlink(from, folder.join(name)).expect("a link");
    };
    link(nats, "nats");
    link(Path::new(env!("CARGO_BIN_EXE_driftgate")), "driftgate");
    link(&Path::new(HERE).join("docs"), "docs");
    link(&Path::new(HERE).join("deploy"), "deploy");
    let toml = README.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next());
    std::fs::write(folder.join("driftgate.toml"), toml.expect("a configuration")).unwrap();
    // It only looks whether something is said to it.
    std::fs::write(folder.join("kubectl"), "#!/bin/sh\ngrep -q driftgate\n").unwrap();
    let chmod = Command::new("chmod").arg("+x").arg(folder.join("kubectl")).status().unwrap();
    assert!(chmod.success());
}

struct Shell<'a> {
    folder: &'a Path,
    api: String,
    nats: String,
}

impl Shell<'_> {
    fn command(&self, line: &str) -> Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let log = std::fs::File::create(self.folder.join("said")).unwrap();
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("exec 2>&1; {line}")])
            .current_dir(self.folder)
            .env("HOME", self.folder)
            .env("XDG_CONFIG_HOME", self.folder)
            .env("NATS_URL", &self.nats)
            .env("DRIFTGATE__NATS__URL", &self.nats)
            .env("DRIFTGATE__SNAPSHOT__SPOOL", self.folder.join("spool"))
            .env("DRIFTGATE__LISTEN__ADMIN", "127.0.0.1:0")
            .env("PATH", format!("{}:{path}", self.folder.display()))
            .stdin(Stdio::null())
            .stdout(log);
        // What reports goes to the sidecar that is there; what listens takes any port.
        let is_run = line.contains("driftgate run");
        command.env("DRIFTGATE__LISTEN__API", if is_run { "127.0.0.1:0" } else { &self.api });
        command
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.folder.join("said")).unwrap_or_default()
    }

    fn run(&self, line: &str) -> (ExitStatus, String) {
        let status = self.command(line).status().expect("a shell");
        (status, self.said())
    }

    /// Runs it until it says so.
    async fn hears(&self, line: &str, word: &str) {
        let mut child = Ended(self.command(&format!("exec {line}")).spawn().expect("a shell"));
        until(&format!("{line} to say {word}"), async || {
            let ended = child.0.try_wait().expect("our own child");
            assert_eq!(ended, None, "$ {line}\n{}", self.said());
            if line.starts_with("nats sub") {
                // Something has to cross.
                let _ = Command::new(self.folder.join("driftgate"))
                    .args(["send", "--api", &self.api, "--di", "0.2"])
                    .stdout(Stdio::null())
                    .status();
            }
            self.said().contains(word).then_some(())
        })
        .await;
    }
}

/// A child that ends in order with its guard.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let id = self.0.id().to_string();
        let _ = Command::new("kill").args(["-s", "TERM", &id]).status();
        let _ = self.0.wait();
    }
}

/// The first word after `mark`.
fn word_after(text: &str, mark: &str) -> Option<String> {
    let rest = text.split(mark).nth(1)?;
    rest.split(|byte: char| byte.is_whitespace() || byte == '/').next().map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_the_readme_does_what_it_says() {
    let Some(nats) = nats_cli::program() else { return };
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path(), &nats);
    let log = std::fs::File::create(folder.path().join("dev")).unwrap();
    let dev = Command::new(env!("CARGO_BIN_EXE_driftgate"))
        .args(["run", "--dev"])
        .stdout(log)
        .stderr(Stdio::null())
        .stdin(Stdio::null())
        .spawn();
    let _dev = Ended(dev.expect("the binary under test"));
    let banner = until("a sidecar to try", async || {
        let said = std::fs::read_to_string(folder.path().join("dev")).ok()?;
        said.contains("Ctrl-C ends it").then_some(said)
    })
    .await;
    let api = word_after(&banner, "curl -sw '\\n' http://").expect("its address");
    let nats = word_after(&banner, "nats --server nats://").expect("its broker");
    let shell = Shell { folder: folder.path(), api, nats: format!("nats://{nats}") };
    let (mut run, mut left_out) = (0, 0);
    for Step { command, expected } in commands(README) {
        if let Some(reason) = entry(&LEFT_OUT, &command) {
            eprintln!("not run: {command}: {reason}");
            left_out += 1;
            continue;
        }
        let program = command.split_whitespace().next().unwrap_or_default();
        assert!(["driftgate", "nats"].contains(&program), "{command}: nobody says how it is run");
        run += 1;
        if let Some(word) = entry(&ENDLESS, &command) {
            let line = command.split(" #").next().unwrap_or(&command);
            shell.hears(line.trim(), word).await;
            continue;
        }
        let (status, said) = shell.run(&command);
        let answers = entry(&ANSWERS, &command).copied().unwrap_or(&[0]);
        assert!(status.code().is_some_and(|code| answers.contains(&code)), "$ {command}\n{said}");
        assert_eq!(missing(&said, &expected), None, "$ {command}\n{said}");
    }
    eprintln!("{run} commands of the README were run, {left_out} not");
    assert!(run >= 10, "only {run} commands were found");
}
