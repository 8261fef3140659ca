//! What the room counts, and how `/metrics` shows it. Names are part of the interface; each is
//! listed in `docs/metrics.md`.
//!
//! What deliberately is not here: the answers of the routes, which `driftgate_http_requests` has.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::spool::{SpoolEntry, State, Stored};
use super::{Pushed, Snapshots};
use strum::VariantArray as _;

use crate::protocol::envelope::{Admission, Ruling};
use crate::protocol::refusal::Refusal;
use crate::protocol::snapshot::{DeltaChain, FrameKind};
use crate::telemetry::{Condition, Distribution, Exposition, Family, Histogram, number};

/// Upper bounds of the upload-time histogram, in seconds: from one round trip on loopback to a
/// large snapshot on a slow line.
const UPLOAD_BUCKETS_S: [f64; 10] = [0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 30.0, 120.0, 600.0];

/// Counts since the start of the sidecar.
#[derive(Debug)]
pub(super) struct Counts(Mutex<Tally>);

#[derive(Clone, Debug)]
struct Tally {
    accepted: u64,
    unchanged: u64,
    /// By the last word of the problem's type. Bounded by the table of problems.
    refused: BTreeMap<&'static str, u64>,
    full: Uploaded,
    delta: Uploaded,
    upload_failed: u64,
    upload_times: Histogram,
    /// Objects and bytes of our chain in the bucket; known once it was read or written.
    stored: Option<(u64, u64)>,
    fetched: u64,
    fetched_bytes: u64,
    /// By kind of fault.
    fetch_failed: BTreeMap<&'static str, u64>,
    /// Verdicts on snapshots of peers.
    judged: BTreeMap<Ruling, u64>,
    /// Of those that were taken, the ones whose provenance was signed.
    enclosed: u64,
    collected: u64,
    restarts: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Uploaded {
    objects: u64,
    bytes: u64,
}

impl Counts {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Tally {
            accepted: 0,
            unchanged: 0,
            refused: BTreeMap::new(),
            full: Uploaded::default(),
            delta: Uploaded::default(),
            upload_failed: 0,
            upload_times: Histogram::new(UPLOAD_BUCKETS_S),
            stored: None,
            fetched: 0,
            fetched_bytes: 0,
            fetch_failed: BTreeMap::new(),
            judged: BTreeMap::new(),
            enclosed: 0,
            collected: 0,
            restarts: 0,
        }))
    }

    pub(super) fn pushed(&self, pushed: &Pushed) {
        let mut tally = self.tally();
        match pushed {
            Pushed::Spooled(_) | Pushed::Stored(..) => tally.accepted += 1,
            Pushed::Unchanged(_) => tally.unchanged += 1,
        }
    }

    pub(super) fn refused(&self, reason: &'static str) {
        *self.tally().refused.entry(reason).or_default() += 1;
    }

    pub(super) fn uploaded(&self, stored: &Stored, took: Duration) {
        let mut tally = self.tally();
        let uploaded = match stored.kind {
            FrameKind::Delta => &mut tally.delta,
            FrameKind::Full => &mut tally.full,
        };
        uploaded.objects += 1;
        uploaded.bytes = uploaded.bytes.saturating_add(stored.stored_bytes);
        tally.upload_times.observe(took.as_secs_f64());
    }

    pub(super) fn upload_failed(&self) {
        self.tally().upload_failed += 1;
    }

    pub(super) fn collected(&self) {
        self.tally().collected += 1;
    }

    /// What the bucket holds of ours now.
    pub(super) fn stored(&self, chain: &DeltaChain) {
        let (objects, bytes) =
            chain.entries().fold((0, 0), |(objects, bytes): (u64, u64), entry| {
                (objects + 1, bytes.saturating_add(entry.stored))
            });
        self.tally().stored = Some((objects, bytes));
    }

    /// Their stored bytes, as far as that is known.
    pub(super) fn stored_bytes(&self) -> u64 {
        self.tally().stored.map_or(0, |(_, bytes)| bytes)
    }

    /// The worker has panicked.
    pub(super) fn restarted(&self) {
        self.tally().restarts += 1;
    }

    pub(super) fn fetched(&self, plain_bytes: u64) {
        let mut tally = self.tally();
        tally.fetched += 1;
        tally.fetched_bytes = tally.fetched_bytes.saturating_add(plain_bytes);
    }

    /// A peer's snapshot was asked for, and judged.
    pub(super) fn judged(&self, verdict: Result<&Admission, &Refusal>) {
        let mut tally = self.tally();
        let ruling = match verdict {
            Ok(admission) => {
                tally.enclosed += u64::from(admission.drift_source.is_some());
                admission.verdict
            }
            Err(refusal) => Ruling::of(refusal.fault),
        };
        *tally.judged.entry(ruling).or_default() += 1;
    }

    pub(super) fn fetch_failed(&self, reason: &'static str) {
        *self.tally().fetch_failed.entry(reason).or_default() += 1;
    }

    /// The counts. A thread that panicked while it held them left plain values behind.
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Snapshots {
    /// A push was refused; `reason` is one of a closed set of words.
    pub fn count_refused(&self, reason: &'static str) {
        if reason == "spool-full" {
            let text = "a push was refused with 507";
            self.shared.settings.conditions.begin(Condition::SpoolFull, text);
        }
        self.shared.counts.refused(reason);
    }

    /// What `/metrics` shows of snapshots.
    #[must_use]
    pub fn exposition(&self) -> Exposition {
        let tally = self.shared.counts.tally().clone();
        let spool = self.shared.spool().ok();
        let revoked = spool.as_ref().map_or(0, |spool| spool.revoked());
        let spool = spool.map(|spool| {
            let bytes_max = self.shared.settings.spool_bytes_max;
            spool_families(&spool.entries(), spool.used(), bytes_max, spool.damaged().len())
        });
        tally.exposition(revoked, spool)
    }
}

