//! The suites once more with least grants: with `DRIFTGATE_TEST_GRANTS=least` (`make least`) each
//! sidecar, and each room under test, is a user of its own that may do what `driftgate permissions`
//! writes and nothing else. The tests' own observers connect without a name and may do all.
//!
//! A server whose test configures users, or that is one of several, stays as it is, and so does a
//! sidecar with credentials of its own or behind a proxy. What a server has refused to such a user
//! is printed when it ends, as `LEAST: …`, and is one line for `make least` to count.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use driftgate::nats::grants::{Grant, Grants};
use driftgate::nats::settings::Settings;
use nkeys::KeyPair;

use super::nats_server::reload;
use super::sidecar::private;

/// Servers of this process by their port: folder, and process while one runs.
static SERVERS: Mutex<BTreeMap<u16, (PathBuf, Option<u32>)>> = Mutex::new(BTreeMap::new());
/// What makes a configuration one that this leaves alone.
const OWN: [&str; 6] =
    ["authorization", "accounts", "cluster", "leafnodes", "no_auth_user", "operator:"];

/// Whether the suites run with least grants.
pub(crate) fn is_on() -> bool {
    std::env::var_os("DRIFTGATE_TEST_GRANTS").is_some_and(|word| word == "least")
}

fn servers() -> MutexGuard<'static, BTreeMap<u16, (PathBuf, Option<u32>)>> {
    SERVERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a server's configuration ends with, `lines` being those of its test.
pub(crate) fn authorization(folder: &Path, lines: &str) -> String {
    if !is_on() || OWN.iter().any(|word| lines.contains(word)) {
        return String::new();
    }
    let files = fs::read_dir(folder).expect("our folder").flatten();
    let users = files.filter(|file| file.path().extension().is_some_and(|end| end == "user"));
    let users: String =
        users.map(|file| fs::read_to_string(file.path()).expect("our file")).collect();
    format!(
        "authorization {{ users: [\n{users}{{ user: op, password: op }}\n] }}\nno_auth_user: op\n"
    )
}

/// A server runs, or has ended.
pub(crate) fn register(port: u16, folder: &Path, process: Option<u32>) {
    if is_on() {
        servers().insert(port, (folder.to_owned(), process));
    }
}

/// A server and its folder are gone: what it has refused to a user of ours.
pub(crate) fn forget(port: u16, log: &str) {
    if servers().remove(&port).is_some() {
        for line in log.lines().filter(|line| line.contains("Violation")) {
            eprintln!("LEAST: {line}");
        }
    }
}

/// The file with the secret of a runtime on the server behind `url`, which lets it do this from now
/// on; `None` where that server is left alone.
fn user(url: &str, runtime: &str, permissions: &str) -> Option<PathBuf> {
    let port = url.rsplit(':').next()?.trim_end_matches('/').parse().ok()?;
    let servers = servers();
    let (folder, process) = servers.get(&port)?;
    let lines = fs::read_to_string(folder.join("lines")).unwrap_or_default();
    if authorization(folder, &lines).is_empty() {
        return None;
    }
    let seed = folder.join(format!("{runtime}.nk"));
    let pair = match fs::read_to_string(&seed) {
        Ok(secret) => KeyPair::from_seed(&secret).expect("what we wrote"),
        Err(_) => {
            let pair = KeyPair::new_user();
            fs::write(&seed, pair.seed().expect("a seed")).expect("our folder");
            private(&seed);
            pair
        }
    };
    let entry = format!("{{ nkey: {}\n{permissions} }}\n", pair.public_key());
    let place = folder.join(format!("{runtime}.user"));
    if fs::read_to_string(&place).is_ok_and(|known| known == entry) {
        return Some(seed);
    }
    fs::write(&place, entry).expect("our folder");
    if let Some(process) = process {
        reload(folder, *process, &lines);
    }
    Some(seed)
}

/// The secret for a sidecar with these files of configuration, if it is to have least grants.
pub(crate) fn sidecar(runtime: &str, urls: &[String], files: &[PathBuf]) -> Option<PathBuf> {
    let [url] = urls else { return None };
    let has_own = files.iter().any(|file| {
        let text = fs::read_to_string(file).expect("our file");
        ["nkey_file", "creds_file", "cert_file"].iter().any(|key| text.contains(key))
    });
    if !is_on() || has_own {
        return None;
    }
    let output = Command::new(env!("CARGO_BIN_EXE_driftgate"))
        .args(["permissions", "--for", "nats"])
        .args(files.iter().flat_map(|file| [Path::new("--config"), file]))
        .output()
        .expect("the binary under test");
    // A configuration that is wrong on purpose gets no user: it does not start either.
    if !output.status.success() {
        return None;
    }
    user(url, runtime, &String::from_utf8(output.stdout).expect("text"))
}

/// The same for a room under test. Whoever only looks on may do all.
pub(crate) fn room(settings: &mut Settings, url: &str) {
    if !is_on() || ["observer", "mallory"].contains(&settings.runtime_id.as_str()) {
        return;
    }
    let list = |list: &[Grant]| {
        list.iter().map(|grant| format!("{:?}\n", grant.subject)).collect::<String>()
    };
    let Grants { publish, subscribe } = Grants::of_sidecar(settings);
    let permissions = format!(
        "permissions {{ publish: {{ allow: [\n{}] }}\nsubscribe: {{ allow: [\n{}] }} }}",
        list(&publish),
        list(&subscribe)
    );
    settings.broker.nkey_file = user(url, settings.runtime_id.as_str(), &permissions);
}
