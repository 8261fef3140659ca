//! Keeps the house. Every rule is a function from pages to offences, is held
//! against the repository, and shows on a page of its own making that it can fail.
//!
//! It reads text, not types: a macro that writes a path, or an alias for a whole crate, gets past
//! it. Literals are no code here, so that this file may name what it forbids.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "in a test a panic is the report, and every slice is cut where it was found"
)]

mod conformance;
mod name;
mod source;

use std::collections::BTreeSet;

use source::{Page, modules, pages, paths, resolve, words};

/// The rooms from top to bottom; a room uses only what stands below it. Those that exist stand in
/// `src/lib.rs` in this order, and no others.
const ROOMS: [&str; 14] = [
    "commands",
    "sidecar",
    "http",
    "driver",
    "deliver",
    "snapshots",
    "nats",
    "ingest",
    "audit",
    "config",
    "telemetry",
    "profiles",
    "keys",
    "protocol",
];

/// Words that `protocol/` may not hold: it has no async, clock, socket, randomness or order that
/// changes from run to run.
const IMPURE_WORDS: [&str; 18] = [
    "tokio",
    "async",
    "await",
    "async_nats",
    "axum",
    "hyper",
    "futures_util",
    "SystemTime",
    "Instant",
    "rand",
    "getrandom",
    "HashMap",
    "HashSet",
    "print",
    "println",
    "eprint",
    "eprintln",
    "stdin",
];

/// Modules of the standard library that `protocol/` may not use.
const IMPURE_MODULES: [&str; 6] = ["env", "fs", "net", "process", "thread", "os"];

/// Longest file, in lines: what can be read in one sitting.
const LINES_MAX: usize = 500;
/// Longest line, in characters, as in `.rustfmt.toml`, which does not break literals.
const COLUMNS_MAX: usize = 100;

type Offences = Vec<String>;

fn offence(page: &Page, line: usize, problem: &str) -> String {
    format!("{}:{line}: {problem}", page.path)
}

fn rank(order: &[impl AsRef<str>], name: Option<&String>) -> Option<usize> {
    order.iter().position(|room| Some(room.as_ref()) == name.map(String::as_str))
}

fn rooms_in_order(all: &[Page]) -> Offences {
    let mut offences = Vec::new();
    for page in all.iter().filter(|page| page.path == "src/lib.rs") {
        let mut lowest = 0;
        for (line, name) in modules(&page.code()) {
            match rank(&ROOMS, Some(&name)) {
                None => offences.push(offence(page, line, &format!("{name} is not in ROOMS"))),
                Some(rank) if rank < lowest => {
                    offences.push(offence(page, line, &format!("{name} stands too low")));
                }
                Some(rank) => lowest = rank,
            }
        }
    }
    offences
}

/// What is wrong with a path out of `module`, given the order inside `protocol/`.
fn misuse(module: &[String], target: &[String], protocol: &[String]) -> Option<String> {
    let own = rank(&ROOMS, module.first())?;
    let Some(used) = rank(&ROOMS, target.first()) else {
        return Some(format!("{} is no room", target.join("::")));
    };
    if used < own {
        return Some(format!("{} stands above", target.join("::")));
    }
    let [_, room, ..] = module else { return None };
    if module.first().is_none_or(|first| first != "protocol") {
        return None;
    }
    if target.get(1).is_none_or(|name| name == "*") {
        return Some("name the room of protocol that is meant".to_owned());
    }
    let (own, used) = (rank(protocol, Some(room))?, rank(protocol, target.get(1))?);
    (used < own).then(|| format!("{} stands above", target.join("::")))
}

fn uses_point_down(all: &[Page]) -> Offences {
    let protocol = all.iter().find(|page| page.path == "src/protocol.rs");
    let protocol = protocol.map(|page| modules(&page.code())).unwrap_or_default();
    let protocol: Vec<String> = protocol.into_iter().map(|(_, name)| name).collect();
    let mut offences = Vec::new();
    for page in all {
        let (code, module) = (page.code_without_tests(), page.module());
        for (line, path) in paths(&code) {
            let target = resolve(&path, &module);
            let problem = target.and_then(|target| misuse(&module, &target, &protocol));
            offences.extend(problem.map(|problem| offence(page, line, &problem)));
        }
    }
    offences
}

fn no_grouped_imports(all: &[Page]) -> Offences {
    let mut offences = Vec::new();
    for page in all {
        for (line, number) in page.code().lines().zip(1..) {
            let line: String = line.split_whitespace().collect();
            if line.contains("crate::{") {
                offences.push(offence(page, number, "one `use` for each room of the crate"));
            }
        }
    }
    offences
}

