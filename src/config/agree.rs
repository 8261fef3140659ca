//! What two keys must agree on.
//!
//! A rule is looked at only where none of its keys has been refused already: a mistake is told
//! once.

use super::Config;
use super::mistake::Mistake;
use super::parse::show_duration;
use super::secret::SecretFile;
use super::table::Reader;
use super::words::{Durability, Listener};
use crate::protocol::gate::Thresholds;

impl Reader<'_> {
    fn is_refused(&self, key: &str) -> bool {
        self.mistakes.listed().iter().any(|mistake| mistake.key == key)
    }

    /// Notes `problem` about the first of `keys` unless the rule holds.
    fn rule(&mut self, keys: &[&str], holds: bool, problem: impl Into<String>) {
        if let (false, Some(key)) =
            (holds || keys.iter().any(|key| self.is_refused(key)), keys.first())
        {
            self.mistakes.push(Mistake::new(*key, problem));
        }
    }
}

impl Config {
    /// Notes every rule that is broken.
    pub(super) fn agree(&self, reader: &mut Reader<'_>) {
        self.agree_on_the_broker(reader);
        self.agree_on_listening(reader);
        self.agree_on_containment(reader);
        self.agree_on_keys(reader);
        if let Some((path, declared)) = &self.runtime.capabilities {
            let (id, path) = (&self.runtime.id, path.display());
            reader.rule(
                &["runtime.capabilities", "runtime.id"],
                declared.runtime_id.as_ref().is_none_or(|named| named == id),
                format!("the file {path} is about another runtime: its runtime_id is not {id}"),
            );
        }
        let snapshot = &self.snapshot;
        reader.rule(
            &["snapshot.spool_bytes_max", "snapshot.bytes_max"],
            snapshot.spool_bytes_max >= snapshot.bytes_max,
            format!("must not be smaller than snapshot.bytes_max, {}", snapshot.bytes_max),
        );
    }

    fn agree_on_the_broker(&self, reader: &mut Reader<'_>) {
        let given = |key: &str| reader.given.contains(key);
        let credentials = ["nats.creds_file", "nats.nkey_file", "nats.token_file"];
        let proofs: Vec<&str> = credentials.into_iter().filter(|key| given(key)).collect();
        let (cert, key) = (given("nats.tls.cert_file"), given("nats.tls.key_file"));
        if let [_, second, ..] = proofs.as_slice() {
            let problem = "must be the only one of creds_file, nkey_file and token_file";
            reader.rule(&[second], false, problem);
        }
        reader.rule(&["nats.tls.cert_file"], key || !cert, "needs nats.tls.key_file beside it");
        reader.rule(&["nats.tls.key_file"], cert || !key, "needs nats.tls.cert_file beside it");
        reader.rule(
            &["nats.durability", "nats.replicas"],
            self.nats.durability == Durability::Acked || self.nats.replicas >= 3,
            "needs nats.replicas of 3 or 5 for anything but acked",
        );
    }

