//! The configuration: built-in defaults, then files, then the environment, read into types once.
//!
//! Nothing later sees a string that could be wrong. All mistakes are found in one run and each
//! names its key. Secrets come only from files, and no `Debug` shows them. What is deliberately not
//! here: reading the environment (`main.rs` hands it in), and what the values do.
//!
//! `settings` has one row per key and is the place to begin. In the order of the walk: `source`
//! merges, `table` reads what `parse` and `key` understand, `agree` looks at keys together,
//! `reload` compares, `document` writes the rows out, `warning` looks at the result.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};

use crate::protocol::envelope::Terms;
use crate::protocol::gate::Thresholds;
use crate::protocol::judge::{Flapping, Policy};
use crate::protocol::keyring::{KEYS_MAX, Keyring, KeyringFault};
use crate::protocol::packet::RuntimeId;
use crate::protocol::{bridge, inbox};

mod source;
mod table;
mod agree;
mod limit;
mod reload;
mod document;
mod schema;
mod settings;
mod parse;
mod key;
mod words;
pub mod names;
mod secret;
mod warning;
mod mistake;

pub use document::{SectionRows, example, manual, reference};
pub use key::{Absent, Effect, Form, Row};
pub use limit::{Fit, MemoryLimit};
pub use mistake::{MISTAKES_MAX, Mistake, Mistakes};
pub use parse::show_duration;
pub use reload::{Change, Reload};
pub use schema::schema;
pub use secret::{KeyFile, Secret, SecretFile};
pub use settings::{
    Audit, Console, Containment, Deliver, FlappingKeys, Ingest, Integrity, KeyKeys, Listen, Log,
    Nats, Peer, Runtime, Scopes, Snapshot, TailKeys, Tls, WINDOW_MAX,
};
pub use source::{ENVIRONMENT_PREFIX, ReadFile, environment, read_from_disk};
pub use warning::Warning;
pub use words::{BlockedInbound, Caution, DriftSource, Durability, Fleet, Listener};

use key::Section as _;
use table::{Reader, Table};

/// Most peers: what the fan-out is measured for.
pub const PEERS_MAX: usize = 10_000;

/// The whole configuration. `docs/configuration.md` documents every key.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whom this sidecar speaks for.
    pub runtime: Runtime,
    /// Who is reached and heard, at most [`PEERS_MAX`].
    pub peers: BTreeMap<RuntimeId, Peer>,
    /// The broker.
    pub nats: Nats,
    /// Transport security towards it.
    pub tls: Tls,
    /// The local interface.
    pub listen: Listen,
    /// The page of `listen.console`.
    pub console: Console,
    /// Whether the console shows its data without a token: for `run --dev` and the demo, which no
    /// agent shares a machine with. No key says so.
    pub open_console: bool,
    /// What the container's memory limit made of it, where there is one. No key says so.
    pub fit: Option<Fit>,
    /// How reports come in.
    pub ingest: Ingest,
    /// The file that is followed.
    pub tail: TailKeys,
    /// The gate.
    pub containment: Containment,
    /// Closings that follow each other too fast.
    pub flapping: FlappingKeys,
    /// Which key signs.
    pub integrity: Integrity,
    /// All keys by id, at most [`KEYS_MAX`].
    pub keys: BTreeMap<String, KeyFile>,
    /// The same, ready for use.
    pub keyring: Keyring,
    /// Memory snapshots.
    pub snapshot: Snapshot,
    /// Inbound packets handed to the runtime.
    pub deliver: Deliver,
    /// The log of containment events.
    pub audit: Audit,
    /// The log.
    pub log: Log,
}

/// `ingest.tail`, where a file is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tail {
    /// The file; it need not exist yet.
    pub path: PathBuf,
    /// Between two looks at it.
    pub interval: core::time::Duration,
    /// Longest line that is read as a report, in bytes.
    pub line_bytes_max: u64,
}

impl Config {
    /// Reads a configuration: `files` in order, a later one winning over an earlier one, then the
    /// variables of `environment` that begin with [`ENVIRONMENT_PREFIX`].
    ///
    /// `read_file` reads the files themselves and those that they name (keys, token, credentials,
    /// certificates, profile); [`read_from_disk`] outside tests.
    ///
    /// # Errors
    /// [`Mistakes`], all of them at once; the operator's to mend.
    ///
    /// ```
    /// use std::collections::BTreeMap;
    /// use driftgate::config::Config;
    /// let environment = BTreeMap::from([("DRIFTGATE__NATS__WINDOW".into(), "0".into())]);
    /// let nothing = |_: &std::path::Path| Err(std::io::ErrorKind::NotFound.into());
    /// let mistakes = Config::load(&[], &environment, &nothing).unwrap_err();
    /// assert!(mistakes.to_string().contains("nats.window: must be a whole number, 1 to 2048"));
    /// ```
    pub fn load(
        files: &[PathBuf],
        environment: &BTreeMap<String, String>,
        read_file: ReadFile<'_>,
    ) -> Result<Self, Mistakes> {
        Self::load_within(None, files, environment, read_file)
    }

