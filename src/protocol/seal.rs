//! Sign and verify; only here can a sealed or verified packet be made.
//!
//! A packet is made in five steps (SRIP-06 section 2.1), the [`Step`]s of its inspection. What
//! depends on the payload alone is done once per report. The rest is done once per target: what
//! can be told without a signature when the report is judged, all of it when the packet's turn has
//! come.
//!
//! What deliberately is not here: freshness, addresses, authority and replay (`bridge.rs`).

use bytes::Bytes;

use super::canonical::{Json, write_string};
use super::digest::Digest;
use super::drift::{DriftIndex, PD, SCR, SDI, SV};
use super::judge::Clearance;
use super::keyring::{Domain, TokenParts};
use super::packet::{
    Header, PACKET_BYTES_MAX, PROTOCOL_VERSION, Payload, Phase, Posture, RuntimeId, Signature,
    StatePacket, TEXT_BYTES_MAX, is_text,
};
use super::wire::{write_header, write_payload};

pub use super::keyring::{Alg, KeyMaterial, Keyring, KeyringFault, MaterialFault};
pub use super::refusal::{Fault, Refusal};

/// The one safety status that may travel.
pub const NOMINAL: &str = "nominal";
/// Most that header, signature and the names around them add to a payload, in bytes: two ids of 64,
/// a time, a checksum of 71, a token of 192, and 216 of names.
const FRAME_BYTES_MAX: usize = 640;
/// How far the index of a packet that we write may lie from the formula over its parts.
const INDEX_ERROR_MAX: f64 = 1e-9;

/// A step of the inspection (SRIP-06 section 2.1), in their order.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    strum::IntoStaticStr,
    strum::VariantArray,
    schemars::JsonSchema,
    serde::Serialize,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Step {
    /// The typed packet is one from us to another, in the version that we write.
    Assertion,
    /// Its invariants hold, and its index is under the mark of the gate's [`Clearance`].
    Invariants,
    /// Its RFC 8785 bytes are no more than a packet may have.
    Transform,
    /// The bytes, read back, are what was to be written.
    Evaluation,
    /// It is signed: what is kept is the [`Sealed`] packet with its checksum and number.
    Evidence,
}

/// A payload in canonical bytes, encoded and inspected once per report. `memory_snapshot` is
/// present or not.
#[derive(Clone, Debug)]
pub struct EncodedPayload {
    bytes: Vec<u8>,
    /// The larger of index and formula; or the step that the payload fails.
    worst: Result<DriftIndex, Step>,
}

impl EncodedPayload {
    /// Encodes the payload; `full` keeps `memory_snapshot`, minimal exchange drops it. A payload
    /// that may not travel is encoded too, and every [`Keyring::seal`] of it fails.
    #[must_use]
    pub fn new(payload: &Payload, full: bool) -> Self {
        let mut bytes = Vec::with_capacity(640);
        write_payload(&mut bytes, payload, full);
        let read_back = |worst| reads_back(&bytes, payload, full).then_some(worst);
        let worst = sendable_index(payload)
            .ok_or(Step::Invariants)
            .and_then(|worst| read_back(worst).ok_or(Step::Evaluation));
        Self { bytes, worst }
    }

    /// Whether it may travel under this block mark.
    #[must_use]
    pub fn is_under(&self, block: f64) -> bool {
        self.worst.is_ok_and(|worst| !worst.reaches(block))
    }
}

/// Every invariant of a sendable payload that does not depend on the gate; the index to be held
/// against it when all are met.
fn sendable_index(payload: &Payload) -> Option<DriftIndex> {
    let Payload { attractor_state, drift, di, safety_flags, .. } = payload;
    let formula = drift.index();
    let is_wire_phase = Phase::of_word(&attractor_state.phase)
        .is_some_and(|phase| phase.word() == attractor_state.phase);
    let holds = (di.value() - formula.value()).abs() <= INDEX_ERROR_MAX
        && is_wire_phase
        && is_text(&attractor_state.id, TEXT_BYTES_MAX)
        && safety_flags.aegida_status == NOMINAL
        && !safety_flags.phase_lock
        && !safety_flags.recenter_active;
    holds.then(|| formula.max(*di))
}

/// Whether a strict reader finds in the bytes what was to be written.
fn reads_back(bytes: &[u8], payload: &Payload, full: bool) -> bool {
    let read = Json::parse(bytes).ok().and_then(|json| Payload::from_json(&json).ok());
    read.is_some_and(|mut read| {
        let is_left_out = full || read.memory_snapshot.is_none();
        if !full {
            read.memory_snapshot.clone_from(&payload.memory_snapshot);
        }
        is_left_out && read == *payload
    })
}

