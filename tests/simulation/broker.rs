//! The simulated broker and the wires to it.
//!
//! One connection is ordered in both directions; nothing is ordered between two connections. A
//! command waits in `queue` (still ours, gone when the link is severed), travels on `wire` (out of
//! our hands: it may be read late or never) and is then processed. Acknowledgements of the stream
//! may be overtaken by echoes, as with a real server.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use bytes::Bytes;
use driftgate::protocol::bridge::Written;
use driftgate::protocol::outbox::Outcome;
use driftgate::protocol::presence::Held;

use crate::random::Random;

/// Duplicate window of the stream.
const DUPLICATE_WINDOW_US: u64 = 120_000_000;
/// Messages of one subject that the stream keeps.
const SUBJECT_LEN_MAX: usize = 8;
/// Messages of one consumer that may be unacknowledged.
const UNACKED_MAX: usize = 16;
/// When an unacknowledged message is delivered again.
const ACK_WAIT_US: u64 = 5_000_000;
/// How long bytes of a dead connection may travel: a Linux kernel tries for some 100 s to deliver
/// what a closed socket still holds.
const LINGER_US_MAX: u64 = 100_000_000;
/// Commands that wait on our side of one link. Small, so that it is full at times.
const QUEUE_LEN_MAX: usize = 12;
/// Dead connections whose bytes may still arrive; older ones never do.
const LINGERING_MAX: usize = 8;

/// A packet as its source emitted it.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) source: usize,
    /// Which run of the source's sidecar made it.
    pub(crate) life: usize,
    pub(crate) target: usize,
    pub(crate) seq: u64,
    pub(crate) wall_ms: i64,
    pub(crate) di: f64,
    pub(crate) key_id: &'static str,
    pub(crate) bytes: Bytes,
    /// The exchange envelope that it was sent in.
    pub(crate) envelope: Option<String>,
}

/// What a sidecar orders on its link.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    Publish {
        token: u64,
        packet: Rc<Packet>,
    },
    Notify,
    /// Read what stands under the own name.
    ReadOwn,
    /// Write it, if nobody else has since.
    Show {
        token: u64,
        bytes: Bytes,
        expected: u64,
    },
    /// A snapshot with its manifest, on the uploader's connection.
    Put(u64),
    SubscribeAcks,
    Pull(bool),
    UnsubscribeAll,
    Confirm(u64),
    Ack(u64),
}

/// What arrives at a sidecar.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Ack {
        token: u64,
        outcome: Outcome,
    },
    Echo(u64),
    Put(u64),
    /// What stands under the own name; `None` when the broker does not say.
    OwnRead(Option<Held>),
    Shown {
        token: u64,
        written: Written,
    },
    Inbound(Message),
}

/// An inbound message. `genuine` is the packet whose bytes these are; `None` when somebody has
/// made or changed them.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    /// Sequence number on the stream; 0 for what did not come from there.
    pub(crate) stream_seq: u64,
    /// Source and target of the subject, as places of nodes.
    pub(crate) subject: (usize, usize),
    pub(crate) bytes: Bytes,
    pub(crate) genuine: Option<Rc<Packet>>,
}

impl Message {
    pub(crate) fn of(packet: &Rc<Packet>, stream_seq: u64) -> Self {
        Self {
            stream_seq,
            subject: (packet.source, packet.target),
            bytes: packet.bytes.clone(),
            genuine: Some(Rc::clone(packet)),
        }
    }
}

/// How the broker answers publications.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Well,
    /// No leader, no stream, too many requests.
    Busy,
    Refusing,
    /// Stores, and says nothing.
    Silent,
    /// Says that somebody else has used the id.
    Claiming,
}

#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) node: usize,
    /// Whether it is an uploader's.
    pub(crate) is_upload: bool,
    pub(crate) queue: VecDeque<Command>,
    pub(crate) wire: VecDeque<Command>,
    pub(crate) back: VecDeque<Event>,
    /// Acknowledgements that the stream has not sent yet.
    unsent_acks: VecDeque<Event>,
    pub(crate) has_acks: bool,
    pub(crate) pulls: bool,
    /// Whether the sidecar still holds it.
    pub(crate) is_held: bool,
    /// Nothing moves on it until then.
    pub(crate) frozen_until_us: u64,
    /// Once let go: what is still on the wire then never arrives.
    lingers_until_us: u64,
}

#[derive(Debug)]
struct Stored {
    stream_seq: u64,
    packet: Rc<Packet>,
}

#[derive(Debug, Default)]
struct Consumer {
    delivered_through: u64,
    unacked: BTreeMap<u64, u64>,
}

/// What the broker has just processed and somebody looks at.
#[derive(Debug)]
pub(crate) enum Processed {
    Packet(Rc<Packet>),
    Put { node: usize, seq: u64 },
    Shown,
}

#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) connections: BTreeMap<u64, Connection>,
    next_connection: u64,
    pub(crate) stalled_until_us: u64,
    pub(crate) mood: Mood,
    pub(crate) mood_until_us: u64,
    subjects: BTreeMap<(usize, usize), VecDeque<Stored>>,
    ids: BTreeMap<(usize, usize, u64), (u64, u64)>,
    next_stream_seq: u64,
    consumers: Vec<Consumer>,
    /// What stands under the name of each node.
    entries: Vec<Held>,
    next_revision: u64,
}

