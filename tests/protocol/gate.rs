//! The gate against an independent oracle: every state x every band x every flag, to the depth that
//! covers all pairs of transitions (P3, P6). The oracle below is written from the rules, row by
//! row, and shares no code with `gate.rs`.

use driftgate::protocol::drift::{
    Coherence, DriftIndex, DriftParts, Fraction, ROUNDING, SCR, SDI, Vitals,
};
use driftgate::protocol::gate::{
    Band, COLLAPSE_CYCLES, Gate, JUMP_MAX, Reason, Sample, ThresholdFault, Thresholds,
};
use driftgate::protocol::packet::Posture;
use strum::VariantArray as _;

/// Index values at, just under and just over each mark.
const INDICES: [f64; 12] = [
    0.0,
    0.3,
    0.449_999_999,
    0.449_999_999_999_999_9,
    0.45,
    0.499_999_999_999_999_9,
    0.5,
    0.599_999_999,
    0.599_999_999_999_999_9,
    0.6,
    0.7,
    1e300,
];
const POSTURES: [Posture; 4] =
    [Posture::Stable, Posture::Unknown, Posture::Reflective, Posture::Recenter];

#[derive(Clone, Debug)]
enum Act {
    Sample(Sample),
    Silence,
    TooLong,
    Isolate,
    Release,
}

fn fraction(number: f64) -> Fraction {
    Fraction::new(number).expect("0 to 1")
}

fn coherence(number: f64) -> Coherence {
    Coherence::new(number).expect("above 0")
}

fn calm_parts() -> DriftParts {
    let [sdi, sv, pd] = [0.1; 3].map(fraction);
    DriftParts { sdi, sv, pd, scr: coherence(0.9) }
}

/// Everything but index, posture and evidence that a sample can say, and the band it asks for.
fn signs() -> Vec<(Sample, Band)> {
    let calm = || sample(None, Posture::Stable);
    let part = |number| Fraction::new(number);
    let vitals = |vitals| Sample { vitals, ..calm() };
    let parts = |parts| Sample { parts: Some(parts), ..calm() };
    let none = Vitals::default();
    let calm_parts = calm_parts();
    vec![
        (calm(), Band::Open),
        (parts(DriftParts { sdi: fraction(0.551), ..calm_parts }), Band::Blocked),
        (parts(DriftParts { sv: fraction(0.651), ..calm_parts }), Band::Blocked),
        (parts(DriftParts { pd: fraction(0.451), ..calm_parts }), Band::Blocked),
        (parts(DriftParts { scr: coherence(0.449), ..calm_parts }), Band::Blocked),
        (parts(DriftParts { sdi: fraction(0.5), scr: coherence(0.6), ..calm_parts }), Band::Open),
        (Sample { collapse: Some(4), ..calm() }, Band::Isolated),
        (
            Sample {
                collapse: Some(COLLAPSE_CYCLES),
                apart: Some(0.005),
                rise: Some(JUMP_MAX),
                ..calm()
            },
            Band::Open,
        ),
        (Sample { nominal: false, ..calm() }, Band::Blocked),
        (Sample { apart: Some(0.0051), ..calm() }, Band::Blocked),
        (Sample { rise: Some(0.41), ..calm() }, Band::Blocked),
        (vitals(Vitals { psi: part(0.59), ..none }), Band::Isolated),
        (vitals(Vitals { psi: part(0.6), psd: part(0.14), ..none }), Band::Open),
        (vitals(Vitals { psd: part(0.15), ..none }), Band::Blocked),
        (vitals(Vitals { er: part(0.31), ..none }), Band::Isolated),
        (vitals(Vitals { er: part(0.3), ci: part(0.7), cc: part(0.7), ..none }), Band::Open),
    ]
}

fn samples() -> Vec<Sample> {
    let mut samples = Vec::new();
    for di in INDICES.iter().map(|di| DriftIndex::new(*di)).chain([None]) {
        for posture in POSTURES {
            for untrusted in [None, Some(Reason::NoEvidence)] {
                // All that a sample can say beside its index, where that says nothing; a few of it
                // elsewhere.
                let count = if di == DriftIndex::new(0.3) { usize::MAX } else { 2 };
                for (sign, _) in signs().into_iter().take(count) {
                    samples.push(Sample { di, posture, untrusted, ..sign });
                }
            }
        }
    }
    samples
}

