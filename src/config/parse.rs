//! One value of a file or of the environment, read into a type that cannot be wrong.
//!
//! Each parser says on refusal what would be right; `section.rs` adds the key, the value and where
//! it stands. Deliberately not here: anything that needs two keys at once.

use core::fmt::Display;
use core::ops::RangeInclusive;
use core::time::Duration;
use std::net::SocketAddr;
use std::path::PathBuf;

use async_nats::ServerAddr;

use super::limit;
use super::settings::{Listener, Scopes};
use super::word::Word;
use crate::protocol::packet::{AttractorType, RUNTIME_ID_BYTES_MAX, RuntimeId};
use crate::protocol::time::Timestamp;

/// A value that is neither a table nor a list. The environment gives text for everything, so every
/// parser takes text too; none takes a number for text, since YAML reads `007` as 7.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scalar {
    Flag(bool),
    Integer(i128),
    Float(f64),
    Text(String),
}

/// Why a value was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// What would be right.
    pub(super) expected: String,
    /// Whether the value may be a secret and must not be shown.
    pub(super) secret: bool,
}

impl<T: Into<String>> From<T> for Refused {
    fn from(expected: T) -> Self {
        Self { expected: expected.into(), secret: false }
    }
}

pub(super) type Parsed<T> = Result<T, Refused>;

impl Scalar {
    /// The value as a message shows it, cut to a length that fits a line.
    pub(super) fn shown(&self) -> String {
        const SHOWN_CHARS_MAX: usize = 80;
        match self {
            Self::Flag(flag) => flag.to_string(),
            Self::Integer(number) => number.to_string(),
            Self::Float(number) => number.to_string(),
            Self::Text(text) if text.chars().count() > SHOWN_CHARS_MAX => {
                let start: String = text.chars().take(SHOWN_CHARS_MAX).collect();
                format!("{start:?}...")
            }
            Self::Text(text) => format!("{text:?}"),
        }
    }

    fn text(&self) -> Parsed<&str> {
        match self {
            Self::Text(text) if text.len() > limit::TEXT_BYTES_MAX => {
                Err(format!("must have at most {} bytes", limit::TEXT_BYTES_MAX).into())
            }
            Self::Text(text) => Ok(text),
            Self::Flag(_) | Self::Integer(_) | Self::Float(_) => {
                Err("must be text: put it in quotes".into())
            }
        }
    }

    fn integer(&self) -> Option<i128> {
        match self {
            Self::Integer(number) => Some(*number),
            Self::Text(text) => text.trim().parse().ok(),
            Self::Flag(_) | Self::Float(_) => None,
        }
    }
}

/// One of the words of `T`.
pub(super) fn word<T: Word>(scalar: &Scalar) -> Parsed<T> {
    let found = match scalar {
        Scalar::Text(text) => T::WORDS.iter().find(|(word, _)| word == text),
        Scalar::Flag(_) | Scalar::Integer(_) | Scalar::Float(_) => None,
    };
    found.map(|(_, value)| *value).ok_or_else(|| {
        let words: Vec<&str> = T::WORDS.iter().map(|(word, _)| *word).collect();
        format!("must be one of {}", words.join(", ")).into()
    })
}

pub(super) fn flag(scalar: &Scalar) -> Parsed<bool> {
    match scalar {
        Scalar::Flag(flag) => Ok(*flag),
        Scalar::Text(text) if text == "true" => Ok(true),
        Scalar::Text(text) if text == "false" => Ok(false),
        Scalar::Text(_) | Scalar::Integer(_) | Scalar::Float(_) => {
            Err("must be true or false".into())
        }
    }
}

/// Any number that is not an error of the format; the caller knows the range.
pub(super) fn number(scalar: &Scalar) -> Parsed<f64> {
    match scalar {
        Scalar::Float(number) => Some(*number),
        Scalar::Integer(number) => i32::try_from(*number).ok().map(f64::from),
        Scalar::Text(text) => text.trim().parse().ok(),
        Scalar::Flag(_) => None,
    }
    .filter(|number| number.is_finite())
    .ok_or_else(|| "must be a number".into())
}

/// A whole number in `range`.
pub(super) fn integer<T>(range: RangeInclusive<T>) -> impl FnOnce(&Scalar) -> Parsed<T>
where
    T: TryFrom<i128> + PartialOrd + Display,
{
    move |scalar| {
        scalar
            .integer()
            .and_then(|number| T::try_from(number).ok())
            .filter(|number| range.contains(number))
            .ok_or_else(|| {
                format!("must be a whole number, {} to {}", range.start(), range.end()).into()
            })
    }
}

