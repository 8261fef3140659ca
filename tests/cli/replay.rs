//! `driftgate replay`: which logs it reads, what it says the gate would have done, what it refuses.

use crate::support::traces::{CANARY, native, reference_01, reference_03};
use clap::Parser;
use driftgate::commands::replay::{self, Fault, Replay};
use driftgate::protocol::gate::Band;
use serde_json::{Value, json};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    replay: Replay,
}

struct Replayed {
    stdout: String,
    stderr: String,
}

/// Replays `log` from standard input.
fn replay_text(log: &str, arguments: &[&str]) -> Result<Replayed, Fault> {
    let cli = Cli::try_parse_from(["replay", "-"].iter().chain(arguments))
        .unwrap_or_else(|error| panic!("{error}"));
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    replay::write(&cli.replay, &mut log.as_bytes(), &mut stdout, &mut stderr)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Replayed { stdout: text(&stdout), stderr: text(&stderr) })
}

fn replay_json(log: &str, arguments: &[&str]) -> Value {
    let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
    let replayed = replay_text(log, &arguments).unwrap_or_else(|error| panic!("{error}"));
    serde_json::from_str(&replayed.stdout).unwrap_or_else(|error| panic!("{error}"))
}

fn lines(documents: impl IntoIterator<Item = Value>) -> String {
    documents.into_iter().map(|document| format!("{document}\n")).collect()
}

/// A log as a reference runtime writes it at the end of a session, its broken timestamp included.
fn session(cycles: impl IntoIterator<Item = Value>) -> String {
    let cycles: Vec<Value> = cycles.into_iter().collect();
    json!({
        "timestamp": "2026-01-02T03:04:05.678901+00:00Z", "runtime_version": "demo",
        "total_cycles": cycles.len(), "identity": CANARY, "final_state": {}, "cycles": cycles,
    })
    .to_string()
}

/// The words of one column, cycle by cycle.
fn column<'a>(replay: &'a Value, key: &str) -> Vec<&'a str> {
    let cycles = replay["cycles"].as_array().into_iter().flatten();
    cycles.map(|cycle| cycle[key].as_str().unwrap_or("-")).collect()
}

/// One key of every cycle, as it is.
fn values(replay: &Value, key: &str) -> Vec<Value> {
    replay["cycles"].as_array().into_iter().flatten().map(|cycle| cycle[key].clone()).collect()
}

/// Native reports with these drift indices.
fn with_indices(indices: &[f64]) -> Vec<Value> {
    (1..).zip(indices).map(|(cycle, di)| native(cycle, di * 2.4 - 0.2)).collect()
}

#[test]
fn the_same_cycles_give_the_same_replay_in_every_shape() {
    let cycles = with_indices(&[0.2, 0.25, 0.3]);
    let array = Value::Array(cycles.clone()).to_string();
    let pretty = serde_json::to_string_pretty(&json!({"cycles": &cycles})).unwrap();
    let expected = replay_json(&session(cycles.clone()), &[]);
    assert_eq!(column(&expected, "band"), ["open", "open", "open"]);
    for log in [array, pretty, lines(cycles.clone()), lines(cycles).replace('\n', "\r\n\r\n")] {
        assert_eq!(replay_json(&log, &[]), expected);
    }
    let one = replay_json(&native(4, 0.2).to_string(), &[]);
    assert_eq!(one["cycles"][0]["cycle"], 4);
}

#[test]
fn the_json_has_the_keys_of_the_contract_and_no_others() {
    let replay = replay_json(&lines(with_indices(&[0.2])), &[]);
    let keys =
        |value: &Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
    assert_eq!(keys(&replay), ["cycles", "longest_closed", "profile", "totals", "transitions"]);
    assert_eq!(
        keys(&replay["totals"]),
        ["blocked", "caution", "exported", "held", "isolated", "open", "retries", "throttled"]
    );
    assert_eq!(
        keys(&replay["cycles"][0]),
        ["band", "cycle", "di", "drift_source", "posture", "reasons", "verdict"]
    );
}

/// A report whose formula and reported index are `di`, spread over the three parts, so that none of
/// them passes its own critical mark.
fn spread(cycle: u64, di: f64) -> Value {
    let part = di * 0.8;
    let mut document = native(cycle, part.min(0.55));
    document["drift_metrics"]["sv"] = json!(part);
    document["drift_metrics"]["pd"] = json!((part * 2.0 - part.min(0.55)).min(0.44));
    document["drift_metrics"]["di"] = json!(di);
    document
}

