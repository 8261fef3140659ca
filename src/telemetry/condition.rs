//! What weakens a promise at present: one table for the whole sidecar.
//!
//! Whoever finds a condition sets it and, when it has passed, clears it. The table does the rest:
//! one log line when a condition begins and one when it ends, a string in `degraded[]` of
//! `/readyz`, and `driftgate_degraded{code}`. Each condition has one owner; what each of them means
//! and what to do stands in `docs/operations.md`, which a test keeps in step.
//!
//! Texts hold words of ours, of the operating system and of the broker, never what a runtime said.

use std::collections::BTreeMap;

use strum::IntoEnumIterator as _;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Family;

/// Texts that one condition shows; of more it says how many.
pub const TEXTS_MAX: usize = 8;

/// What can be weakened. The word of each is its name in `snake_case`.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, strum::EnumIter, strum::IntoStaticStr,
)]
#[strum(serialize_all = "snake_case")]
pub enum Condition {
    /// Events have no line in the audit log.
    AuditLost,
    /// The audit log cannot be written.
    AuditUnwritable,
    /// A stream, consumer or bucket is absent or differs from what the configuration promises.
    BrokerAssets,
    /// The broker complains about this connection.
    BrokerComplains,
    /// There is no connection to the broker.
    BrokerUnreachable,
    /// What stands under our name in the capabilities bucket is not of our making.
    CapabilitiesForeign,
    /// The address of the console is taken or cannot be had.
    ConsoleUnbound,
    /// The capabilities of peers cannot be read, or their bucket is not as it should be.
    CapabilitiesUnread,
    /// The wall clock jumped.
    ClockJumped,
    /// The configuration says what is allowed and probably not meant.
    Configuration,
    /// The runtime does not take what is delivered to it.
    DeliveryFailed,
    /// The feed of reports that the sidecar follows or polls is broken.
    FeedBroken,
    /// Peers are not heard until the clock, which was set back, has passed their newest packets.
    FloorAhead,
    /// The hold file cannot be looked at.
    HoldFileUnseen,
    /// A manifest under our name has a number that no clock has reached.
    ManifestAhead,
    /// A manifest under our name is not signed with our key.
    ManifestForeign,
    /// What was kept of the last run was damaged, and the safe reading of it is in force.
    MemoryDamaged,
    /// What has to survive a restart cannot be written.
    MemoryUnwritable,
    /// A packet of a peer, or one in its name, does not verify under the peer's key.
    PeerKey,
    /// The entry under our name in the bucket of presence is not signed with our key.
    PresenceForeign,
    /// The broker does not take our presence.
    PresenceUnwritten,
    /// The broker refuses what is published.
    PublishRefused,
    /// The broker does not answer what is published.
    PublishUnanswered,
    /// Inbound packets cannot be fetched.
    PullFailed,
    /// The quarantine stream does not take refused packets.
    QuarantineRefused,
    /// The newest change of the configuration was not taken over.
    ReloadFailed,
    /// A snapshot on the disk is not what was accepted.
    SnapshotDamaged,
    /// A revocation of a snapshot is not on the disk.
    SnapshotUnrevoked,
    /// A snapshot that was promised cannot be uploaded for a reason of ours.
    SnapshotWaiting,
    /// The task that uploads snapshots has failed.
    SnapshotWorker,
    /// The snapshots' disk or its allowance is full.
    SpoolFull,
    /// The snapshots' folder cannot be used.
    SpoolUnusable,
    /// A stream of ours was made again: what it held is gone.
    StreamRemade,
    /// The operating system gives no thread or no socket for the connection.
    ThreadMissing,
    /// Another sidecar has the name of our runtime.
    Twin,
}

impl Condition {
    /// The word before the colon, and the label of the metric.
    #[must_use]
    pub fn code(self) -> &'static str {
        self.into()
    }
}

/// One condition that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Standing {
    texts: Vec<String>,
    since: Instant,
}

/// What a call changed, for the log.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    Begun(String),
    Altered,
    Ended(Instant),
}

/// The table. Cheap to clone; all clones are one table.
#[derive(Clone, Debug)]
pub struct Conditions(watch::Sender<BTreeMap<Condition, Standing>>);

impl Conditions {
    /// A table in which nothing holds.
    #[must_use]
    pub fn new() -> Self {
        Self(watch::Sender::new(BTreeMap::new()))
    }

    /// The condition holds, for the reason that `text` gives. Said again with another text it is
    /// the same condition.
    pub fn begin(&self, condition: Condition, text: impl Into<String>) {
        self.set(condition, vec![text.into()]);
    }

    /// The condition has passed.
    pub fn end(&self, condition: Condition) {
        self.set(condition, Vec::new());
    }

