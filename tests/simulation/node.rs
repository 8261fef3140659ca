//! One simulated sidecar: a real `Bridge`, the driver's side of it, and the checkers' own books
//! beside it. What happens to it is in `driver.rs`, what has to hold in `checkers.rs`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use driftgate::protocol::bridge::{Bridge, Effect, Identity, Live, Memory};
use driftgate::protocol::digest::Digest;
use driftgate::protocol::drift::Provenance;
use driftgate::protocol::exchange::{Offer, SUPPORTED};
use driftgate::protocol::gate::{Band, Mode, Thresholds};
use driftgate::protocol::inbox::Peer;
use driftgate::protocol::judge::{Flapping, Policy};
use driftgate::protocol::keyring::{KeyMaterial, Keyring};
use driftgate::protocol::packet::{AttractorType, RuntimeId};
use driftgate::protocol::presence::{self, Instance};
use driftgate::protocol::profile::Profile;
use driftgate::protocol::time::{Now, Timestamp};
use driftgate::protocol::view::Ticket;

use crate::broker::Packet;
use crate::disk::Disk;
use crate::letter::terms;
use crate::name::Name;
use crate::oracle::GateOracle;
use crate::random::Random;
use crate::report::RawReport;
use crate::runtime::Runtime;
use crate::uploads::{Spool, Uploader};

/// 2026-01-01T00:00:00Z.
const EPOCH_MS: i64 = 1_767_225_600_000;
/// Reports and packets that the checkers remember per life; nothing older can still be pending.
const REMEMBERED_MAX: usize = 4096;

/// The rings of keys that a node may hold: ids, and the one to sign with.
pub(crate) const RINGS: [(&[&str], Option<&str>); 5] = [
    (&["k1", "k2"], Some("k1")),
    (&["k1", "k2"], Some("k2")),
    (&["k1"], Some("k1")),
    (&["k2"], Some("k2")),
    (&["k1", "k2"], None),
];

/// What is the same for every node: built once.
pub(crate) struct Parts {
    pub(crate) rings: Vec<Keyring>,
    /// A ring of somebody who knows none of our keys but uses their names.
    pub(crate) foreign: Keyring,
    profile: Profile,
}

impl Parts {
    pub(crate) fn new() -> Self {
        let material = |id: &str, flip: u8| {
            let byte = if id == "k1" { 7 } else { 9 };
            KeyMaterial::hmac_secret(&[byte ^ flip; 32]).expect("32 bytes")
        };
        let ring = |ids: &[&str], signer: Option<&str>, flip: u8| {
            let keys = ids.iter().map(|id| ((*id).to_owned(), material(id, flip)));
            Keyring::new(keys, signer).expect("a ring")
        };
        Self {
            rings: RINGS.iter().map(|(ids, signer)| ring(ids, *signer, 0)).collect(),
            foreign: ring(&["k1", "k2"], Some("k1"), 0x55),
            profile: driftgate::profiles::load("srip-05").expect("the native profile"),
        }
    }
}

/// What the checkers know of a report that was judged.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) exportable: bool,
    pub(crate) wall_ms: i64,
    /// Formula over its parts: what its packets have to say.
    pub(crate) di: f64,
    pub(crate) key_id: Option<&'static str>,
}

/// What the reply has to say about one target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Held,
    Throttled,
    Made,
}

/// A report whose reply is owed.
#[derive(Clone, Debug)]
pub(crate) struct Owed {
    pub(crate) seq: u64,
    pub(crate) until_us: u64,
    pub(crate) closes: bool,
    pub(crate) band: Band,
    pub(crate) lines: Vec<(RuntimeId, Line)>,
}

/// The checkers' book of one target.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lane {
    pub(crate) reports: u64,
    pub(crate) newest_emitted: u64,
    pub(crate) since_offer: Option<u32>,
}

/// One run of a sidecar's process: everything that ends with it.
pub(crate) struct Life {
    pub(crate) bridge: Bridge,
    pub(crate) oracle: GateOracle,
    pub(crate) born_us: u64,
    pub(crate) link: Option<u64>,
    pub(crate) next_attempt_us: u64,
    /// When its bridge wants to be woken.
    pub(crate) wake_us: u64,
    /// Asked for and not yet performed.
    pub(crate) effects: VecDeque<Effect>,
    tickets: u64,
    /// Orders and unreadable reports: when they came, and whether they wait for a closing.
    pub(crate) deferred: BTreeMap<Ticket, (u64, bool)>,
    pub(crate) owed: BTreeMap<Ticket, Owed>,
    pub(crate) made: BTreeMap<u64, Made>,
    pub(crate) emitted: BTreeMap<(u64, usize), Rc<Packet>>,
    pub(crate) tokens: BTreeMap<u64, (u64, usize)>,
    /// Stream numbers that the broker gave for a packet: several where it claims a duplicate that
    /// it does not have.
    pub(crate) stored: BTreeMap<(u64, usize), BTreeSet<u64>>,
    pub(crate) lanes: BTreeMap<RuntimeId, Lane>,
    /// Highest accepted sequence number by source.
    pub(crate) floors: BTreeMap<usize, u64>,
    pub(crate) last_seq: u64,
    /// Nothing up to here may be emitted: the gate closed after it.
    pub(crate) closed_through: u64,
    /// Nothing up to here may leave us: the closing has ended.
    pub(crate) silent_through: u64,
    pub(crate) is_closing: bool,
    pub(crate) name: Name,
    pub(crate) uploader: Uploader,
    /// The newest accepted packet by source: its number, and when it was made.
    pub(crate) accepted: BTreeMap<usize, (u64, i64)>,
    /// Closings that have ended and whose replies are about to go: what each of them covers.
    pub(crate) ended: VecDeque<u64>,
}

