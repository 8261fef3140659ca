//! The signed manifest of one stored snapshot: what it is, how to restore it, who says so.
//!
//! A manifest is one RFC 8785 object with one spelling: a reader that would have to guess, ignore
//! or repair refuses instead. Its checksum is the SHA-256 of the object without `checksum` and
//! `integrity_token`; the token covers it as it does a packet's (`keyring.rs`), and carries the
//! manifest's own `seq`. What deliberately is not here: whether the source may be heard, and
//! whether its `seq` is news (`bridge.rs`).

mod schema;

use core::fmt;
use std::collections::BTreeMap;

pub use schema::manifest as manifest_schema;

use super::chain::OBJECTS_MAX;
use super::decode::Expected;
use super::frame::{FrameKind, WINDOW_LOG_MAX, WINDOW_LOG_MIN};
use crate::protocol::canonical::Json;
use crate::protocol::digest::Digest;
use crate::protocol::fields::Fields;
use crate::protocol::gate::Band;
use crate::protocol::keyring::{Domain, Keyring};
use crate::protocol::packet::{RuntimeId, TEXT_BYTES_MAX, WORD_BYTES_MAX};
use crate::protocol::refusal::{Fault, Refusal};
use crate::protocol::time::Timestamp;
use crate::protocol::wire::TOKEN_BYTES_MAX;

/// The one schema that is written and read.
pub const SCHEMA: &str = "driftgate-snapshot-v1";
/// Largest manifest that is read or written, in bytes: sixteen names of at most 107 bytes and a
/// dozen short leaves are less than half of it.
pub const MANIFEST_BYTES_MAX: usize = 8 * 1024;
/// Longest media type, in bytes: RFC 6838 allows 127 for each half, and no real one comes near.
pub const MEDIA_TYPE_BYTES_MAX: usize = 128;

/// The members of a manifest, sorted as they are written.
const MEMBERS: [&str; 16] = [
    "base_digest",
    "checksum",
    "di_band",
    "digest",
    "integrity_token",
    "kind",
    "media_type",
    "objects",
    "runtime",
    "schema",
    "seq",
    "size",
    "stored_bytes",
    "stored_digest",
    "time",
    "window_log",
];

/// The name of a stored object: `{runtime}/{seq}-{first 16 hex digits of the plain digest}`, then
/// `.zst` or `.dcz`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectName {
    /// Whose snapshot.
    pub runtime: RuntimeId,
    /// Its number in the chain.
    pub seq: u64,
    /// The first 16 hex digits of its plain digest.
    pub digest_start: String,
    /// Its form.
    pub kind: FrameKind,
}

impl ObjectName {
    /// Reads a name; `None` for anything that [`fmt::Display`] would not write.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let (runtime, rest) = name.split_once('/')?;
        let (seq, rest) = rest.split_once('-')?;
        let (digest_start, extension) = rest.split_once('.')?;
        let kinds = [FrameKind::Delta, FrameKind::Full];
        let parsed = Self {
            runtime: RuntimeId::new(runtime)?,
            seq: seq.parse().ok()?,
            digest_start: digest_start.to_owned(),
            kind: kinds.into_iter().find(|kind| kind.extension() == extension)?,
        };
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let is_hex = digest_start.len() == 16 && digest_start.bytes().all(hex);
        (is_hex && parsed.to_string() == name).then_some(parsed)
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { runtime, seq, digest_start, kind } = self;
        write!(formatter, "{runtime}/{seq}-{digest_start}.{}", kind.extension())
    }
}

/// What is said of one stored snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Whose snapshot.
    pub runtime: RuntimeId,
    /// Its number in the chain and in the integrity token, at most 2^53.
    pub seq: u64,
    /// Digest of the plain bytes: the identity of the snapshot.
    pub digest: Digest,
    /// Plain bytes.
    pub size: u64,
    /// Digest of the stored bytes, where the writer says it.
    pub stored_digest: Option<Digest>,
    /// Stored bytes, header included.
    pub stored_bytes: u64,
    /// Digest of the base's plain bytes; `None` for a full frame.
    pub base_digest: Option<Digest>,
    /// The window that decoding needs, as a power of two.
    pub window_log: u32,
    /// Media type of the plain bytes.
    pub media_type: String,
    /// When it was stored.
    pub time: Timestamp,
    /// Where the gate stood then. Readers refuse all but `open`.
    pub di_band: Band,
    /// The objects that restore it, the full frame first, its own last; 1 to [`OBJECTS_MAX`].
    pub objects: Vec<String>,
}

