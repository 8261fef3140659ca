//! One report explained: the explanation and the judgement are of one piece, what is kept is
//! bounded and holds no text, and a check predicts and changes nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use driftgate::protocol::bridge::{Answer, TRACE_TARGETS_MAX, TRACES_MAX, Traced};
use driftgate::protocol::canonical::Json;
use driftgate::protocol::drift::{Coherence, Provenance};
use driftgate::protocol::gate::{Band, Mode, Reason, Thresholds};
use driftgate::protocol::keyring::Keyring;
use driftgate::protocol::outbox::Outcome;
use driftgate::protocol::seal::Step;
use driftgate::protocol::view::{
    Barrier, Decision, Inspection, PacketStatus, ReportReply, Ticket, TraceView,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::rig::{Rig, Setup, live, report, settings};
use crate::support::traces::{native, reference_03};

/// What only a row of the table can say, unlike what follows from the state of the gate.
const BESIDE_THE_TABLE: [Reason; 11] = [
    Reason::Latched,
    Reason::Dwell,
    Reason::Flapping,
    Reason::CycleGap,
    Reason::Throttled,
    Reason::Unfillable,
    Reason::InspectionFailed,
    Reason::Unconfirmed,
    Reason::Operator,
    Reason::Twin,
    Reason::Replaced,
];

fn connected(setup: Setup) -> Rig {
    let mut rig = Rig::new(setup);
    rig.connect();
    rig
}

/// Three peers.
fn setup() -> Setup {
    settings("planner", &["critic", "monitor", "scribe"])
}

fn json(document: &Value) -> Json {
    Json::parse(document.to_string().as_bytes()).expect("JSON")
}

/// What the broker has to say is said.
fn settle(rig: &mut Rig) {
    for (token, _) in rig.published() {
        rig.answered(token, Outcome::Stored { stream_seq: token + 100, duplicate: false });
    }
    for id in rig.confirms() {
        rig.confirm(id);
    }
}

fn newest(rig: &Rig) -> TraceView {
    rig.bridge.trace(Traced::Newest).expect("a report was made")
}

/// One report, settled: its answer if it was judged, and its explanation.
fn explained(rig: &mut Rig, document: &Value) -> (Option<ReportReply>, TraceView) {
    let ticket = rig.report_document(&json(document));
    settle(rig);
    let trace = rig.bridge.trace(Traced::Ticket(Ticket(ticket))).unwrap_or_else(|| newest(rig));
    (rig.answers().remove(&ticket), trace)
}

/// A number that is often at a mark.
fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        0.0..=1.0,
        prop::sample::select(vec![0.0, 0.25, 0.35, 0.45, 0.4499999, 0.5, 0.55, 0.6, 0.7, 1.0]),
    ]
}

prop_compose! {
    /// A document in the native shape, whole or with something left out.
    fn document()(
        cycle in prop::option::of(0_u64..6),
        phase in prop::sample::select(vec![
            "stable", "stable", "stable", "forming", "initializing", "reflection", "recovery", "odd",
        ]),
        (stability, scr) in (number(), prop_oneof![Just(0.8), Just(1.0), Just(0.0), 0.01..=1.0]),
        (sdi, sv, pd) in (number(), number(), number()),
        di in prop::option::of(number()),
        vitals in prop::collection::btree_map(
            prop::sample::select(vec!["psi", "psd"]), number(), 0..2,
        ),
        bare in prop::bool::weighted(0.1),
        flags in prop::bool::weighted(0.1),
        extra in prop::bool::weighted(0.2),
    ) -> Value {
        let mut attractor = json!({"id": "a-1", "type": "symbolic", "stability": stability,
            "phase": phase, "scr": scr});
        for (name, vital) in vitals {
            attractor[name] = json!(vital);
        }
        let mut metrics = json!({"sdi": sdi, "sv": sv, "pd": pd});
        if bare {
            (attractor, metrics) = (json!({"phase": phase}), json!({}));
        }
        if let Some(di) = di {
            metrics["di"] = json!(di);
        }
        let mut document = json!({"attractor_state": attractor, "drift_metrics": metrics});
        if let Some(cycle) = cycle {
            document["cycle"] = json!(cycle);
        }
        if flags {
            document["safety_flags"] = json!({"aegida_status": "locked"});
        }
        if extra {
            document["mine"] = json!(1);
        }
        document
    }
}

