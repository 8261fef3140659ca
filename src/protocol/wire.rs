//! The twenty leaves of SRIP-05 section 3 as JSON: [`StatePacket::from_json`] reads them, the
//! writers append them in RFC 8785 order without building a value first.
//!
//! What deliberately is not here: whether the packet is genuine (`keyring.rs`) or may travel
//! (`seal.rs`).

mod schema;

pub use schema::packet as packet_schema;

use super::canonical::{Json, write_bool, write_number, write_string};
use super::drift::{Coherence, DriftIndex, DriftParts};
use super::exchange::{SUPPORTED, Version};
use super::fields::Fields;
use super::packet::{
    AttractorState, AttractorType, Header, MemorySnapshot, PROTOCOL_VERSION, Payload, SafetyFlags,
    Signature, StatePacket, TEXT_BYTES_MAX, WORD_BYTES_MAX,
};
use super::refusal::{Fault, Refusal};

/// Longest integrity token, in bytes: algorithm 11, key id 64, seq 20, tag 86, colons 3.
pub const TOKEN_BYTES_MAX: usize = 192;

/// Appends the canonical bytes of `header`.
pub fn write_header(bytes: &mut Vec<u8>, header: &Header) {
    bytes.extend_from_slice(br#"{"protocol_version":"#);
    write_string(bytes, &header.protocol_version);
    bytes.extend_from_slice(br#","source_runtime_id":"#);
    write_string(bytes, header.source_runtime_id.as_str());
    bytes.extend_from_slice(br#","target_runtime_id":"#);
    write_string(bytes, header.target_runtime_id.as_str());
    bytes.extend_from_slice(br#","timestamp":"#);
    write_string(bytes, &header.timestamp.to_string());
    bytes.push(b'}');
}

/// Appends the canonical bytes of `payload`; without `memory_snapshot` unless `full`.
pub fn write_payload(bytes: &mut Vec<u8>, payload: &Payload, full: bool) {
    let Payload { attractor_state, drift, di, memory_snapshot, safety_flags } = payload;
    bytes.extend_from_slice(br#"{"attractor_state":{"id":"#);
    write_string(bytes, &attractor_state.id);
    bytes.extend_from_slice(br#","phase":"#);
    write_string(bytes, &attractor_state.phase);
    let number = |bytes: &mut Vec<u8>, before: &[u8], number: f64| {
        bytes.extend_from_slice(before);
        write_number(bytes, number);
    };
    number(bytes, br#","scr":"#, drift.scr.value());
    number(bytes, br#","stability":"#, attractor_state.stability.value());
    bytes.extend_from_slice(br#","type":"#);
    write_string(bytes, attractor_state.kind.word());
    number(bytes, br#"},"drift_metrics":{"di":"#, di.value());
    number(bytes, br#","pd":"#, drift.pd.value());
    number(bytes, br#","sdi":"#, drift.sdi.value());
    number(bytes, br#","sv":"#, drift.sv.value());
    if let Some(memory_snapshot) = memory_snapshot.as_ref().filter(|_| full) {
        let retention_index = memory_snapshot.retention_index.value();
        number(bytes, br#"},"memory_snapshot":{"retention_index":"#, retention_index);
        bytes.extend_from_slice(br#","summary_hash":"#);
        write_string(bytes, &memory_snapshot.summary_hash.to_string());
    }
    bytes.extend_from_slice(br#"},"safety_flags":{"aegida_status":"#);
    write_string(bytes, &safety_flags.aegida_status);
    bytes.extend_from_slice(br#","phase_lock":"#);
    write_bool(bytes, safety_flags.phase_lock);
    bytes.extend_from_slice(br#","recenter_active":"#);
    write_bool(bytes, safety_flags.recenter_active);
    bytes.extend_from_slice(b"}}");
}

impl StatePacket {
    /// Reads a packet and its signature, which is not checked here.
    ///
    /// Version 1.0 is closed: an unknown field is refused. A later minor may carry fields that we
    /// do not know (SRIP-05 section 5); another major is refused before anything else is looked at.
    /// `memory_snapshot` may be absent (minimal exchange).
    ///
    /// # Errors
    /// [`Fault::Malformed`] or [`Fault::Incompatible`], the sender's fault, naming the field.
    pub fn from_json(document: &Json) -> Result<(Self, Signature), Refusal> {
        let root = Fields::of(document)?;
        let header = root.object("header", "/header")?;
        let protocol_version = header.text("protocol_version", WORD_BYTES_MAX)?;
        let closed = is_closed_version(protocol_version)?;
        let root = root.closed(closed);
        root.only(&["header", "payload", "signature"])?;
        let header = header.closed(closed);
        header.only(&[
            "protocol_version",
            "source_runtime_id",
            "target_runtime_id",
            "timestamp",
        ])?;
        let header = Header {
            protocol_version: protocol_version.to_owned().into(),
            source_runtime_id: header.runtime_id("source_runtime_id")?,
            target_runtime_id: header.runtime_id("target_runtime_id")?,
            timestamp: header.time("timestamp")?,
        };
        let payload = read_payload(&root.object("payload", "/payload")?)?;
        let signature = root.object("signature", "/signature")?;
        signature.only(&["checksum", "integrity_token"])?;
        let signature = Signature {
            checksum: signature.digest("checksum")?,
            integrity_token: signature.text("integrity_token", TOKEN_BYTES_MAX)?.to_owned(),
        };
        Ok((Self { header, payload }, signature))
    }
}

impl Payload {
    /// Reads a payload of version 1.0, for reading back what was written.
    ///
    /// # Errors
    /// [`Fault::Malformed`], naming the field.
    pub fn from_json(document: &Json) -> Result<Self, Refusal> {
        let members = document
            .as_object()
            .ok_or_else(|| Refusal::malformed("/payload", "must be an object"))?;
        read_payload(&Fields::new(members, "/payload"))
    }
}

/// Whether the version is 1.0, in which no field is unknown.
fn is_closed_version(version: &str) -> Result<bool, Refusal> {
    match Version::parse(version) {
        Some(version) if version.major == SUPPORTED.major => Ok(version.minor == 0),
        Some(_) => Err(Refusal {
            fault: Fault::Incompatible,
            detail: format!(
                "/header/protocol_version: another major version; {PROTOCOL_VERSION} is supported"
            ),
        }),
        None => Err(Refusal::malformed("/header/protocol_version", Version::RULE)),
    }
}

fn read_payload(payload: &Fields<'_>) -> Result<Payload, Refusal> {
    payload.only(&["attractor_state", "drift_metrics", "memory_snapshot", "safety_flags"])?;
    let attractor = payload.object("attractor_state", "/payload/attractor_state")?;
    attractor.only(&["id", "phase", "scr", "stability", "type"])?;
    let metrics = payload.object("drift_metrics", "/payload/drift_metrics")?;
    metrics.only(&["di", "pd", "sdi", "sv"])?;
    let flags = payload.object("safety_flags", "/payload/safety_flags")?;
    flags.only(&["aegida_status", "phase_lock", "recenter_active"])?;
    let memory_snapshot = if payload.has("memory_snapshot") {
        let memory = payload.object("memory_snapshot", "/payload/memory_snapshot")?;
        memory.only(&["retention_index", "summary_hash"])?;
        Some(MemorySnapshot {
            summary_hash: memory.digest("summary_hash")?,
            retention_index: memory.fraction("retention_index")?,
        })
    } else {
        None
    };
    Ok(Payload {
        attractor_state: AttractorState {
            id: attractor.text("id", TEXT_BYTES_MAX)?.to_owned(),
            kind: attractor.word("type", AttractorType::WORDS, AttractorType::of_word)?,
            stability: attractor.fraction("stability")?,
            phase: attractor.text("phase", WORD_BYTES_MAX)?.to_lowercase(),
        },
        drift: DriftParts {
            sdi: metrics.fraction("sdi")?,
            sv: metrics.fraction("sv")?,
            pd: metrics.fraction("pd")?,
            scr: Coherence::new(attractor.number("scr")?)
                .ok_or_else(|| attractor.refuse("scr", "must be above 0 and at most 1"))?,
        },
        di: DriftIndex::new(metrics.number("di")?)
            .ok_or_else(|| metrics.refuse("di", "must not be negative"))?,
        memory_snapshot,
        safety_flags: SafetyFlags {
            aegida_status: flags.text("aegida_status", WORD_BYTES_MAX)?.to_owned(),
            phase_lock: flags.flag("phase_lock")?,
            recenter_active: flags.flag("recenter_active")?,
        },
    })
}
