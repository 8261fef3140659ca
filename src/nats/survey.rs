//! One look at a broker that changes nothing: what it is, what of ours it holds, what we may do.
//!
//! Only questions go out, and publishes that no stream takes: they name a stream that there is not,
//! which the broker refuses before it stores. What deliberately is not here: what a finding means,
//! and what to do (`commands/doctor.rs`).

use async_nats::HeaderMap;
use bytes::Bytes;

use super::assets::{AssetFault, Compared};
use super::connection::{Connection, serve};
use super::requests::{RequestFault, Requests};
use super::session::ConnectFault;
use super::settings::Settings;
use crate::protocol::packet::RuntimeId;

/// The stream that a probe expects, and that nobody has.
const NO_STREAM: &str = "driftgate-probe";

/// What was seen.
#[derive(Debug)]
pub struct Survey {
    /// Name and version of the server.
    pub server: String,
    /// Largest message that it takes, in bytes.
    pub max_payload: usize,
    /// Streams and consumer, held against what the configuration promises.
    pub assets: Result<Vec<Compared>, AssetFault>,
    /// Whether a packet to the first peer could be published; `None` when that is not known.
    pub may_export: Option<bool>,
    /// Whether a packet in the name of that peer could be.
    pub may_forge: Option<bool>,
}

/// Looks, on a connection that is gone when this returns.
///
/// # Cancel safety
/// Dropping the future ends the connection.
///
/// # Errors
/// [`ConnectFault`]: there is no connection, or it ended too early.
pub async fn survey(settings: &Settings, peer: Option<&RuntimeId>) -> Result<Survey, ConnectFault> {
    let (mut connection, requests) = Connection::connect(settings).await?;
    let end = connection.end().clone();
    let (server, max_payload) = (connection.server(), connection.max_payload());
    let opened = connection.subscribe_answers();
    opened.map_err(|fault| ConnectFault::Unreachable(fault.to_string()))?;
    let looking = async {
        let assets = requests.compare_all().await;
        let me = &settings.runtime_id;
        let (may_export, may_forge) = match peer {
            Some(peer) => (may(&requests, me, peer).await, may(&requests, peer, me).await),
            None => (None, None),
        };
        Survey { server, max_payload, assets, may_export, may_forge }
    };
    let outcome = tokio::select! {
        survey = looking => Ok(survey),
        reason = serve(connection) => Err(ConnectFault::Unreachable(reason)),
    };
    end.sever().await;
    outcome
}

/// Whether we may publish a packet of `source` for `target`.
async fn may(requests: &Requests, source: &RuntimeId, target: &RuntimeId) -> Option<bool> {
    let subject = requests.settings.broker.prefix.state(source, target);
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Expected-Stream", NO_STREAM);
    match requests.ask(subject.as_str(), headers, Bytes::new()).await {
        Ok(_) | Err(RequestFault::NoJetStream) => Some(true),
        Err(RequestFault::Denied { .. }) => Some(false),
        Err(_) => None,
    }
}
