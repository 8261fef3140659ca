//! `driftgate completions` and `driftgate man`: the command line described for shells and readers.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap_complete::Shell;

use super::sysexits::{self, Fault};

/// Writes the completions of a shell
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  driftgate completions bash > /etc/bash_completion.d/driftgate
  driftgate completions zsh > ~/.zfunc/_driftgate
  driftgate completions fish > ~/.config/fish/completions/driftgate.fish")]
pub struct Completions {
    /// Which shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Writes manual pages
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  driftgate man | man -l -
  driftgate man snapshot put | man -l -
  driftgate man --out /usr/local/share/man/man1

Without --out one page goes to standard output. Exit codes: 64 no such command, 73 the folder cannot
be written.")]
pub struct Man {
    /// The command that the page is of, with its own commands after it [default: driftgate itself]
    #[arg(value_name = "COMMAND", conflicts_with = "out")]
    of: Vec<String>,
    /// Writes the pages of all commands into this folder, which is made where it is missing
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

/// Writes the completions of `line` to `output`.
///
/// # Errors
/// [`Fault`]: the output cannot be written.
pub fn complete(
    completions: &Completions,
    mut line: clap::Command,
    output: &mut dyn Write,
) -> Result<ExitCode, Fault> {
    let mut text = Vec::new();
    clap_complete::generate(completions.shell, &mut line, "driftgate", &mut text);
    written(output, &text)
}

/// Writes the manual of `line`.
///
/// # Errors
/// [`Fault`]: there is no such command, or the output cannot be written.
pub fn describe(
    man: &Man,
    mut line: clap::Command,
    output: &mut dyn Write,
) -> Result<ExitCode, Fault> {
    line.build();
    if let Some(folder) = &man.out {
        return all(&line, folder).map(|()| ExitCode::SUCCESS).map_err(|error| {
            Fault::new(sysexits::CANNOT_CREATE, format!("{}: {error}", folder.display()))
        });
    }
    let mut of = &line;
    for name in &man.of {
        of = of.find_subcommand(name).ok_or_else(|| {
            Fault::new(sysexits::USAGE, format!("man: there is no command {name:?}"))
        })?;
    }
    let mut text = Vec::new();
    let drawn = clap_mangen::Man::new(of.clone()).render(&mut text);
    drawn.map_err(|error| Fault::new(sysexits::SOFTWARE, format!("man: {error}")))?;
    written(output, &text)
}

fn all(line: &clap::Command, folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    clap_mangen::generate_to(line.clone(), folder)
}

fn written(output: &mut dyn Write, text: &[u8]) -> Result<ExitCode, Fault> {
    match output.write_all(text).and_then(|()| output.flush()) {
        // A reader that has seen enough is no fault.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Fault::new(sysexits::IO_ERROR, format!("standard output: {error}")))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}
