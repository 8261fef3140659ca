//! What is kept of one accepted snapshot beside its bytes.

use serde::{Deserialize, Serialize};

use crate::protocol::snapshot::{Digest, FrameKind, MEDIA_TYPE_BYTES_MAX};
use crate::protocol::time::Timestamp;

/// Largest record that is read, in bytes; one has some three hundred.
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
    /// It is at the broker.
    Stored(Stored),
    /// It goes when the gate is open and the broker is there.
    Unsent,
}

/// One accepted snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
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

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    seq: u64,
    digest: String,
    size: u64,
    media_type: String,
    accepted: String,
    stored: Option<StoredRecord>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredRecord {
    stored_bytes: u64,
    base: Option<String>,
}

impl Entry {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let stored = match &self.state {
            State::Stored(stored) => Some(StoredRecord {
                stored_bytes: stored.stored_bytes,
                base: stored.base.map(|digest| digest.to_string()),
            }),
            State::Revoked | State::Unsent => None,
        };
        let record = Record {
            seq: self.seq,
            digest: self.digest.to_string(),
            size: self.size,
            media_type: self.media_type.clone(),
            accepted: self.accepted.to_string(),
            stored,
        };
        serde_json::to_vec(&record).unwrap_or_default()
    }

    /// Reads a record; `None` when it is not a whole one.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let record: Record = serde_json::from_slice(bytes).ok()?;
        if record.media_type.len() > MEDIA_TYPE_BYTES_MAX {
            return None;
        }
        let state = match record.stored {
            None => State::Unsent,
            Some(stored) => {
                let base = match stored.base {
                    None => None,
                    Some(text) => Some(Digest::parse(&text)?),
                };
                let kind = if base.is_some() { FrameKind::Delta } else { FrameKind::Full };
                State::Stored(Stored { kind, stored_bytes: stored.stored_bytes, base })
            }
        };
        Some(Self {
            seq: record.seq,
            digest: Digest::parse(&record.digest)?,
            size: record.size,
            media_type: record.media_type,
            accepted: Timestamp::parse(&record.accepted)?,
            state,
        })
    }
}
