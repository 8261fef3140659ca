//! One table of the merged configuration, read key by key.
//!
//! Every key that is asked for counts as known; what is left over at the end is a mistake. A
//! mistake is noted and reading goes on, so that all of them are found in one run. That is why the
//! tables are read here and not through serde, which stops at its first error.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use config::{Value, ValueKind};

use super::limit;
use super::mistake::{Mistake, Mistakes};
use super::parse::{self, Parsed, Scalar};
use super::source::{self, ReadFile};

/// What reading needs from outside, and what it finds.
pub(super) struct Reader<'a> {
    pub(super) read_file: ReadFile<'a>,
    pub(super) mistakes: Mistakes,
}

/// One table.
pub(super) struct Section<'a, 'b> {
    reader: &'a mut Reader<'b>,
    /// Its name with those above it, empty for the root.
    path: String,
    values: BTreeMap<String, Value>,
    known: Vec<&'static str>,
    present: Vec<&'static str>,
}

impl<'a, 'b> Section<'a, 'b> {
    /// The whole configuration.
    pub(super) fn root(reader: &'a mut Reader<'b>, values: BTreeMap<String, Value>) -> Self {
        Self { reader, path: String::new(), values, known: Vec::new(), present: Vec::new() }
    }

    /// The full name of a key of this table.
    pub(super) fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Whether a key is there and has not been read yet.
    pub(super) fn has(&self, key: &str) -> bool {
        self.values.get(key).is_some_and(|value| value.kind != ValueKind::Nil)
    }

    /// Whether a key that was asked for was there, whatever became of it.
    pub(super) fn has_read(&self, key: &str) -> bool {
        self.present.contains(&key)
    }

    /// Notes a mistake about a key, or about two of them.
    pub(super) fn refuse(&mut self, key: &str, problem: impl Into<String>) {
        let mistake = Mistake::new(self.name(key), problem);
        self.reader.mistakes.push(mistake);
    }

    /// Takes a key out. A null counts as absent, so that YAML can name a key and leave it empty.
    fn take(&mut self, key: &'static str) -> Option<Value> {
        self.known.push(key);
        let value = self.values.remove(key).filter(|value| value.kind != ValueKind::Nil)?;
        self.present.push(key);
        Some(value)
    }

