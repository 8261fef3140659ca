//! Phase frames: ours leave only with what the gate let through (P1), those of peers are shown only
//! where their packets would be (P4, P7).

use std::time::Duration;

use driftgate::protocol::bridge::Effect;
use driftgate::protocol::document::sign_body;
use driftgate::protocol::gate::Mode;
use driftgate::protocol::keyring::{Domain, KeyMaterial, Keyring};
use driftgate::protocol::phase::PhaseFrame;
use driftgate::protocol::seal::Fault;
use serde_json::{Value, json};

use super::{STORED, echo_all, store_all};
use crate::support::rig::{EPOCH_MS, Rig, Setup, id, keyring, settings};

/// The frames since the last call: index, and whether it is published.
fn frames(rig: &mut Rig) -> Vec<(f64, bool)> {
    let mut frames = Vec::new();
    rig.effects.retain(|effect| match effect {
        Effect::Phase { frame, is_published, .. } => {
            let index = frame.drift_index.expect("evidence has an index");
            frames.push(((index * 100.0).round() / 100.0, *is_published));
            false
        }
        _ => true,
    });
    frames
}

fn reported(rig: &mut Rig, di: f64) -> Vec<(f64, bool)> {
    rig.report(di);
    let frames = frames(rig);
    store_all(rig);
    echo_all(rig);
    frames
}

fn shown(setup: Setup, reports: &[f64]) -> Vec<(f64, bool)> {
    let mut rig = Rig::new(setup);
    rig.connect();
    reports.iter().flat_map(|di| reported(&mut rig, *di)).collect()
}

#[test]
fn p1_a_frame_is_made_of_what_the_gate_let_through_and_of_nothing_else() {
    let plain = settings("planner", &["critic"]);
    let reports = [0.3, 0.55, 0.46, 0.3, 0.65, 0.55, 0.46, 0.44];
    assert_eq!(shown(plain.clone(), &reports), [(0.3, true), (0.3, true), (0.44, true)]);
    // In caution as often as packets.
    let caution = [0.3, 0.46, 0.46, 0.46, 0.46, 0.46, 0.46];
    let published = |setup: &Setup| {
        let shown = shown(setup.clone(), &caution);
        shown.into_iter().filter(|(_, is_published)| *is_published).count()
    };
    assert_eq!(published(&plain), 3);
    let mut other = plain.clone();
    other.live.caution_blocks = true;
    assert_eq!(published(&other), 1);
    // Shown here all the same, and published to nobody.
    let mut other = plain.clone();
    other.identity.mode = Mode::Shadow;
    assert_eq!(shown(other, &[0.3]), [(0.3, false)]);
    let mut other = plain.clone();
    other.live.peers.get_mut(&id("critic")).expect("a peer").export_telemetry = false;
    assert_eq!(shown(other, &[0.3]), [(0.3, false)]);
    let mut other = plain;
    let critic = other.live.peers.get_mut(&id("critic")).expect("a peer");
    critic.expires = driftgate::protocol::time::Timestamp::parse("2025-01-01T00:00:00Z");
    assert_eq!(shown(other, &[0.3]), [(0.3, false)]);
}

#[test]
fn p2_a_frame_counts_in_what_the_broker_has_to_read_and_none_follows_a_closing() {
    let mut setup = settings("planner", &["critic"]);
    setup.live.peers.get_mut(&id("critic")).expect("a peer").export_state = false;
    let mut rig = Rig::new(setup);
    rig.connect();
    reported(&mut rig, 0.3);
    assert!(rig.bridge.in_doubt(rig.now), "nobody has said that the frame was read");
    rig.report(0.55);
    assert!(rig.bridge.is_closing());
    // Open again before the silence is confirmed: nothing goes out yet.
    rig.report(0.3);
    assert_eq!(frames(&mut rig), [(0.3, false)]);
    echo_all(&mut rig);
    assert!(!rig.bridge.is_closing());
    assert_eq!(reported(&mut rig, 0.3), [(0.3, true)]);
    rig.report(0.55);
    rig.disconnect();
    assert!(rig.bridge.in_doubt(rig.now), "a frame may still be read");
}

/// A frame of the critic, as it would be written.
fn frame(seq: u64) -> Value {
    let at = driftgate::protocol::time::Timestamp::from_unix_ms(EPOCH_MS);
    json!({
        "runtime_id": "critic", "timestamp": at, "phase_state": "stable", "drift_index": 0.3,
        "recursion_depth": 3, "phase_vector": [1, 0, 0], "safety_status": "nominal",
        "drift_source": "native", "prompt": seq,
    })
}

fn hear(
    rig: &mut Rig,
    ring: &Keyring,
    seq: u64,
    frame: &Value,
) -> Result<Option<PhaseFrame>, Fault> {
    let body = frame.to_string();
    let token = sign_body(ring, Domain::Telemetry, seq, body.as_bytes());
    let heard = rig.bridge.phase_heard(rig.now, "critic", token.as_deref(), body.as_bytes());
    heard.map_err(|refusal| refusal.fault)
}

fn base() -> u64 {
    EPOCH_MS.unsigned_abs() * 1000
}

