//! The numbers that everything stands on: finite, in range, and never smaller than they are.

#![allow(clippy::unwrap_used, clippy::float_cmp, reason = "exact numbers, or a test that fails")]

use driftgate::protocol::drift::{
    Coherence, DriftIndex, DriftParts, Fraction, INDEX_TOLERANCE, Level, Levels, Measurement,
    Provenance, ROUNDING,
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
    for (reported, disagrees) in [
        (0.25, false),
        (0.25 + INDEX_TOLERANCE * 0.99, false),
        (0.25 - INDEX_TOLERANCE * 0.99, false),
        (0.25 + INDEX_TOLERANCE * 1.01, true),
        (0.25 - INDEX_TOLERANCE * 1.01, true),
    ] {
        assert_eq!(drift(given, reported, Provenance::Native).disagrees(), disagrees, "{reported}");
        assert!(!drift(given, reported, Provenance::Derived).disagrees());
    }
    let none = parts(0.0, 0.0, 0.0, 1.0);
    assert!(!drift(none, INDEX_TOLERANCE, Provenance::Native).disagrees(), "on the mark");
    let bare =
        Measurement { parts: None, reported: DriftIndex::new(0.9), provenance: Provenance::Native };
    assert!(!bare.disagrees());
}

#[test]
fn a_part_is_critical_past_its_mark_and_not_on_it() {
    for (given, critical) in [
        (parts(0.55, 0.65, 0.45, 0.45), None),
        (parts(0.551, 0.0, 0.0, 1.0), Some("sdi")),
        (parts(0.0, 0.651, 0.0, 1.0), Some("sv")),
        (parts(0.0, 0.0, 0.451, 1.0), Some("pd")),
        (parts(0.0, 0.0, 0.0, 0.449), Some("scr")),
    ] {
        let Levels { sdi, sv, pd, scr } = given.levels();
        let named = [("sdi", sdi), ("sv", sv), ("pd", pd), ("scr", scr)];
        let past: Vec<&str> = named
            .into_iter()
            .filter(|(_, level)| *level == Level::Critical)
            .map(|(name, _)| name)
            .collect();
        assert_eq!(past, critical.into_iter().collect::<Vec<_>>(), "{given:?}");
    }
}

#[test]
fn a_part_reaches_the_two_marks_below_critical_at_them_give_or_take_rounding() {
    use Level::{Nominal, Recovery, Reflective};
    let hair = ROUNDING / 2.0;
    for (low, high, below, at) in
        [(0.35, 0.45, Nominal, Reflective), (0.45, 0.55, Reflective, Recovery)]
    {
        assert_eq!(parts(low - hair, 0.0, 0.0, 1.0).levels().sdi, at);
        assert_eq!(parts(low - 1e-9, 0.0, 0.0, 1.0).levels().sdi, below);
        assert_eq!(parts(high, 0.0, 0.0, 1.0).levels().sdi, Recovery);
    }
    for (given, levels) in [
        (parts(0.0, 0.40, 0.0, 1.0), Levels { sv: Reflective, ..Levels::default() }),
        (parts(0.0, 0.55, 0.0, 1.0), Levels { sv: Recovery, ..Levels::default() }),
        (parts(0.0, 0.0, 0.25, 1.0), Levels { pd: Reflective, ..Levels::default() }),
        (parts(0.0, 0.0, 0.35, 1.0), Levels { pd: Recovery, ..Levels::default() }),
        (parts(0.0, 0.0, 0.0, 0.65 + hair), Levels { scr: Reflective, ..Levels::default() }),
        (parts(0.0, 0.0, 0.0, 0.55 + hair), Levels { scr: Recovery, ..Levels::default() }),
        (parts(0.0, 0.0, 0.0, 0.65 + 1e-9), Levels::default()),
    ] {
        assert_eq!(given.levels(), levels, "{given:?}");
    }
    assert_eq!(parts(0.0, 0.66, 0.25, 1.0).levels().worst(), Level::Critical);
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