    /// The same for a sidecar that is to run under the memory limit of a container: what nobody
    /// set fits it.
    ///
    /// # Errors
    /// [`Mistakes`]; what was set and cannot be held is one.
    pub fn load_within(
        limit: Option<MemoryLimit>,
        files: &[PathBuf],
        environment: &BTreeMap<String, String>,
        read_file: ReadFile<'_>,
    ) -> Result<Self, Mistakes> {
        let values = source::merge(files, environment, read_file)?;
        let mut reader = Reader::new(read_file);
        let mut root = Table::root(&mut reader, values);
        let mut config = Self::read(&mut root);
        root.finish();
        if let Some(config) = &mut config {
            if let Some(limit) = limit {
                config.fit(limit, &mut reader);
            }
            config.agree(&mut reader);
        }
        let keyring = config.as_ref().map(|config| config.ring(Some(&config.integrity.sign_with)));
        match (config, keyring) {
            (Some(config), Some(Ok(keyring))) if reader.mistakes.count() == 0 => {
                Ok(Self { keyring, ..config })
            }
            _ => Err(reader.mistakes),
        }
    }

    /// Where the admin listener is, whatever else is wrong. What the environment says is not
    /// looked for in `files`, which may then be anything.
    ///
    /// # Errors
    /// [`Mistakes`]: files that cannot be read, or no address.
    pub fn admin_address(
        files: &[PathBuf],
        environment: &BTreeMap<String, String>,
        read_file: ReadFile<'_>,
    ) -> Result<std::net::SocketAddr, Mistakes> {
        let variable = format!("{ENVIRONMENT_PREFIX}LISTEN__ADMIN");
        let files = if environment.contains_key(&variable) { &[] } else { files };
        let values = source::merge(files, environment, read_file)?;
        let mut reader = Reader::new(read_file);
        let listen: Option<Listen> = Table::root(&mut reader, values).section();
        let about_it = |mistake: &&Mistake| ["listen", "listen.admin"].contains(&&*mistake.key);
        let wrong = reader.mistakes.listed().iter().find(about_it);
        match (listen, wrong) {
            (Some(listen), None) => Ok(listen.admin),
            (_, wrong) => {
                let mut mistakes = Mistakes::default();
                let unsaid = || Mistake::new("listen.admin", "is not there");
                mistakes.push(wrong.cloned().unwrap_or_else(unsaid));
                Err(mistakes)
            }
        }
    }

    /// Every section as it stands; `None` when one lacks what nothing can stand in for.
    fn read(root: &mut Table<'_, '_>) -> Option<Self> {
        let runtime: Option<Runtime> = root.section();
        let peers = read_peers(root, runtime.as_ref().map(|runtime| &runtime.id));
        let (nats, tls) = root.within("nats", |table| (Nats::read(table), table.section()));
        let (listen, console) = (root.section(), root.section());
        let (ingest, tail) = root.within("ingest", |table| (Ingest::read(table), table.section()));
        let (containment, flapping) =
            root.within("containment", |table| (Containment::read(table), table.section()));
        let (integrity, keys) =
            root.within("integrity", |table| (Integrity::read(table), read_keys(table)));
        let (snapshot, deliver, audit, log) =
            (root.section(), root.section(), root.section(), root.section());
        Some(Self {
            runtime: runtime?,
            peers,
            nats: nats?,
            tls: tls?,
            listen: listen?,
            console: console?,
            open_console: false,
            fit: None,
            ingest: ingest?,
            tail: tail?,
            containment: containment?,
            flapping: flapping?,
            integrity: integrity?,
            keys,
            keyring: Keyring::new(BTreeMap::new(), None).ok()?,
            snapshot: snapshot?,
            deliver: deliver?,
            audit: audit?,
            log: log?,
        })
    }

    /// The ring of all keys; without `sign_with` it verifies only.
    fn ring(&self, sign_with: Option<&str>) -> Result<Keyring, KeyringFault> {
        let keys = self.keys.iter().map(|(id, key)| (id.clone(), key.material.clone()));
        Keyring::new(keys, sign_with)
    }

    /// Every file with a secret that the configuration names, each with the key that names it, for
    /// watching and for looking at its permissions.
    #[must_use]
    pub fn secret_files(&self) -> Vec<(String, &Path)> {
        let (nats, listen) = (&self.nats, &self.listen);
        let single = [
            ("nats.creds_file", nats.creds_file.as_deref()),
            ("nats.nkey_file", nats.nkey_file.as_deref()),
            ("nats.token_file", nats.token_file.as_deref()),
            ("nats.tls.key_file", self.tls.key_file.as_deref()),
            ("listen.token_file", listen.token_file.as_ref().map(|token| token.file.as_path())),
            (
                "listen.operator_token_file",
                listen.operator_token_file.as_ref().map(|token| token.file.as_path()),
            ),
        ];
        let single = single.into_iter().filter_map(|(key, file)| Some((key.to_owned(), file?)));
        let keys = self.keys.iter();
        let keys = keys.map(|(id, key)| (format!("integrity.keys.{id}"), key.file.file.as_path()));
        single.chain(keys).collect()
    }

