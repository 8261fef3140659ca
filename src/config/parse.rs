//! The kinds of values: each function makes the [`Key`] of one kind, with what may stand there said
//! in the same words to the reader of the documents and to the writer of a mistake.
//!
//! The environment gives text for everything, so every kind takes text too. Deliberately not here:
//! anything that needs two keys at once.

use core::fmt::Display;
use core::ops::RangeInclusive;
use core::str::FromStr;
use core::time::Duration;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use strum::VariantArray as _;

use super::key::{Form, Key, Raw, Refused, Scalar};
use super::names::{ASSET_NAME_BYTES_MAX, AssetName, PREFIX_BYTES_MAX, Prefix, ServerUrl};
use super::secret::{KeyFile, Secret, SecretFile};
use super::settings::Scopes;
use super::source::ReadFile;
use super::words::Listener;
use crate::keys;
use crate::profiles;
use crate::protocol::capabilities::{Declared, declared};
use crate::protocol::drift::Coherence;
use crate::protocol::envelope::{TERM_BYTES_MAX, is_term};
use crate::protocol::keyring::{KEY_ID_BYTES_MAX, is_key_id};
use crate::protocol::packet::{AttractorType, RUNTIME_ID_BYTES_MAX, RuntimeId};
use crate::protocol::profile::Profile;
use crate::protocol::schema;
use crate::protocol::time::Timestamp;

/// Largest key, token, credentials or certificate file, in bytes: a chain of certificates is the
/// longest of them.
const SECRET_FILE_BYTES_MAX: usize = 64 * 1024;
/// Most entries of a short list (servers, hosts, origins): more is a mistake of a template.
pub(super) const LIST_LEN_MAX: usize = 64;
/// Longest path or other text, in bytes: the longest path that Linux takes.
const TEXT_BYTES_MAX: usize = 4096;
/// Longest path of a Unix socket, in bytes: `sun_path` without its closing zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// Bytes of a bearer token: shorter ones can be guessed, longer ones do not fit a header line.
const TOKEN_BYTES: RangeInclusive<usize> = 16..=512;

/// A kind whose refusal says what may stand there.
fn kind<T: 'static>(
    form: Form,
    values: impl Into<String>,
    shape: Value,
    parse: impl Fn(&str) -> Option<T> + 'static,
) -> Key<T> {
    let values = values.into();
    let must = format!("must be {values}");
    Key::new(form, values, shape, move |scalar, _| {
        let is_right = form == Form::Bare || scalar.is_text;
        if !is_right {
            return Err("must be text: put it in quotes".into());
        }
        let short = Some(scalar.text.as_str()).filter(|text| text.len() <= TEXT_BYTES_MAX);
        short.and_then(&parse).ok_or_else(|| must.clone().into())
    })
}

/// One word of a closed list. A number or truth value is none of them.
pub(super) fn word<T: Copy + 'static>(words: &'static [(&'static str, T)]) -> Key<T> {
    let list: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    kind(Form::Quoted, format!("one of {}", list.join(", ")), json!({"enum": list}), |text| {
        words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value)
    })
}

pub(super) fn flag() -> Key<bool> {
    kind(Form::Bare, "true or false", schema::flag(), |text| text.parse().ok())
}

/// A whole number of `range`.
pub(super) fn integer<T>(range: RangeInclusive<T>) -> Key<T>
where
    T: FromStr + PartialOrd + Display + serde::Serialize + 'static,
{
    let values = format!("a whole number, {} to {}", range.start(), range.end());
    let shape = json!({"type": "integer", "minimum": range.start(), "maximum": range.end()});
    let within = move |number: &T| range.contains(number);
    kind(Form::Bare, values, shape, move |text| text.trim().parse().ok().filter(&within))
}

/// A whole number of a few.
pub(super) fn choice(numbers: &'static [u8]) -> Key<u8> {
    let list: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    kind(Form::Bare, format!("one of {}", list.join(", ")), json!({"enum": numbers}), |text| {
        text.trim().parse().ok().filter(|number| numbers.contains(number))
    })
}

/// A number above 0 and at most `max`.
pub(super) fn mark(max: f64) -> Key<f64> {
    let shape = json!({"type": "number", "exclusiveMinimum": 0, "maximum": max});
    kind(Form::Bare, format!("above 0 and at most {max}"), shape, move |text| {
        text.trim().parse().ok().filter(|number| *number > 0.0 && *number <= max)
    })
}

