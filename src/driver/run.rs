//! The loop: one input, its effects, the next input.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::clock::{Clock, Watch};
use super::connection::{Change, Connector};
use super::inbound::Receiver;
use super::manifests::Manifests;
use super::memory::Keeper;
use super::presence::PRESENCE_TOKENS;
use super::quarantine::QUARANTINE_TOKENS;
use super::service::Service;
use super::traces::Watcher;
use super::uploads::Uploads;
use super::{Books, CLOSING_BUCKETS_S, Command, Holds, Inputs, OperatorOrder, Options, Standing};
use crate::audit::Recorder;
use crate::nats::ack::PublishFault;
use crate::nats::assets::{AssetFault, AssetReport};
use crate::nats::headers::{self, PacketHeaders};
use crate::nats::link::{ConnectFault, Link, LinkEvent, NotTaken, Outgoing, Told};
use crate::protocol::audit::Event;
use crate::protocol::bridge::{Answer, Bridge, Effect, Memory};
use crate::protocol::gate::Band;
use crate::protocol::handshake::Handshakes;
use crate::protocol::outbox::{Origin, Outcome};
use crate::protocol::packet::CONTEXT;
use crate::protocol::seal::Sealed;
use crate::protocol::time::Timestamp;
use crate::protocol::view::{Decision, Ticket};
use crate::telemetry::{Condition, Conditions, Feed, Histogram};

mod books;
mod commands;
mod drain;
mod operate;
mod readiness;
mod telemetry;
mod uploads;

use commands::{Batch, Waiter};

/// Commands and events that are handled before the loop looks at the other inputs again.
const BATCH_MAX: usize = 64;

pub(super) struct Driver {
    pub(super) clock: Clock,
    watch: Watch,
    /// Until when what happened once is shown.
    shown_until: BTreeMap<Condition, Duration>,
    pub(super) bridge: Bridge,
    pub(super) connector: Connector,
    pub(super) uploads: Uploads,
    pub(super) service: Service,
    pub(super) handshakes: Handshakes,
    pub(super) manifests: Manifests,
    receiver: Receiver,
    /// What the bridge asks for and is not done yet, in order.
    pub(super) effects: VecDeque<Effect>,
    /// Who waits for an answer of the bridge, which gives one to each and bounds how many wait.
    waiting: BTreeMap<Ticket, Waiter>,
    /// Lines of streams that are not judged yet.
    streams: VecDeque<Batch>,
    /// Who waits for the explanation of the next report.
    pub(super) watchers: Vec<Watcher>,
    next_ticket: u64,
    standing: watch::Sender<Standing>,
    pub(super) conditions: Conditions,
    verdicts: BTreeMap<Decision, u64>,
    /// Publishes that the broker refused, by reason.
    publish_refused: BTreeMap<&'static str, u64>,
    /// Closings by each of their reasons.
    closing_reasons: BTreeMap<&'static str, u64>,
    closings: Histogram,
    /// Attempts without an answer that have had their look at streams and connection.
    unanswered_seen: u64,
    pub(super) keeper: Keeper,
    holds: Holds,
    /// The newest isolate of whoever still holds, and when it came.
    isolated: Option<(OperatorOrder, Timestamp)>,
    feed: Feed,
    frames: telemetry::Frames,
    pub(super) recorder: Recorder,
}

/// Runs until told to stop, then drains.
pub(super) async fn run(options: Options, mut inputs: Inputs, standing: watch::Sender<Standing>) {
    let mut driver = Driver::new(options, standing);
    driver.begin();
    driver.keeper.start(driver.clock.now().mono).await;
    driver.perform().await;
    while driver.turn(&mut inputs).await {}
    driver.drain(inputs).await;
}

