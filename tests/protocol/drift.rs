//! The numbers that everything stands on: finite, in range, and never smaller than they are.

#![allow(clippy::unwrap_used, clippy::float_cmp, reason = "exact numbers, or a test that fails")]

use driftgate::protocol::drift::{
    Coherence, DriftIndex, DriftParts, Fraction, INDEX_TOLERANCE, Measurement, Provenance,
};

/// The smallest number above zero.
const TINY: f64 = 5e-324;

fn parts(sdi: f64, sv: f64, pd: f64, scr: f64) -> DriftParts {
    let part = |number| Fraction::new(number).unwrap();
    DriftParts { sdi: part(sdi), sv: part(sv), pd: part(pd), scr: Coherence::new(scr).unwrap() }
}

fn drift(parts: DriftParts, reported: f64, provenance: Provenance) -> Measurement {
    Measurement { parts: Some(parts), reported: DriftIndex::new(reported), provenance }
}

#[test]
fn numbers_out_of_range_are_no_numbers() {
    for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -TINY] {
        assert_eq!(Fraction::new(number), None);
        assert_eq!(Coherence::new(number), None);
        assert_eq!(DriftIndex::new(number), None);
    }
    let above_one = 1.0 + f64::EPSILON;
    assert_eq!((Fraction::new(above_one), Coherence::new(above_one)), (None, None));
    assert_eq!(Coherence::new(0.0), None, "coherence divides");
    for number in [0.0, TINY, 0.5, 1.0] {
        assert_eq!(Fraction::new(number).map(Fraction::value), Some(number));
        assert_eq!(DriftIndex::new(number).map(DriftIndex::value), Some(number));
    }
    for number in [TINY, 1.0] {
        assert_eq!(Coherence::new(number).map(Coherence::value), Some(number));
    }
    assert!(Fraction::new(-0.0).unwrap().value().is_sign_positive());
    assert!(DriftIndex::new(-0.0).unwrap().value().is_sign_positive());
    assert_eq!(DriftIndex::new(0.25).unwrap().to_string(), "0.25");
}

#[test]
fn the_index_is_the_mean_of_three_over_coherence() {
    for (given, index) in [
        (parts(0.2, 0.1, 0.1, 0.8), 0.4 / 2.4),
        (parts(0.3, 0.0, 0.0, 1.0), 0.1),
        (parts(0.0, 0.3, 0.0, 0.5), 0.2),
        (parts(0.0, 0.0, 0.9, 0.5), 0.6),
        (parts(1.0, 1.0, 1.0, 1.0), 1.0),
    ] {
        assert!((given.index().value() - index).abs() < 1e-12, "{given:?}");
    }
}

#[test]
fn p1_an_index_beyond_all_numbers_is_the_largest_and_not_absent() {
    let given = parts(0.1, 0.0, 0.0, TINY);
    assert_eq!(given.index().value(), f64::MAX);
    let value = drift(given, 0.1, Provenance::Native).gate_value();
    assert_eq!(value.map(DriftIndex::value), Some(f64::MAX));
}

#[test]
fn the_gate_value_is_the_larger_of_formula_and_report() {
    let given = parts(0.3, 0.3, 0.3, 1.0);
    for (reported, value) in [(0.2, 0.3), (0.3, 0.3), (0.7, 0.7)] {
        let found = drift(given, reported, Provenance::Native).gate_value().unwrap().value();
        assert!((found - value).abs() < 1e-12);
    }
    let bare = Measurement { reported: DriftIndex::new(0.4), ..Measurement::default() };
    assert_eq!(bare.gate_value(), DriftIndex::new(0.4));
    assert_eq!(Measurement::default().gate_value(), None);
    let silent = Measurement { parts: Some(given), ..Measurement::default() };
    assert_eq!(silent.gate_value(), Some(given.index()));
}

#[test]
fn formula_and_report_disagree_past_the_tolerance_and_for_native_parts_only() {
    let given = parts(0.25, 0.25, 0.25, 1.0);
    let disagrees = |drift: Measurement| drift.apart().is_some_and(|far| far > INDEX_TOLERANCE);
    for (reported, expected) in [
        (0.25, false),
        (0.25 + INDEX_TOLERANCE * 0.99, false),
        (0.25 - INDEX_TOLERANCE * 0.99, false),
        (0.25 + INDEX_TOLERANCE * 1.01, true),
        (0.25 - INDEX_TOLERANCE * 1.01, true),
    ] {
        assert_eq!(disagrees(drift(given, reported, Provenance::Native)), expected, "{reported}");
        assert_eq!(drift(given, reported, Provenance::Derived).apart(), None);
    }
    let none = parts(0.0, 0.0, 0.0, 1.0);
    assert!(!disagrees(drift(none, INDEX_TOLERANCE, Provenance::Native)), "on the mark");
    let bare =
        Measurement { parts: None, reported: DriftIndex::new(0.9), provenance: Provenance::Native };
    assert_eq!(bare.apart(), None);
}

#[test]
fn provenance_has_an_order_and_a_word_each() {
    use Provenance::{Derived, Native, None, Reported};
    assert!(None < Derived && Derived < Reported && Reported < Native);
    for (provenance, word) in
        [(None, "none"), (Derived, "derived"), (Reported, "reported"), (Native, "native")]
    {
        assert_eq!(provenance.word(), word);
        assert_eq!(serde_json::to_value(provenance).unwrap(), word);
    }
}