pub(super) fn coherence() -> Key<Coherence> {
    kind(Form::Bare, "above 0 and at most 1", schema::coherence(), |text| {
        Coherence::new(text.trim().parse().ok()?)
    })
}

/// Bytes from `min` to `max`: plain, or with `KiB`, `MiB` or `GiB`.
pub(super) fn size(min: &'static str, max: &'static str) -> Key<u64> {
    let values = format!("bytes, or a size such as \"64KiB\", {min} to {max}");
    let form = Form::Quoted;
    let range = read_size(min).zip(read_size(max));
    let (least, most) = range.unzip();
    let shape = json!({"anyOf": [
        {"type": "string", "pattern": "^ *[0-9]+ *([KMG]iB)? *$"},
        {"type": "integer", "minimum": least, "maximum": most}]});
    Key::new(form, values.clone(), shape, move |scalar, _| {
        let within = |bytes: &u64| range.is_some_and(|(min, max)| (min..=max).contains(bytes));
        let refused = || format!("must be {values}").into();
        read_size(&scalar.text).filter(within).ok_or_else(refused)
    })
}

fn read_size(text: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 4] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("", 1)];
    let text = text.trim();
    let of_unit = |(unit, factor): &(&str, u64)| {
        text.strip_suffix(unit)?.trim_end().parse::<u64>().ok()?.checked_mul(*factor)
    };
    UNITS.iter().find_map(of_unit)
}

/// A span of time from `min` to `max`: `"250ms"`, `"120s"`, `"5m"`, `"1h"`, `"2d"`, or a plain
/// number of seconds.
pub(super) fn duration(min: &'static str, max: &'static str) -> Key<Duration> {
    let values = format!("a duration such as \"90s\" or \"5m\", {min} to {max}");
    let range = read_duration(min).zip(read_duration(max));
    let (least, most) = range.map(|(min, max)| (min.as_secs_f64(), max.as_secs_f64())).unzip();
    let shape = json!({"anyOf": [
        {"type": "string", "pattern": "^ *([0-9]+ *(d|h|m|s|ms)|[0-9.]+) *$"},
        {"type": "number", "minimum": least, "maximum": most}]});
    Key::new(Form::Quoted, values.clone(), shape, move |scalar, _| {
        let within = |span: &Duration| range.is_some_and(|(min, max)| (min..=max).contains(span));
        let read = read_duration(scalar.text.trim()).filter(within);
        read.ok_or_else(|| format!("must be {values}").into())
    })
}

const DURATION_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

fn read_duration(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = text.get(digits.len()..)?;
    let digits = digits.trim_end();
    if unit.is_empty() {
        return Duration::try_from_secs_f64(digits.parse().ok()?).ok();
    }
    let (_, ms) = DURATION_UNITS.iter().find(|(name, _)| *name == unit)?;
    digits.parse::<u64>().ok()?.checked_mul(*ms).map(Duration::from_millis)
}

/// The shortest text that the duration parser reads back as the same span, to the millisecond.
#[must_use]
pub fn show_duration(span: Duration) -> String {
    let ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    DURATION_UNITS
        .iter()
        .filter(|_| ms > 0)
        .find(|(_, unit_ms)| ms % unit_ms == 0)
        .map_or_else(|| "0s".to_owned(), |(unit, unit_ms)| format!("{}{unit}", ms / unit_ms))
}

/// Several values: an array, or text with commas between the entries.
pub(super) fn list<T: 'static>(entry: Key<T>, len: RangeInclusive<usize>) -> Key<Vec<T>> {
    let values = format!("a list of at most {}, each {}", len.end(), entry.values);
    let form = Form::List(entry.form == Form::Quoted);
    let shape = json!({"anyOf": [
        {"type": "array", "items": entry.shape, "minItems": len.start(), "maxItems": len.end()},
        {"type": "string"}]});
    let parse = move |raw: &Raw, read_file: ReadFile<'_>| {
        let entries = match raw {
            Raw::Many(entries) => entries.clone(),
            Raw::One(Scalar { text, is_text: true }) => text
                .split(',')
                .map(str::trim)
                .filter(|entry| !entry.is_empty())
                .map(|entry| Scalar { text: entry.to_owned(), is_text: true })
                .collect(),
            Raw::One(_) => return Err(vec!["must be a list".into()]),
        };
        if !len.contains(&entries.len()) {
            let expected = format!("must have {} to {} entries", len.start(), len.end());
            return Err(vec![expected.into()]);
        }
        let (mut read, mut refused) = (Vec::new(), Vec::new());
        for (index, scalar) in entries.into_iter().enumerate() {
            match (entry.parse)(&Raw::One(scalar), read_file) {
                Ok(value) => read.push(value),
                Err(more) => {
                    let at = |refused| Refused { index: Some(index), ..refused };
                    refused.extend(more.into_iter().map(at));
                }
            }
        }
        if refused.is_empty() { Ok(read) } else { Err(refused) }
    };
    Key::of(form, values, shape, Box::new(parse))
}

