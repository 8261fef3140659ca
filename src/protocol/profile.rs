//! What a runtime emits, translated into a [`StateReport`].
//!
//! A profile is data ([`Profile`]); this is the one engine that reads it. No text of a dialogue
//! gets past this module (P9): [`StateReport`] has no field that could hold it.
//!
//! What deliberately is not here: whether a report is good enough (`judge.rs` and `gate.rs`), and
//! where profiles are stored (`crate::profiles`).

mod derive;
mod pointer;
mod read;
mod spec;
mod text;

use core::cmp::Ordering;
use std::sync::Arc;

use super::canonical::Json;
use super::drift::{Coherence, Drift, DriftIndex, DriftParts, Fraction, Provenance};
use super::gate::Reason;
use super::packet::{AttractorType, Phase, Posture};

pub use pointer::Pointer;
pub use spec::{Profile, STATUS_WORDS, SafetyStatus};
pub use text::{ProfileFault, ProfileText};

use derive::{Derived, MOTIFS_MAX, Memory, Observation};
use read::Word;
use spec::{IdSource, KindSource, PartSource, PartSources, RetentionSource};

/// One cycle as the core sees it: typed, ranges checked, free of text other than the attractor's
/// id and phase word.
#[derive(Clone, Debug, PartialEq)]
pub struct StateReport {
    /// Cycle number, if the runtime gives one.
    pub cycle: Option<u64>,
    /// Attractor, as far as reported.
    pub attractor: ReportedAttractor,
    /// The worst posture that the phase word and the safety flags name (SPEC A37).
    pub posture: Posture,
    /// Drift metrics and where they came from.
    pub drift: Drift,
    /// Retention index of SRIP-04, reported or derived as SPEC section 4b says.
    pub retention_index: Option<Fraction>,
    /// Whether `aegida_status` is `nominal` (absent counts as nominal; an unknown word does not).
    pub nominal: bool,
    /// Why this report is no evidence, when it is none.
    pub untrusted: Option<Reason>,
}

impl StateReport {
    /// Whether the report holds what the leaves of a packet need, apart from the attractor type,
    /// for which the configuration has a value. A bare index moves the gate and fills nothing
    /// (DESIGN section 2).
    #[must_use]
    pub fn is_fillable(&self) -> bool {
        self.drift.parts.is_some()
            && self.attractor.id.is_some()
            && self.attractor.stability.is_some()
            && self.attractor.phase.as_deref().and_then(Phase::of_word).is_some()
    }
}

/// The attractor of a report; every part may be missing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReportedAttractor {
    /// Attractor id, at most `packet::TEXT_BYTES_MAX` bytes.
    pub id: Option<String>,
    /// Attractor type; the configured type is used where it is absent.
    pub kind: Option<AttractorType>,
    /// Stability, 0 to 1.
    pub stability: Option<Fraction>,
    /// Phase word, lower-cased; only words that [`Posture::of_phase`] knows.
    pub phase: Option<String>,
}

/// A report that cannot be read, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Malformed {
    /// JSON Pointer of the field at fault, `/` for the whole document.
    pub field: String,
    /// What is wrong, and what would be right.
    pub problem: String,
}

/// What an operator says about evidence; the rest is the profile's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// The weakest provenance that counts as evidence. Parts are derived only where this is
    /// [`Provenance::Derived`], or where the runtime reports no index at all.
    pub accept: Provenance,
    /// Coherence that the operator assumes for a runtime that reports none. There is no default
    /// (SPEC A15).
    pub assumed_scr: Option<Coherence>,
}

impl Default for Options {
    fn default() -> Self {
        Self { accept: Provenance::Native, assumed_scr: None }
    }
}

/// Translates the reports of one runtime, one after the other.
///
/// It remembers at most six cycles of numbers, which the derivations and the rules of evidence
/// need; a cycle number that falls back clears them.
///
/// ```
/// use driftgate::protocol::canonical::Json;
/// use driftgate::protocol::profile::{Options, Profile, Translator};
/// let profile: Profile = serde_json::from_str(
///     r#"{"name": "bare", "drift": {"di": {"from": "/di"}}}"#,
/// ).unwrap();
/// let mut translator = Translator::new(profile, Options::default());
/// let document = Json::Object([("di".to_owned(), Json::Number(0.2))].into());
/// let report = translator.translate(&document).unwrap();
/// assert_eq!(report.drift.provenance.word(), "reported");
/// ```
#[derive(Clone, Debug)]
pub struct Translator {
    profile: Arc<Profile>,
    options: Options,
    memory: Memory,
}

