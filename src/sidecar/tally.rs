//! What the sidecar itself counts, and the exposition of everything that is counted.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::driver::{Books, Handle};
use crate::http::{Metrics, Observer};
use crate::snapshots;
use crate::telemetry::{Conditions, Exposition, Family, number};

/// `docs/metrics.md`: what a scrape of a sidecar shows that has just begun.
#[must_use]
pub fn metrics_manual() -> String {
    let snapshots = Some(snapshots::unused_exposition());
    gathered(&Books::default(), &Tally::default(), &Conditions::new(), snapshots).manual()
}

/// Everything that is counted.
fn gathered(
    books: &Books,
    tally: &Tally,
    conditions: &Conditions,
    snapshots: Option<Exposition>,
) -> Exposition {
    let mut exposition = books.exposition();
    exposition.families.extend(tally.families());
    exposition.families.push(conditions.family());
    if let Some(more) = snapshots {
        exposition.families.extend(more.families);
        exposition.distributions.extend(more.distributions);
    }
    exposition
}

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
                let books = handle.books().await.ok()?;
                let snapshots = handle.snapshots().map(|snapshots| snapshots.exposition());
                Some(gathered(&books, &tally, handle.conditions(), snapshots).render())
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
