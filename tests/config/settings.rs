//! The configuration: what is accepted, what is refused and how it is said.

mod documents;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use driftgate::config::{Change, Config, Effect, Mistakes, reference};
use driftgate::protocol::packet::RuntimeId;
use driftgate::protocol::time::Timestamp;

/// A whole configuration.
const WHOLE: &str = include_str!("../fixtures/whole.toml");
const WHOLE_YAML: &str = include_str!("../fixtures/whole.yaml");

/// The least that can run.
pub(crate) const LEAST: &str = r#"
runtime.id = "planner"
integrity.sign_with = "k1"
integrity.keys = [{ id = "k1", file = "/k1" }, { id = "k2", file = "/k2" }]
"#;

/// Base64 of 32 bytes of 7.
const KEY: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n";

fn seed() -> String {
    let pair = nkeys::KeyPair::new_from_raw(nkeys::KeyPairType::User, [9; 32]);
    pair.and_then(|pair| pair.seed()).unwrap_or_else(|error| panic!("{error}"))
}

/// Files that exist nowhere: the given ones, and for every other path what its name promises.
pub(crate) fn files(given: &[(&str, &str)]) -> impl Fn(&Path) -> io::Result<Vec<u8>> + use<> {
    let given: BTreeMap<PathBuf, String> =
        given.iter().map(|(path, text)| (PathBuf::from(path), (*text).to_owned())).collect();
    move |path| match given.get(path) {
        Some(text) => Ok(text.clone().into_bytes()),
        None if path.starts_with("/absent") => Err(io::ErrorKind::NotFound.into()),
        None if path.extension().is_some_and(|ending| ending == "nk") => Ok(seed().into_bytes()),
        None if path.ends_with("operator-token") => Ok(b"the-operators-own-token".to_vec()),
        None if path.extension().is_some_and(|ending| ending == "yml") => Ok(b"{}".to_vec()),
        None => Ok(KEY.as_bytes().to_vec()),
    }
}

pub(crate) fn variables(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let name = |key: &str| format!("DRIFTGATE__{}", key.to_uppercase().replace('.', "__"));
    pairs.iter().map(|(key, text)| (name(key), (*text).to_owned())).collect()
}

fn load_with(text: &str, environment: &[(&str, &str)]) -> Result<Config, Mistakes> {
    let read_file = files(&[("/driftgate.toml", text)]);
    Config::load(&["/driftgate.toml".into()], &variables(environment), &read_file)
}

pub(crate) fn accepted(text: &str, environment: &[(&str, &str)]) -> Config {
    load_with(text, environment).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

/// The mistakes, one line each.
fn refused(text: &str, environment: &[(&str, &str)]) -> Vec<String> {
    match load_with(text, environment) {
        Ok(_) => panic!("accepted: {text} {environment:?}"),
        Err(mistakes) => mistakes.listed().iter().map(ToString::to_string).collect(),
    }
}

fn documented() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/driftgate.toml");
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{error}"))
}

/// The documented file with every example in force, but of the credentials `only` one.
fn uncommented(only: &str) -> String {
    let mut text = String::new();
    for line in documented().lines() {
        let example = line.strip_prefix('#');
        let remark = example.is_some_and(|example| {
            example.is_empty()
                || example.starts_with(' ')
                || (example.contains("nats.") && !example.starts_with(only))
        });
        if !remark {
            text.push_str(example.unwrap_or(line));
        }
        text.push('\n');
    }
    text
}

