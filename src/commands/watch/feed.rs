//! What comes in: the bucket of presence, read again and again, and frames as they are told.

use std::time::Duration;

use tokio::sync::mpsc::Sender;
use tokio::time::sleep;

use super::super::status::{self, Row};
use crate::config::Config;
use crate::nats::link::{Link, LinkEvent, Told};
use crate::nats::settings::Settings;
use crate::protocol::document::verify_body;
use crate::protocol::keyring::Domain;
use crate::protocol::packet::RuntimeId;
use crate::protocol::phase::PhaseFrame;
use crate::protocol::time::Timestamp;

/// Between two looks at the bucket. Its entries are renewed every 10 s, and at each transition.
pub(super) const READ_INTERVAL: Duration = Duration::from_secs(2);
/// Before a connection for frames is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// What is new.
pub(super) enum News {
    Rows(Vec<Row>),
    Frame {
        source: String,
        index: Option<f64>,
    },
    /// Version of the server that answers.
    Broker(String),
    /// Why there is nothing new.
    Fault(String),
}

/// Reads and hears until nobody takes the news any more.
pub(super) async fn run(config: &Config, now: &(dyn Fn() -> Timestamp + Sync), news: Sender<News>) {
    tokio::select! {
        () = read(config, now, &news) => {}
        () = hear(config, &news) => {}
    }
}

async fn read(config: &Config, now: &(dyn Fn() -> Timestamp + Sync), news: &Sender<News>) {
    loop {
        sleep(READ_INTERVAL).await;
        let told = match status::rows(config, now()).await {
            Ok(rows) => News::Rows(rows),
            Err(fault) => News::Fault(fault.to_string()),
        };
        if news.send(told).await.is_err() {
            return;
        }
    }
}

async fn hear(config: &Config, news: &Sender<News>) {
    let settings = Settings::of(config);
    let sources: Vec<RuntimeId> = config
        .peers
        .iter()
        .filter(|(_, peer)| peer.import.telemetry)
        .map(|(id, _)| id)
        .chain([&config.runtime.id])
        .cloned()
        .collect();
    loop {
        if let Ok(mut link) = Link::connect(&settings).await {
            // Its name, before the version, may be as long as its key.
            let version = link.server().rsplit(' ').next().unwrap_or_default().to_owned();
            if news.send(News::Broker(version)).await.is_err() {
                return;
            }
            if link.hear_telemetry(sources.clone()).is_ok() && listen(&mut link, config, news).await
            {
                return;
            }
            link.sever().await;
        }
        sleep(RETRY_PAUSE).await;
    }
}

/// Passes frames on until the link ends; `true` where nobody takes them any more.
async fn listen(link: &mut Link, config: &Config, news: &Sender<News>) -> bool {
    loop {
        let event = link.event().await;
        if matches!(event, LinkEvent::Closed(_)) {
            return false;
        }
        let LinkEvent::Telemetry(told) = event else { continue };
        let Some(frame) = frame(config, &told) else { continue };
        let source = frame.runtime_id.to_string();
        let told = News::Frame { source, index: frame.drift_index };
        if news.send(told).await.is_err() {
            return true;
        }
    }
}

/// A frame that its peer has signed.
fn frame(config: &Config, told: &Told) -> Option<PhaseFrame> {
    let source = RuntimeId::new(&told.source)?;
    let pinned = if source == config.runtime.id {
        config.keyring.sign_with()
    } else {
        config.peers.get(&source)?.key_id.as_deref()
    };
    let token = told.token.as_deref()?;
    let (key_id, _) = verify_body(&config.keyring, Domain::Telemetry, token, &told.body).ok()?;
    if pinned.is_some_and(|pinned| pinned != key_id) {
        return None;
    }
    PhaseFrame::read(&source, &told.body).ok()
}
