//! Credentials and keys change while 200 reports a second go out: nothing is lost, nothing refused.

use std::fs;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use nkeys::KeyPair;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::exchange::shows;
use crate::support::http::Caller;
use crate::support::nats_server::NatsServer;
use crate::support::report::report;
use crate::support::sidecar::{Plan, Sidecar, private, seq, status};
use crate::support::wait::until;

/// Between two reports.
const EVERY: Duration = Duration::from_millis(5);
/// Packets that have to be stored before and after each change.
const PHASE: usize = 60;

/// Reports that go out until they are stopped; each has to be answered, and to be exported.
struct Load {
    stop: watch::Sender<bool>,
    stored: watch::Receiver<usize>,
    task: JoinHandle<Value>,
}

impl Load {
    fn on(sidecar: &Sidecar) -> Self {
        let (stop, stopping) = watch::channel(false);
        let (count, stored) = watch::channel(0);
        let mut caller = Caller::new(sidecar.api);
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(EVERY);
            let mut last = Value::Null;
            while !*stopping.borrow() {
                ticks.tick().await;
                let answer = caller.post("/field/state", &report(0.2)).await.expect("an answer");
                assert_eq!(answer.status, 200, "{}", answer.text());
                last = answer.json();
                assert_eq!(last["verdict"], "export", "{last}");
                assert_ne!(status(&last), "failed", "{last}");
                count.send_modify(|count| *count += usize::from(status(&last) == "stored"));
            }
            last
        });
        Self { stop, stored, task }
    }

    /// Waits until another [`PHASE`] packets are stored.
    async fn goes_on(&mut self) {
        let goal = *self.stored.borrow_and_update() + PHASE;
        let reached = self.stored.wait_for(|count| *count >= goal);
        let limit = Duration::from_secs(60);
        tokio::time::timeout(limit, reached).await.expect("packets are stored").expect("no panic");
    }

    /// Ends it, and holds what came of it against what was promised.
    async fn end(self, from: &Sidecar, to: &Sidecar, was_killed: bool) {
        self.stop.send_replace(true);
        let last = self.task.await.expect("every reply was good");
        let books = from.settled().await;
        for ended in ["failed", "revoked", "expired"] {
            assert_eq!(books.packets(ended), 0, "{ended}: {books:?}");
        }
        assert_eq!(books.sum("publish_refused", &[]), 0, "{books:?}");
        assert_eq!(books.sum("transitions", &[]), 1, "opened once, never closed: {books:?}");
        shows(to, "planner", seq(&last)).await;
        let heard = to.books().await;
        let refused = heard.sum("inbound_refused", &[]);
        assert_eq!(refused, heard.sum("inbound_refused", &[("fault", "replayed")]), "{heard:?}");
        // A server that is killed has lost acknowledgements, and delivers again what was taken.
        assert!(refused == 0 || was_killed, "{heard:?}");
    }
}

/// Written beside it and moved over it, as a projected volume does.
fn swap(file: &Path, text: &str) {
    let fresh = file.with_extension("fresh");
    fs::write(&fresh, text).unwrap();
    private(&fresh);
    fs::rename(&fresh, file).unwrap();
}

