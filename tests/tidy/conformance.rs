//! `docs/conformance.md`: what the public texts ask, and the tests that show it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde::Deserialize;

use super::source::{Page, pages};

/// The last requirement and the last ambiguity: none may be left out.
const REQUIREMENTS: usize = 77;
const AMBIGUITIES: usize = 39;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Matrix {
    requirement: Vec<Requirement>,
    ambiguity: Vec<Ambiguity>,
    statement: Vec<Statement>,
    #[serde(default)]
    deviation: Vec<Deviation>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Deviation {
    says: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Requirement {
    id: String,
    says: String,
    #[serde(default)]
    state: State,
    tests: Vec<String>,
    #[serde(default)]
    note: String,
}

#[derive(Clone, Copy, Default, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum State {
    #[default]
    Covered,
    Deviation,
    NotApplicable,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ambiguity {
    id: String,
    asks: String,
    decided: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Statement {
    about: String,
    says: String,
}

/// The function that a line of a test file begins, if it begins one.
fn function(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let rest = line.strip_prefix("async fn ").or_else(|| line.strip_prefix("fn "))?;
    Some(rest.split('(').next().unwrap_or(rest))
}

/// Where each test stands: its function, and the path that `cargo test` shows.
fn tests(all: &[Page]) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for page in all {
        let mut is_test = false;
        for line in page.text.lines() {
            let attribute = line.trim_start();
            if attribute.starts_with("#[test") || attribute.starts_with("#[tokio::test") {
                is_test = true;
            } else if let (true, Some(name)) = (is_test, function(line)) {
                found.insert(name.to_owned(), place(&page.path));
                is_test = false;
            }
        }
    }
    found
}

/// `tests/live/snapshots/push.rs` is `live snapshots::push`, `src/audit.rs` is `lib audit`.
fn place(path: &str) -> String {
    let path = path.trim_end_matches(".rs").trim_end_matches("/main");
    let (binary, module) = match path.strip_prefix("tests/") {
        Some(rest) => rest.split_once('/').unwrap_or((rest, "")),
        None => ("lib", path.trim_start_matches("src/")),
    };
    format!("{binary} {}", module.replace('/', "::"))
}

fn render(matrix: &Matrix, tests: &BTreeMap<String, String>) -> Result<String, String> {
    let mut text = String::from(
        "# What the public texts ask, and what shows it\n\n\
         Self-declared. Written out by `make documents` from `tests/tidy/requirements.toml`, which \
         names the tests by function; one that is missing fails the build. `make test` runs all of \
         them, and a change with one that fails does not land: *passes* means that. The numbers \
         are ours; the texts are the public Sigma Runtime Standard documents of 2026-07-01 \
         (CC BY 4.0, see NOTICE), SRIP-05 dated 2026-04-17.\n\n\
         ## Requirements\n\n| | asked | result | shown by |\n|---|---|---|---|\n",
    );
    for row in &matrix.requirement {
        let mut shown = Vec::new();
        for test in &row.tests {
            let place = tests.get(test).ok_or_else(|| format!("{}: no test {test}", row.id))?;
            let colons = if place.ends_with(' ') { "" } else { "::" };
            shown.push(format!("`{place}{colons}{test}`"));
        }
        let result = match row.state {
            State::NotApplicable => "not applicable to a bridge",
            State::Deviation => "deviation",
            State::Covered if shown.is_empty() && row.note.is_empty() => "not shown by a test",
            State::Covered if shown.is_empty() => "stated",
            State::Covered => "passes",
        };
        if !row.note.is_empty() {
            shown.insert(0, row.note.clone());
        }
        let Requirement { id, says, .. } = row;
        let _ = writeln!(text, "| {id} | {says} | {result} | {} |", shown.join("<br>"));
    }
    text.push_str("\n## Ambiguities\n\n| | question | decided |\n|---|---|---|\n");
    for Ambiguity { id, asks, decided } in &matrix.ambiguity {
        let _ = writeln!(text, "| {id} | {asks} | {decided} |");
    }
    text.push_str("\n## Statement\n\n| | |\n|---|---|\n");
    for Statement { about, says } in &matrix.statement {
        let _ = writeln!(text, "| {about} | {says} |");
    }
    text.push_str("\n## Known deviations\n\n");
    for Deviation { says } in &matrix.deviation {
        let _ = writeln!(text, "- {says}");
    }
    Ok(text)
}

#[test]
fn the_matrix_names_every_requirement_and_only_tests_that_exist() {
    let matrix: Matrix = toml::from_str(include_str!("requirements.toml")).unwrap();
    let numbered = |letter: char, count: usize| -> Vec<String> {
        (1..=count).map(|number| format!("{letter}{number}")).collect()
    };
    let ids: Vec<&str> = matrix.requirement.iter().map(|row| row.id.as_str()).collect();
    assert_eq!(ids, numbered('R', REQUIREMENTS));
    let ids: Vec<&str> = matrix.ambiguity.iter().map(|row| row.id.as_str()).collect();
    assert_eq!(ids, numbered('A', AMBIGUITIES));
    let known = tests(&pages(&["src", "tests"]));
    let written = render(&matrix, &known).unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/conformance.md");
    if std::env::var_os("DRIFTGATE_WRITE_DOCUMENTS").is_some() {
        fs::write(&path, &written).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == written, "docs/conformance.md is not what the matrix says: make documents");
}

#[test]
fn a_matrix_that_names_a_test_that_is_gone_is_refused() {
    let matrix = "[[requirement]]\nid = 'R1'\nsays = 'x'\ntests = ['gone']\n\
                  [[ambiguity]]\nid = 'A1'\nasks = 'x'\ndecided = 'y'\n\
                  [[statement]]\nabout = 'x'\nsays = 'y'\n";
    let matrix: Matrix = toml::from_str(matrix).unwrap();
    assert_eq!(render(&matrix, &BTreeMap::new()), Err("R1: no test gone".to_owned()));
    let page =
        Page::new("tests/live/a/b.rs", "#[tokio::test]\nasync fn gone() {}\nfn helper() {}\n");
    let known = tests(&[page]);
    assert_eq!(known.len(), 1, "a function that is no test is none");
    assert!(render(&matrix, &known).unwrap().contains("| R1 | x | passes | `live a::b::gone` |"));
}