    /// The condition holds for each of these reasons, and for no other; without one it has passed.
    pub fn set(&self, condition: Condition, mut texts: Vec<String>) {
        if texts.is_empty() && !self.holds(condition) {
            return;
        }
        if texts.len() > TEXTS_MAX {
            let more = texts.len() - TEXTS_MAX;
            texts.truncate(TEXTS_MAX);
            texts.push(format!("and {more} more"));
        }
        let mut change = None;
        self.0.send_if_modified(|table| {
            change = alter(table, condition, texts);
            change.is_some()
        });
        let code = condition.code();
        match change {
            Some(Change::Begun(text)) => tracing::warn!(code, text, "a promise is weakened"),
            Some(Change::Ended(since)) => {
                let seconds = since.elapsed().as_secs();
                tracing::info!(code, seconds, "a promise holds again");
            }
            Some(Change::Altered) | None => {}
        }
    }

    /// Whether the condition holds.
    #[must_use]
    pub fn holds(&self, condition: Condition) -> bool {
        self.0.borrow().contains_key(&condition)
    }

    /// Whether the condition holds for this reason.
    #[must_use]
    pub fn says(&self, condition: Condition, text: &str) -> bool {
        let table = self.0.borrow();
        table.get(&condition).is_some_and(|standing| standing.texts.iter().any(|own| own == text))
    }

    /// `degraded[]` of `/readyz`: `code: text`, in the order of the codes.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let table = self.0.borrow();
        let line = |condition: Condition, text: &String| format!("{}: {text}", condition.code());
        table
            .iter()
            .flat_map(|(condition, standing)| {
                standing.texts.iter().map(|text| line(*condition, text))
            })
            .collect()
    }

    /// The metric: 1 for each condition that holds, 0 for each that does not.
    #[must_use]
    pub fn family(&self) -> Family {
        let table = self.0.borrow();
        let row = |condition: Condition| {
            let value = if table.contains_key(&condition) { 1.0 } else { 0.0 };
            (vec![condition.code().to_owned()], value)
        };
        let rows = Condition::iter().map(row).collect();
        Family::gauges("degraded", "1 while the condition weakens a promise", &["code"], rows)
    }
}

impl Default for Conditions {
    fn default() -> Self {
        Self::new()
    }
}

fn alter(
    table: &mut BTreeMap<Condition, Standing>,
    condition: Condition,
    texts: Vec<String>,
) -> Option<Change> {
    let Some(first) = texts.first() else {
        return table.remove(&condition).map(|standing| Change::Ended(standing.since));
    };
    match table.get_mut(&condition) {
        None => {
            let begun = Change::Begun(first.clone());
            table.insert(condition, Standing { texts, since: Instant::now() });
            Some(begun)
        }
        Some(standing) if standing.texts == texts => None,
        Some(standing) => {
            standing.texts = texts;
            Some(Change::Altered)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_one_whatever_its_text_and_ends_once() {
        let conditions = Conditions::new();
        let same = conditions.clone();
        conditions.begin(Condition::PublishRefused, "stream full");
        same.begin(Condition::PublishRefused, "no stream");
        assert_eq!(conditions.lines(), ["publish_refused: no stream"]);
        same.end(Condition::PublishRefused);
        same.end(Condition::PublishRefused);
        assert_eq!(conditions.lines(), <[&str; 0]>::default());
    }

    #[test]
    fn begin_and_end_are_told_apart_from_a_new_text() {
        let mut table = BTreeMap::new();
        let mut set = |texts: &[&str]| {
            let texts = texts.iter().map(|text| (*text).to_owned()).collect();
            alter(&mut table, Condition::PullFailed, texts)
        };
        assert_eq!(set(&["one"]), Some(Change::Begun("one".to_owned())));
        assert_eq!(set(&["one"]), None);
        assert_eq!(set(&["two"]), Some(Change::Altered));
        assert!(matches!(set(&[]), Some(Change::Ended(_))));
        assert_eq!(set(&[]), None);
    }

    #[test]
    fn more_texts_than_there_is_room_for_are_counted() {
        let conditions = Conditions::new();
        let texts = (0..TEXTS_MAX + 3).map(|number| format!("{number}")).collect();
        conditions.set(Condition::SnapshotDamaged, texts);
        let lines = conditions.lines();
        assert_eq!(lines.len(), TEXTS_MAX + 1);
        assert_eq!(lines.last().map(String::as_str), Some("snapshot_damaged: and 3 more"));
    }

    #[test]
    fn the_operations_guide_has_a_section_for_every_code_and_no_other() {
        let guide = include_str!("../../docs/operations.md");
        let (conditions, _alerts) = guide.split_once("\n## Alerts\n").expect("both parts");
        let headings = conditions.lines().filter_map(|line| line.strip_prefix("### "));
        let mut documented: Vec<&str> = headings.map(|code| code.trim_matches('`')).collect();
        documented.sort_unstable();
        let mut codes: Vec<_> = Condition::iter().map(Condition::code).collect();
        codes.sort_unstable();
        assert_eq!(documented, codes);
    }

    #[test]
    fn the_metric_has_a_row_for_every_code() {
        let conditions = Conditions::new();
        conditions.begin(Condition::SpoolFull, "full");
        let rows = conditions.family().rows;
        assert_eq!(rows.len(), Condition::iter().count());
        let standing: Vec<_> = rows.iter().filter(|(_, value)| *value > 0.5).collect();
        assert_eq!(standing.len(), 1);
        assert_eq!(standing[0].0, ["spool_full"]);
    }
}
