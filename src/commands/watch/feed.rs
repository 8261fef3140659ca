//! What comes in over one connection: the bucket of presence, read again and again, and frames as
//! they are told.

use std::pin::Pin;
use std::time::Duration;

use tokio::sync::mpsc::Sender;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::super::status::{self, Row};
use crate::config::Config;
use crate::nats::link::{Link, LinkEvent, Told};
use crate::nats::settings::Settings;
use crate::protocol::document::verify_body;
use crate::protocol::keyring::Domain;
use crate::protocol::packet::RuntimeId;
use crate::protocol::phase::PhaseFrame;
use crate::protocol::presence::Held;
use crate::protocol::time::Timestamp;

/// Between two looks at the bucket. Its entries are renewed every 10 s, and at each transition.
pub(super) const READ_INTERVAL: Duration = Duration::from_secs(2);
/// Before a connection is tried again.
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

/// Nobody takes the news any more.
struct Over;

/// What the bucket holds, when the broker has said so.
type Look = Pin<Box<dyn Future<Output = Option<Vec<(String, Held)>>> + Send>>;

/// Reads and hears until nobody takes the news any more.
pub(super) async fn run(config: &Config, now: &(dyn Fn() -> Timestamp + Sync), news: Sender<News>) {
    let settings = Settings::of(config);
    loop {
        let fault = match Link::connect(&settings).await {
            Err(fault) => fault.to_string(),
            Ok(mut link) => {
                let ended = tell(&mut link, config, now, &news).await;
                link.sever().await;
                match ended {
                    Ok(fault) => fault,
                    Err(Over) => return,
                }
            }
        };
        if news.send(News::Fault(fault)).await.is_err() {
            return;
        }
        sleep(RETRY_PAUSE).await;
    }
}

/// Tells what one connection brings until it ends; why it did.
async fn tell(
    link: &mut Link,
    config: &Config,
    now: &(dyn Fn() -> Timestamp + Sync),
    news: &Sender<News>,
) -> Result<String, Over> {
    let over = |_| Over;
    // Its name, before the version, may be as long as its key.
    let version = link.server().rsplit(' ').next().unwrap_or_default().to_owned();
    news.send(News::Broker(version)).await.map_err(over)?;
    let subscribed = link.subscribe_acks().and_then(|()| link.hear_telemetry(sources(config)));
    if subscribed.is_err() {
        return Ok("the connection takes no subscription".to_owned());
    }
    let mut looks = interval(READ_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut look: Option<Look> = None;
    loop {
        tokio::select! {
            event = link.event() => {
                if matches!(event, LinkEvent::Closed(_)) {
                    return Ok("the connection has ended".to_owned());
                }
                let LinkEvent::Telemetry(told) = event else { continue };
                let Some(frame) = frame(config, &told) else { continue };
                let source = frame.runtime_id.to_string();
                let told = News::Frame { source, index: frame.drift_index };
                news.send(told).await.map_err(over)?;
            }
            held = answered(&mut look) => {
                look = None;
                let told = match held {
                    Some(held) => News::Rows(status::rows_of(config, held, now())),
                    None => News::Fault("the broker does not say who is there".to_owned()),
                };
                news.send(told).await.map_err(over)?;
            }
            // One look at a time.
            _ = looks.tick() => if look.is_none() {
                look = Some(Box::pin(link.fleet(None)));
            },
        }
    }
}

/// Waits for the look under way; for ever where there is none.
async fn answered(look: &mut Option<Look>) -> Option<Vec<(String, Held)>> {
    match look {
        Some(look) => look.await,
        None => std::future::pending().await,
    }
}

/// Whose frames are heard.
fn sources(config: &Config) -> Vec<RuntimeId> {
    let heard = config.peers.iter().filter(|(_, peer)| peer.import.telemetry).map(|(id, _)| id);
    heard.chain([&config.runtime.id]).cloned().collect()
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
