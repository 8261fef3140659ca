//! What others want of the worker: lists, and snapshots of peers, judged before they are fetched.

use super::super::fetch::{self, FetchFault, Item, Listing, Signer, Source, Taken};
use super::super::gate::{Judged, Question};
use super::super::job::{Fetched, Job};
use super::super::progress::{Direction, Tracker, stored_total};
use super::super::{Which, upload};
use super::{Worker, open};
use crate::protocol::envelope::Admission;
use crate::protocol::exchange::ExchangeMode;
use crate::protocol::packet::RuntimeId;
use crate::protocol::refusal::Refusal;

impl Worker<'_> {
    pub(super) async fn serve(&mut self, job: Job) {
        match job {
            Job::Watch { seq, answer } => self.watch(seq, answer),
            Job::Fetch { source, which, answer } => {
                let fetched = self.fetch(source, which).await;
                drop(answer.send(fetched));
            }
            Job::List { source, answer } => {
                let listed = self.listing(source).await;
                let listed = listed.map(|(source, found)| Item::of_listing(&found, &source));
                drop(answer.send(listed));
            }
            Job::Collect { answer } => {
                // Nothing is let go that a closed gate keeps us from asking about.
                if let Some((grant, _)) = self.shared.gate.ask(Question::Upload).await
                    && let Err(fault) = self.collect(grant.now, u64::MAX).await
                {
                    tracing::warn!(%fault, "retention did not finish");
                    self.holdings = None;
                }
                let _ = answer.send(());
            }
        }
    }

    async fn fetch(&mut self, source: RuntimeId, which: Which) -> Result<Fetched, FetchFault> {
        let (source, listing) = self.listing(source).await?;
        let manifests = &listing.manifests;
        let manifest = fetch::choose(manifests, &source, which)?;
        if let Some(newest) = manifests.last() {
            let floor = self.floors.entry(source.id.clone()).or_default();
            *floor = newest.seq.max(*floor);
        }
        let (seq, media_type) = (manifest.seq, manifest.media_type.clone());
        let verdict = source.terms.as_ref().and_then(|_| listing.exchange(seq).transpose());
        let admission = match verdict {
            Some(verdict) => Some(self.judge(&source.id, seq, verdict).await?),
            None => None,
        };
        if let Some(plain) = self.shared.cache.get(manifest.digest) {
            return Ok(Fetched { seq, media_type, plain, admission });
        }
        let Some(bucket) = &self.bucket else {
            return Err(FetchFault::Broker("no connection".to_owned()));
        };
        let total = stored_total(manifests, manifest);
        let both = manifest.size.saturating_mul(2).saturating_add(total.unwrap_or(0));
        let taken = self.shared.memory.take(both).await;
        let _taken = taken.map_err(|fault| FetchFault::Broker(fault.to_string()))?;
        let tracker = Tracker::new(Direction::Fetch, manifest, total, &self.shared.settings.feed);
        let bytes_max = self.shared.settings.bytes_max;
        let step = |done| tracker.step(done);
        let plain = fetch::fetch(bucket, manifest, bytes_max, &step).await?;
        tracker.done();
        self.shared.cache.put(&plain);
        Ok(Fetched { seq, media_type, plain, admission })
    }

    /// Counts the verdict on a peer's snapshot that is asked for, and has it written down if it is
    /// news: before anything of the snapshot is fetched, and so before the runtime has it.
    async fn judge(
        &mut self,
        source: &RuntimeId,
        seq: u64,
        verdict: Result<Taken, Refusal>,
    ) -> Result<Admission, FetchFault> {
        self.shared.counts.judged(verdict.as_ref().map(|taken| &taken.admission));
        let of_news = |Taken { admission, trace }| (admission, trace);
        let news = Judged {
            source: source.clone(),
            seq,
            verdict: verdict.clone().map(of_news).map_err(|refusal| refusal.fault),
        };
        if self.judged.get(source) != Some(&news) {
            self.judged.insert(source.clone(), news.clone());
            self.shared.gate.tell(Question::Judged(news)).await;
        }
        match verdict {
            Ok(taken) => Ok(taken.admission),
            Err(Refusal { detail, .. }) => {
                Err(FetchFault::Refused { source_id: source.clone(), detail })
            }
        }
    }

    /// Asks the gate, checks the authorisation, reads the list.
    async fn listing(&mut self, id: RuntimeId) -> Result<(Source, Listing), FetchFault> {
        let of = |answer| Question::Fetch { source: id.clone(), answer };
        let (grant, mode) = self.shared.gate.ask(of).await.ok_or(FetchFault::Isolated)?;
        let trust = self.shared.trust.borrow().clone();
        let is_own = id == self.shared.settings.runtime_id;
        let source = if is_own {
            upload::ourselves(&self.shared, grant.now)
        } else {
            let found = trust.sources.get(&id);
            let found = found.filter(|(_, reader)| reader.is_current(grant.now));
            let (key_id, reader) = found.ok_or_else(|| FetchFault::Unauthorised(id.clone()))?;
            if mode == ExchangeMode::Rejected {
                let detail = "nothing is exchanged with it: it speaks another major version".into();
                return Err(FetchFault::Refused { source_id: id, detail });
            }
            Source {
                signer: Signer::peer(key_id.as_ref()),
                floor: self.floors.get(&id).copied().unwrap_or(0),
                seq_max: self.shared.seq_max(grant.now),
                terms: Some((reader.terms.clone(), grant.now)),
                id,
            }
        };
        let bucket = open(&mut self.bucket, &self.shared).await?;
        match fetch::list(bucket, &source, &trust.keyring).await {
            Ok(listing) => {
                if is_own {
                    self.shared.show_ignored(&listing.ignored);
                }
                Ok((source, listing))
            }
            Err(fault) => {
                self.hang_up().await;
                Err(fault)
            }
        }
    }
}
