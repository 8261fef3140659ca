//! What each profile reads, what it derives, what it takes for no evidence and what it refuses.

use crate::support::traces::{CANARY, native, reference_01, reference_03};
use driftgate::profiles;
use driftgate::protocol::canonical::Json;
use driftgate::protocol::drift::{Coherence, Provenance};
use driftgate::protocol::gate::Reason;
use driftgate::protocol::judge::{Judge, Judgement, Policy};
use driftgate::protocol::packet::{AttractorType, Posture};
use driftgate::protocol::profile::{Malformed, StateReport, Translation, Translator};
use serde_json::{Value, json};

fn parse(document: &Value) -> Json {
    Json::parse(document.to_string().as_bytes()).unwrap_or_else(|error| panic!("{error}"))
}

/// A profile and a judge, as the sidecar uses them.
#[derive(Debug)]
struct Reader {
    translator: Translator,
    judge: Judge,
}

impl Reader {
    fn new(profile: &str, policy: Policy) -> Self {
        let profile = profiles::load(profile).unwrap_or_else(|error| panic!("{error}"));
        Self { translator: Translator::new(profile), judge: Judge::new(policy, false) }
    }

    /// `None` for a retry.
    fn read(&mut self, document: &Value) -> Result<Option<Read>, Malformed> {
        Ok(match self.translator.translate(&parse(document))? {
            Translation::Report { report, ignored } => {
                Some(Read { judgement: self.judge.report(&report), report, ignored })
            }
            Translation::Retry => None,
        })
    }

    /// Reads all, and gives the last report.
    fn last(&mut self, documents: &[Value]) -> Result<Read, Malformed> {
        let mut read: Vec<_> = documents.iter().map(|document| self.read(document)).collect();
        Ok(read.pop().unwrap_or_else(|| panic!("no document"))?.unwrap_or_else(|| panic!("retry")))
    }
}

/// One report, and what a judge made of it.
#[derive(Debug)]
struct Read {
    report: StateReport,
    judgement: Judgement,
    ignored: Vec<String>,
}

impl core::ops::Deref for Read {
    type Target = StateReport;

    fn deref(&self) -> &StateReport {
        &self.report
    }
}

impl Read {
    fn provenance(&self) -> Provenance {
        self.judgement.measurement.provenance
    }

    fn di(&self) -> f64 {
        self.judgement.di.unwrap_or_else(|| panic!("no index")).value()
    }

    fn fills_a_packet(&self) -> bool {
        self.judgement.measurement.parts.is_some() && self.report.attractor.is_fillable()
    }
}

fn derived(scr: f64) -> Policy {
    let assumed_scr = Coherence::new(scr);
    Policy { accept: Provenance::Derived, assumed_scr, ..Policy::default() }
}

/// The native shape with `value` put at `pointer`; null takes it away.
fn native_with(pointer: &str, value: Value) -> Value {
    let mut document = native(1, 0.2);
    let (parent, key) = pointer.rsplit_once('/').unwrap_or_default();
    let place = document.pointer_mut(parent).and_then(Value::as_object_mut);
    place.unwrap_or_else(|| panic!("{pointer}")).insert(key.to_owned(), value);
    document
}

fn read_native(document: &Value) -> Result<Read, Malformed> {
    Reader::new("srip-05", Policy::default()).last(core::slice::from_ref(document))
}

/// Steady cycles `1..=count`, then what `change` makes of the last one.
fn steady(count: u64, change: impl Fn(&mut Value)) -> Vec<Value> {
    let mut documents: Vec<Value> = (1..=count).map(|cycle| reference_03(cycle, 0.3)).collect();
    documents.last_mut().into_iter().for_each(change);
    documents
}

#[test]
fn every_built_in_profile_parses_and_has_the_name_of_its_file() {
    for name in profiles::names() {
        assert_eq!(profiles::load(name).unwrap().name(), name);
    }
    assert_eq!(profiles::names().len(), 3);
}

#[test]
fn content_decides_which_profile_a_document_has() {
    let named =
        |document: &Value| profiles::recognise(&parse(document)).map(|p| p.name().to_owned());
    assert_eq!(named(&native(1, 0.2)).as_deref(), Some("srip-05"));
    assert_eq!(named(&json!({"drift_metrics": {"di": 0.2}})).as_deref(), Some("srip-05"));
    assert_eq!(named(&reference_03(1, 0.2)).as_deref(), Some("reference-0.3"));
    assert_eq!(named(&reference_01(1, 0.2)).as_deref(), Some("reference-0.1"));
    assert_eq!(named(&json!({"cycle": 1, "user_input": "a", "response": "b"})), None);
}