impl Translator {
    /// A translator that has seen no cycle.
    #[must_use]
    pub fn new(profile: Profile, options: Options) -> Self {
        Self { profile: Arc::new(profile), options, memory: Memory::default() }
    }

    /// The profile in use.
    #[must_use]
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Replaces what the operator says; what is remembered stays.
    pub fn set_options(&mut self, options: Options) {
        self.options = options;
    }

    /// The cycle number of a document, as far as it can be read: for naming a report that cannot be
    /// translated.
    #[must_use]
    pub fn cycle_of(&self, document: &Json) -> Option<u64> {
        read::cycle(document, self.profile.cycle.as_ref()).ok().flatten()
    }

    /// Translates one cycle. A malformed one is not remembered.
    ///
    /// # Errors
    /// [`Malformed`]: the runtime's fault; it names the field by its JSON Pointer.
    pub fn translate(&mut self, document: &Json) -> Result<StateReport, Malformed> {
        let profile = &self.profile;
        if !matches!(document, Json::Object(_)) {
            return Err(read::malformed("/", "must be an object"));
        }
        refuse_unknown_keys(profile, document)?;
        let label = Label::read(profile, document)?;
        let safety = Safety::read(profile, document)?;
        let (attractor, generation) = attractor(profile, document, &label)?;
        let numbers = Numbers::read(profile, document)?;
        let retention = match &profile.retention {
            Some(RetentionSource::Reported(from)) => read::fraction(document, Some(from))?,
            Some(RetentionSource::MotifOverlap(_)) | None => None,
        };
        if numbers.native().is_some() {
            require_packet_fields(profile, document)?;
        }
        let cycle = read::cycle(document, profile.cycle.as_ref())?;
        let observation = observation(profile, document, cycle, generation)?;
        // Nothing below this line can fail but for want of an index, so a malformed report is not
        // remembered.
        if numbers.di.is_none() && numbers.native().is_none() {
            refuse_without_index(profile)?;
        }
        let seen = self.memory.observe(observation, &profile.evidence);
        let parts = numbers.derived(&seen, &self.options, label.posture, attractor.stability);
        let drift = numbers.drift(parts, &self.options);
        let incomplete = (drift.provenance == Provenance::None).then_some(Reason::Incomplete);
        Ok(StateReport {
            cycle,
            attractor,
            posture: label.posture.max(safety.posture),
            drift,
            retention_index: retention.or(seen.retention),
            nominal: safety.nominal,
            untrusted: seen.untrusted.or(incomplete),
        })
    }
}

/// Objects whose keys are all known: any other key is a slip of the pen that would go unnoticed.
/// Keys beside them are the runtime's own affair and are ignored.
fn refuse_unknown_keys(profile: &Profile, document: &Json) -> Result<(), Malformed> {
    for (pointer, known) in &profile.closed_objects {
        let members = match pointer.find(document) {
            None => continue,
            Some(Json::Object(members)) => members,
            Some(_) => return Err(read::malformed(pointer.as_str(), "must be an object")),
        };
        if let Some(key) = members.keys().find(|key| !known.contains(key)) {
            let problem = format!("unknown key; known are {}", known.join(", "));
            return Err(read::malformed(read::member(pointer.as_str(), key), problem));
        }
    }
    Ok(())
}

/// A report with all four parts wants to become a packet, so what a packet needs must be there.
fn require_packet_fields(profile: &Profile, document: &Json) -> Result<(), Malformed> {
    let id = match &profile.id {
        Some(IdSource::Reported(from) | IdSource::Uuid(from)) => Some(from),
        Some(IdSource::Constant(_)) | None => None,
    };
    let phase = profile.phase.as_ref().map(|words| &words.from);
    for from in [id, profile.stability.as_ref(), phase].into_iter().flatten() {
        if from.find(document).is_none() {
            return Err(read::malformed(from.first().as_str(), "is missing"));
        }
    }
    Ok(())
}

