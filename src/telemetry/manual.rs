//! `docs/metrics.md`, written out from the metrics themselves, so that it cannot lag behind them.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::{Exposition, Family};

/// Words of a label up to which they are listed.
const WORDS_MAX: usize = 8;

const HEAD: &str = "\
# Metrics

Written out by `make documents`; do not edit. `GET /metrics` of the admin listener shows these, in
OpenMetrics text. Names and labels are part of the interface: new ones are added, none is renamed. Counters
begin at 0 with the process; of at most 100 targets or peers each has a label of its own, what there are
more is added up under `other`. A family without a row yet shows its name, type and meaning alone.

No metric holds a word of what a runtime said. What wakes somebody stands in
`deploy/prometheus/driftgate-rules.yaml`, each alert with its entry in [operations.md](operations.md); the
dashboard is `deploy/grafana/driftgate.json`.

| metric | type | unit | labels | meaning |
|---|---|---|---|---|
";

impl Exposition {
    /// The page on everything that is shown here.
    #[must_use]
    pub fn manual(&self) -> String {
        let mut lines: Vec<String> = self.families.iter().map(line).collect();
        lines.extend(self.distributions.iter().map(|distribution| {
            let (name, help) = (distribution.name, distribution.help);
            format!("| `driftgate_{name}` | histogram | seconds | | {help} |")
        }));
        lines.sort();
        let mut page = HEAD.to_owned();
        for line in lines {
            // Writing into a String does not fail.
            let _ = writeln!(page, "{line}");
        }
        page
    }
}

fn line(family: &Family) -> String {
    let (kind, end) = if family.is_counter { ("counter", "_total") } else { ("gauge", "") };
    let labels: Vec<_> =
        (0..).zip(family.labels).map(|(at, name)| label(family, at, name)).collect();
    let labels = labels.join("; ");
    let space = if labels.is_empty() { "" } else { " " };
    let Family { name, help, .. } = family;
    format!("| `driftgate_{name}{end}` | {kind} | {} |{space}{labels} | {help} |", unit(name))
}

/// A label, and its words where they are few and known from the start.
fn label(family: &Family, at: usize, name: &str) -> String {
    let words: BTreeSet<&String> =
        family.rows.iter().filter_map(|(words, _)| words.get(at)).collect();
    if words.is_empty() || words.len() > WORDS_MAX || name == "version" {
        return format!("`{name}`");
    }
    let words: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
    format!("`{name}`: {}", words.join(", "))
}

/// As the name says it: a metric of time or bytes ends so, the others count or are a ratio.
fn unit(name: &str) -> &'static str {
    if name.ends_with("_seconds") {
        "seconds"
    } else if name.trim_end_matches("_max").ends_with("_bytes") {
        "bytes"
    } else {
        "1"
    }
}
