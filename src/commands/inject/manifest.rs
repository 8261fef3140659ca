//! Which pods of a manifest get a sidecar, and the lines that give it to them.
//!
//! A pod asks for it by a label, which also says whose configuration it runs with. What is not
//! understood for sure is refused, never guessed: a pod that starts without its gate, or with
//! another pod's, is worse than a command that fails.

use super::tree::{Node, Refusal, Value, documents};
use super::{CONTAINER, LABEL, LABEL_KEYS, PORTS, Sidecar, VOLUMES};

/// What became of one pod that asks for a sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has one now.
    Added,
    /// It had one.
    Present,
}

/// One workload whose pods ask for a sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Such as `Deployment`.
    pub kind: String,
    /// Its name, or what its name begins with.
    pub name: String,
    /// Where it begins, from 1.
    pub line: usize,
    /// What became of it.
    pub outcome: Outcome,
}

/// Lines to insert after a line.
struct Insertion {
    after: usize,
    text: String,
}

/// Adds the sidecar to every pod of `text` that asks for one; the rest stays byte for byte.
///
/// # Errors
/// [`Refusal`], with the line; the writer's to mend.
pub fn inject(text: &str, image: &str) -> Result<(String, Vec<Workload>), Refusal> {
    let is_alone = |at: &usize| text.as_bytes().get(at + 1) != Some(&b'\n');
    if let Some(at) = text.match_indices('\r').map(|(at, _)| at).find(is_alone) {
        let line = text.get(..at).unwrap_or_default().matches('\n').count() + 1;
        return Err(Refusal::new(line, "a carriage return that ends no line: use \\n or \\r\\n"));
    }
    let mut manifest = Manifest {
        image,
        lines: text.lines().collect(),
        insertions: Vec::new(),
        workloads: Vec::new(),
    };
    for document in &documents(text)? {
        manifest.object(document)?;
    }
    let Manifest { mut insertions, workloads, .. } = manifest;
    insertions.sort_by_key(|insertion| insertion.after);
    Ok((write(text, &insertions), workloads))
}

/// Puts the insertions, which are in order, into the text, with the text's own line ends.
fn write(text: &str, insertions: &[Insertion]) -> String {
    let mut output = String::with_capacity(text.len() * 2);
    let mut insertions = insertions.iter().peekable();
    for (index, line) in text.split_inclusive('\n').enumerate() {
        output.push_str(line);
        while let Some(insertion) = insertions.next_if(|next| next.after == index + 1) {
            let end = if line.ends_with("\r\n") { "\r\n" } else { "\n" };
            if !line.ends_with('\n') {
                output.push('\n');
            }
            for added in insertion.text.lines() {
                output.push_str(added);
                output.push_str(end);
            }
        }
    }
    output
}

struct Manifest<'a> {
    image: &'a str,
    lines: Vec<&'a str>,
    insertions: Vec<Insertion>,
    workloads: Vec<Workload>,
}