#[test]
fn a_full_native_report_is_native_evidence() {
    let report = read_native(&native(7, 0.2)).unwrap();
    assert_eq!(report.cycle, Some(7));
    assert_eq!(report.provenance(), Provenance::Native);
    assert!((report.di() - 0.4 / 2.4).abs() < 1e-12);
    assert_eq!(report.attractor.kind, Some(AttractorType::Symbolic));
    assert_eq!(report.attractor.id.as_deref(), Some("a-1"));
    assert_eq!(report.posture, Posture::Stable);
    assert!((report.retention_index.unwrap().value() - 0.82).abs() < 1e-12);
    assert!(report.nominal && report.untrusted.is_none() && report.fills_a_packet());
}

#[test]
fn what_is_optional_in_the_native_shape_may_be_absent_or_null() {
    for pointer in [
        "/cycle",
        "/memory_snapshot",
        "/safety_flags",
        "/attractor_state/type",
        "/safety_flags/aegida_status",
        "/safety_flags/phase_lock",
    ] {
        let report = read_native(&native_with(pointer, Value::Null)).unwrap();
        assert_eq!(report.untrusted, None, "{pointer}");
        assert!(report.nominal, "{pointer}");
    }
}

#[test]
fn a_bad_native_value_is_refused_by_the_name_of_its_field() {
    let too_long = "x".repeat(257);
    for (pointer, value) in [
        ("/drift_metrics/sdi", json!(1.01)),
        ("/drift_metrics/sv", json!(-0.01)),
        ("/drift_metrics/pd", json!("0.1")),
        ("/drift_metrics/di", json!(-1)),
        ("/drift_metrics/di", json!(true)),
        ("/attractor_state/scr", json!(0)),
        ("/attractor_state/scr", json!(-0.5)),
        ("/attractor_state/scr", json!(1.5)),
        ("/attractor_state/stability", json!(2)),
        ("/attractor_state/id", json!(3)),
        ("/attractor_state/id", json!("")),
        ("/attractor_state/id", json!("a\nb")),
        ("/attractor_state/id", json!(too_long)),
        ("/attractor_state/type", json!("stubborn")),
        ("/attractor_state/phase", json!(4)),
        ("/attractor_state", json!([])),
        ("/cycle", json!(-1)),
        ("/cycle", json!(1.5)),
        ("/cycle", json!("1")),
        ("/cycle", json!(1e22)),
        ("/memory_snapshot/retention_index", json!(1.1)),
        ("/safety_flags/aegida_status", json!("fine")),
        ("/safety_flags/phase_lock", json!("no")),
        ("/safety_flags/recenter_active", json!(0)),
        ("/drift_metrics/sid", json!(0.1)),
        ("/safety_flags/phase-lock", json!(true)),
    ] {
        let document = native_with(pointer, value.clone());
        let malformed = read_native(&document).unwrap_err();
        assert_eq!(malformed.field, pointer, "{value}");
    }
    assert_eq!(read_native(&json!([1])).unwrap_err().field, "/");
}

#[test]
fn a_missing_part_is_named_when_others_are_there() {
    for pointer in [
        "/drift_metrics/sdi",
        "/drift_metrics/sv",
        "/drift_metrics/pd",
        "/attractor_state/scr",
        "/attractor_state/id",
        "/attractor_state/stability",
        "/attractor_state/phase",
    ] {
        let malformed = read_native(&native_with(pointer, Value::Null)).unwrap_err();
        assert_eq!(malformed.field, pointer);
    }
}

#[test]
fn a_bare_index_is_reported_evidence_and_fills_nothing() {
    let report = read_native(&json!({"drift_metrics": {"di": 0.2}})).unwrap();
    assert_eq!(report.provenance(), Provenance::Reported);
    assert_eq!(report.posture, Posture::Unknown);
    assert!(!report.fills_a_packet());
}

#[test]
fn a_native_report_without_any_drift_names_the_drift_metrics() {
    for document in [json!({}), json!({"drift_metrics": {}}), json!({"drift_metrics": null})] {
        assert_eq!(read_native(&document).unwrap_err().field, "/drift_metrics");
    }
}

