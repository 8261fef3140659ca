//! The one table.

use serde_json::json;

/// A line of it: ours and the bare client's, in the same unit.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    pub(crate) ours: f64,
    pub(crate) bare: Option<f64>,
    /// CPU in microseconds for each stored packet, ours and the bare client's.
    pub(crate) cpu: Option<[f64; 2]>,
    /// Share of the packets that newer ones overtook unsent.
    pub(crate) superseded: Option<f64>,
    /// p50, p99 and p99.9 in microseconds, ours and the bare client's.
    pub(crate) times: Option<[[f64; 3]; 2]>,
}

impl Row {
    /// A figure beside another one.
    pub(crate) fn of(name: &str, unit: &'static str, ours: f64, bare: Option<f64>) -> Self {
        let name = name.to_owned();
        Self { name, unit, ours, bare, cpu: None, superseded: None, times: None }
    }

    pub(crate) fn ratio(&self) -> Option<f64> {
        self.bare.map(|bare| self.ours / bare)
    }

    fn print(&self) {
        let or_blank = |text: Option<String>| text.unwrap_or_default();
        let digits = if self.ours < 100.0 { 2 } else { 0 };
        let number = |number: f64| format!("{number:.digits$}");
        let times = |side: usize| {
            or_blank(self.times.map(|times| {
                let [p50, p99, p999] = times[side];
                format!("{p50:>7.0} {p99:>7.0} {p999:>7.0}")
            }))
        };
        let cpu = |side: usize| or_blank(self.cpu.map(|cpu| format!("{:.1}", cpu[side])));
        println!(
            "{:<31} {:<9} {:>8} {:>8} {:>5} {:>7} {:>7} {:>5} {:>5}  {:<23}  {:<23}",
            self.name,
            self.unit,
            number(self.ours),
            or_blank(self.bare.map(number)),
            or_blank(self.ratio().map(|ratio| format!("{ratio:.2}"))),
            cpu(0),
            cpu(1),
            or_blank(self.cpu.map(|[ours, bare]| format!("{:.2}", ours / bare))),
            or_blank(self.superseded.map(|share| format!("{:.0}%", share * 100.0))),
            times(0),
            times(1),
        );
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "name": self.name, "unit": self.unit, "ours": self.ours, "bare": self.bare,
            "ratio": self.ratio(), "cpu_us_per_stored": self.cpu, "superseded": self.superseded,
            "us": self.times,
        })
    }
}

/// Rows as they come, as text or as JSON lines.
pub(crate) struct Table {
    json: bool,
}

impl Table {
    pub(crate) fn begin(json: bool) -> Self {
        if !json {
            println!(
                "{:<31} {:<9} {:>8} {:>8} {:>5} {:>7} {:>7} {:>5} {:>5}  {:<23}  {:<23}",
                "",
                "unit",
                "ours",
                "bare",
                "ratio",
                "cpu us",
                "bare",
                "ratio",
                "super",
                "p50 us  p99  p99.9",
                "the bare client's"
            );
        }
        Self { json }
    }

    #[expect(clippy::needless_pass_by_value, reason = "a row is shown once")]
    pub(crate) fn add(&self, row: Row) {
        if self.json {
            println!("{}", row.json());
        } else {
            row.print();
        }
    }

    pub(crate) fn end(self) {
        if !self.json {
            println!(
                "cpu us: user and system time for each stored packet, from the process's own \
                 accounting; super: packets overtaken unsent; `bare`: what a bare async-nats client \
                 does with the same bytes, subjects and number in flight"
            );
        }
    }
}
