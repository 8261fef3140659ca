//! Every order of events that a small world has, up to a bound: the real bridge, one target, a
//! broker that reads what was sent in order and answers or does not. P1 to P6, P8 and P10 are
//! checked after each event, by a model that shares nothing with the bridge but the table.
//!
//! States are explored breadth first and told apart by [`Bridge::fingerprint`] and the model's own.
//! More of them: `DRIFTGATE_EXPLORE_STATES=10000000 cargo test --release --test protocol
//! exploration -- --nocapture`.

mod events;
mod model;
mod start;

use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;
use std::time::Instant;

use driftgate::protocol::gate::Mode;

use events::{EVENTS, Event};
use model::World;
use start::Start;

/// Distinct states that `cargo test` explores; more with `DRIFTGATE_EXPLORE_STATES`.
const STATES: usize = 4_000;

/// One explored state: the one that it was first reached from, and by what.
#[derive(Clone, Copy)]
struct Node {
    parent: usize,
    event: u8,
}

/// The world of the newest state looked at, and those on its way, so that the next state, which
/// shares most of the way, costs few events.
struct Way {
    nodes: Vec<usize>,
    worlds: Vec<World>,
}

impl Way {
    fn go(&mut self, tree: &[Node], to: usize) -> &World {
        let mut path = vec![to];
        while let Some(newest) = path.last().filter(|newest| **newest != 0) {
            path.push(tree[*newest].parent);
        }
        path.reverse();
        let shared = self.nodes.iter().zip(&path).take_while(|(one, other)| one == other).count();
        self.nodes.truncate(shared);
        self.worlds.truncate(shared);
        for node in &path[shared..] {
            let mut world = self.worlds.last().expect("the root").clone();
            world.take(EVENTS[usize::from(tree[*node].event)]);
            self.nodes.push(*node);
            self.worlds.push(world);
        }
        self.worlds.last().expect("at least the root")
    }
}

fn way_to(tree: &[Node], mut node: usize) -> Vec<Event> {
    let mut events = Vec::new();
    while node != 0 {
        let Node { parent, event } = tree[node];
        events.push(EVENTS[usize::from(event)]);
        node = parent;
    }
    events.reverse();
    events
}

/// How many distinct states to explore.
fn bound() -> usize {
    std::env::var_os("DRIFTGATE_EXPLORE_STATES").map_or(STATES, |text| {
        text.to_str().and_then(|text| text.parse().ok()).expect("a number of states")
    })
}

/// Explores up to `bound` distinct states; gives how many there are in each band.
fn explore(mode: Mode, bound: usize) -> BTreeMap<&'static str, u64> {
    #[expect(clippy::disallowed_methods, reason = "how long it takes is what is printed")]
    let begun = Instant::now();
    let root = World::new(&Rc::new(Start::new(mode)));
    let mut seen = HashSet::from([root.fingerprint()]);
    let mut tree = vec![Node { parent: 0, event: 0 }];
    let mut way = Way { nodes: vec![0], worlds: vec![root] };
    let mut counts = BTreeMap::new();
    let (mut next, mut depth, mut transitions) = (0, 0, 0_u64);
    let mut complete = true;
    'layers: while next < tree.len() {
        let layer_end = tree.len();
        while next < layer_end {
            for (index, event) in EVENTS.iter().enumerate() {
                let world = way.go(&tree, next);
                if !world.can(*event) {
                    continue;
                }
                let mut world = world.clone();
                world.take(*event);
                transitions += 1;
                if let Some(broken) = &world.broken {
                    let way = way_to(&tree, next);
                    panic!("{broken}\nafter {way:?}, then {event:?}");
                }
                if seen.insert(world.fingerprint()) {
                    *counts.entry(world.band_word()).or_default() += 1;
                    let event = u8::try_from(index).expect("few events");
                    tree.push(Node { parent: next, event });
                }
            }
            next += 1;
            if tree.len() >= bound {
                complete = false;
                break 'layers;
            }
        }
        depth += 1;
    }
    println!(
        "{} distinct states, depth {depth} complete{}, {transitions} transitions, {:.1} s, {counts:?}",
        tree.len(),
        if complete { ", and there are no more" } else { "" },
        begun.elapsed().as_secs_f64(),
    );
    assert!(tree.len() >= bound || complete);
    counts
}

#[test]
fn p1_to_p6_hold_in_every_order_of_events() {
    let counts = explore(Mode::Enforce, bound());
    for band in ["open", "caution", "blocked", "isolated"] {
        assert!(counts.get(band).is_some_and(|count| *count > 0), "{band} was never reached");
    }
}

#[test]
fn nothing_leaves_a_shadow_in_any_order_of_events() {
    let counts = explore(Mode::Shadow, bound().min(STATES));
    assert!(counts.contains_key("open"), "it never opened");
}
