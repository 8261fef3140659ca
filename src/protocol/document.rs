//! Signed documents that are no packets: presence, handshakes, exchange envelopes, notices,
//! telemetry frames, capabilities.
//!
//! A JSON document carries its signature as the member `signature{checksum, integrity_token}`; the
//! checksum is that of its RFC 8785 bytes without the member. Bytes of any other kind travel with
//! a detached token over their SHA-256, in the NATS header `Driftgate-Token`. What deliberately is
//! not here: whose key may speak for which runtime, and what a document means.

use std::collections::BTreeMap;

use serde::Serialize;

use super::canonical::Json;
use super::digest::Digest;
use super::keyring::{Domain, Keyring};
use super::refusal::Refusal;

/// The member that holds the signature of a JSON document.
const SIGNATURE: &str = "signature";

/// A document whose checksum and tag are right. Whether the key may speak for the runtime that the
/// document names is still to be judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Proved {
    /// Its members, without the signature.
    pub members: BTreeMap<String, Json>,
    /// The key that signed it.
    pub key_id: String,
    /// The sequence number in its token.
    pub seq: u64,
}

/// The RFC 8785 bytes of a document with its signature; `None` when the ring cannot sign, or when
/// the value is no JSON object or holds a number that is not finite.
#[must_use]
pub fn sign(
    keyring: &Keyring,
    domain: Domain,
    seq: u64,
    document: &impl Serialize,
) -> Option<Vec<u8>> {
    let Json::Object(mut members) = Json::parse(&serde_json::to_vec(document).ok()?).ok()? else {
        return None;
    };
    let checksum = Digest::of(&Json::Object(members.clone()).to_canonical());
    let token = keyring.sign_checksum(domain, seq, checksum)?;
    let signature = [("checksum", checksum.to_string()), ("integrity_token", token)];
    let signature = signature.map(|(name, text)| (name.to_owned(), Json::String(text)));
    members.insert(SIGNATURE.to_owned(), Json::Object(signature.into()));
    Some(Json::Object(members).to_canonical())
}

/// Reads and verifies a signed JSON document of at most `bytes_max` bytes.
///
/// # Errors
/// [`Refusal`] with `Malformed` or `Forged`, naming the field.
pub fn open(
    keyring: &Keyring,
    domain: Domain,
    bytes: &[u8],
    bytes_max: usize,
) -> Result<Proved, Refusal> {
    if bytes.len() > bytes_max {
        return Err(Refusal::malformed("/", &format!("longer than {bytes_max} bytes")));
    }
    let document =
        Json::parse(bytes).map_err(|fault| Refusal::malformed(&fault.field, &fault.problem))?;
    if document.to_canonical() != bytes {
        return Err(Refusal::malformed("/", "not in RFC 8785 form"));
    }
    let Json::Object(mut members) = document else {
        return Err(Refusal::malformed("/", "must be a JSON object"));
    };
    let (claimed, token) = signature(members.remove(SIGNATURE))?;
    let checksum = Digest::of(&Json::Object(members.clone()).to_canonical());
    if Digest::parse(&claimed) != Some(checksum) {
        return Err(Refusal::forged("/signature/checksum: not that of the document"));
    }
    let (key_id, seq) = keyring.verify_token(domain, &token, checksum)?;
    Ok(Proved { members, key_id, seq })
}

/// Checksum and token of a `signature` member, which holds these two texts and nothing else.
fn signature(member: Option<Json>) -> Result<(String, String), Refusal> {
    let Some(Json::Object(mut parts)) = member else {
        return Err(Refusal::malformed("/signature", "must be an object"));
    };
    let mut text = |name: &str| match parts.remove(name) {
        Some(Json::String(text)) => Ok(text),
        _ => Err(Refusal::malformed(&format!("/signature/{name}"), "must be a string")),
    };
    let found = (text("checksum")?, text("integrity_token")?);
    if !parts.is_empty() {
        return Err(Refusal::malformed("/signature", "unknown member"));
    }
    Ok(found)
}

/// The detached token over a body; `None` when the ring cannot sign.
#[must_use]
pub fn sign_body(keyring: &Keyring, domain: Domain, seq: u64, body: &[u8]) -> Option<String> {
    keyring.sign_checksum(domain, seq, Digest::of(body))
}

/// Verifies a detached token over a body: the key that signed it, and its sequence number.
///
/// # Errors
/// [`Refusal`] with `Malformed` or `Forged`.
pub fn verify_body(
    keyring: &Keyring,
    domain: Domain,
    token: &str,
    body: &[u8],
) -> Result<(String, u64), Refusal> {
    keyring.verify_token(domain, token, Digest::of(body))
}