/// A packet that passed inspection and is signed. There is no other way to make one.
#[derive(Clone, Debug)]
pub struct Sealed {
    target: RuntimeId,
    seq: u64,
    checksum: Digest,
    bytes: Bytes,
}

impl Sealed {
    /// Who it is for.
    #[must_use]
    pub fn target(&self) -> &RuntimeId {
        &self.target
    }
    /// Sequence number in its integrity token.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }
    /// The checksum of header and payload.
    #[must_use]
    pub fn checksum(&self) -> Digest {
        self.checksum
    }
    /// The RFC 8785 bytes that go on the wire.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

/// A packet whose shape and checksum are right, and whose tag nobody has checked. It tells a reader
/// without a key what is claimed; nothing in the sidecar accepts one.
#[derive(Clone, Debug)]
pub struct Unproven {
    packet: StatePacket,
    signature: Signature,
    key_id: String,
    seq: u64,
    bytes: Bytes,
}

impl Unproven {
    /// Reads wire bytes and checks all that needs no key: size, syntax, version, shape, RFC 8785
    /// form and checksum.
    ///
    /// # Errors
    /// [`Refusal`] with `Malformed`, `Incompatible` or `Forged` (a wrong checksum).
    pub fn read(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.len() > PACKET_BYTES_MAX {
            return Err(Refusal::malformed(
                "/",
                &format!("{} bytes, and a packet has at most {PACKET_BYTES_MAX}", bytes.len()),
            ));
        }
        let document =
            Json::parse(bytes).map_err(|fault| Refusal::malformed(&fault.field, &fault.problem))?;
        let (packet, signature) = StatePacket::from_json(&document)?;
        // A 1.x packet may hold fields that we do not know, so the bytes are those received, not
        // those of the packet as we understand it.
        if document.to_canonical() != bytes {
            return Err(Refusal::malformed("/", "not in RFC 8785 form"));
        }
        let part = |pointer| document.pointer(pointer).map(Json::to_canonical);
        let (Some(header), Some(payload)) = (part("/header"), part("/payload")) else {
            return Err(Refusal::malformed("/", "header or payload missing"));
        };
        let mut known = Vec::with_capacity(bytes.len());
        open_packet(&mut known, |known| known.extend_from_slice(&header), &payload);
        let expected = Digest::of_parts(&[&known, b"}"]);
        if expected != signature.checksum {
            return Err(Refusal::forged("/signature/checksum: not that of header and payload"));
        }
        close_packet(&mut known, signature.checksum, &signature.integrity_token);
        let parts = TokenParts::parse(&signature.integrity_token)?;
        let (key_id, seq) = (parts.key_id.to_owned(), parts.seq);
        Ok(Self { packet, signature, key_id, seq, bytes: known.into() })
    }

    /// What is claimed.
    #[must_use]
    pub fn packet(&self) -> &StatePacket {
        &self.packet
    }
    /// The key that is claimed to have signed it.
    #[must_use]
    pub fn key_id(&self) -> &str {
        &self.key_id
    }
    /// The sequence number that is claimed.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }
}

/// A packet whose shape, checksum and tag are right. Freshness, address and authority are
/// `bridge.rs`'s to judge.
#[derive(Clone, Debug)]
pub struct Verified(Unproven);

impl Verified {
    /// The packet.
    #[must_use]
    pub fn packet(&self) -> &StatePacket {
        &self.0.packet
    }
    /// The key that signed it.
    #[must_use]
    pub fn key_id(&self) -> &str {
        &self.0.key_id
    }
    /// Its sequence number.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.0.seq
    }
    /// The checksum of header and payload.
    #[must_use]
    pub fn checksum(&self) -> Digest {
        self.0.signature.checksum
    }
    /// The bytes as they came. Fields outside header and payload that a later 1.x may have added
    /// are left out, because no signature covers them.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.0.bytes
    }
}

impl Keyring {
    /// Inspects one packet as far as that goes before it is signed: whatever this lets through,
    /// [`Self::seal`] makes, with the same ring and the same mark.
    ///
    /// # Errors
    /// The [`Step`] that fails.
    pub fn inspect(
        &self,
        clearance: &Clearance,
        [source, target]: [&RuntimeId; 2],
        payload: &EncodedPayload,
    ) -> Result<(), Step> {
        if source == target {
            return Err(Step::Assertion);
        }
        if payload.worst?.reaches(clearance.block()) {
            return Err(Step::Invariants);
        }
        if payload.bytes.len() + FRAME_BYTES_MAX > PACKET_BYTES_MAX {
            return Err(Step::Transform);
        }
        if self.alg().is_none() {
            return Err(Step::Evidence);
        }
        Ok(())
    }

