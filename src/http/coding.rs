//! Content codings of documents, both ways (RFC 9110 section 8.4).
//!
//! Own code on two crates, for what the usual middleware leaves open: a bound on the zstd window,
//! of which a frame of twenty bytes may ask for 128 MiB, and a 406 before anything is done instead
//! of after it. What deliberately is not here: snapshots, which are as large as memories and have a
//! coding more.

use std::io::{self, Read, Write as _};

use flate2::Compression;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;
use hyper::HeaderMap;
use hyper::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderValue};
use strum::{EnumString, IntoStaticStr};
use tokio::sync::Semaphore;

use super::accept::{is_absent, weight};
use super::problem::{CODINGS, Outcome, Problem};

/// Largest window a zstd frame may ask for: 8 MiB, what RFC 8878 section 3.1.1.1.2 asks every
/// decoder to support. It is held for one synchronous decode, so once per worker thread.
const WINDOW_LOG_MAX: u32 = 23;
/// An answer shorter than this fits into one packet as it is.
const ENCODED_BYTES_MIN: usize = 1024;
/// An answer of this size takes about a millisecond.
const ENCODED_AWAY_BYTES_MIN: usize = 64 * 1024;
/// Answers that are encoded elsewhere at a time: each takes a thread and the memory of an encoder.
static ENCODERS: Semaphore = Semaphore::const_new(2);
/// zstd's own default is 3; documents are small, and what is saved beyond this is not.
const ZSTD_LEVEL: i32 = 1;

/// How the bytes of a document are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr)]
#[strum(serialize_all = "lowercase", ascii_case_insensitive)]
pub(super) enum Coding {
    Gzip,
    Identity,
    Zstd,
}

impl Coding {
    /// What `Content-Encoding` says of a body. One is enough; a chain is how bombs are built.
    ///
    /// # Errors
    /// [`Outcome::UnsupportedCoding`].
    pub(super) fn of_body(headers: &HeaderMap) -> Result<Self, Problem> {
        let mut given = headers.get_all(CONTENT_ENCODING).iter();
        let coding = match (given.next(), given.next()) {
            (None, _) => Some(Self::Identity),
            // An empty list names no coding.
            (Some(value), None) if value.as_bytes().trim_ascii().is_empty() => Some(Self::Identity),
            (Some(value), None) => value.to_str().ok().and_then(|text| text.trim().parse().ok()),
            (Some(_), Some(_)) => None,
        };
        coding.ok_or_else(|| {
            let problem =
                Problem::new(Outcome::UnsupportedCoding, format!("send one of: {CODINGS}"));
            problem.of_field(CONTENT_ENCODING.as_str())
        })
    }

    /// What `Accept-Encoding` wants of an answer; as it is when the client does not say.
    ///
    /// # Errors
    /// [`Outcome::NotAcceptable`]: it wants none of ours, nor the bytes as they are.
    pub(super) fn of_answer(headers: &HeaderMap) -> Result<Self, Problem> {
        if is_absent(headers, &ACCEPT_ENCODING) {
            return Ok(Self::Identity);
        }
        let wanted = |coding: Self| weight(headers, &ACCEPT_ENCODING, &["*", coding.into()]);
        // Unnamed, bytes as they are will do, but whatever is named is better.
        let plain = wanted(Self::Identity).map_or((1, 0), |weight| (weight, 1));
        let coded = |coding, rank| (wanted(coding).unwrap_or(0), rank);
        let choices = [
            (plain, Self::Identity),
            (coded(Self::Gzip, 2), Self::Gzip),
            (coded(Self::Zstd, 3), Self::Zstd),
        ];
        let best = choices.into_iter().filter(|((weight, _), _)| *weight > 0);
        best.max_by_key(|(rank, _)| *rank).map(|(_, coding)| coding).ok_or_else(|| {
            let detail = format!("answers are coded as one of: {CODINGS}");
            Problem::new(Outcome::NotAcceptable, detail).of_field(ACCEPT_ENCODING.as_str())
        })
    }

