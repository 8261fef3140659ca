//! The named derivations, and the few cycles that they have to remember.
//!
//! Everything here is an estimate and is labelled so by its provenance. Motif words are kept as
//! digests only: the words are lifted from prompts and replies and must not stay (P9).

use std::collections::{BTreeSet, VecDeque};

use crate::protocol::digest::Digest;
use uuid::Uuid;

use super::super::drift::Fraction;
use super::super::gate::Reason;
use super::super::packet::Posture;
use super::continuity::Continuity;
use super::spec::Evidence;

/// Cycles that the deviation of symbolic density is taken over.
const WINDOW_CYCLES: u64 = 5;
/// How far back the retention index looks.
const RETENTION_CYCLES: u64 = 5;
/// Moments remembered: this cycle's, and those that the two windows reach back to.
const MOMENTS_MAX: usize = 6;
/// Most motifs of one cycle that are looked at; runtimes report five.
pub(super) const MOTIFS_MAX: usize = 64;

/// Stability from here up means Stable (SRIP-02 sections 5 and 6).
const STABILITY_STABLE: f64 = 0.75;
/// Stability below this means Recenter (SRIP-02 section 5: PSI < 0.6 is recovery).
const STABILITY_RECENTER: f64 = 0.6;

/// A digest that stands for a word.
pub(super) type Fingerprint = [u8; 8];

/// The digest of one word.
pub(super) fn fingerprint(word: &str) -> Fingerprint {
    let digest = Digest::of(word.as_bytes());
    let mut fingerprint = Fingerprint::default();
    for (to, from) in fingerprint.iter_mut().zip(digest.as_bytes()) {
        *to = *from;
    }
    fingerprint
}

/// UUIDv5 of an attractor's label and generation. The label of a public runtime
/// carries the name of its identity, so it does not travel itself.
pub(super) fn attractor_uuid(label: &str, generation: Option<&str>) -> String {
    let name = format!("driftgate:attractor\n{label}\n{}", generation.unwrap_or_default());
    Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()).to_string()
}

/// Longest attractor id that leaves as it is, in bytes.
const EXPORTED_ID_BYTES_MAX: usize = 64;

/// An id as it may leave: itself where it cannot be text, else its UUIDv5.
pub(super) fn exported_id(id: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    if id.len() <= EXPORTED_ID_BYTES_MAX && id.bytes().all(is_plain) {
        id.to_owned()
    } else {
        attractor_uuid(id, None)
    }
}

/// The posture that a stability names by SRIP-02's floors.
pub(super) fn posture_of_stability(stability: Fraction) -> Posture {
    match stability.value() {
        number if number >= STABILITY_STABLE => Posture::Stable,
        number if number < STABILITY_RECENTER => Posture::Recenter,
        _ => Posture::Reflective,
    }
}

/// Phase drift as a control posture: 0 when label and stability agree, else 1.
pub(super) fn posture_mismatch(label: Posture, stability: Fraction) -> Option<Fraction> {
    Fraction::new(if label == posture_of_stability(stability) { 0.0 } else { 1.0 })
}

/// `min(1, 2 sigma)` with the population's deviation, which for numbers in 0..=1 lies in 0..=0.5.
/// `None` for fewer than two numbers: one number has no deviation, and zero would be an invention.
fn symbolic_variance(densities: &[f64]) -> Option<Fraction> {
    let count = f64::from(u32::try_from(densities.len()).ok().filter(|count| *count >= 2)?);
    let mean = densities.iter().sum::<f64>() / count;
    let variance = densities.iter().map(|density| (density - mean).powi(2)).sum::<f64>() / count;
    Fraction::new((2.0 * variance.sqrt()).min(1.0))
}

/// `|now in base| / |base|`.
fn overlap(base: &BTreeSet<Fingerprint>, now: &BTreeSet<Fingerprint>) -> Option<Fraction> {
    let count = |length: usize| u32::try_from(length).ok().map(f64::from);
    let shared = count(base.intersection(now).count())?;
    Fraction::new(shared / count(base.len()).filter(|length| *length > 0.0)?)
}