/// Every key with a value that is not its default, and what else it needs.
type Alternative = (&'static str, &'static str, &'static [(&'static str, &'static str)]);
const TAIL: &[(&str, &str)] = &[("ingest.tail.path", "/cycles")];
const FLAPPING: &[(&str, &str)] =
    &[("containment.flapping.closings", "4"), ("containment.flapping.cycles", "10")];
const CLIENT: &[(&str, &str)] = &[("nats.tls.cert_file", "/cert"), ("nats.tls.key_file", "/key")];
const ALTERNATIVES: &[Alternative] = &[
    ("runtime.id", "other", &[]),
    ("runtime.attractor_type", "generative", &[]),
    ("runtime.profile", "reference-0.3", &[]),
    ("runtime.capabilities", "/capabilities.yml", &[]),
    ("nats.url", "tls://a.example:4222, tls://b.example:4222", &[]),
    ("nats.prefix", "site.driftgate", &[]),
    ("nats.creds_file", "/creds", &[]),
    ("nats.nkey_file", "/own.nk", &[]),
    ("nats.token_file", "/nats-token", &[]),
    ("nats.stream_quarantine", "REFUSED", &[]),
    ("nats.domain", "hub", &[]),
    ("listen.operator_token_file", "/operator-token", &[]),
    ("containment.mode", "shadow", &[]),
    ("containment.lock", "0.65", &[]),
    ("containment.flapping.closings", "3", FLAPPING),
    ("containment.flapping.cycles", "9", FLAPPING),
    ("snapshot.keep_for", "0s", &[]),
    ("snapshot.stored_bytes_max", "2GiB", &[]),
    ("nats.tls.first", "true", &[]),
    ("listen.socket_uids", "1000,1001", &[]),
    ("nats.tls.ca_file", "/ca", &[]),
    ("nats.tls.cert_file", "/other", CLIENT),
    ("nats.tls.key_file", "/other", CLIENT),
    ("nats.tls.required", "true", &[]),
    ("nats.provision", "false", &[]),
    ("nats.replicas", "3", &[]),
    ("nats.durability", "replicated", &[("nats.replicas", "5")]),
    ("nats.stream_out", "OUT", &[]),
    ("nats.stream_in", "IN", &[]),
    ("nats.inbox_prefix", "_INBOX.other", &[]),
    ("nats.connect_timeout", "1s", &[]),
    ("nats.ping_interval", "1m", &[]),
    ("nats.window", "1", &[]),
    ("nats.ack_timeout", "250ms", &[]),
    ("listen.api", "unix:/run/driftgate.sock", &[]),
    ("listen.admin", "0.0.0.0:7406", &[]),
    ("listen.token_file", "/token", &[]),
    ("listen.allowed_origins", "https://console.example,http://localhost:3000", &[]),
    ("listen.allowed_hosts", "planner.example:7405", &[]),
    ("listen.admin_hosts", "planner.svc", &[]),
    ("listen.console", "127.0.0.1:7407", &[]),
    ("console.fleet", "all", &[]),
    ("listen.body_bytes_max", "64KiB", &[]),
    ("listen.connections_max", "8", &[]),
    ("listen.header_timeout", "1", &[]),
    ("listen.reply_timeout", "3s", &[]),
    ("ingest.http", "false", TAIL),
    ("ingest.tail.path", "/other", TAIL),
    ("ingest.tail.interval", "1s", TAIL),
    ("ingest.tail.line_bytes_max", "1MiB", TAIL),
    ("containment.reopen", "0.4", &[]),
    ("containment.block", "0.48", &[]),
    ("containment.isolate", "0.55", &[]),
    ("containment.dwell", "3", &[]),
    ("containment.accept", "derived", &[]),
    ("containment.assumed_scr", "0.8", &[]),
    ("containment.caution", "block", &[]),
    ("containment.caution_every", "5", &[]),
    ("containment.stale_after", "1m", &[]),
    ("containment.silence_isolates_after", "15m", &[]),
    ("containment.isolate_after", "30m", &[]),
    ("containment.blocked_inbound", "hold", &[]),
    ("containment.barrier_timeout", "1s", &[]),
    ("containment.packet_max_age", "1m", &[]),
    ("containment.clock_skew_max", "0s", &[]),
    ("containment.hold_file", "/hold", &[]),
    ("integrity.sign_with", "k2", &[]),
    ("snapshot.spool", "/spool", &[]),
    ("snapshot.level", "19", &[]),
    ("snapshot.bytes_max", "1MiB", &[]),
    ("snapshot.spool_bytes_max", "1GiB", &[]),
    ("snapshot.cache_bytes_max", "0", &[]),
    ("snapshot.keep_full", "1", &[]),
    ("deliver.url", "http://127.0.0.1:8080/inbox", &[]),
    ("deliver.timeout", "1s", &[]),
    ("audit.file", "/audit", &[]),
    ("audit.bytes_max", "1MiB", &[]),
    ("audit.files_max", "1", &[]),
    ("log.level", "debug", &[]),
    ("log.format", "text", &[]),
];

#[test]
fn a_configuration_with_every_table_is_accepted_as_it_stands() {
    let config = accepted(WHOLE, &[]);
    assert_eq!(config.runtime.id.as_str(), "planner");
    let critic = &config.peers[&RuntimeId::new("critic").unwrap()];
    assert_eq!(critic.export.words(), ["state", "snapshot", "telemetry"]);
    assert_eq!(critic.import, critic.export);
    assert_eq!(config.keyring.sign_with(), Some("k1"));
    assert_eq!(config.warnings(Timestamp::default()), []);
}

#[test]
fn yaml_says_the_same_as_toml() {
    let read_file = files(&[("/driftgate.yaml", WHOLE_YAML)]);
    let yaml = Config::load(&["/driftgate.yaml".into()], &BTreeMap::new(), &read_file).unwrap();
    assert_eq!(yaml, accepted(WHOLE, &[]));
}

#[test]
fn the_documented_file_equals_the_defaults() {
    let read_file = files(&[("/least.toml", LEAST), ("/documented.toml", &documented())]);
    let paths = ["/least.toml".into(), "/documented.toml".into()];
    let config = Config::load(&paths, &BTreeMap::new(), &read_file).unwrap();
    assert_eq!(Config::difference(&config, &accepted(LEAST, &[])), []);
}

#[test]
fn the_examples_of_the_documented_file_are_accepted() {
    for only in ["creds_file", "nkey_file", "token_file"] {
        let text = uncommented(only);
        let seed = seed();
        let read_file = files(&[("/driftgate.toml", &text), ("/etc/driftgate/nats.nk", &seed)]);
        let loaded = Config::load(&["/driftgate.toml".into()], &BTreeMap::new(), &read_file);
        let config = loaded.unwrap_or_else(|mistakes| panic!("{mistakes}"));
        assert_eq!(config.peers.len(), 1);
        assert!(config.listen.token_file.is_some());
        assert!(config.tail().is_some());
        assert_eq!(config.flapping.closings, Some(3));
    }
}

#[test]
fn every_file_in_the_folder_parses() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file() && !path.ends_with("runtime_capabilities.yml"))
        .collect();
    paths.sort();
    assert!(!paths.is_empty());
    for path in paths {
        let text = fs::read_to_string(&path).unwrap();
        let name = path.to_str().unwrap();
        let read_file = files(&[("/least.toml", LEAST), (name, &text)]);
        let loaded =
            Config::load(&["/least.toml".into(), path.clone()], &BTreeMap::new(), &read_file);
        assert_eq!(loaded.err(), None, "{name}");
    }
}

