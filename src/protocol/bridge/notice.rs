//! Notices of containment: ours to everybody, and those of peers, which can only withhold.

use bytes::Bytes;

use super::{Band, Bridge, Connection, Effect, Mode, Now, Reason, RuntimeId, exchanges};
use crate::protocol::canonical::Json;
use crate::protocol::document::{sign_body, verify_body};
use crate::protocol::fields::Fields;
use crate::protocol::keyring::Domain;
use crate::protocol::packet::{TEXT_BYTES_MAX, WORD_BYTES_MAX, is_text};
use crate::protocol::refusal::{Fault, Refusal};
use crate::protocol::time::Timestamp;

/// Longest notice that is read, in bytes: one with every reason has some 1,500.
pub const NOTICE_BYTES_MAX: usize = 4096;

/// State-free notice of a transition, `{p}.containment.{source}`.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Notice {
    /// This runtime.
    pub runtime_id: RuntimeId,
    /// Whether what the gate lets through is exported at all.
    pub mode: Mode,
    /// Band from here on.
    pub band: Band,
    /// Why.
    pub reasons: Vec<Reason>,
    /// Since when.
    pub since: Timestamp,
    /// Runtime restarts seen.
    pub epoch: u64,
}

/// What a peer's notice was proved to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Whose gate.
    pub source: RuntimeId,
    /// Where it stands.
    pub band: Band,
    /// Why, in words of its own; none where they are no words.
    pub reasons: Vec<String>,
    /// Since when, by its clock.
    pub since: Timestamp,
}

impl Bridge {
    /// Tells everybody who listens of the present band.
    pub(super) fn notify(&mut self, now: Now) {
        let band = self.judge.gate().band();
        self.notified = band;
        if self.connection != Connection::Down {
            self.outbox.stamp();
            self.effects.push(Effect::Notify(Notice {
                runtime_id: self.identity.runtime_id.clone(),
                mode: self.identity.mode,
                band,
                reasons: self.reasons.clone(),
                since: now.wall,
                epoch: self.judge.epoch(),
            }));
        }
    }

    /// The bytes of a notice and the token that proves them; none where there is no key to sign
    /// with. The token's number is the notice's time: a notice that comes again says nothing new.
    #[must_use]
    pub fn signed(&self, notice: &Notice) -> (Bytes, Option<String>) {
        self.signed_body(Domain::Notice, notice.since.unix_us(), notice)
    }

    /// The bytes of something that travels with a token of its own, and the token.
    pub(super) fn signed_body(
        &self,
        domain: Domain,
        seq: u64,
        document: &impl serde::Serialize,
    ) -> (Bytes, Option<String>) {
        // Every member of it can be written.
        let body = serde_json::to_vec(document).unwrap_or_default();
        let token = sign_body(&self.live.keyring, domain, seq, &body);
        (body.into(), token)
    }

    /// A peer says where its gate stands. Closed withholds what it sent up to then; anything else
    /// changes nothing, for only a packet that is dated later shows that it is open again. `None`
    /// for what is not heard now.
    ///
    /// # Errors
    /// [`Refusal`]: nothing is changed.
    pub fn noticed(
        &mut self,
        now: Now,
        source: &str,
        token: Option<&str>,
        body: &[u8],
    ) -> Result<Option<Heard>, Refusal> {
        if !self.may_receive() || source == self.identity.runtime_id.as_str() {
            return Ok(None);
        }
        let trust = exchanges::trust(&self.live, &self.exchanges);
        let Some(source) = RuntimeId::new(source).filter(|id| trust.peers.contains_key(id)) else {
            return Err(Refusal::of(Fault::Unauthorised, "source is not a peer"));
        };
        let token = token.ok_or_else(|| Refusal::forged("not signed"))?;
        if body.len() > NOTICE_BYTES_MAX {
            return Err(Refusal::malformed("/", "longer than 4096 bytes"));
        }
        let (key_id, _) = verify_body(trust.keyring, Domain::Notice, token, body)?;
        let heard = read(source, body)?;
        let Heard { source, band, since, .. } = &heard;
        if since.since(now.wall) > trust.limits.clock_skew_max {
            return Err(Refusal::of(Fault::Expired, "/since: in the future"));
        }
        trust.peer(now.wall, source, &key_id)?;
        if band.is_closed() {
            self.inbox.withhold(source.clone(), *since);
        }
        Ok(Some(heard))
    }
}

/// What a notice of `source` says.
fn read(source: RuntimeId, body: &[u8]) -> Result<Heard, Refusal> {
    let notice =
        Json::parse(body).map_err(|fault| Refusal::malformed(&fault.field, &fault.problem))?;
    let fields = Fields::of(&notice)?;
    if fields.text("runtime_id", TEXT_BYTES_MAX)? != source.as_str() {
        let detail = "/runtime_id and the subject name different runtimes";
        return Err(Refusal::of(Fault::Misaddressed, detail));
    }
    let band = fields.word("band", Band::WORDS, Band::of_word)?;
    let since = fields.time("since")?;
    let word =
        |json: &Json| json.as_str().filter(|text| is_text(text, WORD_BYTES_MAX)).map(str::to_owned);
    let reasons = notice.pointer("/reasons").and_then(Json::as_array);
    let reasons = reasons.and_then(|reasons| reasons.iter().map(word).collect());
    Ok(Heard { source, band, reasons: reasons.unwrap_or_default(), since })
}
