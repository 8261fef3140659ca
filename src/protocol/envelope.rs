//! The exchange envelope of one artifact (SRIP-17 section VIII): under which authorisation it
//! travels, where it comes from and what it may be used for.
//!
//! A header beside the packet or the snapshot manifest, base64url of a signed RFC 8785 document
//! that binds the artifact's checksum; never inside the twenty leaves. A peer may send none: then
//! what it sent may be used as evidence (SRIP-17 IV.2), and under no scope. What deliberately is
//! not here: whether the artifact itself is good (`inbox.rs`).

use core::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::canonical::{Json, write_string};
use super::digest::Digest;
use super::document;
use super::drift::Provenance;
use super::exchange::{Artifact, SUPPORTED, Version};
use super::fields::Fields;
use super::keyring::{Domain, Keyring};
use super::packet::RuntimeId;
use super::refusal::{Fault, Refusal};
use super::time::Timestamp;
use super::trace::TraceParent;

/// Longest header that is read, in bytes; the longest that is written has some 2,700.
pub const ENVELOPE_BYTES_MAX: usize = 4096;
/// Most uses that one envelope, or one entry, names.
pub const USES_MAX: usize = 16;
/// Longest scope, and longest word of a use, in bytes.
pub const TERM_BYTES_MAX: usize = 32;
/// Longest `exchange_id` that is read, in bytes.
const EXCHANGE_ID_BYTES_MAX: usize = 200;
/// How long an artifact may be used where the authorisation has no end sooner.
pub const EXCHANGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// `protocol` of every envelope.
const PROTOCOL: &str = "driftgate-exchange";
/// What may be done with an artifact of which nobody says more.
pub const EVIDENCE: &str = "evidence";

/// Whether a text can be a scope or a use: 1 to [`TERM_BYTES_MAX`] of `A-Z a-z 0-9 _ -`.
#[must_use]
pub fn is_term(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (1..=TERM_BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed)
}

/// What an entry says about the exchange with its peer, in both directions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The name of the exchange. Where there is one, nothing of another is taken.
    pub scope: Option<String>,
    /// What may be done with what is exchanged.
    pub allowed_use: Vec<String>,
    /// Whether artifacts whose drift metrics a profile derived are accepted, too.
    pub accepts_derived: bool,
}

impl Default for Terms {
    fn default() -> Self {
        Self { scope: None, allowed_use: vec![EVIDENCE.to_owned()], accepts_derived: false }
    }
}

/// What an envelope is made of beside the terms.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a> {
    /// What it is about.
    pub artifact: Artifact,
    /// Its checksum.
    pub checksum: Digest,
    /// The number in its token, which the envelope's own shares.
    pub seq: u64,
    /// Who sends it.
    pub source: &'a RuntimeId,
    /// Whom it is for; of a snapshot everybody whom the source lists.
    pub target: Option<&'a RuntimeId>,
    /// When it was made.
    pub at: Timestamp,
    /// When it ends to be of use, if it does.
    pub expires: Option<Timestamp>,
    /// Where its drift metrics come from.
    pub drift_source: Provenance,
    /// The trace that it belongs to.
    pub trace: Option<&'a TraceParent>,
}

