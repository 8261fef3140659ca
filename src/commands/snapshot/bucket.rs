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
use crate::protocol::snapshot::Manifest;
use crate::snapshots::fetch::{FetchFault, Item, Signer, Source, fetch};
use crate::snapshots::progress::stored_total;
use crate::snapshots::{self, bucket::Bucket};

struct Found {
    bucket: Bucket,
    manifests: Vec<Manifest>,
    bytes_max: u64,
}

async fn look(
    files: &Files,
    environment: &BTreeMap<String, String>,
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
    // Whoever asks here sees all, also what no clock has reached.
    let source = Source { signer, ..Source::any(id) };
    let looked = async {
        let bucket =
            Bucket::open(&settings).await.map_err(|fault| unavailable(fault.to_string()))?;
        let listing = snapshots::fetch::list(&bucket, &source, &config.keyring)
            .await
            .map_err(|fault| unavailable(fault.to_string()))?;
        for ignored in &listing.ignored {
            say(&format!("ignored: {}: {}", ignored.key, ignored.detail));
        }
        Ok((bucket, listing.manifests))
    };
    let (bucket, manifests) = Meter::new("list").drawn(looked).await?;
    Ok(Found { bucket, manifests, bytes_max: config.snapshot.bytes_max })
}

/// Lists the snapshots of one runtime.
pub(super) async fn list(
    files: &Files,
    environment: &BTreeMap<String, String>,
    runtime: &str,
    json: bool,
) -> Result<(), Fault> {
    let found = look(files, environment, runtime).await?;
    let mut output = stdout();
    for manifest in &found.manifests {
        let line = if json {
            serde_json::to_string(&Item::of_manifest(manifest)).unwrap_or_default()
        } else {
            format!(
                "{}  {}  {}  {} bytes  {} stored  {} objects  {}",
                manifest.seq,
                manifest.time,
                manifest.kind().word(),
                manifest.size,
                manifest.stored_bytes,
                manifest.objects.len(),
                manifest.digest,
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
    environment: &BTreeMap<String, String>,
    runtime: &str,
    seq: Option<u64>,
    out: &Path,
) -> Result<(), Fault> {
    let mut target = Target::open(out)?;
    let found = look(files, environment, runtime).await?;
    let manifest = match seq {
        None => found.manifests.last(),
        Some(seq) => found.manifests.iter().find(|manifest| manifest.seq == seq),
    };
    let manifest = manifest.ok_or_else(|| {
        Fault::new(sysexits::NO_INPUT, format!("no such snapshot of {runtime} at the broker"))
    })?;
    let meter = Meter::new("restore");
    meter.expect(stored_total(&found.manifests, manifest).unwrap_or(0));
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