#[test]
fn drift_up_and_down_closes_with_hysteresis_and_reopens_under_the_mark() {
    let indices = [0.30, 0.46, 0.49, 0.51, 0.47, 0.44, 0.65, 0.55, 0.44];
    let log = lines((1..).zip(indices).map(|(cycle, di)| spread(cycle, di)));
    let replay = replay_json(&log, &[]);
    assert_eq!(
        column(&replay, "band"),
        [
            "open", "caution", "caution", "blocked", "blocked", "open", "isolated", "isolated",
            "open"
        ]
    );
    assert_eq!(
        column(&replay, "verdict"),
        [
            "export", "throttle", "throttle", "block", "block", "export", "isolate", "isolate",
            "export"
        ]
    );
    assert_eq!(
        replay["totals"],
        json!({
            "open": 3, "caution": 2, "blocked": 2, "isolated": 2, "retries": 0, "exported": 3,
            "throttled": 2, "held": 0,
        })
    );
    assert_eq!((&replay["transitions"], &replay["longest_closed"]), (&json!(6), &json!(2)));
}

#[test]
fn in_caution_every_third_report_is_exported() {
    let indices = [0.2, 0.47, 0.47, 0.47, 0.47, 0.47, 0.47, 0.47];
    let replay = replay_json(&lines((1..).zip(indices).map(|(cycle, di)| spread(cycle, di))), &[]);
    let (throttle, export) = ("throttle", "export");
    assert_eq!(
        column(&replay, "verdict"),
        [export, throttle, throttle, export, throttle, throttle, export, throttle]
    );
    assert!(replay["cycles"][1]["reasons"].as_array().unwrap().contains(&json!("throttled")));
}

#[test]
fn a_public_runtime_stays_closed_by_default_and_the_first_line_says_what_to_try() {
    let log = session((1..=6).map(|cycle| reference_03(cycle, 0.3)));
    let replayed = replay_text(&log, &[]).unwrap();
    assert_eq!(
        replayed.stdout.lines().next(),
        Some("0 of 6 cycles carry all four parts; try --accept derived --assumed-scr 0.8")
    );
    let replay = replay_json(&log, &[]);
    assert_eq!(replay["totals"]["blocked"], 6);
    assert_eq!(replay["profile"], "reference-0.3");
    let log = session((1..=3).map(|cycle| reference_01(cycle, 0.3)));
    let first = replay_text(&log, &[]).unwrap().stdout;
    assert!(first.starts_with("0 of 3 cycles carry all four parts; try --accept reported"));
}

#[test]
fn derived_drift_opens_the_gate_only_where_it_is_asked_for() {
    let log = session((1..=4).map(|cycle| reference_03(cycle, 0.3)));
    let replay = replay_json(&log, &["--accept", "derived", "--assumed-scr", "0.8"]);
    assert_eq!(column(&replay, "drift_source"), ["reported", "derived", "derived", "derived"]);
    assert_eq!(column(&replay, "band"), ["blocked", "open", "open", "open"]);
    // The smaller the coherence that is assumed, the larger the index: 0.3 / (3 * 0.2) is 0.5.
    let replay = replay_json(&log, &["--accept", "derived", "--assumed-scr", "0.2"]);
    assert_eq!(column(&replay, "band"), ["blocked"; 4]);
}

#[test]
fn a_bare_index_opens_the_gate_and_says_that_it_fills_no_packet() {
    let log = session((1..=3).map(|cycle| reference_03(cycle, 0.3)));
    let replay = replay_json(&log, &["--accept", "reported"]);
    assert_eq!(column(&replay, "band"), ["blocked", "open", "open"]);
    assert_eq!(replay["cycles"][1]["reasons"], json!(["unfillable"]));
    let table = replay_text(&log, &["--accept", "reported"]).unwrap().stdout;
    assert!(table.contains("exported       0\nunfillable     2 "), "{table}");
}

#[test]
fn an_empty_reply_and_the_zero_that_follows_never_reopen() {
    let mut cycles: Vec<Value> = (1..=9).map(|cycle| reference_03(cycle, 0.3)).collect();
    cycles[3]["drift_metrics"]["total"] = json!(0.78);
    cycles[3]["response"] = json!("");
    cycles[4]["drift_metrics"] = json!({"semantic": 0.0, "tonal": 0.0, "total": 0.0});
    cycles[4]["semantic_similarity"] = json!(1.0);
    let replay = replay_json(&session(cycles), &["--accept", "reported"]);
    assert_eq!(
        column(&replay, "band"),
        ["blocked", "open", "open", "isolated", "isolated", "open", "open", "open", "open"]
    );
    assert_eq!(replay["cycles"][4]["reasons"], json!(["no_evidence", "latched"]));
}