/// Starts two sidecars with these proofs, changes the planner's under load and then what the server
/// takes, which cuts the connection.
async fn rotates(key: &str, proofs: [&str; 3], before: &str, after: &str, user: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let mut server = NatsServer::start_with(before);
    let [planner, critic] = [("planner", "critic", proofs[0]), ("critic", "planner", proofs[2])]
        .map(|(own, peer, proof)| {
            swap(&file(own), proof);
            let more = format!("[nats]\n{key} = {:?}", file(own).display().to_string());
            Sidecar::connected(Plan::new(own, &[peer], &server.url()).with(&more))
        });
    let (planner, critic) = tokio::join!(planner, critic);
    planner.stores().await;
    let mut load = Load::on(&planner);
    load.goes_on().await;
    swap(&file("planner"), proofs[1]);
    // Nothing asks for the new proof yet.
    load.goes_on().await;
    server.reload_with(after);
    let is_new = |one: &Value| one["name"] == "driftgate-planner" && one.to_string().contains(user);
    until("a connection with the new proof", async || {
        server.connz().iter().any(is_new).then_some(())
    })
    .await;
    load.goes_on().await;
    load.end(&planner, &critic, false).await;
    // And again by a server that goes away: the file is read at each connect.
    let mut load = Load::on(&planner);
    server.restart();
    load.goes_on().await;
    load.end(&planner, &critic, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_nkey_is_exchanged_under_load() {
    let [old, new, peer] = [(); 3].map(|()| KeyPair::new_user());
    let allowed = |pairs: [&KeyPair; 2]| {
        let users = pairs.map(|pair| format!("{{ nkey: {} }}", pair.public_key()));
        format!("authorization {{ users: [\n{}\n] }}", users.join("\n"))
    };
    let seeds = [&old, &new, &peer].map(|pair| pair.seed().unwrap());
    // Both are allowed while the file changes, then the old one is taken away.
    let both = allowed([&old, &peer])
        .replace("users: [", &format!("users: [\n{{ nkey: {} }}", new.public_key()));
    let seeds = [&*seeds[0], &*seeds[1], &*seeds[2]];
    rotates("nkey_file", seeds, &both, &allowed([&new, &peer]), &new.public_key()).await;
}

/// A JSON Web Token as nats-server reads it.
fn token(signer: &KeyPair, subject: &KeyPair, mut nats: Value) -> String {
    nats["version"] = 2.into();
    let claims = json!({
        "jti": subject.public_key(), "iat": 1_700_000_000, "iss": signer.public_key(),
        "sub": subject.public_key(), "name": "it", "nats": nats,
    });
    let head = json!({ "typ": "JWT", "alg": "ed25519-nkey" });
    let text = [head, claims].map(|part| BASE64.encode(part.to_string())).join(".");
    let signature = signer.sign(text.as_bytes()).unwrap();
    format!("{text}.{}", BASE64.encode(signature))
}

#[tokio::test(flavor = "multi_thread")]
async fn jwt_credentials_are_exchanged_under_load() {
    let operator = KeyPair::new_operator();
    let [account, system] = [(); 2].map(|()| KeyPair::new_account());
    let [old, new, peer] = [(); 3].map(|()| KeyPair::new_user());
    let creds = |user: &KeyPair| {
        let nats = json!({ "type": "user", "subs": -1, "data": -1, "payload": -1 });
        let (jwt, seed) = (token(&account, user, nats), user.seed().unwrap());
        format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        )
    };
    let with = |revoked: Value| {
        let limits = json!({
            "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true,
            "conn": -1, "leaf": -1, "mem_storage": -1, "disk_storage": -1, "streams": -1,
            "consumer": -1,
        });
        let nats = json!({ "type": "account", "limits": limits, "revocations": revoked });
        let preloaded = [(&account, nats), (&system, json!({ "type": "account" }))];
        let preloaded = preloaded.map(|(pair, nats)| {
            format!("{}: \"{}\"", pair.public_key(), token(&operator, pair, nats))
        });
        format!(
            "operator: \"{}\"\nsystem_account: {}\nresolver: MEMORY\n\
             resolver_preload: {{\n{}\n}}",
            token(&operator, &operator, json!({ "type": "operator" })),
            system.public_key(),
            preloaded.join("\n")
        )
    };
    let proofs = [&old, &new, &peer].map(creds);
    let proofs = [&*proofs[0], &*proofs[1], &*proofs[2]];
    let revoked = json!({ old.public_key(): 1_900_000_000 });
    rotates("creds_file", proofs, &with(json!({})), &with(revoked), &new.public_key()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_signing_key_is_exchanged_under_load() {
    let server = NatsServer::start();
    let [planner, critic] = [("planner", "critic"), ("critic", "planner")]
        .map(|(own, peer)| Sidecar::connected(Plan::new(own, &[peer], &server.url())));
    let (mut planner, mut critic) = tokio::join!(planner, critic);
    planner.stores().await;
    let mut load = Load::on(&planner);
    load.goes_on().await;
    let second = BASE64.encode([9; 32]).replace(['-', '_'], "A") + "=";
    for sidecar in [&planner, &critic] {
        swap(&sidecar.folder().join("k2"), &second);
    }
    // Both learn it, then the planner signs with it, then both forget the first.
    let steps = [("k1", &["k1", "k2"][..]), ("k2", &["k1", "k2"]), ("k2", &["k2"])];
    for (round, (sign_with, keys)) in steps.into_iter().enumerate() {
        for sidecar in [&mut critic, &mut planner] {
            let file = |key: &&str| {
                let file = sidecar.folder().join(key).display().to_string();
                format!("{{ id = {key:?}, file = {file:?} }}")
            };
            let keys: Vec<String> = keys.iter().map(file).collect();
            let keys = keys.join(", ");
            let text = format!("integrity = {{ sign_with = {sign_with:?}, keys = [{keys}] }}");
            sidecar.reconfigure(&text);
            sidecar.signal("HUP");
            let taken = || sidecar.log().matches("configuration reloaded").count() > round;
            until("the reload", async || taken().then_some(())).await;
        }
        load.goes_on().await;
    }
    load.end(&planner, &critic, false).await;
}
