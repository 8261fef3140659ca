//! `driftgate check`: reads a configuration and says what would run, or everything that is wrong.
//!
//! It reads files and connects to nothing; `doctor` looks at a live broker.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::ExitCode;

use serde_json::{Map, Value, json};

use super::files::Files;
use super::sysexits;
use crate::config::{
    Caution, Config, Fit, MemoryLimit, Mistake, Mistakes, Snapshot, read_from_disk, show_duration,
};
use crate::protocol::time::Timestamp;

/// Peers that are listed one by one; the rest is counted.
const PEERS_SHOWN_MAX: usize = 20;

/// Checks a configuration and shows all its mistakes at once
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  driftgate check -c driftgate.toml -c site.yaml\n  driftgate check -c driftgate.toml --json | jq .warnings\n\n\
                  Exits 0 when the configuration can run, 78 when it cannot."
)]
pub struct Check {
    /// Where the configuration is read from.
    #[command(flatten)]
    pub config: Files,
    /// Prints JSON
    #[arg(long)]
    pub json: bool,
}

/// Reads the configuration that `check` names and writes what would run to `output`. Mistakes go
/// there too: they are what was asked for.
///
/// `environment` holds the variables of the process, `limit` is the memory that its container has,
/// `now` tells which authorisations have ended.
#[must_use]
pub fn run(
    check: &Check,
    environment: &BTreeMap<String, String>,
    limit: Option<MemoryLimit>,
    now: Timestamp,
    output: &mut dyn Write,
) -> ExitCode {
    let files = check.config.paths(environment);
    let loaded = Config::load_within(limit, &files, environment, &read_from_disk);
    let written = match &loaded {
        _ if check.json => writeln!(output, "{}", to_json(&loaded, now)),
        Ok(config) => write_summary(config, now, output),
        Err(mistakes) => write_mistakes(mistakes, output),
    };
    match (written.and_then(|()| output.flush()), loaded) {
        (Err(_), _) => ExitCode::from(sysexits::IO_ERROR),
        (Ok(()), Err(_)) => ExitCode::from(sysexits::CONFIG),
        (Ok(()), Ok(_)) => ExitCode::SUCCESS,
    }
}

fn write_mistakes(mistakes: &Mistakes, output: &mut dyn Write) -> io::Result<()> {
    writeln!(output, "{mistakes}")?;
    let noun = if mistakes.count() == 1 { "mistake" } else { "mistakes" };
    writeln!(output, "{} {noun}", mistakes.count())
}

/// One thing that the configuration says: its name, and lines about it, the first beside the name.
struct Fact(&'static str, Vec<String>);

impl Fact {
    fn new(name: &'static str, line: String) -> Self {
        Self(name, vec![line])
    }
}

fn facts(config: &Config) -> Vec<Fact> {
    let mut facts = identity(config);
    facts.push(containment(config));
    facts.extend(links(config));
    facts.extend(records(config));
    facts.extend(config.fit.as_ref().map(|fit| memory(fit, &config.snapshot)));
    facts
}

fn write_summary(config: &Config, now: Timestamp, output: &mut dyn Write) -> io::Result<()> {
    for Fact(name, lines) in facts(config) {
        let mut lines = lines.into_iter();
        writeln!(output, "{name:<13}{}", lines.next().unwrap_or_default())?;
        // A list of names needs no column of its own.
        let indent = if name == "peers" { 2 } else { 13 };
        for line in lines {
            writeln!(output, "{:indent$}{line}", "")?;
        }
    }
    for warning in warnings(config, now) {
        writeln!(output, "warning: {warning}")?;
    }
    Ok(())
}

fn to_json(loaded: &Result<Config, Mistakes>, now: Timestamp) -> Value {
    let mistake = |mistake: &Mistake| {
        json!({ "key": mistake.key, "problem": mistake.problem, "value": mistake.value,
                "origin": mistake.origin })
    };
    match loaded {
        Ok(config) => {
            let summary: Map<String, Value> = facts(config)
                .into_iter()
                .map(|Fact(name, lines)| (name.to_owned(), json!(lines)))
                .collect();
            json!({ "valid": true, "mistakes": [], "warnings": warnings(config, now),
                    "summary": summary })
        }
        Err(mistakes) => json!({
            "valid": false,
            "mistakes": mistakes.listed().iter().map(mistake).collect::<Vec<_>>(),
            "count": mistakes.count(),
        }),
    }
}

/// What is allowed and probably not meant, in the values and in the files that they name.
pub(super) fn warnings(config: &Config, now: Timestamp) -> Vec<String> {
    let files = config.secret_files();
    let open = files.iter().filter_map(|(key, file)| {
        let readers = readers_beside_owner(file)?;
        Some(format!("{key}: {} can be read by {readers}", file.display()))
    });
    let hold = config.hold_file();
    let writable = hold.parent().and_then(|folder| {
        let writers = writers_beside_owner(folder)?;
        let folder = folder.display();
        let key = "containment.hold_file";
        Some(format!("{key}: {folder} can be written by {writers}, and so a hold be released"))
    });
    config.warnings(now).iter().map(ToString::to_string).chain(open).chain(writable).collect()
}

fn identity(config: &Config) -> Vec<Fact> {
    let kind = config.runtime.attractor_type.map_or("no attractor type", |kind| kind.word());
    let profile = config.runtime.profile.name();
    let runtime = format!("{} ({kind}), profile {profile}", config.runtime.id);
    let mut peers = vec![config.peers.len().to_string()];
    for (id, peer) in config.peers.iter().take(PEERS_SHOWN_MAX) {
        let list = |words: Vec<&'static str>| {
            if words.is_empty() { "nothing".to_owned() } else { words.join(", ") }
        };
        let (export, import) = (list(peer.export.words()), list(peer.import.words()));
        let key = peer.key_id.as_ref().map_or_else(String::new, |id| format!("; key {id}"));
        let until = peer.expires.map_or_else(String::new, |end| format!("; until {end}"));
        peers.push(format!("{id}: export {export}; import {import}{key}{until}"));
    }
    match config.peers.len().saturating_sub(PEERS_SHOWN_MAX) {
        0 => {}
        more => peers.push(format!("and {more} more")),
    }
    vec![Fact::new("runtime", runtime), Fact("peers", peers)]
}

