//! The life of the process: arguments, then one command, then its exit code.

use std::collections::BTreeMap;
use std::env::args_os;
use std::io::{stderr, stdin, stdout};
use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use clap::FromArgMatches as _;
use driftgate::commands::arguments::{Arguments, Command, line};
use driftgate::commands::colour::When;
use driftgate::commands::sysexits::Fault;
use driftgate::commands::{
    audit, check, completions, demo, doctor, health, inject, keygen, permissions, replay, run,
    schema, send, snapshot, status, sysexits, trace, verify, watch,
};
use driftgate::config::{self, MemoryLimit};
use driftgate::protocol::time::Timestamp;
use tokio::runtime::Builder;

/// What became of a command: an exit code, or a fault that is yet to be said.
type Outcome = Result<ExitCode, Fault>;

fn main() -> ExitCode {
    let line = line(When::said_by(args_os()));
    let parsed = line.try_get_matches().and_then(|found| Arguments::from_arg_matches(&found));
    match parsed {
        Ok(arguments) => command(arguments).unwrap_or_else(|fault| fault.say()),
        Err(said) => {
            let is_wrong = said.use_stderr();
            // Nothing is left to be told when nobody reads it.
            drop(said.print());
            if is_wrong { ExitCode::from(sysexits::USAGE) } else { ExitCode::SUCCESS }
        }
    }
}

fn command(Arguments { command, color, .. }: Arguments) -> Outcome {
    Ok(match command {
        Command::Run(arguments) => {
            let environment = environment()?;
            let run = run::run(&arguments, color, &environment, memory_limit(), &now);
            on(Builder::new_current_thread(), run)?
        }
        Command::Demo(arguments) => blocking(demo::run(&arguments, color, &environment()?))?,
        Command::Replay(arguments) => {
            replay::run(&arguments, &mut stdin(), &mut stdout(), &mut stderr())
        }
        Command::Verify(arguments) => verify::run(&arguments, &environment()?, &now, &mut stdout()),
        Command::Snapshot(arguments) => {
            blocking(snapshot::run(&arguments, &environment()?, now()))?
        }
        Command::Doctor(arguments) => blocking(doctor::run(&arguments, &environment()?, &now))?,
        Command::Send(arguments) => blocking(send::run(&arguments, &environment()?))?,
        Command::Trace(arguments) => blocking(trace::run(&arguments, &environment()?, &now))?,
        Command::Health(arguments) => {
            on(Builder::new_current_thread(), health::run(&arguments, &environment()?))?
        }
        Command::Status(arguments) => blocking(status::run(&arguments, &environment()?, &now))?,
        Command::Watch(arguments) => {
            blocking(watch::run(&arguments, color, &environment()?, &now))?
        }
        Command::Permissions(arguments) => {
            permissions::run(&arguments, &environment()?, &mut stdout())?
        }
        Command::Inject(arguments) => {
            inject::run(&arguments, &mut stdin(), &mut stdout(), &mut stderr())?
        }
        Command::Keygen(arguments) => keygen::run(&arguments),
        Command::Audit(arguments) => audit::run(&arguments, &mut stdout()),
        Command::Schema(arguments) => schema::run(&arguments, &mut stdout()),
        Command::Completions(arguments) => {
            completions::complete(&arguments, line(When::Never), &mut stdout())?
        }
        Command::Man(arguments) => {
            completions::describe(&arguments, line(When::Never), &mut stdout())?
        }
        Command::Check(arguments) => {
            check::run(&arguments, &environment()?, memory_limit(), now(), &mut stdout())
        }
    })
}

/// The environment, read once, here.
fn environment() -> Result<BTreeMap<String, String>, Fault> {
    config::environment(std::env::vars_os())
        .map_err(|mistakes| Fault::new(sysexits::CONFIG, mistakes.to_string()))
}

/// What this process may take of memory, if it is in a container that says so.
fn memory_limit() -> Option<MemoryLimit> {
    MemoryLimit::of_this_process(Path::new("/"))
}

#[expect(clippy::disallowed_methods, reason = "commands that only look take the time from here")]
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_unix_ms(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Runs a command that needs the network. What it leaves behind, such as a read of standard input
/// that never ends or a disk that hangs, does not keep the process.
fn blocking(command: impl Future<Output = Outcome>) -> Outcome {
    on(Builder::new_multi_thread(), command)
}

/// A sidecar runs on one thread beside the connection's and those that block: between HTTP and
/// driver every hop to another thread costs a wake-up, and there is not work enough for two.
fn on(mut builder: Builder, command: impl Future<Output = Outcome>) -> Outcome {
    let runtime = builder.enable_all().build().map_err(|error| {
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
