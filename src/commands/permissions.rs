//! `driftgate permissions`: what this sidecar must be allowed at the broker, written down as a
//! server, an account or an auth callout takes it.
//!
//! What is granted is `nats::grants`' to say; how it is written is said here.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;
use std::process::ExitCode;

use serde_json::json;

use super::files::Files;
use super::sysexits::{self, Fault};
use crate::nats::grants::{Grant, Grants};
use crate::nats::settings::Settings;

/// Writes the least permissions that the broker must grant
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  driftgate permissions --for nats --config driftgate.toml > planner.conf
      in nats-server.conf, the entry of this user: { nkey: UA..., include \"planner.conf\" }
  driftgate permissions --for nsc --config driftgate.toml | sh
  driftgate permissions --for callout --config driftgate.toml
      the permissions of a user's JWT: {\"pub\": {\"allow\": [...]}, \"sub\": {\"allow\": [...]}}
  driftgate permissions --for nats --role provisioner --config driftgate.toml

What is not listed is not allowed. With nats.provision the sidecar may also make its streams and
buckets; without it, the provisioner does.")]
pub struct Arguments {
    /// The form that it is written in
    #[arg(long = "for", value_name = "FORM")]
    form: Form,
    /// Whose permissions
    #[arg(long, value_name = "ROLE", default_value = "sidecar")]
    role: Role,
    #[command(flatten)]
    config: Files,
}

/// How permissions are written down.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Form {
    /// A block of nats-server.conf
    Nats,
    /// A command of nsc that adds the user
    Nsc,
    /// JSON, as a user's JWT and an auth callout hold it
    Callout,
}

/// Whose permissions.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Role {
    /// The sidecar of the configuration
    Sidecar,
    /// Whoever makes its streams, buckets and consumer
    Provisioner,
}

/// Writes them to `output`.
///
/// # Errors
/// [`Fault`]: the configuration cannot be used, or the output cannot be written.
pub fn run(
    arguments: &Arguments,
    environment: &BTreeMap<String, String>,
    output: &mut dyn Write,
) -> Result<ExitCode, Fault> {
    let config = arguments.config.load(environment)?;
    let settings = Settings::of(&config);
    let id = &config.runtime.id;
    let (name, grants) = match arguments.role {
        Role::Sidecar => (id.to_string(), Grants::of_sidecar(&settings)),
        Role::Provisioner => (format!("{id}-provisioner"), Grants::of_provisioner(&settings)),
    };
    let text = match arguments.form {
        Form::Nats => server_block(&name, &grants),
        Form::Nsc => nsc_command(&name, &grants),
        Form::Callout => jwt_permissions(&grants),
    };
    output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush())
        .map_err(|error| Fault::new(sysexits::IO_ERROR, error.to_string()))?;
    Ok(ExitCode::SUCCESS)
}

// Writing into a String does not fail, here and below.
fn server_block(name: &str, grants: &Grants) -> String {
    let mut text = format!("# What {name} may do, and nothing else.\npermissions {{\n");
    for (verb, list) in [("publish", &grants.publish), ("subscribe", &grants.subscribe)] {
        let _ = writeln!(text, "  {verb}: {{ allow: [");
        let mut said = "";
        for Grant { subject, why } in list {
            if said != *why {
                let _ = writeln!(text, "    # {why}");
                said = why;
            }
            let _ = writeln!(text, "    {subject:?}");
        }
        text.push_str("  ] }\n");
    }
    text.push_str("}\n");
    text
}

fn nsc_command(name: &str, grants: &Grants) -> String {
    let mut text = format!("nsc add user --name {name}");
    for (flag, list) in [("--allow-pub", &grants.publish), ("--allow-sub", &grants.subscribe)] {
        for grant in list {
            let _ = write!(text, " \\\n  {flag} '{}'", grant.subject);
        }
    }
    text.push('\n');
    text
}

fn jwt_permissions(grants: &Grants) -> String {
    let allow = |list: &[Grant]| {
        let subjects: Vec<&str> = list.iter().map(|grant| grant.subject.as_str()).collect();
        json!({ "allow": subjects })
    };
    let both = json!({ "pub": allow(&grants.publish), "sub": allow(&grants.subscribe) });
    format!("{both:#}\n")
}