pub(crate) struct Node {
    pub(crate) identity: Identity,
    pub(crate) live: Live,
    pub(crate) ring: usize,
    pub(crate) skew_ms: i64,
    /// Whether the runtime numbers its cycles.
    pub(crate) has_cycles: bool,
    /// The runtime's cycle counter.
    pub(crate) cycle: u32,
    /// What it reported last.
    pub(crate) last_report: Option<RawReport>,
    /// Reports of a runtime about to collapse that are still to come.
    pub(crate) weak_reports: u32,
    pub(crate) disk: Disk,
    pub(crate) runtime: Runtime,
    pub(crate) spool: Spool,
    /// Highest sequence number that any life has emitted, until its memory was lost.
    pub(crate) newest_emitted: u64,
    /// By life: nothing up to here may be processed by the broker.
    pub(crate) confirmed_through: Vec<u64>,
    pub(crate) life: Life,
}

pub(crate) fn id_of(index: usize) -> RuntimeId {
    RuntimeId::new(&format!("n{index}")).expect("an id")
}

/// The place of a node by its id.
pub(crate) fn place_of(id: &RuntimeId) -> usize {
    id.as_str().trim_start_matches('n').parse().expect("one of ours")
}

impl Node {
    pub(crate) fn new(parts: &Parts, random: &mut Random, index: usize, nodes: usize) -> Self {
        let (identity, live) = settings(parts, random, index, nodes);
        let skew_ms = i64::try_from(random.below(20_000)).expect("small") - 10_000;
        let ring = 0;
        let life = Life::new(&identity, &live, Memory::default(), 0, skew_ms);
        Self {
            live,
            ring,
            skew_ms,
            has_cycles: !random.in_thousand(150),
            cycle: 0,
            last_report: None,
            weak_reports: 0,
            disk: Disk::new(identity.life.as_ref().map(|life| life.instance)),
            identity,
            runtime: Runtime::default(),
            spool: Spool::new(),
            newest_emitted: 0,
            confirmed_through: vec![0],
            life,
        }
    }

    /// A new process with what the last one left on disk.
    pub(crate) fn restart(&mut self, now_us: u64, memory: Memory) {
        self.life = Life::new(&self.identity, &self.live, memory, now_us, self.skew_ms);
        self.confirmed_through.push(0);
    }

    /// A new process has a new number of its own.
    pub(crate) fn begin_life(&mut self, random: &mut Random) {
        if let Some(life) = &mut self.identity.life {
            life.instance = instance(random);
        }
    }

    pub(crate) fn instance(&self) -> Option<Instance> {
        self.identity.life.as_ref().map(|life| life.instance)
    }

    /// Whether it was looked who has the name, on this connection, as far as the broker answers.
    pub(crate) fn is_name_known(&self, now_us: u64) -> bool {
        let timeout_us = u64::try_from(self.identity.ack_timeout.as_micros()).expect("short");
        let Name { asked_us, is_read, .. } = self.life.name;
        self.identity.life.is_none()
            || is_read
            || asked_us.is_some_and(|asked_us| now_us >= asked_us + timeout_us)
    }

    pub(crate) fn life_number(&self) -> usize {
        self.confirmed_through.len() - 1
    }

    pub(crate) fn clock(&self, now_us: u64) -> Now {
        clock(now_us, self.life.born_us, self.skew_ms)
    }

    /// Most packets that may be pending: the window, and one unsent in each lane.
    pub(crate) fn window_and(&self, lanes: u64) -> u64 {
        u64::try_from(self.identity.window).expect("small") + lanes
    }

    /// Whether a target may be reached now.
    pub(crate) fn may_reach(&self, now: Now, target: &RuntimeId) -> bool {
        self.live.peers.get(target).is_some_and(|peer| {
            peer.export_state && peer.expires.is_none_or(|expires| now.wall < expires)
        })
    }
}

fn clock(now_us: u64, born_us: u64, skew_ms: i64) -> Now {
    let since_epoch_ms = i64::try_from(now_us / 1000).expect("far from the end of time");
    Now {
        wall: Timestamp::from_unix_ms(EPOCH_MS + since_epoch_ms + skew_ms),
        mono: Duration::from_micros(now_us - born_us),
    }
}

