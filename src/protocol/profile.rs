//! What a runtime emits, translated into a [`StateReport`].
//!
//! A profile is data ([`Profile`]); this is the one engine that reads it. No text of a dialogue
//! gets past this module (P9): [`StateReport`] has no field that could hold it.
//!
//! What deliberately is not here: whether a report is good enough (`judge.rs` and `gate.rs`), and
//! where profiles are stored (`crate::profiles`).

mod continuity;
mod derive;
mod keys;
mod pointer;
mod read;
mod schema;
mod spec;
mod text;

use core::cmp::Ordering;
use std::sync::Arc;

use super::canonical::Json;
use super::drift::{Coherence, Drift, DriftIndex, DriftParts, Estimate, Fraction, Vitals};
use super::gate::Reason;
use super::packet::{AttractorType, Phase, Posture};

pub use continuity::Continuity;
pub use pointer::Pointer;
pub use read::Malformed;
pub use spec::{Profile, STATUS_WORDS, SafetyStatus};
pub use text::{ProfileFault, ProfileText};

use continuity::Cycles;
use derive::{Derived, MOTIFS_MAX, Memory, Observation};
use read::Word;
use spec::{IdSource, KindSource, PartSource, PartSources, RetentionSource};

/// One cycle as the core sees it: typed, ranges checked, free of text other than the attractor's
/// id and phase word.
#[derive(Clone, Debug, PartialEq)]
pub struct StateReport {
    /// Cycle number, if the runtime gives one.
    pub cycle: Option<u64>,
    /// How that number follows the one before.
    pub continuity: Continuity,
    /// Attractor, as far as reported.
    pub attractor: ReportedAttractor,
    /// The worst posture that the phase word and the safety flags name.
    pub posture: Posture,
    /// Drift metrics, reported and estimated.
    pub drift: Drift,
    /// What else the runtime measures.
    pub vitals: Vitals,
    /// Retention index of SRIP-04, reported, or the share of motifs that are still there.
    pub retention_index: Option<Fraction>,
    /// Whether `aegida_status` is `nominal` (absent counts as nominal; an unknown word does not).
    pub nominal: bool,
    /// Why the runtime itself says that this cycle is no evidence: it compares with nothing, or
    /// the attractor is a new one.
    pub untrusted: Option<Reason>,
}

/// The attractor of a report; every part may be missing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReportedAttractor {
    /// Attractor id: 1 to 64 of `A-Z a-z 0-9 . _ : -`. Any other one is replaced by its UUIDv5, for
    /// an id is not a place for text.
    pub id: Option<String>,
    /// Attractor type; the configured type is used where it is absent.
    pub kind: Option<AttractorType>,
    /// Stability, 0 to 1.
    pub stability: Option<Fraction>,
    /// Phase word, lower-cased; only words that [`Posture::of_phase`] knows.
    pub phase: Option<String>,
}

impl ReportedAttractor {
    /// Whether it holds what the leaves of a packet need, apart from the type, for which the
    /// configuration has a value.
    #[must_use]
    pub fn is_fillable(&self) -> bool {
        self.id.is_some()
            && self.stability.is_some()
            && self.phase.as_deref().and_then(Phase::of_word).is_some()
    }
}

/// What a document turned out to be.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "nearly all are reports, and none is kept")]
pub enum Translation {
    /// A report to be judged.
    Report {
        /// The report.
        report: StateReport,
        /// Names of top-level keys that the profile does not know, at most
        /// `IGNORED_MAX`, shortened: for the runtime that sent them only.
        ignored: Vec<String>,
    },
    /// The newest report once more: same cycle, same content. It says nothing new.
    Retry,
}

/// Translates the reports of one runtime, one after the other.
///
/// It remembers at most six cycles of numbers, which the derivations and the rules of evidence
/// need; a cycle number that falls back clears them. It yields all that it could compute and knows
/// no policy.
///
/// ```
/// use driftgate::protocol::canonical::Json;
/// use driftgate::protocol::profile::{Profile, Translation, Translator};
/// let profile: Profile = serde_json::from_str(
///     r#"{"name": "bare", "cycle": {"from": "/n"}, "drift": {"di": {"from": "/di"}}}"#,
/// ).unwrap();
/// let mut translator = Translator::new(profile);
/// let document = Json::parse(br#"{"n": 1, "di": 0.2}"#).unwrap();
/// let Translation::Report { report, .. } = translator.translate(&document).unwrap() else {
///     panic!("nothing came before")
/// };
/// assert!(report.drift.reported.is_some() && report.drift.native.is_none());
/// assert_eq!(translator.translate(&document).unwrap(), Translation::Retry);
/// ```
#[derive(Clone, Debug)]
pub struct Translator {
    profile: Arc<Profile>,
    memory: Memory,
    cycles: Cycles,
    newest: Option<Parsed>,
}

impl Translator {
    /// A translator that has seen no cycle.
    #[must_use]
    pub fn new(profile: Profile) -> Self {
        Self {
            profile: Arc::new(profile),
            memory: Memory::default(),
            cycles: Cycles::default(),
            newest: None,
        }
    }

