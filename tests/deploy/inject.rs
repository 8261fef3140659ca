//! `driftgate inject` on manifests as people write them: the difference is ours alone.

use std::collections::BTreeSet;
use std::fs;

use driftgate::commands::inject::{Arguments, Outcome, Sidecar, inject, run};
use serde_json::Value;

use super::definition::{path, pod_of, values};

const IMAGE: &str = "registry.example/driftgate@sha256:0123";

fn manifests() -> Vec<(String, String)> {
    let folder = fs::read_dir(path("tests/deploy/manifests")).unwrap();
    let read =
        |path: std::path::PathBuf| (path.display().to_string(), fs::read_to_string(&path).unwrap());
    let mut all: Vec<_> = folder.map(|entry| read(entry.unwrap().path())).collect();
    all.sort();
    assert!(all.len() >= 12);
    all
}

/// The objects of all documents, those of lists one by one.
fn objects(text: &str) -> Vec<Value> {
    let mut objects = Vec::new();
    for value in values(text) {
        match value["items"].as_array() {
            Some(items) => objects.extend(items.iter().cloned()),
            None => objects.push(value),
        }
    }
    objects
}

fn take_list(pod: &mut Value, name: &str) -> Vec<Value> {
    let list = pod["spec"].as_object_mut().unwrap().remove(name);
    list.and_then(|list| list.as_array().cloned()).unwrap_or_default()
}

#[test]
fn the_difference_is_ours_alone() {
    for (name, before) in manifests() {
        let (after, workloads) = inject(&before, IMAGE).unwrap();
        assert!(!workloads.is_empty(), "{name}");
        // As text: what is left without the lines of ours is what was there.
        let sidecar = Sidecar { image: IMAGE.to_owned(), ..Sidecar::default() };
        let (container, volumes) = (sidecar.container(), sidecar.volumes());
        let parts = container.lines().chain(volumes.lines()).chain(["initContainers:", "volumes:"]);
        let ours: BTreeSet<&str> = parts.map(str::trim).collect();
        let mut old = before.split_inclusive('\n').peekable();
        for line in after.split_inclusive('\n') {
            let is_old = old.peek().is_some_and(|old| old.trim_end() == line.trim_end());
            if is_old {
                let old = old.next().unwrap();
                assert!(old == line || !old.ends_with('\n'), "{name}: {line:?}");
                continue;
            }
            let is_named = |prefix: &str| line.trim().starts_with(prefix);
            let is_ours =
                ours.contains(line.trim()) || is_named("name: ") || is_named("secretName: ");
            assert!(is_ours, "{name}: {line:?}");
            assert_eq!(line.ends_with("\r\n"), before.contains("\r\n"), "{name}: {line:?}");
        }
        assert_eq!(old.next(), None, "{name}");
    }
}

#[test]
fn a_pod_that_asks_gets_the_sidecar_first_and_the_rest_as_it_was() {
    for (name, before) in manifests() {
        let (after, workloads) = inject(&before, IMAGE).unwrap();
        let (old, new) = (objects(&before), objects(&after));
        assert_eq!(old.len(), new.len(), "{name}");
        let mut count = 0;
        for (mut old, mut new) in old.into_iter().zip(new) {
            let Some((config, keys)) = pod_of(&mut old).and_then(|pod| {
                let labels = &pod["metadata"]["labels"];
                let keys = labels["driftgate.io/keys"].as_str().unwrap_or("driftgate-keys");
                Some((labels["driftgate.io/config"].as_str()?.to_owned(), keys.to_owned()))
            }) else {
                assert_eq!(old, new, "{name}");
                continue;
            };
            count += 1;
            let sidecar = Sidecar { image: IMAGE.to_owned(), config, keys };
            let (old_pod, new_pod) = (pod_of(&mut old).unwrap(), pod_of(&mut new).unwrap());
            for (list, ours) in
                [("initContainers", sidecar.container()), ("volumes", sidecar.volumes())]
            {
                let mut expected = values(&ours)[0].as_array().unwrap().clone();
                expected.extend(take_list(old_pod, list));
                assert_eq!(take_list(new_pod, list), expected, "{name}");
            }
            assert_eq!(old, new, "{name}");
        }
        assert_eq!(count, workloads.len(), "{name}");
        assert!(workloads.iter().all(|workload| workload.outcome == Outcome::Added));
    }
}

#[test]
fn twice_is_once() {
    for (name, before) in manifests() {
        let (once, workloads) = inject(&before, IMAGE).unwrap();
        let (twice, again) = inject(&once, "another:1").unwrap();
        assert!(once == twice, "{name}");
        assert_eq!(again.len(), workloads.len(), "{name}");
        assert!(again.iter().all(|workload| workload.outcome == Outcome::Present), "{name}");
    }
}

/// A Pod that asks, with `spec` below it.
fn pod(spec: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  labels:\n    driftgate.io/config: a\nspec:\n{spec}"
    )
}