fn protocol_is_pure(all: &[Page]) -> Offences {
    let mut offences = Vec::new();
    for page in all.iter().filter(|page| page.module().first().is_some_and(|x| x == "protocol")) {
        let code = page.code_without_tests();
        for (line, word) in words(&code).filter(|(_, word)| IMPURE_WORDS.contains(word)) {
            offences.push(offence(page, line, word));
        }
        for (line, path) in paths(&code) {
            let [root, module, ..] = path.as_slice() else { continue };
            if root == "std" && IMPURE_MODULES.contains(&module.as_str()) {
                offences.push(offence(page, line, &path.join("::")));
            }
        }
    }
    offences
}

fn files_are_reachable(all: &[Page]) -> Offences {
    let mut open: Vec<String> = vec!["src/lib.rs".to_owned(), "src/main.rs".to_owned()];
    let mut reached = BTreeSet::new();
    while let Some(path) = open.pop() {
        if let Some(page) = all.iter().find(|page| page.path == path) {
            let module = page.module();
            for (_, name) in modules(&page.code()) {
                let name = module.iter().chain([&name]).cloned().collect::<Vec<_>>().join("/");
                open.push(format!("src/{name}.rs"));
            }
        }
        reached.insert(path);
    }
    let dead = all.iter().filter(|page| !reached.contains(&page.path));
    dead.map(|page| offence(page, 1, "no `mod` line names this file")).collect()
}

fn files_have_their_form(all: &[Page]) -> Offences {
    let mut offences = Vec::new();
    for page in all {
        let lines = page.text.lines().count();
        if lines > LINES_MAX {
            offences.push(offence(page, lines, &format!("more than {LINES_MAX} lines")));
        }
        if !page.text.starts_with("//!") {
            offences.push(offence(page, 1, "begin with `//!`: what lives here, what does not"));
        }
        for (line, number) in page.text.lines().zip(1..) {
            // rustfmt keeps code in its columns and leaves comments alone; a string literal that
            // cannot be broken is its business too.
            let is_comment = line.trim_start().starts_with("//");
            if is_comment && line.chars().count() > COLUMNS_MAX {
                offences.push(offence(page, number, &format!("more than {COLUMNS_MAX} columns")));
            }
        }
    }
    offences
}

fn nothing_is_left_undone(all: &[Page]) -> Offences {
    let mut offences = Vec::new();
    for page in all {
        let code = page.code();
        for (line, number) in code.lines().zip(1..) {
            let line: String = line.split_whitespace().collect();
            for left in ["#[ignore", "todo!(", "unimplemented!("] {
                if line.contains(left) {
                    offences.push(offence(page, number, left));
                }
            }
        }
        for (line, path) in paths(&code) {
            let is_sleep = matches!(path.as_slice(), [.., from, what]
                if what == "sleep" && (from == "thread" || from == "time"));
            if is_sleep && page.path.starts_with("tests/") {
                offences.push(offence(page, line, "await the event instead of sleeping"));
            }
        }
    }
    offences
}

fn sources(places: &[&str]) -> Vec<Page> {
    pages(places).into_iter().filter(|page| page.path.ends_with(".rs")).collect()
}

/// Holds a rule against the repository, after it has shown that it can fail: in `example` it must
/// find what `expected` begins to say, in that order, and nothing else.
fn keep(
    rule: fn(&[Page]) -> Offences,
    repository: &[Page],
    example: &[(&str, &str)],
    expected: &[&str],
) {
    let example: Vec<Page> = example.iter().map(|(path, text)| Page::new(path, text)).collect();
    let found = rule(&example);
    let is_expected = |(found, expected): (&String, &&str)| found.starts_with(expected);
    let finds = found.len() == expected.len() && found.iter().zip(expected).all(is_expected);
    assert!(finds, "the rule itself is broken: {found:#?}, expected {expected:#?}");
    assert!(repository.len() > 1, "there is nothing to read");
    let offences = rule(repository);
    assert!(offences.is_empty(), "{} offences: {offences:#?}", offences.len());
}

#[test]
fn the_rooms_stand_in_their_order() {
    let text = "pub mod http;\nmod driver;\npub mod http;\n#[deny(x)]\npub(crate) mod attic;\n";
    let expected = ["src/lib.rs:3: http stands too low", "src/lib.rs:5: attic is not"];
    keep(rooms_in_order, &sources(&["src"]), &[("src/lib.rs", text)], &expected);
}

