//! What things may be called, and what may be said of them.

use driftgate::telemetry::{Distribution, Exposition, Family};
use prometheus_client::metrics::histogram::Histogram;

use super::source::{Page, pages, words};
use super::{Offences, keep, offence, sources};

/// Beginnings of names that belong to others: no crate, subject, metric or
/// variable is called so.
const MARKS: [&str; 12] = [
    "sigma-", "sigma_", "SIGMA_", "srip-", "srip_", "SRIP_", "srs-", "srs_", "SRS_", "alice-",
    "alice_", "aegida-",
];
/// What only their owner may say of a product.
const CLAIMS: [&str; 3] = ["compatible", "conformant", "certified"];
/// So near to a mark, in words, a claim is a claim about it.
const CLAIM_WORDS_MAX: usize = 8;

/// Whether what follows a mark makes it the name of the standard's own profile of reports.
fn names_the_profile(mark: &str, after: &str) -> bool {
    let ends = |rest: &str| !rest.starts_with(|x: char| x.is_alphanumeric() || "-_".contains(x));
    mark == "srip-" && after.strip_prefix("05").is_some_and(ends)
}

fn no_foreign_names(all: &[Page]) -> Offences {
    let mut offences = Vec::new();
    for page in all {
        for (line, number) in std::iter::once(page.path.as_str()).chain(page.text.lines()).zip(0..)
        {
            for mark in MARKS {
                let bad = line.match_indices(mark).any(|(at, _)| {
                    let is_within = line[..at].ends_with(|sign: char| sign.is_alphanumeric());
                    !is_within && !names_the_profile(mark, &line[at + mark.len()..])
                });
                if bad {
                    offences.push(offence(page, number, &format!("{mark} is a name of others")));
                }
            }
            if line.contains('\u{223f}') {
                offences.push(offence(page, number, "U+223F is a mark of others"));
            }
        }
    }
    offences
}

/// Whether a word claims something. Versions that are backward-compatible claim nothing.
fn is_claim(word: &str) -> bool {
    let word = word.trim_matches(|sign: char| !sign.is_alphanumeric());
    CLAIMS.iter().any(|claim| match word.strip_suffix(claim) {
        Some("") => true,
        Some(before) => before.ends_with('-') && !before.contains("ward"),
        None => false,
    })
}

fn is_mark(word: &str) -> bool {
    let word = word.trim_start_matches(|sign: char| !sign.is_alphanumeric());
    ["sigma", "srip", "srs", "aegida", "alice"].iter().any(|mark| word.starts_with(mark))
}

fn no_claims(all: &[Page]) -> Offences {
    let mut offences = Vec::new();
    for page in all {
        let lines = page.text.lines().zip(1..);
        let words: Vec<(usize, String)> = lines
            .flat_map(|(line, number)| line.split([' ', '/']).map(move |word| (number, word)))
            .map(|(line, word)| (line, word.to_lowercase()))
            .filter(|(_, word)| word.contains(char::is_alphanumeric))
            .collect();
        for (at, (line, word)) in words.iter().enumerate().filter(|(_, (_, word))| is_claim(word)) {
            let before = &words[at.saturating_sub(CLAIM_WORDS_MAX)..at];
            let after = &words[at..words.len().min(at + CLAIM_WORDS_MAX + 1)];
            let is_near = before.iter().chain(after).any(|(_, word)| is_mark(word));
            let denies = |word: &str| ["no", "not", "nor", "never", "neither"].contains(&word);
            if is_near && !before.iter().any(|(_, word)| denies(word)) {
                offences.push(offence(page, *line, &format!("{word} is for their owner to say")));
            }
        }
    }
    offences
}

/// Names of documents that a reader of this tree cannot open.
const ELSEWHERE: [&str; 6] =
    ["DESIGN section", "SPEC section", "FIELD-NOTES", "OPS-NOTES", "STYLE.md", "issue 1"];

/// Whoever is sent to a document must find it in this tree.
fn documents_are_here(all: &[Page]) -> Offences {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut offences = Vec::new();
    for page in all {
        for (line, number) in page.text.lines().zip(1..) {
            for name in ELSEWHERE.iter().filter(|name| line.contains(**name)) {
                offences.push(offence(page, number, &format!("{name} is not in this tree")));
            }
            for (at, _) in line.match_indices("docs/") {
                let is_name = |sign: char| sign.is_ascii_alphanumeric() || "-_./".contains(sign);
                let name: String = line[at..].chars().take_while(|sign| is_name(*sign)).collect();
                if name.ends_with(".md") && !root.join(&name).is_file() {
                    offences.push(offence(page, number, &format!("there is no {name}")));
                }
            }
        }
    }
    offences
}

fn metrics_have_one_prefix(all: &[Page]) -> Offences {
    let mut offences = Vec::new();
    for page in all {
        if page.path != "src/telemetry.rs" {
            for (line, word) in words(&page.code()) {
                if word == "prometheus_client" {
                    offences.push(offence(page, line, "metrics become text in telemetry.rs only"));
                }
            }
        }
        for (line, number) in page.without_comments().lines().zip(1..) {
            for (at, name) in line.match_indices("Registry::") {
                if !line[at + name.len()..].starts_with("with_prefix(\"driftgate\")") {
                    offences.push(offence(page, number, "a registry without the prefix driftgate"));
                }
            }
        }
    }
    offences
}