impl Broker {
    pub(crate) fn new(nodes: usize) -> Self {
        Self {
            connections: BTreeMap::new(),
            next_connection: 1,
            stalled_until_us: 0,
            mood: Mood::Well,
            mood_until_us: 0,
            subjects: BTreeMap::new(),
            ids: BTreeMap::new(),
            next_stream_seq: 1,
            consumers: (0..nodes).map(|_| Consumer::default()).collect(),
            entries: vec![Held { revision: 0, bytes: None }; nodes],
            next_revision: 1,
        }
    }

    pub(crate) fn is_stalled(&self, now_us: u64) -> bool {
        now_us < self.stalled_until_us
    }

    pub(crate) fn connect(&mut self, node: usize) -> u64 {
        let id = self.next_connection;
        self.next_connection += 1;
        self.connections.insert(
            id,
            Connection {
                node,
                is_upload: false,
                queue: VecDeque::new(),
                wire: VecDeque::new(),
                back: VecDeque::new(),
                unsent_acks: VecDeque::new(),
                has_acks: false,
                pulls: false,
                is_held: true,
                frozen_until_us: 0,
                lingers_until_us: u64::MAX,
            },
        );
        id
    }

    /// The sidecar lets go, or the network does. What is still ours is gone; of what has left us a
    /// random beginning may yet be read.
    pub(crate) fn drop_connection(&mut self, random: &mut Random, now_us: u64, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.is_held = false;
        connection.lingers_until_us = now_us + random.below(LINGER_US_MAX);
        connection.queue.clear();
        connection.back.clear();
        connection.unsent_acks.clear();
        let kept = random.index(connection.wire.len() + 1);
        let kept = if random.in_thousand(300) { connection.wire.len() } else { kept };
        connection.wire.truncate(kept);
        self.forget_idle(now_us);
        let lingering: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, connection)| !connection.is_held)
            .map(|(id, _)| *id)
            .collect();
        if lingering.len() > LINGERING_MAX {
            self.connections.remove(&lingering[0]);
        }
    }

    /// Forgets dead connections that have nothing to say any more.
    pub(crate) fn forget_idle(&mut self, now_us: u64) {
        self.connections.retain(|_, connection| {
            let lingers = !connection.wire.is_empty() && now_us < connection.lingers_until_us;
            connection.is_held || lingers
        });
    }

    /// Takes one command from the sidecar; `false` when too many wait.
    pub(crate) fn order(&mut self, id: u64, command: Command) -> bool {
        let Some(connection) = self.connections.get_mut(&id) else { return false };
        if connection.queue.len() >= QUEUE_LEN_MAX {
            return false;
        }
        connection.queue.push_back(command);
        true
    }

    /// One command that can be processed now, or `None`.
    pub(crate) fn process(
        &mut self,
        random: &mut Random,
        now_us: u64,
        id: u64,
    ) -> Option<Option<Processed>> {
        let connection = self.connections.get_mut(&id)?;
        let command = connection.wire.pop_front()?;
        let mut processed = None;
        match command {
            Command::Publish { token, packet } => {
                let answer = self.publish(random, now_us, &packet);
                if let Some(outcome) = answer {
                    self.answer(random, id, Event::Ack { token, outcome });
                }
                processed = Some(Processed::Packet(packet));
            }
            Command::Notify => {}
            Command::ReadOwn => {
                let (node, is_held) = (connection.node, connection.is_held);
                let answer =
                    (self.mood(random, now_us) == Mood::Well).then(|| self.entries[node].clone());
                if let Some(connection) = self.connections.get_mut(&id).filter(|_| is_held) {
                    connection.back.push_back(Event::OwnRead(answer));
                }
            }
            Command::Show { token, bytes, expected } => {
                let node = connection.node;
                let mood = self.mood(random, now_us);
                let written = match mood {
                    Mood::Busy | Mood::Refusing | Mood::Claiming => Written::Refused,
                    Mood::Well | Mood::Silent if self.entries[node].revision != expected => {
                        Written::Lost
                    }
                    Mood::Well | Mood::Silent => Written::Stored(self.put(node, Some(bytes))),
                };
                if mood != Mood::Silent {
                    self.answer(random, id, Event::Shown { token, written });
                }
                processed = Some(Processed::Shown);
            }
            Command::Put(seq) => {
                if connection.is_held {
                    connection.back.push_back(Event::Put(seq));
                }
                processed = Some(Processed::Put { node: connection.node, seq });
            }
            Command::SubscribeAcks => connection.has_acks = true,
            Command::Pull(pulls) => connection.pulls = pulls,
            Command::UnsubscribeAll => {
                connection.has_acks = false;
                connection.pulls = false;
                connection.unsent_acks.clear();
            }
            Command::Confirm(echo) => {
                if connection.is_held {
                    connection.back.push_back(Event::Echo(echo));
                }
            }
            Command::Ack(stream_seq) => {
                let node = connection.node;
                self.consumers[node].unacked.remove(&stream_seq);
            }
        }
        self.forget_idle(now_us);
        Some(processed)
    }

    fn mood(&self, random: &mut Random, now_us: u64) -> Mood {
        if now_us < self.mood_until_us {
            self.mood
        } else if random.in_thousand(30) {
            random.pick(&[Mood::Busy, Mood::Refusing, Mood::Silent, Mood::Claiming])
        } else {
            Mood::Well
        }
    }

    /// What stands under the name of a node.
    pub(crate) fn entry(&self, node: usize) -> &Held {
        &self.entries[node]
    }

    /// Somebody writes there, and gets its number.
    pub(crate) fn put(&mut self, node: usize, bytes: Option<Bytes>) -> u64 {
        let revision = self.next_revision;
        self.next_revision += 1;
        self.entries[node] = Held { revision, bytes };
        revision
    }

    fn publish(
        &mut self,
        random: &mut Random,
        now_us: u64,
        packet: &Rc<Packet>,
    ) -> Option<Outcome> {
        let mood = self.mood(random, now_us);
        match mood {
            Mood::Busy => return Some(Outcome::Later),
            Mood::Refusing => return Some(Outcome::Refused),
            Mood::Claiming => {
                return Some(Outcome::Stored { stream_seq: self.next_stream_seq, duplicate: true });
            }
            Mood::Well | Mood::Silent => {}
        }
        let id = (packet.source, packet.target, packet.seq);
        let known =
            self.ids.get(&id).filter(|(_, since_us)| now_us < since_us + DUPLICATE_WINDOW_US);
        let duplicate = known.map(|(stream_seq, _)| *stream_seq);
        let stream_seq = duplicate.unwrap_or_else(|| self.store(now_us, packet));
        let outcome = Outcome::Stored { stream_seq, duplicate: duplicate.is_some() };
        (mood != Mood::Silent).then_some(outcome)
    }

    fn store(&mut self, now_us: u64, packet: &Rc<Packet>) -> u64 {
        let stream_seq = self.next_stream_seq;
        self.next_stream_seq += 1;
        self.ids.insert((packet.source, packet.target, packet.seq), (stream_seq, now_us));
        if self.ids.len() > 2048 {
            self.ids.retain(|_, (_, since_us)| now_us < *since_us + DUPLICATE_WINDOW_US);
        }
        let messages = self.subjects.entry((packet.source, packet.target)).or_default();
        messages.push_back(Stored { stream_seq, packet: Rc::clone(packet) });
        if messages.len() > SUBJECT_LEN_MAX {
            messages.pop_front();
        }
        stream_seq
    }

    fn answer(&mut self, random: &mut Random, id: u64, event: Event) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if !connection.is_held || !connection.has_acks {
            return;
        }
        if connection.unsent_acks.is_empty() && random.in_thousand(500) {
            connection.back.push_back(event);
        } else {
            connection.unsent_acks.push_back(event);
        }
    }

    /// The stream sends one acknowledgement that it kept back.
    pub(crate) fn release_ack(&mut self, random: &mut Random, id: u64) -> bool {
        let Some(connection) = self.connections.get_mut(&id) else { return false };
        // Acknowledgements may overtake each other: two streams, two leaders.
        let place = random.index(connection.unsent_acks.len());
        let Some(event) = connection.unsent_acks.remove(place) else { return false };
        if connection.has_acks {
            connection.back.push_back(event);
        }
        true
    }

    /// Hands the consumer's next message to a connection that pulls.
    pub(crate) fn deliver(&mut self, now_us: u64, id: u64) -> bool {
        let Some(connection) = self.connections.get_mut(&id) else { return false };
        if !connection.pulls || !connection.is_held {
            return false;
        }
        let node = connection.node;
        let consumer = &mut self.consumers[node];
        let due =
            consumer.unacked.iter().find(|(_, due_us)| **due_us <= now_us).map(|(seq, _)| *seq);
        let queues = self.subjects.iter().filter(|((_, target), _)| *target == node);
        let mut messages = queues.flat_map(|(_, queue)| queue.iter());
        let found = match due {
            Some(due) => messages.find(|stored| stored.stream_seq == due),
            None if consumer.unacked.len() >= UNACKED_MAX => None,
            None => messages
                .filter(|stored| stored.stream_seq > consumer.delivered_through)
                .min_by_key(|stored| stored.stream_seq),
        };
        let Some(stored) = found else {
            // A message that the stream has let go of is not waited for any longer.
            return due.is_some_and(|due| consumer.unacked.remove(&due).is_some());
        };
        consumer.delivered_through = consumer.delivered_through.max(stored.stream_seq);
        consumer.unacked.insert(stored.stream_seq, now_us + ACK_WAIT_US);
        connection.back.push_back(Event::Inbound(Message::of(&stored.packet, stored.stream_seq)));
        true
    }

    /// The stream is gone, with all that was on it.
    pub(crate) fn lose_stream(&mut self) {
        self.subjects.clear();
        self.ids.clear();
        for consumer in &mut self.consumers {
            *consumer = Consumer::default();
        }
    }
}
