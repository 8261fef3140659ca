//! What is kept of one accepted snapshot beside its bytes, and of what is under way at the broker.
//!
//! A record is one line of JSON and one line with its SHA-256. What has become of a snapshot is not
//! in it: that is the record's file name, which no damage inside a file changes and which changes
//! by a rename, as a whole and without room on the disk.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::protocol::digest::Digest;
use crate::protocol::snapshot::{FrameKind, MEDIA_TYPE_BYTES_MAX};
use crate::protocol::time::Timestamp;

/// Largest record that is read, in bytes; one has some five hundred.
pub(super) const RECORD_BYTES_MAX: u64 = 4096;

/// How a snapshot is stored at the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Form of its object.
    pub kind: FrameKind,
    /// Stored bytes.
    pub stored_bytes: u64,
    /// Digest of the base; `None` for a full frame.
    pub base: Option<Digest>,
}

/// What has become of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The gate closed before it was sent: it is never sent.
    Revoked,
    /// It is at the broker; how, where that could be noted.
    Stored(Option<Stored>),
    /// It goes when the gate is open and the broker is there.
    Unsent,
}

impl State {
    /// How it is stored, where it is and that is known.
    #[must_use]
    pub fn stored(&self) -> Option<&Stored> {
        match self {
            Self::Stored(stored) => stored.as_ref(),
            Self::Revoked | Self::Unsent => None,
        }
    }

    /// Whether it is at the broker.
    #[must_use]
    pub fn is_stored(&self) -> bool {
        matches!(self, Self::Stored(_))
    }

    /// The word in lists, and the extension of its record.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::Stored(_) => "stored",
            Self::Unsent => "unsent",
        }
    }
}

/// One accepted snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolEntry {
    /// Its number.
    pub seq: u64,
    /// Digest of its bytes.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
    /// As the runtime said.
    pub media_type: String,
    /// When.
    pub accepted: Timestamp,
    /// What has become of it.
    pub state: State,
}

/// An object that is being put or let go: what has to be looked at when that was interrupted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unfinished {
    /// Number of its manifest.
    pub seq: u64,
    /// Its name.
    pub object: String,
    /// `None` where it is being let go.
    pub upload: Option<Started>,
}

/// An upload that has begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Started {
    /// The id under which its chunks are put.
    pub id: String,
    /// Number of the snapshot in the spool.
    pub snapshot: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    seq: u64,
    digest: Digest,
    size: u64,
    media_type: String,
    accepted: String,
    stored: Option<StoredRecord>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredRecord {
    stored_bytes: u64,
    base: Option<Digest>,
}

/// A line of JSON and a line with its digest.
pub(super) fn sealed(record: &impl Serialize) -> Vec<u8> {
    // Strings and numbers only: that is always written.
    let mut bytes = serde_json::to_vec(record).unwrap_or_default();
    let digest = Digest::of(&bytes);
    bytes.extend_from_slice(format!("\n{digest}\n").as_bytes());
    bytes
}

/// The reverse; `None` for anything but what [`sealed`] has written.
pub(super) fn opened<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let line = lines.next()?;
    // As a whole, so that nothing before, between or after the lines is overlooked.
    let is_whole = bytes.get(line.len()..)? == format!("\n{}\n", Digest::of(line)).as_bytes();
    is_whole.then(|| serde_json::from_slice(line).ok()).flatten()
}

impl SpoolEntry {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let stored = self
            .state
            .stored()
            .map(|stored| StoredRecord { stored_bytes: stored.stored_bytes, base: stored.base });
        sealed(&Record {
            seq: self.seq,
            digest: self.digest,
            size: self.size,
            media_type: self.media_type.clone(),
            accepted: self.accepted.to_string(),
            stored,
        })
    }

    /// Reads a record that stands under the name of `state`; `None` when it is not a whole one.
    pub(super) fn from_bytes(bytes: &[u8], state: State) -> Option<Self> {
        let record: Record = opened(bytes)?;
        if record.media_type.len() > MEDIA_TYPE_BYTES_MAX {
            return None;
        }
        let state = match (state, record.stored) {
            (State::Stored(_), Some(stored)) => {
                let base = stored.base;
                let kind = if base.is_some() { FrameKind::Delta } else { FrameKind::Full };
                State::Stored(Some(Stored { kind, stored_bytes: stored.stored_bytes, base }))
            }
            (state, _) => state,
        };
        Some(Self {
            seq: record.seq,
            digest: record.digest,
            size: record.size,
            media_type: record.media_type,
            accepted: Timestamp::parse(&record.accepted)?,
            state,
        })
    }
}
