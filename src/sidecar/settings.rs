//! From the configuration's sections to what each room is started with.

use crate::audit;
use crate::config::Config;
use crate::nats::settings::{Credentials, NotAServerUrl, ServerUrl, Settings, Tls};
use crate::nats::subject::{AssetName, Prefix};

/// What only assembling finds; each names its key.
#[derive(Debug, thiserror::Error)]
pub enum SettingsFault {
    /// A name that NATS would not take.
    #[error("{0}: not a name that NATS takes")]
    Name(&'static str),
    /// A server address.
    #[error("nats.url: {0}")]
    Url(#[from] NotAServerUrl),
}

pub(super) fn deliver(config: &Config) -> Option<crate::deliver::Settings> {
    let url = config.deliver.url.clone()?;
    Some(crate::deliver::Settings { url, timeout: config.deliver.timeout })
}

pub(super) fn audit(config: &Config) -> Option<audit::Settings> {
    let file = config.audit.file.clone()?;
    let (bytes_max, files_max) = (config.audit.bytes_max, config.audit.files_max);
    Some(audit::Settings { file, bytes_max, files_max })
}

/// The broker's settings.
///
/// # Errors
/// [`SettingsFault`], naming the key.
pub fn nats(config: &Config) -> Result<Settings, SettingsFault> {
    let nats = &config.nats;
    let id = config.runtime.id.clone();
    let mut urls = Vec::new();
    for url in &nats.url {
        urls.push(url.as_url_str().parse::<ServerUrl>()?);
    }
    let name = |key, text: &str| AssetName::new(text).ok_or(SettingsFault::Name(key));
    let inbox_prefix = match &nats.inbox_prefix {
        None => Prefix::inbox_of(&id),
        Some(text) => Prefix::new(text).ok_or(SettingsFault::Name("nats.inbox_prefix"))?,
    };
    Ok(Settings {
        prefix: Prefix::new(&nats.prefix).ok_or(SettingsFault::Name("nats.prefix"))?,
        inbox_prefix,
        credentials: match (&nats.creds_file, &nats.nkey_file, &nats.token_file) {
            (Some(file), _, _) => Credentials::CredsFile(file.clone()),
            (None, Some(file), _) => Credentials::NkeyFile(file.clone()),
            (None, None, Some(file)) => Credentials::TokenFile(file.clone()),
            (None, None, None) => Credentials::None,
        },
        tls: Tls {
            required: config.tls.required,
            first: config.tls.first,
            ca: config.tls.ca_file.clone(),
            identity: config.tls.cert_file.clone().zip(config.tls.key_file.clone()),
        },
        connect_timeout: nats.connect_timeout,
        ping_interval: nats.ping_interval,
        stream_out: name("nats.stream_out", &nats.stream_out)?,
        stream_quarantine: name("nats.stream_quarantine", &nats.stream_quarantine)?,
        stream_in: name("nats.stream_in", &nats.stream_in)?,
        domain: nats.domain.as_deref().map(|text| name("nats.domain", text)).transpose()?,
        provision: nats.provision,
        replicas: u8::try_from(nats.replicas).unwrap_or(1),
        durability: nats.durability,
        ..Settings::new(id, urls)
    })
}