#[test]
fn p7_a_frame_of_a_peer_is_shown_once_and_only_where_all_of_it_is_right() {
    let mut rig = Rig::connected();
    let ring = keyring();
    let heard = hear(&mut rig, &ring, base(), &frame(1)).expect("accepted").expect("shown");
    assert_eq!((heard.runtime_id.as_str(), heard.recursion_depth), ("critic", Some(3)));
    let shown = serde_json::to_string(&heard).expect("a document");
    assert!(!shown.contains("prompt") && !shown.contains("psi"), "{shown}");
    assert_eq!(hear(&mut rig, &ring, base(), &frame(1)), Err(Fault::Replayed));
    let key = KeyMaterial::hmac_secret(&[8; 32]).expect("32 bytes");
    let foreign = Keyring::new([("k1".to_owned(), key)], Some("k1")).expect("a ring");
    assert_eq!(hear(&mut rig, &foreign, base() + 1, &frame(1)), Err(Fault::Forged));
    let cases = [
        ("runtime_id", json!("monitor"), Fault::Misaddressed),
        ("timestamp", json!("2025-12-31T23:00:00Z"), Fault::Expired),
        ("timestamp", json!("2026-01-01T00:01:00Z"), Fault::Expired),
        ("timestamp", json!(7), Fault::Malformed),
        ("drift_index", json!(0.5), Fault::Unstable),
        ("drift_index", json!(-0.1), Fault::Malformed),
        ("drift_index", Value::Null, Fault::Malformed),
        ("phase_state", json!("reflective"), Fault::Unstable),
        ("phase_state", json!("calm"), Fault::Malformed),
        ("safety_status", json!("locked"), Fault::Unstable),
        ("scr", json!(0.44), Fault::Unstable),
        ("psi", json!(0.59), Fault::Unstable),
        ("psd", json!(0.15), Fault::Unstable),
        ("phase_vector", json!([1, 1, 0]), Fault::Malformed),
        ("phase_expected", json!([1, 0]), Fault::Malformed),
        ("recursion_depth", json!(1.5), Fault::Malformed),
        ("drift_source", json!("derived"), Fault::Unauthorised),
    ];
    for (name, value, fault) in cases {
        let mut bad = frame(1);
        bad[name] = value;
        assert_eq!(hear(&mut rig, &ring, base() + 1, &bad), Err(fault), "{name}");
    }
    assert_eq!(hear(&mut rig, &ring, base() + 60_000_000, &frame(1)), Err(Fault::Expired));
    let now = rig.now;
    let body = frame(1).to_string();
    let unsigned = rig.bridge.phase_heard(now, "critic", None, body.as_bytes());
    assert_eq!(unsigned.map_err(|refusal| refusal.fault), Err(Fault::Forged));
    let stranger = rig.bridge.phase_heard(now, "stranger", None, body.as_bytes());
    assert_eq!(stranger.map_err(|refusal| refusal.fault), Err(Fault::Unauthorised));
    // None of all this stands in the way of the next good one.
    assert!(hear(&mut rig, &ring, base() + 1, &frame(1)).is_ok_and(|frame| frame.is_some()));
}

#[test]
fn a_frame_is_heard_only_from_who_may_be_heard_so() {
    let mut setup = settings("planner", &["critic", "monitor"]);
    let critic = setup.live.peers.get_mut(&id("critic")).expect("a peer");
    critic.import_telemetry = false;
    let mut rig = Rig::new(setup);
    rig.connect();
    let sources: Vec<_> = rig.bridge.telemetry_sources().cloned().collect();
    assert_eq!(sources, [id("monitor")]);
    let refused = hear(&mut rig, &keyring(), base(), &frame(1));
    assert_eq!(refused, Err(Fault::Unauthorised));
}

#[test]
fn p4_an_isolated_bridge_hears_no_frame() {
    let mut rig = Rig::connected();
    reported(&mut rig, 0.65);
    assert_eq!(hear(&mut rig, &keyring(), base(), &frame(1)), Ok(None));
    reported(&mut rig, 0.3);
    assert!(hear(&mut rig, &keyring(), base(), &frame(1)).is_ok_and(|frame| frame.is_some()));
}

/// A packet and a frame of one report go the same way.
#[test]
fn a_frame_of_ours_is_what_a_peer_reads() {
    let mut critic = Rig::new(settings("critic", &["planner"]));
    critic.connect();
    critic.wait(Duration::from_secs(1));
    critic.report(0.3);
    let frames: Vec<_> = critic
        .effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Phase { frame, seq, .. } => critic.bridge.signed_frame(frame, *seq),
            _ => None,
        })
        .collect();
    let (token, _) = critic.published().remove(0);
    critic.answered(token, STORED);
    assert!(critic.bridge.memory(critic.now).seq > 0 && !critic.bridge.in_doubt(critic.now));
    let (body, token) = frames.first().expect("one frame");
    let mut planner = Rig::connected();
    planner.wait(Duration::from_secs(1));
    let heard = planner.bridge.phase_heard(planner.now, "critic", Some(token), body);
    let heard = heard.expect("accepted").expect("shown");
    assert_eq!((heard.runtime_id, heard.scr), (id("critic"), Some(1.0)));
}
