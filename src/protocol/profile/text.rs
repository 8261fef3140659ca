//! A profile as people write it, and how it becomes a [`Profile`].
//!
//! `config/profiles/*.toml` are examples of the format. Two things it deliberately cannot say,
//! because no configuration may widen the gate: a constant for anything that the gate
//! reads, and a word table that turns the specification's own phase words into milder ones.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::super::packet::{AttractorType, Posture};
use super::pointer::{Pointer, Pointers};
use super::read;
use super::spec::{
    Evidence, IdSource, KindSource, PartSource, PartSources, Profile, RetentionSource,
    STATUS_WORDS, SafetyStatus, Words,
};

/// Longest profile name, in bytes: it is a metric label and a table header.
const NAME_BYTES_MAX: usize = 64;
/// Most entries of one list or table in a profile: a profile is a page, not a program.
const ENTRIES_MAX: usize = 64;
/// Keys that look like a part of the index and are something else: symbolic density is better when
/// higher, compression rate and token counts are no coherence.
const LOOKALIKES: [(&str, &str); 3] = [
    ("drift.sdi", "symbolic_density"),
    ("drift.scr", "compression_rate"),
    ("drift.scr", "total_context_tokens"),
];

/// A profile that cannot be used, and which key of it is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct ProfileFault {
    /// Key in the file, with dots.
    pub key: &'static str,
    /// What is wrong.
    pub problem: String,
}

fn fault(key: &'static str, problem: impl Into<String>) -> ProfileFault {
    ProfileFault { key, problem: problem.into() }
}