#[test]
fn keys_beside_the_known_objects_are_the_runtimes_own() {
    let report = read_native(&native_with("/usage", json!({"tokens": 3}))).unwrap();
    assert_eq!(report.ignored, ["response", "usage"]);
    assert_eq!(report.provenance(), Provenance::Native);
}

#[test]
fn an_unknown_phase_is_unknown_posture_and_its_word_is_dropped() {
    let report = read_native(&native_with("/attractor_state/phase", json!(CANARY))).unwrap();
    assert_eq!(report.posture, Posture::Unknown);
    assert_eq!(report.attractor.phase, None);
}

#[test]
fn the_worst_of_phase_and_flags_is_the_posture() {
    for (pointer, value, posture, nominal) in [
        ("/attractor_state/phase", json!("Forming"), Posture::Stable, true),
        ("/attractor_state/phase", json!("REFLECTION"), Posture::Reflective, true),
        ("/attractor_state/phase", json!("recovery"), Posture::Recenter, true),
        ("/safety_flags/phase_lock", json!(true), Posture::Reflective, true),
        ("/safety_flags/recenter_active", json!(true), Posture::Recenter, true),
        ("/safety_flags/aegida_status", json!("locked"), Posture::Stable, false),
        ("/safety_flags/aegida_status", json!("recenter_pending"), Posture::Recenter, false),
    ] {
        let report = read_native(&native_with(pointer, value.clone())).unwrap();
        assert_eq!((report.posture, report.nominal), (posture, nominal), "{value}");
    }
}

#[test]
fn a_reference_runtime_is_reported_evidence_unless_derivation_is_asked_for_and_coherence_assumed() {
    let documents = steady(3, |_| {});
    for (policy, provenance) in [
        (Policy::default(), Provenance::Reported),
        (Policy { accept: Provenance::Reported, ..derived(0.8) }, Provenance::Reported),
        (Policy { assumed_scr: None, ..derived(0.8) }, Provenance::Reported),
        (derived(0.8), Provenance::Derived),
    ] {
        let report = Reader::new("reference-0.3", policy.clone()).last(&documents).unwrap();
        assert_eq!(report.provenance(), provenance, "{policy:?}");
        assert_eq!(report.fills_a_packet(), provenance == Provenance::Derived);
        assert!(report.drift.reported.is_some());
    }
}

#[test]
fn derived_parts_are_the_semantic_drift_and_estimates_never_the_density() {
    let densities = [0.1, 0.5, 0.1, 0.5, 0.1];
    let documents: Vec<Value> = (1..)
        .zip(densities)
        .map(|(cycle, density)| {
            let mut document = reference_03(cycle, 0.3);
            document["attractor_state"]["symbolic_density"] = json!(density);
            document
        })
        .collect();
    let report = Reader::new("reference-0.3", derived(0.5)).last(&documents).unwrap();
    let parts = report.judgement.measurement.parts.unwrap();
    assert!((parts.sdi.value() - 0.3).abs() < 1e-12);
    // Mean 0.26, deviation sqrt(0.0384).
    assert!((parts.sv.value() - 2.0 * 0.0384_f64.sqrt()).abs() < 1e-12);
    assert!(parts.pd.value() < 1e-12);
    assert!((parts.scr.value() - 0.5).abs() < 1e-12);
}

#[test]
fn the_gate_takes_the_larger_of_estimate_and_report() {
    for (semantic, total, larger) in [(0.9, 0.2, 0.9 / 2.4), (0.0, 0.44, 0.44)] {
        let documents = steady(3, |document| {
            document["drift_metrics"]["semantic"] = json!(semantic);
            document["drift_metrics"]["total"] = json!(total);
        });
        let report = Reader::new("reference-0.3", derived(0.8)).last(&documents).unwrap();
        assert!((report.di() - larger).abs() < 1e-12);
    }
}

