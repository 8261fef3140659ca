//! The broker configurations, as the server itself reads them.

use std::process::Command;

use super::definition::path;

/// `include`d by the others; no configuration by itself.
const PARTS: [&str; 1] = ["users.conf"];

#[test]
fn a_real_server_accepts_every_broker_configuration() {
    let Some(server) = std::env::var_os("NATS_SERVER") else {
        panic!("NATS_SERVER is not set: `make test` finds a nats-server");
    };
    let user = || nkeys::KeyPair::new_user();
    let mut files = vec![path("deploy/nats.conf")];
    for entry in std::fs::read_dir(path("deploy/nats")).unwrap() {
        let file = entry.unwrap().path();
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        if name.ends_with(".conf") && !PARTS.contains(&name.as_str()) {
            files.push(file);
        }
    }
    assert!(files.len() >= 4, "{files:?}");
    for file in files {
        let mut check = Command::new(&server);
        for name in ["PROVISIONER", "PLANNER", "WEST", "EAST"] {
            check.env(name, user().public_key());
        }
        check.envs([
            ("CLUSTER", "west"),
            ("HUB", "nats-leaf://hub:7422"),
            ("LEAF_LISTEN", "127.0.0.1:7422"),
            ("NODE", "nats-0"),
            ("ZONE", "az:a"),
            ("ROUTES", "nats-route://nats:6222"),
        ]);
        check.env("LEAF_SEED", user().seed().unwrap());
        let output = check.arg("-t").arg("-c").arg(&file).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {said}", file.display());
    }
}
