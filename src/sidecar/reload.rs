//! A changed configuration, taken over by a running sidecar: as a whole, or nothing of it but what
//! removes and tightens.

use std::sync::atomic::Ordering;

use super::{Sidecar, Stopping, manifest, room};
use crate::config::{Config, Mistakes, Reload};
use crate::telemetry::Condition;

/// Most mistakes that `/readyz` lists, without their values; `driftgate check` lists them all.
const MISTAKES_SHOWN_MAX: usize = 3;

impl Sidecar {
    /// Takes over what `read` brings in place of `current`. Returns what is in force from now on,
    /// `None` when that is still `current`. A failure stands in `/readyz` until a later reload
    /// succeeds, and is counted.
    ///
    /// Everything that can fail has been done before anything changes: what was read is a whole
    /// configuration, and the driver takes it or is gone.
    ///
    /// # Errors
    /// [`Stopping`]: the driver is gone, and nothing has changed.
    pub async fn reload(
        &self,
        current: &Config,
        read: Result<Config, Mistakes>,
    ) -> Result<Option<Config>, Stopping> {
        let (next, fault) = match read.map(|next| current.reload(next)) {
            Err(mistakes) => (None, Some(shown(&mistakes))),
            Ok(Reload::Taken(next)) => (Some(next), None),
            Ok(Reload::Refused { keys, tightened }) => {
                let keys = keys.join(", ");
                let text = format!("takes a restart: {keys}; only what tightens is in force");
                (Some(tightened), Some(text))
            }
        };
        let next = next.filter(|next| **next != *current);
        if let Some(next) = &next {
            self.handle.reload(manifest::live(next)).await.map_err(|_| Stopping)?;
            if let Some(snapshots) = self.handle.snapshots() {
                snapshots.reload(room::trust(next));
            }
        }
        match fault {
            Some(text) => {
                self.tally.reloads_failed.fetch_add(1, Ordering::Relaxed);
                self.handle.conditions().begin(Condition::ReloadFailed, text);
            }
            None => self.handle.conditions().end(Condition::ReloadFailed),
        }
        Ok(next.map(|next| *next))
    }
}

fn shown(mistakes: &Mistakes) -> String {
    let listed = mistakes.listed().iter().take(MISTAKES_SHOWN_MAX);
    let listed: Vec<String> =
        listed.map(|mistake| format!("{}: {}", mistake.key, mistake.problem)).collect();
    match mistakes.count().saturating_sub(listed.len()) {
        0 => listed.join("; "),
        more => format!("{}; and {more} more", listed.join("; ")),
    }
}