impl Manifest<'_> {
    /// One Kubernetes object.
    fn object(&mut self, object: &Node) -> Result<(), Refusal> {
        let version = object.text_of("apiVersion").unwrap_or_default();
        let kind = object.text_of("kind").unwrap_or_default();
        let path: &[&str] = match (version, kind) {
            ("v1", "List") => {
                return match object.get("items") {
                    Some(items) => items.items().iter().try_for_each(|item| self.object(item)),
                    None => Ok(()),
                };
            }
            ("v1", "Pod") => &[],
            ("apps/v1", "Deployment" | "StatefulSet" | "DaemonSet") | ("batch/v1", "Job") => {
                &["spec", "template"]
            }
            ("batch/v1", "CronJob") => &["spec", "jobTemplate", "spec", "template"],
            _ => {
                return match foreign_template(object) {
                    Some(line) => {
                        let kind = if kind.is_empty() { "an object without kind" } else { kind };
                        let problem = format!(
                            "{kind} of {version:?} asks for a sidecar by its label, and is no kind that inject knows"
                        );
                        Err(Refusal::new(line, problem))
                    }
                    None => Ok(()),
                };
            }
        };
        let mut way = vec![object];
        let mut pod = object;
        for step in path {
            let Some(child) = pod.get(step) else { return Ok(()) };
            pod = known(child)?;
            way.push(pod);
        }
        let Some((config, keys)) = asked(pod)? else {
            if let Some((_, label)) = label_entry(object, LABEL)? {
                let problem =
                    format!("{LABEL} stands on the {kind}; it belongs on its pod template");
                return Err(Refusal::new(label.line, problem));
            }
            return Ok(());
        };
        let sidecar = Sidecar { image: self.image.to_owned(), config, keys };
        let outcome = self.pod(&sidecar, pod, way)?;
        let name = |key| object.get("metadata").and_then(|metadata| metadata.text_of(key));
        let name = name("name").or_else(|| name("generateName")).unwrap_or_default().to_owned();
        self.workloads.push(Workload { kind: kind.to_owned(), name, line: object.line, outcome });
        Ok(())
    }

    fn pod(&mut self, sidecar: &Sidecar, pod: &Node, way: Vec<&Node>) -> Result<Outcome, Refusal> {
        let Some((key, spec)) = pod.entry("spec") else {
            return Err(Refusal::new(pod.line, "the pod has no spec"));
        };
        let spec = known(spec)?;
        for node in way.into_iter().chain([spec]) {
            if node.is_anchored {
                return Err(Refusal::new(
                    node.line,
                    "an anchor around the pod: its alias would change too",
                ));
            }
        }
        unique_keys(spec)?;
        let init = spec.entry("initContainers");
        if let Some((_, init)) = init {
            for container in known(init)?.items() {
                if container.text_of("name") == Some(CONTAINER) {
                    return present(container);
                }
            }
        }
        nothing_in_the_way(spec)?;
        insertable(key, spec)?;
        let column = spec.entries().first().map_or(0, |(first, _)| first.column);
        let lists =
            spec.entries().iter().find(|(_, value)| !value.items().is_empty() && value.is_block());
        let dash = lists.map_or(Ok(column + 2), |(key, _)| self.dash_column(key))?;
        let mut fresh = String::new();
        let mut existing = Vec::new();
        let parts = [("initContainers", sidecar.container()), ("volumes", sidecar.volumes())];
        for (name, part) in parts {
            match spec.entry(name) {
                None => {
                    fresh.push_str(&indented(&format!("{name}:\n"), column));
                    fresh.push_str(&indented(&part, dash));
                }
                Some((key, list)) => {
                    insertable(key, list)?;
                    let is_empty = list.items().is_empty();
                    let dash = if is_empty { dash } else { self.dash_column(key)? };
                    existing.push(Insertion { after: key.line, text: indented(&part, dash) });
                }
            }
        }
        self.insertions.push(Insertion { after: key.line, text: fresh });
        self.insertions.extend(existing);
        Ok(Outcome::Added)
    }

    /// Where the dashes stand of the block list that a key's line begins.
    fn dash_column(&self, key: &Node) -> Result<usize, Refusal> {
        let mut below = self.lines.iter().enumerate().skip(key.line);
        let is_content = |line: &str| !line.is_empty() && !line.starts_with('#');
        match below.find(|(_, line)| is_content(line.trim())) {
            Some((_, line)) if line.trim_start().starts_with('-') => {
                Ok(line.chars().take_while(|letter| *letter == ' ').count())
            }
            _ => Err(Refusal::new(key.line, "no list of one entry a line")),
        }
    }
}

/// A node that is written out where it stands.
fn known(node: &Node) -> Result<&Node, Refusal> {
    match (&node.value, node.entry("<<")) {
        (Value::Alias, _) => Err(Refusal::new(node.line, "an alias: write out what it stands for")),
        (_, Some((key, _))) => {
            Err(Refusal::new(key.line, "a merge key: write out what it stands for"))
        }
        _ => Ok(node),
    }
}

fn label_entry<'n>(object: &'n Node, label: &str) -> Result<Option<&'n (Node, Node)>, Refusal> {
    let Some(metadata) = object.get("metadata") else { return Ok(None) };
    let Some(labels) = known(metadata)?.get("labels") else { return Ok(None) };
    Ok(known(labels)?.entry(label))
}

