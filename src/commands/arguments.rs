//! The command line as a whole: what `main` parses, and what completions and manual describe.

use clap::{ArgAction, CommandFactory as _, Parser, Subcommand};

use super::colour::When;
use super::{
    audit, check, completions, demo, doctor, health, inject, keygen, permissions, replay, run,
    schema, send, snapshot, status, trace, verify, watch,
};

/// A sidecar that gates what an AI-agent runtime shares over NATS by how far it has drifted.
#[derive(Debug, Parser)]
// Help and version are flags of our own, so that their texts have the voice of the others.
#[command(
    name = "driftgate",
    version,
    arg_required_else_help = true,
    disable_help_flag = true,
    disable_version_flag = true
)]
pub struct Arguments {
    /// What is asked for.
    #[command(subcommand)]
    pub command: Command,
    /// Whether there are colours
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "WHEN",
        hide_possible_values = true,
        help = "Has colours: auto, always or never"
    )]
    pub color: When,
    #[arg(short, long, global = true, action = ArgAction::Help, help = "Prints help")]
    help: Option<bool>,
    #[arg(short = 'V', long, action = ArgAction::Version, help = "Prints the version")]
    version: Option<bool>,
}

/// One subcommand.
#[derive(Debug, Subcommand)]
pub enum Command {
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
    /// Asks the local sidecar's probe, for where only a command can be run
    Health(health::Arguments),
    /// Shows the fleet as its sidecars tell it
    Status(status::Arguments),
    /// Shows the fleet live in the terminal
    Watch(watch::Watch),
    /// Reads the audit log back
    Audit(audit::Arguments),
    /// Writes the JSON Schema of a document
    Schema(schema::Arguments),
    /// Writes the completions of a shell
    Completions(completions::Completions),
    /// Writes manual pages
    Man(completions::Man),
}

/// The command line as clap reads it and prints it.
#[must_use]
pub fn line(color: When) -> clap::Command {
    Arguments::command().color(color.into())
}