#[test]
fn a_new_generation_holds_the_gate_closed_for_three_further_cycles() {
    let mut cycles: Vec<Value> = (1..=9).map(|cycle| reference_03(cycle, 0.3)).collect();
    for cycle in cycles.iter_mut().skip(3) {
        cycle["attractor_state"]["attractor_generation"] = json!(2);
    }
    let replay = replay_json(&session(cycles), &["--accept", "reported"]);
    let (blocked, open) = ("blocked", "open");
    assert_eq!(
        column(&replay, "band"),
        [blocked, open, open, blocked, blocked, blocked, blocked, open, open]
    );
}

#[test]
fn a_cycle_number_that_falls_back_closes_the_gate() {
    let log = lines([native(5, 0.2), native(6, 0.2), native(1, 0.9), native(2, 0.2)]);
    let replay = replay_json(&log, &[]);
    assert_eq!(column(&replay, "band"), ["open", "open", "blocked", "open"]);
    let reasons = &replay["cycles"][2]["reasons"];
    assert!(reasons.as_array().unwrap().contains(&json!("new_epoch")), "{reasons}");
    let log = lines([native(5, 0.2), native(5, 0.3)]);
    assert_eq!(replay_json(&log, &[])["cycles"][1]["reasons"], json!(["duplicate_cycle"]));
}

#[test]
fn a_retry_is_counted_and_is_no_cycle() {
    let log = lines([native(5, 0.2), native(5, 0.2), native(6, 0.2), native(6, 0.2)]);
    let replay = replay_json(&log, &[]);
    assert_eq!(values(&replay, "cycle"), [json!(5), json!(6)]);
    assert_eq!(column(&replay, "band"), ["open", "open"]);
    assert_eq!(replay["totals"]["retries"], 2);
    assert!(replay_text(&log, &[]).unwrap().stdout.contains("retries        2"));
}

#[test]
fn the_reasons_of_the_gate_are_shown_as_the_sidecar_names_them() {
    let mut contradicts = native(3, 0.2);
    contradicts["drift_metrics"]["di"] = json!(0.3);
    let log = lines([native(1, 0.2), contradicts, native(9, 0.36), native(2, 0.2)]);
    let replay = replay_json(&log, &[]);
    assert_eq!(
        values(&replay, "reasons"),
        [
            json!([]),
            json!(["di_mismatch", "cycle_gap"]),
            json!(["sdi_reflective", "cycle_gap"]),
            json!(["new_epoch"])
        ]
    );
    assert_eq!(column(&replay, "band"), ["open", "blocked", "open", "blocked"]);
}

#[test]
fn a_bad_line_closes_the_gate_and_is_listed_by_its_number() {
    let mut out_of_range = native(3, 0.2);
    out_of_range["drift_metrics"]["sv"] = json!(7);
    let log = format!("{}\nnot json\n\n{out_of_range}\n{}\n", native(1, 0.2), native(4, 0.2));
    let replay = replay_json(&log, &[]);
    assert_eq!(column(&replay, "band"), ["open", "blocked", "blocked", "open"]);
    assert_eq!(replay["cycles"][1]["cycle"], Value::Null);
    assert_eq!(replay["cycles"][2]["cycle"], 3);
    assert_eq!(replay["cycles"][1]["reasons"], json!(["invalid"]));
    let table = replay_text(&log, &[]).unwrap().stdout;
    assert!(table.contains("2 invalid reports"), "{table}");
    assert!(table.contains("  line 2: "), "{table}");
    assert!(table.contains("  line 4: /drift_metrics/sv: must be between 0 and 1"), "{table}");
    let stderr = replay_text(&log, &["--json"]).unwrap().stderr;
    assert!(stderr.contains("line 4"), "{stderr}");
}

