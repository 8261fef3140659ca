//! `driftgate inject`: Kubernetes YAML in, the same YAML with the sidecar out.
//!
//! It reads and writes text and asks no cluster. The sidecar itself is `deploy/sidecar/`, which
//! every other way of delivering it is made from as well.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::sysexits::{self, Fault};

mod manifest;
mod tree;

pub use manifest::{Outcome, Workload, inject};
pub use tree::Refusal;

/// The label by which a pod asks for a sidecar; its value is the name of the ConfigMap that holds
/// `driftgate.toml`.
pub const LABEL: &str = "driftgate.io/config";
/// The label that names the Secret with the key files, where it is not the usual one.
pub const LABEL_KEYS: &str = "driftgate.io/keys";
/// The name of the container.
pub const CONTAINER: &str = "driftgate";
/// The names of its volumes.
const VOLUMES: [&str; 3] = ["driftgate-config", "driftgate-keys", "driftgate-spool"];
/// The ports that it listens on: the API's, the probes' and the console's.
const PORTS: [&str; 3] = ["7405", "7406", "7407"];

/// Most bytes of manifests in one go.
const INPUT_BYTES_MAX: u64 = 32 << 20;

const CONTAINER_YAML: &str = include_str!("../../deploy/sidecar/container.yaml");
const VOLUMES_YAML: &str = include_str!("../../deploy/sidecar/volumes.yaml");

/// What differs from one pod's sidecar to another's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sidecar {
    /// The image.
    pub image: String,
    /// The ConfigMap with `driftgate.toml`.
    pub config: String,
    /// The Secret with the key files.
    pub keys: String,
}

impl Default for Sidecar {
    fn default() -> Self {
        let image = concat!("driftgate:", env!("CARGO_PKG_VERSION")).to_owned();
        Self { image, config: "driftgate".to_owned(), keys: "driftgate-keys".to_owned() }
    }
}

impl Sidecar {
    /// The container as one entry of a block list, without the definition's comments.
    #[must_use]
    pub fn container(&self) -> String {
        let image = format!("image: {}", Self::default().image);
        let entry = without_comments(CONTAINER_YAML).enumerate().map(|(index, line)| {
            let dash = if index == 0 { "- " } else { "  " };
            if line == image {
                format!("{dash}image: {}\n", self.image)
            } else {
                format!("{dash}{line}\n")
            }
        });
        entry.collect()
    }

    /// The volumes as entries of a block list.
    #[must_use]
    pub fn volumes(&self) -> String {
        let lines = without_comments(VOLUMES_YAML).map(|line| match line {
            "    name: driftgate" => format!("    name: {}\n", self.config),
            "    secretName: driftgate-keys" => format!("    secretName: {}\n", self.keys),
            _ => format!("{line}\n"),
        });
        lines.collect()
    }
}

fn without_comments(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim_start().starts_with('#'))
}

/// Arguments of `driftgate inject`.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "A pod asks for a sidecar by the label driftgate.io/config: NAME, where NAME \
is the ConfigMap with its driftgate.toml; its keys are those of the Secret driftgate-keys, or of the \
one that the label driftgate.io/keys names.\n
Examples:
  driftgate inject -f deployment.yaml | kubectl apply -f -
  kubectl kustomize overlay | driftgate inject > with-sidecars.yaml"
)]
pub struct Arguments {
    /// The manifests; standard input without it
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// The sidecar's image; in production by digest
    #[arg(long, default_value_t = Sidecar::default().image, value_parser = image)]
    pub image: String,
}

/// Reads the manifests, writes them with their sidecars, and says on `report` what it did.
///
/// # Errors
/// [`Fault`]: what cannot be read or written, and what is not understood, with its line. Then
/// nothing is written.
pub fn run(
    arguments: &Arguments,
    input: &mut dyn Read,
    output: &mut dyn Write,
    report: &mut dyn Write,
) -> Result<ExitCode, Fault> {
    let name = arguments.file.as_deref().unwrap_or_else(|| Path::new("standard input")).display();
    let unread = |error: io::Error| Fault::new(sysexits::NO_INPUT, format!("{name}: {error}"));
    let text = match &arguments.file {
        Some(path) => read(&mut std::fs::File::open(path).map_err(unread)?),
        None => read(input),
    };
    let text = text.map_err(unread)?;
    let refuse = |problem: &str| Fault::new(sysexits::DATA_ERROR, format!("{name}: {problem}"));
    let (text, workloads) =
        inject(&text, &arguments.image).map_err(|it| refuse(&it.to_string()))?;
    if workloads.is_empty() {
        return Err(refuse(&format!("no pod asks for a sidecar: none has the label {LABEL}")));
    }
    let unwritten = |error: io::Error| Fault::new(sysexits::IO_ERROR, error.to_string());
    output.write_all(text.as_bytes()).and_then(|()| output.flush()).map_err(unwritten)?;
    for Workload { kind, name, line, outcome } in workloads {
        let did = match outcome {
            Outcome::Added => "sidecar added",
            Outcome::Present => "has its sidecar",
        };
        // What was asked for is written; who reads this is a person.
        let _ = writeln!(report, "line {line}: {kind} {name}: {did}");
    }
    Ok(ExitCode::SUCCESS)
}

fn read(input: &mut dyn Read) -> io::Result<String> {
    let mut text = String::new();
    let mut limited = input.take(INPUT_BYTES_MAX);
    limited.read_to_string(&mut text)?;
    if limited.limit() == 0 {
        return Err(io::Error::other(format!("{INPUT_BYTES_MAX} bytes or more")));
    }
    Ok(text)
}

/// What may stand after `image:` as it is.
fn image(text: &str) -> Result<String, &'static str> {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:@".contains(&byte);
    let is_image = text.len() <= 512
        && text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        && text.bytes().all(is_inner)
        && !text.ends_with(':');
    is_image.then(|| text.to_owned()).ok_or("not the name of an image")
}
