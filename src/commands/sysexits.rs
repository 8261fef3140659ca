//! How the process ends: exit codes of `sysexits.h`, as far as they are used, and what is said.

use std::io::Write as _;
use std::process::ExitCode;

/// The command line is wrong.
pub const USAGE: u8 = 64;
/// The input is wrong.
pub const DATA_ERROR: u8 = 65;
/// The input cannot be opened.
pub const NO_INPUT: u8 = 66;
/// A listener, a server or another resource cannot be had.
pub const UNAVAILABLE: u8 = 69;
/// Something of the program's own went wrong.
pub const SOFTWARE: u8 = 70;
/// The output file cannot be created.
pub const CANNOT_CREATE: u8 = 73;
/// Reading or writing failed.
pub const IO_ERROR: u8 = 74;
/// Not now, perhaps later: the gate is closed.
pub const TEMPORARY: u8 = 75;
/// Whoever asks may not.
pub const NO_PERMISSION: u8 = 77;
/// The configuration, or what takes its place, is wrong.
pub const CONFIG: u8 = 78;
/// What a shell says of a program that SIGINT has ended.
pub const INTERRUPTED: u8 = 130;

/// Why a command failed: its exit code, and what to say. `main` says it, nobody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    code: u8,
    text: String,
}

impl core::fmt::Display for Fault {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl Fault {
    /// Ends with `code` and `text`.
    #[must_use]
    pub fn new(code: u8, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// Ends with [`UNAVAILABLE`], for this reason.
    #[expect(clippy::needless_pass_by_value, reason = "so that map_err takes it as it stands")]
    pub(super) fn unavailable(fault: impl ToString) -> Self {
        Self::new(UNAVAILABLE, fault.to_string())
    }

    /// Says it on standard error.
    #[must_use]
    pub fn say(&self) -> ExitCode {
        // Nothing is left to be told when standard error is gone.
        drop(writeln!(std::io::stderr(), "driftgate: {}", self.text));
        ExitCode::from(self.code)
    }
}
