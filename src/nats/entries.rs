//! A KV bucket (ADR-8) in which each runtime keeps one entry of its own, read over the driver's
//! link: presence, capabilities.
//!
//! An entry is read by direct get, one key at a time: a watcher would be a consumer, and the
//! 1,001st of a stream fails by default. What deliberately is not here: writing, which goes through
//! the link like all that leaves, and whom to believe.

use std::future::Future;

use async_nats::{HeaderMap, StatusCode};
use bytes::Bytes;

use super::headers;
use super::link::Link;
use super::object::{StoreFault, bucket};
use super::requests::Requests;

/// Longest value that is handed over, in bytes; a longer one counts as empty.
const VALUE_BYTES_MAX: usize = 64 * 1024;
/// Header that makes a message of a KV bucket a marker.
const OPERATION: &str = "KV-Operation";

/// One bucket on a link's connection.
#[derive(Clone, Debug)]
pub struct Entries {
    requests: Requests,
    bucket: &'static str,
}

/// One entry as it stands there. Nothing in it is proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The value, a copy of its own.
    pub value: Bytes,
    /// Header `Driftgate-Token`.
    pub token: Option<String>,
    /// Its place in the bucket's stream.
    pub revision: u64,
}

impl Entries {
    /// The bucket of that name. Needs [`Link::subscribe_acks`] before anything is asked.
    #[must_use]
    pub fn on(link: &Link, bucket: &'static str) -> Self {
        Self { requests: link.requests(), bucket }
    }

    /// Makes sure of the bucket: created when it is absent and `nats.provision` is set, else
    /// compared. Returns what of it weakens a promise.
    ///
    /// # Errors
    /// [`StoreFault`].
    pub fn ensure(&self) -> impl Future<Output = Result<Vec<String>, StoreFault>> + Send + use<> {
        let (requests, bucket) = (self.requests.clone(), self.bucket);
        async move {
            let wanted = bucket::BucketSpec::kv(bucket, requests.settings.broker.replicas);
            Ok(bucket::ensure(&requests, &wanted).await?.differences)
        }
    }

    /// What stands under a key.
    ///
    /// # Errors
    /// [`StoreFault`]: nothing is known of it.
    pub async fn get(&self, key: &str) -> Result<Option<Entry>, StoreFault> {
        let bucket = self.bucket;
        let call = format!("DIRECT.GET.KV_{bucket}.$KV.{bucket}.{key}");
        let subject = self.requests.settings.api(&call);
        let message = self.requests.ask(&subject, HeaderMap::new(), Bytes::new()).await?;
        match message.status {
            None | Some(StatusCode::OK) => {}
            Some(StatusCode::NOT_FOUND) => return Ok(None),
            Some(status) => return Err(StoreFault::Malformed(format!("{call}: {status}"))),
        }
        let header = |name: &str| message.headers.as_ref()?.get(name).map(ToString::to_string);
        if header(OPERATION).is_some() {
            return Ok(None);
        }
        let fits = message.payload.len() <= VALUE_BYTES_MAX;
        let value = message.payload.get(..).filter(|_| fits).unwrap_or_default();
        Ok(Some(Entry {
            // A copy, because the slice would keep the connection's whole read buffer alive.
            value: Bytes::copy_from_slice(value),
            token: headers::token(message.headers.as_ref()),
            revision: header("Nats-Sequence").and_then(|text| text.parse().ok()).unwrap_or(0),
        }))
    }
}