#[derive(Clone, Debug)]
enum Act {
    Report(Value),
    Garbage,
    Hold(bool),
    Wait(u64),
    Settle,
    Reconnect,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        6 => document().prop_map(Act::Report),
        1 => Just(Act::Garbage),
        1 => any::<bool>().prop_map(Act::Hold),
        2 => (0_u64..150).prop_map(Act::Wait),
        4 => Just(Act::Settle),
        1 => Just(Act::Reconnect),
    ];
    prop::collection::vec(act, 0..12)
}

fn policies() -> impl Strategy<Value = Setup> {
    let accept = prop_oneof![Just(Provenance::Native), Just(Provenance::Reported)];
    let marks = prop_oneof![Just((0.45, 0.5, 0.6)), Just((0.2, 0.3, 0.4))];
    let lock = prop::option::of(Just(0.65));
    (accept, marks, lock, 1_u32..3, any::<bool>()).prop_map(
        |(accept, marks, lock, dwell, shadow)| {
            let mut setup = setup();
            let (reopen, block, isolate) = marks;
            let policy = &mut setup.live.policy;
            policy.thresholds = Thresholds::new(reopen, block, isolate).expect("strict");
            (policy.accept, policy.lock, policy.dwell) = (accept, lock, dwell);
            setup.identity.mode = if shadow { Mode::Shadow } else { Mode::Enforce };
            setup
        },
    )
}

fn act(rig: &mut Rig, act: &Act) {
    match act {
        Act::Report(document) => drop(rig.report_document(&json(document))),
        Act::Garbage => drop(rig.unreadable()),
        Act::Hold(hold) => drop(rig.hold(*hold)),
        Act::Wait(seconds) => rig.wait(Duration::from_secs(*seconds)),
        Act::Settle => settle(rig),
        Act::Reconnect => {
            rig.disconnect();
            rig.connect();
        }
    }
}

