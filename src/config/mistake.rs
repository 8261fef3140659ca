//! What is wrong with a configuration, said so that it can be mended without reading the source.

use core::fmt;

/// Most mistakes that are listed; the rest is counted. A fleet list of 10,000 peers with a wrong
/// column would otherwise fill the log.
pub const MISTAKES_MAX: usize = 100;

/// One mistake in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The key as it is written, such as `nats.prefix` or `peers[3].id`; the file's name when the
    /// file itself cannot be read.
    pub key: String,
    /// What is wrong, and what would be right.
    pub problem: String,
    /// The value that was found; absent when there is none, or when it may be a secret.
    pub value: Option<String>,
    /// Where it was found: a file or an environment variable.
    pub origin: Option<String>,
}

impl Mistake {
    /// A mistake that no single value of a file stands for.
    #[must_use]
    pub fn new(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { key: key.into(), problem: problem.into(), value: None, origin: None }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.key, self.problem)?;
        match (&self.value, &self.origin) {
            (Some(value), Some(origin)) => write!(formatter, " (it is {value}, in {origin})"),
            (Some(value), None) => write!(formatter, " (it is {value})"),
            (None, Some(origin)) => write!(formatter, " (in {origin})"),
            (None, None) => Ok(()),
        }
    }
}

/// Every mistake of a configuration, one per line when displayed. Never empty when it is returned
/// as an error.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
pub struct Mistakes {
    listed: Vec<Mistake>,
    unlisted: usize,
}

impl Mistakes {
    /// Adds one; past [`MISTAKES_MAX`] it is only counted.
    pub fn push(&mut self, mistake: Mistake) {
        if self.listed.len() < MISTAKES_MAX {
            self.listed.push(mistake);
        } else {
            self.unlisted = self.unlisted.saturating_add(1);
        }
    }

    /// The mistakes in the order of the sections, at most [`MISTAKES_MAX`].
    #[must_use]
    pub fn listed(&self) -> &[Mistake] {
        &self.listed
    }

    /// How many there are, listed or not.
    #[must_use]
    pub fn count(&self) -> usize {
        self.listed.len().saturating_add(self.unlisted)
    }

    /// `Ok` when there is none.
    ///
    /// # Errors
    /// Itself, when there is at least one.
    pub fn into_result(self) -> Result<(), Self> {
        if self.listed.is_empty() { Ok(()) } else { Err(self) }
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.listed.iter().enumerate() {
            if index > 0 {
                formatter.write_str("\n")?;
            }
            write!(formatter, "{mistake}")?;
        }
        if self.unlisted > 0 {
            write!(formatter, "\nand {} more", self.unlisted)?;
        }
        Ok(())
    }
}