fn some_text() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": TEXT_BYTES_MAX})
}

pub(super) fn path() -> Key<PathBuf> {
    kind(Form::Quoted, "a path", some_text(), |text| (!text.is_empty()).then(|| text.into()))
}

pub(super) fn runtime_id() -> Key<RuntimeId> {
    let values = format!("one NATS token: 1 to {RUNTIME_ID_BYTES_MAX} of A-Z a-z 0-9 _ -");
    kind(Form::Quoted, values, schema::runtime_id(), RuntimeId::new)
}

pub(super) fn attractor_type() -> Key<AttractorType> {
    let values = format!("one of {}", AttractorType::WORDS);
    kind(Form::Quoted, values, schema::words(AttractorType::VARIANTS), AttractorType::of_word)
}

/// A key id, or a stream name: the token characters of NATS, at most `bytes_max` of them.
fn one_token<T: 'static>(bytes_max: usize, make: fn(&str) -> Option<T>) -> Key<T> {
    let values = format!("1 to {bytes_max} of A-Z a-z 0-9 _ -");
    let shape = pattern(&format!("[A-Za-z0-9_-]{{1,{bytes_max}}}"));
    kind(Form::Quoted, values, shape, make)
}

/// The id of a key.
pub(super) fn key_id() -> Key<String> {
    one_token(KEY_ID_BYTES_MAX, |text| is_key_id(text).then(|| text.to_owned()))
}

/// A scope or a use of what is exchanged.
pub(super) fn term() -> Key<String> {
    one_token(TERM_BYTES_MAX, |text| is_term(text).then(|| text.to_owned()))
}

/// The name of a stream or domain.
pub(super) fn asset_name() -> Key<AssetName> {
    one_token(ASSET_NAME_BYTES_MAX, AssetName::new)
}

/// What is wholly so.
fn pattern(pattern: &str) -> Value {
    json!({"type": "string", "pattern": format!("^{pattern}$")})
}

/// A prefix of subjects, without wildcards.
pub(super) fn subject_prefix() -> Key<Prefix> {
    let values = format!(
        "tokens of A-Z a-z 0-9 _ - with dots between them, at most {PREFIX_BYTES_MAX} bytes"
    );
    let shape = pattern("[A-Za-z0-9_-]+([.][A-Za-z0-9_-]+)*");
    kind(Form::Quoted, values, shape, Prefix::new)
}

/// An address that must not hold a secret.
fn url<T: 'static>(values: &'static str, start: &str, parse: fn(&str) -> Option<T>) -> Key<T> {
    let shape = pattern(&format!("{start}[^@]+"));
    Key::new(Form::Quoted, values, shape, move |scalar, _| {
        if scalar.text.contains('@') {
            let expected = "must not hold a user, password or token: secrets come from files";
            return Err(Refused::secret(expected));
        }
        parse(&scalar.text).ok_or_else(|| format!("must be {values}").into())
    })
}

pub(super) fn server() -> Key<ServerUrl> {
    url("like nats://host:4222 or tls://host:4222", "((nats|tls)://)?", ServerUrl::new)
}

pub(super) fn http_url() -> Key<hyper::Uri> {
    url("like http://127.0.0.1:8080/path", "[Hh][Tt][Tt][Pp]://", |text| {
        let url = text.parse::<hyper::Uri>().ok();
        url.filter(|url| url.scheme_str() == Some("http") && url.host().is_some())
    })
}

/// An IP address and a port; what else there is to it only a parser can say.
const ADDRESS: &str = "([0-9.]+|\\[[0-9a-fA-F:.%]+\\]):[0-9]{1,5}";

