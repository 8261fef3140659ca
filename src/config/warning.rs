//! What is allowed and probably not meant.

use core::fmt;
use std::path::Path;

use super::Config;
use super::settings::Peer;
use super::words::Listener;
use crate::protocol::drift::Provenance;
use crate::protocol::keyring::Alg;
use crate::protocol::time::Timestamp;

/// Something that a configuration may say and that its author should look at again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The key that it is about.
    pub key: String,
    /// What follows from its value.
    pub remark: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.key, self.remark)
    }
}

impl Config {
    /// Everything that is allowed and probably not meant, in the order of the sections. `now` tells
    /// which authorisations have ended.
    #[must_use]
    pub fn warnings(&self, now: Timestamp) -> Vec<Warning> {
        let mut warnings = Vec::new();
        let mut warn = |key: &str, remark: String| {
            warnings.push(Warning { key: key.to_owned(), remark });
        };
        if self.runtime.attractor_type.is_none() {
            warn(
                "runtime.attractor_type",
                "is not set: a report that names no type cannot be exported".to_owned(),
            );
        }
        if self.peers.is_empty() {
            warn("peers", "is empty: nobody is reached and nobody is heard".to_owned());
        }
        for (id, peer) in &self.peers {
            if let Some(expires) = peer.expires.filter(|expires| *expires <= now) {
                warn("peers", format!("the authorisation of {id} ended at {expires}"));
            }
            if peer.export.is_empty() && peer.import.is_empty() {
                warn("peers", format!("{id} is listed with neither export nor import"));
            }
        }
        self.warn_of_keys(&mut warn);
        self.warn_of_the_hold_file(&mut warn);
        self.warn_of_networks(&mut warn);
        match (self.containment.accept, self.containment.assumed_scr) {
            (Provenance::Derived, None) => warn(
                "containment.accept",
                "is derived without containment.assumed_scr: where a profile reports no \
                 coherence the gate stays closed"
                    .to_owned(),
            ),
            (Provenance::Native | Provenance::Reported, Some(_)) => warn(
                "containment.assumed_scr",
                "has no effect on export unless containment.accept is derived".to_owned(),
            ),
            (Provenance::Derived, Some(_)) | (Provenance::None, _) | (_, None) => {}
        }
        warnings
    }

    /// Where keys are each somebody's own, one that may be anybody's proves little.
    fn warn_of_keys(&self, warn: &mut impl FnMut(&str, String)) {
        let are_own = self.keys.len() > 1
            && (self.integrity.alg == Alg::Ed25519
                || self.peers.values().any(|peer| peer.key_id.is_some()));
        let is_open = |peer: &Peer| !peer.import.is_empty() && peer.key_id.is_none();
        if let Some((id, _)) = self.peers.iter().find(|(_, peer)| are_own && is_open(peer)) {
            let remark =
                format!("{id} has no key_id: every key of integrity.keys may speak for it");
            warn("peers", remark);
        }
    }

    /// A file in a folder of the agent is the agent's to remove.
    fn warn_of_the_hold_file(&self, warn: &mut impl FnMut(&str, String)) {
        let hold_file = self.hold_file();
        let folders = [
            ("ingest.tail.path", self.tail.path.as_deref()),
            (
                "listen.api",
                match &self.listen.api {
                    Listener::Unix(path) => Some(path.as_path()),
                    Listener::Tcp(_) => None,
                },
            ),
        ];
        for (key, path) in folders {
            let folder = path.and_then(Path::parent);
            if folder.is_some_and(|folder| hold_file.starts_with(folder)) {
                let remark = format!(
                    "{} lies in the folder of {key}, which the runtime shares: it could lift the \
                     hold",
                    hold_file.display()
                );
                warn("containment.hold_file", remark);
            }
        }
    }

    /// What travels in the clear, and what nobody could reach.
    fn warn_of_networks(&self, warn: &mut impl FnMut(&str, String)) {
        for server in &self.nats.url {
            let server = server.address();
            let clear = !server.tls_required() && !self.tls.required;
            if clear && !is_loopback(server.host()) {
                let remark = format!(
                    "{} is neither loopback nor TLS: use tls:// or nats.tls.required",
                    server.host()
                );
                warn("nats.url", remark);
            }
        }
        if let (Listener::Tcp(address), false) = (&self.listen.api, self.listen.api.is_local()) {
            warn("listen.api", format!("{address} carries the token in the clear"));
            if self.listen.allowed_hosts.is_empty() {
                warn(
                    "listen.allowed_hosts",
                    "is empty: only calls to a loopback Host are answered".to_owned(),
                );
            }
        }
        let deliver_to = self.deliver.url.as_ref().and_then(|url| url.host());
        if let Some(host) = deliver_to.filter(|host| !is_loopback(host)) {
            warn(
                "deliver.url",
                format!("{host} is not loopback, and packets go there in the clear"),
            );
        }
    }
}

/// Whether a host of a URL is this machine.
fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}
