//! One thing of ours on the broker, as far as looking, creating and comparing go.
//!
//! Requests and configurations are JSON, field by field: servers since 2.12 refuse fields that they
//! do not know, and answers hold fields that no client library of one version lists
//! (`persist_mode`). What deliberately is not here: what is wanted, and how a difference is worded.

use serde_json::Value;

use super::requests::{RequestFault, Requests};

/// JetStream error "stream not found".
pub(super) const ERR_STREAM_ABSENT: u32 = 10_059;
/// JetStream errors "stream name already in use" and "consumer already exists": somebody was
/// faster, with another configuration than ours.
const ERR_TAKEN: [u32; 3] = [10_058, 10_148, 10_013];
/// What a stream keeps for life: another value takes another stream.
const FIXED: [&str; 4] = ["storage", "retention", "max_consumers", "persist_mode"];
/// What only a stream has that we never want.
const UNWANTED: [&str; 2] = ["no_ack", "sealed"];

/// A stream, a consumer, or a bucket.
pub(super) trait Asset {
    /// Which, such as `stream DRIFTGATE_STATE`.
    fn name(&self) -> String;
    fn lookup(&self) -> String;
    /// `None`: never ours to create.
    fn creation(&self) -> Option<(String, Value)>;
    fn is_absent(&self, err_code: u32) -> bool {
        err_code == ERR_STREAM_ABSENT
    }
    fn differences(&self, config: &Value) -> Vec<String>;
    /// The `nats` command that removes it.
    fn removal(&self) -> String;
    /// The call that gives one that is there this configuration instead; `None` where only a new
    /// one can have it.
    fn update(&self, config: &Value) -> Option<(String, Value)>;
}

/// [`Asset::update`] of a stream.
pub(super) fn stream_update(name: &str, wanted: &Value, config: &Value) -> Option<(String, Value)> {
    let of = |config: &Value, field| config.get(field).filter(|value| *value != "default").cloned();
    let is_sealed = config.get("sealed") == Some(&Value::Bool(true));
    if is_sealed || FIXED.iter().any(|field| of(config, field) != of(wanted, field)) {
        return None;
    }
    let mut merged = config.as_object()?.clone();
    merged.retain(|field, _| !UNWANTED.contains(&field.as_str()));
    merged.extend(wanted.as_object()?.clone());
    Some((format!("STREAM.UPDATE.{name}"), merged.into()))
}

/// One of them, held against what is wanted.
#[derive(Clone, Debug)]
pub struct Compared {
    /// Which, such as `stream DRIFTGATE_STATE`.
    pub name: String,
    /// Whether it is not there.
    pub is_absent: bool,
    /// What weakens a promise; empty when nothing does.
    pub differences: Vec<String>,
    /// A shell command for the `nats` program that mends it; empty where it is not ours to mend.
    pub fix: String,
}

impl Requests {
    /// Looks and changes nothing.
    pub(super) async fn compare(&self, asset: &impl Asset) -> Result<Compared, RequestFault> {
        let found = self.look(asset).await?;
        let differences = match &found {
            Some(config) => asset.differences(config),
            None => vec![format!("{} is absent", asset.name())],
        };
        let fix = asset.creation().map_or_else(String::new, |creation| {
            let updated = found.as_ref().and_then(|config| asset.update(config));
            let is_made_again = found.is_some() && updated.is_none();
            let removal =
                if is_made_again { format!("{} && ", asset.removal()) } else { String::new() };
            let (call, body) = updated.unwrap_or(creation);
            format!("{removal}nats req '{}' '{body}'", self.settings.api(&call))
        });
        Ok(Compared { name: asset.name(), is_absent: found.is_none(), differences, fix })
    }

    /// Creates it where it is absent and `nats.provision` is set. Its configuration in the end,
    /// `None` when it is absent, and whether we have created it.
    pub(super) async fn provide(
        &self,
        asset: &impl Asset,
    ) -> Result<(Option<Value>, bool), RequestFault> {
        let found = self.look(asset).await?;
        let creation =
            asset.creation().filter(|_| self.settings.broker.provision && found.is_none());
        let Some((call, body)) = creation else { return Ok((found, false)) };
        let is_created = match self.call(&call, &body).await? {
            Ok(_) => true,
            // Compare with what they made.
            Err(error) if ERR_TAKEN.contains(&error.err_code) => false,
            Err(error) => return Err(RequestFault::refused(&call, &error)),
        };
        Ok((self.look(asset).await?, is_created))
    }

    /// The configuration of an asset, `None` when it is absent.
    async fn look(&self, asset: &impl Asset) -> Result<Option<Value>, RequestFault> {
        let call = asset.lookup();
        match self.call(&call, &Value::Null).await? {
            Ok(mut answer) => match answer.get_mut("config").map(Value::take) {
                Some(config) => Ok(Some(config)),
                None => Err(RequestFault::Malformed(format!("the answer to {call}"))),
            },
            Err(error) if asset.is_absent(error.err_code) => Ok(None),
            Err(error) => Err(RequestFault::refused(&call, &error)),
        }
    }
}
