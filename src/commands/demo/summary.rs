//! The accounts at the end: what every report became, what crossed, who received it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::observer::Observed;
use super::promise::{Outcome, Promise};
use crate::driver::Books;
use crate::nats::child::Monitor;
use crate::protocol::gate::Band;
use crate::protocol::outbox::Ledger;

/// Width of a promise's name with its dots.
const NAME_COLUMNS: usize = 20;

/// One sidecar's account.
#[derive(Clone, Debug)]
pub(super) struct Account {
    pub(super) id: String,
    /// Reports that its runtime got a verdict for.
    reports: u64,
    targets: u64,
    /// Over all targets.
    ledger: Ledger,
    /// Different packets of it that the observer saw.
    seen: u64,
    /// Packets that it accepted from its peers.
    received: u64,
    /// What its peers had stored for it.
    owed: u64,
    /// Of what it did not receive, how much the server still holds for it.
    waiting: u64,
    /// Isolated, it takes nothing; what waits for it then waits for good.
    is_isolated: bool,
}

/// Draws up the accounts. `books` holds each sidecar's id, reports with a verdict and books;
/// `waiting` is what [`waiting`] found.
pub(super) fn accounts(
    books: &[(String, u64, Books)],
    seen: &Observed,
    waiting: &BTreeMap<String, u64>,
) -> Vec<Account> {
    let owed = |id: &str| -> u64 {
        let ledgers = books.iter().flat_map(|(_, _, books)| &books.ledgers);
        ledgers.filter(|(target, _)| target.as_str() == id).map(|(_, ledger)| ledger.stored).sum()
    };
    let account = |(id, reports, books): &(String, u64, Books)| {
        let (owed, received) = (owed(id), books.counters.accepted);
        let waiting = waiting.get(id).copied().unwrap_or(0);
        Account {
            id: id.clone(),
            reports: *reports,
            targets: u64::try_from(books.ledgers.len()).unwrap_or(u64::MAX),
            ledger: total(books.ledgers.iter().map(|(_, ledger)| ledger)),
            seen: seen.from(id),
            received,
            owed,
            // Of what the server waits for, it may be only the acknowledgement that is missing.
            waiting: waiting.min(owed.saturating_sub(received)),
            is_isolated: books.band == Band::Isolated,
        }
    };
    books.iter().map(account).collect()
}

/// The sum of some ledgers.
pub(super) fn total<'a>(ledgers: impl Iterator<Item = &'a Ledger>) -> Ledger {
    ledgers.fold(Ledger::default(), |sum, ledger| Ledger {
        reports: sum.reports + ledger.reports,
        stored: sum.stored + ledger.stored,
        superseded: sum.superseded + ledger.superseded,
        held: sum.held + ledger.held,
        throttled: sum.throttled + ledger.throttled,
        revoked: sum.revoked + ledger.revoked,
        failed: sum.failed + ledger.failed,
        shadow: sum.shadow + ledger.shadow,
        pending: sum.pending + ledger.pending,
    })
}