impl Driver {
    fn new(options: Options, standing: watch::Sender<Standing>) -> Self {
        let clock = Clock::start();
        let me = options.identity.runtime_id.clone();
        let holds = options.holds;
        let memory = Memory { operator_hold: holds.any(), ..options.memory };
        let conditions = options.conditions;
        let instance = options.identity.life.as_ref().map(|life| life.instance);
        let keeper = Keeper::new(options.memory_file, &memory, instance, holds, conditions.clone());
        let bridge = Bridge::new(options.identity, options.live, memory, clock.now());
        let prefix = options.nats.broker.prefix.clone();
        Self {
            watch: Watch::new(clock.now()),
            shown_until: BTreeMap::new(),
            clock,
            bridge,
            receiver: Receiver::new(
                prefix.clone(),
                me.clone(),
                &options.deliver,
                conditions.clone(),
            ),
            service: Service::new(me.clone(), prefix, instance, options.snapshots, clock.now()),
            handshakes: Handshakes::default(),
            connector: Connector::new(options.nats),
            uploads: Uploads::new(options.uploads),
            manifests: Manifests::new(),
            effects: VecDeque::new(),
            streams: VecDeque::new(),
            watchers: Vec::new(),
            waiting: BTreeMap::new(),
            standing,
            next_ticket: 1,
            verdicts: BTreeMap::new(),
            publish_refused: BTreeMap::new(),
            closing_reasons: BTreeMap::new(),
            closings: Histogram::new(CLOSING_BUCKETS_S),
            unanswered_seen: 0,
            keeper,
            conditions,
            holds,
            isolated: None,
            feed: options.feed,
            frames: telemetry::Frames::default(),
            recorder: Recorder::start(options.audit, me),
        }
    }

    /// Waits for one input, handles a bounded part of what else is there already, performs the
    /// effects. `false` ends the loop.
    ///
    /// Whoever sends without pause must not keep anybody else waiting. So commands, of which a
    /// runtime may always have one more, are waited for last, and every queue gets its part in
    /// every turn, whichever of them woke the loop.
    async fn turn(&mut self, inputs: &mut Inputs) -> bool {
        let Inputs { commands, orders, reloads, stop } = inputs;
        let deadline = self.bridge.deadline(self.clock.now()).min(self.keeper.next_look());
        let deadline =
            deadline.min(self.receiver.quarantine.deadline()).min(self.handshakes.deadline());
        let deadline = deadline.min(self.manifests_due());
        let deadline = self.clock.instant(deadline);
        tokio::select! {
            biased;
            () = drain::stopped(stop) => return false,
            Some((order, answer)) = orders.recv() => self.operate(order, answer),
            Some((live, answer)) = reloads.recv() => self.reload(*live, answer).await,
            // What changed meanwhile is written at the end of this turn, also when nothing else
            // comes.
            () = self.keeper.written() => {}
            () = self.recorder.changed() => {}
            change = self.connector.changed() => self.change(change).await,
            delivery = self.receiver.delivery() => {
                self.receiver.delivered(self.connector.link(), delivery);
            }
            question = self.uploads.question() => self.upload(question),
            listed = self.service.listed() => self.listed(listed),
            looked = self.manifests.looked() => self.manifests_looked(looked),
            command = commands.recv() => match command {
                None => return false,
                Some(command) => self.command(command),
            },
            () = tokio::time::sleep_until(deadline) => {}
        }
        self.take(commands).await;
        self.effects.extend(self.bridge.tick(self.clock.now()));
        self.read_streams();
        self.keep_lock();
        self.look_at_manifests();
        self.look_for_answers().await;
        self.greet();
        self.perform().await;
        self.receiver.turn(self.clock.now(), &self.bridge, self.connector.link());
        self.recorder.flush(self.clock.now());
        self.remember();
        self.show();
        self.show_uploads();
        true
    }

    /// Handles what is there already, a bounded part of each queue.
    async fn take(&mut self, commands: &mut mpsc::Receiver<Command>) {
        for _ in 0..BATCH_MAX {
            let Some(event) = self.connector.try_event() else { break };
            self.change(Change::Event(event)).await;
        }
        for _ in 0..BATCH_MAX {
            let Some(delivery) = self.receiver.try_delivery() else { break };
            self.receiver.delivered(self.connector.link(), delivery);
        }
        self.take_questions();
        for _ in 0..BATCH_MAX {
            let Ok(command) = commands.try_recv() else { break };
            self.command(command);
        }
    }

