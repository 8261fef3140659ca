//! Drift that swings around a mark, and waits that end.

use std::time::Duration;

use driftgate::protocol::bridge::Effect;
use driftgate::protocol::gate::{Band, Reason};
use driftgate::protocol::outbox::Outcome;
use driftgate::protocol::time::Timestamp;

use crate::support::rig::{EPOCH_MS, Rig, Setup, settings};

const STORED: Outcome = Outcome::Stored { stream_seq: 9, duplicate: false };

/// What the driver was asked to do so far, by kind.
#[derive(Debug, Default, PartialEq, Eq)]
struct Costs {
    published: usize,
    notices: usize,
    echoes: usize,
    cuts: usize,
    severed: usize,
    subscribed: usize,
    replies: usize,
    records: usize,
}

impl Costs {
    fn book(&mut self, effect: &Effect) {
        #[expect(clippy::wildcard_enum_match_arm, reason = "what snapshots cost is theirs")]
        match effect {
            Effect::Publish { .. } => self.published += 1,
            Effect::Notify(_) => self.notices += 1,
            Effect::Confirm(_) => self.echoes += 1,
            Effect::Cut => self.cuts += 1,
            Effect::Sever => self.severed += 1,
            Effect::Subscribe { .. } => self.subscribed += 1,
            Effect::Answer { .. } => self.replies += 1,
            Effect::Record(_) => self.records += 1,
            _ => {}
        }
    }
}

/// One report with a broker that stores and echoes at once, and what it cost.
fn reported(rig: &mut Rig, di: f64, costs: &mut Costs) {
    rig.report(di);
    loop {
        let effects = std::mem::take(&mut rig.effects);
        if effects.is_empty() {
            return;
        }
        for effect in effects {
            costs.book(&effect);
            match effect {
                Effect::Publish { token, .. } => rig.answered(token, STORED),
                Effect::Confirm(id) => rig.confirm(id),
                Effect::Notify(_)
                | Effect::Phase { .. }
                | Effect::Cut
                | Effect::Subscribe { .. }
                | Effect::Sever
                | Effect::Announce(_)
                | Effect::Declare { .. }
                | Effect::StopUploads { .. }
                | Effect::SeverUploads
                | Effect::Answer { .. }
                | Effect::Presence(_)
                | Effect::Record(_) => {}
            }
        }
    }
}

fn swing(rig: &mut Rig, marks: [f64; 2], flips: usize) -> Costs {
    let mut costs = Costs::default();
    for flip in 0..flips {
        rig.now.mono += Duration::from_millis(1);
        rig.now.wall = rig.now.wall.plus(Duration::from_millis(1));
        reported(rig, marks[flip % 2], &mut costs);
    }
    costs
}

#[test]
fn ten_thousand_swings_around_the_block_mark_cost_a_notice_and_an_echo_each() {
    let mut rig = Rig::connected();
    rig.effects.clear();
    let costs = swing(&mut rig, [0.4499, 0.5001], 10_000);
    let expected = Costs {
        published: 15_000,
        notices: 10_000,
        echoes: 5000,
        replies: 10_000,
        records: 15_000,
        ..Costs::default()
    };
    assert_eq!(costs, expected, "no cut, no reconnect, no subscription");
    assert_eq!(rig.bridge.counters().transitions, 10_000);
    assert!(rig.bridge.safety(rig.now).transitions.len() <= 32, "the history is bounded");
}

#[test]
fn swings_inside_the_latch_change_nothing_and_send_nothing() {
    let mut rig = Rig::connected();
    let mut costs = Costs::default();
    reported(&mut rig, 0.55, &mut costs);
    let costs = swing(&mut rig, [0.4501, 0.4999], 10_000);
    assert_eq!(costs, Costs { replies: 10_000, ..Costs::default() });
    assert_eq!(rig.bridge.band(), Band::Blocked);
}

#[test]
fn swings_around_the_isolation_mark_stay_isolated_and_cut_once() {
    let mut rig = Rig::connected();
    rig.effects.clear();
    let costs = swing(&mut rig, [0.6001, 0.5999], 10_000);
    assert_eq!((costs.cuts, costs.severed, costs.published), (1, 0, 0));
    assert_eq!(rig.bridge.band(), Band::Isolated);
}

