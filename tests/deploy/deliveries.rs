//! The deliveries that are written out from the definition: what they hold is it, byte for byte.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use driftgate::commands::inject::{Sidecar, inject};
use driftgate::config::{Config, MemoryLimit};
use serde_json::Value;

use super::definition::{path, values};

/// The least that can run.
const LEAST: &str = "runtime.id = \"planner\"\n\
                     integrity = { sign_with = \"k1\", keys = [{ id = \"k1\", file = \"/k1\" }] }\n";
const ORIGIN: &str = "# Written out from deploy/sidecar by `make documents`; do not edit.\n";

fn indented(text: &str, columns: usize) -> String {
    text.lines().map(|line| format!("{:columns$}{line}\n", "")).collect()
}

/// A strategic merge patch for workloads whose pod stands at `steps`.
fn patch(kind: &str, steps: &[&str]) -> String {
    let sidecar = Sidecar::default();
    let mut text = format!("{ORIGIN}apiVersion: any\nkind: {kind}\nmetadata:\n  name: any\n");
    for (depth, step) in steps.iter().chain([&"spec"]).enumerate() {
        writeln!(text, "{:width$}{step}:", "", width = 2 * depth).unwrap();
    }
    let column = 2 * (steps.len() + 1);
    for (name, part) in [("initContainers", sidecar.container()), ("volumes", sidecar.volumes())] {
        text += &indented(&format!("{name}:"), column);
        text += &indented(&part, column + 2);
    }
    text
}

/// The chart's templates: the definition, with what values may change.
fn templates() -> String {
    let holes = [
        ("image: driftgate:0.1.0", "image: {{ include \"driftgate.image\" . }}"),
        ("\"204MiB\"", "\"{{ div (mul .spoolMi 8) 10 }}MiB\""),
        ("memory: 96Mi", "memory: {{ .memoryMi }}Mi"),
        ("ephemeral-storage: 320Mi", "ephemeral-storage: {{ add .spoolMi 64 }}Mi"),
        ("sizeLimit: 256Mi", "sizeLimit: {{ .spoolMi }}Mi"),
        ("name: driftgate\n    defaultMode", "name: {{ .configMap }}\n    defaultMode"),
        ("secretName: driftgate-keys", "secretName: {{ .keysSecret }}"),
    ];
    let sidecar = Sidecar::default();
    let mut text = format!(
        "{{{{/* Written out from deploy/sidecar by `make documents`; do not edit. Each takes this \
         chart's values:\n     include \"driftgate.container\" .Values.driftgate in a chart that \
         depends on it. */}}}}\n\
         {{{{- define \"driftgate.container\" -}}}}\n{}{{{{- end }}}}\n\
         {{{{- define \"driftgate.volumes\" -}}}}\n{}{{{{- end }}}}\n",
        sidecar.container(),
        sidecar.volumes()
    );
    for (written, hole) in holes {
        assert!(text.contains(written), "the definition no longer says {written}");
        text = text.replace(written, hole);
    }
    text
}