/// All that a bridge shows of itself, in one text.
fn shown(rig: &Rig) -> String {
    let (bridge, now) = (&rig.bridge, rig.now);
    let ledgers: BTreeMap<_, _> = bridge.ledgers().collect();
    format!(
        "{:?} {:?} {:?} {:?} {:?} {ledgers:?} {:?} {:?} {:?} {:?}",
        bridge.safety(now),
        bridge.field_state(now),
        bridge.attractor(now, "a-1"),
        bridge.memory(now),
        bridge.counters(),
        bridge.deadline(now),
        bridge.seq_next(now),
        bridge.peer_modes(now),
        bridge.trace(Traced::Newest),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_rows_that_apply_are_the_reasons_and_the_band_of_the_verdict(
        setup in policies(),
        before in acts(),
        last in document(),
    ) {
        let mut rig = connected(setup);
        before.iter().for_each(|one| act(&mut rig, one));
        let (from, held) = (rig.bridge.band(), rig.bridge.is_held());
        let (reply, trace) = explained(&mut rig, &last);
        let applying: Vec<Reason> =
            trace.table.iter().filter(|row| row.applies).map(|row| row.reason).collect();
        let Some(reply) = reply else {
            // A retry has the explanation of the first, a refused one that of what is no evidence.
            prop_assert!(trace.parse.refused.is_none() || applying == [Reason::Invalid]);
            return Ok(());
        };
        prop_assert_eq!(&trace.gate.reasons, &reply.reasons);
        prop_assert_eq!((trace.gate.before, trace.gate.after), (from, reply.band));
        let said: Vec<Reason> = reply
            .reasons
            .iter()
            .copied()
            .filter(|reason| !BESIDE_THE_TABLE.contains(reason))
            // A lock that stands is one of the gate's, and a late report is an epoch either way.
            .filter(|reason| !(held && *reason == Reason::Locked) && *reason != Reason::NewEpoch)
            .collect();
        let rows: Vec<Reason> = applying
            .into_iter()
            .filter(|reason| !(held && *reason == Reason::Locked) && *reason != Reason::NewEpoch)
            .collect();
        prop_assert_eq!(rows, said);
        prop_assert!(trace.gate.asked <= reply.band, "{:?}", trace.gate);
        prop_assert_eq!(trace.index.and_then(|index| index.used), reply.di);
        prop_assert_eq!(trace.gate.verdict, reply.verdict);
        prop_assert_eq!(trace.targets.len(), reply.packets.len());
        for (target, line) in trace.targets.iter().zip(&reply.packets) {
            prop_assert_eq!((&target.target, target.status), (&line.target, line.status));
            prop_assert_eq!(target.stream_seq, line.stream_seq);
        }
        for target in &trace.targets {
            let is_made = matches!(
                target.status,
                PacketStatus::Pending | PacketStatus::Stored | PacketStatus::Shadow
            );
            prop_assert_eq!(is_made, target.inspection == Inspection::Passed);
        }
        prop_assert_eq!(trace.would_reopen.is_some(), reply.band.is_closed());
    }

    #[test]
    fn a_check_predicts_the_answer_and_changes_nothing(
        setup in policies(),
        before in acts(),
        last in prop::option::of(document()),
    ) {
        let mut rig = connected(setup.clone());
        let mut twin = connected(setup);
        for one in &before {
            act(&mut rig, one);
            act(&mut twin, one);
        }
        let (calm, document) = (shown(&rig), last.as_ref().map(json));
        let whole = format!("{:?}", rig.bridge);
        let checked = rig.bridge.check(rig.now, document.as_ref());
        prop_assert_eq!(&calm, &shown(&rig));
        prop_assert_eq!(whole, format!("{:?}", rig.bridge));
        // The following real report goes as it does where nobody checked.
        for rig in [&mut rig, &mut twin] {
            rig.answers();
            rig.effects.clear();
            match &document {
                Some(document) => drop(rig.report_document(document)),
                None => drop(rig.unreadable()),
            }
        }
        prop_assert_eq!(format!("{:?}", rig.effects), format!("{:?}", twin.effects));
        prop_assert_eq!(shown(&rig), shown(&twin));
        let trace = newest(&rig);
        match checked {
            Answer::Report(reply) => {
                prop_assert!(reply.check && reply.barrier.is_none());
                prop_assert_eq!(Some(reply.seq), trace.seq);
                prop_assert_eq!((reply.verdict, reply.band), (trace.gate.verdict, trace.gate.after));
                prop_assert_eq!(reply.reasons, trace.gate.reasons);
                let statuses = reply.packets.iter().map(|packet| packet.status);
                let traced = trace.targets.iter().map(|target| target.status);
                prop_assert_eq!(statuses.collect::<Vec<_>>(), traced.collect::<Vec<_>>());
            }
            Answer::Refused { fault, state } => {
                let refused = trace.parse.refused.expect("it was refused");
                prop_assert_eq!(state.barrier, None);
                prop_assert_eq!((state.band, state.reasons), (trace.gate.after, trace.gate.reasons));
                prop_assert_eq!(fault.is_some(), refused.field.is_some());
            }
            Answer::Retry(reply) => prop_assert!(reply.check),
            Answer::Order(_) => panic!("nobody ordered"),
        }
    }
}

#[test]
fn a_report_is_explained_from_what_was_read_to_where_it_is_stored() {
    let mut rig = connected(setup());
    let mut document = native(7, 0.2);
    document["mine"] = json!("the secret of the reply");
    let (reply, trace) = explained(&mut rig, &document);
    let shown = serde_json::to_value(&trace).expect("JSON");
    assert_eq!(shown["runtime_id"], "planner");
    assert_eq!(shown["mode"], "enforce");
    let reply = reply.expect("judged");
    assert_eq!(shown["seq"], reply.seq);
    assert_eq!((&shown["profile"], &shown["cycle"]), (&json!("srip-05"), &json!(7)));
    assert_eq!(shown["continuity"], json!({"is": "first"}));
    assert_eq!(shown["parse"]["ignored_bytes"], json!([4, 8]));
    assert_eq!(
        (&shown["parse"]["id_bytes"], &shown["parse"]["phase"]),
        (&json!(3), &json!("stable"))
    );
    let index = &shown["index"];
    assert_eq!((&index["source"], &index["accept"]), (&json!("native"), &json!("native")));
    assert_eq!(index["used"], index["native"]["di"]);
    let gate = &shown["gate"];
    assert_eq!(
        (&gate["before"], &gate["asked"], &gate["after"]),
        (&json!("blocked"), &json!("open"), &json!("open"))
    );
    assert_eq!((&gate["verdict"], &gate["reasons"]), (&json!("export"), &json!([])));
    let target = &shown["targets"][0];
    assert_eq!((&target["target"], &target["inspection"]), (&json!("critic"), &json!("passed")));
    assert_eq!(
        (&target["status"], &target["stream_seq"]),
        (&json!("stored"), &json!(reply.packets[0].stream_seq))
    );
    assert_eq!(shown["would_reopen"], Value::Null);
    let row = |name: &str| {
        let rows = shown["table"].as_array().expect("rows");
        rows.iter().find(|row| row["reason"] == name).expect("a row").clone()
    };
    let block = row("di_block");
    assert_eq!(
        (&block["band"], &block["of"], &block["value"]),
        (&json!("blocked"), &json!("di"), &index["used"])
    );
    assert_eq!(
        (&block["limit"], &block["unless"]),
        (&json!({"at_least": 0.5}), &json!({"at_least": 0.6}))
    );
    assert_eq!((&row("locked")["limit"], &row("psi_low")["value"]), (&Value::Null, &Value::Null));
    assert_eq!(row("posture_recenter")["limit"], "recenter");
    assert_eq!(row("no_evidence")["value"], "trusted");
    assert!(!shown.to_string().contains("secret"));
}

#[test]
fn a_closing_is_explained_with_what_was_revoked_and_how_it_ended() {
    let mut rig = connected(setup());
    let first = rig.report_document(&json(&native(1, 0.2)));
    let sent = rig.published();
    // The window has room for all three, so what waits is what the next report makes.
    rig.not_sent(sent[0].0);
    let mut isolating = native(2, 0.5);
    isolating["attractor_state"]["scr"] = json!(0.35);
    let (_, closing) = explained(&mut rig, &isolating);
    assert_eq!((closing.gate.before, closing.gate.after), (Band::Open, Band::Isolated));
    assert_eq!(closing.gate.verdict, Decision::Isolate);
    let target = &closing.targets[0];
    assert_eq!((target.inspection, target.status), (Inspection::NotBegun, PacketStatus::Held));
    assert!(closing.would_reopen.is_some_and(|words| words.starts_with("a report with di < 0.45")));
    let opened = rig.bridge.trace(Traced::Seq(first)).expect("kept");
    assert_eq!(opened.targets[0].status, PacketStatus::Revoked);
    for (token, _) in &sent[1..] {
        rig.answered(*token, Outcome::Stored { stream_seq: 5, duplicate: false });
    }
    for _ in 0..2 {
        settle(&mut rig);
    }
    let closing = newest(&rig);
    assert_eq!(closing.gate.barrier, Some(Barrier::Confirmed));
}

#[test]
fn the_newest_reports_are_kept_and_no_more_of_them_nor_of_their_targets() {
    let names: Vec<String> = (0..TRACE_TARGETS_MAX + 3).map(|name| format!("p{name}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut rig = connected(settings("planner", &names));
    let mut seqs = Vec::new();
    for cycle in 1..=40 {
        seqs.push(rig.report_document(&report(cycle, 0.2)));
        settle(&mut rig);
    }
    let kept = |seq: &u64| rig.bridge.trace(Traced::Seq(*seq)).is_some();
    assert_eq!(seqs.iter().filter(|seq| kept(seq)).count(), TRACES_MAX);
    assert!(seqs[40 - TRACES_MAX..].iter().all(kept));
    let trace = newest(&rig);
    assert_eq!((trace.targets.len(), trace.targets_omitted), (TRACE_TARGETS_MAX, 3));
    assert_eq!(rig.bridge.trace(Traced::Seq(1)), None);
}

#[test]
fn p9_no_text_of_a_report_is_kept() {
    let mut rig = connected(setup());
    let secret = "SECRET words";
    let at = |pointer: &str, key: &str, value: Value| {
        let mut document = native(1, 0.2);
        document.pointer_mut(pointer).expect("an object")[key] = value;
        document
    };
    let documents = [
        at("", secret, json!(secret)),
        at("", "safety_flags", json!({secret: true})),
        at("/attractor_state", secret, json!(1)),
        at("/attractor_state", "id", json!(secret)),
        at("/attractor_state", "type", json!(secret)),
        at("/attractor_state", "phase", json!(secret)),
        at("", "safety_flags", json!({"aegida_status": secret})),
        at("/drift_metrics", "sdi", json!(secret)),
    ];
    let mut refused = 0;
    for document in documents {
        let (_, trace) = explained(&mut rig, &document);
        assert!(!format!("{trace:?}").to_lowercase().contains("secret"), "{document}");
        if trace.parse.refused.is_some() {
            refused += 1;
            assert_eq!(trace.gate.reasons, [Reason::Invalid]);
        }
    }
    assert!(refused >= 3, "{refused}");
}

#[test]
fn a_report_that_is_refused_names_the_field_and_what_it_did() {
    let mut rig = connected(setup());
    explained(&mut rig, &native(1, 0.2));
    let mut bad = native(2, 0.2);
    bad["drift_metrics"]["sdi"] = json!(7);
    let (reply, trace) = explained(&mut rig, &bad);
    assert_eq!(reply, None);
    let refused = trace.parse.refused.expect("refused");
    assert_eq!(refused.field.as_deref(), Some("/drift_metrics/sdi"));
    assert_eq!(refused.problem, "must be between 0 and 1, is 7.0");
    assert_eq!((trace.seq, trace.index, trace.continuity), (None, None, None));
    assert_eq!((trace.gate.before, trace.gate.after), (Band::Open, Band::Blocked));
    bad = native(3, 0.2);
    bad["safety_flags"] = json!({"my words": true});
    let (_, trace) = explained(&mut rig, &bad);
    let refused = trace.parse.refused.expect("refused");
    let (field, key_bytes) = (refused.field.as_deref(), refused.key_bytes);
    assert_eq!((field, key_bytes), (Some("/safety_flags"), "/my words".len()));
    rig.unreadable();
    assert_eq!(newest(&rig).parse.refused.expect("refused").problem, "not a document");
}

#[test]
fn a_step_of_the_inspection_that_fails_is_named() {
    let mut rig = connected(setup());
    explained(&mut rig, &native(1, 0.2));
    let mut deaf = live(&["critic", "monitor", "scribe"]);
    deaf.keyring = Keyring::new([], None).expect("a ring that cannot sign");
    rig.reload(deaf);
    let (_, trace) = explained(&mut rig, &native(2, 0.2));
    let target = &trace.targets[2];
    let failed = Inspection::Failed(Step::Evidence);
    assert_eq!((target.inspection, target.status), (failed, PacketStatus::Held));
    assert_eq!((trace.gate.asked, trace.gate.after), (Band::Open, Band::Blocked));
    assert!(trace.gate.reasons.contains(&Reason::InspectionFailed));
}

#[test]
fn shadow_is_explained_as_what_would_have_left() {
    let mut shadow = setup();
    shadow.identity.mode = Mode::Shadow;
    let mut rig = connected(shadow);
    let (_, trace) = explained(&mut rig, &native(1, 0.2));
    assert_eq!((trace.mode, trace.gate.verdict), (Mode::Shadow, Decision::Observe));
    let target = &trace.targets[0];
    assert_eq!((target.inspection, target.status), (Inspection::Passed, PacketStatus::Shadow));
    // Also where the inspection would have failed.
    let mut deaf = live(&["critic", "monitor", "scribe"]);
    deaf.keyring = Keyring::new([], None).expect("a ring that cannot sign");
    rig.reload(deaf);
    let (_, trace) = explained(&mut rig, &native(2, 0.2));
    assert_eq!(trace.targets[0].inspection, Inspection::Failed(Step::Evidence));
    assert_eq!(trace.gate.after, Band::Blocked);
}

#[test]
fn a_derived_index_is_explained_with_the_coherence_that_was_assumed() {
    let mut setup = setup();
    setup.identity.profile = driftgate::profiles::load("reference-0.3").expect("built in");
    setup.live.policy.assumed_scr = Coherence::new(0.8);
    let mut rig = connected(setup);
    for cycle in 1..=3 {
        explained(&mut rig, &reference_03(cycle, 0.1));
    }
    let index = newest(&rig).index.expect("judged");
    assert_eq!((index.native, index.accept, index.assumed_scr), (None, "native", Some(0.8)));
    let derived = index.derived.expect("estimated");
    assert_eq!((derived.scr, derived.di.is_some()), (None, true), "{index:?}");
}
