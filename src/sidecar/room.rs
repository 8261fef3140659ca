//! The snapshots' room, put together from the configuration.
//!
//! A spool that another sidecar holds keeps this one from starting: two writers of one chain would
//! break it. A spool that cannot be used otherwise costs the snapshots and nothing else (P10).

use super::StartFault;
use crate::config::Config;
use crate::nats;
use crate::protocol::inbox::Peer;
use crate::protocol::packet::RuntimeId;
use crate::protocol::snapshot::{Level, Reader};
use crate::snapshots::gate::DriverEnd;
use crate::snapshots::spool::SpoolFault;
use crate::snapshots::{self, Settings, Snapshots, Started, Trust, Worker};
use crate::telemetry::{Condition, Conditions, Feed};

/// Starts the room; `None`, and a condition, when its folder cannot be used.
pub(super) fn start(
    config: &Config,
    conditions: &Conditions,
    feed: &Feed,
) -> Result<Option<Started>, StartFault> {
    let snapshot = &config.snapshot;
    let settings = Settings {
        runtime_id: config.runtime.id.clone(),
        nats: nats::settings::Settings::of(config),
        folder: snapshot.spool.join("snapshots"),
        spool_bytes_max: snapshot.spool_bytes_max,
        bytes_max: snapshot.bytes_max,
        cache_bytes_max: snapshot.cache_bytes_max,
        memory_bytes: config.fit.as_ref().map(|fit| fit.snapshots_bytes),
        keep_full: usize::try_from(snapshot.keep_full).unwrap_or(usize::MAX),
        keep_for: snapshot.keep_for,
        stored_bytes_max: snapshot.stored_bytes_max,
        clock_skew_max: config.containment.clock_skew_max,
        level: Level::new(snapshot.level).unwrap_or(Level::DEFAULT),
        reply_timeout: config.listen.reply_timeout,
        feed: feed.clone(),
        conditions: conditions.clone(),
    };
    match snapshots::start(settings, trust(config)) {
        Ok(started) => Ok(Some(started)),
        Err(fault @ SpoolFault::Held(_)) => Err(StartFault::Spool(fault)),
        Err(fault) => {
            let text = format!("no memory snapshots: {fault}");
            conditions.begin(Condition::SpoolUnusable, text);
            Ok(None)
        }
    }
}

/// Its three ends.
pub(super) fn parts(
    room: Option<Started>,
) -> (Option<Snapshots>, Option<DriverEnd>, Option<Worker>) {
    match room {
        Some(started) => (Some(started.snapshots), Some(started.driver_end), Some(started.worker)),
        None => (None, None, None),
    }
}

/// Who may be read, and with which keys.
pub(super) fn trust(config: &Config) -> Trust {
    let peers = config.live().peers;
    let reader = |peer: &Peer| Reader { terms: peer.terms.clone(), expires: peer.expires };
    let source =
        |(id, peer): (&RuntimeId, &Peer)| (id.clone(), (peer.key_id.clone(), reader(peer)));
    Trust {
        keyring: config.keyring.clone(),
        sources: peers.iter().filter(|(_, peer)| peer.import_snapshot).map(source).collect(),
        readers: peers.values().filter(|peer| peer.export_snapshot).map(reader).collect(),
    }
}