/// What one report shows to the derivations.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Observation {
    pub(super) density: Option<f64>,
    pub(super) motifs: Option<BTreeSet<Fingerprint>>,
    pub(super) generation: Option<String>,
    pub(super) empty_reply: bool,
    pub(super) sentinel: bool,
}

/// What follows from it and from the cycles before.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Derived {
    pub(super) sv: Option<Fraction>,
    pub(super) retention: Option<Fraction>,
    pub(super) untrusted: Option<Reason>,
}

#[derive(Clone, Debug)]
struct Moment {
    /// Cycles since the first one remembered, as far as the numbers tell.
    at: u64,
    density: Option<f64>,
    motifs: Option<BTreeSet<Fingerprint>>,
    empty_reply: bool,
}

/// The cycles before this one, at most [`MOMENTS_MAX`].
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    moments: VecDeque<Moment>,
    generation: Option<Fingerprint>,
    /// Reports that are still no evidence because the attractor was replaced.
    held: u32,
}

impl Memory {
    /// Takes one report in and says what follows.
    pub(super) fn observe(
        &mut self,
        seen: Observation,
        continuity: Continuity,
        rules: &Evidence,
    ) -> Derived {
        let step = match continuity {
            Continuity::Same => return self.repeated(seen.empty_reply),
            Continuity::Restart => {
                // Nothing of before compares with it.
                *self = Self::default();
                1
            }
            Continuity::Next { missed } => missed.saturating_add(1),
            Continuity::First | Continuity::Unknown => 1,
        };
        let at = self.moments.back().map_or(0, |newest| newest.at.saturating_add(step));
        let untrusted = self.untrusted(at, &seen, rules);
        self.moments.push_back(Moment {
            at,
            density: seen.density,
            motifs: seen.motifs,
            empty_reply: seen.empty_reply,
        });
        while self.moments.len() > MOMENTS_MAX {
            self.moments.pop_front();
        }
        Derived { sv: self.variance(at), retention: self.retention(at), untrusted }
    }

    /// The same cycle again: it adds nothing, except that its reply may turn out to be empty.
    fn repeated(&mut self, empty_reply: bool) -> Derived {
        let Some(newest) = self.moments.back_mut() else { return Derived::default() };
        newest.empty_reply |= empty_reply;
        let at = newest.at;
        Derived { sv: self.variance(at), retention: self.retention(at), untrusted: None }
    }

    fn untrusted(&mut self, at: u64, seen: &Observation, rules: &Evidence) -> Option<Reason> {
        let replaced = self.replaces(seen.generation.as_deref());
        if replaced {
            self.held = rules.generation_cycles;
        }
        let held = replaced || self.held > 0;
        if !replaced {
            self.held = self.held.saturating_sub(1);
        }
        let previous =
            self.moments.back().filter(|moment| at.saturating_sub(moment.at) < WINDOW_CYCLES);
        let alone = rules.needs_previous && previous.is_none();
        let empty = seen.empty_reply || previous.is_some_and(|moment| moment.empty_reply);
        if alone || empty || seen.sentinel {
            Some(Reason::NoEvidence)
        } else {
            held.then_some(Reason::GenerationChange)
        }
    }

    /// Whether the attractor is another one than before. The first one replaces nothing.
    fn replaces(&mut self, generation: Option<&str>) -> bool {
        let Some(now) = generation.map(fingerprint) else { return false };
        self.generation.replace(now).is_some_and(|before| before != now)
    }

    fn variance(&self, at: u64) -> Option<Fraction> {
        let recent = |moment: &&Moment| at.saturating_sub(moment.at) < WINDOW_CYCLES;
        let densities: Vec<f64> =
            self.moments.iter().filter(recent).filter_map(|moment| moment.density).collect();
        symbolic_variance(&densities)
    }

    fn retention(&self, at: u64) -> Option<Fraction> {
        let base = at.checked_sub(RETENTION_CYCLES)?;
        let motifs = |at: u64| self.moments.iter().find(|moment| moment.at == at)?.motifs.as_ref();
        overlap(motifs(base)?, motifs(at)?)
    }
}
