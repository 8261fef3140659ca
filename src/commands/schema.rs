//! `driftgate schema`: the JSON Schema of a document, or the list of them with their digests.

use std::io::{self, Write};
use std::process::ExitCode;

use super::sysexits;
use crate::http::describe::Name;

/// Arguments of `driftgate schema`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  driftgate schema config > driftgate.schema.json
  driftgate schema --json")]
pub struct Arguments {
    /// Which one; without a name they are listed, each with the SHA-256 of its bytes
    #[arg(value_enum)]
    pub name: Option<Name>,
    /// Lists them as JSON
    #[arg(long, conflicts_with = "name")]
    pub json: bool,
}

/// Writes the schema or the list to `output`.
#[must_use]
pub fn run(arguments: &Arguments, output: &mut dyn Write) -> ExitCode {
    let written = match arguments.name {
        Some(name) => output.write_all(&name.document().0),
        None => list(arguments.json, output),
    };
    match written.and_then(|()| output.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(sysexits::IO_ERROR),
    }
}

fn list(json: bool, output: &mut dyn Write) -> io::Result<()> {
    let entries = Name::ALL.iter().map(|name| (name.word(), name.document().1, name.title()));
    if json {
        let entry = |(name, digest, title)| serde_json::json!({"name": name, "digest": digest, "title": title});
        let list: Vec<_> = entries.map(entry).collect();
        return writeln!(output, "{}", serde_json::json!({"schemas": list}));
    }
    for (name, digest, title) in entries {
        writeln!(output, "{name:<12}  {digest}  {title}")?;
    }
    Ok(())
}