#[test]
fn the_configuration_of_the_pod_is_accepted() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/pod.yaml");
    let pod = fs::read_to_string(path).unwrap();
    let lines = pod.lines().skip_while(|line| !line.contains("driftgate.toml: |")).skip(1);
    let block = lines.take_while(|line| line.is_empty() || line.starts_with("    "));
    let text: Vec<&str> = block.map(str::trim_start).collect();
    assert_eq!(accepted(&text.join("\n"), &[]).runtime.id.as_str(), "planner");
}

#[test]
fn every_key_has_another_value_that_the_environment_sets() {
    let mut rows: BTreeMap<String, Effect> = reference()
        .into_iter()
        .flat_map(|section| section.rows)
        .map(|row| (row.path, row.effect))
        .filter(|(path, _)| !path.contains("[]") && path != "integrity.alg")
        .collect();
    for (key, text, needs) in ALTERNATIVES {
        let old = accepted(LEAST, needs);
        let mut environment = needs.to_vec();
        environment.retain(|(other, _)| other != key);
        environment.push((key, text));
        let new = accepted(LEAST, &environment);
        let effect = rows.remove(*key).unwrap_or_else(|| panic!("{key} is no row"));
        let change = Change { key: (*key).to_owned(), effect };
        assert_eq!(Config::difference(&old, &new), [change]);
    }
    assert_eq!(rows, BTreeMap::new());
}