/// The manifest of every peer was read, and matches.
pub(crate) fn meet(bridge: &mut Bridge, live: &Live, now: Now) -> Vec<Effect> {
    let (versions, digest) = (vec![SUPPORTED], Digest::of(b"one"));
    let offer = Offer { seq: 1, digest, versions, state: true, snapshot: true, expires: None };
    let found =
        live.peers.keys().map(|peer| bridge.peer_capabilities(now, peer, Ok(offer.clone())));
    found.flatten().collect()
}

impl Life {
    fn new(identity: &Identity, live: &Live, memory: Memory, now_us: u64, skew_ms: i64) -> Self {
        let oracle = GateOracle::new(memory.operator_hold, now_us);
        let floors = memory.floors.iter().map(|(id, floor)| (place_of(id), *floor)).collect();
        let last_seq = memory.seq;
        let now = clock(now_us, now_us, skew_ms);
        let mut bridge = Bridge::new(identity.clone(), live.clone(), memory, now);
        drop(meet(&mut bridge, live, now));
        Self {
            bridge,
            oracle,
            born_us: now_us,
            link: None,
            next_attempt_us: now_us,
            wake_us: u64::MAX,
            effects: VecDeque::new(),
            tickets: 0,
            deferred: BTreeMap::new(),
            owed: BTreeMap::new(),
            made: BTreeMap::new(),
            emitted: BTreeMap::new(),
            tokens: BTreeMap::new(),
            stored: BTreeMap::new(),
            lanes: BTreeMap::new(),
            floors,
            last_seq,
            closed_through: 0,
            silent_through: 0,
            is_closing: false,
            name: Name::default(),
            uploader: Uploader::default(),
            accepted: BTreeMap::new(),
            ended: VecDeque::new(),
        }
    }

    pub(crate) fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    /// The books stay small, the newest entries stay in them.
    pub(crate) fn prune(&mut self) {
        prune(&mut self.made);
        prune(&mut self.emitted);
        prune(&mut self.tokens);
        prune(&mut self.stored);
    }
}

fn prune<K: Ord, V>(map: &mut BTreeMap<K, V>) {
    while map.len() > REMEMBERED_MAX {
        map.pop_first();
    }
}

fn settings(parts: &Parts, random: &mut Random, index: usize, nodes: usize) -> (Identity, Live) {
    let mut peers = BTreeMap::new();
    for other in (0..nodes).filter(|other| *other != index) {
        if random.in_thousand(850) {
            let peer = peer(random, other);
            peers.insert(peer.id.clone(), peer);
        }
    }
    let ms = |low, high, random: &mut Random| Duration::from_millis(random.between(low, high));
    let reply_timeout = ms(300, 2500, random);
    let stale_after = ms(5_000, 120_000, random);
    let accept = if random.in_thousand(150) { Provenance::Reported } else { Provenance::Native };
    let live = Live {
        peers,
        keyring: parts.rings[0].clone(),
        policy: Policy {
            thresholds: Thresholds::default(),
            accept,
            dwell: random.pick(&[1, 1, 1, 2, 3]),
            lock: random.in_thousand(150).then(|| random.pick(&[0.55, 0.65, 0.7])),
            flapping: random.in_thousand(200).then(|| Flapping {
                closings: random.pick(&[2, 3]),
                cycles: random.pick(&[6, 20]),
            }),
            ..Policy::default()
        },
        caution_every: random.pick(&[2, 3, 3, 5]),
        caution_blocks: random.in_thousand(100),
        blocked_inbound_hold: random.in_thousand(400),
        stale_after,
        silence_isolates_after: random.in_thousand(300).then_some(stale_after * 2),
        isolate_after: random.in_thousand(300).then_some(ms(1_000, 20_000, random)),
        // Not above the reply's, as the configuration demands.
        barrier_timeout: ms(100, 2500, random).min(reply_timeout),
        packet_max_age: Duration::from_secs(300),
        clock_skew_max: Duration::from_secs(30),
        manifest: bytes::Bytes::new(),
    };
    let identity = Identity {
        mode: Mode::Enforce,
        runtime_id: id_of(index),
        profile: parts.profile.clone(),
        attractor_type: Some(AttractorType::Symbolic),
        reply_timeout,
        ack_timeout: if random.in_thousand(500) {
            ms(100, 400, random)
        } else {
            ms(400, 5_000, random)
        },
        window: random.pick(&[1, 1, 2, 4, 64]),
        life: random
            .in_thousand(600)
            .then(|| presence::Life { instance: instance(random), version: "0".to_owned() }),
    };
    (identity, live)
}

fn instance(random: &mut Random) -> Instance {
    Instance::new(u128::from(random.next()) << 64 | u128::from(random.next()))
}

/// A peer as somebody may have configured it.
pub(crate) fn peer(random: &mut Random, index: usize) -> Peer {
    Peer {
        id: id_of(index),
        export_state: random.in_thousand(880),
        import_state: random.in_thousand(880),
        export_snapshot: random.in_thousand(500),
        import_snapshot: true,
        export_telemetry: random.in_thousand(500),
        import_telemetry: random.in_thousand(500),
        key_id: random.in_thousand(100).then(|| random.pick(&["k1", "k2"]).to_owned()),
        expires: None,
        terms: terms(random),
    }
}
