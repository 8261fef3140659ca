//! One table of the merged configuration, read key by key.
//!
//! Every key that is asked for counts as known; what is left over at the end is a mistake. A
//! mistake is noted and reading goes on, so that all of them are found in one run. That is why the
//! tables are read here and not through serde, which stops at its first error.

use std::collections::{BTreeMap, BTreeSet};

use config::{Value, ValueKind};

use super::key::{Absent, Key, Raw, Scalar, Section};
use super::mistake::{Mistake, Mistakes};
use super::source::{self, ReadFile};

/// What reading needs from outside, and what it finds.
pub(super) struct Reader<'a> {
    pub(super) read_file: ReadFile<'a>,
    pub(super) mistakes: Mistakes,
    /// The full name of every key that was there, whatever became of it.
    pub(super) given: BTreeSet<String>,
    /// The ids of all keys, usable or not, for what refers to them.
    pub(super) key_ids: BTreeSet<String>,
}

/// One table.
pub(super) struct Table<'a, 'b> {
    reader: &'a mut Reader<'b>,
    /// Its name with those above it, empty for the root.
    path: String,
    values: BTreeMap<String, Value>,
    known: Vec<&'static str>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(read_file: ReadFile<'a>) -> Self {
        let (mistakes, given, key_ids) = <(Mistakes, BTreeSet<_>, BTreeSet<_>)>::default();
        Self { read_file, mistakes, given, key_ids }
    }
}

impl<'a, 'b> Table<'a, 'b> {
    /// The whole configuration.
    pub(super) fn root(reader: &'a mut Reader<'b>, values: BTreeMap<String, Value>) -> Self {
        Self { reader, path: String::new(), values, known: Vec::new() }
    }

    /// The full name of a key of this table.
    fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Remembers the id of a key; says whether it is a new one.
    pub(super) fn is_new_key(&mut self, id: &str) -> bool {
        self.reader.key_ids.insert(id.to_owned())
    }

    /// Notes a mistake about a key of this table.
    pub(super) fn refuse(&mut self, key: &str, problem: impl Into<String>) {
        let mistake = Mistake::new(self.name(key), problem);
        self.reader.mistakes.push(mistake);
    }

    /// The text of a key, which stays to be read.
    pub(super) fn peek(&self, key: &str) -> Option<String> {
        scalar(self.values.get(key)?.kind.clone()).map(|scalar| scalar.text)
    }

    /// Takes a key out. A null counts as absent, so that YAML can name a key and leave it empty.
    fn take(&mut self, key: &'static str) -> Option<Value> {
        self.known.push(key);
        let value = self.values.remove(key).filter(|value| value.kind != ValueKind::Nil)?;
        self.reader.given.insert(self.name(key));
        Some(value)
    }

    /// One key. A refused value is noted and what stands for an absent one used in its place, only
    /// to go on looking: a configuration with a mistake is thrown away.
    pub(super) fn read<T: 'static>(&mut self, name: &'static str, key: Key<T>) -> Option<T> {
        if let Some(value) = self.take(name) {
            let origin = value.origin().map(|origin| source::origin_of(origin, &self.name(name)));
            let refused = match raw(value) {
                Ok(raw) => match (key.parse)(&raw, self.reader.read_file) {
                    Ok(parsed) => return Some(parsed),
                    Err(refused) => refused,
                },
                Err(problem) => vec![problem.into()],
            };
            for refused in refused {
                let index = refused.index.map(|index| format!("[{index}]")).unwrap_or_default();
                self.reader.mistakes.push(Mistake {
                    key: self.name(name) + &index,
                    problem: refused.expected,
                    value: refused.shown,
                    origin: origin.clone(),
                });
            }
        } else if let Absent::Mistake(hint, _) = key.absent {
            self.refuse(name, format!("is required: {hint}"));
        }
        key.when_absent(self.reader.read_file)
    }

    /// A list of tables, each read by `read`. The environment cannot give one.
    pub(super) fn each(
        &mut self,
        key: &'static str,
        len_max: usize,
        mut read: impl FnMut(&mut Table<'_, 'b>),
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
            self.table(format!("{}[{index}]", self.name(key)), Some(entry), &mut read);
        }
    }

    /// A section below this table; an absent one is read as empty.
    pub(super) fn section<S: Section>(&mut self) -> Option<S> {
        self.within(S::PATH.rsplit('.').next().unwrap_or(S::PATH), S::read)
    }

    /// A table below this one, read by `read`; an absent one is read as empty.
    pub(super) fn within<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Table<'_, 'b>) -> T,
    ) -> T {
        let value = self.take(key);
        self.table(self.name(key), value, read)
    }

    fn table<T>(
        &mut self,
        path: String,
        value: Option<Value>,
        read: impl FnOnce(&mut Table<'_, 'b>) -> T,
    ) -> T {
        let values = match value.map(|value| value.kind) {
            Some(ValueKind::Table(values)) => values.into_iter().collect(),
            Some(_) => {
                self.reader.mistakes.push(Mistake::new(path.as_str(), "must be a table of keys"));
                BTreeMap::new()
            }
            None => BTreeMap::new(),
        };
        let mut table = Table { reader: &mut *self.reader, path, values, known: Vec::new() };
        let found = read(&mut table);
        table.finish();
        found
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

/// A value as it was written.
fn raw(value: Value) -> Result<Raw, &'static str> {
    if let ValueKind::Array(entries) = value.kind {
        let one = |entry: Value| scalar(entry.kind).ok_or("must be a list of single values");
        return Ok(Raw::Many(entries.into_iter().map(one).collect::<Result<_, _>>()?));
    }
    let one = scalar(value.kind).ok_or("must be a single value, not a list or a table")?;
    Ok(Raw::One(one))
}

fn scalar(kind: ValueKind) -> Option<Scalar> {
    let (text, is_text) = match kind {
        ValueKind::String(text) => (text, true),
        ValueKind::Boolean(flag) => (flag.to_string(), false),
        ValueKind::I64(number) => (number.to_string(), false),
        ValueKind::I128(number) => (number.to_string(), false),
        ValueKind::U64(number) => (number.to_string(), false),
        ValueKind::U128(number) => (number.to_string(), false),
        ValueKind::Float(number) => (number.to_string(), false),
        ValueKind::Nil | ValueKind::Table(_) | ValueKind::Array(_) => return None,
    };
    Some(Scalar { text, is_text })
}

/// The known key that takes the fewest edits, if it takes few enough to be what was meant.
fn nearest<'k>(key: &str, known: &[&'k str]) -> Option<&'k str> {
    const EDITS_MAX: usize = 2;
    const KEY_BYTES_MAX: usize = 64;
    let is_close = |(edits, known): &(usize, &str)| *edits <= EDITS_MAX.min(known.len() / 2);
    let short = Some(key).filter(|key| key.len() <= KEY_BYTES_MAX)?;
    let edits = known.iter().map(|known| (strsim::levenshtein(short, known), *known));
    edits.filter(is_close).min().map(|(_, known)| known)
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