/// The same of a room that nothing has happened in.
#[must_use]
pub fn unused_exposition() -> Exposition {
    Counts::new().tally().clone().exposition(0, Some(spool_families(&[], 0, 0, 0)))
}

impl Tally {
    /// `spool` is absent while it cannot be read.
    fn exposition(self, revoked: u64, spool: Option<Vec<Family>>) -> Exposition {
        let mut families = self.families();
        families.extend(self.fetches());
        families.extend(self.exchanges());
        families.push(Family::counter(
            "snapshot_revoked",
            "Snapshots that a closing gate kept from being sent",
            revoked,
        ));
        families.push(Family::counter(
            "snapshot_worker_restarts",
            "Panics of the task that talks to the bucket",
            self.restarts,
        ));
        families.extend(spool.into_iter().flatten());
        let distributions = vec![Distribution {
            name: "snapshot_upload_seconds",
            help: "From the first chunk of an object to its last acknowledgement",
            histogram: self.upload_times,
        }];
        Exposition { families, distributions }
    }

    fn families(&self) -> Vec<Family> {
        let by_kind = |of: fn(&Uploaded) -> u64| {
            [(FrameKind::Full, &self.full), (FrameKind::Delta, &self.delta)]
                .map(|(kind, uploaded)| (vec![kind.word().to_owned()], of(uploaded)))
                .into_iter()
        };
        let known = |of: fn((u64, u64)) -> u64| {
            self.stored.map(|stored| (Vec::new(), number(of(stored)))).into_iter().collect()
        };
        vec![
            Family::counter("snapshot_accepted", "Pushes taken onto the disk", self.accepted),
            Family::counter(
                "snapshot_unchanged",
                "Pushes with the bytes of the newest snapshot",
                self.unchanged,
            ),
            Family::counters(
                "snapshot_refused",
                "Refused pushes by reason, the last word of the problem's type",
                &["reason"],
                by_reason(&self.refused),
            ),
            Family::counters(
                "snapshot_uploaded_objects",
                "Objects put into the bucket",
                &["kind"],
                by_kind(|uploaded| uploaded.objects),
            ),
            Family::counters(
                "snapshot_uploaded_bytes",
                "Stored bytes put into the bucket",
                &["kind"],
                by_kind(|uploaded| uploaded.bytes),
            ),
            Family::counter(
                "snapshot_upload_failures",
                "Attempts to upload that failed and are made again",
                self.upload_failed,
            ),
            Family::gauges(
                "snapshot_stored_objects",
                "Our objects in the bucket, once that is known",
                &[],
                known(|(objects, _)| objects),
            ),
            Family::gauges(
                "snapshot_stored_bytes",
                "Bytes of our objects in the bucket, once that is known",
                &[],
                known(|(_, bytes)| bytes),
            ),
            Family::counter(
                "snapshot_collected",
                "Objects that retention let go of",
                self.collected,
            ),
        ]
    }