    /// Decodes a body; `None` when that is more than `bytes_max`, of which one more is enough to
    /// know. It takes the memory of that and of one window.
    ///
    /// # Errors
    /// [`Outcome::Unreadable`].
    pub(super) fn decode(self, bytes: &[u8], bytes_max: usize) -> Result<Option<Vec<u8>>, Problem> {
        let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
        let mut plain = Vec::new();
        let decoded = match self {
            Self::Identity => bytes.take(limit).read_to_end(&mut plain),
            Self::Gzip => MultiGzDecoder::new(bytes).take(limit).read_to_end(&mut plain),
            Self::Zstd => zstd::Decoder::with_buffer(bytes).and_then(|mut decoder| {
                decoder.window_log_max(WINDOW_LOG_MAX)?;
                decoder.take(limit).read_to_end(&mut plain)
            }),
        };
        decoded.map_err(|_| {
            let detail = format!("not whole {} data", <&str>::from(self));
            Problem::new(Outcome::Unreadable, detail).of_field(CONTENT_ENCODING.as_str())
        })?;
        Ok((plain.len() <= bytes_max).then_some(plain))
    }

    /// Encodes an answer; short ones stay as they are. With the value of its `Content-Encoding`.
    /// A long one is encoded on another thread: the driver shares this one, and a report does not
    /// wait until a view of thousands of peers is small.
    ///
    /// # Errors
    /// [`Outcome::Unencodable`]: the sidecar ends.
    pub(super) async fn encode(
        self,
        plain: Vec<u8>,
    ) -> Result<(Option<HeaderValue>, Vec<u8>), Problem> {
        if self == Self::Identity || plain.len() < ENCODED_AWAY_BYTES_MIN {
            return Ok(self.encode_now(plain));
        }
        let _place = ENCODERS.acquire().await;
        let encoding = tokio::task::spawn_blocking(move || self.encode_now(plain));
        encoding.await.map_err(|_| Problem::new(Outcome::Unencodable, "it was not encoded"))
    }

    fn encode_now(self, plain: Vec<u8>) -> (Option<HeaderValue>, Vec<u8>) {
        let encoded = match self {
            Self::Gzip | Self::Zstd if plain.len() < ENCODED_BYTES_MIN => None,
            Self::Identity => None,
            Self::Gzip => gzip(&plain).ok(),
            Self::Zstd => zstd::encode_all(plain.as_slice(), ZSTD_LEVEL).ok(),
        };
        match encoded {
            Some(bytes) => (Some(HeaderValue::from_static(self.into())), bytes),
            None => (None, plain),
        }
    }
}

/// One gzip member (RFC 1952).
pub(super) fn gzip(plain: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(plain)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(accept: &str, expected: Option<Coding>) {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, accept.parse().unwrap());
        assert_eq!(Coding::of_answer(&headers).ok(), expected, "{accept}");
    }

    #[test]
    fn an_empty_list_of_codings_is_none_and_two_are_too_many() {
        let of = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CONTENT_ENCODING, HeaderValue::from_static(value));
            }
            Coding::of_body(&headers).ok()
        };
        for none in [&[][..], &[""], &["  "], &["identity"]] {
            assert_eq!(of(none), Some(Coding::Identity), "{none:?}");
        }
        assert_eq!(of(&["ZSTD"]), Some(Coding::Zstd));
        for wrong in [&["br"][..], &["gzip, zstd"], &["gzip", "zstd"], &["", "gzip"]] {
            assert_eq!(of(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn the_highest_weight_decides_then_the_smaller_answer() {
        check("", Some(Coding::Identity));
        check("br, deflate", Some(Coding::Identity));
        check("*", Some(Coding::Zstd));
        check("gzip, deflate, br, zstd", Some(Coding::Zstd));
        check("GZIP;q=0.001", Some(Coding::Gzip));
        check("zstd;q=0.5, gzip;q=0.8", Some(Coding::Gzip));
        check("gzip;q=0.5, identity", Some(Coding::Identity));
        check("zstd;q=0, gzip;q=0", Some(Coding::Identity));
        check("*;q=0, gzip", Some(Coding::Gzip));
        check("br, identity;q=0", None);
        check("*;q=0", None);
    }
}