#[test]
fn a_text_only_log_is_refused_with_what_is_missing_and_what_to_do() {
    let texts = |cycle: u64| json!({"cycle": cycle, "user_input": CANARY, "response": CANARY});
    let baseline = json!({"model": "bare", "results": [{"prompt": CANARY, "reply": CANARY}]});
    for log in [lines((1..=4).map(texts)), session((1..=4).map(texts)), baseline.to_string()] {
        let fault = replay_text(&log, &[]).err().unwrap();
        assert_eq!(fault.exit_code(), 65);
        let text = fault.to_string();
        assert!(text.starts_with("not_a_governed_runtime"), "{text}");
        assert!(text.contains("missing") && text.contains("--profile FILE"), "{text}");
        assert!(!text.contains(CANARY));
    }
    let log = lines((1..=4).map(texts));
    let fault = replay_text(&log, &["--profile", "reference-0.3"]).err().unwrap();
    assert!(fault.to_string().contains("/drift_metrics/total: is missing"), "{fault}");
}

#[test]
fn what_is_no_log_is_refused_with_its_place() {
    for (log, says) in [
        ("", "neither JSON nor JSON Lines"),
        ("{\"cycles\": [\n{\"cycle\": 1,\n", "line 3"),
        ("{\"cycles\": []}", "no cycle"),
        ("[]", "no cycle"),
        ("\u{0}\u{1}", "neither JSON"),
    ] {
        let fault = replay_text(log, &[]).err().unwrap();
        assert_eq!(fault.exit_code(), 65, "{log}");
        assert!(fault.to_string().contains(says), "{log}: {fault}");
    }
}

#[test]
fn a_missing_file_and_a_bad_profile_have_their_own_exit_codes() {
    let run = |arguments: &[&str]| {
        let cli = Cli::try_parse_from(["replay"].iter().chain(arguments)).unwrap();
        let fault = replay::write(&cli.replay, &mut &b""[..], &mut Vec::new(), &mut Vec::new());
        fault.err().unwrap().exit_code()
    };
    assert_eq!(run(&["does-not-exist.json"]), 66);
    let log = native(1, 0.2).to_string();
    let fault = replay_text(&log, &["--profile", "does-not-exist"]).err().unwrap();
    assert_eq!(fault.exit_code(), 78);
    let fault = replay_text(&log, &["--svg", "does-not-exist/x.svg"]).err().unwrap();
    assert_eq!(fault.exit_code(), 73);
}

#[test]
fn arguments_out_of_range_are_refused() {
    for arguments in [
        ["-", "--assumed-scr", "0"],
        ["-", "--assumed-scr", "1.1"],
        ["-", "--assumed-scr", "NaN"],
        ["-", "--accept", "none"],
    ] {
        assert!(Cli::try_parse_from(["replay"].iter().chain(&arguments)).is_err());
    }
}

#[test]
fn a_file_profile_replays_a_runtime_of_ones_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.toml");
    std::fs::write(
        &path,
        "name = \"own\"\nattractor.phase = { from = \"/mode\", map = { calm = \"stable\" } }\n\
         drift.di = { from = \"/wobble\" }\n",
    )
    .unwrap();
    let log =
        lines([json!({"mode": "calm", "wobble": 0.1}), json!({"mode": "odd", "wobble": 0.1})]);
    let path = path.to_str().unwrap();
    let replay = replay_json(&log, &["--profile", path, "--accept", "reported"]);
    assert_eq!(replay["profile"], "own");
    assert_eq!(column(&replay, "band"), ["open", "blocked"]);
}

#[test]
fn the_picture_is_one_accessible_file_that_names_every_band_and_mark() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.svg");
    for count in [1_u64, 40, 3000] {
        let log = lines((1..=count).map(|cycle| {
            let mut document = native(cycle, 0.3);
            document["drift_metrics"]["di"] = json!(if cycle % 7 == 0 { 0.8 } else { 0.3 });
            document
        }));
        replay_text(&log, &["--svg", path.to_str().unwrap()]).unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        for part in ["role=\"img\"", "<title ", "<desc ", "prefers-color-scheme:dark"] {
            assert!(svg.contains(part), "{part}");
        }
        for band in [Band::Open, Band::Caution, Band::Blocked, Band::Isolated] {
            assert!(svg.contains(&format!(">{} <tspan", band.word())));
        }
        for mark in ["isolate 0.60", "block 0.50", "reopen 0.45", "drift index"] {
            assert!(svg.contains(mark), "{mark}");
        }
        assert!(!svg.contains("href") && !svg.contains("<script"), "self-contained");
        assert!(svg.len() < 200_000, "a picture is bounded, however long the log: {}", svg.len());
    }
}

