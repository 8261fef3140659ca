//! `/openapi.json` against the running server: schemathesis makes requests of the document, right
//! ones and wrong ones, and holds the answers against it. `make schemathesis` fetches it and runs
//! this alone. What deliberately is not here: streams of events, which do not end.

use std::process::Command;

use crate::support::http::Caller;
use crate::support::nats_server::NatsServer;
use crate::support::report::report;
use crate::support::sidecar::{Plan, Sidecar};

/// Most requests that are made up for one operation in one pass, beside those for each limit of a
/// schema.
const EXAMPLES: &str = "40";
const SEED: &str = "1";
const TOKENS: [(&str, &str); 2] =
    [("token", "the-runtimes-own-token"), ("operator", "the-operators-own-token")];
/// Where reports and orders go; the rest changes nothing.
const ORDERS: &str = "^/operator/";
const READS: [&str; 4] =
    ["--exclude-path-regex", "^/(operator|phase)/", "--exclude-operation-id", "post_field_state"];

#[tokio::test]
async fn the_running_server_answers_as_its_document_says() {
    let Some(program) = std::env::var_os("DRIFTGATE_SCHEMATHESIS") else {
        println!("SKIPPED: schemathesis; `make schemathesis` fetches it");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let mut listen = String::new();
    for (name, token) in TOKENS {
        let path = folder.path().join(name);
        std::fs::write(&path, token).unwrap();
        let key = if name == "token" { "token_file" } else { "operator_token_file" };
        listen += &format!("{key} = {path:?}\n");
    }
    let more = format!(
        "[[peers]]\nid = \"critic\"\nexport = [\"state\", \"snapshot\"]\n\
         import = [\"state\", \"snapshot\"]\n[containment]\nstale_after = \"1h\"\n[listen]\n{listen}"
    );
    let server = NatsServer::start();
    let sidecar = Sidecar::connected(Plan::new("planner", &[], &server.url()).with(&more)).await;
    let [runtime, operator] = TOKENS.map(|(_, token)| format!("Authorization: Bearer {token}"));
    let call = async |method: &str, path: &str, headers: &str, body: &str| {
        let headers = format!("{headers}\r\nContent-Type: application/json\r\n");
        let answer = Caller::new(sidecar.api).call(method, path, &headers, body).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.body
    };
    let document = folder.path().join("openapi.json");
    std::fs::write(&document, call("GET", "/openapi.json", &runtime, "").await).unwrap();
    let pass = |name: &str, which: &[&str]| {
        println!("schemathesis, {name}:");
        let mut command = Command::new(&program);
        command.arg("--config-file").arg("schemathesis.toml").arg("run").arg(&document);
        command
            .args(["--url", &format!("http://{}", sidecar.api)])
            .args(["--phases", "examples,coverage,fuzzing", "--checks", "all"])
            .args(["--max-examples", EXAMPLES, "--seed", SEED, "--continue-on-failure"])
            // Whoever asks for the next report waits 10 s for one.
            .args(["--request-timeout", "20", "--max-response-time", "12", "--no-color"])
            .args(which)
            .env("DRIFTGATE_TOKEN", TOKENS[0].1)
            .env("DRIFTGATE_OPERATOR_TOKEN", TOKENS[1].1)
            .env("SCHEMATHESIS_HOOKS", "hooks")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/schemathesis"));
        command.status().unwrap().success()
    };
    let mut passed = Vec::new();
    call("POST", "/field/state", &runtime, &report(0.2)).await;
    passed.push(pass("open", &READS));
    passed.push(pass("reports", &["--include-operation-id", "post_field_state"]));
    passed.push(pass("orders", &["--include-path-regex", ORDERS]));
    call("POST", "/operator/isolate", &operator, "{}").await;
    passed.push(pass("isolated", &READS));
    assert!(!passed.contains(&false), "schemathesis found something, see above");
    // It still stands, and what was done to it can be undone.
    call("POST", "/operator/release", &operator, "{}").await;
    call("POST", "/field/state", &runtime, &report(0.2)).await;
}