fn containment(config: &Config) -> Fact {
    let containment = &config.containment;
    let marks = containment;
    let caution = match containment.caution {
        Caution::Throttle => format!("sends 1 report in {}", containment.caution_every),
        Caution::Block => "sends nothing".to_owned(),
    };
    let never = |span: Option<_>| span.map_or_else(|| "never".to_owned(), show_duration);
    let lines = [
        format!(
            "reopens below {}, blocks at {}, isolates at {}; caution {caution}",
            marks.reopen, marks.block, marks.isolate
        ),
        format!(
            "accepts {} evidence, {} good reports reopen",
            containment.accept.word(),
            containment.dwell
        ),
        format!(
            "silence blocks after {}, isolates after {}; blocked isolates after {}",
            show_duration(containment.stale_after),
            never(containment.silence_isolates_after),
            never(containment.isolate_after)
        ),
    ];
    Fact("containment", lines.to_vec())
}

fn links(config: &Config) -> Vec<Fact> {
    let servers: Vec<String> = config.nats.url.iter().map(ToString::to_string).collect();
    let nats = format!("{}, prefix {}", servers.join(", "), config.nats.prefix);
    let api = &config.listen.api;
    let token = if config.listen.token_file.is_some() { ", with a token" } else { "" };
    let tail = config.tail().map(|tail| format!("tail {}", tail.path.display()));
    let http = config.ingest.http.then(|| "http".to_owned());
    let ways: Vec<String> = http.into_iter().chain(tail).collect();
    let ids: Vec<&str> = config.keys.keys().map(String::as_str).collect();
    let signs = config.keyring.sign_with().unwrap_or_default();
    vec![
        Fact::new("nats", nats),
        Fact::new("listen", format!("api {api}{token}, admin {}", config.listen.admin)),
        Fact::new("ingest", ways.join(", ")),
        Fact::new("integrity", format!("signs with {signs}, verifies with {}", ids.join(", "))),
    ]
}

/// What is handed on, kept and written down.
fn records(config: &Config) -> Vec<Fact> {
    let deliver = match &config.deliver.url {
        Some(url) => format!(
            "posts each accepted packet to {url}, waits {} for an answer",
            show_duration(config.deliver.timeout)
        ),
        None => "posts nothing: the runtime asks GET /field/state".to_owned(),
    };
    let audit = match &config.audit.file {
        Some(file) => format!(
            "appends to {}, keeps {} files of {}",
            file.display(),
            config.audit.files_max,
            show_size(config.audit.bytes_max)
        ),
        None => "writes nothing".to_owned(),
    };
    vec![
        Fact::new("deliver", deliver),
        Fact::new("audit", audit),
        Fact::new("snapshot", format!("spool {}", config.snapshot.spool.display())),
    ]
}

/// What the container's limit lets snapshots be.
fn memory(fit: &Fit, snapshot: &Snapshot) -> Fact {
    let sizes = format!(
        "limit {}: snapshots up to {}, cache {}",
        fit.limit,
        show_size(snapshot.bytes_max),
        show_size(snapshot.cache_bytes_max)
    );
    let shrunk = fit.shrunk.iter().map(|key| format!("{key} is not set and made to fit"));
    Fact("memory", core::iter::once(sizes).chain(shrunk).collect())
}

/// A size in the largest unit that it is whole in.
fn show_size(bytes: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let whole = units.iter().find(|(_, shift)| bytes.trailing_zeros() >= *shift && bytes > 0);
    whole.map_or_else(|| format!("{bytes} B"), |(unit, shift)| format!("{} {unit}", bytes >> shift))
}

/// Who else may read a secret, as far as the file's mode says; `None` when nobody, and for a file
/// that a Kubernetes volume projects: it is root's, so the sidecar reads it as one of the others,
/// and only the containers that mount the volume see it.
fn readers_beside_owner(file: &Path) -> Option<&'static str> {
    if std::fs::read_link(file).is_ok_and(|target| target.starts_with("..data")) {
        return None;
    }
    let mode = std::fs::metadata(file).ok()?.permissions().mode();
    match (mode & 0o004 != 0, mode & 0o040 != 0) {
        (true, _) => Some("everybody: chmod 0400"),
        (false, true) => Some("its group: chmod 0400, unless the group is the sidecar's own"),
        (false, false) => None,
    }
}

/// Who else may make and remove files in a folder, as far as its mode says.
fn writers_beside_owner(folder: &Path) -> Option<&'static str> {
    let mode = std::fs::metadata(folder).ok()?.permissions().mode();
    match (mode & 0o002 != 0, mode & 0o020 != 0) {
        (true, _) => Some("everybody"),
        (false, true) => Some("its group"),
        (false, false) => None,
    }
}