#[test]
fn the_picture_says_the_reasons_of_each_cycle_and_no_two_labels_touch() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.svg");
    for highest in [0.55, 3.0] {
        let log = lines([0.2, 0.52, highest].into_iter().zip(1..).map(|(di, cycle)| {
            let mut document = native(cycle, 0.2);
            document["drift_metrics"]["di"] = json!(di);
            document
        }));
        replay_text(&log, &["--svg", path.to_str().unwrap()]).unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        assert!(svg.contains("<title>cycle 2, di 0.520, blocked: "), "{svg}");
        let titles: Vec<&str> = svg.lines().filter(|line| line.contains("<title>")).collect();
        assert!(titles.iter().any(|line| line.contains("di_block")), "{titles:?}");
        // Every text on one edge of the picture, by its height.
        let texts = svg.split("<text").skip(1).filter_map(|text| {
            let attribute = |name: &str| {
                let (_, rest) = text.split_once(&format!(" {name}=\""))?;
                rest.split_once('"')?.0.parse::<f64>().ok()
            };
            Some((attribute("x")?, attribute("y")?))
        });
        let mut edge: Vec<f64> =
            texts.filter(|(x, _)| (*x - 808.0).abs() < 0.1).map(|(_, y)| y).collect();
        edge.sort_by(f64::total_cmp);
        assert_eq!(edge.len(), 7, "{edge:?}");
        for (one, next) in edge.iter().zip(edge.iter().skip(1)) {
            assert!(next - one >= 13.9, "{highest}: {edge:?}");
        }
    }
}

#[test]
fn one_cycle_is_explained_with_its_parts_its_reasons_and_what_reopens() {
    let log = lines((1..).zip([0.2, 0.52]).map(|(cycle, di)| spread(cycle, di)));
    let text = replay_text(&log, &["--explain", "2"]).unwrap().stdout;
    for expected in [
        "cycle    2, line 2 of the log\nindex    0.52",
        "gate     open -> blocked\nverdict  block\n",
        "di_block: The index is at or above `block`.",
        "reopens  a report with di < 0.45, posture stable and native drift metrics\n",
    ] {
        assert!(text.contains(expected), "{expected}\nin:\n{text}");
    }
    let told = replay_json(&log, &["--explain", "2"]);
    assert_eq!((&told["before"], &told["band"]), (&json!("open"), &json!("blocked")));
    assert!(told["parts"]["scr"].is_number(), "{told}");
    assert_eq!(replay_json(&log, &["--explain", "1"])["would_reopen"], Value::Null);
    let fault = replay_text(&log, &["--explain", "9"]).err().unwrap();
    assert_eq!(fault.exit_code(), 66);
    assert!(fault.to_string().contains("they go from 1 to 2"), "{fault}");
}

#[test]
fn every_end_of_a_report_is_counted_where_it_belongs() {
    let indices = [0.2, 0.47, 0.47, 0.47, 0.2];
    let mut run: Vec<Value> = (1..).zip(indices).map(|(cycle, di)| spread(cycle, di)).collect();
    // A zero is no evidence: the gate stays open, and nothing of it could be sent.
    run.push(spread(6, 0.0));
    let replay = replay_json(&lines(run.clone()), &[]);
    let verdicts = column(&replay, "verdict");
    for (name, verdict) in [("exported", "export"), ("throttled", "throttle"), ("held", "hold")] {
        let count = verdicts.iter().filter(|word| **word == verdict).count();
        assert_eq!(replay["totals"][name], count, "{name}: {verdicts:?}");
    }
    let table = replay_text(&lines(run), &[]).unwrap().stdout;
    assert!(table.contains("exported       3\nthrottled      2 "), "{table}");
    assert!(!table.contains("unfillable"), "{table}");
}

#[test]
fn no_text_of_the_log_reaches_any_output() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.svg");
    for log in [
        session((1..=8).map(|cycle| reference_03(cycle, 0.3))),
        session((1..=8).map(|cycle| reference_01(cycle, 0.3))),
        lines((1..=8).map(|cycle| native(cycle, 0.2))),
    ] {
        assert!(log.contains(CANARY));
        for arguments in [&["--json"][..], &["--svg", path.to_str().unwrap()]] {
            let replayed = replay_text(&log, arguments).unwrap();
            assert!(!replayed.stdout.contains(CANARY) && !replayed.stderr.contains(CANARY));
        }
        assert!(!std::fs::read_to_string(&path).unwrap().contains(CANARY));
    }
}