#[test]
fn phase_drift_is_one_where_word_and_stability_name_different_postures() {
    for (phase, stability, expected) in [
        ("stable", 0.75, 0.0),
        ("stable", 0.7499, 1.0),
        ("reflection", 0.7499, 0.0),
        ("reflection", 0.6, 0.0),
        ("reflection", 0.5999, 1.0),
        ("fragmenting", 0.5999, 0.0),
        ("fragmenting", 0.9, 1.0),
        ("nonsense", 0.9, 1.0),
    ] {
        let documents = steady(3, |document| {
            document["attractor_state"]["phase"] = json!(phase);
            document["attractor_state"]["stability"] = json!(stability);
        });
        let report = Reader::new("reference-0.3", derived(0.8)).last(&documents).unwrap();
        let pd = report.judgement.measurement.parts.unwrap().pd.value();
        assert!((pd - expected).abs() < 1e-12, "{phase} {stability}");
    }
}

#[test]
fn the_window_of_five_cycles_is_cleared_when_the_cycle_number_falls_back() {
    let mut reader = Reader::new("reference-0.3", derived(0.8));
    assert_eq!(reader.last(&steady(8, |_| {})).unwrap().untrusted, None);
    let restarted = reader.read(&reference_03(2, 0.3)).unwrap().unwrap();
    assert_eq!(restarted.untrusted, Some(Reason::NoEvidence));
    assert_eq!(restarted.judgement.measurement.parts, None, "one cycle has no deviation");
    assert_eq!(restarted.retention_index, None);
    let next = reader.read(&reference_03(3, 0.3)).unwrap().unwrap();
    assert_eq!((next.untrusted, next.provenance()), (None, Provenance::Derived));
}

#[test]
fn a_first_cycle_and_one_after_a_long_gap_are_no_evidence() {
    let mut reader = Reader::new("reference-0.3", derived(0.8));
    for (cycle, expected) in [
        (4, Some(Reason::NoEvidence)),
        (5, None),
        (9, None),
        (14, Some(Reason::NoEvidence)),
        (15, None),
    ] {
        let report = reader.read(&reference_03(cycle, 0.3)).unwrap().unwrap();
        assert_eq!(report.untrusted, expected, "cycle {cycle}");
    }
}

#[test]
fn an_empty_reply_and_the_cycle_after_it_are_no_evidence() {
    let mut reader = Reader::new("reference-0.3", derived(0.8));
    let empty = steady(4, |document| document["response"] = json!(" \n"));
    assert_eq!(reader.last(&empty).unwrap().untrusted, Some(Reason::NoEvidence));
    for (cycle, expected) in [(5, Some(Reason::NoEvidence)), (6, None)] {
        let report = reader.read(&reference_03(cycle, 0.3)).unwrap().unwrap();
        assert_eq!(report.untrusted, expected, "cycle {cycle}");
    }
}

#[test]
fn a_total_of_exactly_zero_is_no_evidence_negative_or_not() {
    for total in [0.0, -0.0] {
        let documents = steady(4, |document| {
            document["drift_metrics"] = json!({"semantic": 0.0, "tonal": 0.0, "total": total});
            document["semantic_similarity"] = json!(1.0);
        });
        let report = Reader::new("reference-0.3", derived(0.8)).last(&documents).unwrap();
        assert_eq!(report.untrusted, Some(Reason::NoEvidence));
    }
    let close = steady(4, |document| document["drift_metrics"]["total"] = json!(0.001));
    let report = Reader::new("reference-0.3", derived(0.8)).last(&close).unwrap();
    assert_eq!(report.untrusted, None);
}

#[test]
fn a_new_generation_is_no_evidence_and_neither_are_the_three_cycles_after_it() {
    let mut reader = Reader::new("reference-0.3", derived(0.8));
    reader.last(&steady(5, |_| {})).unwrap();
    let held = [6, 7, 8, 9, 10].map(|cycle| {
        let mut document = reference_03(cycle, 0.3);
        document["attractor_state"]["attractor_generation"] = json!(2);
        reader.read(&document).unwrap().unwrap().untrusted
    });
    let change = Some(Reason::GenerationChange);
    assert_eq!(held, [change, change, change, change, None]);
}

#[test]
fn a_repeated_cycle_adds_nothing_to_the_window() {
    let mut reader = Reader::new("reference-0.3", derived(0.8));
    reader.last(&steady(3, |_| {})).unwrap();
    let mut repeated = reference_03(3, 0.3);
    repeated["attractor_state"]["symbolic_density"] = json!(0.9);
    let report = reader.read(&repeated).unwrap().unwrap();
    assert!(report.judgement.verdict.reasons.contains(&Reason::DuplicateCycle));
    assert!(report.judgement.measurement.parts.unwrap().sv.value() < 1e-12);
}

