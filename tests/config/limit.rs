//! A configuration under the memory limit of a container; files stand in for its control group.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use driftgate::commands::check::{Check, run};
use driftgate::config::{Config, MemoryLimit, Mistakes};
use driftgate::protocol::time::Timestamp;

use super::settings::{LEAST, files, variables};

const MIB: u64 = 1 << 20;

/// What a process in a group with these files finds.
fn found(written: &[(&str, &str)]) -> Option<MemoryLimit> {
    let root = tempfile::tempdir().unwrap();
    for (name, text) in written {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    MemoryLimit::of_this_process(root.path())
}

fn load(limit: u64, environment: &[(&str, &str)]) -> Result<Config, Mistakes> {
    let read_file = files(&[("/driftgate.toml", LEAST)]);
    let files = ["/driftgate.toml".into()];
    let limit = Some(MemoryLimit(limit));
    Config::load_within(limit, &files, &variables(environment), &read_file)
}

fn mistakes(limit: u64, environment: &[(&str, &str)]) -> Vec<String> {
    let mistakes = load(limit, environment).unwrap_err();
    mistakes.listed().iter().map(ToString::to_string).collect()
}

#[test]
fn the_limit_of_either_version_is_read_and_the_least_binds() {
    let v2 = ("proc/self/cgroup", "0::/pod/box\n");
    let inner = ("sys/fs/cgroup/pod/box/memory.max", "max\n");
    assert_eq!(found(&[]), None);
    assert_eq!(found(&[v2, inner]), None);
    let outer = ("sys/fs/cgroup/pod/memory.max", "100663296\n");
    assert_eq!(found(&[v2, inner, outer]), Some(MemoryLimit(96 * MIB)));
    // In a namespace of its own the group is the root.
    let own = ("proc/self/cgroup", "0::/\n");
    assert_eq!(
        found(&[own, ("sys/fs/cgroup/memory.max", "67108864\n")]),
        Some(MemoryLimit(64 * MIB))
    );
    let v1 = ("proc/self/cgroup", "5:cpu:/x\n4:memory:/kube\n");
    let none = ("sys/fs/cgroup/memory/kube/memory.limit_in_bytes", "9223372036854771712\n");
    assert_eq!(found(&[v1, none]), None);
    let some = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "67108864\n");
    assert_eq!(found(&[v1, none, some]), Some(MemoryLimit(64 * MIB)));
    for text in ["", "lots\n", "-1\n", "18446744073709551616\n"] {
        assert_eq!(found(&[own, ("sys/fs/cgroup/memory.max", text)]), None, "{text:?}");
    }
}

#[test]
fn what_nobody_set_shrinks_and_a_wide_limit_changes_nothing() {
    let fitted = load(96 * MIB, &[]).unwrap();
    let sizes = |config: &Config| (config.snapshot.bytes_max, config.snapshot.cache_bytes_max);
    assert_eq!(sizes(&fitted), (12 * MIB, 12 * MIB));
    let fit = fitted.fit.clone().unwrap();
    assert_eq!(fit.shrunk, ["snapshot.bytes_max", "snapshot.cache_bytes_max"]);
    assert_eq!(fit.snapshots_bytes, 48 * MIB);
    // A reload under the same limit finds no difference.
    assert_eq!(Config::difference(&fitted, &load(96 * MIB, &[]).unwrap()), []);
    let wide = load(304 * MIB, &[]).unwrap();
    assert_eq!(sizes(&wide), (64 * MIB, 64 * MIB));
    assert_eq!(wide.fit.unwrap().shrunk, Vec::<&str>::new());
    let one_set = load(96 * MIB, &[("snapshot.cache_bytes_max", "1MiB")]).unwrap();
    assert_eq!(sizes(&one_set), (12 * MIB, MIB));
    assert_eq!(one_set.fit.unwrap().shrunk, ["snapshot.bytes_max"]);
}

#[test]
fn what_somebody_set_and_cannot_be_held_is_refused_with_both_numbers() {
    let set = [("snapshot.bytes_max", "64MiB"), ("snapshot.cache_bytes_max", "13MiB")];
    assert_eq!(
        mistakes(96 * MIB, &set),
        [
            "snapshot.bytes_max: 64 MiB needs a memory limit of 304 MiB, and the container's is 96 \
             MiB, which lets it be 12 MiB",
            "snapshot.cache_bytes_max: 13 MiB needs a memory limit of 100 MiB, and the container's \
             is 96 MiB, which lets it be 12 MiB",
        ]
    );
    assert!(load(304 * MIB, &set).is_ok());
    // All mistakes at once, whatever they are about.
    let both = mistakes(96 * MIB, &[("snapshot.bytes_max", "64MiB"), ("nats.window", "0")]);
    assert_eq!(both.len(), 2, "{both:?}");
}

#[test]
fn below_the_floor_nothing_starts() {
    assert!(load(52 * MIB, &[]).is_ok());
    assert_eq!(
        mistakes(52 * MIB - 1, &[]),
        [
            "the container's memory limit: 51 MiB is too little: 256 connections and 0 peers take 48 \
          MiB, and snapshots 4 MiB at least"
        ]
    );
    let many = mistakes(96 * MIB, &[("listen.connections_max", "65536")]);
    assert!(many[0].contains("65536 connections"), "{many:?}");
    assert!(mistakes(0, &[])[0].contains("0 MiB is too little"));
}

#[test]
fn check_says_what_the_limit_made_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let (key, file) = (folder.path().join("k1"), folder.path().join("driftgate.toml"));
    fs::write(&key, "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n").unwrap();
    let text = LEAST.replace("/k1", key.to_str().unwrap()).replace("/k2", key.to_str().unwrap());
    fs::write(&file, text).unwrap();
    let check = |limit: Option<u64>| {
        let mut output = Vec::new();
        let check = Check { config: vec![Path::new(&file).to_owned()].into(), json: false };
        let limit = limit.map(MemoryLimit);
        let code = run(&check, &BTreeMap::new(), limit, Timestamp::default(), &mut output);
        (format!("{code:?}"), String::from_utf8(output).unwrap())
    };
    let (_, shown) = check(Some(96 * MIB));
    let said = "memory       limit 96 MiB: snapshots up to 12 MiB, cache 12 MiB\n             \
                snapshot.bytes_max is not set and made to fit\n";
    assert!(shown.contains(said), "{shown}");
    assert!(!check(None).1.contains("memory "));
    let (code, shown) = check(Some(20 * MIB));
    assert_eq!(code, format!("{:?}", std::process::ExitCode::from(78)));
    assert!(shown.contains("the container's memory limit: 20 MiB is too little"), "{shown}");
}