    fn agree_on_listening(&self, reader: &mut Reader<'_>) {
        let (listen, reply) = (&self.listen, show_duration(self.listen.reply_timeout));
        if let Listener::Tcp(address) = listen.api {
            reader.rule(
                &["listen.api", "listen.token_file"],
                address.ip().is_loopback() || listen.token_file.is_some(),
                format!("{address} is not loopback: it needs listen.token_file"),
            );
            reader.rule(
                &["listen.admin", "listen.api"],
                address != listen.admin || address.port() == 0,
                format!("must differ from listen.api, {address}"),
            );
        }
        if let Some(console) = listen.console {
            reader.rule(
                &["listen.console"],
                console.ip().is_loopback(),
                format!("{console} is not loopback: forward a port to it instead"),
            );
            let is_other = |address: Option<std::net::SocketAddr>| {
                address.is_none_or(|address| address != console) || console.port() == 0
            };
            let api = match listen.api {
                Listener::Tcp(address) => Some(address),
                Listener::Unix(_) => None,
            };
            reader.rule(
                &["listen.console", "listen.api", "listen.admin"],
                is_other(api) && is_other(Some(listen.admin)),
                format!("must differ from listen.api and listen.admin, {console}"),
            );
        }
        let secret = |file: &Option<SecretFile>| file.as_ref().map(|file| file.secret.clone());
        let (token, operator_token) =
            (secret(&listen.token_file), secret(&listen.operator_token_file));
        reader.rule(
            &["listen.operator_token_file", "listen.token_file"],
            token.is_none() || token != operator_token,
            "must hold another token than listen.token_file: who reports must not release",
        );
        let tail = reader.given.contains("ingest.tail");
        reader.rule(
            &["ingest.tail.path"],
            self.tail.path.is_some() || !tail,
            "is required: the JSONL file to follow",
        );
        reader.rule(
            &["ingest.http"],
            self.ingest.http || tail,
            "nothing would feed the gate: set it to true or give ingest.tail",
        );
        // The reply to a closing report waits for the barrier, and must itself be in time.
        reader.rule(
            &["containment.barrier_timeout", "listen.reply_timeout"],
            self.containment.barrier_timeout <= listen.reply_timeout,
            format!("must not be longer than listen.reply_timeout, {reply}"),
        );
    }

    fn agree_on_containment(&self, reader: &mut Reader<'_>) {
        let containment = &self.containment;
        let (reopen, block, isolate) = (containment.reopen, containment.block, containment.isolate);
        if let Err(fault) = Thresholds::new(reopen, block, isolate) {
            reader.rule(
                &["containment.block", "containment.reopen", "containment.isolate"],
                false,
                format!("{reopen}, {block}, {isolate} {fault}"),
            );
        }
        let stale_after = containment.stale_after;
        reader.rule(
            &["containment.silence_isolates_after", "containment.stale_after"],
            containment.silence_isolates_after.is_none_or(|span| span >= stale_after),
            format!(
                "must not be shorter than containment.stale_after, {}",
                show_duration(stale_after)
            ),
        );
        let (closings, cycles) = ("containment.flapping.closings", "containment.flapping.cycles");
        let flapping = &self.flapping;
        let is_whole = flapping.closings.is_some() == flapping.cycles.is_some();
        let missing = if flapping.cycles.is_some() { closings } else { cycles };
        reader.rule(
            &[missing, closings, cycles],
            is_whole,
            "is required beside the other of the two",
        );
        reader.rule(
            &[cycles, closings],
            !is_whole || flapping.cycles >= flapping.closings,
            "must not be fewer than containment.flapping.closings",
        );
    }

    fn agree_on_keys(&self, reader: &mut Reader<'_>) {
        let ids = core::mem::take(&mut reader.key_ids);
        if ids.is_empty() {
            let problem = "must hold at least one key; `driftgate keygen` makes one";
            reader.rule(&["integrity.keys"], false, problem);
        }
        for (id, peer) in self.peers.iter().filter(|_| !ids.is_empty()) {
            if let Some(key_id) = peer.key_id.as_ref().filter(|key_id| !ids.contains(*key_id)) {
                let problem = format!("{key_id} is not in integrity.keys");
                reader.rule(&[&format!("peers.{id}.key_id")], false, problem);
            }
        }
        let signer = &self.integrity.sign_with;
        let problem = match self.keys.get(signer).map(|key| key.material.alg()) {
            Some(alg) if alg != self.integrity.alg => {
                let (alg, asked) = (alg.word(), self.integrity.alg.word());
                let problem = format!("{signer} is a key for {alg}, and integrity.alg is {asked}");
                return reader.rule(&["integrity.sign_with", "integrity.alg"], false, problem);
            }
            Some(_) => match self.ring(Some(signer)) {
                Ok(_) => return,
                Err(fault) => fault.to_string(),
            },
            // A key that was refused has been told as that.
            None if ids.contains(signer) => return,
            None => format!("{signer} is not in integrity.keys"),
        };
        reader.rule(&["integrity.sign_with"], false, problem);
    }
}