    async fn change(&mut self, change: Change) {
        match change {
            Change::Up => {
                self.conditions.end(Condition::BrokerUnreachable);
                self.conditions.end(Condition::BrokerComplains);
                self.conditions.end(Condition::ThreadMissing);
                tracing::info!("connected to the broker");
                self.effects.extend(self.bridge.connected(self.clock.now()));
            }
            Change::Failed(fault) => {
                let starved = matches!(fault, ConnectFault::Starved(_));
                let text = starved.then(|| fault.to_string());
                self.conditions.set(Condition::ThreadMissing, text.into_iter().collect());
                self.conditions.begin(Condition::BrokerUnreachable, fault.to_string());
            }
            Change::Looked { first, outcome } => self.looked(first, outcome).await,
            Change::Read(read) => self.presence_read(read),
            Change::Left => self.sever("the server is about to stop").await,
            Change::Event(event) => self.event(event).await,
        }
    }

    async fn event(&mut self, event: LinkEvent) {
        let now = self.clock.now();
        match event {
            LinkEvent::Ack { token, outcome } if token >= QUARANTINE_TOKENS => {
                let stored = match outcome {
                    Ok(_) => Ok(()),
                    // The link knows one stream as ours; the quarantine is another.
                    Err(PublishFault::WrongStream { stream, .. })
                        if stream
                            == self.connector.settings().broker.stream_quarantine.as_str() =>
                    {
                        Ok(())
                    }
                    Err(fault) => Err(fault.to_string()),
                };
                if let Some(link) = self.connector.link() {
                    self.receiver.quarantine_answered(link, token, stored);
                }
                self.audit_inbound(now);
            }
            // Whatever it says, the broker has read what was published.
            LinkEvent::Ack { token, .. } if self.manifests.declared == Some(token) => {
                self.effects.extend(self.bridge.confirmed(now, token));
            }
            LinkEvent::Ack { token, outcome } if token >= PRESENCE_TOKENS => {
                self.presence_answered(token - PRESENCE_TOKENS, outcome);
            }
            LinkEvent::Ack { token, outcome } => self.answered(token, outcome),
            LinkEvent::Confirmed(id) => self.effects.extend(self.bridge.confirmed(now, id)),
            LinkEvent::Inbound(message) => {
                if let Some(link) = self.connector.link() {
                    let (bridge, keeper) = (&mut self.bridge, &mut self.keeper);
                    self.receiver.receive(now, bridge, keeper, link, message);
                }
                self.audit_inbound(now);
            }
            LinkEvent::Notice(Told { source, token, body }) => {
                match self.bridge.noticed(now, &source, token.as_deref(), &body) {
                    Ok(heard) => self.tell_notice(heard),
                    // Anybody can write there, as often as they like: what moves nothing is not
                    // logged where it would be read.
                    Err(refusal) => {
                        tracing::debug!(fault = refusal.fault.word(), "a notice moves nothing");
                    }
                }
            }
            LinkEvent::Telemetry(told) => self.phase_heard(now, &told),
            LinkEvent::PullFault(fault) => {
                self.conditions.begin(Condition::PullFailed, fault.to_string());
                self.connector.repair();
            }
            LinkEvent::Asked(question) => self.asked(question),
            LinkEvent::Answered { id, answer } => self.greeted(id, answer),
            LinkEvent::LameDuck => self.connector.leave(),
            LinkEvent::ServerFault(fault) => {
                self.conditions.begin(Condition::BrokerComplains, fault);
            }
            LinkEvent::Closed(reason) => self.sever(&reason).await,
        }
    }

    async fn sever(&mut self, reason: &str) {
        tracing::warn!(reason, "disconnected from the broker");
        self.disconnect().await;
    }

    async fn disconnect(&mut self) {
        if self.connector.link().is_some_and(|link| !link.is_read()) {
            self.bridge.sent();
        }
        self.connector.sever().await;
        self.receiver.disconnected();
        self.service.cut();
        self.handshakes.close();
        self.manifests.stop();
        self.effects.extend(self.bridge.disconnected(self.clock.now()));
    }

    /// Does what the bridge asks for, in order, until it asks for nothing more.
    pub(super) async fn perform(&mut self) {
        while let Some(effect) = self.effects.pop_front() {
            self.effect(effect).await;
        }
        self.count_closings();
    }