pub(super) fn host_name() -> Key<String> {
    let values = "a host name of letters, digits, `.` and `-`, such as planner.svc";
    kind(Form::Quoted, values, pattern("[A-Za-z0-9]([A-Za-z0-9.-]{0,252})"), |text| {
        let is_part = |sign: char| sign.is_ascii_alphanumeric() || ".-".contains(sign);
        let is_name = text.starts_with(|sign: char| sign.is_ascii_alphanumeric());
        (is_name && text.len() <= 253 && text.chars().all(is_part)).then(|| text.to_owned())
    })
}

pub(super) fn socket_address() -> Key<SocketAddr> {
    let values = "an IP address and a port, such as 127.0.0.1:7406 or [::1]:7406";
    kind(Form::Quoted, values, pattern(ADDRESS), |text| text.parse().ok())
}

pub(super) fn listener() -> Key<Listener> {
    let values = format!(
        "an IP address and a port, or unix: and an absolute path of at most {SOCKET_PATH_BYTES_MAX} \
         bytes"
    );
    let shape = pattern(&format!("({ADDRESS}|unix:/.*)"));
    kind(Form::Quoted, values, shape, |text| match text.strip_prefix("unix:") {
        None => text.parse().ok().map(Listener::Tcp),
        Some(path) => (path.starts_with('/') && path.len() <= SOCKET_PATH_BYTES_MAX)
            .then(|| Listener::Unix(path.into())),
    })
}

const HOST: &str = "[A-Za-z0-9.\\-_:\\[\\]]+";

fn is_host(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    !text.is_empty() && text.bytes().all(allowed)
}

/// The value of a `Host` header, port and all.
pub(super) fn host() -> Key<String> {
    let values = "the exact value of a Host header, such as planner.example:7405";
    kind(Form::Quoted, values, pattern(HOST), |text| {
        is_host(text).then(|| text.to_ascii_lowercase())
    })
}

/// The value of an `Origin` header. `*` and `null` stand for anybody and are refused.
pub(super) fn origin() -> Key<String> {
    let values = "the exact value of an Origin header, such as https://console.example";
    kind(Form::Quoted, values, pattern(&format!("https?://{HOST}")), |text| {
        let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"))?;
        is_host(host).then(|| text.to_ascii_lowercase())
    })
}

pub(super) fn timestamp() -> Key<Timestamp> {
    let values = "a date and time such as 2027-01-01T00:00:00Z";
    kind(Form::Quoted, values, schema::date_time(), Timestamp::parse)
}

/// What a peer's `export` or `import` grants.
pub(super) fn scopes() -> Key<Scopes> {
    const WORDS: &[(&str, Scopes)] = &[
        ("state", Scopes { state: true, ..Scopes::NONE }),
        ("snapshot", Scopes { snapshot: true, ..Scopes::NONE }),
        ("telemetry", Scopes { telemetry: true, ..Scopes::NONE }),
    ];
    let words = list(word(WORDS), 0..=LIST_LEN_MAX);
    let shape = words.shape.clone();
    let parse = move |raw: &Raw, read_file: ReadFile<'_>| {
        let granted = (words.parse)(raw, read_file)?;
        Ok(granted.into_iter().fold(Scopes::NONE, Scopes::or))
    };
    let values = "a list of state, snapshot and telemetry".to_owned();
    Key::of(Form::List(true), values, shape, Box::new(parse))
}

/// A file that is there and not empty; what it holds is never shown.
pub(super) fn file() -> Key<PathBuf> {
    content("the path of a file", |_| Ok(())).map(|(path, ())| path)
}

/// A file with the nkey seed of a user.
pub(super) fn nkey_file() -> Key<PathBuf> {
    let seed = |content: &[u8]| {
        let text = core::str::from_utf8(content).unwrap_or_default().trim();
        nkeys::KeyPair::from_seed(text)
            .map(drop)
            .map_err(|_| "must hold an nkey seed (SU...)".into())
    };
    content("the path of a file with an nkey seed (SU...)", seed).map(|(path, ())| path)
}

