//! The life of the process: arguments, then one command, then its exit code.

use std::collections::BTreeMap;
use std::io::{stderr, stdin, stdout};
use std::process::ExitCode;
use std::time::SystemTime;

use clap::{Parser, Subcommand};
use driftgate::commands::sysexits::Fault;
use driftgate::commands::{
    audit, check, demo, doctor, inject, keygen, permissions, replay, run, schema, send, snapshot,
    status, sysexits, trace, verify,
};
use driftgate::config;
use driftgate::protocol::time::Timestamp;
use tokio::runtime::Builder;

/// A sidecar that gates what an AI-agent runtime shares over NATS by how far it has drifted.
#[derive(Debug, Parser)]
#[command(name = "driftgate", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the sidecar
    Run(run::Run),
    /// Shows three sidecars and a runtime whose drift rises and falls
    Demo(demo::Demo),
    /// Says what the gate would have done with a recorded run
    Replay(replay::Replay),
    /// Verifies packets from standard input or a file
    Verify(verify::Arguments),
    /// Checks a configuration and shows all its mistakes at once
    Check(check::Check),
    /// Pushes, reads, lists and restores memory snapshots
    Snapshot(snapshot::Arguments),
    /// Holds a live broker against what the configuration promises
    Doctor(doctor::Doctor),
    /// Sends a sample report to the local sidecar
    Send(send::Send),
    /// Explains one report step by step
    Trace(trace::Trace),
    /// Writes the least permissions that the broker must grant
    Permissions(permissions::Arguments),
    /// Adds the sidecar to Kubernetes manifests
    Inject(inject::Arguments),
    /// Makes a key file
    Keygen(keygen::Arguments),
    /// Shows the fleet as its sidecars tell it
    Status(status::Arguments),
    /// Reads the audit log back
    Audit(audit::Arguments),
    /// Writes the JSON Schema of a document
    Schema(schema::Arguments),
}

/// What became of a command: an exit code, or a fault that is yet to be said.
type Outcome = Result<ExitCode, Fault>;

fn main() -> ExitCode {
    match Arguments::try_parse() {
        Ok(arguments) => command(arguments.command).unwrap_or_else(|fault| fault.say()),
        Err(said) => {
            let is_wrong = said.use_stderr();
            // Nothing is left to be told when nobody reads it.
            drop(said.print());
            if is_wrong { ExitCode::from(sysexits::USAGE) } else { ExitCode::SUCCESS }
        }
    }
}

fn command(command: Command) -> Result<ExitCode, Fault> {
    Ok(match command {
        Command::Run(arguments) => blocking(run::run(&arguments, &environment()?, &now))?,
        Command::Demo(arguments) => blocking(demo::run(&arguments, &environment()?))?,
        Command::Replay(arguments) => {
            replay::run(&arguments, &mut stdin(), &mut stdout(), &mut stderr())
        }
        Command::Verify(arguments) => verify::run(&arguments, &environment()?, &now, &mut stdout()),
        Command::Snapshot(arguments) => blocking(snapshot::run(&arguments, &environment()?))?,
        Command::Doctor(arguments) => blocking(doctor::run(&arguments, &environment()?, &now))?,
        Command::Send(arguments) => blocking(send::run(&arguments, &environment()?))?,
        Command::Trace(arguments) => blocking(trace::run(&arguments, &environment()?, &now))?,
        Command::Status(arguments) => blocking(status::run(&arguments, &environment()?, &now))?,
        Command::Permissions(arguments) => {
            permissions::run(&arguments, &environment()?, &mut stdout())?
        }
        Command::Inject(arguments) => {
            inject::run(&arguments, &mut stdin(), &mut stdout(), &mut stderr())?
        }
        Command::Keygen(arguments) => keygen::run(&arguments),
        Command::Audit(arguments) => audit::run(&arguments, &mut stdout()),
        Command::Schema(arguments) => schema::run(&arguments, &mut stdout()),
        Command::Check(arguments) => check::run(&arguments, &environment()?, now(), &mut stdout()),
    })
}

/// The environment, read once, here.
fn environment() -> Result<BTreeMap<String, String>, Fault> {
    config::environment(std::env::vars_os())
        .map_err(|mistakes| Fault::new(sysexits::CONFIG, mistakes.to_string()))
}

#[expect(clippy::disallowed_methods, reason = "commands that only look take the time from here")]
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_unix_ms(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Runs a command that needs the network. What it leaves behind, such as a read of standard input
/// that never ends or a disk that hangs, does not keep the process.
fn blocking(command: impl Future<Output = Outcome>) -> Outcome {
    let runtime = Builder::new_multi_thread().enable_all().build().map_err(|error| {
        Fault::new(sysexits::UNAVAILABLE, format!("no threads to run on: {error}"))
    })?;
    // As long as one thread for what blocks exists, work for which the system gives no other one
    // waits in a queue; without any, whoever asks would panic.
    let (end, ends) = std::sync::mpsc::channel::<()>();
    let _standby = runtime.spawn_blocking(move || ends.recv());
    let outcome = runtime.block_on(command);
    drop(end);
    runtime.shutdown_background();
    outcome
}
