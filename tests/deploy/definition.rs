//! The sidecar's definition, and every delivery that is written out from it.

use std::path::PathBuf;

use serde_json::Value;

pub(crate) fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The documents of a YAML text.
pub(crate) fn values(text: &str) -> Vec<Value> {
    let options = serde_saphyr::options! { legacy_octal_numbers: true };
    let values = serde_saphyr::from_multiple_with_options::<Value>(text, options).unwrap();
    values.into_iter().filter(|value| !value.is_null()).collect()
}

/// The pod or pod template of a workload.
pub(crate) fn pod_of(object: &mut Value) -> Option<&mut Value> {
    Some(match object["kind"].as_str()? {
        "Pod" => object,
        "Deployment" | "StatefulSet" | "DaemonSet" | "Job" => &mut object["spec"]["template"],
        "CronJob" => &mut object["spec"]["jobTemplate"]["spec"]["template"],
        _ => return None,
    })
}
