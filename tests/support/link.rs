//! A link under test: short calls that fail the test instead of returning errors.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use driftgate::nats::HeaderMap;
use driftgate::nats::ack::{PublishFault, Stored};
use driftgate::nats::assets;
use driftgate::nats::inbound::InboundMessage;
use driftgate::nats::link::{Link, LinkEvent, Outgoing};
use driftgate::nats::settings::Settings;
use driftgate::protocol::packet::RuntimeId;

use super::nats_server::PATIENCE;

/// A link and its events.
pub(crate) struct Bench {
    pub(crate) link: Link,
    /// Events that were read while looking for another.
    skipped: VecDeque<LinkEvent>,
    settings: Settings,
}

impl Bench {
    /// Connects with settings; the assets are left alone.
    pub(crate) async fn connect(settings: &Settings) -> Self {
        let link = Link::connect(settings).await.expect("a connection");
        Self { link, skipped: VecDeque::new(), settings: settings.clone() }
    }

    /// Provisions, connects and opens the acknowledgement subscription.
    pub(crate) async fn open(settings: &Settings) -> Self {
        assets::ensure(settings).await.expect("provisioning");
        let mut bench = Self::connect(settings).await;
        bench.link.subscribe_acks().expect("room");
        bench
    }

    /// A message from this runtime to `target`.
    pub(crate) fn message(&self, target: &str, id: &str, payload: impl Into<Bytes>) -> Outgoing {
        let target = RuntimeId::new(target).expect("an id");
        let subject = self.settings.broker.prefix.state(&self.settings.runtime_id, &target);
        let mut headers = HeaderMap::new();
        if !id.is_empty() {
            headers.insert("Nats-Msg-Id", id);
        }
        Outgoing { subject, headers, payload: payload.into() }
    }

    /// Starts to pull what is for this runtime.
    pub(crate) fn pull(&mut self, batch: u16, expires: Duration) {
        let consumer = self.settings.consumer();
        self.link
            .start_pull(&self.settings.broker.stream_in, &consumer, batch, expires)
            .expect("room");
    }

    /// The next event.
    pub(crate) async fn next(&mut self) -> LinkEvent {
        if let Some(event) = self.skipped.pop_front() {
            return event;
        }
        tokio::time::timeout(PATIENCE, self.link.event()).await.expect("an event in time")
    }

    /// The next event that `pick` takes; the others stay for later.
    pub(crate) async fn find<T>(&mut self, pick: impl Fn(&LinkEvent) -> Option<T>) -> T {
        let place = self.skipped.iter().position(|event| pick(event).is_some());
        if let Some(found) = place.and_then(|place| self.skipped.remove(place)) {
            return pick(&found).expect("just picked");
        }
        loop {
            let event =
                tokio::time::timeout(PATIENCE, self.link.event()).await.expect("an event in time");
            if let Some(found) = pick(&event) {
                return found;
            }
            self.skipped.push_back(event);
        }
    }

    /// The answer to the publish of `token`.
    pub(crate) async fn acked(&mut self, wanted: u64) -> Result<Stored, PublishFault> {
        self.find(|event| match event {
            LinkEvent::Ack { token, outcome } if *token == wanted => Some(outcome.clone()),
            _ => None,
        })
        .await
    }

    /// Sends a barrier and waits for it.
    pub(crate) async fn confirm(&mut self, id: u64) {
        self.link.confirm(id).expect("room");
        self.find(|event| (*event == LinkEvent::Confirmed(id)).then_some(())).await;
    }

    /// The next pulled message.
    pub(crate) async fn inbound(&mut self) -> InboundMessage {
        self.find(|event| match event {
            LinkEvent::Inbound(message) => Some(message.clone()),
            _ => None,
        })
        .await
    }

    /// Why the link ended.
    pub(crate) async fn closed(&mut self) -> String {
        self.find(|event| match event {
            LinkEvent::Closed(reason) => Some(reason.clone()),
            _ => None,
        })
        .await
    }

    /// Severs the link.
    pub(crate) async fn sever(mut self) {
        tokio::time::timeout(PATIENCE, self.link.sever()).await.expect("severed in time");
    }
}
