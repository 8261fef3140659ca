//! The exchange envelope that stands beside a snapshot's manifest.
//!
//! Beside it and not in it: a manifest has one spelling, which readers of every version know. A
//! snapshot is for all whom its source lists at once, so its envelope names no target and says what
//! holds for all of them: the scope that they share, the uses that each of them has, the earliest
//! of their ends. What deliberately is not here: where the two are kept (`snapshots/bucket.rs`).

use super::manifest::{Manifest, VerifiedManifest};
use crate::protocol::drift::Provenance;
use crate::protocol::envelope::{self, About, Draft, Terms};
use crate::protocol::exchange::Artifact;
use crate::protocol::keyring::Keyring;
use crate::protocol::time::Timestamp;
use crate::protocol::trace::TraceParent;

/// The report under which the gate lets a snapshot go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Where its drift metrics come from.
    pub drift_source: Provenance,
    /// The trace that it belongs to.
    pub trace: Option<TraceParent>,
}

/// One who may have snapshots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reader {
    /// Under which terms.
    pub terms: Terms,
    /// Until when.
    pub expires: Option<Timestamp>,
}

impl Reader {
    /// Whether it may have them at that time.
    #[must_use]
    pub fn is_current(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

impl Manifest {
    /// The header to travel with, for these readers; `None` when the ring cannot sign.
    #[must_use]
    pub fn enclose<'a>(
        &self,
        keyring: &Keyring,
        readers: impl Iterator<Item = &'a Reader> + Clone,
        evidence: &Evidence,
    ) -> Option<String> {
        let terms = Terms::common(readers.clone().map(|reader| &reader.terms));
        let draft = Draft {
            artifact: Artifact::Snapshot,
            checksum: self.checksum(),
            seq: self.seq,
            source: &self.runtime,
            target: None,
            at: self.time,
            expires: readers.filter_map(|reader| reader.expires).min(),
            drift_source: evidence.drift_source,
            trace: evidence.trace.as_ref(),
        };
        envelope::write(keyring, &terms, &draft)
    }
}

impl VerifiedManifest {
    /// What the envelope beside it has to be about.
    #[must_use]
    pub fn about(&self) -> About<'_> {
        let manifest = self.manifest();
        About {
            artifact: Artifact::Snapshot,
            checksum: self.checksum(),
            seq: manifest.seq,
            key_id: self.key_id(),
            source: &manifest.runtime,
            target: None,
        }
    }
}