/// A number of bytes in `range`: plain, or with `KiB`, `MiB` or `GiB`.
pub(super) fn size(range: RangeInclusive<u64>) -> impl FnOnce(&Scalar) -> Parsed<u64> {
    const UNITS: [(&str, u64); 3] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
    move |scalar| {
        let plain = || scalar.integer().and_then(|number| u64::try_from(number).ok());
        let with_unit = || match scalar {
            Scalar::Text(text) => UNITS.iter().find_map(|(unit, factor)| {
                let digits = text.trim().strip_suffix(unit)?.trim_end();
                digits.parse::<u64>().ok()?.checked_mul(*factor)
            }),
            Scalar::Flag(_) | Scalar::Integer(_) | Scalar::Float(_) => None,
        };
        plain().or_else(with_unit).filter(|bytes| range.contains(bytes)).ok_or_else(|| {
            format!(
                "must be a size such as 65536 or \"64KiB\", {} to {} bytes",
                range.start(),
                range.end()
            )
            .into()
        })
    }
}

/// A span of time in `range`: `"250ms"`, `"120s"`, `"5m"`, `"1h"`, `"2d"`, or a plain number of
/// seconds.
pub(super) fn duration(
    range: RangeInclusive<Duration>,
) -> impl FnOnce(&Scalar) -> Parsed<Duration> {
    move |scalar| {
        let read = match scalar {
            Scalar::Text(text) => read_duration(text.trim()),
            Scalar::Integer(number) => u64::try_from(*number).ok().map(Duration::from_secs),
            Scalar::Float(number) => Duration::try_from_secs_f64(*number).ok(),
            Scalar::Flag(_) => None,
        };
        read.filter(|span| range.contains(span)).ok_or_else(|| {
            let (start, end) = (show_duration(*range.start()), show_duration(*range.end()));
            format!("must be a duration such as \"90s\" or \"5m\", {start} to {end}").into()
        })
    }
}

const DURATION_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

