//! The files that a configuration is read from, named alike by every command that reads one.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::sysexits::{self, Fault};
use crate::config::{Config, read_from_disk};

/// Names the files where the command line names none; several are separated by colons.
pub const VARIABLE: &str = "DRIFTGATE_CONFIG";

/// Where a configuration is read from.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Files {
    /// A TOML or YAML file; a later one wins over an earlier one, and DRIFTGATE__SECTION__KEY over
    /// all [default: the files that DRIFTGATE_CONFIG names, with colons between them]
    #[arg(short, long, value_name = "FILE")]
    config: Vec<PathBuf>,
}

impl From<Vec<PathBuf>> for Files {
    fn from(config: Vec<PathBuf>) -> Self {
        Self { config }
    }
}

impl Files {
    /// The files, the last of which wins; none where nobody names one.
    #[must_use]
    pub fn paths(&self, environment: &BTreeMap<String, String>) -> Vec<PathBuf> {
        if !self.config.is_empty() {
            return self.config.clone();
        }
        let named = environment.get(VARIABLE).map(String::as_str).unwrap_or_default();
        named.split(':').filter(|path| !path.is_empty()).map(PathBuf::from).collect()
    }

    /// Reads the configuration.
    ///
    /// # Errors
    /// [`Fault`] with all its mistakes.
    pub(super) fn load(&self, environment: &BTreeMap<String, String>) -> Result<Config, Fault> {
        Config::load(&self.paths(environment), environment, &read_from_disk)
            .map_err(|mistakes| Fault::new(sysexits::CONFIG, mistakes.to_string()))
    }
}