/// Packets on the way to each sidecar, as the server counts them: not yet pulled, or pulled and not
/// acknowledged. `None` when it gives no answer.
pub(super) async fn waiting(monitor: Monitor) -> Option<BTreeMap<String, u64>> {
    let answer = monitor.get("/jsz?streams=true&consumers=true").await.ok()?;
    let list = |value: &Value, key: &str| -> Vec<Value> {
        value.get(key).and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let accounts = list(&answer, "account_details");
    let streams = accounts.iter().flat_map(|account| list(account, "stream_detail"));
    let consumers = streams.flat_map(|stream| list(&stream, "consumer_detail"));
    let count = |consumer: &Value, key: &str| consumer.get(key).and_then(Value::as_u64);
    consumers
        .filter_map(|consumer| {
            let id = consumer.get("name")?.as_str()?.strip_prefix("driftgate-")?.to_owned();
            Some((id, count(&consumer, "num_pending")? + count(&consumer, "num_ack_pending")?))
        })
        .map(Some)
        .collect()
}

impl Account {
    /// Whether nothing is on its way any more.
    pub(super) fn is_settled(&self) -> bool {
        let waits = if self.is_isolated { self.waiting } else { 0 };
        self.ledger.pending == 0
            && self.seen >= self.ledger.stored
            && self.received + waits >= self.owed
    }

    /// What does not add up.
    fn fault(&self) -> Option<String> {
        let Self { id, ledger, .. } = self;
        if ledger.reports != self.reports * self.targets {
            let packets = self.reports * self.targets;
            return Some(format!("{id}: {packets} packets expected, {} booked", ledger.reports));
        }
        if !ledger.is_balanced() || ledger.pending > 0 {
            return Some(format!("{id}: the books do not add up, {} pending", ledger.pending));
        }
        // What has an unknown outcome may have crossed and may not.
        let unknown = ledger.failed + ledger.superseded;
        if !(ledger.stored..=ledger.stored + unknown).contains(&self.seen) {
            return Some(format!("{id}: {} stored, {} seen", ledger.stored, self.seen));
        }
        if self.received > self.owed + unknown || self.received + self.waiting < self.owed {
            return Some(format!(
                "{id}: {} stored for it, {} received, {} waiting",
                self.owed, self.received, self.waiting
            ));
        }
        None
    }

    fn to_json(&self) -> Value {
        let Ledger {
            reports, stored, superseded, held, throttled, revoked, failed, pending, ..
        } = self.ledger;
        json!({
            "id": self.id,
            "reports": self.reports,
            "targets": self.targets,
            "packets": {
                "total": reports, "stored": stored, "superseded": superseded,
                "throttled": throttled, "held": held, "revoked": revoked, "failed": failed,
                "pending": pending,
            },
            "seen": self.seen,
            "stored_for_it": self.owed,
            "received": self.received,
            "waiting": self.waiting,
        })
    }
}

/// Whether all accounts add up, and the sentence that says so.
pub(super) fn check(accounts: &[Account]) -> Result<String, String> {
    if let Some(fault) = accounts.iter().find_map(Account::fault) {
        return Err(fault);
    }
    let sum = |count: Count| -> u64 { accounts.iter().map(count).sum() };
    let mut words = format!(
        "{} stored = {} seen = {} received",
        sum(|account| account.ledger.stored),
        sum(|account| account.seen),
        sum(|account| account.received)
    );
    match sum(|account| account.waiting) {
        0 => {}
        waiting => {
            // Writing into a String does not fail.
            let _ = write!(words, " + {waiting} waiting");
        }
    }
    Ok(words)
}

/// One number of an account.
type Count = fn(&Account) -> u64;

/// The table: one column per sidecar, every report ends in one of the indented rows.
pub(super) fn table(accounts: &[Account]) -> String {
    let rows: [(&str, Count); 13] = [
        ("reports with a verdict", |account| account.reports),
        ("x targets = packets", |account| account.ledger.reports),
        ("    stored", |account| account.ledger.stored),
        ("  + superseded", |account| account.ledger.superseded),
        ("  + throttled", |account| account.ledger.throttled),
        ("  + held", |account| account.ledger.held),
        ("  + revoked", |account| account.ledger.revoked),
        ("  + failed", |account| account.ledger.failed),
        ("  + pending", |account| account.ledger.pending),
        ("seen crossing", |account| account.seen),
        ("stored for it by peers", |account| account.owed),
        ("  = received by it", |account| account.received),
        ("  + waiting for it", |account| account.waiting),
    ];
    let line = |name: &str, cells: &[String]| {
        let cells: String = cells.iter().map(|cell| format!("{cell:>10}")).collect();
        format!("{name:<24}{cells}\n")
    };
    let mut heads: Vec<String> = accounts.iter().map(|account| account.id.clone()).collect();
    heads.push("all".to_owned());
    let mut table = line("", &heads);
    for (name, count) in rows {
        let counts: Vec<u64> = accounts.iter().map(count).collect();
        let mut cells: Vec<String> = counts.iter().map(u64::to_string).collect();
        cells.push(counts.iter().sum::<u64>().to_string());
        table.push_str(&line(name, &cells));
    }
    table
}

/// One line per promise.
pub(super) fn promise_line(promise: &Promise) -> String {
    let name = format!("{} ", promise.name);
    let word = match promise.outcome {
        Outcome::Broken => "BROKEN",
        Outcome::Held => "held",
        Outcome::Unseen => "not seen",
    };
    format!("{} {name:.<NAME_COLUMNS$} {word} ({})", promise.code, promise.evidence)
}

/// What `--json` prints.
pub(super) fn to_json(accounts: &[Account], seen: &Observed, promises: &[Promise]) -> Value {
    let promise = |promise: &Promise| {
        let held = match promise.outcome {
            Outcome::Broken => Some(false),
            Outcome::Held => Some(true),
            Outcome::Unseen => None,
        };
        json!({
            "promise": promise.code, "name": promise.name, "held": held,
            "evidence": promise.evidence,
        })
    };
    json!({
        "sidecars": accounts.iter().map(Account::to_json).collect::<Vec<_>>(),
        "observer": {
            "packets": seen.count(), "seen_twice": seen.twice, "notices": seen.notices,
            "violations": seen.broken,
        },
        "promises": promises.iter().map(promise).collect::<Vec<_>>(),
    })
}
