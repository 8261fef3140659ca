//! TLS to the broker: who is believed, what is shown, when it is read again.

use std::fs;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::support::nats_server::NatsServer;
use crate::support::sidecar::{Plan, Sidecar, private};
use crate::support::wait::until;

/// An authority of the tests.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Writes `{name}.pem`, `{name}.key` and the authority's `ca.pem`.
    fn write(&self, folder: &Path, name: &str) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(folder.join(format!("{name}.pem")), certificate.pem()).unwrap();
        fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
        private(&folder.join(format!("{name}.key")));
        fs::write(folder.join("ca.pem"), &self.pem).unwrap();
    }
}

fn server(folder: &Path, more: &str) -> NatsServer {
    let text = folder.display();
    NatsServer::start_with(&format!(
        "tls {{ cert_file: \"{text}/server.pem\", key_file: \"{text}/server.key\",\n\
         ca_file: \"{text}/ca.pem\", min_version: \"1.3\", {more} }}"
    ))
}

fn plan(server: &NatsServer, tls: &str) -> Plan {
    let url = server.url().replace("nats://", "tls://");
    Plan::new("planner", &["critic"], &url).short().with(&format!("[nats.tls]\n{tls}"))
}

/// What `/readyz` says of the broker that is not reached.
async fn unreachable(plan: Plan) -> String {
    let sidecar = Sidecar::start(plan).await;
    until("the fault of the connection", async || {
        let readiness = sidecar.readiness().await;
        assert_ne!(readiness["broker"], "connected");
        let lines = readiness["degraded"].as_array().unwrap().clone();
        let mut lines = lines.iter().filter_map(|line| line.as_str());
        lines.find(|line| line.starts_with("broker_unreachable:")).map(str::to_owned)
    })
    .await
}

#[tokio::test]
async fn a_broker_is_believed_by_its_authority_and_believes_us_by_our_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let authority = Authority::new();
    authority.write(folder, "server");
    authority.write(folder, "planner");
    let mut server = server(folder, "verify: true");
    let (ca, certificate, key) =
        (folder.join("ca.pem"), folder.join("planner.pem"), folder.join("planner.key"));
    let ours = format!("cert_file = {certificate:?}\nkey_file = {key:?}\n");
    let whole = format!("ca_file = {ca:?}\n{ours}");

    let sidecar = Sidecar::connected(plan(&server, &whole)).await;
    sidecar.stores().await;
    let connections = server.connz();
    let is_ours = |one: &&serde_json::Value| one["name"] == "driftgate-planner";
    let connection = connections.iter().find(is_ours).expect("our connection");
    assert_eq!(connection["tls_version"], "1.3", "{connection}");

    let said = unreachable(plan(&server, &format!("ca_file = {ca:?}"))).await;
    assert!(said.contains("TLS failed") || said.contains("certificate"), "no certificate: {said}");
    let said = unreachable(plan(&server, &ours)).await;
    assert!(said.contains("TLS failed"), "an authority that nobody believes: {said}");

    // Everything is made anew, as a rotation does; the files are read at the next connect.
    let next = Authority::new();
    next.write(folder, "server");
    next.write(folder, "planner");
    server.restart();
    sidecar.stores().await;
}

#[tokio::test]
async fn a_broker_without_tls_is_refused_where_it_is_required() {
    let server = NatsServer::start();
    let plain = Plan::new("planner", &["critic"], &server.url()).short();
    let said = unreachable(plain.with("[nats.tls]\nrequired = true")).await;
    assert!(said.contains("TLS"), "{said}");
}

#[tokio::test]
async fn a_broker_that_greets_only_within_tls_is_reached_where_tls_comes_first() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    Authority::new().write(folder, "server");
    let server = server(folder, "handshake_first: true");
    let ca = format!("ca_file = {:?}\n", folder.join("ca.pem"));
    let sidecar = Sidecar::connected(plan(&server, &format!("{ca}first = true"))).await;
    sidecar.stores().await;
    let url = server.url().replace("nats://", "tls://");
    let impatient = format!("[nats]\nconnect_timeout = \"300ms\"\n[nats.tls]\n{ca}");
    let said = unreachable(Plan::new("planner", &["critic"], &url).with(&impatient)).await;
    assert!(said.contains("no connection in time"), "it waits for a greeting: {said}");
}
