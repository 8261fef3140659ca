//! Profiles of an operator's own: what they can say, and what they cannot.

use driftgate::profiles;
use driftgate::protocol::canonical::Json;
use driftgate::protocol::drift::{Coherence, Provenance};
use driftgate::protocol::gate::{Band, Reason};
use driftgate::protocol::judge::{Judge, Policy};
use driftgate::protocol::packet::{AttractorType, Posture};
use driftgate::protocol::profile::{StateReport, Translation, Translator};
use serde_json::{Value, json};

fn parse(document: &Value) -> Json {
    Json::parse(document.to_string().as_bytes()).unwrap_or_else(|error| panic!("{error}"))
}

/// A profile of the operator's own, from its text.
fn own(text: &str) -> Result<Translator, String> {
    let profile = profiles::parse(text).map_err(|error| error.to_string())?;
    Ok(Translator::new(profile))
}

fn translated(translator: &mut Translator, document: &Json) -> StateReport {
    match translator.translate(document).unwrap() {
        Translation::Report { report, .. } => report,
        Translation::Retry => panic!("a retry"),
    }
}

const OWN: &str = r#"
    name = "own"
    cycle = { from = ["/turn", "/n"] }
    [attractor]
    id = { constant = "main" }
    type = { constant = "generative" }
    stability = { from = "/health/0" }
    phase = { from = "/mode", map = { calm = "stable", busy = "reflective" }, otherwise = "recenter" }
    [drift]
    di = { from = "/a~1b/drift" }
    [safety]
    aegida_status = { from = "/alarm", map = { none = "nominal" }, otherwise = "locked" }
    [evidence]
    sentinels = [{ "/x" = 1.0, "/y" = 2.0 }]
"#;

#[test]
fn a_profile_of_ones_own_reads_pointers_constants_and_word_tables() {
    let document = |mode: &str, alarm: &str, x: f64| {
        json!({"n": 3, "mode": mode, "alarm": alarm, "health": [0.7], "a/b": {"drift": 0.2},
            "x": x, "y": 2.0})
    };
    for (mode, alarm, x, posture, nominal, untrusted) in [
        ("Calm", "none", 0.0, Posture::Stable, true, None),
        ("busy", "nominal", 0.0, Posture::Reflective, true, None),
        ("odd", "fire", 1.0, Posture::Recenter, false, Some(Reason::NoEvidence)),
        ("reflection", "none", 0.0, Posture::Reflective, true, None),
    ] {
        let mut translator = own(OWN).unwrap();
        let report = translated(&mut translator, &parse(&document(mode, alarm, x)));
        assert_eq!(
            (report.posture, report.nominal, report.untrusted),
            (posture, nominal, untrusted)
        );
        assert_eq!(report.cycle, Some(3));
        assert_eq!(report.attractor.id.as_deref(), Some("main"));
        assert_eq!(report.attractor.kind, Some(AttractorType::Generative));
    }
}

#[test]
fn a_profile_without_an_index_derives_it_or_is_incomplete() {
    let text = r#"
        name = "parts"
        attractor = { stability = { from = "/s" }, phase = { from = "/p" } }
        [drift]
        sdi = { from = "/sdi" }
        sv = { from = "/sv" }
        pd = { derive = "posture_mismatch" }
        scr = { derive = "assumed_coherence" }
    "#;
    let document = parse(&json!({"sdi": 0.2, "sv": 0.1, "s": 0.9, "p": "stable"}));
    let profile = profiles::parse(text).unwrap();
    let report = translated(&mut Translator::new(profile), &document);
    let assumed = Policy {
        accept: Provenance::Derived,
        assumed_scr: Coherence::new(0.8),
        ..Policy::default()
    };
    for (policy, provenance) in
        [(Policy::default(), Provenance::None), (assumed, Provenance::Derived)]
    {
        let judgement = Judge::new(policy, false).report(&report);
        assert_eq!(judgement.measurement.provenance, provenance);
        let is_incomplete = judgement.verdict.reasons.contains(&Reason::Incomplete);
        assert_eq!(is_incomplete, provenance == Provenance::None);
    }
}

