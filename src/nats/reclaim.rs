//! What was under way when a connection ended: asked for again at once; what ended it taken out.
//!
//! A message that the broker had handed to a dead connection would come again only after the
//! consumer's `ack_wait`. Worse, anybody who may publish to us chooses its headers, a server passes
//! them on as they are, and async-nats ends the connection over headers that it cannot read: with
//! an error, or with a panic of its task over a lone CR. Such a message would end one connection
//! after the other, each time it comes again. So before a new link pulls, each message in question
//! is read through the JetStream API, whose answers hold headers as base64; one that is legible is
//! given back to the broker (`-NAK`), one that is not goes to the quarantine stream and is done
//! with (`+TERM`).
//!
//! Acknowledgement subjects are made here from what the consumer says of itself: a server finds the
//! message by its stream sequence, and ignores one that it does not wait for.
//!
//! What deliberately is not here: anything about a message's body. Whether it may reach the runtime
//! is decided when it comes again. Without permission to read the stream
//! (`$JS.API.STREAM.MSG.GET`) nothing is reclaimed, and `words` says what that costs.

use std::time::Duration;

use async_nats::{HeaderName, HeaderValue, StatusCode};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

use super::assets::AssetFault;
use super::headers;
use super::requests::{RequestFault, Requests};
use super::subject::Address;
use crate::protocol::packet::RuntimeId;
use crate::protocol::seal::Refusal;

/// Longest time that a new connection waits for this; what is left comes again after `ack_wait`.
pub const RECLAIM_TIMEOUT: Duration = Duration::from_secs(2);
/// Most messages looked at: four times what can be unacknowledged, since acknowledged ones lie
/// between them.
const LOOKS_MAX: usize = 1024;
/// JetStream error "no message found".
const ERR_NO_MESSAGE: u32 = 10_037;

/// What became of messages that were under way when an earlier connection ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// Messages that the broker was told to deliver again at once, if they were unacknowledged.
    pub again: usize,
    /// Messages that no client of ours could read; they do not come again. At most 1024.
    pub poisoned: Vec<Poisoned>,
}

/// A message whose subject or headers async-nats cannot read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Poisoned {
    /// Who its subject says published it.
    pub source: Option<RuntimeId>,
    /// Its place on the stream.
    pub stream_seq: u64,
    /// Whether the quarantine stream has its body.
    pub is_kept: bool,
}

/// One message of the stream, as the JetStream API gives it.
struct Held {
    subject: String,
    seq: u64,
    headers: Vec<u8>,
    body: Vec<u8>,
}

/// Where the consumer stands.
struct Standing {
    /// Everything up to here is acknowledged.
    floor: u64,
    /// Nothing above has been delivered.
    delivered: u64,
    /// Consumer sequence of the newest delivery: makes an acknowledgement subject plausible.
    consumer_seq: u64,
}

/// Sees to every message that the consumer waits for. No link may pull meanwhile.
pub(super) async fn run(requests: &Requests) -> Result<Reclaimed, AssetFault> {
    let working = see_to_all(requests);
    tokio::time::timeout(RECLAIM_TIMEOUT, working)
        .await
        .unwrap_or_else(|_| Err(AssetFault::TimedOut("STREAM.MSG.GET".to_owned())))
}

/// What it costs that nothing could be reclaimed, for `/readyz`.
pub(super) fn words(fault: &AssetFault) -> String {
    format!(
        "packets under way when a connection ended come again only after ack_wait, and an \
         unreadable one among them ends the next connection too: {fault}"
    )
}

async fn see_to_all(requests: &Requests) -> Result<Reclaimed, AssetFault> {
    let mut reclaimed = Reclaimed::default();
    let Some(standing) = standing(requests).await? else { return Ok(reclaimed) };
    let mut next = standing.floor + 1;
    for _ in 0..LOOKS_MAX {
        let Some(held) = held(requests, next).await? else { break };
        if held.seq < next || held.seq > standing.delivered {
            break;
        }
        next = held.seq + 1;
        if is_legible(&held.subject, &held.headers) {
            reclaimed.again += 1;
            answer(requests, &standing, held.seq, "-NAK").await?;
        } else {
            reclaimed.poisoned.push(take_out(requests, &standing, held).await?);
        }
    }
    // Its answer comes after everything above has been handled.
    self::standing(requests).await?;
    Ok(reclaimed)
}

/// `None` when nothing waits for an acknowledgement.
async fn standing(requests: &Requests) -> Result<Option<Standing>, AssetFault> {
    let settings = &requests.settings;
    let call = format!("CONSUMER.INFO.{}.{}", settings.broker.stream_in, settings.consumer());
    let info = requests.demand(&call, &Value::Null).await?;
    let number = |path| info.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    Ok((number("/num_ack_pending") > 0).then(|| Standing {
        floor: number("/ack_floor/stream_seq"),
        delivered: number("/delivered/stream_seq"),
        consumer_seq: number("/delivered/consumer_seq"),
    }))
}

