//! The same snapshots through the real binary and a real nats-server: pushed over HTTP by one
//! sidecar, restored from the bucket here, and the newest by a peer. Each sidecar is a process of
//! its own, so its peak of memory is of this size and level alone.

use std::time::{Duration, Instant};

use driftgate::protocol::keyring::{KeyMaterial, Keyring};
use driftgate::protocol::packet::RuntimeId;
use driftgate::snapshots::bucket::Bucket;
use driftgate::snapshots::fetch::{Source, fetch, list};

use super::memory;
use super::support::nats_server::NatsServer;
use super::support::sidecar::{SECRET, Sidecar};
use super::support::snapshots::{plan, pull, push};

pub(crate) struct Broker {
    pub(crate) stored: u64,
    pub(crate) objects_max: usize,
    /// Restored and compared byte for byte.
    pub(crate) equal: usize,
    pub(crate) put: Duration,
    pub(crate) get: Duration,
    /// Resident set of a sidecar that has moved nothing, in bytes.
    pub(crate) idle: u64,
    /// Largest resident set of the sidecar that was pushed to, in bytes.
    pub(crate) put_peak: u64,
    /// Of the sidecar that fetched the newest snapshot of the other, in bytes.
    pub(crate) get_peak: u64,
}

impl Broker {
    pub(crate) async fn of(level: i32, snapshots: impl Iterator<Item = Vec<u8>> + Clone) -> Self {
        let server = NatsServer::start();
        let more = format!(
            "[snapshot]\nlevel = {level}\nkeep_full = 1000\nbytes_max = \"128MiB\"\n\
             spool_bytes_max = \"2GiB\"\n[listen]\nreply_timeout = \"1m\"\n\
             [containment]\nstale_after = \"24h\"\n"
        );
        let planner = plan("planner", "critic", &server.url()).with(&more);
        let planner = Sidecar::connected(planner).await;
        planner.report(0.2).await;
        let idle = memory(planner.id(), "VmRSS:");
        let mut put = Duration::ZERO;
        for snapshot in snapshots.clone() {
            let begin = Instant::now();
            let reply = push(&planner, &snapshot).await;
            put += begin.elapsed();
            assert_eq!(reply.status, 201, "{}", reply.json());
        }
        let put_peak = memory(planner.id(), "VmHWM:");
        let critic = plan("critic", "planner", &server.url()).with(&more);
        let critic = Sidecar::connected(critic).await;
        let newest = pull(&critic, "?source=planner", "").await;
        assert_eq!(newest.status, 200, "{}", newest.head);
        assert!(snapshots.clone().last().is_some_and(|last| last == newest.body));
        let get_peak = memory(critic.id(), "VmHWM:");
        let mut broker = Self {
            stored: 0,
            objects_max: 0,
            equal: 0,
            put,
            get: Duration::ZERO,
            idle,
            put_peak,
            get_peak,
        };
        broker.restore(&server, snapshots).await;
        broker
    }

    /// Restores every snapshot from the bucket.
    async fn restore(&mut self, server: &NatsServer, snapshots: impl Iterator<Item = Vec<u8>>) {
        let bucket = Bucket::open(&server.settings("observer")).await.unwrap();
        let key = KeyMaterial::hmac_secret(&SECRET).unwrap();
        let keyring = Keyring::new([("k1".to_owned(), key)], None).unwrap();
        let source = Source::any(RuntimeId::new("planner").unwrap());
        let found = list(&bucket, &source, &keyring).await.unwrap().manifests;
        let mut snapshots = snapshots;
        for manifest in &found {
            let begin = Instant::now();
            let restored = fetch(&bucket, manifest, 1 << 30, &|_| {}).await.unwrap();
            self.get += begin.elapsed();
            let snapshot = snapshots.next().expect("as many as were pushed");
            assert!(*restored.bytes() == snapshot, "snapshot {} differs", manifest.seq);
            self.equal += 1;
            self.stored += manifest.stored_bytes;
            self.objects_max = self.objects_max.max(manifest.objects.len());
        }
        assert!(snapshots.next().is_none(), "each that was pushed is in the bucket");
        bucket.sever().await;
    }
}