#[test]
fn a_reload_names_the_peers_and_keys_that_differ() {
    let peers = |first: &str, second: &str| {
        format!(
            "{LEAST}[[peers]]\nid = \"critic\"\nexport = [\"{first}\"]\n[[peers]]\nid = \"{second}\"\n"
        )
    };
    let live = |key: &str| Change { key: key.to_owned(), effect: Effect::Live };
    let (old, new) = (peers("state", "judge"), peers("snapshot", "scribe"));
    assert_eq!(
        Config::difference(&accepted(&old, &[]), &accepted(&new, &[])),
        [live("peers.critic"), live("peers.judge"), live("peers.scribe")]
    );
    let ed25519 = r#"
        runtime.id = "planner"
        integrity.alg = "ed25519"
        integrity.sign_with = "own"
        integrity.keys = [{ id = "own", file = "/own.nk" }, { id = "k2", file = "/k2" }]
    "#;
    assert_eq!(
        Config::difference(&accepted(LEAST, &[]), &accepted(ed25519, &[])),
        [
            live("integrity.alg"),
            live("integrity.sign_with"),
            live("integrity.keys.k1"),
            live("integrity.keys.own"),
        ]
    );
}

#[test]
fn a_later_file_wins_and_the_environment_wins_over_both() {
    let later = "nats: {prefix: later, window: 7}\nlog: {level: warn}\n";
    let read_file = files(&[("/a.toml", LEAST), ("/b.yml", later)]);
    let environment = variables(&[("nats.window", "9")]);
    let config =
        Config::load(&["/a.toml".into(), "/b.yml".into()], &environment, &read_file).unwrap();
    assert_eq!(config.nats.prefix.as_str(), "later");
    assert_eq!(config.nats.window, 9);
    assert_eq!(config.keys.len(), 2);
}

#[test]
fn a_variable_that_kubernetes_sets_for_a_service_is_none_of_ours() {
    let mut environment = variables(&[("runtime.id", "007")]);
    environment.insert("DRIFTGATE_SERVICE_HOST".into(), "10.0.0.1".into());
    environment.insert("DRIFTGATE_PORT".into(), "tcp://10.0.0.1:7405".into());
    let read_file = files(&[("/least.toml", LEAST)]);
    let config = Config::load(&["/least.toml".into()], &environment, &read_file).unwrap();
    assert_eq!(config.runtime.id.as_str(), "007");
}

/// How each mistake of `fixtures/mistakes.toml` is told.
const TOLD: [&str; 30] = [
    "runtime.id: must be one NATS token: 1 to 64 of A-Z a-z 0-9 _ - (it is \"two words\", in /driftgate.toml)",
    "runtime.attractor_type: must be one of adversarial,",
    "runtime.profile: must be one of srip-05,",
    "peers[0].export[1]: must be one of state, snapshot, telemetry (it is \"thoughts\"",
    "peers[0].expires: must be a date and time",
    "peers[1].id: must be unique",
    "peers.scribe.key_id: k9 is not in integrity.keys",
    "nats.url[0]: must not hold a user, password or token",
    "nats.url[1]: must be like nats://host:4222",
    "nats.prefix: must be tokens",
    "nats.prefx: is not a key; did you mean nats.prefix? (in /driftgate.toml)",
    "nats.replicas: must be one of 1, 3, 5 (it is 2, in /driftgate.toml)",
    "nats.tls.cert_file: needs nats.tls.key_file",
    "listen.api: 0.0.0.0:7405 is not loopback: it needs listen.token_file",
    "listen.admin: must be an IP address and a port",
    "listen.allowed_origins[0]: must be the exact value",
    "ingest.http: nothing would feed the gate",
    "ingest.poll: is not a key; the keys here are http, tail",
    "containment.block: must be above 0 and at most 0.5",
    "containment.stale_after: must be a duration such as \"90s\" or \"5m\", 1s to 24h (it is \"1 fortnight\"",
    "containment.accept: must be one of native, reported, derived",
    "containment.assumed_scr: must be above 0 and at most 1",
    "integrity.alg: must be one of hmac-sha256, ed25519",
    "integrity.keys[0].file: the file /absent cannot be read",
    "integrity.keys[1].file: the file /bad must hold the base64 of 32 bytes",
    "integrity.keys[2].file: is required",
    "integrity.keys[2].id: must be unique",
    "integrity.sign_with: k3 is not in integrity.keys",
    "log.level: must be one of error, warn, info, debug, trace (it is \"loud\", in DRIFTGATE__LOG__LEVEL)",
    "colour: is not a key; the keys here are runtime, peers,",
];

