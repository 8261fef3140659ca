//! The exposition of `/metrics`, read back.

use std::collections::BTreeMap;

/// Samples by name without `driftgate_` and `_total`.
#[derive(Clone, Debug)]
pub(crate) struct Books(Vec<(String, BTreeMap<String, String>, f64)>);

impl Books {
    pub(crate) fn read(text: &str) -> Self {
        let samples = text.lines().filter(|line| !line.starts_with('#')).map(sample).collect();
        Self(samples)
    }

    /// Sum of the samples of `name` that bear all these labels. Counts are whole.
    #[expect(clippy::cast_possible_truncation, clippy::as_conversions, reason = "counts are small")]
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> i64 {
        self.select(name, labels).sum::<f64>().round() as i64
    }

    /// The samples of `name` that bear all these labels.
    pub(crate) fn select(&self, name: &str, labels: &[(&str, &str)]) -> impl Iterator<Item = f64> {
        self.0
            .iter()
            .filter(move |(found, have, _)| {
                found == name
                    && labels.iter().all(|(key, word)| have.get(*key).is_some_and(|is| is == word))
            })
            .map(|(_, _, number)| *number)
    }

    /// P8: every report of every target is in exactly one column.
    pub(crate) fn check(&self) {
        assert_eq!(self.sum("books_balanced", &[]), 1, "{self:?}");
        let targets = self.0.iter().filter(|(name, ..)| name == "target_reports");
        for (_, labels, reports) in targets {
            let of = [("target", labels["target"].as_str())];
            let ended = self.sum("packets", &of) + self.sum("packets_pending", &of);
            assert_eq!(self.sum("target_reports", &of), ended, "{reports} at {of:?}: {self:?}");
        }
    }

    /// Packets that ended so.
    pub(crate) fn packets(&self, status: &str) -> i64 {
        self.sum("packets", &[("status", status)])
    }
}

fn sample(line: &str) -> (String, BTreeMap<String, String>, f64) {
    let (head, number) = line.rsplit_once(' ').expect("a name and a number");
    let (name, labels) = head.split_once('{').unwrap_or((head, "}"));
    let labels = labels.trim_end_matches('}').split(',').filter_map(|label| {
        let (key, word) = label.split_once('=')?;
        Some((key.to_owned(), word.trim_matches('"').to_owned()))
    });
    let name = name.trim_start_matches("driftgate_").trim_end_matches("_total");
    (name.to_owned(), labels.collect(), number.parse().expect("a number"))
}