/// A value as CEL: objects by the types of what they are, but for maps with names of their own.
fn cel(value: &Value, place: &str) -> String {
    let list = |parts: Vec<String>| parts.join(", ");
    match value {
        Value::Object(map) if place.ends_with("requests") || place.ends_with("limits") => {
            let entry = |(key, value)| format!("{key:?}: {}", cel(value, place));
            format!("{{{}}}", list(map.iter().map(entry).collect()))
        }
        Value::Object(map) => {
            let entry = |(key, value): (&String, _)| {
                format!("{key}: {}", cel(value, &format!("{place}.{key}")))
            };
            format!("{place}{{{}}}", list(map.iter().map(entry).collect()))
        }
        Value::Array(items) => {
            format!("[{}]", list(items.iter().map(|item| cel(item, place)).collect()))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}

/// One JSON Patch operation a line, inside a list.
fn policy() -> String {
    let sidecar =
        Sidecar { config: "CONFIG".to_owned(), keys: "KEYS".to_owned(), ..Sidecar::default() };
    let add = |path: &str, value: &str| {
        format!("[JSONPatch{{op: \"add\", path: \"{path}\", value: {value}}}]")
    };
    let missing = |list: &str| {
        format!("(has(object.spec.{list}) ? [] : {})", add(&format!("/spec/{list}"), "[]"))
    };
    let container = cel(&values(&sidecar.container())[0][0], "Object.spec.initContainers");
    let mut steps = vec![missing("initContainers"), add("/spec/initContainers/0", &container)];
    steps.push(missing("volumes"));
    for volume in values(&sidecar.volumes())[0].as_array().unwrap() {
        steps.push(add("/spec/volumes/-", &cel(volume, "Object.spec.volumes")));
    }
    let expression = steps
        .join(" +\n")
        .replace("\"CONFIG\"", "object.metadata.labels[\"driftgate.io/config\"]")
        .replace("\"KEYS\"", "variables.keys");
    let head = fs::read_to_string(path("deploy/sidecar/policy.yaml")).unwrap();
    let (before, after) = head.split_once("          EXPRESSION\n").unwrap();
    format!("{ORIGIN}{before}{}{after}", indented(&expression, 10))
}

#[test]
fn documents_of_the_sidecar() {
    let agent = fs::read_to_string(path("deploy/agent.yaml")).unwrap();
    let written = [
        (
            "deploy/pod.yaml",
            ORIGIN.to_owned() + &inject(&agent, &Sidecar::default().image).unwrap().0,
        ),
        ("deploy/kustomize/pod.yaml", patch("Pod", &[])),
        ("deploy/kustomize/template.yaml", patch("Deployment", &["spec", "template"])),
        (
            "deploy/kustomize/cronjob.yaml",
            patch("CronJob", &["spec", "jobTemplate", "spec", "template"]),
        ),
        ("deploy/helm/driftgate/templates/_sidecar.tpl", templates()),
        ("deploy/admission/policy.yaml", policy()),
    ];
    for (name, written) in written {
        if std::env::var_os("DRIFTGATE_WRITE_DOCUMENTS").is_some() {
            fs::write(path(name), &written).unwrap();
        }
        let found = fs::read_to_string(path(name)).unwrap_or_default();
        let differs = found.lines().zip(written.lines()).find(|(a, b)| a != b);
        assert_eq!(differs, None, "{name}: run `make documents`");
        assert_eq!(found.len(), written.len(), "{name}: run `make documents`");
    }
}

/// What the definition promises of itself.
#[test]
fn the_limits_follow_from_one_another() {
    let sidecar = Sidecar::default();
    let container = &values(&sidecar.container())[0][0];
    let volumes = values(&sidecar.volumes());
    let mib = |text: &str| -> u64 {
        text.trim_end_matches("iB").trim_end_matches("Mi").trim_end_matches('M').parse().unwrap()
    };
    let variable = |name: &str| {
        let all = container["env"].as_array().unwrap();
        let found = all.iter().find(|one| one["name"] == format!("DRIFTGATE__{name}")).unwrap();
        mib(found["value"].as_str().unwrap())
    };
    let limits = &container["resources"]["limits"];
    let (memory, disk) = (
        mib(limits["memory"].as_str().unwrap()),
        mib(limits["ephemeral-storage"].as_str().unwrap()),
    );
    let size = mib(volumes[0][2]["emptyDir"]["sizeLimit"].as_str().unwrap());
    assert_eq!(variable("SNAPSHOT__SPOOL_BYTES_MAX"), size * 8 / 10);
    assert_eq!(disk, size + 64);
    // What snapshots may be follows from the limit at the start, and must be worth having.
    let limit = Some(MemoryLimit(memory << 20));
    let file = |path: &Path| match path.extension() {
        Some(_) => Ok(LEAST.into()),
        None => Ok(b"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=".to_vec()),
    };
    let files = ["/driftgate.toml".into()];
    let config = Config::load_within(limit, &files, &BTreeMap::new(), &file).unwrap();
    assert_eq!(config.snapshot.bytes_max, 12 << 20);
    assert_eq!(container["restartPolicy"], "Always");
    assert_eq!(container.get("lifecycle"), None);
}

/// Who may reach what: the kubelet the probes, a name only the pod's, and the console nobody but
/// through `kubectl port-forward`.
#[test]
fn the_listeners_are_where_everybody_looks_for_them() {
    let container = &values(&Sidecar::default().container())[0][0];
    let variable = |name: &str| {
        let all = container["env"].as_array().unwrap();
        all.iter().find(|one| one["name"] == format!("DRIFTGATE__LISTEN__{name}")).unwrap()
    };
    assert_eq!(variable("ADMIN")["value"], "0.0.0.0:7406");
    assert_eq!(variable("ADMIN_HOSTS")["valueFrom"]["fieldRef"]["fieldPath"], "metadata.name");
    assert_eq!(variable("CONSOLE")["value"], "127.0.0.1:7407");
    let agent = fs::read_to_string(path("deploy/agent.yaml")).unwrap();
    for port in ["7405", "7406", "7407"] {
        let taken = agent.replace(
            "      resources:\n        requests:",
            &format!(
                "      ports:\n        - containerPort: {port}\n      resources:\n        requests:"
            ),
        );
        assert_ne!(taken, agent);
        let refused = inject(&taken, &Sidecar::default().image).unwrap_err().to_string();
        assert!(refused.contains("the sidecar listens on this port"), "{port}: {refused}");
    }
}
