//! The documents that describe the others: one JSON Schema (2020-12) per name, with its digest.
//! `driftgate schema` and `GET /schemas/{name}.json` give the same bytes.

use serde_json::{Value, json};
use strum::VariantArray as _;

use crate::config;
use crate::profiles;
use crate::protocol::digest::Digest;
use crate::protocol::{audit, snapshot, wire};

/// What a schema is of.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::VariantArray,
    clap::ValueEnum,
)]
#[strum(serialize_all = "lowercase")]
pub enum Name {
    /// A line of the audit log
    Audit,
    /// The configuration
    Config,
    /// The manifest of a memory snapshot
    Manifest,
    /// A packet between runtimes
    Packet,
    /// A report of the native profile
    Report,
}

impl Name {
    /// All of them.
    pub const ALL: &[Self] = Self::VARIANTS;

    /// The name of its file, without `.json`.
    #[must_use]
    pub fn word(self) -> &'static str {
        self.into()
    }

    /// What it is of, in a few words.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Audit => "One line of the audit log",
            Self::Config => "A configuration file; what is required may stand in another one",
            Self::Manifest => "The manifest of a memory snapshot",
            Self::Packet => "A packet (SRIP-05 section 3)",
            Self::Report => "A state report of the profile srip-05",
        }
    }

    /// The schema.
    #[must_use]
    pub fn schema(self) -> Value {
        let mut schema = match self {
            Self::Audit => audit::line_schema(),
            Self::Config => config::schema(),
            Self::Manifest => snapshot::manifest_schema(),
            Self::Packet => wire::packet_schema(),
            Self::Report => {
                profiles::load("srip-05").map_or(Value::Bool(true), |profile| profile.schema())
            }
        };
        if let Some(members) = schema.as_object_mut() {
            let named = [
                ("$schema", "https://json-schema.org/draft/2020-12/schema".to_owned()),
                ("$id", format!("urn:driftgate:schema:{}", self.word())),
                ("title", self.title().to_owned()),
            ];
            members.extend(named.map(|(name, text)| (name.to_owned(), json!(text))));
        }
        schema
    }

    /// The bytes that are given out, and their digest.
    #[must_use]
    pub fn document(self) -> (Vec<u8>, Digest) {
        let mut bytes = serde_json::to_vec_pretty(&self.schema()).unwrap_or_default();
        bytes.push(b'\n');
        let digest = Digest::of(&bytes);
        (bytes, digest)
    }
}
