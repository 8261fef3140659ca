//! Names, ids and the description of one object, as ADR-20 writes them.
//!
//! Everything read here was written by somebody else: sizes are only claims until the bytes are
//! there, and an id that would not be one token of a subject is refused, since a purge by a
//! wildcard would empty the bucket.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use super::StoreFault;
use crate::protocol::digest::Digest;
use crate::protocol::packet::RuntimeId;
use crate::protocol::time::Timestamp;

/// Longest object name, in bytes: ours are below 128, and the base64 of it is a subject token.
pub const NAME_BYTES_MAX: usize = 512;
/// Longest description, in bytes of its JSON: ours are below 1 KiB.
pub const META_BYTES_MAX: usize = 64 * 1024;
/// What the digest of ADR-20 begins with.
const SHA_256: &str = "SHA-256=";
const BAD_NAME: &str = "its name must have 1 to 512 bytes and no control characters";
const CONTENT_TYPE: &str = "Content-Type";
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// How ids are made: whose they are, and which one. 22 characters together, as a NUID has.
const OWNER_LEN: usize = 10;
const UNIQUE_LEN: usize = 12;

/// What to store an object under.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Label {
    /// The name, 1 to [`NAME_BYTES_MAX`] bytes without control characters.
    pub name: String,
    /// Media type of the bytes, shown as the header `Content-Type`.
    pub media_type: Option<String>,
    /// Anything else, for whoever runs `nats object info`. Not signed.
    pub metadata: BTreeMap<String, String>,
}

/// What the bucket says about one object. Unproven until the bytes have been read and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// The name.
    pub name: String,
    /// Id of these bytes; their chunks are stored under it.
    pub nuid: String,
    /// Length in bytes.
    pub size: u64,
    /// Number of chunks.
    pub chunks: u64,
    /// SHA-256 of the bytes.
    pub digest: Digest,
    /// When the broker stored it. `None` right after [`put`](super::Store::put): the
    /// acknowledgement does not say.
    pub modified: Option<Timestamp>,
    /// Media type, if its author named one.
    pub media_type: Option<String>,
    /// What else its author wrote.
    pub metadata: BTreeMap<String, String>,
}