#[test]
fn a_profile_that_would_widen_the_gate_or_says_nothing_is_refused_by_key() {
    let with = |more: &str| format!("name = \"own\"\n{more}\n");
    let di = "drift = { di = { from = \"/d\" } }\n";
    for (text, key) in [
        (with("drift = { di = { constant = \"0\" } }"), "drift.di"),
        (with(&format!("{di}attractor.phase = {{ constant = \"stable\" }}")), "attractor.phase"),
        (
            with(&format!(
                "{di}attractor.phase = {{ from = \"/p\", map = {{ Fragmenting = \"stable\" }} }}"
            )),
            "attractor.phase",
        ),
        (
            with(&format!("{di}attractor.phase = {{ from = \"/p\", otherwise = \"stable\" }}")),
            "attractor.phase",
        ),
        (with(&format!("{di}attractor.type = {{ constant = \"odd\" }}")), "attractor.type"),
        (with("drift = { sdi = { from = \"/d\" } }"), "drift"),
        (with("drift = {}"), "drift"),
        (
            with(
                "[drift]\nsdi = { from = \"/symbolic_density\" }\nsv = { from = \"/a\" }\n\
                 pd = { from = \"/b\" }\nscr = { from = \"/c\" }",
            ),
            "drift.sdi",
        ),
        (
            with(
                "[drift]\nsdi = { from = \"/a\" }\nsv = { derive = \"assumed_coherence\" }\n\
                 pd = { from = \"/b\" }\nscr = { from = \"/c\" }",
            ),
            "drift.sv",
        ),
        (with(&format!("{di}evidence.sentinels = [{{}}]")), "evidence.sentinels"),
        (with(&format!("{di}recognise = [[]]")), "recognise"),
        (format!("name = \"a b\"\n{di}"), "name"),
        (with("drift = { di = { from = \"d\" } }"), "line 2"),
        (with(&format!("{di}colour = 1")), "line 3"),
        (with("drift = { di = { from = [] } }"), "line 2"),
        ("name = ".to_owned(), "line 1"),
    ] {
        let problem = own(&text).unwrap_err();
        assert!(problem.starts_with(&format!("{key}:")), "{text}\n{problem}");
    }
}

#[test]
fn a_profile_is_found_by_name_or_by_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.toml");
    std::fs::write(&path, OWN).unwrap();
    assert_eq!(profiles::load(path.to_str().unwrap()).unwrap().name(), "own");
    std::fs::write(&path, "name = 3").unwrap();
    let problem = profiles::load(path.to_str().unwrap()).unwrap_err().to_string();
    assert!(problem.contains("own.toml: line 1"), "{problem}");
    std::fs::write(&path, "#".repeat(70_000)).unwrap();
    assert!(profiles::load(path.to_str().unwrap()).unwrap_err().to_string().contains("larger"));
    let problem = profiles::load("reference-9").unwrap_err().to_string();
    assert!(problem.contains("srip-05, reference-0.3, reference-0.1"), "{problem}");
}

#[test]
fn the_page_on_profiles_shows_one_that_reads_its_example_as_native_evidence() {
    let page = include_str!("../../docs/writing-a-profile.md");
    let fenced = |language: &str, mark: &str| {
        let mut blocks = page.split("```").skip(1).step_by(2);
        blocks.find_map(|block| block.strip_prefix(language).filter(|text| text.contains(mark)))
    };
    let profile = fenced("toml\n", "name = ").unwrap();
    let example = Json::parse(fenced("json\n", "turn").unwrap().as_bytes()).unwrap();
    let report = translated(&mut own(profile).unwrap(), &example);
    assert_eq!((report.posture, report.nominal, report.cycle), (Posture::Stable, true, Some(17)));
    let judgement = Judge::new(Policy::default(), false).report(&report);
    assert_eq!(judgement.measurement.provenance, Provenance::Native);
    assert_eq!((judgement.verdict.band, judgement.verdict.reasons.len()), (Band::Open, 0));
}
