//! `driftgate check`: reads a configuration and says what would run, or everything that is wrong.
//!
//! It reads files and connects to nothing; `doctor` looks at a live broker.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::sysexits;
use crate::config::{Caution, Config, Listener, Mistakes, read_from_disk, show_duration};
use crate::protocol::time::Timestamp;
use crate::snapshots::{container_limit, restorable_bytes_max};

/// Peers that are listed one by one; the rest is counted.
const PEERS_SHOWN_MAX: usize = 20;

/// Checks a configuration and shows all its mistakes at once.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Example:\n  driftgate check --config driftgate.toml --config site.yaml\n\n\
                  Exits 0 when the configuration can run, 78 when it cannot."
)]
pub struct Check {
    /// A TOML or YAML file; a later one wins over an earlier one, and DRIFTGATE__SECTION__KEY over
    /// all
    #[arg(long, value_name = "FILE")]
    pub config: Vec<PathBuf>,
}

/// Reads the configuration that `check` names and writes what would run to `output`. Mistakes go
/// there too: they are what was asked for.
///
/// `environment` holds the variables of the process, `now` tells which authorisations have ended.
#[must_use]
pub fn run(
    check: &Check,
    environment: &BTreeMap<String, String>,
    now: Timestamp,
    output: &mut dyn Write,
) -> ExitCode {
    let loaded = Config::load(&check.config, environment, &read_from_disk);
    let written = match &loaded {
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

fn write_summary(config: &Config, now: Timestamp, output: &mut dyn Write) -> io::Result<()> {
    write_identity(config, output)?;
    write_containment(config, output)?;
    write_links(config, output)?;
    for warning in warnings(config, now) {
        writeln!(output, "warning: {warning}")?;
    }
    Ok(())
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

fn write_identity(config: &Config, output: &mut dyn Write) -> io::Result<()> {
    let kind = config.runtime.attractor_type.map_or("no attractor type", |kind| kind.word());
    let profile = config.runtime.profile.name();
    writeln!(output, "runtime      {} ({kind}), profile {profile}", config.runtime.id)?;
    writeln!(output, "peers        {}", config.peers.len())?;
    for (id, peer) in config.peers.iter().take(PEERS_SHOWN_MAX) {
        let list = |words: Vec<&'static str>| {
            if words.is_empty() { "nothing".to_owned() } else { words.join(", ") }
        };
        let (export, import) = (list(peer.export.words()), list(peer.import.words()));
        write!(output, "  {id}: export {export}; import {import}")?;
        if let Some(key_id) = &peer.key_id {
            write!(output, "; key {key_id}")?;
        }
        if let Some(expires) = peer.expires {
            write!(output, "; until {expires}")?;
        }
        writeln!(output)?;
    }
    match config.peers.len().saturating_sub(PEERS_SHOWN_MAX) {
        0 => Ok(()),
        more => writeln!(output, "  and {more} more"),
    }
}

fn write_containment(config: &Config, output: &mut dyn Write) -> io::Result<()> {
    let containment = &config.containment;
    let marks = containment;
    let caution = match containment.caution {
        Caution::Throttle => format!("sends 1 report in {}", containment.caution_every),
        Caution::Block => "sends nothing".to_owned(),
    };
    let never = |span: Option<_>| span.map_or_else(|| "never".to_owned(), show_duration);
    writeln!(
        output,
        "containment  reopens below {}, blocks at {}, isolates at {}; caution {caution}",
        marks.reopen, marks.block, marks.isolate
    )?;
    writeln!(
        output,
        "             accepts {} evidence, {} good reports reopen",
        containment.accept.word(),
        containment.dwell
    )?;
    writeln!(
        output,
        "             silence blocks after {}, isolates after {}; blocked isolates after {}",
        show_duration(containment.stale_after),
        never(containment.silence_isolates_after),
        never(containment.isolate_after)
    )
}

fn write_links(config: &Config, output: &mut dyn Write) -> io::Result<()> {
    let servers: Vec<String> = config.nats.url.iter().map(ToString::to_string).collect();
    writeln!(output, "nats         {}, prefix {}", servers.join(", "), config.nats.prefix)?;
    let api = match &config.listen.api {
        Listener::Tcp(address) => address.to_string(),
        Listener::Unix(path) => format!("unix:{}", path.display()),
    };
    let token = if config.listen.token_file.is_some() { ", with a token" } else { "" };
    writeln!(output, "listen       api {api}{token}, admin {}", config.listen.admin)?;
    let tail = config.tail().map(|tail| format!("tail {}", tail.path.display()));
    let http = config.ingest.http.then(|| "http".to_owned());
    let ways: Vec<String> = http.into_iter().chain(tail).collect();
    writeln!(output, "ingest       {}", ways.join(", "))?;
    let ids: Vec<&str> = config.keys.keys().map(String::as_str).collect();
    writeln!(
        output,
        "integrity    signs with {}, verifies with {}",
        config.keyring.sign_with().unwrap_or_default(),
        ids.join(", ")
    )?;
    writeln!(output, "snapshot     spool {}", config.snapshot.spool.display())?;
    write_memory(container_limit(Path::new("/")), config.snapshot.bytes_max, output)
}

/// What the container's limit lets snapshots be, where it has one.
fn write_memory(limit: Option<u64>, bytes_max: u64, output: &mut dyn Write) -> io::Result<()> {
    let Some(limit) = limit else { return Ok(()) };
    let (limit, restorable, bytes_max) =
        (limit >> 20, restorable_bytes_max(limit) >> 20, bytes_max >> 20);
    writeln!(
        output,
        "memory       limit {limit} MiB lets snapshots up to {restorable} MiB be restored; \
         snapshot.bytes_max is {bytes_max} MiB"
    )
}

/// Who else may read a secret, as far as the file's mode says; `None` when nobody.
fn readers_beside_owner(file: &Path) -> Option<&'static str> {
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
