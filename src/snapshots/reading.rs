//! Reading snapshots: our own from the spool or the broker, those of peers from the broker.
//!
//! What deliberately is not here: talking to the broker, which the worker does.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::fetch::{FetchFault, Item};
use super::job::{Fetched, Job};
use super::memory::Taken;
use super::spool::SpoolFault;
use super::{FETCH_TIMEOUT, READING_TIMEOUT, Refused, Snapshots, Which, blocking};
use crate::protocol::digest::Digest;
use crate::protocol::packet::RuntimeId;
use crate::protocol::snapshot::Plain;

impl Snapshots {
    /// One of our own: from the spool, or from the broker where only that has it. While its bytes
    /// are held, one of `READINGS_MAX` places is taken.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn own(&self, which: Which) -> Result<(String, Plain), Refused> {
        if self.shared.gate.order().is_isolated {
            return Err(Refused::Isolated);
        }
        let place = self.reading().await?;
        let (media_type, plain, taken) = self.find_own(which).await?;
        Ok((media_type, held(plain, place, taken)))
    }

    async fn find_own(&self, which: Which) -> Result<(String, Plain, Option<Taken>), Refused> {
        let spool = self.shared.spool()?;
        let entry = match which {
            Which::Newest => spool.newest(),
            Which::Digest(digest) => spool.find(digest),
        };
        if let Some(entry) = entry {
            if let Some(plain) = self.shared.cache.get(entry.digest) {
                return Ok((entry.media_type, plain, None));
            }
            let seq = entry.seq;
            let taken = self.shared.memory.take(entry.size).await?;
            let shelf = Arc::clone(&spool);
            match blocking(move || shelf.read(seq)).await? {
                Ok(plain) => return Ok((entry.media_type, plain, Some(taken))),
                // It is damaged or made way; the broker may have it.
                Err(SpoolFault::Damaged(_) | SpoolFault::Unknown) => self.shared.show_spool(&spool),
                Err(fault) => return Err(fault.into()),
            }
        }
        let fetched = self.fetch(self.shared.settings.runtime_id.clone(), which).await?;
        let Fetched { media_type, plain, .. } = fetched;
        let taken = self.shared.memory.take(plain.size()).await?;
        Ok((media_type, plain, Some(taken)))
    }

    /// Whether a source is this runtime itself.
    #[must_use]
    pub fn is_own(&self, source: &RuntimeId) -> bool {
        *source == self.shared.settings.runtime_id
    }

    /// A peer's, verified and judged. Takes a place as [`Snapshots::own`] does.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn peer(&self, source: RuntimeId, which: Which) -> Result<Fetched, Refused> {
        let place = self.reading().await?;
        let fetched = self.fetch(source, which).await?;
        let taken = self.shared.memory.take(fetched.plain.size()).await?;
        Ok(Fetched { plain: held(fetched.plain, place, Some(taken)), ..fetched })
    }

    async fn reading(&self) -> Result<OwnedSemaphorePermit, Refused> {
        let place = Arc::clone(&self.shared.readings).acquire_owned();
        let place = tokio::time::timeout(READING_TIMEOUT, place).await;
        // The semaphore is never closed.
        place.ok().and_then(Result::ok).ok_or(Refused::Busy)
    }

    async fn fetch(&self, source: RuntimeId, which: Which) -> Result<Fetched, Refused> {
        let (answer, reply) = oneshot::channel();
        let fetched = self.order(Job::Fetch { source, which, answer }, reply).await;
        match &fetched {
            Ok(fetched) => self.shared.counts.fetched(fetched.plain.size()),
            Err(refused) => self.shared.counts.fetch_failed(refused.fetch_word()),
        }
        fetched
    }

    /// What is known of a source's snapshots, oldest first: at the broker, and for ourselves also
    /// what waits in the spool or is revoked.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn list(&self, source: Option<RuntimeId>) -> Result<Vec<Item>, Refused> {
        let own = self.shared.settings.runtime_id.clone();
        let source = source.unwrap_or_else(|| own.clone());
        let is_own = source == own;
        let (answer, reply) = oneshot::channel();
        let mut items = match self.order(Job::List { source, answer }, reply).await {
            Ok(items) => items,
            // Our own list does not need the broker.
            Err(Refused::Fetch(_) | Refused::NotReady) if is_own => Vec::new(),
            Err(refused) => return Err(refused),
        };
        if is_own {
            for entry in self.shared.spool()?.entries() {
                if !items.iter().any(|item| item.digest == entry.digest) {
                    items.push(Item::of_entry(&own, &entry));
                }
            }
            items.sort_by_key(|item| item.seq);
        }
        Ok(items)
    }

    async fn order<T>(
        &self,
        job: Job,
        reply: oneshot::Receiver<Result<T, FetchFault>>,
    ) -> Result<T, Refused> {
        if self.shared.gate.order().is_isolated {
            return Err(Refused::Isolated);
        }
        self.shared.jobs.try_send(job).map_err(|_| Refused::NotReady)?;
        match tokio::time::timeout(FETCH_TIMEOUT, reply).await {
            Ok(Ok(Err(FetchFault::Isolated))) => Err(Refused::Isolated),
            Ok(Ok(outcome)) => Ok(outcome?),
            Ok(Err(_)) => Err(Refused::NotReady),
            Err(_) => Err(FetchFault::TimedOut.into()),
        }
    }

    /// Plain bytes that are at hand: a dictionary that a client says it has.
    pub async fn at_hand(&self, digest: Digest) -> Option<Plain> {
        if let Some(plain) = self.shared.cache.get(digest) {
            return Some(plain);
        }
        let spool = self.shared.spool().ok()?;
        let entry = spool.find(digest)?;
        blocking(move || spool.read(entry.seq)).await.ok()?.ok()
    }
}

/// The same snapshot, which gives its place and memory back when the last of its bytes are let go.
fn held(plain: Plain, place: OwnedSemaphorePermit, taken: Option<Taken>) -> Plain {
    struct Held(
        Plain,
        #[expect(dead_code, reason = "dropping it is its use")]
        (OwnedSemaphorePermit, Option<Taken>),
    );
    impl AsRef<[u8]> for Held {
        fn as_ref(&self) -> &[u8] {
            self.0.bytes()
        }
    }
    let digest = plain.digest();
    Plain::hashed(Bytes::from_owner(Held(plain, (place, taken))), digest)
}