/// The first message for us from a place on.
async fn held(requests: &Requests, from: u64) -> Result<Option<Held>, AssetFault> {
    let settings = &requests.settings;
    let call = format!("STREAM.MSG.GET.{}", settings.broker.stream_in);
    let filter = settings.broker.prefix.every_state_for(&settings.runtime_id);
    let body = json!({ "seq": from, "next_by_subj": filter });
    let message = match requests.call(&call, &body).await? {
        Ok(mut answer) => answer.get_mut("message").map(Value::take).unwrap_or_default(),
        Err(error) if error.err_code == ERR_NO_MESSAGE => return Ok(None),
        Err(error) => return Err(RequestFault::refused(&call, &error).into()),
    };
    let text = |key: &str| message.get(key).and_then(Value::as_str);
    let bytes = |key: &str| BASE64_STANDARD.decode(text(key).unwrap_or_default());
    let held = || {
        Some(Held {
            subject: text("subject")?.to_owned(),
            seq: message.get("seq")?.as_u64()?,
            headers: bytes("hdrs").ok()?,
            body: bytes("data").ok()?,
        })
    };
    held().map(Some).ok_or(AssetFault::Malformed(call))
}

/// Keeps a message as evidence and makes the broker give it up. The quarantine may refuse: that it
/// does not come again matters more.
async fn take_out(
    requests: &Requests,
    standing: &Standing,
    held: Held,
) -> Result<Poisoned, AssetFault> {
    let refusal = Refusal::malformed("headers", "no client can read them");
    let settings = &requests.settings;
    let subject = settings.broker.prefix.quarantine(&settings.runtime_id);
    let headers = headers::quarantine(&refusal.to_string(), &held.subject, held.seq);
    let stored = requests.ask(&subject, headers, Bytes::from(held.body)).await;
    let is_kept = stored.is_ok_and(|message| {
        serde_json::from_slice::<Value>(&message.payload)
            .is_ok_and(|answer| answer.get("error").is_none() && answer.get("seq").is_some())
    });
    answer(requests, standing, held.seq, "+TERM").await?;
    let source = match settings.broker.prefix.parse(&held.subject) {
        Some(Address::State { source, .. }) => Some(source),
        Some(_) | None => None,
    };
    Ok(Poisoned { source, stream_seq: held.seq, is_kept })
}

async fn answer(
    requests: &Requests,
    standing: &Standing,
    seq: u64,
    word: &'static str,
) -> Result<(), AssetFault> {
    let settings = &requests.settings;
    let (stream, consumer) = (&settings.broker.stream_in, settings.consumer());
    // Attempt, stream and consumer sequence, time, pending: the server looks at the second.
    let subject = format!("$JS.ACK.{stream}.{consumer}.1.{seq}.{}.0.0", standing.consumer_seq);
    Ok(requests.tell(&subject, Bytes::from_static(word.as_bytes())).await?)
}

/// Whether async-nats 0.51 reads a message with this subject and these headers; otherwise it ends
/// its connection, by an error or by a panic. Follows its parser (`connection.rs`) line by line,
/// and is held against it by a test.
///
/// ```
/// use driftgate::nats::reclaim::is_legible;
/// assert!(is_legible("a.b", b"NATS/1.0\r\nReason: good\r\n\r\n"));
/// assert!(!is_legible("a.b", b"NATS/1.0\r\nReason: a lone\rCR\r\n\r\n"));
/// ```
#[must_use]
pub fn is_legible(subject: &str, headers: &[u8]) -> bool {
    // The API writes a byte that is no UTF-8 as U+FFFD.
    let is_plain = |letter: char| !letter.is_whitespace() && letter != char::REPLACEMENT_CHARACTER;
    subject.chars().all(is_plain) && (headers.is_empty() || are_legible(headers))
}

fn are_legible(headers: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(headers) else { return false };
    let mut lines = text.lines().peekable();
    let Some(status) = lines.next().and_then(|line| line.strip_prefix("NATS/1.0")) else {
        return false;
    };
    let status = status.trim();
    let status = status.split_once(' ').map_or(status, |(status, _)| status.trim());
    if !status.is_empty() && status.parse::<StatusCode>().is_err() {
        return false;
    }
    while let Some(line) = lines.next() {
        if line.is_empty() {
            continue;
        }
        let Some((name, value)) = line.split_once(':') else { return false };
        let mut value = value.trim_start().to_owned();
        while let Some(more) = lines.next_if(|line| line.starts_with(char::is_whitespace)) {
            value.push_str(more);
        }
        let is_value = value.trim_end().parse::<HeaderValue>().is_ok();
        if !is_value || name.parse::<HeaderName>().is_err() {
            return false;
        }
    }
    true
}