fn acts() -> Vec<Act> {
    let mut acts: Vec<Act> = samples().into_iter().map(Act::Sample).collect();
    acts.extend([Act::Silence, Act::TooLong, Act::Isolate, Act::Release]);
    acts
}

/// The table as it is written: the strictest row that applies gives the band.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Oracle {
    band: Band,
    held: bool,
}

impl Oracle {
    fn after(self, act: &Act) -> Self {
        let sample = match act {
            Act::Silence => return self.at_least(Band::Blocked),
            Act::TooLong => return self.at_least(Band::Isolated),
            Act::Isolate => return Self { band: Band::Isolated, held: true },
            Act::Release => return Self { held: false, ..self },
            Act::Sample(sample) => sample,
        };
        if self.held {
            return self;
        }
        let di = sample.di.map(|di| di.value() + ROUNDING);
        let quiet = Sample { di: None, posture: Posture::Stable, untrusted: None, ..*sample };
        let sign = signs().into_iter().find(|(sign, _)| *sign == quiet).expect("a listed sign").1;
        let isolates = di.is_some_and(|di| di >= 0.6)
            || sample.posture == Posture::Recenter
            || sign == Band::Isolated;
        let blocks = di.is_none_or(|di| di >= 0.5)
            || sample.posture != Posture::Stable
            || sample.untrusted.is_some()
            || sign == Band::Blocked;
        let reopens = di.is_some_and(|di| di < 0.45) && !isolates && !blocks;
        let band = match self.band {
            Band::Isolated if reopens => Band::Open,
            Band::Isolated => Band::Isolated,
            _ if isolates => Band::Isolated,
            Band::Blocked if reopens => Band::Open,
            Band::Blocked => Band::Blocked,
            Band::Open | Band::Caution if blocks => Band::Blocked,
            Band::Open | Band::Caution if reopens => Band::Open,
            Band::Open | Band::Caution => Band::Caution,
        };
        Self { band, held: false }
    }

    fn at_least(self, band: Band) -> Self {
        Self { band: self.band.max(band), ..self }
    }
}

fn apply(gate: Gate, act: &Act) -> Gate {
    match act {
        Act::Sample(sample) => gate.step(sample, &Thresholds::default(), 1).0,
        Act::Silence => gate.tighten(Band::Blocked, Reason::Stale).0,
        Act::TooLong => gate.tighten(Band::Isolated, Reason::BlockedTooLong).0,
        Act::Isolate => gate.hold(true).0,
        Act::Release => gate.hold(false).0,
    }
}

/// A shortest list of acts into every state, from the start.
fn ways_in() -> Vec<(Vec<Act>, Oracle)> {
    let good = sample(Some(0.1), Posture::Stable);
    let to = |acts: Vec<Act>, band, held| (acts, Oracle { band, held });
    vec![
        to(vec![], Band::Blocked, false),
        to(vec![Act::Sample(good)], Band::Open, false),
        to(
            vec![Act::Sample(good), Act::Sample(sample(Some(0.46), Posture::Stable))],
            Band::Caution,
            false,
        ),
        to(vec![Act::Sample(sample(Some(0.6), Posture::Stable))], Band::Isolated, false),
        to(vec![Act::Isolate], Band::Isolated, true),
    ]
}

fn sample(di: Option<f64>, posture: Posture) -> Sample {
    Sample { di: di.and_then(DriftIndex::new), posture, ..Sample::default() }
}

#[test]
fn p3_the_gate_agrees_with_the_table_on_every_pair_of_transitions() {
    let acts = acts();
    let mut steps = 0_u64;
    for (way_in, state) in ways_in() {
        let gate = way_in.iter().fold(Gate::new(false), apply);
        assert_eq!(gate.band(), state.band, "way in: {way_in:?}");
        for first in &acts {
            let (after_first, expected_first) = (apply(gate, first), state.after(first));
            assert_eq!(
                (after_first.band(), after_first.operator_hold()),
                (expected_first.band, expected_first.held),
                "{state:?} then {first:?}"
            );
            for second in &acts {
                let (after, expected) = (apply(after_first, second), expected_first.after(second));
                assert_eq!(
                    (after.band(), after.operator_hold()),
                    (expected.band, expected.held),
                    "{state:?} then {first:?} then {second:?}"
                );
                steps += 1;
            }
        }
    }
    println!("{steps} pairs of transitions compared with the oracle");
    assert!(steps > 450_000, "the model shrank: {steps}");
}