/// A profile as it is written. Unknown keys are errors.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileText {
    name: String,
    #[serde(default)]
    recognise: Vec<Vec<Pointer>>,
    #[serde(default)]
    top_level: Vec<String>,
    #[serde(default)]
    closed_objects: BTreeMap<Pointer, Vec<String>>,
    cycle: Option<SourceText>,
    #[serde(default)]
    attractor: AttractorText,
    drift: DriftText,
    #[serde(default)]
    memory: MemoryText,
    #[serde(default)]
    safety: SafetyText,
    #[serde(default)]
    evidence: EvidenceText,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct AttractorText {
    id: Option<SourceText>,
    #[serde(rename = "type")]
    kind: Option<SourceText>,
    stability: Option<SourceText>,
    phase: Option<SourceText>,
    psi: Option<SourceText>,
    psd: Option<SourceText>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DriftText {
    sdi: Option<SourceText>,
    sv: Option<SourceText>,
    pd: Option<SourceText>,
    scr: Option<SourceText>,
    di: Option<SourceText>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct MemoryText {
    retention_index: Option<SourceText>,
    ci: Option<SourceText>,
    er: Option<SourceText>,
    cc: Option<SourceText>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SafetyText {
    aegida_status: Option<SourceText>,
    phase_lock: Option<SourceText>,
    recenter_active: Option<SourceText>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct EvidenceText {
    #[serde(default)]
    needs_previous: bool,
    reply: Option<Pointers>,
    generation: Option<Pointers>,
    #[serde(default)]
    generation_cycles: u32,
    #[serde(default)]
    sentinels: Vec<BTreeMap<Pointer, f64>>,
}

/// One source as it is written: some of the keys, according to the field.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SourceText {
    from: Option<Pointers>,
    constant: Option<String>,
    derive: Option<Derivation>,
    map: Option<BTreeMap<String, String>>,
    otherwise: Option<String>,
}

/// The named derivations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Derivation {
    AssumedCoherence,
    AttractorUuid,
    MotifOverlap,
    PostureMismatch,
    SymbolicVariance,
}

impl SourceText {
    /// `from` and nothing else.
    fn reported(self, key: &'static str) -> Result<Pointers, ProfileFault> {
        match self {
            Self { from: Some(from), constant: None, derive: None, map: None, otherwise: None } => {
                Ok(from)
            }
            Self { constant: Some(_), .. } => {
                Err(fault(key, "a constant is no measurement; only `from` is allowed here"))
            }
            Self { .. } => Err(fault(key, "only `from` is allowed here")),
        }
    }

    /// `from`, with a word table if one is given.
    fn words<T: Clone>(
        self,
        key: &'static str,
        meaning: impl Fn(&str) -> Option<T>,
        words: &str,
    ) -> Result<Words<T>, ProfileFault> {
        let Self { from: Some(from), constant: None, derive: None, map, otherwise } = self else {
            return Err(fault(key, "only `from`, `map` and `otherwise` are allowed here"));
        };
        let read = |word: &str| {
            meaning(word).ok_or_else(|| fault(key, format!("`{word}` is none of {words}")))
        };
        let map = map.unwrap_or_default();
        bounded(key, map.len())?;
        let map = map
            .into_iter()
            .map(|(theirs, ours)| Ok((theirs.to_ascii_lowercase(), read(&ours)?)))
            .collect::<Result<BTreeMap<_, _>, ProfileFault>>()?;
        let otherwise = otherwise.as_deref().map(read).transpose()?;
        Ok(Words { from, map, otherwise })
    }

    fn part(
        self,
        key: &'static str,
        allowed: Option<Derivation>,
    ) -> Result<PartSource, ProfileFault> {
        let Some(derivation) = self.derive else {
            let from = self.reported(key)?;
            for (part, lookalike) in LOOKALIKES {
                if part == key && from.iter().any(|pointer| pointer.last() == lookalike) {
                    return Err(fault(key, format!("`{lookalike}` is not this part")));
                }
            }
            return Ok(PartSource::Reported(from));
        };
        if Some(derivation) != allowed {
            return Err(fault(key, "this derivation does not make this part"));
        }
        match self {
            Self { from: Some(from), constant: None, map: None, otherwise: None, .. }
                if derivation == Derivation::SymbolicVariance =>
            {
                Ok(PartSource::SymbolicVariance(from))
            }
            Self { from: None, constant: None, map: None, otherwise: None, .. }
                if derivation == Derivation::PostureMismatch =>
            {
                Ok(PartSource::PostureMismatch)
            }
            Self { from: None, constant: None, map: None, otherwise: None, .. }
                if derivation == Derivation::AssumedCoherence =>
            {
                Ok(PartSource::AssumedCoherence)
            }
            Self { .. } => Err(fault(
                key,
                "symbolic_variance takes `from`; posture_mismatch and assumed_coherence take \
                 nothing else",
            )),
        }
    }

    fn id(self) -> Result<IdSource, ProfileFault> {
        match self {
            Self { from: Some(from), constant: None, derive: None, map: None, otherwise: None } => {
                Ok(IdSource::Reported(from))
            }
            Self { from: None, constant: Some(id), derive: None, map: None, otherwise: None } => {
                read::is_id(&id)
                    .then_some(IdSource::Constant(id))
                    .ok_or_else(|| fault("attractor.id", read::ID_RULE))
            }
            Self {
                from: Some(from),
                constant: None,
                derive: Some(Derivation::AttractorUuid),
                map: None,
                otherwise: None,
            } => Ok(IdSource::Uuid(from)),
            Self { .. } => Err(fault(
                "attractor.id",
                "give `from`, or `constant`, or `derive = \"attractor_uuid\"` with `from`",
            )),
        }
    }

    fn kind(self) -> Result<KindSource, ProfileFault> {
        const KEY: &str = "attractor.type";
        match &self.constant {
            None => self
                .words(KEY, AttractorType::of_word, AttractorType::WORDS)
                .map(KindSource::Reported),
            Some(word) => AttractorType::of_word(word)
                .map(KindSource::Constant)
                .ok_or_else(|| fault(KEY, format!("`{word}` is none of {}", AttractorType::WORDS))),
        }
    }

    /// A phase table may add words and tighten known ones, never soften them.
    fn phase(self) -> Result<Words<String>, ProfileFault> {
        const KEY: &str = "attractor.phase";
        let known = |word: &str| {
            (Posture::of_phase(word) != Posture::Unknown).then(|| word.to_ascii_lowercase())
        };
        let words = self.words(KEY, known, "the phase words of SRIP-02 and SRIP-05")?;
        for (theirs, ours) in &words.map {
            let before = Posture::of_phase(theirs);
            if before != Posture::Unknown && Posture::of_phase(ours) < before {
                return Err(fault(KEY, format!("`{theirs}` may not be softened to `{ours}`")));
            }
        }
        match words.otherwise.as_deref().map(Posture::of_phase) {
            Some(Posture::Stable) => Err(fault(KEY, "`otherwise` may not be a stable phase")),
            Some(Posture::Unknown | Posture::Reflective | Posture::Recenter) | None => Ok(words),
        }
    }

    fn retention(self) -> Result<RetentionSource, ProfileFault> {
        const KEY: &str = "memory.retention_index";
        match self {
            Self {
                from: Some(from),
                constant: None,
                derive: Some(Derivation::MotifOverlap),
                map: None,
                otherwise: None,
            } => Ok(RetentionSource::MotifOverlap(from)),
            other => other.reported(KEY).map(RetentionSource::Reported),
        }
    }
}

fn bounded(key: &'static str, entries: usize) -> Result<(), ProfileFault> {
    if entries > ENTRIES_MAX {
        return Err(fault(key, format!("at most {ENTRIES_MAX} entries")));
    }
    Ok(())
}

impl DriftText {
    fn parts(self) -> Result<(Option<PartSources>, Option<Pointers>), ProfileFault> {
        let di = self.di.map(|source| source.reported("drift.di")).transpose()?;
        let parts = match (self.sdi, self.sv, self.pd, self.scr) {
            (Some(sdi), Some(sv), Some(pd), Some(scr)) => Some(PartSources {
                sdi: sdi.part("drift.sdi", None)?,
                sv: sv.part("drift.sv", Some(Derivation::SymbolicVariance))?,
                pd: pd.part("drift.pd", Some(Derivation::PostureMismatch))?,
                scr: scr.part("drift.scr", Some(Derivation::AssumedCoherence))?,
            }),
            (None, None, None, None) => None,
            _ => {
                return Err(fault("drift", "give all of sdi, sv, pd and scr, or none of them"));
            }
        };
        if parts.is_none() && di.is_none() {
            return Err(fault("drift", "there is no source for a drift index"));
        }
        Ok((parts, di))
    }
}

impl TryFrom<ProfileText> for Profile {
    type Error = ProfileFault;

    fn try_from(text: ProfileText) -> Result<Self, ProfileFault> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if !(1..=NAME_BYTES_MAX).contains(&text.name.len()) || !text.name.bytes().all(allowed) {
            return Err(fault("name", "1 to 64 letters, digits, `.`, `_` or `-`"));
        }
        bounded("recognise", text.recognise.len())?;
        bounded("top_level", text.top_level.len())?;
        bounded("closed_objects", text.closed_objects.len())?;
        bounded("evidence.sentinels", text.evidence.sentinels.len())?;
        if text.recognise.iter().any(Vec::is_empty) {
            return Err(fault("recognise", "an empty list would match every document"));
        }
        if text.evidence.sentinels.iter().any(BTreeMap::is_empty) {
            return Err(fault("evidence.sentinels", "an empty set would match every cycle"));
        }
        let (parts, di) = text.drift.parts()?;
        let of =
            |source: Option<SourceText>, key| source.map(|source| source.reported(key)).transpose();
        let stability = of(text.attractor.stability, "attractor.stability")?;
        let phase = text.attractor.phase.map(SourceText::phase).transpose()?;
        let mismatch = parts.as_ref().is_some_and(|parts| parts.pd == PartSource::PostureMismatch);
        if mismatch && (stability.is_none() || phase.is_none()) {
            return Err(fault("drift.pd", "posture_mismatch needs attractor.stability and phase"));
        }
        Ok(Self {
            name: text.name,
            recognise: text.recognise,
            top_level: text.top_level,
            closed_objects: text.closed_objects.into_iter().collect(),
            cycle: of(text.cycle, "cycle")?,
            id: text.attractor.id.map(SourceText::id).transpose()?,
            kind: text.attractor.kind.map(SourceText::kind).transpose()?,
            stability,
            phase,
            psi: of(text.attractor.psi, "attractor.psi")?,
            psd: of(text.attractor.psd, "attractor.psd")?,
            parts,
            di,
            ci: of(text.memory.ci, "memory.ci")?,
            er: of(text.memory.er, "memory.er")?,
            cc: of(text.memory.cc, "memory.cc")?,
            retention: text.memory.retention_index.map(SourceText::retention).transpose()?,
            status: text
                .safety
                .aegida_status
                .map(|source| {
                    source.words("safety.aegida_status", SafetyStatus::of_word, STATUS_WORDS)
                })
                .transpose()?,
            phase_lock: of(text.safety.phase_lock, "safety.phase_lock")?,
            recenter_active: of(text.safety.recenter_active, "safety.recenter_active")?,
            evidence: Evidence {
                needs_previous: text.evidence.needs_previous,
                reply: text.evidence.reply,
                generation: text.evidence.generation,
                generation_cycles: text.evidence.generation_cycles,
                sentinels: text
                    .evidence
                    .sentinels
                    .into_iter()
                    .map(|sentinel| sentinel.into_iter().collect())
                    .collect(),
            },
        })
    }
}

impl<'de> Deserialize<'de> for Profile {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = ProfileText::deserialize(deserializer)?;
        Self::try_from(text).map_err(serde::de::Error::custom)
    }
}