/// Names where the index should have been. A profile that reads no index and can only derive one is
/// not the runtime's fault: its report is incomplete, not malformed.
fn refuse_without_index(profile: &Profile) -> Result<(), Malformed> {
    let native = profile.parts.as_ref().is_some_and(PartSources::are_native);
    match &profile.di {
        Some(di) if native => Err(read::malformed(
            di.first().parent(),
            "there are no drift metrics: give sdi, sv, pd and scr, or at least di",
        )),
        Some(di) => Err(read::malformed(di.first().as_str(), "is missing")),
        None => Ok(()),
    }
}

/// The phase word and the posture that it names.
struct Label {
    word: Option<String>,
    posture: Posture,
}

impl Label {
    fn read(profile: &Profile, document: &Json) -> Result<Self, Malformed> {
        let known =
            |word: &str| (Posture::of_phase(word) != Posture::Unknown).then(|| word.to_owned());
        // A word that no table knows is dropped: it may be text of any kind.
        let word = match read::word(document, profile.phase.as_ref(), known)? {
            Word::Known(word) => Some(word),
            Word::Absent | Word::Unknown(_) => None,
        };
        let posture = word.as_deref().map_or(Posture::Unknown, Posture::of_phase);
        Ok(Self { word, posture })
    }
}

/// What the safety flags say.
struct Safety {
    nominal: bool,
    posture: Posture,
}

impl Safety {
    fn read(profile: &Profile, document: &Json) -> Result<Self, Malformed> {
        let status = read::word(document, profile.status.as_ref(), SafetyStatus::of_word)?
            .closed(STATUS_WORDS)?
            .unwrap_or(SafetyStatus::Nominal);
        let mut posture = Posture::Stable;
        if read::flag(document, profile.phase_lock.as_ref())? {
            posture = Posture::Reflective;
        }
        let recenter = read::flag(document, profile.recenter_active.as_ref())?;
        if recenter || status == SafetyStatus::RecenterPending {
            posture = Posture::Recenter;
        }
        Ok(Self { nominal: status == SafetyStatus::Nominal, posture })
    }
}

/// The attractor, and the generation that it is of.
fn attractor(
    profile: &Profile,
    document: &Json,
    label: &Label,
) -> Result<(ReportedAttractor, Option<String>), Malformed> {
    let generation = match profile.evidence.generation.as_ref().and_then(|at| at.find(document)) {
        Some((_, Json::Number(number))) => Some(number.to_string()),
        Some((_, Json::String(word))) => Some(word.clone()),
        Some((pointer, _)) => {
            return Err(read::malformed(pointer.as_str(), "must be a number or a string"));
        }
        None => None,
    };
    let id = match &profile.id {
        Some(IdSource::Constant(id)) => Some(id.clone()),
        Some(IdSource::Reported(from)) => read::id(document, from)?.map(str::to_owned),
        Some(IdSource::Uuid(from)) => read::id(document, from)?
            .map(|label| derive::attractor_uuid(label, generation.as_deref())),
        None => None,
    };
    let kind = match &profile.kind {
        Some(KindSource::Constant(kind)) => Some(*kind),
        Some(KindSource::Reported(words)) => {
            read::word(document, Some(words), AttractorType::of_word)?
                .closed(AttractorType::WORDS)?
        }
        None => None,
    };
    let stability = read::fraction(document, profile.stability.as_ref())?;
    let phase = label.word.clone();
    Ok((ReportedAttractor { id, kind, stability, phase }, generation))
}

/// What the derivations and the rules of evidence look at. Of the reply only its emptiness is
/// taken.
fn observation(
    profile: &Profile,
    document: &Json,
    cycle: Option<u64>,
    generation: Option<String>,
) -> Result<Observation, Malformed> {
    let density = match profile.parts.as_ref().map(|parts| &parts.sv) {
        Some(PartSource::SymbolicVariance(from)) => {
            read::fraction(document, Some(from))?.map(Fraction::value)
        }
        Some(
            PartSource::Reported(_) | PartSource::PostureMismatch | PartSource::AssumedCoherence,
        )
        | None => None,
    };
    let motifs = match &profile.retention {
        Some(RetentionSource::MotifOverlap(from)) => read::list(document, from, MOTIFS_MAX)?
            .map(|words| words.into_iter().map(derive::fingerprint).collect()),
        Some(RetentionSource::Reported(_)) | None => None,
    };
    let reply = match &profile.evidence.reply {
        Some(from) => read::text(document, from)?,
        None => None,
    };
    let equals = |(pointer, expected): &(Pointer, f64)| match pointer.find(document) {
        Some(Json::Number(number)) => number.partial_cmp(expected) == Some(Ordering::Equal),
        Some(_) | None => false,
    };
    Ok(Observation {
        cycle,
        density,
        motifs,
        generation,
        empty_reply: reply.is_some_and(|reply| reply.trim().is_empty()),
        sentinel: profile.evidence.sentinels.iter().any(|sentinel| sentinel.iter().all(equals)),
    })
}