#[test]
fn p6_it_starts_closed_and_an_operators_hold_outlives_a_restart() {
    assert_eq!(Gate::new(false).band(), Band::Blocked);
    assert_eq!(Gate::new(true).band(), Band::Isolated);
    assert!(Gate::new(true).operator_hold());
}

#[test]
fn p3_release_never_opens_by_itself() {
    let released = Gate::new(true).hold(false).0;
    assert_eq!(released.band(), Band::Isolated);
    let caution = sample(Some(0.46), Posture::Stable);
    let still = released.step(&caution, &Thresholds::default(), 1).0;
    assert_eq!(still.band(), Band::Isolated);
    let good = sample(Some(0.44), Posture::Stable);
    assert_eq!(still.step(&good, &Thresholds::default(), 1).0.band(), Band::Open);
}

#[test]
fn p3_dwell_asks_for_good_reports_in_a_row() {
    let good = sample(Some(0.1), Posture::Stable);
    let near = sample(Some(0.46), Posture::Stable);
    let step = |gate: Gate, sample: &Sample| gate.step(sample, &Thresholds::default(), 3).0;
    let gate = step(step(Gate::new(false), &good), &good);
    assert_eq!(gate.band(), Band::Blocked);
    let interrupted = step(gate, &near);
    assert_eq!(step(step(interrupted, &good), &good).band(), Band::Blocked);
    assert_eq!(step(gate, &good).band(), Band::Open);
}

#[test]
fn every_closing_reason_is_named() {
    let cases = [
        (sample(Some(0.5), Posture::Stable), Reason::DiBlock),
        (sample(Some(0.6), Posture::Stable), Reason::DiIsolate),
        (sample(Some(0.1), Posture::Reflective), Reason::PostureReflective),
        (sample(Some(0.1), Posture::Recenter), Reason::PostureRecenter),
        (sample(Some(0.1), Posture::Unknown), Reason::PostureUnknown),
        (sample(None, Posture::Stable), Reason::Incomplete),
        (Sample::absent(Reason::Invalid), Reason::Invalid),
        (Sample { nominal: false, ..sample(Some(0.1), Posture::Stable) }, Reason::SafetyStatus),
        (Sample { collapse: Some(4), ..sample(Some(0.1), Posture::Stable) }, Reason::Collapse),
        (sample(Some(0.7), Posture::Stable), Reason::DiCritical),
        (Sample { lock: Some(0.1), ..sample(Some(0.1), Posture::Stable) }, Reason::Locked),
        (Sample { apart: Some(0.1), ..sample(Some(0.1), Posture::Stable) }, Reason::DiMismatch),
        (Sample { rise: Some(0.5), ..sample(Some(0.1), Posture::Stable) }, Reason::DiJump),
    ];
    for (closing, reason) in cases {
        let (gate, _) =
            Gate::new(false).step(&sample(Some(0.1), Posture::Stable), &Thresholds::default(), 1);
        let (after, verdict) = gate.step(&closing, &Thresholds::default(), 1);
        assert!(after.band().is_closed(), "{closing:?}");
        assert!(verdict.reasons.contains(&reason), "{closing:?}: {:?}", verdict.reasons);
        assert_eq!(verdict.from, Band::Open);
    }
}

/// What the table says of parts, in a calm moment.
fn remarks(sdi: f64, sv: f64, pd: f64, scr: f64) -> Vec<&'static str> {
    let [sdi, sv, pd] = [sdi, sv, pd].map(fraction);
    let parts = Some(DriftParts { sdi, sv, pd, scr: coherence(scr) });
    let sample = Sample { parts, ..sample(Some(0.1), Posture::Stable) };
    let rows = sample.rows(&Thresholds::default()).into_iter();
    rows.filter(|row| row.applies).map(|row| row.reason.word()).collect()
}

#[test]
fn a_part_is_critical_past_its_mark_and_not_on_it() {
    let on_all = ["sdi_recovery", "sv_recovery", "pd_recovery", "scr_recovery"];
    assert_eq!(remarks(0.55, 0.65, 0.45, 0.45), on_all);
    assert_eq!(remarks(0.551, 0.0, 0.0, 1.0), ["sdi_critical"]);
    assert_eq!(remarks(0.0, 0.651, 0.0, 1.0), ["sv_critical"]);
    assert_eq!(remarks(0.0, 0.0, 0.451, 1.0), ["pd_critical"]);
    assert_eq!(remarks(0.0, 0.0, 0.0, 0.449), ["scr_critical"]);
}

