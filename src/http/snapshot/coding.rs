//! Digests in headers (RFC 9530), dictionaries (RFC 9842), accepted codings (RFC 9110).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::HeaderMap;
use hyper::header::{ACCEPT_ENCODING, HeaderName};

use crate::http::accept::weight;
use crate::protocol::digest::Digest;

/// Digest of the content of one message (RFC 9530 section 2).
pub(super) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");
/// Digest of the representation, its content coding included (RFC 9530 section 3). It is that of
/// the content, for nothing here is sent in ranges.
pub(super) const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");
/// Digest of the plain snapshot, however it is sent, as the manifest writes it.
pub(super) const PLAIN_DIGEST: HeaderName = HeaderName::from_static("driftgate-digest");
/// What a client has that an answer may be a delta of.
pub(super) const AVAILABLE_DICTIONARY: HeaderName = HeaderName::from_static("available-dictionary");

/// `sha-256=:...:`, as both digest headers write it.
pub(super) fn digest_field(digest: Digest) -> String {
    format!("sha-256=:{}:", STANDARD.encode(digest.as_bytes()))
}

/// The SHA-256 of a digest header. Other algorithms beside it are not looked at.
pub(super) enum Claim {
    /// There is no such header, or it names other algorithms only.
    Absent,
    /// It is there and cannot be read.
    Malformed,
    /// This.
    Sha256(Digest),
}

pub(super) fn claim(headers: &HeaderMap, name: &HeaderName) -> Claim {
    let mut found = Claim::Absent;
    for value in headers.get_all(name) {
        let Ok(text) = value.to_str() else { return Claim::Malformed };
        for member in text.split(',') {
            let Some((key, value)) = member.trim().split_once('=') else {
                return Claim::Malformed;
            };
            if key == "sha-256" {
                let Some(digest) = byte_sequence(value) else { return Claim::Malformed };
                found = Claim::Sha256(digest);
            }
        }
    }
    found
}

/// The dictionary that the client has, if it names one.
pub(super) fn dictionary(headers: &HeaderMap) -> Option<Digest> {
    byte_sequence(headers.get(AVAILABLE_DICTIONARY)?.to_str().ok()?)
}

/// Thirty-two bytes as RFC 8941 section 3.3.5 writes them.
fn byte_sequence(text: &str) -> Option<Digest> {
    let encoded = text.trim().strip_prefix(':')?.strip_suffix(':')?;
    Some(Digest::from_bytes(STANDARD.decode(encoded).ok()?.try_into().ok()?))
}

/// Whether the client takes a coding. One that is not named is not taken: unasked, bytes are sent
/// as they are.
pub(super) fn takes(headers: &HeaderMap, coding: &str) -> bool {
    weight(headers, &ACCEPT_ENCODING, &[coding]).is_some_and(|weight| weight > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coding_is_taken_when_it_is_named_and_not_weighed_zero() {
        for (text, expected) in [
            ("zstd", true),
            ("gzip, zstd;q=0.5", true),
            ("zstd;q=0", false),
            ("zstd;q=0.000", false),
            ("gzip", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, text.parse().unwrap());
            assert_eq!(takes(&headers, "zstd"), expected, "{text}");
        }
    }

    #[test]
    fn a_digest_field_reads_back() {
        let digest = Digest::of(b"plain");
        let mut headers = HeaderMap::new();
        let text = format!("sha-512=:AAAA:, {}", digest_field(digest));
        headers.insert(CONTENT_DIGEST, text.parse().unwrap());
        let claim = claim(&headers, &CONTENT_DIGEST);
        assert!(matches!(claim, Claim::Sha256(found) if found == digest));
    }
}
