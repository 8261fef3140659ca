//! A KV bucket (ADR-8) on the connection of an object store, readable by `nats kv ls|get|watch`.
//!
//! Keys are read by a prefix of whole tokens, so that reading costs what stands under the prefix
//! and not what the bucket holds. A deleted key leaves a marker, which the broker removes after
//! [`TOMBSTONE_AGE`] where it can expire single messages (nats-server 2.11), and which is removed
//! at once where it cannot. What deliberately is not here: revisions, history and watching.

use std::collections::VecDeque;
use std::sync::Arc;

use async_nats::HeaderMap;
use bytes::Bytes;

use super::read::Reader;
use super::{Shared, Store, StoreFault, TOMBSTONE_AGE, bucket};
use crate::nats::{ack, headers};

/// Header that makes a message of a KV bucket a marker.
const OPERATION: &str = "KV-Operation";

/// One KV bucket. A clone is the same bucket on the same connection.
#[derive(Clone, Debug)]
pub struct Kv {
    shared: Arc<Shared>,
    bucket: String,
    stream: String,
    expires: bool,
}

/// One entry as it stands there. Nothing in it is proven.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KvEntry {
    /// Under which key.
    pub key: String,
    /// The value.
    pub value: Bytes,
    /// Header `Driftgate-Exchange`; see [`headers::envelope`].
    pub envelope: Option<String>,
}

/// What [`Kv::entries`] found, in the order in which it was stored.
pub type Entries = VecDeque<KvEntry>;

impl Store {
    /// Makes sure of a KV bucket on this connection: created when it is absent and
    /// `nats.provision` is set, else bound and compared. Returns what of it weakens a promise.
    ///
    /// # Errors
    /// [`StoreFault::Absent`]; what the broker answers.
    pub async fn kv(&self, bucket: &str) -> Result<(Kv, Vec<String>), StoreFault> {
        let wanted = bucket::BucketSpec::kv(bucket, self.0.requests.settings.broker.replicas);
        let found = bucket::ensure(&self.0.requests, &wanted).await?;
        let kv = Kv {
            shared: Arc::clone(&self.0),
            bucket: bucket.to_owned(),
            stream: wanted.stream,
            expires: found.expires,
        };
        Ok((kv, found.differences))
    }
}

impl Kv {
    /// Stores a value in the place of whatever stands there, with the exchange envelope that it
    /// travels in, if any.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the value stored or not.
    ///
    /// # Errors
    /// [`StoreFault`].
    pub async fn put(
        &self,
        key: &str,
        value: Bytes,
        envelope: Option<&str>,
    ) -> Result<(), StoreFault> {
        self.publish(key, headers::enclosed(envelope), value).await
    }

    /// Deletes a key; one that is not there is deleted.
    ///
    /// # Errors
    /// [`StoreFault`].
    pub async fn delete(&self, key: &str) -> Result<(), StoreFault> {
        let mut headers = HeaderMap::new();
        headers.insert(OPERATION, "PURGE");
        headers.insert("Nats-Rollup", "sub");
        if self.expires {
            headers.insert("Nats-TTL", format!("{}s", TOMBSTONE_AGE.as_secs()).as_str());
        }
        self.publish(key, headers, Bytes::new()).await?;
        if self.expires {
            return Ok(());
        }
        self.shared.purge_of(&self.stream, &self.subject(key)).await
    }

    /// The newest `max` entries whose keys begin with the tokens of `prefix` and have one token
    /// more.
    ///
    /// # Errors
    /// [`StoreFault`].
    pub async fn entries(&self, prefix: &str, max: usize) -> Result<Entries, StoreFault> {
        let filter = self.subject(&format!("{prefix}.*"));
        let begin = self.subject("");
        let id = self.shared.next_id();
        let mut reader =
            Reader::start(&self.shared.requests, &self.stream, &filter, true, id).await?;
        let mut entries = Entries::new();
        while let Some(message) = reader.next().await? {
            let found = message.headers.as_ref();
            let is_marker = found.is_some_and(|headers| headers.get(OPERATION).is_some());
            let Some(key) = message.subject.strip_prefix(&begin).filter(|_| !is_marker) else {
                continue;
            };
            entries.push_back(KvEntry {
                key: key.to_owned(),
                envelope: headers::envelope(found),
                value: message.payload.clone(),
            });
            if entries.len() > max {
                entries.pop_front();
            }
        }
        Ok(entries)
    }

    async fn publish(&self, key: &str, headers: HeaderMap, value: Bytes) -> Result<(), StoreFault> {
        let requests = &self.shared.requests;
        let place = self.shared.place().await?;
        let mut answer = requests.store(place, &self.subject(key), headers, value).await?;
        let message = requests.landed(&mut answer).await?;
        ack::outcome(&message, &self.stream)?;
        Ok(())
    }

    fn subject(&self, key: &str) -> String {
        format!("$KV.{}.{key}", self.bucket)
    }
}