#[test]
fn a_part_reaches_the_two_marks_below_critical_at_them_give_or_take_rounding() {
    let hair = ROUNDING / 2.0;
    let none = <[&str; 0]>::default();
    assert_eq!(remarks(SDI.reflective - hair, 0.0, 0.0, 1.0), ["sdi_reflective"]);
    assert_eq!(remarks(SDI.reflective - 1e-9, 0.0, 0.0, 1.0), none);
    assert_eq!(remarks(SDI.recovery - hair, 0.0, 0.0, 1.0), ["sdi_recovery"]);
    assert_eq!(remarks(SDI.recovery - 1e-9, 0.0, 0.0, 1.0), ["sdi_reflective"]);
    assert_eq!(remarks(0.0, 0.40, 0.0, 1.0), ["sv_reflective"]);
    assert_eq!(remarks(0.0, 0.55, 0.0, 1.0), ["sv_recovery"]);
    assert_eq!(remarks(0.0, 0.0, 0.25, 1.0), ["pd_reflective"]);
    assert_eq!(remarks(0.0, 0.0, 0.35, 1.0), ["pd_recovery"]);
    assert_eq!(remarks(0.0, 0.0, 0.0, SCR.reflective + hair), ["scr_reflective"]);
    assert_eq!(remarks(0.0, 0.0, 0.0, SCR.recovery + hair), ["scr_recovery"]);
    assert_eq!(remarks(0.0, 0.0, 0.0, SCR.reflective + 1e-9), none);
}

#[test]
fn every_band_and_reason_has_one_spelling() {
    let spelled = |value: serde_json::Value| value.as_str().unwrap().to_owned();
    for band in Band::VARIANTS {
        let spelled = spelled(serde_json::to_value(band).unwrap());
        assert_eq!((band.word(), band.to_string()), (&*spelled, spelled.clone()));
        assert_eq!(spelled, format!("{band:?}").to_lowercase());
    }
    for reason in Reason::VARIANTS {
        assert_eq!(reason.word(), spelled(serde_json::to_value(reason).unwrap()));
        assert_eq!(reason.word().replace('_', ""), format!("{reason:?}").to_lowercase());
    }
}

/// A hair below each mark counts as at it; a thousandth of a millionth below does not.
#[test]
fn a6_rounding_never_opens_at_any_mark_tightened_ones_too() {
    let after = |di: f64, thresholds: &Thresholds, way_in: Band| {
        let open = Gate::new(false).step(&sample(Some(0.1), Posture::Stable), thresholds, 1).0;
        let gate = if way_in == Band::Open { open } else { Gate::new(false) };
        gate.step(&sample(Some(di), Posture::Stable), thresholds, 1).0.band()
    };
    let hair = ROUNDING / 2.0;
    for (reopen, block, isolate) in [(0.45, 0.5, 0.6), (0.3, 0.35, 0.4), (0.2, 0.2, 0.2)] {
        let marks = Thresholds::new(reopen, block, isolate).unwrap();
        assert_eq!(after(isolate - hair, &marks, Band::Open), Band::Isolated, "{marks:?}");
        assert!(after(block - hair, &marks, Band::Open) >= Band::Blocked, "{marks:?}");
        assert!(after(reopen - hair, &marks, Band::Open) >= Band::Caution, "{marks:?}");
        assert!(after(reopen - hair, &marks, Band::Blocked) >= Band::Blocked, "{marks:?}");
        for way_in in [Band::Open, Band::Blocked] {
            assert_eq!(after(reopen - 1e-9, &marks, way_in), Band::Open, "{marks:?}");
        }
    }
    let formula = |sdi: f64, sv: f64, pd: f64, scr: f64| (sdi + sv + pd) / (3.0 * scr);
    let marks = Thresholds::default();
    assert_eq!(after(formula(0.34, 0.42, 0.44, 0.8), &marks, Band::Open), Band::Blocked);
    assert_eq!(after(formula(0.2, 0.44, 0.44, 0.8), &marks, Band::Blocked), Band::Blocked);
}