#[test]
fn what_is_not_understood_is_refused_with_its_line() {
    let agent = "  containers:\n  - name: agent\n";
    let cases = [
        (pod("  containers: [}\n"), "line 7: not YAML"),
        ("{{- if .Values.a }}\nb: 1\n{{- end }}\n".to_owned(), "line 1: not YAML"),
        (pod("\tcontainers: []\n"), "line 7: not YAML"),
        (pod(&format!("{agent}  volumes: []\n")), "line 9: volumes is not in block style"),
        (pod(&format!("{agent}  volumes: ~\n")), "line 9: volumes is not in block style"),
        (pod(&format!("{agent}  volumes: &v\n  - name: x\n")), "line 10: an anchor"),
        (pod(&format!("{agent}  initContainers: *x\n")), "line 9: not YAML"),
        (pod(&format!("{agent}  volumes:\n  volumes:\n")), "line 10: the key stands here twice"),
        (pod(&format!("{agent}  hostNetwork: true\n")), "line 9: hostNetwork"),
        // What a cluster reads as true.
        (pod(&format!("{agent}  hostNetwork: yes\n")), "line 9: hostNetwork"),
        (pod("  containers:\n  - name: driftgate\n"), "line 8: an ordinary container"),
        (
            pod(&format!("{agent}  initContainers:\n  - name: driftgate\n")),
            "line 10: an init container named driftgate that is no native sidecar",
        ),
        (pod(&format!("{agent}    ports:\n    - containerPort: 7405\n")), "line 10: the sidecar"),
        (pod(&format!("{agent}  volumes:\n  - name: driftgate-spool\n")), "line 10: a volume"),
        (pod("  nodeName: x\n"), "line 7: the pod has no containers"),
        (pod(agent).replace("\nspec:\n", "\nspec: &s\n"), "line 7: an anchor around the pod"),
        (pod(agent).replace("config: a", "config: A_b"), "line 5: driftgate.io/config must be"),
        (pod(agent).replace("kind: Pod", "kind: Pod\rx: y"), "line 2: a carriage return"),
        (
            "{apiVersion: v1, kind: Pod, metadata: {labels: {driftgate.io/config: a}},\n\
             spec: {containers: [{name: a}]}}"
                .to_owned(),
            "line 2: spec is not in block style",
        ),
        (
            "apiVersion: argoproj.io/v1alpha1\nkind: Rollout\nspec:\n  template:\n    metadata:\n      \
             labels:\n        driftgate.io/config: a\n    spec: {}\n"
                .to_owned(),
            "line 7: Rollout of \"argoproj.io/v1alpha1\" asks for a sidecar",
        ),
        (
            "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  labels:\n    \
             driftgate.io/config: a\nspec:\n  template:\n    spec:\n      containers: []\n"
                .to_owned(),
            "line 5: driftgate.io/config stands on the Deployment",
        ),
        (
            "x: &l\n  driftgate.io/config: a\napiVersion: v1\nkind: Pod\nmetadata:\n  labels: *l\n"
                .to_owned(),
            "line 6: an alias",
        ),
        (
            "x: &l\n  driftgate.io/config: a\napiVersion: v1\nkind: Pod\nmetadata:\n  labels:\n    \
             <<: *l\n"
                .to_owned(),
            "line 7: a merge key",
        ),
        (format!("a: {}1{}\n", "[".repeat(100), "]".repeat(100)), "line 1: nested deeper than 64"),
    ];
    for (text, expected) in cases {
        let refusal = inject(&text, IMAGE).expect_err(&text).to_string();
        assert!(refusal.starts_with(expected), "{refusal}\n{text}");
    }
}

#[test]
fn the_command_writes_all_or_nothing() {
    let arguments = Arguments { file: None, image: IMAGE.to_owned() };
    let call = |text: &str| {
        let (mut output, mut report) = (Vec::new(), Vec::new());
        let outcome = run(&arguments, &mut text.as_bytes(), &mut output, &mut report);
        (outcome.map_err(|fault| format!("{fault:?}")), output, String::from_utf8(report).unwrap())
    };
    let text = pod("  containers:\n  - name: agent\n");
    let (outcome, output, report) = call(&text);
    assert!(outcome.is_ok());
    assert_eq!(output, inject(&text, IMAGE).unwrap().0.as_bytes());
    assert_eq!(report, "line 1: Pod : sidecar added\n");
    for refused in [text.replace("spec:", "spec: &a"), text.replace("config: a", "other: a")] {
        let (outcome, output, report) = call(&refused);
        let fault = outcome.unwrap_err();
        assert!(fault.contains("code: 65") && fault.contains("standard input: "), "{fault}");
        assert_eq!((output.as_slice(), report.as_str()), (b"".as_slice(), ""));
    }
}

proptest::proptest! {
    #[test]
    fn any_text_is_taken_or_refused(text in "[a-z:\\-\\n \\t{}\\[\\]&*#|>'\"]{0,200}") {
        if let Ok((after, _)) = inject(&text, IMAGE) {
            assert_eq!(inject(&after, IMAGE).unwrap().0, after);
        }
    }
}
