//! Phase telemetry (SRIP-08 section 4): the numbers of one cycle, as far as they are known.
//!
//! Typed fields and nothing else, both ways: what a frame of a peer holds beside them is read past
//! and shown to nobody (P9). What deliberately is not here: who may be heard, and when a frame is
//! sent.

use serde::Serialize;

use super::canonical::{Json, whole};
use super::drift::{Coherence, DriftIndex, Fraction, Provenance, ROUNDING, SCR, reaches};
use super::fields::Fields;
use super::gate::{PSD_MAX, PSI_MIN};
use super::packet::{Posture, RuntimeId, TEXT_BYTES_MAX};
use super::profile::{STATUS_WORDS, SafetyStatus};
use super::refusal::{Fault, Refusal};
use super::time::Timestamp;

/// Longest frame that is read, in bytes: one with every field has some 600.
pub const FRAME_BYTES_MAX: usize = 4096;
/// How far the length of a phase vector may be from one.
const LENGTH_TOLERANCE: f64 = 1e-6;

/// One cycle's phase, `{p}.telemetry.{source}`. What is not known is absent, never 0.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PhaseFrame {
    /// Whose phase it is.
    pub runtime_id: RuntimeId,
    /// When its cycle was reported.
    pub timestamp: Timestamp,
    /// The phase, of length 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase_vector: Option<[f64; 3]>,
    /// The phase that was expected, of length 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase_expected: Option<[f64; 3]>,
    /// Posture of the cycle.
    #[serde(skip_serializing_if = "is_unknown")]
    pub phase_state: Posture,
    /// Phase stability index, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<f64>,
    /// Phase stability delta, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psd: Option<f64>,
    /// The index that the gate judged, 0 or more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drift_index: Option<f64>,
    /// Semantic coherence rate, above 0 up to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scr: Option<f64>,
    /// Symbolic density, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub symbolic_density: Option<f64>,
    /// Recursion depth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recursion_depth: Option<u32>,
    /// Safety status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub safety_status: Option<SafetyStatus>,
    /// Where its drift metrics came from.
    pub drift_source: Provenance,
}

fn is_unknown(posture: &Posture) -> bool {
    *posture == Posture::Unknown
}

impl PhaseFrame {
    /// Reads a frame of `source`. Nothing in it is proved.
    ///
    /// # Errors
    /// [`Refusal`] with `Malformed` or `Misaddressed`, naming the field.
    pub fn read(source: &RuntimeId, body: &[u8]) -> Result<Self, Refusal> {
        if body.len() > FRAME_BYTES_MAX {
            return Err(Refusal::malformed("/", "longer than 4096 bytes"));
        }
        let json =
            Json::parse(body).map_err(|fault| Refusal::malformed(&fault.field, &fault.problem))?;
        let fields = Fields::of(&json)?;
        if fields.text("runtime_id", TEXT_BYTES_MAX)? != source.as_str() {
            let detail = "/runtime_id and the subject name different runtimes";
            return Err(Refusal::of(Fault::Misaddressed, detail));
        }
        let fraction = |number| Fraction::new(number).map(Fraction::value);
        let posture = |word: &str| {
            let states = [Posture::Stable, Posture::Reflective, Posture::Recenter];
            states.into_iter().find(|state| state.word() == word)
        };
        let frame = Self {
            runtime_id: source.clone(),
            timestamp: fields.time("timestamp")?,
            phase_vector: fields.vector("phase_vector")?,
            phase_expected: fields.vector("phase_expected")?,
            phase_state: fields
                .optional("phase_state", |fields, name| {
                    fields.word(name, "stable, reflective, recenter", posture)
                })?
                .unwrap_or(Posture::Unknown),
            psi: fields.within("psi", fraction)?,
            psd: fields.within("psd", fraction)?,
            drift_index: fields
                .within("drift_index", |number| DriftIndex::new(number).map(DriftIndex::value))?,
            scr: fields.within("scr", |number| Coherence::new(number).map(Coherence::value))?,
            symbolic_density: fields.within("symbolic_density", fraction)?,
            recursion_depth: fields
                .within("recursion_depth", |number| u32::try_from(whole(number)?).ok())?,
            safety_status: fields.optional("safety_status", |fields, name| {
                fields.word(name, STATUS_WORDS, SafetyStatus::of_word)
            })?,
            drift_source: fields
                .optional("drift_source", |fields, name| {
                    fields.word(name, Provenance::LIST, |word| word.parse().ok())
                })?
                .unwrap_or(Provenance::Native),
        };
        if frame.drift_index.is_none() {
            return Err(Refusal::malformed("/drift_index", "is missing"));
        }
        Ok(frame)
    }

    /// Why its cycle may not reach another runtime; `None` when it may. The same marks as for a
    /// packet.
    #[must_use]
    pub fn unstable(&self, block: f64) -> Option<&'static str> {
        let above = |number: Option<f64>, mark| number.is_some_and(|number| reaches(number, mark));
        let below =
            |number: Option<f64>, mark: f64| number.is_some_and(|number| number < mark - ROUNDING);
        let marks = [
            ("/drift_index: at or above the mark that blocks", above(self.drift_index, block)),
            ("/phase_state: not stable", self.phase_state > Posture::Unknown),
            ("/safety_status: not nominal", {
                self.safety_status.is_some_and(|status| status != SafetyStatus::Nominal)
            }),
            ("/scr: below its critical mark", below(self.scr, SCR.critical)),
            ("/psi: below its critical mark", below(self.psi, PSI_MIN)),
            ("/psd: above its critical mark", above(self.psd, PSD_MAX)),
        ];
        marks.into_iter().find(|(_, is_passed)| *is_passed).map(|(detail, _)| detail)
    }
}

/// What may be absent, but not be something else.
impl Fields<'_> {
    fn within<T>(
        &self,
        name: &str,
        range: impl FnOnce(f64) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        self.optional(name, |fields, name| {
            range(fields.number(name)?).ok_or_else(|| fields.refuse(name, "out of range"))
        })
    }

    fn vector(&self, name: &str) -> Result<Option<[f64; 3]>, Refusal> {
        self.optional(name, |fields, name| {
            if let [Json::Number(x), Json::Number(y), Json::Number(z)] = fields.array(name)?
                && ((x * x + y * y + z * z).sqrt() - 1.0).abs() <= LENGTH_TOLERANCE
            {
                return Ok([*x, *y, *z]);
            }
            Err(fields.refuse(name, "must be three numbers of length 1"))
        })
    }
}
