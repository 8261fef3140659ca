//! From the configuration's sections to what each room is started with.

use std::collections::BTreeMap;

use crate::config::{self, BlockedInbound, Caution, Config};
use crate::nats::settings::{Credentials, NotAServerUrl, ServerUrl, Settings, Tls};
use crate::nats::subject::{AssetName, Prefix};
use crate::profiles;
use crate::protocol::bridge;
use crate::protocol::inbox::Peer;
use crate::protocol::keyring::{KeyMaterial, Keyring, KeyringFault, MaterialFault};
use crate::protocol::profile::{Options, Translator};

/// What only assembling finds; each names its key.
#[derive(Debug, thiserror::Error)]
pub enum SettingsFault {
    /// The driver takes no reload now.
    #[error("the sidecar is too busy to reload; try again")]
    Busy,
    /// A key cannot be used.
    #[error("integrity.keys {id}: {fault}")]
    Key {
        /// Key id.
        id: String,
        /// Why.
        fault: MaterialFault,
    },
    /// The ring cannot be made.
    #[error("integrity: {0}")]
    Keyring(#[from] KeyringFault),
    /// A name that NATS would not take.
    #[error("{0}: not a name that NATS takes")]
    Name(&'static str),
    /// The profile cannot be used.
    #[error("runtime.profile: {0}")]
    Profile(String),
    /// A server address.
    #[error("nats.url: {0}")]
    Url(#[from] NotAServerUrl),
}

pub(super) fn bridge(config: &Config) -> bridge::Settings {
    let containment = &config.containment;
    let peers = config.peers.iter().map(|(id, peer)| {
        let peer = Peer {
            id: id.clone(),
            export_state: peer.export.state,
            import_state: peer.import.state,
            export_snapshot: peer.export.snapshot,
            key_id: peer.key_id.clone(),
            expires: peer.expires,
        };
        (id.clone(), peer)
    });
    bridge::Settings {
        runtime_id: config.runtime.id.clone(),
        attractor_type: config.runtime.attractor_type,
        peers: peers.collect::<BTreeMap<_, _>>(),
        policy: containment.policy.clone(),
        caution_every: containment.caution_every,
        caution_blocks: containment.caution == Caution::Block,
        blocked_inbound_hold: containment.blocked_inbound == BlockedInbound::Hold,
        stale_after: containment.stale_after,
        silence_isolates_after: containment.silence_isolates_after,
        isolate_after: containment.isolate_after,
        barrier_timeout: containment.barrier_timeout,
        reply_timeout: config.listen.reply_timeout,
        ack_timeout: config.nats.ack_timeout,
        window: config.nats.window,
        packet_max_age: containment.packet_max_age,
        clock_skew_max: containment.clock_skew_max,
    }
}

pub(super) fn keyring(config: &Config) -> Result<Keyring, SettingsFault> {
    let mut keys = Vec::new();
    for (id, key) in &config.integrity.keys {
        let text = |secret: &config::Secret| String::from_utf8_lossy(secret.expose()).into_owned();
        let material = match &key.material {
            config::KeyMaterial::Hmac(secret) => KeyMaterial::hmac_secret(secret.expose()),
            config::KeyMaterial::Ed25519Seed(seed) => KeyMaterial::nkey_seed(&text(seed)),
            config::KeyMaterial::Ed25519Public(public) => KeyMaterial::nkey_public(public),
        };
        let material = material.map_err(|fault| SettingsFault::Key { id: id.clone(), fault })?;
        keys.push((id.clone(), material));
    }
    Ok(Keyring::new(keys, Some(&config.integrity.sign_with))?)
}

pub(super) fn translator(config: &Config) -> Result<Translator, SettingsFault> {
    let profile = match &config.runtime.profile {
        config::Profile::File { text, .. } => {
            profiles::parse(text).map_err(|fault| SettingsFault::Profile(fault.to_string()))?
        }
        built_in => profiles::load(&built_in.name())
            .map_err(|fault| SettingsFault::Profile(fault.to_string()))?,
    };
    let options = Options {
        accept: config.containment.policy.accept,
        assumed_scr: config.containment.assumed_scr,
    };
    Ok(Translator::new(profile, options))
}

pub(super) fn deliver(config: &Config) -> Option<crate::deliver::Settings> {
    let url = config.deliver.url.clone()?;
    Some(crate::deliver::Settings { url, timeout: config.deliver.timeout })
}

pub(super) fn nats(config: &Config) -> Result<Settings, SettingsFault> {
    let nats = &config.nats;
    let id = config.runtime.id.clone();
    let mut urls = Vec::new();
    for url in &nats.url {
        urls.push(url.clone().into_inner().as_str().parse::<ServerUrl>()?);
    }
    let name = |key, text: &str| AssetName::new(text).ok_or(SettingsFault::Name(key));
    // The default belongs to all; a prefix of our own lets a server's permissions keep others out.
    let inbox_prefix = if nats.inbox_prefix == "_INBOX" {
        Prefix::inbox_of(&id)
    } else {
        Prefix::new(&nats.inbox_prefix).ok_or(SettingsFault::Name("nats.inbox_prefix"))?
    };
    Ok(Settings {
        prefix: Prefix::new(&nats.prefix).ok_or(SettingsFault::Name("nats.prefix"))?,
        inbox_prefix,
        credentials: match &nats.credentials {
            config::Credentials::None => Credentials::None,
            config::Credentials::CredsFile(file) => Credentials::CredsFile(file.clone()),
            config::Credentials::NkeyFile(file) => Credentials::NkeyFile(file.clone()),
        },
        tls: Tls {
            required: nats.tls.required,
            first: false,
            ca: nats.tls.ca_file.clone(),
            identity: nats
                .tls
                .client
                .as_ref()
                .map(|client| (client.cert_file.clone(), client.key_file.clone())),
        },
        connect_timeout: nats.connect_timeout,
        ping_interval: nats.ping_interval,
        stream_out: name("nats.stream_out", &nats.stream_out)?,
        stream_in: name("nats.stream_in", &nats.stream_in)?,
        provision: nats.provision,
        replicas: u8::try_from(nats.replicas).unwrap_or(1),
        ..Settings::new(id, urls)
    })
}