#[test]
fn a_lock_holds_like_an_operator_until_one_lets_go() {
    let locks = Sample { lock: Some(0.7), ..sample(Some(0.7), Posture::Stable) };
    let good = sample(Some(0.1), Posture::Stable);
    let step = |gate: Gate, sample: &Sample| gate.step(sample, &Thresholds::default(), 1);
    let (locked, verdict) = step(Gate::new(false), &locks);
    assert!(locked.operator_hold() && verdict.reasons.contains(&Reason::Locked));
    let (still, verdict) = step(locked, &good);
    assert_eq!((still.band(), verdict.reasons), (Band::Isolated, vec![Reason::Locked]));
    let released = still.hold(false).0;
    assert_eq!(released.band(), Band::Isolated);
    assert_eq!(step(released, &good).0.band(), Band::Open);
}

#[test]
fn judging_again_tightens_and_never_opens() {
    let strict = Thresholds::new(0.3, 0.35, 0.4).unwrap();
    for (way_in, _) in ways_in() {
        let gate = way_in.iter().fold(Gate::new(false), apply);
        for sample in samples() {
            let (now, _) = gate.step(&sample, &Thresholds::default(), 1);
            let (again, verdict) = now.judge_again(&sample, &strict);
            assert!(again.band() >= now.band(), "{sample:?}");
            assert_eq!((verdict.from, verdict.band), (now.band(), again.band()));
            assert_eq!(again.operator_hold(), now.operator_hold());
            let (from_open, _) =
                ways_in()[1].0.iter().fold(Gate::new(false), apply).step(&sample, &strict, 1);
            assert!(again.band() >= from_open.band(), "{sample:?}");
        }
    }
    let open = Gate::new(false).step(&sample(Some(0.1), Posture::Stable), &strict, 1).0;
    assert_eq!(
        open.judge_again(&sample(Some(0.36), Posture::Stable), &strict).0.band(),
        Band::Blocked
    );
    assert_eq!(open.judge_again(&sample(Some(0.1), Posture::Stable), &strict).0, open);
}

#[test]
fn p3_the_latch_is_named_where_it_alone_keeps_the_gate_closed() {
    let thresholds = Thresholds::default();
    for (closing, then, is_latched) in
        [(0.55, 0.46, true), (0.55, 0.55, false), (0.65, 0.55, true), (0.65, 0.65, false)]
    {
        let (gate, _) =
            Gate::new(false).step(&sample(Some(closing), Posture::Stable), &thresholds, 1);
        let (_, verdict) = gate.step(&sample(Some(then), Posture::Stable), &thresholds, 1);
        assert_eq!(verdict.reasons.contains(&Reason::Latched), is_latched, "{closing} {then}");
    }
}

#[test]
fn an_unknown_posture_is_named_whatever_else_is_wrong_and_silence_names_none() {
    let names_posture = |sample: &Sample| {
        let (_, verdict) = Gate::new(false).step(sample, &Thresholds::default(), 1);
        verdict.reasons.contains(&Reason::PostureUnknown)
    };
    let mut unknown = sample(Some(0.3), Posture::Unknown);
    assert!(names_posture(&unknown));
    unknown.untrusted = Some(Reason::NoEvidence);
    assert!(names_posture(&unknown));
    unknown.untrusted = None;
    unknown.di = None;
    assert!(names_posture(&unknown));
    assert!(!names_posture(&Sample::absent(Reason::Invalid)));
}

#[test]
fn thresholds_tighten_and_never_loosen() {
    assert!(Thresholds::new(0.45, 0.5, 0.6).is_ok());
    assert!(Thresholds::new(0.3, 0.3, 0.3).is_ok());
    for (reopen, block, isolate) in [
        (0.451, 0.5, 0.6),
        (0.45, 0.501, 0.6),
        (0.45, 0.5, 0.601),
        (f64::NAN, 0.5, 0.6),
        (0.0, 0.5, 0.6),
    ] {
        assert!(
            matches!(Thresholds::new(reopen, block, isolate), Err(ThresholdFault::Loosened(_))),
            "{reopen} {block} {isolate}"
        );
    }
    assert_eq!(Thresholds::new(0.45, 0.4, 0.6), Err(ThresholdFault::Unordered));
    assert_eq!(Thresholds::new(0.2, 0.4, 0.3), Err(ThresholdFault::Unordered));
}