fn read_duration(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = text.get(digits.len()..)?;
    let number: u64 = digits.trim_end().parse().ok()?;
    let ms = match unit {
        "" => number.checked_mul(1000)?,
        _ => {
            let (_, ms) = DURATION_UNITS.iter().find(|(name, _)| *name == unit)?;
            number.checked_mul(*ms)?
        }
    };
    Some(Duration::from_millis(ms))
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

/// Any text but the empty one.
pub(super) fn text(scalar: &Scalar) -> Parsed<String> {
    match scalar.text()? {
        "" => Err("must not be empty".into()),
        text => Ok(text.to_owned()),
    }
}

pub(super) fn path(scalar: &Scalar) -> Parsed<PathBuf> {
    text(scalar).map(PathBuf::from)
}

pub(super) fn runtime_id(scalar: &Scalar) -> Parsed<RuntimeId> {
    RuntimeId::new(scalar.text()?).ok_or_else(|| {
        format!("must be one NATS token: 1 to {RUNTIME_ID_BYTES_MAX} of A-Z a-z 0-9 _ -").into()
    })
}

pub(super) fn attractor_type(scalar: &Scalar) -> Parsed<AttractorType> {
    AttractorType::of_word(scalar.text()?)
        .ok_or_else(|| format!("must be one of {}", AttractorType::WORDS).into())
}

/// A key id, or a stream name: the token characters of NATS, at most `bytes_max` of them.
pub(super) fn token(bytes_max: usize) -> impl Fn(&Scalar) -> Parsed<String> {
    move |scalar| {
        let text = scalar.text()?;
        if is_token(text) && text.len() <= bytes_max {
            return Ok(text.to_owned());
        }
        Err(format!("must be 1 to {bytes_max} of A-Z a-z 0-9 _ -").into())
    }
}

fn is_token(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    !text.is_empty() && text.bytes().all(allowed)
}

/// A prefix of subjects, without wildcards.
pub(super) fn subject_prefix(scalar: &Scalar) -> Parsed<String> {
    let text = scalar.text()?;
    if text.split('.').all(is_token) && text.len() <= limit::PREFIX_BYTES_MAX {
        return Ok(text.to_owned());
    }
    Err(format!(
        "must be tokens of A-Z a-z 0-9 _ - with dots between them, at most {} bytes",
        limit::PREFIX_BYTES_MAX
    )
    .into())
}

pub(super) fn server(scalar: &Scalar) -> Parsed<ServerAddr> {
    let text = scalar.text()?;
    if text.contains('@') {
        return Err(Refused {
            expected: "must not hold a user, password or token: secrets come from files, see \
                       nats.creds_file and nats.nkey_file"
                .into(),
            secret: true,
        });
    }
    let refused = || Refused::from("must be like nats://host:4222 or tls://host:4222");
    let server: ServerAddr = text.parse().map_err(|_| refused())?;
    let plain = matches!(server.scheme(), "nats" | "tls") && !server.host().is_empty();
    // A path, query or fragment would be ignored in silence.
    let bare = text.split_once("://").map_or(text, |(_, rest)| rest);
    if plain && !bare.contains(['/', '?', '#']) { Ok(server) } else { Err(refused()) }
}

pub(super) fn http_url(scalar: &Scalar) -> Parsed<hyper::Uri> {
    let text = scalar.text()?;
    if text.contains('@') {
        return Err(Refused {
            expected: "must not hold a user or password: secrets come from files".into(),
            secret: true,
        });
    }
    let url = text.parse::<hyper::Uri>().ok();
    url.filter(|url| url.scheme_str() == Some("http") && url.host().is_some())
        .ok_or_else(|| "must be like http://127.0.0.1:8080/path".into())
}

pub(super) fn socket_address(scalar: &Scalar) -> Parsed<SocketAddr> {
    scalar.text()?.parse().map_err(|_| {
        "must be an IP address and a port, such as 127.0.0.1:7406 or [::1]:7406".into()
    })
}

pub(super) fn listener(scalar: &Scalar) -> Parsed<Listener> {
    let text = scalar.text()?;
    let Some(path) = text.strip_prefix("unix:") else {
        return text.parse().map(Listener::Tcp).map_err(|_| {
            "must be an IP address and a port, such as 127.0.0.1:7405, or unix:/path".into()
        });
    };
    if path.starts_with('/') && path.len() <= limit::SOCKET_PATH_BYTES_MAX {
        return Ok(Listener::Unix(PathBuf::from(path)));
    }
    Err(format!(
        "must be unix: and an absolute path of at most {} bytes",
        limit::SOCKET_PATH_BYTES_MAX
    )
    .into())
}

/// The value of a `Host` header, port and all.
pub(super) fn host(scalar: &Scalar) -> Parsed<String> {
    let text = scalar.text()?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    if !text.is_empty() && text.bytes().all(allowed) {
        return Ok(text.to_ascii_lowercase());
    }
    Err("must be the exact value of a Host header, such as planner.example:7405".into())
}

/// The value of an `Origin` header. `*` and `null` stand for anybody and are refused.
pub(super) fn origin(scalar: &Scalar) -> Parsed<String> {
    let text = scalar.text()?;
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    if rest.is_some_and(|host| !host.is_empty() && host.bytes().all(allowed)) {
        return Ok(text.to_ascii_lowercase());
    }
    Err("must be the exact value of an Origin header, such as https://console.example".into())
}

pub(super) fn timestamp(scalar: &Scalar) -> Parsed<Timestamp> {
    Timestamp::parse(scalar.text()?)
        .ok_or_else(|| "must be a date and time such as 2027-01-01T00:00:00Z".into())
}

/// One word of a peer's `export` or `import`, as the scopes that it grants.
pub(super) fn scope(scalar: &Scalar) -> Parsed<Scopes> {
    match scalar.text()? {
        "state" => Ok(Scopes { state: true, ..Scopes::default() }),
        "snapshot" => Ok(Scopes { snapshot: true, ..Scopes::default() }),
        "telemetry" => Ok(Scopes { telemetry: true, ..Scopes::default() }),
        _ => Err("must be one of state, snapshot, telemetry".into()),
    }
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
        let read = |text: &str| size(0..=u64::MAX)(&Scalar::Text(text.to_owned())).ok();
        assert_eq!(read("262144"), Some(262_144));
        assert_eq!(read("256KiB"), Some(262_144));
        assert_eq!(read("2 GiB"), Some(2 << 30));
        for text in ["", "KiB", "1KB", "-1", "1.5MiB", "99999999999GiB"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
