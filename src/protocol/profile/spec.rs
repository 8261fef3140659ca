//! What a profile is: data that says where each field of a state report comes from.
//!
//! [`Profile`] is the parsed form: it cannot be wrong, because only `text.rs` makes one. How the
//! files are found and read is not decided here but in `crate::profiles`: this folder knows no
//! files.

use std::collections::BTreeMap;

use super::super::canonical::Json;
use super::super::packet::AttractorType;
use super::pointer::{Pointer, Pointers};

/// Words of `aegida_status`, for error messages.
pub const STATUS_WORDS: &str = "nominal, locked, recenter_pending";

/// Where a runtime's own words come from and what they mean.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Words<T> {
    /// Tried in order; the first that is present and not null counts.
    pub(super) from: Pointers,
    /// The runtime's word, lower-cased, to ours.
    pub(super) map: BTreeMap<String, T>,
    /// What a word means that neither `map` nor the specification knows.
    pub(super) otherwise: Option<T>,
}

/// `aegida_status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::EnumString, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum SafetyStatus {
    /// Nothing is wrong.
    Nominal,
    /// Locked: blocks.
    Locked,
    /// About to recover: counts as Recenter.
    RecenterPending,
}

impl SafetyStatus {
    /// Reads one of [`STATUS_WORDS`].
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        word.parse().ok()
    }
}

/// Where the attractor's id comes from.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum IdSource {
    /// Copied.
    Reported(Pointers),
    /// The same for every cycle.
    Constant(String),
    /// UUIDv5 of label and generation, because labels carry identities.
    Uuid(Pointers),
}

/// Where the attractor's type comes from.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum KindSource {
    /// Copied, through a word table.
    Reported(Words<AttractorType>),
    /// The same for every cycle.
    Constant(AttractorType),
}

/// Where one part of the drift index comes from.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum PartSource {
    /// The runtime reports it.
    Reported(Pointers),
    /// `min(1, 2 sigma)` of this number over five cycles.
    SymbolicVariance(Pointers),
    /// 1 where the phase word and the stability name different postures, else 0.
    PostureMismatch,
    /// The operator's `assumed_scr`; there is no default.
    AssumedCoherence,
}

impl PartSource {
    /// The pointers, when the runtime reports the part itself.
    pub(super) fn reported(&self) -> Option<&Pointers> {
        match self {
            Self::Reported(from) => Some(from),
            Self::SymbolicVariance(_) | Self::PostureMismatch | Self::AssumedCoherence => None,
        }
    }
}

/// The four parts of the index, in the order of the formula.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PartSources {
    pub(super) sdi: PartSource,
    pub(super) sv: PartSource,
    pub(super) pd: PartSource,
    pub(super) scr: PartSource,
}

impl PartSources {
    /// Whether the runtime itself reports all four: only then are they native evidence.
    pub(super) fn are_native(&self) -> bool {
        [&self.sdi, &self.sv, &self.pd, &self.scr].iter().all(|source| source.reported().is_some())
    }
}

/// Where the retention index comes from.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum RetentionSource {
    /// The runtime reports it.
    Reported(Pointers),
    /// Share of the motifs of five cycles ago that are still there.
    MotifOverlap(Pointers),
}

/// When a cycle is no evidence. Such a cycle may close the gate and never opens it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Evidence {
    /// The first cycle of a feed compares with nothing.
    pub(super) needs_previous: bool,
    /// The reply text, of which only its emptiness is looked at: neither the cycle with an empty
    /// reply nor the one after it compares with anything.
    pub(super) reply: Option<Pointers>,
    /// Changes when the runtime replaces its attractor.
    pub(super) generation: Option<Pointers>,
    /// Cycles after such a change that are no evidence either.
    pub(super) generation_cycles: u32,
    /// Sets of numbers that, found together, mean "nothing to compare with".
    pub(super) sentinels: Vec<Vec<(Pointer, f64)>>,
}

/// A parsed profile.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    pub(super) name: String,
    pub(super) recognise: Vec<Vec<Pointer>>,
    /// Every top-level key that is known; empty where no other key could be a slip of the pen.
    pub(super) top_level: Vec<String>,
    pub(super) closed_objects: Vec<(Pointer, Vec<String>)>,
    pub(super) cycle: Option<Pointers>,
    pub(super) id: Option<IdSource>,
    pub(super) kind: Option<KindSource>,
    pub(super) stability: Option<Pointers>,
    pub(super) phase: Option<Words<String>>,
    pub(super) psi: Option<Pointers>,
    pub(super) psd: Option<Pointers>,
    pub(super) parts: Option<PartSources>,
    pub(super) di: Option<Pointers>,
    pub(super) retention: Option<RetentionSource>,
    pub(super) ci: Option<Pointers>,
    pub(super) er: Option<Pointers>,
    pub(super) cc: Option<Pointers>,
    pub(super) status: Option<Words<SafetyStatus>>,
    pub(super) phase_lock: Option<Pointers>,
    pub(super) recenter_active: Option<Pointers>,
    pub(super) evidence: Evidence,
}

impl Profile {
    /// The name, as in `runtime.profile`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether a document looks like what this profile reads: all pointers of one of its
    /// `recognise` lists are there. Content decides, not a file name or a version string.
    #[must_use]
    pub fn recognises(&self, document: &Json) -> bool {
        let present = |pointer: &Pointer| pointer.find(document).is_some();
        self.recognise.iter().any(|pointers| pointers.iter().all(present))
    }

    /// Where the safety flags stand.
    pub(super) fn safety_pointers(&self) -> Vec<&Pointer> {
        let status = self.status.as_ref().map(|words| &words.from);
        let flags = [status, self.phase_lock.as_ref(), self.recenter_active.as_ref()];
        flags.into_iter().flatten().flat_map(Pointers::iter).collect()
    }

    /// Whether parts of the index can be derived for this runtime once an operator assumes SCR.
    #[must_use]
    pub fn derives_parts(&self) -> bool {
        self.parts.as_ref().is_some_and(|parts| !parts.are_native())
    }
}
