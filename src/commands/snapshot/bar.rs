//! A progress bar: one line on standard error where that is a terminal, and nothing elsewhere.

use std::pin::pin;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::timeout;

/// Five pictures a second: as fast as a human reads.
const DRAW_INTERVAL: Duration = Duration::from_millis(200);
/// Nobody waits longer than this, or twice this, for a byte or an answer. The sidecar itself gives
/// up a fetch after 60 s.
const STALL_TIMEOUT: Duration = Duration::from_secs(90);
/// While it is not known how much there will be.
const OPEN_END: &str = "{msg}  {bytes}  {bytes_per_sec}  {elapsed}";
const BAR: &str =
    "{msg}  [{bar:24}] {percent:>3} %  {bytes} of {total_bytes}  {bytes_per_sec}  {eta} left";

/// How far one piece of work is.
#[derive(Debug)]
pub(super) struct Meter {
    bar: ProgressBar,
}

impl Meter {
    pub(super) fn new(label: &'static str) -> Self {
        let bar = ProgressBar::no_length().with_message(label);
        bar.set_style(style(OPEN_END));
        Self { bar }
    }

    /// So many bytes there will be.
    pub(super) fn set_total(&self, total: u64) {
        self.bar.set_length(total);
        self.bar.set_style(style(BAR));
    }

    /// So many bytes are there.
    pub(super) fn set(&self, done: u64) {
        self.bar.set_position(done);
    }

    /// So many bytes more.
    pub(super) fn add(&self, more: usize) {
        self.bar.inc(u64::try_from(more).unwrap_or(u64::MAX));
    }

    /// Does `work`, and draws how far it is meanwhile.
    pub(super) async fn drawn<T>(&self, work: impl Future<Output = T>) -> T {
        self.bar.enable_steady_tick(DRAW_INTERVAL);
        let outcome = work.await;
        self.bar.finish_and_clear();
        outcome
    }

    /// Does `work`; `None` when nothing has moved for too long.
    pub(super) async fn unless_stalled<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        let mut seen = self.bar.position();
        loop {
            match timeout(STALL_TIMEOUT, &mut work).await {
                Ok(outcome) => return Some(outcome),
                Err(_) if self.bar.position() == seen => return None,
                Err(_) => seen = self.bar.position(),
            }
        }
    }
}

/// A template of ours, which a test draws; what it says if that were broken is the default.
fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template);
    style.map_or_else(|_| ProgressStyle::default_bar(), |style| style.progress_chars("##-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_templates_can_be_drawn() {
        for template in [OPEN_END, BAR] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }

    #[tokio::test]
    async fn what_moves_is_counted_where_no_bar_is_drawn() {
        let meter = Meter::new("put");
        meter.set_total(8);
        meter.add(3);
        meter.set(5);
        assert_eq!(
            meter.drawn(meter.unless_stalled(async { meter.bar.position() })).await,
            Some(5)
        );
        assert_eq!(meter.bar.length(), Some(8));
    }
}
