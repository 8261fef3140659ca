//! An operator, its account and the credentials of a user, as a server in operator mode asks for.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde_json::{Value, json};

/// What signs users.
pub(crate) struct Account {
    operator: KeyPair,
    system: KeyPair,
    pair: KeyPair,
}

impl Account {
    pub(crate) fn new() -> Self {
        let (operator, pair) = (KeyPair::new_operator(), KeyPair::new_account());
        Self { operator, system: KeyPair::new_account(), pair }
    }

    /// The server's part: this account and the system's, known without a resolver.
    pub(crate) fn lines(&self) -> String {
        let operator = signed(&self.operator, &self.operator, json!({ "type": "operator" }));
        let limits = json!({
            "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1,
            "wildcards": true, "conn": -1, "leaf": -1, "mem_storage": -1, "disk_storage": -1,
            "streams": -1, "consumer": -1,
        });
        let account = json!({ "type": "account", "limits": limits });
        let account = signed(&self.operator, &self.pair, account);
        let mut unlimited = limits;
        for key in ["mem_storage", "disk_storage", "streams", "consumer"] {
            unlimited[key] = json!(0);
        }
        let system = json!({ "type": "account", "limits": unlimited });
        let system = signed(&self.operator, &self.system, system);
        let (own, sys) = (self.pair.public_key(), self.system.public_key());
        format!(
            "operator: {operator}\nsystem_account: {sys}\nresolver: MEMORY\n\
             resolver_preload: {{ {own}: {account}\n{sys}: {system} }}"
        )
    }

    /// The credentials of a new user, a file's content.
    pub(crate) fn credentials(&self) -> String {
        let user = KeyPair::new_user();
        let limits = json!({ "type": "user", "subs": -1, "data": -1, "payload": -1 });
        let jwt = signed(&self.pair, &user, limits);
        let seed = user.seed().expect("a pair of our own");
        format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        )
    }
}

/// A JWT of `by` about `subject`.
fn signed(by: &KeyPair, subject: &KeyPair, mut claims: Value) -> String {
    claims["version"] = json!(2);
    let body = json!({
        "jti": subject.public_key(), "iat": 1_700_000_000, "iss": by.public_key(),
        "name": "test", "sub": subject.public_key(), "nats": claims,
    });
    let encoded = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let head = encoded(&json!({ "typ": "JWT", "alg": "ed25519-nkey" }));
    let signed = format!("{head}.{}", encoded(&body));
    let signature = by.sign(signed.as_bytes()).expect("a pair of our own");
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}
