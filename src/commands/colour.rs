//! Whether what is printed has colours: `--color`, then `NO_COLOR`, then what reads it.

use std::collections::BTreeMap;
use std::ffi::OsString;

/// `--color` on the command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum When {
    /// Where a terminal reads it, unless NO_COLOR is set
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl When {
    /// Whether there are colours. `NO_COLOR` counts when it is set to anything but nothing.
    #[must_use]
    pub fn applies(self, environment: &BTreeMap<String, String>, is_terminal: bool) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => is_terminal && environment.get("NO_COLOR").is_none_or(String::is_empty),
        }
    }

    /// What the command line says before it is parsed: its own faults are printed by it too.
    #[must_use]
    pub fn said_by(words: impl Iterator<Item = OsString>) -> Self {
        let mut is_next = false;
        for word in words {
            let word = word.to_string_lossy();
            let value = if is_next { Some(&*word) } else { word.strip_prefix("--color=") };
            match value {
                Some("always") => return Self::Always,
                Some("never") => return Self::Never,
                Some(_) | None => {}
            }
            is_next = word == "--color";
        }
        Self::Auto
    }
}

impl From<When> for clap::ColorChoice {
    fn from(when: When) -> Self {
        match when {
            When::Auto => Self::Auto,
            When::Always => Self::Always,
            When::Never => Self::Never,
        }
    }
}