#[test]
fn a_malformed_cycle_is_not_remembered() {
    let mut reader = Reader::new("reference-0.3", derived(0.8));
    reader.last(&steady(3, |_| {})).unwrap();
    let mut bad = reference_03(900, 0.3);
    bad["drift_metrics"]["total"] = json!("high");
    assert_eq!(reader.read(&bad).unwrap_err().field, "/drift_metrics/total");
    let report = reader.read(&reference_03(4, 0.3)).unwrap().unwrap();
    assert_eq!(report.untrusted, None);
}

#[test]
fn retention_is_the_share_of_the_motifs_of_five_cycles_ago() {
    let mut reader = Reader::new("reference-0.3", Policy::default());
    assert_eq!(reader.last(&steady(5, |_| {})).unwrap().retention_index, None);
    let mut document = reference_03(6, 0.3);
    document["attractor_state"]["top_motifs"] = json!(["b", "x", "y", "c", "d"]);
    let report = reader.read(&document).unwrap().unwrap();
    assert!((report.retention_index.unwrap().value() - 0.75).abs() < 1e-12);
}

#[test]
fn an_attractor_is_named_by_a_uuid_of_label_and_generation() {
    let of = |generation: u64, label: &str| {
        let documents = steady(1, |document| {
            document["attractor_state"]["attractor_generation"] = json!(generation);
            document["attractor_state"]["active_attractor"] = json!(label);
        });
        let mut reader = Reader::new("reference-0.3", Policy::default());
        reader.last(&documents).unwrap().report.attractor.id.unwrap()
    };
    assert_eq!(of(1, "a"), of(1, "a"));
    assert_eq!(of(1, "a").len(), 36);
    assert_ne!(of(1, "a"), of(2, "a"));
    assert_ne!(of(1, "a"), of(1, "b"));
}

#[test]
fn reference_0_1_moves_the_gate_and_never_fills_a_packet() {
    let mut reader = Reader::new("reference-0.1", derived(0.8));
    let documents = [reference_01(1, 0.3), reference_01(2, 0.4)];
    let report = reader.last(&documents).unwrap();
    assert_eq!(report.provenance(), Provenance::Reported);
    assert_eq!((report.untrusted, report.posture), (None, Posture::Stable));
    assert!(!report.fills_a_packet());
    let zero = reader.read(&reference_01(3, 0.0)).unwrap().unwrap();
    assert_eq!(zero.untrusted, Some(Reason::NoEvidence));
}

#[test]
fn the_live_and_minimal_shapes_of_reference_0_1_are_read_too() {
    let live = json!({"cycle": 2, "response": "x",
        "attractor_state": {"active_attractor": "A0_init", "phase": "transitional", "stability": 0.5},
        "drift_metrics": {"semantic": 0.9, "style": 0.1, "topic": 0.1, "attractor": 0.1, "total": 0.4}});
    let minimal = json!({"response": "x",
        "attractor_state": {"active_attractor": "A0", "motifs": ["a"], "phase": "forming"},
        "drift": {"semantic": 0.2, "style": 0.1, "topic": 0.1, "total": 0.3},
        "runtime": {"cycle": 4, "stability": "forming"}});
    for (document, cycle, posture, total) in
        [(live, 2, Posture::Reflective, 0.4), (minimal, 4, Posture::Stable, 0.3)]
    {
        assert_eq!(profiles::recognise(&parse(&document)).unwrap().name(), "reference-0.1");
        let mut reader = Reader::new("reference-0.1", Policy::default());
        let report = reader.last(&[document]).unwrap();
        assert_eq!((report.cycle, report.posture), (Some(cycle), posture));
        assert!((report.drift.reported.unwrap().value() - total).abs() < 1e-12);
    }
}

#[test]
fn no_text_of_a_dialogue_reaches_a_report_or_the_memory() {
    for profile in profiles::names() {
        let cycle = |number| match profile {
            "srip-05" => native(number, 0.3),
            "reference-0.3" => reference_03(number, 0.3),
            _ => reference_01(number, 0.3),
        };
        let mut reader = Reader::new(profile, derived(0.8));
        for number in 1..=7 {
            let document = cycle(number);
            assert!(document.to_string().contains(CANARY));
            let report = reader.read(&document).unwrap().unwrap();
            assert!(!format!("{report:?}{reader:?}").contains(CANARY), "{profile}");
        }
    }
}
