//! What kubectl and helm make of the deliveries; without the tool a test says SKIPPED.

use std::ffi::OsStr;
use std::fs;
use std::process::Command;

use driftgate::commands::inject::Sidecar;
use serde_json::Value;

use super::definition::{path, pod_of, values};

/// Standard output of a tool; `None`, loudly, where it is not installed.
fn said(tool: impl AsRef<OsStr>, arguments: &[&str]) -> Option<String> {
    let tool = tool.as_ref();
    let Ok(output) = Command::new(tool).args(arguments).output() else {
        println!("SKIPPED: {} is not installed", tool.display());
        return None;
    };
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {told}", tool.display());
    Some(String::from_utf8(output.stdout).unwrap())
}

fn assert_sidecar(object: &mut Value) {
    let sidecar = Sidecar::default();
    let spec = &pod_of(object).unwrap()["spec"];
    assert_eq!(spec["initContainers"][0], values(&sidecar.container())[0][0]);
    for volume in values(&sidecar.volumes())[0].as_array().unwrap() {
        assert!(spec["volumes"].as_array().unwrap().contains(volume), "{volume}");
    }
}

#[test]
fn the_component_puts_the_sidecar_first_where_the_label_is() {
    let folder = tempfile::tempdir().unwrap();
    let component = folder.path().join("component");
    fs::create_dir(&component).unwrap();
    for file in fs::read_dir(path("deploy/kustomize")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), component.join(file.file_name())).unwrap();
    }
    let pod = "initContainers: [{name: other, image: o}], containers: [{name: a, image: b}]";
    let template = format!("{{template: {{spec: {{{pod}}}}}}}");
    let labels = "labels: {driftgate.io/config: driftgate}";
    let mut text =
        format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: p, {labels}}}\nspec: {{{pod}}}\n");
    text += &format!(
        "---\napiVersion: batch/v1\nkind: CronJob\nmetadata: {{name: c, {labels}}}\n\
         spec: {{jobTemplate: {{spec: {template}}}}}\n"
    );
    for (version, kind) in
        [("apps", "Deployment"), ("apps", "StatefulSet"), ("apps", "DaemonSet"), ("batch", "Job")]
    {
        text += &format!(
            "---\napiVersion: {version}/v1\nkind: {kind}\nmetadata: {{name: w, {labels}}}\n\
             spec: {template}\n"
        );
    }
    text += "---\napiVersion: v1\nkind: Pod\nmetadata: {name: bystander}\nspec: {containers: []}\n";
    fs::write(folder.path().join("it.yaml"), text).unwrap();
    let own = "resources: [it.yaml]\ncomponents: [component]\n";
    fs::write(folder.path().join("kustomization.yaml"), own).unwrap();
    let Some(output) = said("kubectl", &["kustomize", folder.path().to_str().unwrap()]) else {
        return;
    };
    let mut found = 0;
    for mut object in values(&output) {
        if object["metadata"]["name"] == "bystander" {
            assert_eq!(object["spec"].get("initContainers"), None);
            continue;
        }
        assert_sidecar(&mut object);
        found += 1;
    }
    assert_eq!(found, 6);
}

#[test]
fn the_chart_renders_the_definition_and_refuses_what_its_schema_does_not_know() {
    let chart = path("deploy/helm/driftgate");
    let chart = chart.to_str().unwrap();
    let helm = std::env::var_os("HELM").unwrap_or_else(|| "helm".into());
    if said(&helm, &["lint", "--strict", chart]).is_none() {
        return;
    }
    let agent = "agent.container.name=agent,agent.container.image=agent:1";
    let output = said(&helm, &["template", "it", chart, "--set", agent]).unwrap();
    let mut objects = values(&output);
    assert_eq!(objects.len(), 1);
    assert_sidecar(&mut objects[0]);
    let larger = format!("{agent},memoryMi=128,spoolMi=512");
    let output = said(&helm, &["template", "it", chart, "--set", &larger]).unwrap();
    for text in ["\"409MiB\"", "memory: 128Mi", "sizeLimit: 512Mi"] {
        assert!(output.contains(text), "{text}");
    }
    let refused = Command::new(&helm).args(["template", chart, "--set", "memoryMi=8"]).output();
    assert!(!refused.unwrap().status.success());
}