impl Manifest {
    /// The form of its own object.
    #[must_use]
    pub fn kind(&self) -> FrameKind {
        if self.base_digest.is_some() { FrameKind::Delta } else { FrameKind::Full }
    }

    /// The name of its own object.
    #[must_use]
    pub fn object_name(&self) -> ObjectName {
        ObjectName {
            runtime: self.runtime.clone(),
            seq: self.seq,
            digest_start: self.digest.start(),
            kind: self.kind(),
        }
    }

    /// What its decoder may rely on.
    #[must_use]
    pub fn expected(&self) -> Expected {
        Expected { digest: self.digest, size: Some(self.size), stored_digest: self.stored_digest }
    }

    /// Signs it: the canonical bytes to publish. `None` when the keyring has no key to sign with,
    /// or when a reader would refuse the manifest.
    #[must_use]
    pub fn sign(&self, keyring: &Keyring) -> Option<Vec<u8>> {
        let mut members = self.members();
        let checksum = checksum_of(&members);
        let token = keyring.sign_checksum(Domain::Token, self.seq, checksum)?;
        members.insert("checksum".into(), Json::String(checksum.to_string()));
        members.insert("integrity_token".into(), Json::String(token));
        let bytes = Json::Object(members).to_canonical();
        let read = VerifiedManifest::open(keyring, &bytes).ok()?;
        (read.manifest == *self).then_some(bytes)
    }

    /// Its checksum, which its token and its envelope cover.
    #[must_use]
    pub fn checksum(&self) -> Digest {
        checksum_of(&self.members())
    }

    /// All members but the signature.
    fn members(&self) -> BTreeMap<String, Json> {
        let text = |text: &str| Json::String(text.to_owned());
        let digest = |digest: Option<Digest>| digest.map(|digest| Json::String(digest.to_string()));
        let objects = self.objects.iter().map(|name| text(name)).collect();
        let members = [
            ("base_digest", digest(self.base_digest).or(Some(Json::Null))),
            ("di_band", Some(text(self.di_band.word()))),
            ("digest", digest(Some(self.digest))),
            ("kind", Some(text(self.kind().word()))),
            ("media_type", Some(text(&self.media_type))),
            ("objects", Some(Json::Array(objects))),
            ("runtime", Some(text(self.runtime.as_str()))),
            ("schema", Some(text(SCHEMA))),
            ("seq", Some(number(self.seq))),
            ("size", Some(number(self.size))),
            ("stored_bytes", Some(number(self.stored_bytes))),
            ("stored_digest", digest(self.stored_digest)),
            ("time", Some(text(&self.time.to_string()))),
            ("window_log", Some(number(u64::from(self.window_log)))),
        ];
        let present = members.into_iter().filter_map(|(name, json)| Some((name.to_owned(), json?)));
        present.collect()
    }

    /// Reads the members and checks every range, and that they agree with each other.
    fn read(fields: &Fields<'_>) -> Result<Self, Refusal> {
        if fields.text("schema", TEXT_BYTES_MAX)? != SCHEMA {
            return Err(Refusal {
                fault: Fault::Incompatible,
                detail: format!("/schema: must be {SCHEMA}"),
            });
        }
        let names = fields.array("objects")?.iter().map(|name| name.as_str().map(str::to_owned));
        let manifest = Self {
            runtime: fields.runtime_id("runtime")?,
            seq: fields.whole("seq")?,
            digest: fields.digest("digest")?,
            size: fields.whole("size")?,
            stored_digest: fields.optional("stored_digest", Fields::digest)?,
            stored_bytes: fields.whole("stored_bytes")?,
            base_digest: fields.optional("base_digest", Fields::digest)?,
            window_log: u32::try_from(fields.whole("window_log")?).unwrap_or(u32::MAX),
            media_type: fields.text("media_type", MEDIA_TYPE_BYTES_MAX)?.to_owned(),
            time: fields.time("time")?,
            di_band: fields.word("di_band", Band::WORDS, Band::of_word)?,
            objects: names
                .collect::<Option<_>>()
                .ok_or_else(|| fields.refuse("objects", "must be an array of strings"))?,
        };
        if fields.text("kind", WORD_BYTES_MAX)? != manifest.kind().word() {
            return Err(fields.refuse("kind", "must be delta with a base_digest, else full"));
        }
        if !(WINDOW_LOG_MIN..=WINDOW_LOG_MAX).contains(&manifest.window_log) {
            return Err(fields.refuse("window_log", "must be 10 to 27"));
        }
        if !manifest.media_type.is_ascii() {
            return Err(fields.refuse("media_type", "must be ASCII"));
        }
        manifest.check_objects()?;
        Ok(manifest)
    }

