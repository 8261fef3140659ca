//! Holds every answer that a test sees against `/openapi.json`: status, media type and body. A path
//! that it does not describe may answer anything: that of the admin listener, or of a test.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex};

use driftgate::http::describe::Name;
use jsonschema::Validator;
use serde_json::{Value, json};

/// The document, its objects closed: an answer with a member that it does not name is a mistake.
static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let mut document: Value = serde_json::from_slice(&Name::Openapi.document().0).unwrap();
    let foreign = ["Report", "StatePacket"];
    for (name, schema) in document["components"]["schemas"].as_object_mut().unwrap() {
        if schema.get("properties").is_some() && !foreign.contains(&name.as_str()) {
            // Not additionalProperties, which does not see what stands under an `anyOf` beside it.
            schema["unevaluatedProperties"] = json!(false);
        }
    }
    document
});

/// Those that were needed so far, by their place in the document.
static VALIDATORS: Mutex<BTreeMap<String, Arc<Validator>>> = Mutex::new(BTreeMap::new());

/// One answer to one request.
pub(crate) struct Seen<'a> {
    pub(crate) method: &'a str,
    /// With its query.
    pub(crate) target: &'a str,
    pub(crate) status: u16,
    pub(crate) media_type: Option<&'a str>,
    /// Without its content coding; of a HEAD nothing.
    pub(crate) body: &'a [u8],
}

/// Panics where the document says otherwise.
pub(crate) fn check(seen: &Seen<'_>) {
    if let Err(why) = held(seen) {
        let Seen { method, target, status, media_type, body } = seen;
        let body = String::from_utf8_lossy(body);
        panic!(
            "{method} {target}: {status} {media_type:?} {body}\nnot as /openapi.json says: {why}"
        );
    }
}

/// What the document says otherwise.
pub(crate) fn held(seen: &Seen<'_>) -> Result<(), String> {
    let path = seen.target.split('?').next().unwrap_or_default();
    let paths = DOCUMENT["paths"].as_object().unwrap();
    let Some((pattern, item)) = paths.iter().find(|(pattern, _)| fits(pattern, path)) else {
        return Ok(());
    };
    let method = if seen.method == "HEAD" { "get" } else { &seen.method.to_ascii_lowercase() };
    let Some(operation) = item.get(method).filter(|_| seen.method.chars().all(char::is_uppercase))
    else {
        // Access is checked before methods are.
        let is_told = matches!(seen.status, 401 | 403 | 405 | 421);
        return if is_told { Ok(()) } else { Err("it has no such method".to_owned()) };
    };
    let status = seen.status.to_string();
    let answer = operation["responses"].get(&status).ok_or("it has no such status")?;
    let Some(content) = answer.get("content") else {
        return if seen.body.is_empty() { Ok(()) } else { Err("it has no body".to_owned()) };
    };
    let media_type = seen.media_type.ok_or("a media type is missing")?;
    let media_type = media_type.split(';').next().unwrap_or_default();
    let found = if content.get(media_type).is_some() { media_type } else { "*/*" };
    let form = content.get(found).ok_or("it has no such media type")?;
    if form.get("schema").is_none() || seen.method == "HEAD" {
        return Ok(());
    }
    let escaped = |text: &str| text.replace('~', "~0").replace('/', "~1");
    let (pattern, found) = (escaped(pattern), escaped(found));
    let place = format!("/paths/{pattern}/{method}/responses/{status}/content/{found}/schema");
    valid(&place, media_type, seen.body)
}

fn valid(place: &str, media_type: &str, body: &[u8]) -> Result<(), String> {
    let mut value: Value = if media_type.ends_with("yaml") {
        serde_saphyr::from_slice(body).map_err(|error| error.to_string())?
    } else {
        serde_json::from_slice(body).map_err(|error| error.to_string())?
    };
    if media_type == "application/ld+json" {
        let context = value.as_object_mut().and_then(|members| members.remove("@context"));
        context.ok_or("it has no @context")?;
    }
    let validator = {
        let mut known = VALIDATORS.lock().unwrap();
        Arc::clone(known.entry(place.to_owned()).or_insert_with(|| Arc::new(validator(place))))
    };
    validator.validate(&value).map_err(|error| format!("{}: {error}", error.instance_path()))
}

fn validator(place: &str) -> Validator {
    let components = &DOCUMENT["components"];
    let schema = DOCUMENT.pointer(place).unwrap();
    jsonschema::draft202012::new(&json!({"allOf": [schema], "components": components})).unwrap()
}

fn fits(pattern: &str, path: &str) -> bool {
    let mut steps = (pattern.split('/'), path.split('/'));
    loop {
        match (steps.0.next(), steps.1.next()) {
            (None, None) => return true,
            (Some(step), Some(found)) if step == found => {}
            (Some(step), Some(found)) if step.starts_with('{') && !found.is_empty() => {}
            _ => return false,
        }
    }
}