    /// The profile in use.
    #[must_use]
    pub fn profile(&self) -> &Profile {
        &self.profile
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
    pub fn translate(&mut self, document: &Json) -> Result<Translation, Malformed> {
        let (parsed, ignored) = Parsed::read(&self.profile, document)?;
        if parsed.cycle.is_some() && self.newest.as_ref() == Some(&parsed) {
            return Ok(Translation::Retry);
        }
        let continuity = self.cycles.follow(parsed.cycle);
        let evidence = &self.profile.evidence;
        let seen = self.memory.observe(parsed.observation.clone(), continuity, evidence);
        let drift = Drift {
            native: parsed.numbers.native(&self.profile),
            derived: parsed.derived(&self.profile, &seen),
            reported: parsed.numbers.di,
        };
        let is_initializing = parsed.attractor.phase.as_deref() == Some(INITIALIZING);
        let report = StateReport {
            cycle: parsed.cycle,
            continuity,
            attractor: parsed.attractor.clone(),
            posture: parsed.posture,
            drift,
            vitals: parsed.vitals,
            retention_index: parsed.retention.or(seen.retention),
            nominal: parsed.nominal,
            untrusted: seen.untrusted.or_else(|| is_initializing.then_some(Reason::NoEvidence)),
        };
        self.newest = Some(parsed);
        Ok(Translation::Report { report, ignored })
    }
}

/// The phase of a runtime that has nothing to say of itself yet.
const INITIALIZING: &str = "initializing";

/// All that is read from one document, before anything is compared with other cycles.
#[derive(Clone, Debug, PartialEq)]
struct Parsed {
    cycle: Option<u64>,
    attractor: ReportedAttractor,
    /// What the phase word alone says.
    label: Posture,
    posture: Posture,
    nominal: bool,
    numbers: Numbers,
    vitals: Vitals,
    retention: Option<Fraction>,
    observation: Observation,
}

impl Parsed {
    fn read(profile: &Profile, document: &Json) -> Result<(Self, Vec<String>), Malformed> {
        let Json::Object(members) = document else {
            return Err(read::malformed("/", "must be an object"));
        };
        keys::refuse_unknown(profile, document)?;
        let ignored = keys::ignored(profile, members)?;
        let label = Label::read(profile, document)?;
        let safety = Safety::read(profile, document)?;
        let (attractor, generation) = attractor(profile, document, &label)?;
        let numbers = Numbers::read(profile, document)?;
        let retention = match &profile.retention {
            Some(RetentionSource::Reported(from)) => read::fraction(document, Some(from))?,
            Some(RetentionSource::MotifOverlap(_)) | None => None,
        };
        if numbers.native(profile).is_some() {
            require_packet_fields(profile, document)?;
        } else if numbers.di.is_none() {
            refuse_without_index(profile)?;
        }
        let parsed = Self {
            cycle: read::cycle(document, profile.cycle.as_ref())?,
            attractor,
            label: label.posture,
            posture: label.posture.max(safety.posture),
            nominal: safety.nominal,
            numbers,
            vitals: vitals(profile, document)?,
            retention,
            observation: observation(profile, document, generation)?,
        };
        Ok((parsed, ignored))
    }

    /// The parts, when each can be had one way or the other.
    fn derived(&self, profile: &Profile, seen: &Derived) -> Option<Estimate> {
        let sources = profile.parts.as_ref().filter(|sources| !sources.are_native())?;
        // A source that is not reported is the one derivation that `text.rs` allows for its part.
        let sv = if sources.sv.reported().is_some() { self.numbers.sv } else { seen.sv };
        let pd = match sources.pd.reported() {
            Some(_) => self.numbers.pd,
            None => derive::posture_mismatch(self.label, self.attractor.stability?),
        };
        let scr = match sources.scr.reported() {
            Some(_) => Some(self.numbers.scr?),
            None => None,
        };
        Some(Estimate { sdi: self.numbers.sdi?, sv: sv?, pd: pd?, scr })
    }
}

fn vitals(profile: &Profile, document: &Json) -> Result<Vitals, Malformed> {
    let read = |from: &Option<_>| read::fraction(document, from.as_ref());
    Ok(Vitals {
        psi: read(&profile.psi)?,
        psd: read(&profile.psd)?,
        ci: read(&profile.ci)?,
        er: read(&profile.er)?,
        cc: read(&profile.cc)?,
    })
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
        Some(IdSource::Constant(id)) => Some(derive::exported_id(id)),
        Some(IdSource::Reported(from)) => read::id(document, from)?.map(derive::exported_id),
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
        density,
        motifs,
        generation,
        empty_reply: reply.is_some_and(|reply| reply.trim().is_empty()),
        sentinel: profile.evidence.sentinels.iter().any(|sentinel| sentinel.iter().all(equals)),
    })
}

/// The drift metrics of one report before anything is derived.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Numbers {
    sdi: Option<Fraction>,
    sv: Option<Fraction>,
    pd: Option<Fraction>,
    scr: Option<Coherence>,
    di: Option<DriftIndex>,
}

impl Numbers {
    fn read(profile: &Profile, document: &Json) -> Result<Self, Malformed> {
        let sources = profile.parts.as_ref();
        let from = |part: fn(&PartSources) -> &PartSource| {
            sources.and_then(|sources| part(sources).reported())
        };
        let numbers = Self {
            sdi: read::fraction(document, from(|parts| &parts.sdi))?,
            sv: read::fraction(document, from(|parts| &parts.sv))?,
            pd: read::fraction(document, from(|parts| &parts.pd))?,
            scr: read::coherence(document, from(|parts| &parts.scr))?,
            di: read::index(document, profile.di.as_ref())?,
        };
        numbers.refuse_some_parts(sources)?;
        Ok(numbers)
    }

    /// A runtime that reports parts must report all four: a missing one is not zero.
    fn refuse_some_parts(&self, sources: Option<&PartSources>) -> Result<(), Malformed> {
        let Some(sources) = sources.filter(|sources| sources.are_native()) else {
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
    fn native(&self, profile: &Profile) -> Option<DriftParts> {
        profile.parts.as_ref().filter(|sources| sources.are_native())?;
        Some(DriftParts { sdi: self.sdi?, sv: self.sv?, pd: self.pd?, scr: self.scr? })
    }
}