/// A file with one bearer token (RFC 6750 section 2.1, `b64token`).
pub(super) fn token_file() -> Key<SecretFile> {
    let (start, end) = (TOKEN_BYTES.start(), TOKEN_BYTES.end());
    let form = format!("one token of {start} to {end} of A-Z a-z 0-9 - . _ ~ + / =");
    let values = format!("the path of a file with {form}");
    let token = move |content: &[u8]| {
        let token = content.trim_ascii();
        let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte);
        let fits = TOKEN_BYTES.contains(&token.len()) && token.iter().all(allowed);
        fits.then(|| Secret::new(token.to_vec())).ok_or_else(|| format!("must hold {form}"))
    };
    content(values, token).map(|(file, secret)| SecretFile { file, secret })
}

/// A file with a key, as `driftgate keygen` writes it.
pub(super) fn key_file() -> Key<KeyFile> {
    let values = "the path of a file with the base64 of 32 random bytes, a user nkey seed (SU...), \
                  or a peer's user nkey (U...)";
    let read = |content: &[u8]| {
        let secret = Secret::new(content.trim_ascii().to_vec());
        keys::material(content)
            .map(|material| (secret, material))
            .map_err(|fault| fault.to_string())
    };
    content(values, read)
        .map(|(file, (secret, material))| KeyFile { file: SecretFile { file, secret }, material })
}

/// The name of a built-in profile, or the path of a profile file.
pub(super) fn profile() -> Key<Profile> {
    let built_in = profiles::names().join(", ");
    let values = format!("one of {built_in}, or the path of a profile");
    let must = format!("must be {values}");
    Key::new(Form::Quoted, values, some_text(), move |scalar, read_file| {
        let name = &scalar.text;
        if profiles::names().contains(&name.as_str()) {
            return profiles::load(name).map_err(|fault| fault.to_string().into());
        }
        if !name.contains(['/', '.']) {
            return Err(must.clone().into());
        }
        let content = read(Path::new(name), read_file)?;
        profiles::parse(&String::from_utf8_lossy(&content))
            .map_err(|fault| format!("the file {name} is no profile: {fault}").into())
    })
}

/// The path of a `runtime_capabilities.yml`.
pub(super) fn capabilities() -> Key<(PathBuf, Declared)> {
    content("the path of a runtime_capabilities.yml", |content| {
        declared(content).map_err(|mistakes| {
            let mistakes: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
            format!("is no runtime_capabilities.yml: {}", mistakes.join("; "))
        })
    })
}

fn content<T: 'static>(
    values: impl Into<String>,
    look: impl Fn(&[u8]) -> Result<T, String> + 'static,
) -> Key<(PathBuf, T)> {
    Key::new(Form::Quoted, values, some_text(), move |scalar, read_file| {
        let path = PathBuf::from(&scalar.text);
        let found = look(&read(&path, read_file)?);
        let found = found.map_err(|problem| format!("the file {} {problem}", path.display()))?;
        Ok((path, found))
    })
}

/// The content of a file that some key names.
fn read(path: &Path, read_file: ReadFile<'_>) -> Result<Vec<u8>, Refused> {
    let problem = match read_file(path) {
        Ok(content) if content.is_empty() => "is empty".to_owned(),
        Ok(content) if content.len() > SECRET_FILE_BYTES_MAX => {
            format!("is larger than {SECRET_FILE_BYTES_MAX} bytes")
        }
        Ok(content) => return Ok(content),
        Err(error) => format!("cannot be read: {error}"),
    };
    Err(format!("the file {} {problem}", path.display()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_read_in_every_unit_and_shown_so_that_it_reads_back() {
        for (text, ms) in [
            ("250ms", 250),
            ("120s", 120_000),
            ("90", 90_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("2 d", 172_800_000),
            ("0s", 0),
        ] {
            let span = Duration::from_millis(ms);
            assert_eq!(read_duration(text), Some(span), "{text}");
            assert_eq!(read_duration(&show_duration(span)), Some(span), "{text}");
        }
        assert_eq!(show_duration(Duration::from_secs(120)), "2m");
        for text in ["", "s", "1.5s", "-1s", "1 fortnight", "99999999999999999999s", "1s2"] {
            assert_eq!(read_duration(text), None, "{text}");
        }
    }

    #[test]
    fn a_size_is_read_with_and_without_a_unit() {
        let read = read_size;
        assert_eq!(read("262144"), Some(262_144));
        assert_eq!(read("256KiB"), Some(262_144));
        assert_eq!(read("2 GiB"), Some(2 << 30));
        for text in ["", "KiB", "1KB", "-1", "1.5MiB", "99999999999GiB"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