    async fn effect(&mut self, effect: Effect) {
        match effect {
            Effect::Publish { token, packet, origin } => {
                self.publish(token, &packet, &origin);
            }
            Effect::Notify(notice) => {
                let (payload, token) = self.bridge.signed(&notice);
                if let Some((link, settings)) = self.connector.link_and_settings() {
                    self.keeper.doubt();
                    let subject = settings.broker.prefix.containment(&settings.runtime_id);
                    let headers = headers::signed(token.as_deref());
                    if link.notify(Outgoing { subject, headers, payload }).is_err() {
                        tracing::warn!("a containment notice found the connection full");
                    }
                }
            }
            Effect::Phase { frame, seq, is_published } => {
                self.tell_phase(&frame, seq, is_published);
            }
            Effect::Cut => {
                self.receiver.cut();
                self.service.cut();
                self.handshakes.close();
                self.order(Link::unsubscribe_all).await;
            }
            Effect::Subscribe { pull } => {
                self.order(Link::subscribe_acks).await;
                self.open_services().await;
                self.start_handshakes();
                self.connector.prepare();
                if pull {
                    self.start_pull().await;
                } else {
                    self.order(Link::stop_pull).await;
                }
            }
            Effect::Confirm(id) => self.order(|link| link.confirm(id)).await,
            Effect::Sever => self.sever("the broker did not confirm the silence in time").await,
            Effect::Presence(effect) => self.presence(effect),
            Effect::Announce(announcement) => self.announce(announcement),
            Effect::Declare { number, body, token } => self.declare(number, body, &token),
            Effect::StopUploads { revoke } => self.stop_uploads(revoke),
            Effect::SeverUploads => self.sever_uploads(),
            Effect::Answer { ticket, answer } => {
                if let Answer::Report(reply) = &answer {
                    self.count(reply.verdict);
                }
                self.tell_watchers(ticket);
                self.tell_held(&answer);
                if let Some(waiter) = self.waiting.remove(&ticket) {
                    waiter.give(answer);
                }
            }
            Effect::Record(event) => {
                if let Event::Transition(transition) = &event {
                    // Nothing looks at the broker any more, with a link or without one (P4).
                    if transition.to == Band::Isolated {
                        self.connector.stop_looking();
                        self.manifests.stop();
                    }
                    self.count_reasons(transition);
                    self.show_transition(transition);
                }
                self.recorder.record(self.clock.now(), event);
            }
        }
    }

    fn publish(&mut self, token: u64, packet: &Sealed, origin: &Origin) {
        let now = self.clock.now();
        if self.bridge.is_overdue(now) {
            // The process stood still since this was handed out: time is looked at before anything
            // is sent, and it has closed the gate.
            self.effects.extend(self.bridge.not_sent(now, token));
            return;
        }
        let is_prepared = self.connector.is_prepared();
        let link = self.connector.link_and_settings().filter(|_| is_prepared);
        let Some((link, settings)) = link else {
            self.effects.extend(self.bridge.not_sent(self.clock.now(), token));
            return;
        };
        self.keeper.doubt();
        let outgoing = Outgoing {
            subject: settings.broker.prefix.state(&settings.runtime_id, packet.target()),
            headers: PacketHeaders {
                checksum: packet.checksum(),
                seq: packet.seq(),
                context: CONTEXT,
                traceparent: origin.trace.as_ref(),
                drift_source: origin.provenance,
                envelope: &origin.envelope,
            }
            .to_headers(),
            payload: packet.bytes().clone(),
        };
        if link.publish(token, outgoing).is_err() {
            self.effects.extend(self.bridge.not_sent(self.clock.now(), token));
        }
    }

    /// Gives the link a control order. A link that cannot even take that is of no use: severing it
    /// does what every one of these orders is for, and the next one starts clean.
    pub(super) async fn order(&mut self, order: impl FnOnce(&mut Link) -> Result<(), NotTaken>) {
        if self.connector.link().is_some_and(|link| order(link).is_err()) {
            self.sever("the connection takes no orders").await;
        }
    }
}
