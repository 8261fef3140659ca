//! What snapshots cost: stored bytes, CPU, objects per restore, memory, and all of it again through
//! the real binary and a real nats-server, where every snapshot is restored and compared byte for
//! byte.
//!
//! `DRIFTGATE_HORIZON=RUN.jsonl cargo bench --bench snapshot` takes snapshot n of the long run to
//! be the first n lines of a file; without it a run is made up. Then snapshots of 4, 16 and 64 MiB
//! with scattered edits and insertions. CPU is this thread's own, so that neighbours on the machine
//! do not count; times through the broker are those of the wall. With the argument `listing` only
//! the last table is made. Under `cargo test` it exits at once.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    reason = "a bench prints figures for people, and ends where something is wrong"
)]

#[path = "snapshot/broker.rs"]
mod broker;
#[path = "snapshot/codec.rs"]
mod codec;
#[path = "snapshot/listing.rs"]
mod listing;
#[path = "../support/mod.rs"]
mod support;

use std::fs;

use broker::Broker;
use codec::Codec;
use driftgate::snapshots::peak_bytes_max;
use support::horizon::{Edits, Horizon};

const LEVELS: [i32; 2] = [3, 9];
/// `snapshot.cache_bytes_max`, by default.
const CACHE_BYTES_MAX: u64 = 64 << 20;
const MIB: f64 = (1 << 20) as f64;

fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if std::env::args().any(|argument| argument == "listing") {
        return runtime.block_on(listing::print());
    }
    let horizon = Horizon::recorded_or_made(500);
    let snapshots = || horizon.snapshots().map(<[u8]>::to_vec);
    let mut rows = Vec::new();
    rows.extend(LEVELS.map(|level| Row::of(&horizon.name, level, snapshots())));
    for (mebibytes, count) in [(4, 40), (16, 24), (64, 12)] {
        let name = format!("{mebibytes} MiB edited");
        rows.extend(
            LEVELS.map(|level| Row::of(&name, level, Edits::new(mebibytes << 20).take(count))),
        );
    }
    println!("\nStored bytes and CPU (`previous`: a chain without end, the least there can be)");
    println!(
        "{:<15} {:>5} {:>5} {:>11} {:>11} {:>10} {:>6} {:>8} {:>7} {:>8} {:>8} {:>8}",
        "snapshots",
        "level",
        "count",
        "raw MiB",
        "each KiB",
        "stored KiB",
        "times",
        "previous",
        "objects",
        "each s",
        "ours s",
        "bases s"
    );
    rows.iter().for_each(Row::print_codec);
    println!("\nThrough `driftgate run` and a real nats-server, PUT to stored and bucket to bytes");
    println!(
        "{:<15} {:>5} {:>10} {:>6} {:>6} {:>9} {:>8} {:>7} {:>9} {:>8} {:>8} {:>8} {:>8}",
        "snapshots",
        "level",
        "stored KiB",
        "times",
        "objects",
        "put all s",
        "MiB/s",
        "equal",
        "get all s",
        "MiB/s",
        "idle MiB",
        "put peak",
        "get peak"
    );
    rows.iter().for_each(Row::print_broker);
    println!("\nPeak resident set of the sidecar above idle, as a multiple of base + source");
    println!(
        "{:<15} {:>5} {:>18} {:>8} {:>8}",
        "snapshots", "level", "base + source MiB", "put", "get"
    );
    let is_kept: Vec<bool> = rows.iter().map(Row::print_memory).collect();
    runtime.block_on(listing::print());
    assert!(!is_kept.contains(&false), "more memory than `peak_bytes_max` promises");
}

struct Row {
    name: String,
    level: i32,
    codec: Codec,
    broker: Broker,
}

impl Row {
    fn of(name: &str, level: i32, snapshots: impl Iterator<Item = Vec<u8>> + Clone) -> Self {
        let codec = Codec::of(level, snapshots.clone());
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let broker = runtime.block_on(Broker::of(level, snapshots));
        println!("{name} at level {level}: done");
        Self { name: name.to_owned(), level, codec, broker }
    }

    fn times(&self, stored: u64) -> f64 {
        self.codec.each as f64 / stored.max(1) as f64
    }

    fn print_codec(&self) {
        let codec = &self.codec;
        println!(
            "{:<15} {:>5} {:>5} {:>11.1} {:>11.1} {:>10.1} {:>6.1} {:>8.1} {:>7} {:>8.2} {:>8.2} {:>8.2}",
            self.name,
            self.level,
            codec.count,
            codec.raw as f64 / MIB,
            codec.each as f64 / 1024.0,
            codec.stored as f64 / 1024.0,
            self.times(codec.stored),
            self.times(codec.previous),
            codec.objects_max,
            codec.each_cpu.as_secs_f64(),
            codec.stored_cpu.as_secs_f64(),
            codec.base_cpu.as_secs_f64(),
        );
    }

    fn print_broker(&self) {
        let Broker { stored, objects_max, equal, put, get, idle, put_peak, get_peak } = self.broker;
        let rate = |seconds: f64| self.codec.raw as f64 / MIB / seconds;
        let [put, get] = [put, get].map(|time| time.as_secs_f64());
        println!(
            "{:<15} {:>5} {:>10.1} {:>6.1} {:>7} {:>9.1} {:>8.0} {:>7} {:>9.1} {:>8.0} {:>8.1} {:>8.1} {:>8.1}",
            self.name,
            self.level,
            stored as f64 / 1024.0,
            self.times(stored),
            objects_max,
            put,
            rate(put),
            equal,
            get,
            rate(get),
            idle as f64 / MIB,
            put_peak as f64 / MIB,
            get_peak as f64 / MIB,
        );
    }

    /// Returns whether the peaks are within what is promised.
    fn print_memory(&self) -> bool {
        let both = 2.0 * self.codec.largest as f64;
        let above = |peak: u64| peak.saturating_sub(self.broker.idle) as f64 / both;
        println!(
            "{:<15} {:>5} {:>18.1} {:>8.2} {:>8.2}",
            self.name,
            self.level,
            both / MIB,
            above(self.broker.put_peak),
            above(self.broker.get_peak),
        );
        let bound = self.broker.idle + peak_bytes_max(2 * self.codec.largest, CACHE_BYTES_MAX);
        self.broker.put_peak.max(self.broker.get_peak) <= bound
    }
}

/// Memory of a process by this name in its `status`, in bytes.
fn memory(process: u32, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
}
