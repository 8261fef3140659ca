//! `ls` and `restore`: straight from the bucket, with the configuration's broker and keys.

use std::collections::BTreeMap;
use std::io::{Write, stdout};
use std::path::Path;

use super::super::files::Files;
use super::super::sysexits;
use super::bar::Meter;
use super::target::Target;
use super::{Fault, say};
use crate::protocol::packet::RuntimeId;
use crate::protocol::time::Timestamp;
use crate::snapshots::fetch::{FetchFault, Item, Listing, Signer, Source, fetch};
use crate::snapshots::progress::stored_total;
use crate::snapshots::{self, bucket::Bucket};

/// The environment, and what the clock shows.
type Moment<'a> = (&'a BTreeMap<String, String>, Timestamp);

struct Found {
    bucket: Bucket,
    source: Source,
    listing: Listing,
    bytes_max: u64,
}

async fn look(
    files: &Files,
    (environment, now): Moment<'_>,
    runtime: &str,
) -> Result<Found, Fault> {
    let config = files.load(environment)?;
    let id = RuntimeId::new(runtime)
        .ok_or_else(|| Fault::new(sysexits::CONFIG, format!("{runtime:?} is not a runtime id")))?;
    let unavailable = |text: String| Fault::new(sysexits::UNAVAILABLE, text);
    let settings = crate::nats::settings::Settings::of(&config);
    let signer = if id == config.runtime.id {
        Signer::own(&config.keyring)
    } else {
        Signer::peer(config.peers.get(&id).and_then(|peer| peer.key_id.as_ref()))
    };
    // Whoever asks here sees all, also what no clock has reached; a peer's is judged all the same.
    let terms = config.live().peers.remove(&id).map(|peer| (peer.terms, now));
    let source = Source { signer, terms, ..Source::any(id) };
    let looked = async {
        let bucket =
            Bucket::open(&settings).await.map_err(|fault| unavailable(fault.to_string()))?;
        let listing = snapshots::fetch::list(&bucket, &source, &config.keyring)
            .await
            .map_err(|fault| unavailable(fault.to_string()))?;
        for ignored in &listing.ignored {
            say(&format!("ignored: {}: {}", ignored.key, ignored.detail));
        }
        Ok((bucket, listing))
    };
    let (bucket, listing) = Meter::new("list").drawn(looked).await?;
    Ok(Found { bucket, source, listing, bytes_max: config.snapshot.bytes_max })
}

/// Lists the snapshots of one runtime.
pub(super) async fn list(
    files: &Files,
    (environment, now): Moment<'_>,
    runtime: &str,
    json: bool,
) -> Result<(), Fault> {
    let found = look(files, (environment, now), runtime).await?;
    let mut output = stdout();
    for item in Item::of_listing(&found.listing, &found.source) {
        let line = if json {
            serde_json::to_string(&item).unwrap_or_default()
        } else {
            let refused = item.refused.map_or_else(String::new, |why| format!("  refused: {why}"));
            format!(
                "{}  {}  {}  {} bytes  {} stored  {} objects  {}{refused}",
                item.seq,
                item.time,
                item.kind.unwrap_or_default(),
                item.size,
                item.stored_bytes.unwrap_or_default(),
                item.objects,
                item.digest,
            )
        };
        // A reader that has seen enough is no fault.
        if writeln!(output, "{line}").is_err() {
            break;
        }
    }
    found.bucket.sever().await;
    Ok(())
}

/// Restores one snapshot of one runtime.
pub(super) async fn restore(
    files: &Files,
    (environment, now): Moment<'_>,
    runtime: &str,
    seq: Option<u64>,
    out: &Path,
) -> Result<(), Fault> {
    let mut target = Target::open(out)?;
    let found = look(files, (environment, now), runtime).await?;
    let manifests = &found.listing.manifests;
    let manifest = match seq {
        None => manifests.last(),
        Some(seq) => manifests.iter().find(|manifest| manifest.seq == seq),
    };
    let manifest = manifest.ok_or_else(|| {
        Fault::new(sysexits::NO_INPUT, format!("no such snapshot of {runtime} at the broker"))
    })?;
    if found.source.terms.is_some() {
        found.listing.exchange(manifest.seq).map_err(|refusal| {
            let said = format!("the snapshot of {runtime} was refused: {}", refusal.detail);
            Fault::new(sysexits::DATA_ERROR, said)
        })?;
    }
    let meter = Meter::new("restore");
    meter.set_total(stored_total(manifests, manifest).unwrap_or(0));
    let step = |done| meter.set(done);
    let fetched = meter.drawn(fetch(&found.bucket, manifest, found.bytes_max, &step)).await;
    found.bucket.sever().await;
    let plain = fetched.map_err(|fault| {
        let code = match &fault {
            FetchFault::Refused { .. } => sysexits::DATA_ERROR,
            FetchFault::Broker(_)
            | FetchFault::Isolated
            | FetchFault::TimedOut
            | FetchFault::Unauthorised(_)
            | FetchFault::Unknown(_) => sysexits::UNAVAILABLE,
        };
        Fault::new(code, fault.to_string())
    })?;
    target.write(plain.bytes())?;
    let name = target.name().to_owned();
    target.keep()?;
    say(&format!(
        "{name}: {} bytes, {}, from {} objects",
        plain.size(),
        plain.digest(),
        manifest.objects.len(),
    ));
    Ok(())
}