    /// Checks that the objects can restore this snapshot and no other.
    fn check_objects(&self) -> Result<(), Refusal> {
        let fault = |problem| Err(Refusal::malformed("/objects", problem));
        if !(1..=OBJECTS_MAX).contains(&self.objects.len()) {
            return fault("must be 1 to 16 names");
        }
        let Some(names) =
            self.objects.iter().map(|name| ObjectName::parse(name)).collect::<Option<Vec<_>>>()
        else {
            return fault("must be names {runtime}/{seq}-{16 hex digits}.zst or .dcz");
        };
        if names.iter().any(|name| name.runtime != self.runtime) {
            return fault("must be of the same runtime");
        }
        if !names.is_sorted_by(|one, next| one.seq < next.seq) {
            return fault("must rise in seq");
        }
        if names.last() != Some(&self.object_name()) {
            return fault("must end with the snapshot's own object");
        }
        let mut kinds = names.iter().map(|name| name.kind);
        if kinds.next() != Some(FrameKind::Full) || kinds.any(|kind| kind != FrameKind::Delta) {
            return fault("must be one full frame, then deltas");
        }
        let base = names.iter().rev().nth(1);
        let base_start = self.base_digest.map(|digest| digest.hex());
        let is_base = match (base, &base_start) {
            (None, None) => true,
            (Some(name), Some(digest)) => digest.starts_with(&name.digest_start),
            (None, Some(_)) | (Some(_), None) => false,
        };
        if is_base { Ok(()) } else { fault("must have the base before the snapshot's own object") }
    }
}

/// A manifest whose shape, checksum and tag are right, from a source whose gate was open. Whether
/// that source may be heard, and whether this is news, is the bridge's to judge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedManifest {
    manifest: Manifest,
    checksum: Digest,
    key_id: String,
}

impl VerifiedManifest {
    /// Reads and verifies the bytes of a manifest.
    ///
    /// # Errors
    /// [`Refusal`] with `Malformed`, `Incompatible`, `Forged` or, for a band that is not open,
    /// `Unstable`, naming the field.
    pub fn open(keyring: &Keyring, bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.len() > MANIFEST_BYTES_MAX {
            return Err(Refusal::malformed("/", "a manifest has at most 8192 bytes"));
        }
        let json =
            Json::parse(bytes).map_err(|fault| Refusal::malformed(&fault.field, &fault.problem))?;
        let Json::Object(mut members) = json else {
            return Err(Refusal::malformed("/", "a manifest is a JSON object"));
        };
        let fields = Fields::new(&members, "");
        fields.only(&MEMBERS)?;
        let manifest = Manifest::read(&fields)?;
        let claimed = Digest::parse(fields.text("checksum", TEXT_BYTES_MAX)?);
        let token = fields.text("integrity_token", TOKEN_BYTES_MAX)?.to_owned();
        if Json::Object(members.clone()).to_canonical() != bytes {
            return Err(Refusal::malformed("/", "not in RFC 8785 form"));
        }
        members.retain(|name, _| name != "checksum" && name != "integrity_token");
        if members != manifest.members() {
            return Err(Refusal::malformed("/", "a member in another spelling"));
        }
        let checksum = checksum_of(&members);
        if claimed != Some(checksum) {
            return Err(Refusal::forged("/checksum: not that of the manifest"));
        }
        let (key_id, seq) =
            keyring.verify_token(Domain::Token, &token, checksum).map_err(|refusal| Refusal {
                detail: refusal.detail.replace("/signature/", "/"),
                ..refusal
            })?;
        if seq != manifest.seq {
            return Err(Refusal::forged("/integrity_token: not of this seq"));
        }
        if manifest.di_band != Band::Open {
            return Err(Refusal {
                fault: Fault::Unstable,
                detail: format!("/di_band: {}", manifest.di_band.word()),
            });
        }
        Ok(Self { manifest, checksum, key_id })
    }

    /// The manifest.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Its checksum.
    #[must_use]
    pub fn checksum(&self) -> Digest {
        self.checksum
    }

    /// The key that signed it.
    #[must_use]
    pub fn key_id(&self) -> &str {
        &self.key_id
    }
}

fn checksum_of(members: &BTreeMap<String, Json>) -> Digest {
    Digest::of(&Json::Object(members.clone()).to_canonical())
}

/// A whole number of a manifest, exact up to 2^53. A larger one reads back as another and is
/// refused by the reader.
fn number(whole: u64) -> Json {
    #[expect(
        clippy::as_conversions,
        clippy::cast_precision_loss,
        reason = "Manifest::sign reads the manifest back and compares"
    )]
    Json::Number(whole as f64)
}