#[test]
fn swings_across_isolation_cut_and_subscribe_on_the_same_connection() {
    let mut rig = Rig::connected();
    rig.effects.clear();
    let costs = swing(&mut rig, [0.65, 0.3], 1000);
    assert_eq!((costs.cuts, costs.subscribed, costs.severed), (500, 500, 0));
}

#[test]
fn dwell_asks_for_good_reports_in_a_row_and_a_bad_one_starts_anew() {
    let mut settings = settings("planner", &["critic"]);
    settings.live.policy.dwell = 3;
    let mut rig = Rig::new(settings);
    let mut bands = Vec::new();
    for di in [0.1, 0.1, 0.46, 0.1, 0.1, 0.1, 0.5, 0.1, 0.1, 0.1] {
        rig.report(di);
        bands.push(rig.bridge.band());
    }
    let (closed, open) = (Band::Blocked, Band::Open);
    let expected = [closed, closed, closed, closed, closed, open, closed, closed, closed, open];
    assert_eq!(bands, expected);
}

/// Runs `step` with the wall clock thrown about before each step, and without; both must end alike.
fn with_clock_steps(settings: &Setup, step: impl Fn(&mut Rig, usize)) {
    let run = |steps: [i64; 4]| {
        let mut rig = Rig::new(settings.clone());
        rig.connect();
        let mut trace = Vec::new();
        for turn in 0..40 {
            rig.now.wall = Timestamp::from_unix_ms(EPOCH_MS + steps[turn % 4]);
            step(&mut rig, turn);
            let deadline = rig.bridge.deadline(rig.now);
            trace.push((rig.bridge.band(), deadline, rig.bridge.safety(rig.now).reasons));
        }
        trace
    };
    let steady = run([0; 4]);
    let decade = 315_360_000_000;
    assert_eq!(run([decade, -decade, 0, decade / 2]), steady, "a decade to and fro");
    assert_eq!(run([-EPOCH_MS, 0, -EPOCH_MS, 0]), steady, "back to 1970");
}

#[test]
fn a_step_of_the_wall_clock_opens_closes_and_stalls_nothing() {
    let mut settings = settings("planner", &["critic"]);
    settings.live.stale_after = Duration::from_secs(10);
    settings.live.silence_isolates_after = Some(Duration::from_secs(25));
    settings.live.isolate_after = Some(Duration::from_secs(60));
    with_clock_steps(&settings, |rig, turn| {
        rig.now.mono += Duration::from_secs(1);
        rig.tick();
        // Good reports, then silence, then good reports again.
        if !(5..35).contains(&turn) {
            rig.report(0.3);
        }
        for id in rig.confirms() {
            rig.confirm(id);
        }
    });
}

#[test]
fn the_bound_of_a_closing_is_kept_while_the_wall_clock_steps() {
    for step in [-EPOCH_MS, 0, 315_360_000_000] {
        let mut rig = Rig::connected();
        let mut costs = Costs::default();
        reported(&mut rig, 0.3, &mut costs);
        rig.report(0.55);
        rig.now.wall = Timestamp::from_unix_ms(EPOCH_MS + step);
        rig.now.mono += Duration::from_millis(1_999);
        rig.tick();
        assert!(rig.answers().is_empty());
        rig.now.mono += Duration::from_millis(1);
        rig.tick();
        assert_eq!(rig.answers().len(), 1);
    }
}

#[test]
fn blocked_too_long_counts_from_the_block_and_not_from_the_last_report() {
    let mut settings = settings("planner", &["critic"]);
    settings.live.isolate_after = Some(Duration::from_secs(60));
    let mut rig = Rig::new(settings);
    rig.report(0.3);
    rig.wait(Duration::from_secs(50));
    rig.report(0.55);
    for _ in 0..59 {
        rig.wait(Duration::from_secs(1));
        rig.report(0.47);
    }
    assert_eq!(rig.bridge.band(), Band::Blocked);
    rig.wait(Duration::from_secs(1));
    assert_eq!(rig.bridge.band(), Band::Isolated);
    assert_eq!(rig.bridge.safety(rig.now).reasons, [Reason::BlockedTooLong]);
    rig.report(0.3);
    assert_eq!(rig.bridge.band(), Band::Open);
}
