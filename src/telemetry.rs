//! Log lines, metric names and live events. None ever carries what a runtime said (P9).

use std::fmt::Write as _;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{self, SubscriberInitExt as _};
use tracing_subscriber::{Layer as _, fmt, reload};

pub use condition::{Condition, Conditions};
pub use feed::{EventId, Feed, Start};
pub use prometheus_client::metrics::histogram::Histogram;

pub mod condition;
pub mod feed;
mod manual;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// One line of text.
    Text,
}

/// Logging was started before.
#[derive(Debug, thiserror::Error)]
#[error("the log: {0}")]
pub struct LogFault(#[from] util::TryInitError);

/// Changes how much is logged, for all of the process.
#[derive(Clone, Debug)]
pub struct LogLevel(reload::Handle<Targets, tracing_subscriber::Registry>);

impl LogLevel {
    /// Logs this much from now on.
    pub fn set(&self, level: Level) {
        // It fails only when the subscriber is gone, and then there is no log.
        drop(self.0.reload(targets(level)));
    }
}

/// Starts logging to standard error.
///
/// # Errors
/// [`LogFault`] when logging was started before.
pub fn start_log(level: Level, format: LogFormat, has_colours: bool) -> Result<LogLevel, LogFault> {
    let (filter, handle) = reload::Layer::new(targets(level));
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(false);
    let lines = match format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        LogFormat::Text => lines.with_ansi(has_colours).boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines).try_init()?;
    Ok(LogLevel(handle))
}

/// The broker client's own lines are about its internals; what matters of them comes as events.
fn targets(level: Level) -> Targets {
    Targets::new().with_default(level).with_target("async_nats", LevelFilter::OFF)
}

/// One labelled family of the exposition: name, help, label name, and its values.
#[derive(Debug)]
pub struct Family {
    /// Metric name without the `driftgate_` prefix.
    pub name: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// Label names; as many as each row has words.
    pub labels: &'static [&'static str],
    /// Label values and value.
    pub rows: Vec<(Vec<String>, f64)>,
    /// Whether it only ever rises.
    pub is_counter: bool,
}

/// A distribution in seconds.
#[derive(Debug)]
pub struct Distribution {
    /// Metric name without the `driftgate_` prefix.
    pub name: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// What was observed since the start: like every counter, it only ever rises.
    pub histogram: Histogram,
}

/// Everything that one scrape shows.
#[derive(Debug, Default)]
pub struct Exposition {
    /// Counters and gauges.
    pub families: Vec<Family>,
    /// Histograms.
    pub distributions: Vec<Distribution>,
}

impl Exposition {
    /// The OpenMetrics text.
    #[must_use]
    pub fn render(self) -> String {
        let mut registry = Registry::with_prefix("driftgate");
        for distribution in &self.distributions {
            let histogram = distribution.histogram.clone();
            registry.register(distribution.name, distribution.help, histogram);
        }
        registry.register_collector(Box::new(Families(self.families)));
        let mut output = String::new();
        if text::encode(&mut output, &registry).is_err() {
            // Writing into a String does not fail; should a label ever be unencodable, say so.
            let _ = writeln!(output, "# exposition failed");
        }
        output
    }
}

#[derive(Debug)]
struct Families(Vec<Family>);

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        for family in &self.0 {
            let kind = if family.is_counter { MetricType::Counter } else { MetricType::Gauge };
            let mut metric = encoder.encode_descriptor(family.name, family.help, None, kind)?;
            for (words, number) in &family.rows {
                if family.labels.is_empty() {
                    // As a family, an empty label set would be written as `{}`.
                    family.encode(&mut metric, *number)?;
                    continue;
                }
                let labels: Vec<(&str, &str)> =
                    family.labels.iter().copied().zip(words.iter().map(String::as_str)).collect();
                family.encode(&mut metric.encode_family(&labels)?, *number)?;
            }
        }
        Ok(())
    }
}

/// A count as a metric value. Counts fit an f64 exactly up to 2^53; no counter here gets there.
#[expect(clippy::cast_precision_loss, clippy::as_conversions, reason = "exact up to 2^53")]
#[must_use]
pub fn number(count: u64) -> f64 {
    count as f64
}

impl Family {
    /// One number that only rises.
    #[must_use]
    pub fn counter(name: &'static str, help: &'static str, count: u64) -> Self {
        let rows = vec![(Vec::new(), number(count))];
        Self { name, help, labels: &[], rows, is_counter: true }
    }

    /// Several, by label.
    #[must_use]
    pub fn counters(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
        rows: impl Iterator<Item = (Vec<String>, u64)>,
    ) -> Self {
        let rows = rows.map(|(words, count)| (words, number(count))).collect();
        Self { name, help, labels, rows, is_counter: true }
    }

    /// One number that rises and falls.
    #[must_use]
    pub fn gauge(name: &'static str, help: &'static str, value: f64) -> Self {
        Self { name, help, labels: &[], rows: vec![(Vec::new(), value)], is_counter: false }
    }

    /// Several, by label.
    #[must_use]
    pub fn gauges(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
        rows: Vec<(Vec<String>, f64)>,
    ) -> Self {
        Self { name, help, labels, rows, is_counter: false }
    }

    fn encode(&self, row: &mut MetricEncoder<'_>, number: f64) -> Result<(), std::fmt::Error> {
        if self.is_counter {
            row.encode_counter::<NoLabelSet, _, f64>(&number, None)
        } else {
            row.encode_gauge(&number)
        }
    }
}