    /// Inspects and signs one packet (SRIP-06 section 2.1).
    ///
    /// `seq` must rise from packet to packet of one source; the caller keeps count.
    ///
    /// # Errors
    /// The [`Step`] that fails. Nothing was made, and the caller has a packet less, never a wrong
    /// one.
    pub fn seal(
        &self,
        clearance: &Clearance,
        header: &Header,
        payload: &EncodedPayload,
        seq: u64,
    ) -> Result<Sealed, Step> {
        if header.protocol_version != PROTOCOL_VERSION {
            return Err(Step::Assertion);
        }
        self.inspect(clearance, [&header.source_runtime_id, &header.target_runtime_id], payload)?;
        let mut bytes = Vec::with_capacity(payload.bytes.len() + FRAME_BYTES_MAX);
        open_packet(&mut bytes, |bytes| write_header(bytes, header), &payload.bytes);
        let checksum = Digest::of_parts(&[&bytes, b"}"]);
        let token = self.sign_checksum(Domain::Token, seq, checksum).ok_or(Step::Evidence)?;
        close_packet(&mut bytes, checksum, &token);
        if bytes.len() > PACKET_BYTES_MAX {
            return Err(Step::Transform);
        }
        let target = header.target_runtime_id.clone();
        Ok(Sealed { target, seq, checksum, bytes: bytes.into() })
    }

    /// Parses and verifies wire bytes.
    ///
    /// # Errors
    /// [`Refusal`] with `Malformed`, `Incompatible` or `Forged`, always the sender's fault.
    pub fn open(&self, bytes: &[u8]) -> Result<Verified, Refusal> {
        let unproven = Unproven::read(bytes)?;
        let Signature { checksum, integrity_token } = &unproven.signature;
        self.verify_token(Domain::Token, integrity_token, *checksum)?;
        Ok(Verified(unproven))
    }
}

/// Appends `{"header":..,"payload":..`: with a closing brace the bytes that the checksum covers.
fn open_packet(bytes: &mut Vec<u8>, header: impl FnOnce(&mut Vec<u8>), payload: &[u8]) {
    bytes.extend_from_slice(br#"{"header":"#);
    header(bytes);
    bytes.extend_from_slice(br#","payload":"#);
    bytes.extend_from_slice(payload);
}

/// Appends the signature and the closing brace.
fn close_packet(bytes: &mut Vec<u8>, checksum: Digest, integrity_token: &str) {
    bytes.extend_from_slice(br#","signature":{"checksum":"#);
    write_string(bytes, &checksum.to_string());
    bytes.extend_from_slice(br#","integrity_token":"#);
    write_string(bytes, integrity_token);
    bytes.extend_from_slice(b"}}");
}

/// Why the sender of an inbound packet should not have sent it (P7), if it should not:
/// its index or the formula over its parts is not under `block`, a part is past its critical mark,
/// its posture is not Stable, a safety flag is set, or its safety status is not nominal. The answer
/// names the field.
#[must_use]
pub fn unstable(packet: &StatePacket, block: f64) -> Option<String> {
    let Payload { attractor_state, drift, di, safety_flags, .. } = &packet.payload;
    let rows = [
        (di.reaches(block), "/payload/drift_metrics/di: not under the block mark"),
        (
            drift.index().reaches(block),
            "/payload/drift_metrics: their index is not under the block mark",
        ),
        (drift.sdi.value() > SDI.critical, "/payload/drift_metrics/sdi: past its critical mark"),
        (drift.sv.value() > SV.critical, "/payload/drift_metrics/sv: past its critical mark"),
        (drift.pd.value() > PD.critical, "/payload/drift_metrics/pd: past its critical mark"),
        (drift.scr.value() < SCR.critical, "/payload/attractor_state/scr: past its critical mark"),
        (
            Posture::of_phase(&attractor_state.phase) != Posture::Stable,
            "/payload/attractor_state/phase: not a stable posture",
        ),
        (safety_flags.aegida_status != NOMINAL, "/payload/safety_flags/aegida_status: not nominal"),
        (safety_flags.phase_lock, "/payload/safety_flags/phase_lock: set"),
        (safety_flags.recenter_active, "/payload/safety_flags/recenter_active: set"),
    ];
    rows.iter().find(|(applies, _)| *applies).map(|(_, detail)| (*detail).to_owned())
}
