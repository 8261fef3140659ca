//! A foreign client that hears what the broker hears, and reads back what the stream keeps.

use std::sync::{Arc, Mutex};

use async_nats::jetstream::{self, consumer};
use async_nats::{Client, HeaderMap, Message};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures_util::StreamExt as _;
use serde_json::Value;
use tokio::sync::watch;

use super::wait::LONG;

/// What the observer's own messages are published under. No packet has that many tokens, so no
/// stream of the sidecar's takes them.
const MARKER: &str = "driftgate.v1.state.observer.marker";

/// A connection with one subscription; everything on it is kept in the order of arrival.
pub(crate) struct Observer {
    pub(crate) client: Client,
    heard: Arc<Mutex<Vec<Message>>>,
    count: watch::Receiver<usize>,
    markers: Mutex<u64>,
}

impl Observer {
    /// Hears everything.
    pub(crate) async fn start(url: &str) -> Self {
        let client = async_nats::connect(url).await.expect("a connection");
        Self::of(client).await
    }

    pub(crate) async fn of(client: Client) -> Self {
        let mut subscriber = client.subscribe(">").await.expect("a subscription");
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (told, count) = watch::channel(0);
        let list = Arc::clone(&heard);
        tokio::spawn(async move {
            while let Some(message) = subscriber.next().await {
                let mut list = list.lock().expect("no test panics with it");
                list.push(message);
                told.send_replace(list.len());
            }
        });
        let observer = Self { client, heard, count, markers: Mutex::new(0) };
        observer.mark().await;
        observer
    }

    /// Publishes a marker and waits for it: whatever the broker had routed before is heard by then.
    /// Returns how many messages were heard before it.
    pub(crate) async fn mark(&self) -> usize {
        let number = {
            let mut markers = self.markers.lock().expect("no test panics with it");
            *markers += 1;
            *markers
        };
        let subject = format!("{MARKER}.{number}");
        self.client.publish(subject.clone(), "".into()).await.expect("a connection");
        self.find(0, "the marker", |message| message.subject.as_str() == subject).await.0
    }

    /// Waits for the first message from place `from` on that `is_it` recognises; returns its place.
    pub(crate) async fn find(
        &self,
        from: usize,
        what: &str,
        is_it: impl Fn(&Message) -> bool,
    ) -> (usize, Message) {
        let mut count = self.count.clone();
        let searching = async {
            let mut next = from;
            loop {
                count.borrow_and_update();
                {
                    let heard = self.heard.lock().expect("no test panics with it");
                    while let Some(message) = heard.get(next) {
                        if is_it(message) {
                            return (next, message.clone());
                        }
                        next += 1;
                    }
                }
                count.changed().await.expect("the subscription stands");
            }
        };
        match tokio::time::timeout(LONG, searching).await {
            Ok(found) => found,
            Err(_) => panic!("the observer waited too long for {what}"),
        }
    }

    /// Everything heard from place `from` on.
    pub(crate) fn heard(&self, from: usize) -> Vec<Message> {
        let heard = self.heard.lock().expect("no test panics with it");
        heard.get(from..).unwrap_or_default().to_vec()
    }

    /// The packets among it, as they were published: what the broker hands to a consumer is heard
    /// too, under the same subject, and told apart by its acknowledgement subject.
    pub(crate) fn packets(&self, from: usize) -> Vec<Packet> {
        let is_published = |message: &&Message| {
            !message.reply.as_ref().is_some_and(|reply| reply.starts_with("$JS.ACK."))
        };
        self.heard(from).iter().filter(is_published).filter_map(Packet::of).collect()
    }

    /// Publishes as anybody could, and waits for the stream's acknowledgement.
    pub(crate) async fn store(&self, subject: &str, bytes: &[u8]) {
        let context = jetstream::new(self.client.clone());
        let bytes = bytes.to_vec().into();
        let sent = context.publish(subject.to_owned(), bytes).await.expect("a connection");
        sent.await.expect("stored");
    }

    /// One call of the JetStream API.
    pub(crate) async fn api(&self, call: &str, body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let subject = format!("$JS.API.{call}");
        let answer = self.client.request(subject, body.into()).await.expect("an answer");
        serde_json::from_slice(&answer.payload).expect("JSON")
    }
}

/// A message on a packet's subject.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) source: String,
    pub(crate) target: String,
    /// From the integrity token; 0 when there is none.
    pub(crate) seq: u64,
    pub(crate) json: Value,
    pub(crate) bytes: bytes::Bytes,
    pub(crate) headers: HeaderMap,
}

impl Packet {
    /// `None` unless the subject is `driftgate.v1.state.{source}.{target}`.
    pub(crate) fn of(message: &Message) -> Option<Self> {
        let tokens: Vec<&str> = message.subject.split('.').collect();
        let ["driftgate", "v1", "state", source, target] = tokens.as_slice() else { return None };
        let json: Value = serde_json::from_slice(&message.payload).unwrap_or_default();
        let token = json["signature"]["integrity_token"].as_str().unwrap_or_default();
        let seq = token.split(':').nth(2).and_then(|seq| seq.parse().ok()).unwrap_or_default();
        Some(Self {
            source: (*source).to_owned(),
            target: (*target).to_owned(),
            seq,
            json,
            bytes: message.payload.clone(),
            headers: message.headers.clone().unwrap_or_default(),
        })
    }

    pub(crate) fn di(&self) -> f64 {
        self.json["payload"]["drift_metrics"]["di"].as_f64().unwrap_or(f64::NAN)
    }
}

/// Reads a whole stream back with a consumer of its own: what is really stored.
pub(crate) async fn stored(client: &Client, stream: &str) -> Vec<Message> {
    let context = jetstream::new(client.clone());
    let stream = context.get_stream(stream).await.expect("the stream");
    let config = consumer::pull::Config {
        ack_policy: consumer::AckPolicy::None,
        deliver_policy: consumer::DeliverPolicy::All,
        ..Default::default()
    };
    let consumer = stream.create_consumer(config).await.expect("a consumer");
    let count = usize::try_from(consumer.cached_info().num_pending).expect("a count");
    let mut messages =
        consumer.fetch().max_messages(count.max(1)).messages().await.expect("a fetch");
    let mut found = Vec::new();
    while let Some(message) = messages.next().await {
        found.push(message.expect("a message").message);
    }
    found
}

/// The same through the JetStream API, whose answers no message can break: subject, header block
/// and body of each, as the broker has them.
pub(crate) async fn kept(client: &Client, stream: &str) -> Vec<(Message, Vec<u8>)> {
    let call = async |call: String, body: String| -> Value {
        let answer = client.request(format!("$JS.API.{call}"), body.into()).await;
        serde_json::from_slice(&answer.expect("an answer").payload).expect("JSON")
    };
    let mut found = Vec::new();
    let mut next = 1;
    loop {
        let body = serde_json::json!({"seq": next, "next_by_subj": ">"}).to_string();
        let answer = call(format!("STREAM.MSG.GET.{stream}"), body).await;
        let Some(seq) = answer["message"]["seq"].as_u64() else { return found };
        next = seq + 1;
        let bytes = |key: &str| {
            let text = answer["message"][key].as_str().unwrap_or_default();
            BASE64_STANDARD.decode(text).expect("base64")
        };
        let message = Message {
            subject: answer["message"]["subject"].as_str().expect("a subject").into(),
            reply: None,
            payload: bytes("data").into(),
            headers: None,
            status: None,
            description: None,
            length: 0,
        };
        found.push((message, bytes("hdrs")));
    }
}
