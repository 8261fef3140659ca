//! The rows, written out: `config/driftgate.toml` and `docs/configuration.md`. A test holds both
//! files against what is written here.

use core::fmt::Write as _;

use super::key::{Absent, Row, Section};
use super::settings::{
    Audit, Console, Containment, Deliver, FlappingKeys, Ingest, Integrity, KeyKeys, Listen, Log,
    Nats, Peer, Runtime, Snapshot, TailKeys, Tls,
};

/// Longest line of the example, in characters.
const COLUMNS_MAX: usize = 100;

/// One table of the configuration as the documents show it.
#[derive(Clone, Debug)]
pub struct SectionRows {
    /// Its name; of a list of tables with `[]`.
    pub path: &'static str,
    /// What it is about.
    pub about: String,
    /// Its keys.
    pub rows: Vec<Row>,
}

/// Every table with its keys, in the order of the documents.
#[must_use]
pub fn reference() -> Vec<SectionRows> {
    fn of<S: Section>() -> SectionRows {
        SectionRows { path: S::PATH, about: S::ABOUT.concat().trim().to_owned(), rows: S::rows() }
    }
    vec![
        of::<Runtime>(),
        of::<Peer>(),
        of::<Nats>(),
        of::<Tls>(),
        of::<Listen>(),
        of::<Console>(),
        of::<Ingest>(),
        of::<TailKeys>(),
        of::<Containment>(),
        of::<FlappingKeys>(),
        of::<Integrity>(),
        of::<KeyKeys>(),
        of::<Snapshot>(),
        of::<Deliver>(),
        of::<Audit>(),
        of::<Log>(),
    ]
}

const EXAMPLE_HEAD: &str = "\
# Driftgate: every key, with its range and default. docs/configuration.md shows the same as a table.
#
# A line that begins with \"# \" is a remark. A line that begins with \"#\" and a key is a setting that
# has no default or must be yours: take the \"#\" away to use it. Every other line states the default,
# so it can be left out. Three things are yours to give: runtime.id, the peers and the keys.
";

/// How files, environment, units and reload work, once for both documents.
const RULES: [&str; 7] = [
    "Several files may be given (`--config a.toml --config b.yaml`): a later one wins key by key, a \
     list is replaced whole. The ending decides between TOML and YAML; YAML anchors and aliases are \
     refused.",
    "The environment wins over all files: DRIFTGATE__SECTION__KEY, for example \
     DRIFTGATE__NATS__TLS__CA_FILE. A list is written with commas. Lists of tables (peers, \
     integrity.keys) can only be given in a file.",
    "Durations: \"250ms\", \"90s\", \"5m\", \"1h\", \"2d\", or a plain number of seconds. Sizes: bytes, or \
     \"64KiB\", \"16MiB\", \"1GiB\".",
    "An unknown key is an error. `driftgate check --config FILE` names all mistakes at once. Secrets \
     come only from files; a URL that holds a password is refused.",
    "Reload (SIGHUP, or a changed file): keys marked live take effect at once, on what stands too. A \
     reload that changes any other key is refused by name and changes nothing, but for this: peers \
     and keys that it removes are removed, and what it tightens is tightened.",
    "An editor that knows JSON Schema checks the file while it is written: `driftgate schema config > \
     driftgate.schema.json`, and a first line `#:schema ./driftgate.schema.json` in TOML, or `# \
     yaml-language-server: $schema=driftgate.schema.json` in YAML.",
    "A file with a mistake changes nothing. A reload that failed stands in /readyz until one succeeds.",
];

/// `config/driftgate.toml`.
#[must_use]
pub fn example() -> String {
    let mut text = EXAMPLE_HEAD.to_owned();
    text.push_str("#\n");
    for rule in RULES {
        wrap(&mut text, "# - ", "#   ", rule);
    }
    for SectionRows { path, about, rows } in reference() {
        text.push('\n');
        wrap(&mut text, "# ", "# ", &about);
        // What is there only when it is wanted.
        let is_optional = ["ingest.tail", "containment.flapping"].contains(&path);
        let (hash, header) = match path.strip_suffix("[]") {
            Some(list) => ("#", format!("[[{list}]]")),
            None => (if is_optional { "#" } else { "" }, format!("[{path}]")),
        };
        // Writing into a String does not fail.
        let _ = writeln!(text, "{hash}{header}");
        for row in rows {
            wrap(&mut text, "# ", "# ", &remark(&row));
            let is_given = matches!(row.absent, Absent::Default(_));
            let hash = if is_given { hash } else { "#" };
            let value = row.form.toml(row.absent.value());
            let _ = writeln!(text, "{hash}{} = {value}", row.key());
        }
    }
    text
}

fn remark(row: &Row) -> String {
    let values = capitalised(&row.values);
    let absent = match row.absent {
        Absent::Default(_) => String::new(),
        Absent::Nothing(meaning, _) => format!(" Default: {meaning}."),
        Absent::Mistake(..) => " Required.".to_owned(),
    };
    let effect = row.effect.word();
    format!("{} {values}.{absent} ({effect})", row.meaning)
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// Adds a paragraph, broken between words.
fn wrap(text: &mut String, first: &str, next: &str, paragraph: &str) {
    let mut line = first.to_owned();
    let mut is_empty = true;
    for word in paragraph.split_whitespace() {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > COLUMNS_MAX {
            text.push_str(&line);
            text.push('\n');
            next.clone_into(&mut line);
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    text.push_str(&line);
    text.push('\n');
}

/// `docs/configuration.md`.
#[must_use]
pub fn manual() -> String {
    let mut text = "# Configuration\n\nEvery key, written out from the table that reads them \
                    (`src/config/settings.rs`). `config/driftgate.toml` is the same as a file to \
                    start from.\n\n"
        .to_owned();
    for rule in RULES {
        wrap(&mut text, "- ", "  ", rule);
    }
    for SectionRows { path, about, rows } in reference() {
        let header = match path.strip_suffix("[]") {
            Some(list) => format!("[[{list}]]"),
            None => format!("[{path}]"),
        };
        let _ = write!(
            text,
            "\n## `{header}`\n\n{about}\n\n| key | meaning | values | default | effect |\n|---|---|---|---|---|\n"
        );
        for row in rows {
            let default = match row.absent {
                Absent::Default(value) => format!("`{}`", row.form.toml(value)),
                Absent::Nothing(meaning, _) => meaning.to_owned(),
                Absent::Mistake(..) => "required".to_owned(),
            };
            let _ = writeln!(
                text,
                "| `{}` | {} | {} | {default} | {} |",
                row.key(),
                row.meaning,
                row.values,
                row.effect.word()
            );
        }
    }
    text
}