/// The drift metrics of one report before anything is derived.
struct Numbers<'a> {
    sources: Option<&'a PartSources>,
    sdi: Option<Fraction>,
    sv: Option<Fraction>,
    pd: Option<Fraction>,
    scr: Option<Coherence>,
    di: Option<DriftIndex>,
}

impl<'a> Numbers<'a> {
    fn read(profile: &'a Profile, document: &Json) -> Result<Self, Malformed> {
        let sources = profile.parts.as_ref();
        let from = |part: fn(&PartSources) -> &PartSource| {
            sources.and_then(|sources| part(sources).reported())
        };
        let numbers = Self {
            sources,
            sdi: read::fraction(document, from(|parts| &parts.sdi))?,
            sv: read::fraction(document, from(|parts| &parts.sv))?,
            pd: read::fraction(document, from(|parts| &parts.pd))?,
            scr: read::coherence(document, from(|parts| &parts.scr))?,
            di: read::index(document, profile.di.as_ref())?,
        };
        numbers.refuse_some_parts()?;
        Ok(numbers)
    }

    /// A runtime that reports parts must report all four: a missing one is not zero.
    fn refuse_some_parts(&self) -> Result<(), Malformed> {
        let Some(sources) = self.sources.filter(|sources| sources.are_native()) else {
            return Ok(());
        };
        let present = [
            (&sources.sdi, self.sdi.is_some()),
            (&sources.sv, self.sv.is_some()),
            (&sources.pd, self.pd.is_some()),
            (&sources.scr, self.scr.is_some()),
        ];
        let missing = present.iter().find(|(_, present)| !present);
        match missing.and_then(|(source, _)| source.reported()) {
            Some(from) if present.iter().any(|(_, present)| *present) => Err(read::malformed(
                from.first().as_str(),
                "is missing, and other parts of the index are there",
            )),
            Some(_) | None => Ok(()),
        }
    }

    /// The parts, when the runtime itself reports all four.
    fn native(&self) -> Option<DriftParts> {
        self.sources.filter(|sources| sources.are_native())?;
        Some(DriftParts { sdi: self.sdi?, sv: self.sv?, pd: self.pd?, scr: self.scr? })
    }

    /// The parts, when each can be had one way or the other.
    fn derived(
        &self,
        seen: &Derived,
        options: &Options,
        label: Posture,
        stability: Option<Fraction>,
    ) -> Option<DriftParts> {
        let sources = self.sources?;
        // A source that is not reported is the one derivation that `text.rs` allows for its part.
        let sv = if sources.sv.reported().is_some() { self.sv } else { seen.sv };
        let pd = match sources.pd.reported() {
            Some(_) => self.pd,
            None => derive::posture_mismatch(label, stability?),
        };
        let scr = if sources.scr.reported().is_some() { self.scr } else { options.assumed_scr };
        Some(DriftParts { sdi: self.sdi?, sv: sv?, pd: pd?, scr: scr? })
    }

    /// The ladder of DESIGN section 2. The reported index is kept beside derived parts, so that the
    /// gate takes the larger of the two.
    fn drift(&self, derived: Option<DriftParts>, options: &Options) -> Drift {
        let reported = self.di;
        if let Some(parts) = self.native() {
            return Drift { parts: Some(parts), reported, provenance: Provenance::Native };
        }
        let wanted = options.accept <= Provenance::Derived || reported.is_none();
        if let Some(parts) = derived.filter(|_| wanted) {
            return Drift { parts: Some(parts), reported, provenance: Provenance::Derived };
        }
        let provenance = if reported.is_some() { Provenance::Reported } else { Provenance::None };
        Drift { parts: None, reported, provenance }
    }
}