/// Metric names in an exposition that do not begin with `driftgate_`.
fn foreign_metrics(exposition: &str) -> Vec<&str> {
    let names = exposition.lines().filter_map(|line| match line.strip_prefix("# ") {
        Some("EOF") => None,
        Some(comment) => comment.split(' ').nth(1),
        None => line.split([' ', '{']).next(),
    });
    names.filter(|name| !name.starts_with("driftgate_")).collect()
}

/// Everything that others read as ours.
fn published() -> Vec<Page> {
    pages(&["src", "config", "deploy", "README.md", "Cargo.toml"])
}

#[test]
fn nothing_of_ours_bears_a_name_of_others() {
    let example = [
        ("config/srip-05.toml", "name = \"srip-05\"\n# SRIP-05 section 3, a SigmaPacket\n"),
        ("config/a.toml", "subject = \"srip_05.state\"\n\n# malice-free, `aegida_status`\n"),
        ("Cargo.toml", "name = \"sigma-gate\"\nother = \"srip-05-sidecar\"\n"),
        ("deploy/srs-gate.yaml", "SIGMA_PREFIX: a\n"),
        ("README.md", "The \u{223f} sign\nSRIP-05 (/aegida/safety), `driftgate_srip_packets`\n"),
    ];
    let expected = [
        "config/a.toml:1: srip_ is",
        "Cargo.toml:1: sigma- is",
        "Cargo.toml:2: srip- is",
        "deploy/srs-gate.yaml:0: srs- is",
        "deploy/srs-gate.yaml:1: SIGMA_ is",
        "README.md:1: U+223F",
        "README.md:2: srip_ is",
    ];
    keep(no_foreign_names, &published(), &example, &expected);
}

#[test]
fn nothing_of_ours_claims_what_only_the_owner_of_a_mark_may_say() {
    let example = [
        ("README.md", "A bridge that is compatible with\nSRIP-05.\n\nAn SRS-Conformant gate.\n"),
        (
            "src/a.rs",
            "//! Sigma Runtime (certified) gate\n//! `Incompatible` in SRIP-05 section 5\n",
        ),
        ("src/b.rs", "//! Not affiliated with or certified by the Sigma Stratum Research Group.\n"),
        ("src/c.rs", "//! Minors stay backward-compatible (SRIP-05 section 5).\n"),
        ("src/d.rs", "//! Compatible with zstd 1.5 and newer.\n"),
    ];
    let expected = ["README.md:1: ", "README.md:4: ", "src/a.rs:1: "];
    keep(no_claims, &published(), &example, &expected);
}

#[test]
fn every_metric_begins_with_driftgate() {
    let example = [
        (
            "src/http.rs",
            "// prometheus_client\nuse prometheus_client::metrics::counter::Counter;\n",
        ),
        ("src/telemetry.rs", "Registry::default();\nRegistry::with_prefix(\"driftgate\");\n"),
        (
            "src/telemetry.rs",
            "use prometheus_client::Registry;\nRegistry::with_prefix(\"gate\");\n",
        ),
    ];
    let expected = [
        "src/http.rs:2: metrics",
        "src/telemetry.rs:1: a registry",
        "src/telemetry.rs:2: a registry",
    ];
    keep(metrics_have_one_prefix, &sources(&["src"]), &example, &expected);

    assert_eq!(foreign_metrics("# HELP a A.\ndriftgate_a 1\nb{c=\"d\"} 2\n# EOF\n"), ["a", "b"]);
    let row = (vec!["b".to_owned()], 1.0);
    let family = Family { name: "a", help: "A", labels: &["b"], rows: vec![row], is_counter: true };
    let histogram = Histogram::new([1.0]);
    histogram.observe(0.5);
    let distribution = Distribution { name: "c_seconds", help: "C", histogram };
    let text = Exposition { families: vec![family], distributions: vec![distribution] }.render();
    assert!(text.contains("driftgate_a_total{b=\"b\"} 1"), "{text}");
    assert!(text.contains("driftgate_c_seconds_bucket"), "{text}");
    assert_eq!(foreign_metrics(&text), Vec::<&str>::new());
}

#[test]
fn nobody_is_sent_to_a_document_that_is_not_here() {
    let example = [
        ("README.md", "[more](docs/none-such.md#here)\n"),
        ("src/a.rs", "//! As DESIGN section 6 says.\n//! See docs/configuration.md.\n"),
    ];
    let expected = ["README.md:1: there is no docs/none-such.md", "src/a.rs:1: DESIGN section"];
    let mut places = pages(&["src", "config", "deploy", "docs", "README.md", "Cargo.toml"]);
    places.extend(pages(&["tests", "Makefile"]).into_iter().filter(|page| {
        !page.path.starts_with("tests/tidy/") && !page.path.starts_with("tests/fuzz/corpus/")
    }));
    keep(documents_are_here, &places, &example, &expected);
}

/// A README is read whole, so it is short.
const README_WORDS_MAX: usize = 1000;

#[test]
fn the_readme_is_short_enough_to_be_read() {
    let words = include_str!("../../README.md").split_whitespace().count();
    assert!(words < README_WORDS_MAX, "{words} words: move some of it into docs/");
}
