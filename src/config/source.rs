//! Where values come from: files, then the environment, merged by the `config` crate.
//!
//! A later file wins over an earlier one and the environment over both. Tables are merged key by
//! key; a list is replaced whole. Deliberately not here: what the keys mean.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use config::{ConfigError, Environment, FileFormat, Format as _, Map, Source, Value, ValueKind};

use super::mistake::{Mistake, Mistakes};
use crate::protocol::canonical::Json;

/// Largest configuration file, in bytes: 10,000 peers in YAML take about 2 MiB.
const CONFIG_FILE_BYTES_MAX: u64 = 8 << 20;

/// Reads a whole file. Tests give files that exist nowhere.
pub type ReadFile<'a> = &'a dyn Fn(&Path) -> io::Result<Vec<u8>>;

/// What every variable of ours begins with. Two underscores, because the kubelet sets
/// `DRIFTGATE_SERVICE_HOST` and the like for a service named `driftgate`.
pub const ENVIRONMENT_PREFIX: &str = "DRIFTGATE__";

/// What the `config` crate says a value of the environment came from.
const ENVIRONMENT_ORIGIN: &str = "the environment";

/// Reads a file from disk, at most `CONFIG_FILE_BYTES_MAX` bytes of it.
///
/// # Errors
/// Those of the operating system, and one of its own for a file that is too large.
pub fn read_from_disk(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let bytes_max = CONFIG_FILE_BYTES_MAX;
    let read = std::fs::File::open(path)?.take(bytes_max + 1).read_to_end(&mut content)?;
    if u64::try_from(read).is_ok_and(|read| read <= bytes_max) {
        return Ok(content);
    }
    Err(io::Error::other(format!("larger than {bytes_max} bytes")))
}

/// The variables of a process, as text. One that is not UTF-8 is none of ours, or a mistake.
///
/// # Errors
/// Every variable with our prefix and a value, or a name, that is not UTF-8.
pub fn environment(
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<BTreeMap<String, String>, Mistakes> {
    let (mut read, mut mistakes) = (BTreeMap::new(), Mistakes::default());
    for (name, value) in variables {
        match (name.into_string(), value.into_string()) {
            (Ok(name), Ok(value)) => {
                read.insert(name, value);
            }
            (name, _) => {
                let name = name.unwrap_or_else(|name| name.to_string_lossy().into_owned());
                if name.starts_with(ENVIRONMENT_PREFIX) {
                    mistakes.push(Mistake::new(name, "is not UTF-8"));
                }
            }
        }
    }
    mistakes.into_result().map(|()| read)
}

/// The variables of `environment` that are ours.
fn ours(environment: &BTreeMap<String, String>, mistakes: &mut Mistakes) -> Map<String, String> {
    let mut own = Map::new();
    for (name, value) in environment {
        match name.strip_prefix(ENVIRONMENT_PREFIX) {
            Some(key) if is_plain(key) => {
                own.insert(name.clone(), value.clone());
            }
            Some(_) => mistakes.push(Mistake::new(name.as_str(), "is not a key")),
            None => {}
        }
    }
    own
}

/// Whether the `config` crate takes a key of the top level for what it is. It would read `a.b` and
/// `a[9]` as paths, and grow a list to whatever length such a path names.
fn is_plain(key: &str) -> bool {
    key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// The name of the variable that sets `key`, when that is where the value came from.
pub(super) fn origin_of(origin: &str, key: &str) -> String {
    if origin != ENVIRONMENT_ORIGIN {
        return origin.to_owned();
    }
    let end = key.find('[').unwrap_or(key.len());
    let name = key.get(..end).unwrap_or(key).to_ascii_uppercase().replace('.', "__");
    format!("{ENVIRONMENT_PREFIX}{name}")
}

/// Merges all layers into one tree.
///
/// # Errors
/// Every file that cannot be read or parsed.
pub(super) fn merge(
    files: &[PathBuf],
    environment: &BTreeMap<String, String>,
    read_file: ReadFile<'_>,
) -> Result<BTreeMap<String, Value>, Mistakes> {
    let mut mistakes = Mistakes::default();
    let mut builder = config::Config::builder();
    for path in files {
        match parse_file(path, read_file) {
            Ok(table) => builder = builder.add_source(Table(table)),
            Err(problem) => mistakes.push(Mistake::new(path.display().to_string(), problem)),
        }
    }
    let own = ours(environment, &mut mistakes);
    mistakes.into_result()?;
    // No parsing of the crate's own: it would turn the text 007 into the number 7.
    let variables = Environment::with_prefix(ENVIRONMENT_PREFIX.trim_end_matches('_'))
        .prefix_separator("__")
        .separator("__")
        .try_parsing(false)
        .source(Some(own));
    let merged = builder.add_source(variables).build().and_then(|merged| merged.collect());
    merged.map(|table| table.into_iter().collect()).map_err(|error| {
        let mut mistakes = Mistakes::default();
        mistakes.push(Mistake::new("configuration", error.to_string()));
        mistakes
    })
}

/// Reads one file; by its ending it is TOML or YAML.
fn parse_file(path: &Path, read_file: ReadFile<'_>) -> Result<Map<String, Value>, String> {
    let ending = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    if !["toml", "yaml", "yml"].contains(&ending) {
        return Err("must end in .toml, .yaml or .yml".to_owned());
    }
    let content = read_file(path).map_err(|error| format!("cannot be read: {error}"))?;
    let text = String::from_utf8(content).map_err(|_| "is not UTF-8".to_owned())?;
    let name = path.display().to_string();
    let parsed = if ending == "toml" {
        FileFormat::Toml.parse(Some(&name), &text).map_err(|error| error.to_string())
    } else {
        parse_yaml(&name, &text)
    };
    let table = parsed.map_err(|problem| format!("cannot be parsed: {}", problem.trim_end()))?;
    match table.keys().find(|key| !is_plain(key)) {
        Some(key) => Err(format!("{key:?} is not a key")),
        None => Ok(table),
    }
}

/// YAML by the reader of reports, which bounds depth and size and refuses aliases: a few hundred
/// bytes of them would grow until the process is out of memory, on a reload of a running one too.
fn parse_yaml(name: &String, text: &str) -> Result<Map<String, Value>, String> {
    let document = Json::from_yaml(text).map_err(|fault| fault.to_string())?;
    match document {
        Json::Object(_) => value_of(name, document).into_table().map_err(|error| error.to_string()),
        Json::Null => Ok(Map::new()),
        Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Array(_) => {
            Err("must be a table of keys".to_owned())
        }
    }
}

fn value_of(name: &String, document: Json) -> Value {
    let kind = match document {
        Json::Null => ValueKind::Nil,
        Json::Bool(flag) => ValueKind::Boolean(flag),
        Json::Number(number) => ValueKind::Float(number),
        Json::String(text) => ValueKind::String(text),
        Json::Array(entries) => {
            ValueKind::Array(entries.into_iter().map(|entry| value_of(name, entry)).collect())
        }
        Json::Object(entries) => ValueKind::Table(
            entries.into_iter().map(|(key, entry)| (key, value_of(name, entry))).collect(),
        ),
    };
    Value::new(Some(name), kind)
}

/// A parsed file, as a source of the `config` crate.
#[derive(Clone, Debug)]
struct Table(Map<String, Value>);

impl Source for Table {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.0.clone())
    }
}