#[test]
fn all_mistakes_are_reported_together_each_naming_its_key() {
    let text = include_str!("../fixtures/mistakes.toml");
    let read_file = files(&[("/driftgate.toml", text), ("/bad", "bm90IDMyIGJ5dGVz")]);
    let environment = variables(&[("log.level", "loud")]);
    let mistakes = Config::load(&["/driftgate.toml".into()], &environment, &read_file).unwrap_err();
    let shown = mistakes.to_string();
    for expected in TOLD {
        assert!(shown.contains(expected), "missing: {expected}\nin:\n{shown}");
    }
    assert_eq!(mistakes.count(), TOLD.len(), "{shown}");
    assert!(!shown.contains("hunter2") && !shown.contains("blue"), "{shown}");
}

#[test]
fn what_two_keys_must_agree_on_is_checked() {
    for (environment, expected) in [
        (&[("containment.reopen", "0.4"), ("containment.block", "0.3")][..], "containment.block"),
        (&[("containment.silence_isolates_after", "1s")], "containment.silence_isolates_after"),
        (&[("containment.barrier_timeout", "3s")], "containment.barrier_timeout"),
        (&[("listen.admin", "127.0.0.1:7405")], "listen.admin"),
        (&[("listen.console", "127.0.0.1:7406")], "listen.console"),
        (
            &[("listen.console", "0.0.0.0:7407"), ("listen.operator_token_file", "/token")],
            "listen.console",
        ),
        (&[("listen.admin_hosts", "not a name")], "listen.admin_hosts[0]"),
        (&[("nats.durability", "synced")], "nats.durability"),
        (&[("nats.creds_file", "/a"), ("nats.nkey_file", "/b.nk")], "nats.nkey_file"),
        (&[("nats.nkey_file", "/not-a-seed")], "nats.nkey_file"),
        (&[("nats.url", "")], "nats.url"),
        (&[("snapshot.spool_bytes_max", "1MiB")], "snapshot.spool_bytes_max"),
        (&[("integrity.alg", "ed25519")], "integrity.sign_with"),
        (&[("peers", "critic")], "peers"),
        (&[("nats", "nats://127.0.0.1")], "nats"),
        (&[("listen.token_file", "/absent/token")], "listen.token_file"),
    ] {
        let lines = refused(LEAST, environment);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].starts_with(&format!("{expected}: ")), "{lines:?}");
    }
    let own = format!("{LEAST}[[peers]]\nid = \"planner\"\n");
    assert_eq!(refused(&own, &[]), ["peers[0].id: must not be runtime.id itself, planner"]);
    let foreign = format!("{LEAST}[[peers]]\nid = \"critic\"\nkey_id = \"k9\"\n");
    assert_eq!(refused(&foreign, &[]), ["peers.critic.key_id: k9 is not in integrity.keys"]);
    let open = accepted(LEAST, &[("listen.api", "0.0.0.0:7405"), ("listen.token_file", "/token")]);
    assert!(!open.listen.api.is_local());
}

#[test]
fn nothing_at_all_names_what_is_required() {
    let lines = refused("", &[]);
    let keys: Vec<&str> = lines.iter().filter_map(|line| line.split(':').next()).collect();
    assert_eq!(keys, ["runtime.id", "integrity.sign_with", "integrity.keys"]);
}

