//! `driftgate status`: the fleet in one table, from presence alone.
//!
//! It reads the bucket over the connection of a configuration and believes what verifies under its
//! keys. It asks no sidecar, and writes nothing.

use std::collections::BTreeMap;
use std::io::{Write, stdout};
use std::process::ExitCode;

use serde_json::{Value, json};

use super::columns::columns;
use super::files::Files;
use super::sysexits::{self, Fault};
use crate::config::{Config, show_duration};
use crate::nats::assets::presences;
use crate::nats::settings::Settings;
use crate::protocol::gate::Band;
use crate::protocol::packet::RuntimeId;
use crate::protocol::presence::{Condition, Held, Presence, Shown};
use crate::protocol::time::Timestamp;

/// Shows the fleet as its sidecars tell it in the bucket of presence
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  driftgate status -c driftgate.toml\n  \
                  driftgate status --config driftgate.toml --json | jq '.runtimes[].state'\n\n\
                  States: live; stale, not heard of for 35 s; cut, isolated or stopped, and so \
                  silent; foreign, an entry that does not verify under the configuration's keys.\n\
                  Exits 0, with 69 without a broker or bucket, with 78 for a wrong configuration.")]
pub struct Arguments {
    #[command(flatten)]
    config: Files,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

/// One key of the bucket.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) key: String,
    /// `None`: what stands there does not verify.
    pub(super) presence: Option<Presence>,
}

impl Row {
    pub(super) fn state(&self, now: Timestamp) -> &'static str {
        self.presence.as_ref().map_or("foreign", |presence| presence.condition(now).into())
    }

    /// Where its gate stands, while somebody vouches for it.
    pub(super) fn live_band(&self, now: Timestamp) -> Option<Band> {
        let presence = self.presence.as_ref()?;
        match presence.condition(now) {
            Condition::Live => Some(presence.band),
            Condition::Cut if !presence.has_stopped() => Some(Band::Isolated),
            Condition::Cut | Condition::Stale => None,
        }
    }

    /// What a filter is looked for in, in small letters.
    pub(super) fn words(&self, now: Timestamp) -> String {
        self.cells(now).join(" ").to_lowercase()
    }

    /// Who needs attention comes first.
    pub(super) fn rank(&self, now: Timestamp) -> u8 {
        let Some(presence) = &self.presence else { return 0 };
        match (presence.condition(now), presence.band) {
            (Condition::Cut, _) if presence.has_stopped() => 6,
            (Condition::Cut, _) | (Condition::Live, Band::Isolated) => 1,
            (Condition::Stale, _) => 2,
            (Condition::Live, Band::Blocked) => 3,
            (Condition::Live, Band::Caution) => 4,
            (Condition::Live, Band::Open) => 5,
        }
    }

    fn to_json(&self, now: Timestamp) -> Value {
        let Some(presence) = &self.presence else {
            return json!({ "runtime_id": self.key, "age_s": null, "state": self.state(now) });
        };
        json!(Shown::at(presence.clone(), now))
    }

    fn cells(&self, now: Timestamp) -> [String; 8] {
        let (key, state) = (self.key.clone(), self.state(now).to_owned());
        let Some(presence) = &self.presence else {
            let [none, why] = ["-", "does not verify"].map(str::to_owned);
            return [key, state, none.clone(), none.clone(), none.clone(), none.clone(), none, why];
        };
        let seconds = |since| show_duration(core::time::Duration::from_secs(since));
        let mode: &str = presence.mode.into();
        let hold = if presence.hold { "held, " } else { "" };
        [
            key,
            state,
            presence.band.word().to_owned(),
            seconds(now.since(presence.since).as_secs()),
            seconds(now.since(presence.at).as_secs()),
            mode.to_owned(),
            presence.version.clone(),
            format!("{hold}{}", presence.reasons.join(" ")),
        ]
    }
}

/// Reads the bucket that the configuration names and shows it.
///
/// # Errors
/// [`Fault`].
pub async fn run(
    arguments: &Arguments,
    environment: &BTreeMap<String, String>,
    now: &(dyn Fn() -> Timestamp + Sync),
) -> Result<ExitCode, Fault> {
    let config = arguments.config.load(environment)?;
    let now = now();
    let text = text(&rows(&config, now).await?, arguments.json, now);
    let mut output = stdout();
    output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush())
        .map_err(|error| Fault::new(sysexits::IO_ERROR, error.to_string()))?;
    Ok(ExitCode::SUCCESS)
}

/// What the bucket holds, who needs attention first.
///
/// # Errors
/// [`Fault`]: the broker or the bucket cannot be had.
pub(super) async fn rows(config: &Config, now: Timestamp) -> Result<Vec<Row>, Fault> {
    let held = presences(&Settings::of(config)).await.map_err(Fault::unavailable)?;
    Ok(rows_of(config, held, now))
}

/// The rows of what a bucket holds, who needs attention first.
pub(super) fn rows_of(config: &Config, held: Vec<(String, Held)>, now: Timestamp) -> Vec<Row> {
    let mut rows: Vec<Row> = held
        .into_iter()
        .filter_map(|(key, held)| {
            let presence = open(config, &key, &held.bytes?);
            Some(Row { key, presence })
        })
        .collect();
    rows.sort_by(|one, other| (one.rank(now), &one.key).cmp(&(other.rank(now), &other.key)));
    rows
}

/// The rows for people or for programs.
pub(super) fn text(rows: &[Row], json: bool, now: Timestamp) -> String {
    if !json {
        return table(rows, now);
    }
    let runtimes: Vec<Value> = rows.iter().map(|row| row.to_json(now)).collect();
    format!("{}\n", json!({ "at": now, "runtimes": runtimes }))
}

/// What stands under a key, if its owner's key made it.
pub(super) fn open(config: &Config, key: &str, bytes: &[u8]) -> Option<Presence> {
    let owner = RuntimeId::new(key)?;
    let signer = if owner == config.runtime.id {
        config.keyring.sign_with()
    } else {
        config.peers.get(&owner).and_then(|peer| peer.key_id.as_deref())
    };
    Presence::open(&config.keyring, signer, &owner, bytes).ok()
}

fn table(rows: &[Row], now: Timestamp) -> String {
    let head = ["RUNTIME", "STATE", "BAND", "FOR", "SEEN", "MODE", "VERSION", "REASONS"];
    let head = head.map(str::to_owned);
    let lines: Vec<[String; 8]> =
        core::iter::once(head).chain(rows.iter().map(|row| row.cells(now))).collect();
    columns(&lines)
}
