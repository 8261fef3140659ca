//! What the sidecar itself counts, and the exposition of everything that is counted.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::driver::Handle;
use crate::http::{Metrics, Observer};
use crate::telemetry::{Family, number};

/// Counts since the start.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Answers by route and status. Bounded by the route table.
    requests: Mutex<BTreeMap<(String, u16), u64>>,
    /// Reloads that were refused.
    pub(super) reloads_failed: AtomicU64,
}

impl Tally {
    /// Counts answers.
    pub(super) fn counting(self: &Arc<Self>) -> Observer {
        let tally = Arc::clone(self);
        Observer::new(move |route, status| {
            if let Ok(mut requests) = tally.requests.lock() {
                *requests.entry((route.to_owned(), status)).or_default() += 1;
            }
        })
    }

    /// Writes out `/metrics`.
    pub(super) fn metrics(self: &Arc<Self>, handle: &Handle) -> Metrics {
        let (handle, tally) = (handle.clone(), Arc::clone(self));
        Arc::new(move || {
            let (handle, tally) = (handle.clone(), Arc::clone(&tally));
            Box::pin(async move {
                let mut exposition = handle.books().await.ok()?.exposition();
                exposition.families.extend(tally.families());
                exposition.families.push(handle.conditions().family());
                if let Some(snapshots) = handle.snapshots() {
                    let more = snapshots.exposition();
                    exposition.families.extend(more.families);
                    exposition.distributions.extend(more.distributions);
                }
                Some(exposition.render())
            })
        })
    }

    fn families(&self) -> [Family; 2] {
        let row = |((route, status), count): (&(String, u16), &u64)| {
            (vec![route.clone(), status.to_string()], number(*count))
        };
        let rows = self.requests.lock().map(|requests| requests.iter().map(row).collect());
        let requests = Family {
            name: "http_requests",
            help: "Answers by route and status",
            labels: &["route", "status"],
            rows: rows.unwrap_or_default(),
            is_counter: true,
        };
        let help = "Attempts to reload the configuration that were refused";
        let failed = self.reloads_failed.load(Ordering::Relaxed);
        [requests, Family::counter("reload_failed", help, failed)]
    }
}