#[test]
fn every_range_is_closed_at_both_ends() {
    for (key, inside, outside) in [
        ("containment.stale_after", ["1s", "24h"], ["999ms", "86401"]),
        ("containment.caution_every", ["2", "1000"], ["1", "1001"]),
        ("containment.dwell", ["1", "100"], ["0", "101"]),
        ("containment.reopen", ["0.0001", "0.45"], ["0", "0.4500001"]),
        ("containment.block", ["0.45", "0.5"], ["NaN", "0.51"]),
        ("containment.isolate", ["0.5", "0.6"], ["-1", "inf"]),
        ("containment.lock", ["0.01", "0.7"], ["0", "0.71"]),
        ("snapshot.keep_for", ["0s", "30d"], ["-1", "31d"]),
        ("snapshot.stored_bytes_max", ["1MiB", "1024GiB"], ["0", "1025GiB"]),
        ("containment.assumed_scr", ["0.01", "1"], ["0", "1.01"]),
        ("containment.packet_max_age", ["1s", "1h"], ["0s", "61m"]),
        ("containment.clock_skew_max", ["0s", "5m"], ["-1", "301s"]),
        ("nats.window", ["1", "2048"], ["0", "2049"]),
        ("listen.connections_max", ["1", "65536"], ["0", "65537"]),
        ("listen.body_bytes_max", ["1KiB", "16MiB"], ["1023", "17MiB"]),
        ("snapshot.level", ["1", "19"], ["0", "22"]),
        ("nats.prefix", ["a", "a.b-c._d"], ["a..b", "a.>"]),
    ] {
        for text in inside {
            let loaded = load_with(LEAST, &[(key, text)]);
            assert_eq!(loaded.err(), None, "{key} = {text}");
        }
        for text in outside {
            assert!(refused(LEAST, &[(key, text)])[0].starts_with(key), "{key} = {text}");
        }
    }
}

#[test]
fn ten_thousand_peers_are_accepted_and_one_more_is_not() {
    let peers = |count: usize| {
        let entry = |n| format!("[[peers]]\nid = \"peer-{n}\"\nexport = [\"state\"]\n");
        LEAST.to_owned() + &(0..count).map(entry).collect::<String>()
    };
    assert_eq!(accepted(&peers(10_000), &[]).peers.len(), 10_000);
    assert!(refused(&peers(10_001), &[])[0].contains("must have at most 10000 entries, not 10001"));
}

#[test]
fn a_flood_of_mistakes_is_cut_and_counted() {
    let text = LEAST.to_owned() + &"[[peers]]\nid = \"a b\"\n".repeat(150);
    let mistakes = load_with(&text, &[]).unwrap_err();
    assert_eq!((mistakes.listed().len(), mistakes.count()), (100, 150));
    assert!(mistakes.to_string().ends_with("and 50 more"));
}

#[test]
fn a_file_that_cannot_be_read_or_parsed_is_named() {
    let read_file = files(&[
        ("/bad.toml", "[runtime\n"),
        ("/bad.yaml", "a: [\n"),
        ("/twice.yaml", "log: {level: info}\nlog: {level: warn}\n"),
    ]);
    let names = ["/absent/a.toml", "/bad.toml", "/bad.yaml", "/twice.yaml", "/driftgate.conf"];
    let paths: Vec<PathBuf> = names.iter().map(PathBuf::from).collect();
    let mistakes = Config::load(&paths, &BTreeMap::new(), &read_file).unwrap_err();
    let keys: Vec<&str> = mistakes.listed().iter().map(|mistake| mistake.key.as_str()).collect();
    assert_eq!(keys, names);
}

#[test]
fn a_key_that_looks_like_a_path_is_refused_before_anything_follows_it() {
    let key = "nats[4000000000]";
    assert!(refused(&format!("{key:?} = 1\n{LEAST}"), &[])[0].contains("is not a key"));
    assert_eq!(refused(LEAST, &[(key, "1")]), ["DRIFTGATE__NATS[4000000000]: is not a key"]);
}

#[test]
fn no_debug_output_shows_a_secret() {
    let token = "a-token-that-nobody-may-see";
    let text = format!("{LEAST}\nlisten.token_file = \"/token\"\n");
    let read_file = files(&[("/driftgate.toml", &text), ("/token", token)]);
    let config = Config::load(&["/driftgate.toml".into()], &BTreeMap::new(), &read_file).unwrap();
    let shown = format!("{config:?} {config:#?}");
    assert_eq!(config.listen.token_file.unwrap().secret.expose(), token.as_bytes());
    assert!(![token, KEY.trim(), "7, 7, 7"].iter().any(|secret| shown.contains(secret)));
}
