//! `driftgate keygen`: a fresh key, on standard output or in a new file.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::sysexits;
use crate::keys;
use crate::protocol::keyring::Alg;

/// Arguments of `driftgate keygen`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  driftgate keygen --out /etc/driftgate/keys/k1
  driftgate keygen --alg ed25519 --out planner.seed > planner.public")]
pub struct Arguments {
    /// What the key is for
    #[arg(long, value_enum, default_value = "hmac-sha256")]
    pub alg: AlgArgument,
    /// Writes the secret to this new file (mode 0600; never overwrites) instead of standard output;
    /// makes its folder (mode 0700)
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// [`Alg`] on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum AlgArgument {
    /// A shared secret: the base64 of 32 random bytes
    #[value(name = "hmac-sha256")]
    HmacSha256,
    /// A NATS user nkey: the seed signs, the public key verifies
    #[value(name = "ed25519")]
    Ed25519,
}

impl From<AlgArgument> for Alg {
    fn from(argument: AlgArgument) -> Self {
        match argument {
            AlgArgument::HmacSha256 => Self::HmacSha256,
            AlgArgument::Ed25519 => Self::Ed25519,
        }
    }
}

/// Makes the key. With `--out` the secret goes to the file and the public key, if there is one, to
/// standard output; without it the secret goes to standard output and the public key to standard
/// error, so that `> FILE` always holds one key.
#[must_use]
pub fn run(arguments: &Arguments) -> ExitCode {
    let complain = |text: String| {
        // Nobody is left to tell when standard error is gone.
        let _ = writeln!(io::stderr(), "driftgate keygen: {text}");
    };
    let fresh = match keys::generate(arguments.alg.into()) {
        Ok(fresh) => fresh,
        Err(error) => {
            complain(error.to_string());
            return ExitCode::from(sysexits::IO_ERROR);
        }
    };
    let public = fresh.public.as_deref().map(|public| format!("{public}\n")).unwrap_or_default();
    let written = match &arguments.out {
        Some(path) => {
            let made = make_room(path).and_then(|()| write_new(path, &fresh.secret_text));
            if let Err(error) = made {
                complain(format!("{}: {error}", path.display()));
                return ExitCode::from(sysexits::CANNOT_CREATE);
            }
            io::stdout().write_all(public.as_bytes())
        }
        None => writeln!(io::stdout(), "{}", fresh.secret_text)
            .and_then(|()| io::stderr().write_all(public.as_bytes())),
    };
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format!("standard output: {error}"));
            ExitCode::from(sysexits::IO_ERROR)
        }
    }
}

/// Makes the folder of a key, which nobody else may look into.
fn make_room(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.map_or(Ok(()), |folder| DirBuilder::new().recursive(true).mode(0o700).create(folder))
}

/// Writes one line to a file that did not exist, readable by its owner only.
///
/// # Errors
/// Whatever the system says; a file that was there is left as it was.
pub fn write_new(path: &Path, line: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(format!("{line}\n").as_bytes()).and_then(|()| file.sync_all()).inspect_err(
        |_| {
            // Half a key is worse than none; the first error is the one to report.
            let _ = std::fs::remove_file(path);
        },
    )
}