#[test]
fn a_room_uses_only_what_stands_below_it() {
    let order = "mod bridge;\nmod seal;\nmod time;\n";
    let example = [
        ("src/protocol.rs", order),
        ("src/main.rs", "use driftgate::http::Server;\n"),
        ("src/http.rs", "use crate::driver::Handle;\nuse self::table::Row;\n"),
        ("src/nats/link.rs", "fn f() {\n    crate::driver::run();\n}\nuse super::super::http;\n"),
        ("src/config.rs", "// crate::nats\nuse crate::Handle;\nuse crate::protocol::*;\n"),
        ("src/protocol/bridge/show.rs", "use super::super::seal::A;\nuse super::*;\n"),
        ("src/protocol/seal.rs", "use super::{time::A, bridge::B};\nuse crate::config::C;\n"),
        ("src/protocol/time.rs", "use super::*;\n#[cfg(test)]\nmod t {\n use super::seal::A;\n}\n"),
    ];
    let expected = [
        "src/nats/link.rs:2: driver::run stands above",
        "src/nats/link.rs:4: http stands above",
        "src/config.rs:2: Handle is no room",
        "src/protocol/seal.rs:1: protocol::bridge::B stands above",
        "src/protocol/seal.rs:2: config::C stands above",
        "src/protocol/time.rs:1: name the room",
    ];
    keep(uses_point_down, &sources(&["src"]), &example, &expected);
}

#[test]
fn each_room_has_a_use_of_its_own() {
    let example =
        [("src/a.rs", "use crate::a::{b, c};\n// use crate::{a, b};\nuse crate:: {a, b};")];
    keep(no_grouped_imports, &sources(&["src"]), &example, &["src/a.rs:3: one `use`"]);
}

#[test]
fn the_protocol_is_pure() {
    let example = [
        ("src/driver.rs", "use std::time::Instant;\nuse std::fs;\n"),
        ("src/protocol.rs", "//! No tokio.\nuse core::time::Duration;\nlet operand = \"rand\";\n"),
        ("src/protocol/a.rs", "async fn f() {\n    g()\n        .await\n}\n"),
        ("src/protocol/b.rs", "use std::{fmt, fs::File};\nfn f(a: HashMap<u8, u8>) {}\n"),
        ("src/protocol/c.rs", "/// `println!`\n#[cfg(test)]\nmod tests {\n    use std::env;\n}\n"),
        ("src/protocol/d/e.rs", "fn f() -> Now { std::time::SystemTime::now() }\nprintln!();\n"),
    ];
    let expected = [
        "src/protocol/a.rs:1: async",
        "src/protocol/a.rs:3: await",
        "src/protocol/b.rs:2: HashMap",
        "src/protocol/b.rs:1: std::fs::File",
        "src/protocol/d/e.rs:1: SystemTime",
        "src/protocol/d/e.rs:2: println",
    ];
    keep(protocol_is_pure, &sources(&["src"]), &example, &expected);
}

#[test]
fn every_file_is_named_by_a_mod_line() {
    let example = [
        ("src/lib.rs", "pub mod a;\n// mod c;\n"),
        ("src/main.rs", "fn main() {}\n"),
        ("src/a.rs", "mod b;\nmod inline {}\n"),
        ("src/a/b.rs", ""),
        ("src/b.rs", ""),
        ("src/c.rs", ""),
    ];
    let expected = ["src/b.rs:1: no `mod` line", "src/c.rs:1: no `mod` line"];
    keep(files_are_reachable, &sources(&["src"]), &example, &expected);
}

#[test]
fn every_file_can_be_read_in_one_sitting_and_says_what_it_is() {
    let (fits, long) = ("//! A.\n".repeat(LINES_MAX), "//! A.\n".repeat(LINES_MAX + 1));
    let wide =
        ["//! ", &"é".repeat(COLUMNS_MAX - 4), "\n//! ", &"é".repeat(COLUMNS_MAX - 3)].concat();
    let example = [
        ("src/a.rs", fits.as_str()),
        ("src/b.rs", &long),
        ("src/c.rs", &wide),
        ("src/d.rs", "fn main() {}\n"),
    ];
    let expected =
        ["src/b.rs:501: more than 500", "src/c.rs:2: more than 100", "src/d.rs:1: begin with"];
    keep(files_have_their_form, &sources(&["src", "tests"]), &example, &expected);
}

#[test]
fn nothing_is_left_undone_and_no_test_sleeps() {
    let example = [
        (
            "src/a.rs",
            "fn f() { tokio::time::sleep(g()) }\nfn g() { todo!() }\n// unimplemented!()\n",
        ),
        ("tests/a.rs", "use tokio::time::{self, sleep};\nuse std::thread;\n"),
        (
            "tests/b.rs",
            "#[test]\n#[ignore = \"slow\"]\nfn f() { thread::sleep(A) }\n\"todo!()\";\n",
        ),
        ("tests/c.rs", "fn f() { unimplemented!(\"g\") }\nfn g() { time::sleep_until(A) }\n"),
    ];
    let expected = [
        "src/a.rs:2: todo!(",
        "tests/a.rs:1: await the event",
        "tests/b.rs:2: #[ignore",
        "tests/b.rs:3: await the event",
        "tests/c.rs:1: unimplemented!(",
    ];
    keep(nothing_is_left_undone, &sources(&["src", "tests"]), &example, &expected);
}