    fn fetches(&self) -> [Family; 3] {
        [
            Family::counter("snapshot_fetched", "Snapshots fetched and verified", self.fetched),
            Family::counter(
                "snapshot_fetched_bytes",
                "Plain bytes of the snapshots fetched",
                self.fetched_bytes,
            ),
            Family::counters(
                "snapshot_fetch_failures",
                "Fetches that gave no snapshot",
                &["reason"],
                by_reason(&self.fetch_failed),
            ),
        ]
    }
}

impl Tally {
    /// The same rates for snapshots as for packets.
    fn exchanges(&self) -> [Family; 2] {
        let count = |ruling: &Ruling| self.judged.get(ruling).copied().unwrap_or(0);
        let taken = count(&Ruling::Accept) + count(&Ruling::Narrow);
        let provenance =
            [("signed", self.enclosed), ("unsigned", taken.saturating_sub(self.enclosed))];
        [
            Family::counters(
                "snapshot_exchanges",
                "Snapshots of peers that were asked for by what became of them",
                &["verdict"],
                Ruling::VARIANTS.iter().map(|ruling| (vec![ruling.word().into()], count(ruling))),
            ),
            Family::counters(
                "snapshot_exchange_provenance",
                "Snapshots of peers that were taken by whether their provenance is signed",
                &["provenance"],
                provenance.into_iter().map(|(word, count)| (vec![word.into()], count)),
            ),
        ]
    }
}

fn by_reason(counts: &BTreeMap<&'static str, u64>) -> impl Iterator<Item = (Vec<String>, u64)> {
    counts.iter().map(|(reason, count)| (vec![(*reason).to_owned()], *count))
}

fn spool_families(
    entries: &[SpoolEntry],
    used: u64,
    bytes_max: u64,
    damaged: usize,
) -> Vec<Family> {
    let count = |is_it: fn(&State) -> bool| {
        let count = entries.iter().filter(|entry| is_it(&entry.state)).count();
        number(u64::try_from(count).unwrap_or(u64::MAX))
    };
    let rows = vec![
        (vec!["stored".to_owned()], count(State::is_stored)),
        (vec!["unsent".to_owned()], count(|state| *state == State::Unsent)),
        (vec!["revoked".to_owned()], count(|state| *state == State::Revoked)),
    ];
    let damaged = number(u64::try_from(damaged).unwrap_or(u64::MAX));
    vec![
        Family::gauge("snapshot_spool_bytes", "Bytes that the spool holds", number(used)),
        Family::gauge(
            "snapshot_spool_bytes_max",
            "Bytes that the spool may hold",
            number(bytes_max),
        ),
        Family::gauges("snapshot_spool_entries", "Snapshots in the spool", &["state"], rows),
        Family::gauge(
            "snapshot_spool_damaged",
            "Spooled snapshots found damaged since the start",
            damaged,
        ),
    ]
}