    /// One value; `None` when it is absent or was refused.
    pub(super) fn read<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&Scalar) -> Parsed<T>,
    ) -> Option<T> {
        let value = self.take(key)?;
        let name = self.name(key);
        self.scalar(name, value, parse)
    }

    /// One value that has no default; `hint` says what belongs there.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        hint: &str,
        parse: impl FnOnce(&Scalar) -> Parsed<T>,
    ) -> Option<T> {
        if !self.has(key) {
            self.refuse(key, format!("is required: {hint}"));
        }
        self.read(key, parse)
    }

    /// A list of values: an array, or text with commas between the entries. `None` when it is
    /// absent or any of them was refused.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&Scalar) -> Parsed<T>,
    ) -> Option<Vec<T>> {
        let value = self.take(key)?;
        let origin = value.origin().map(str::to_owned);
        let entries = match value.kind {
            ValueKind::Array(entries) => entries,
            ValueKind::String(text) => text
                .split(',')
                .map(str::trim)
                .filter(|entry| !entry.is_empty())
                .map(|entry| Value::new(origin.as_ref(), entry))
                .collect(),
            ValueKind::Nil
            | ValueKind::Boolean(_)
            | ValueKind::I64(_)
            | ValueKind::I128(_)
            | ValueKind::U64(_)
            | ValueKind::U128(_)
            | ValueKind::Float(_)
            | ValueKind::Table(_) => {
                self.refuse(key, "must be a list");
                return None;
            }
        };
        if entries.len() > limit::LIST_LEN_MAX {
            self.refuse(key, format!("must have at most {} entries", limit::LIST_LEN_MAX));
            return None;
        }
        let name = self.name(key);
        let len = entries.len();
        let read = |(index, entry)| self.scalar(format!("{name}[{index}]"), entry, &parse);
        let read: Vec<T> = entries.into_iter().enumerate().filter_map(read).collect();
        (read.len() == len).then_some(read)
    }

    /// A list of tables, each read by `read`. The environment cannot give one.
    pub(super) fn each(
        &mut self,
        key: &'static str,
        len_max: usize,
        mut read: impl FnMut(&mut Section<'_, 'b>),
    ) {
        let Some(value) = self.take(key) else { return };
        let ValueKind::Array(entries) = value.kind else {
            self.refuse(key, "must be a list of tables, which only a file can hold");
            return;
        };
        if entries.len() > len_max {
            self.refuse(key, format!("must have at most {len_max} entries, not {}", entries.len()));
            return;
        }
        for (index, entry) in entries.into_iter().enumerate() {
            let name = format!("{}[{index}]", self.name(key));
            self.table(name, Some(entry), &mut read);
        }
    }

    /// A table below this one; an absent one is read as empty.
    pub(super) fn within<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Section<'_, 'b>) -> T,
    ) -> T {
        let value = self.take(key);
        self.table(self.name(key), value, read)
    }

    /// A table below this one, if it is there.
    pub(super) fn if_within<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Section<'_, 'b>) -> Option<T>,
    ) -> Option<T> {
        let value = self.take(key)?;
        self.table(self.name(key), Some(value), read)
    }

    fn table<T>(
        &mut self,
        path: String,
        value: Option<Value>,
        read: impl FnOnce(&mut Section<'_, 'b>) -> T,
    ) -> T {
        let values = match value.map(|value| value.kind) {
            Some(ValueKind::Table(values)) => values.into_iter().collect(),
            Some(_) => {
                self.reader.mistakes.push(Mistake::new(path.as_str(), "must be a table of keys"));
                BTreeMap::new()
            }
            None => BTreeMap::new(),
        };
        let mut section = Section {
            reader: &mut *self.reader,
            path,
            values,
            known: Vec::new(),
            present: Vec::new(),
        };
        let found = read(&mut section);
        section.finish();
        found
    }

    /// A file that is named by a key, and its content. What it holds is never shown.
    pub(super) fn file(&mut self, key: &'static str) -> Option<(PathBuf, Vec<u8>)> {
        let path = self.read(key, parse::path)?;
        let content = self.content(key, &path)?;
        Some((path, content))
    }

    /// The content of a file that some key names.
    pub(super) fn content(&mut self, key: &str, path: &Path) -> Option<Vec<u8>> {
        let problem = match (self.reader.read_file)(path) {
            Ok(content) if content.is_empty() => "is empty".to_owned(),
            Ok(content) if content.len() > limit::SECRET_FILE_BYTES_MAX => {
                format!("is larger than {} bytes", limit::SECRET_FILE_BYTES_MAX)
            }
            Ok(content) => return Some(content),
            Err(error) => format!("cannot be read: {error}"),
        };
        self.refuse(key, format!("the file {} {problem}", path.display()));
        None
    }

    fn scalar<T>(
        &mut self,
        name: String,
        value: Value,
        parse: impl FnOnce(&Scalar) -> Parsed<T>,
    ) -> Option<T> {
        let origin = value.origin().map(|origin| source::origin_of(origin, &name));
        let scalar = match value.kind {
            ValueKind::Boolean(flag) => Scalar::Flag(flag),
            ValueKind::I64(number) => Scalar::Integer(number.into()),
            ValueKind::I128(number) => Scalar::Integer(number),
            ValueKind::U64(number) => Scalar::Integer(number.into()),
            // No key takes a number of this size; the largest one is refused by every range.
            ValueKind::U128(number) => Scalar::Integer(i128::try_from(number).unwrap_or(i128::MAX)),
            ValueKind::Float(number) => Scalar::Float(number),
            ValueKind::String(text) => Scalar::Text(text),
            ValueKind::Nil | ValueKind::Table(_) | ValueKind::Array(_) => {
                let problem = "must be a single value, not a list or a table".to_owned();
                self.reader.mistakes.push(Mistake { key: name, problem, value: None, origin });
                return None;
            }
        };
        match parse(&scalar) {
            Ok(parsed) => Some(parsed),
            Err(refused) => {
                let value = (!refused.secret).then(|| scalar.shown());
                let problem = refused.expected;
                self.reader.mistakes.push(Mistake { key: name, problem, value, origin });
                None
            }
        }
    }

    /// Whatever was not asked for is a mistake. Its value is not shown: it may be a secret that was
    /// written where none belongs.
    pub(super) fn finish(&mut self) {
        for (key, value) in core::mem::take(&mut self.values) {
            let name = self.name(&key);
            let origin = value.origin().map(|origin| source::origin_of(origin, &name));
            let problem = match nearest(&key, &self.known) {
                Some(known) => format!("is not a key; did you mean {}?", self.name(known)),
                None => format!("is not a key; the keys here are {}", self.known.join(", ")),
            };
            self.reader.mistakes.push(Mistake { key: name, problem, value: None, origin });
        }
    }
}

/// The known key that takes the fewest edits, if it takes few enough to be what was meant.
fn nearest<'k>(key: &str, known: &[&'k str]) -> Option<&'k str> {
    const EDITS_MAX: usize = 2;
    let close = |candidate: &&&str| edits(key, candidate) <= EDITS_MAX.min(candidate.len() / 2);
    known.iter().filter(close).min_by_key(|candidate| edits(key, candidate)).copied()
}

/// Levenshtein distance over bytes; keys are short.
fn edits(from: &str, to: &str) -> usize {
    const KEY_BYTES_MAX: usize = 64;
    if from.len() > KEY_BYTES_MAX {
        return KEY_BYTES_MAX;
    }
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, byte) in from.bytes().enumerate() {
        let mut left = line + 1;
        let mut next = vec![left];
        for (other, above) in to.bytes().zip(row.windows(2)) {
            let (diagonal, up) = match above {
                [diagonal, up] => (*diagonal, *up),
                _ => (left, left),
            };
            left = (diagonal + usize::from(byte != other)).min(up + 1).min(left + 1);
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(KEY_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_key_is_told_from_a_foreign_one() {
        let known = ["prefix", "provision", "url", "replicas"];
        assert_eq!(nearest("prefx", &known), Some("prefix"));
        assert_eq!(nearest("replica", &known), Some("replicas"));
        assert_eq!(nearest("urls", &known), Some("url"));
        assert_eq!(nearest("password", &known), None);
        assert_eq!(nearest(&"x".repeat(10_000), &known), None);
    }
}