/// The header of one artifact; `None` when the ring cannot sign.
///
/// Written as the canonical bytes that [`read`] checks, for there is one with each packet.
#[must_use]
pub fn write(keyring: &Keyring, terms: &Terms, draft: &Draft<'_>) -> Option<String> {
    let mut bytes = Vec::with_capacity(1024);
    member(&mut bytes, r#"{"artifact":{"checksum":"#, &draft.checksum.to_string());
    member(&mut bytes, r#","type":"#, draft.artifact.word());
    bytes.extend_from_slice(br#"},"constraints":{"allowed_use":["#);
    for (index, allowed) in terms.allowed_use.iter().enumerate() {
        member(&mut bytes, if index > 0 { "," } else { "" }, allowed);
    }
    bytes.push(b']');
    if let Some(expires) = draft.expires {
        member(&mut bytes, r#","expires_at":"#, &expires.to_string());
    }
    bytes.extend_from_slice(br#","reintegration_required":true"#);
    if let Some(scope) = &terms.scope {
        member(&mut bytes, r#","scope":"#, scope);
    }
    let target = draft.target.map_or("", RuntimeId::as_str);
    let id = format!("{}.{target}.{}", draft.source, draft.seq);
    member(&mut bytes, r#","user_visible":false},"exchange_id":"#, &id);
    member(&mut bytes, r#","protocol":"#, PROTOCOL);
    member(&mut bytes, r#","provenance":{"drift_source":"#, draft.drift_source.word());
    member(&mut bytes, r#","timestamp":"#, &draft.at.to_string());
    if let Some(trace) = draft.trace {
        member(&mut bytes, r#","traceparent":"#, trace.as_str());
    }
    bytes.push(b'}');
    let mut rest = Vec::with_capacity(192);
    member(&mut rest, r#","source":"#, draft.source.as_str());
    if draft.target.is_some() {
        member(&mut rest, r#","target":"#, target);
    }
    member(&mut rest, r#","version":"#, "1.0");
    rest.push(b'}');
    let checksum = Digest::of_parts(&[&bytes, &rest]);
    let token = keyring.sign_checksum(Domain::Exchange, draft.seq, checksum)?;
    member(&mut bytes, r#","signature":{"checksum":"#, &checksum.to_string());
    member(&mut bytes, r#","integrity_token":"#, &token);
    bytes.push(b'}');
    bytes.extend_from_slice(&rest);
    Some(URL_SAFE_NO_PAD.encode(bytes))
}

fn member(bytes: &mut Vec<u8>, before: &str, text: &str) {
    bytes.extend_from_slice(before.as_bytes());
    write_string(bytes, text);
}

/// The verified artifact that an envelope has to be about.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// What it is.
    pub artifact: Artifact,
    /// Its checksum.
    pub checksum: Digest,
    /// The number in its token.
    pub seq: u64,
    /// The key that signed it.
    pub key_id: &'a str,
    /// Who sent it.
    pub source: &'a RuntimeId,
    /// Whom it is for; of a snapshot nobody in particular.
    pub target: Option<&'a RuntimeId>,
}

/// What a verified envelope says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Where the drift metrics come from.
    pub drift_source: Provenance,
    /// The trace that the artifact belongs to.
    pub trace: Option<TraceParent>,
    /// Under which scope it travels.
    pub scope: Option<String>,
    /// What it may be used for.
    pub allowed_use: Vec<String>,
    /// When it ends to be of use, if it does.
    pub expires: Option<Timestamp>,
}

/// Reads the header of an artifact that is verified already. Members that a later minor version
/// may have added are ignored.
///
/// # Errors
/// [`Refusal`] with `Malformed`, `Incompatible`, `Forged` or `Misaddressed`, all of them the
/// sender's fault.
pub fn read(keyring: &Keyring, header: &str, about: &About<'_>) -> Result<Envelope, Refusal> {
    if header.len() > ENVELOPE_BYTES_MAX {
        let problem = format!("longer than {ENVELOPE_BYTES_MAX} bytes");
        return Err(Refusal::malformed("exchange envelope", &problem));
    }
    let bytes = URL_SAFE_NO_PAD.decode(header).map_err(|_| {
        Refusal::malformed("exchange envelope", "not base64url, or not there just once")
    })?;
    let proved = document::open(keyring, Domain::Exchange, &bytes, ENVELOPE_BYTES_MAX)
        .map_err(|Refusal { fault, detail }| named(fault, &detail))?;
    let root = Json::Object(proved.members);
    let word = |pointer: &str| root.pointer(pointer).and_then(Json::as_str);
    let version = word("/version").and_then(Version::parse);
    if word("/protocol") != Some(PROTOCOL)
        || version.is_none_or(|version| version.major != SUPPORTED.major)
    {
        return Err(named(Fault::Incompatible, "another protocol or major version"));
    }
    if proved.key_id != about.key_id {
        return Err(named(Fault::Forged, "signed with another key than the artifact"));
    }
    let is_bound = word("/artifact/checksum").and_then(Digest::parse) == Some(about.checksum)
        && word("/artifact/type") == Some(about.artifact.word())
        && word("/source") == Some(about.source.as_str())
        && word("/target") == about.target.map(RuntimeId::as_str)
        && proved.seq == about.seq;
    if !is_bound {
        return Err(named(Fault::Misaddressed, "that of another artifact"));
    }
    let fields = Fields::of(&root)?;
    parse(&fields).map_err(|refusal| named(refusal.fault, &refusal.detail))
}

fn named(fault: Fault, detail: &str) -> Refusal {
    Refusal { fault, detail: format!("exchange envelope: {detail}") }
}

fn parse(root: &Fields<'_>) -> Result<Envelope, Refusal> {
    let is_id = |text: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
        (1..=EXCHANGE_ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed)
    };
    let id = |text: &str| is_id(text).then_some(());
    root.made("exchange_id", "must be 1 to 200 of A-Z a-z 0-9 . _ : -", id)?;
    let provenance = root.object("provenance", "/provenance")?;
    let constraints = root.object("constraints", "/constraints")?;
    let term = |text: &str| is_term(text).then(|| text.to_owned());
    let uses = constraints.array("allowed_use")?;
    let uses = uses.iter().map(|json| json.as_str().and_then(term)).collect();
    let too_many = "must be at most 16 of 1 to 32 of A-Z a-z 0-9 _ -";
    Ok(Envelope {
        drift_source: provenance
            .word("drift_source", Provenance::LIST, |word| word.parse().ok())?,
        trace: provenance.optional("traceparent", |fields, name| {
            fields.made(name, "must be a traceparent", TraceParent::parse)
        })?,
        scope: constraints.optional("scope", |fields, name| {
            fields.made(name, "must be 1 to 32 of A-Z a-z 0-9 _ -", term)
        })?,
        allowed_use: Option::filter(uses, |uses: &Vec<_>| uses.len() <= USES_MAX)
            .ok_or_else(|| constraints.refuse("allowed_use", too_many))?,
        expires: constraints.optional("expires_at", Fields::time)?,
    })
}

/// What becomes of an artifact that came in (SRIP-17 VII.3).
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    strum::IntoStaticStr,
    strum::VariantArray,
    serde::Serialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum Ruling {
    /// Taken for all that its sender allows.
    Accept,
    /// Taken for less than its sender allows.
    Narrow,
    /// Refused, though its sender has made it: it may be sent again when the reason is gone.
    Quarantine,
    /// Refused: nothing proves that its sender has made it for us and now, or nobody can read it.
    Reject,
}

impl Ruling {
    /// The word in views, metrics and the audit log.
    #[must_use]
    pub fn word(self) -> &'static str {
        self.into()
    }

    /// Of what was refused.
    #[must_use]
    pub fn of(fault: Fault) -> Self {
        match fault {
            Fault::Expired | Fault::Unauthorised | Fault::Unstable => Self::Quarantine,
            Fault::Malformed
            | Fault::Incompatible
            | Fault::Forged
            | Fault::Misaddressed
            | Fault::Replayed => Self::Reject,
        }
    }
}

/// Under what an artifact was taken.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct Admission {
    /// Accept or narrow.
    pub verdict: Ruling,
    /// What the runtime may use it for.
    pub allowed_use: Vec<String>,
    /// Under which scope its sender sent it, where it names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Where its drift metrics come from, where that is signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drift_source: Option<Provenance>,
}

impl Terms {
    /// What holds for several peers at once: the scope that all of them have, and the uses that all
    /// of them allow.
    #[must_use]
    pub fn common<'a>(mut all: impl Iterator<Item = &'a Self>) -> Self {
        let mut common = all.next().cloned().unwrap_or_default();
        for terms in all {
            common.allowed_use.retain(|allowed| terms.allowed_use.contains(allowed));
            common.scope = common.scope.filter(|scope| terms.scope.as_ref() == Some(scope));
        }
        common
    }

    /// The verdict on a verified artifact that may come from its source: reads its envelope, if one
    /// came with it, and holds that against these terms (SRIP-17 VII.3). What it says besides is
    /// handed back, for the verdict has to be given anew when the terms or the time change.
    ///
    /// # Errors
    /// [`Refusal`] as [`read`] and [`Terms::admit`] give it.
    pub fn judge(
        &self,
        keyring: &Keyring,
        header: Option<&str>,
        said: Option<&str>,
        about: &About<'_>,
        now: Timestamp,
    ) -> Result<(Option<Envelope>, Admission), Refusal> {
        let envelope = header.map(|header| read(keyring, header, about)).transpose()?;
        let admission = self.admit(envelope.as_ref(), said, now)?;
        Ok((envelope, admission))
    }

    /// Holds what an artifact came with against these terms. Without an envelope it came under no
    /// scope and as evidence, and `said` is what an unsigned header says of its drift source, which
    /// can only tighten.
    ///
    /// # Errors
    /// [`Refusal`] with `Unauthorised` (another scope, no use that both allow, a drift source that
    /// is not accepted) or `Expired`.
    pub fn admit(
        &self,
        envelope: Option<&Envelope>,
        said: Option<&str>,
        now: Timestamp,
    ) -> Result<Admission, Refusal> {
        let refuse = |detail: &str| Err(Refusal::of(Fault::Unauthorised, detail));
        let drift_source = envelope.map(|envelope| envelope.drift_source);
        match drift_source.map(Provenance::word).or(said) {
            None => {}
            Some(word) if word == Provenance::Native.word() => {}
            Some(word) if word == Provenance::Derived.word() && self.accepts_derived => {}
            Some(_) => {
                return refuse("its drift metrics are not native, which its entry does not accept");
            }
        }
        let expires = envelope.and_then(|envelope| envelope.expires);
        if expires.is_some_and(|expires| now >= expires) {
            return Err(named(Fault::Expired, "its use has ended"));
        }
        let scope = envelope.and_then(|envelope| envelope.scope.as_ref());
        if self.scope.is_some() && self.scope.as_ref() != scope {
            return refuse("not under the scope that the entry of its source names");
        }
        let evidence = [EVIDENCE.to_owned()];
        let offered = envelope.map_or(&evidence[..], |envelope| &envelope.allowed_use);
        let mut allowed_use = offered.to_vec();
        allowed_use.retain(|offered| self.allowed_use.contains(offered));
        if allowed_use.is_empty() {
            return refuse("allows no use that the entry of its source allows");
        }
        let is_whole = allowed_use.len() == offered.len();
        Ok(Admission {
            verdict: if is_whole { Ruling::Accept } else { Ruling::Narrow },
            allowed_use,
            scope: scope.cloned(),
            drift_source,
        })
    }
}