    /// The file that is followed, if one is.
    #[must_use]
    pub fn tail(&self) -> Option<Tail> {
        let TailKeys { path, interval, line_bytes_max } = self.tail.clone();
        Some(Tail { path: path?, interval, line_bytes_max })
    }

    /// How evidence is judged.
    #[must_use]
    pub fn policy(&self) -> Policy {
        let Containment { reopen, block, isolate, accept, dwell, assumed_scr, lock, .. } =
            self.containment;
        let FlappingKeys { closings, cycles } = self.flapping;
        let flapping = closings.zip(cycles).map(|(closings, cycles)| Flapping { closings, cycles });
        let thresholds = Thresholds { reopen, block, isolate };
        Policy { thresholds, accept, dwell, assumed_scr, lock, flapping }
    }

    /// What the bridge is told.
    #[must_use]
    pub fn live(&self) -> bridge::Live {
        let containment = &self.containment;
        let peer = |(id, peer): (&RuntimeId, &Peer)| {
            let policy = inbox::Peer {
                id: id.clone(),
                export_state: peer.export.state,
                import_state: peer.import.state,
                export_snapshot: peer.export.snapshot,
                import_snapshot: peer.import.snapshot,
                export_telemetry: peer.export.telemetry,
                import_telemetry: peer.import.telemetry,
                key_id: peer.key_id.clone(),
                expires: peer.expires,
                terms: Terms {
                    scope: peer.scope.clone(),
                    allowed_use: peer.allowed_use.clone(),
                    accepts_derived: peer.accept == DriftSource::Derived,
                },
            };
            (id.clone(), policy)
        };
        bridge::Live {
            peers: self.peers.iter().map(peer).collect(),
            keyring: self.keyring.clone(),
            policy: self.policy(),
            caution_every: containment.caution_every,
            caution_blocks: containment.caution == Caution::Block,
            blocked_inbound_hold: containment.blocked_inbound == BlockedInbound::Hold,
            stale_after: containment.stale_after,
            silence_isolates_after: containment.silence_isolates_after,
            isolate_after: containment.isolate_after,
            barrier_timeout: containment.barrier_timeout,
            packet_max_age: containment.packet_max_age,
            clock_skew_max: containment.clock_skew_max,
            manifest: bytes::Bytes::new(),
        }
    }

    /// What the bridge is for its whole life.
    #[must_use]
    pub fn identity(&self) -> bridge::Identity {
        bridge::Identity {
            mode: self.containment.mode,
            runtime_id: self.runtime.id.clone(),
            profile: self.runtime.profile.clone(),
            attractor_type: self.runtime.attractor_type,
            reply_timeout: self.listen.reply_timeout,
            ack_timeout: self.nats.ack_timeout,
            window: self.nats.window,
            life: None,
        }
    }

    /// The file whose existence isolates.
    #[must_use]
    pub fn hold_file(&self) -> PathBuf {
        let beside_spool = || self.snapshot.spool.join("hold");
        self.containment.hold_file.clone().unwrap_or_else(beside_spool)
    }
}

/// `own` is this runtime's id, if it has one.
fn read_peers(root: &mut Table<'_, '_>, own: Option<&RuntimeId>) -> BTreeMap<RuntimeId, Peer> {
    let mut peers = BTreeMap::new();
    root.each("peers", PEERS_MAX, |table| {
        let given = table.peek("id");
        let is_given = |peer: &Peer| given.as_deref() == Some(peer.id.as_str());
        let Some(peer) = Peer::read(table).filter(is_given) else { return };
        if Some(&peer.id) == own {
            table.refuse("id", format!("must not be runtime.id itself, {}", peer.id));
        } else if let Entry::Vacant(vacant) = peers.entry(peer.id.clone()) {
            vacant.insert(peer);
        } else {
            table.refuse("id", "must be unique, and stands above already");
        }
    });
    peers
}

fn read_keys(table: &mut Table<'_, '_>) -> BTreeMap<String, KeyFile> {
    let mut keys = BTreeMap::new();
    table.each("keys", KEYS_MAX, |table| {
        let given = table.peek("id");
        let key = KeyKeys::read(table);
        let Some(id) = given else { return };
        if !table.is_new_key(&id) {
            table.refuse("id", format!("must be unique, and {id} stands above already"));
        } else if let Some(key) = key {
            keys.insert(id, key.file);
        }
    });
    keys
}