/// The names of the ConfigMap and the Secret, if the pod asks for a sidecar.
fn asked(pod: &Node) -> Result<Option<(String, String)>, Refusal> {
    let name = |label| -> Result<Option<String>, Refusal> {
        let Some((_, value)) = label_entry(pod, label)? else { return Ok(None) };
        let text = value.text().unwrap_or_default();
        if !is_object_name(text) {
            let problem = format!("{label} must be the name of an object of the same namespace");
            return Err(Refusal::new(value.line, problem));
        }
        Ok(Some(text.to_owned()))
    };
    let Some(config) = name(LABEL)? else { return Ok(None) };
    Ok(Some((config, name(LABEL_KEYS)?.unwrap_or_else(|| Sidecar::default().keys))))
}

/// What both a label and the name of a ConfigMap may be.
fn is_object_name(text: &str) -> bool {
    let is_end = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    let is_inner =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte);
    text.len() <= 63
        && text.bytes().all(is_inner)
        && is_end(text.bytes().next())
        && is_end(text.bytes().last())
}

/// The line of a pod template with our label, anywhere inside an object of a foreign kind.
fn foreign_template(object: &Node) -> Option<usize> {
    let inside = object.entries().iter().map(|(_, value)| value).chain(object.items());
    for value in inside {
        let labels = value.get("metadata").and_then(|metadata| metadata.get("labels"));
        let label = labels.and_then(|labels| labels.entry(LABEL));
        if let (Some((key, _)), Some(_)) = (label, value.get("spec")) {
            return Some(key.line);
        }
        if let Some(line) = foreign_template(value) {
            return Some(line);
        }
    }
    None
}

fn unique_keys(map: &Node) -> Result<(), Refusal> {
    let mut seen = std::collections::BTreeSet::new();
    for (key, _) in map.entries() {
        if !seen.insert(key.text()) {
            return Err(Refusal::new(key.line, "the key stands here twice"));
        }
    }
    Ok(())
}

/// A container of our name is ours when it is a native sidecar.
fn present(container: &Node) -> Result<Outcome, Refusal> {
    if container.text_of("restartPolicy") == Some("Always") {
        return Ok(Outcome::Present);
    }
    let problem = format!("an init container named {CONTAINER} that is no native sidecar");
    Err(Refusal::new(container.line, problem))
}

/// What would keep the sidecar from working, or from being ours alone.
fn nothing_in_the_way(spec: &Node) -> Result<(), Refusal> {
    if let Some(network) = spec.get("hostNetwork").filter(|flag| flag.text() != Some("false")) {
        let problem = "hostNetwork: the sidecar's API would be open to the whole node";
        return Err(Refusal::new(network.line, problem));
    }
    let Some(containers) = spec.get("containers") else {
        return Err(Refusal::new(spec.line, "the pod has no containers"));
    };
    for list in [Some(containers), spec.get("initContainers")].into_iter().flatten() {
        for container in known(list)?.items() {
            if container.text_of("name") == Some(CONTAINER) {
                let problem = format!("an ordinary container is named {CONTAINER}");
                return Err(Refusal::new(container.line, problem));
            }
            let ports = container.get("ports").map(Node::items).unwrap_or_default();
            for port in ports.iter().filter_map(|port| port.get("containerPort")) {
                if port.text().is_some_and(|text| PORTS.contains(&text)) {
                    return Err(Refusal::new(port.line, "the sidecar listens on this port"));
                }
            }
        }
    }
    if let Some(volumes) = spec.get("volumes") {
        for volume in known(volumes)?.items() {
            if volume.text_of("name").is_some_and(|name| VOLUMES.contains(&name)) {
                return Err(Refusal::new(volume.line, "a volume has the name of one of ours"));
            }
        }
    }
    Ok(())
}

/// Whether lines can stand right after the key's.
fn insertable(key: &Node, value: &Node) -> Result<(), Refusal> {
    if value.is_anchored {
        return Err(Refusal::new(value.line, "an anchor: its alias would change too"));
    }
    let is_nothing = matches!(value.value, Value::Nothing);
    if is_nothing || (value.is_block() && value.line > key.line) {
        return Ok(());
    }
    let name = key.text().unwrap_or_default();
    let problem = format!("{name} is not in block style: write it one entry a line");
    Err(Refusal::new(key.line, problem))
}

fn indented(text: &str, columns: usize) -> String {
    text.lines().fold(String::new(), |output, line| output + &" ".repeat(columns) + line + "\n")
}