/// The JSON of ADR-20, in its order. `mtime` is never written: the broker's time of storing counts.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Meta {
    pub(super) name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    headers: Option<BTreeMap<String, Vec<String>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metadata: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    options: Option<Options>,
    #[serde(default)]
    bucket: String,
    #[serde(default)]
    pub(super) nuid: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    chunks: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) deleted: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Options {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    link: Option<Link>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_chunk_size: Option<u64>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Link {
    #[serde(default)]
    bucket: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
}

impl Meta {
    /// The description of bytes that are all stored.
    pub(super) fn of(bucket: &str, label: &Label, info: &ObjectInfo, chunk_bytes: usize) -> Self {
        let headers = label
            .media_type
            .as_ref()
            .map(|text| BTreeMap::from([(CONTENT_TYPE.to_owned(), vec![text.clone()])]));
        Self {
            name: label.name.clone(),
            description: None,
            headers,
            metadata: (!label.metadata.is_empty()).then(|| label.metadata.clone()),
            options: Some(Options { link: None, max_chunk_size: u64::try_from(chunk_bytes).ok() }),
            bucket: bucket.to_owned(),
            nuid: info.nuid.clone(),
            size: info.size,
            chunks: info.chunks,
            digest: Some(format!("{SHA_256}{}", URL_SAFE.encode(info.digest.as_bytes()))),
            deleted: false,
        }
    }

    /// Whether it is only a reference to another object.
    pub(super) fn is_link(&self) -> bool {
        self.options.as_ref().is_some_and(|options| options.link.is_some())
    }

    /// The same object, deleted.
    pub(super) fn tombstone(mut self) -> Self {
        (self.size, self.chunks, self.digest, self.deleted) = (0, 0, None, true);
        self
    }

    /// Reads a description that stands under the name `name`, or under any when `None`.
    pub(super) fn read(bytes: &[u8], name: Option<&str>) -> Result<Self, StoreFault> {
        let malformed = |what: &str| {
            let name = name.map(|name| format!(" of {name:?}")).unwrap_or_default();
            StoreFault::Malformed(format!("the description{name}: {what}"))
        };
        if bytes.len() > META_BYTES_MAX {
            return Err(malformed("is too long"));
        }
        let meta: Self = serde_json::from_slice(bytes)
            .map_err(|error| malformed(&format!("is no object description: {error}")))?;
        if name.is_some_and(|name| name != meta.name) {
            return Err(malformed("names another object"));
        }
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let is_id = (1..=64).contains(&meta.nuid.len()) && meta.nuid.bytes().all(is_token);
        if !is_id && !meta.is_link() {
            return Err(malformed("has no valid id"));
        }
        Ok(meta)
    }

    /// What it says of an object that is there; a tombstone is `None`.
    pub(super) fn info(
        &self,
        modified: Option<Timestamp>,
    ) -> Result<Option<ObjectInfo>, StoreFault> {
        if self.deleted {
            return Ok(None);
        }
        let malformed = |what: &str| {
            StoreFault::Malformed(format!("the description of {:?}: {what}", self.name))
        };
        if self.is_link() {
            return Err(malformed("is a link, which is not followed"));
        }
        let digest = self.digest.as_deref().and_then(parse_digest);
        let media_type = self.headers.as_ref().and_then(|headers| {
            let (_, values) =
                headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(CONTENT_TYPE))?;
            values.first().cloned()
        });
        Ok(Some(ObjectInfo {
            name: self.name.clone(),
            nuid: self.nuid.clone(),
            size: self.size,
            chunks: self.chunks,
            digest: digest.ok_or_else(|| malformed("has no SHA-256 digest"))?,
            modified,
            media_type,
            metadata: self.metadata.clone().unwrap_or_default(),
        }))
    }
}

/// Reads `SHA-256=` and base64url, padded or not.
fn parse_digest(text: &str) -> Option<Digest> {
    let encoded = text.strip_prefix(SHA_256)?.trim_end_matches('=');
    URL_SAFE_NO_PAD.decode(encoded).ok()?.try_into().ok().map(Digest::from_bytes)
}

/// Refuses names that nobody could type.
pub(super) fn check_name(name: &str) -> Result<(), StoreFault> {
    let is_good = (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.contains(char::is_control);
    if is_good { Ok(()) } else { Err(StoreFault::BadLabel(BAD_NAME)) }
}

/// The token of a name in a subject.
pub(super) fn encode_name(name: &str) -> String {
    URL_SAFE.encode(name)
}

/// Makes ids that begin with whose they are, so that an operator sees whose chunks stand there.
#[derive(Debug)]
pub(super) struct Ids {
    owner: String,
    seed: [u8; 16],
}

impl Ids {
    /// `None` when the system has no randomness.
    pub(super) fn new(runtime: &RuntimeId) -> Option<Self> {
        let mut seed = [0; 16];
        getrandom::fill(&mut seed).ok()?;
        let digest = Digest::of(runtime.as_str().as_bytes());
        Some(Self { owner: letters(digest.as_bytes(), OWNER_LEN), seed })
    }

    /// The id number `count` of this process.
    pub(super) fn id(&self, count: u64) -> String {
        let digest = Digest::of_parts(&[&self.seed[..], &count.to_be_bytes()[..]]);
        format!("{}{}", self.owner, letters(digest.as_bytes(), UNIQUE_LEN))
    }
}

fn letters(bytes: &[u8], len: usize) -> String {
    let letter = |byte: &u8| ALPHABET.get(usize::from(*byte) % ALPHABET.len()).copied();
    bytes.iter().filter_map(letter).take(len).map(char::from).collect()
}
