//! `/openapi.json`: the routes of the API listener as OpenAPI 3.1, put together of the operations
//! that the router is made of and of the schemas of what they write.

use std::collections::BTreeMap;

use schemars::generate::SchemaSettings;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::accept::{FORMS, Form};
use super::access::ORDER_PREFIX;
use super::operation::{AnswerDoc, Content, Input, Location, Operation, Parameter, schema_of};
use super::problem::{CODINGS, Document, MEDIA_TYPE, Outcome};
use super::report_stream;
use crate::driver::Handle;
use crate::protocol::packet::CONTEXT;
use crate::protocol::schema;

/// The document.
pub(super) fn document() -> Value {
    let mut settings = SchemaSettings::draft2020_12().for_serialize();
    settings.definitions_path = "/components/schemas".into();
    let mut generator = settings.into_generator();
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for operation in super::routes::<Handle>().operations {
        let method: &str = operation.method.into();
        let described = described(operation, &mut generator);
        paths.entry(operation.path).or_default().insert(method.to_owned(), described);
    }
    let bearer = |text| json!({"type": "http", "scheme": "bearer", "description": text});
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Driftgate",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "The local interface of the sidecar of one runtime",
            "license": {"name": "Apache License 2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "http://127.0.0.1:7405", "description": "listen.api by default"}],
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "securitySchemes": {
                "token": bearer("The token of listen.token_file, where one is set"),
                "operator": bearer("The token of listen.operator_token_file"),
            },
        },
    })
}

fn described(operation: &Operation, generator: &mut SchemaGenerator) -> Value {
    let mut parameters: Vec<Value> =
        operation.parameters.iter().map(|known| parameter(known, generator)).collect();
    let mut answers: BTreeMap<String, Value> = BTreeMap::new();
    for answer in operation.answers {
        answers.insert(answer.status.to_string(), answered(answer, generator));
    }
    for (status, outcomes) in by_status(operation) {
        answers.insert(status.to_string(), refused(&outcomes, generator));
    }
    if operation.has_document() {
        let text = format!("Of {CODINGS}, weighed; nothing asks for bytes as they are");
        parameters.push(header("Accept-Encoding", &text, &json!({"type": "string"})));
    }
    let codings: Vec<&str> = CODINGS.split(", ").collect();
    let coding = match operation.body {
        Input::None => None,
        Input::Document(_) | Input::Documents(_) | Input::Bytes => Some(json!({"enum": codings})),
        // Nothing is looked at where there is no body.
        Input::Optional(_) => Some(json!({"type": "string"})),
    };
    if let Some(schema) = coding {
        let text = format!("Of the body: one of {CODINGS}");
        parameters.push(header("Content-Encoding", &text, &schema));
    }
    let mut described = json!({
        "summary": operation.summary,
        "operationId": operation.id(),
        "security": security(operation),
        "parameters": parameters,
        "responses": answers,
    });
    let (content, required) = match operation.body {
        Input::None => return described,
        Input::Document(schema) => (forms(&schema(generator)), true),
        Input::Documents(schema) => (lines(forms(&schema(generator))), true),
        Input::Optional(schema) => (forms(&schema(generator)), false),
        Input::Bytes => (json!({"*/*": {}}), true),
    };
    if let Some(members) = described.as_object_mut() {
        let body = json!({"content": content, "required": required});
        members.insert("requestBody".to_owned(), body);
    }
    described
}

/// Who asks. Whether the listener has a token is the configuration's to say.
fn security(operation: &Operation) -> Value {
    if operation.problems.contains(&Outcome::NoOperatorToken) {
        json!([{"operator": []}])
    } else if operation.path.starts_with(ORDER_PREFIX) {
        json!([{}, {"token": []}, {"operator": []}])
    } else {
        json!([{}, {"token": []}])
    }
}

fn parameter(known: &Parameter, generator: &mut SchemaGenerator) -> Value {
    let place: &str = known.location.into();
    json!({
        "name": known.name,
        "in": place,
        "description": known.text,
        "required": known.location == Location::Path,
        "schema": (known.schema)(generator),
    })
}

fn header(name: &str, text: &str, schema: &Value) -> Value {
    json!({"name": name, "in": "header", "description": text, "schema": schema})
}

fn answered(answer: &AnswerDoc, generator: &mut SchemaGenerator) -> Value {
    let content = match answer.content {
        Content::None => return json!({"description": answer.text, "headers": headers(answer)}),
        Content::Document(schema) => forms(&schema(generator)),
        Content::Documents(schema) => lines(forms(&schema(generator))),
        Content::Bytes { or } => {
            let mut content = forms(&schema::of(json!({"anyOf": [or(generator), true]})));
            if let Some(content) = content.as_object_mut() {
                content.insert("*/*".to_owned(), json!({}));
            }
            content
        }
        Content::Other(media_type) => json!({media_type: {}}),
    };
    json!({"description": answer.text, "headers": headers(answer), "content": content})
}

fn headers(answer: &AnswerDoc) -> Value {
    let named = answer
        .headers
        .iter()
        .map(|name| ((*name).to_owned(), json!({"schema": {"type": "string"}})));
    Value::Object(named.collect())
}

/// A document in each media type.
fn forms(schema: &Schema) -> Value {
    let linked = json!({"allOf": [schema, {"properties": {"@context": {"const": CONTEXT}}}]});
    let of = |form: Form| {
        if form == Form::JsonLd { json!({"schema": linked}) } else { json!({"schema": schema}) }
    };
    Value::Object(FORMS.iter().map(|(name, form)| ((*name).to_owned(), of(*form))).collect())
}

/// And a stream of documents, which OpenAPI 3.1 has no schema for.
fn lines(mut forms: Value) -> Value {
    if let Some(content) = forms.as_object_mut() {
        content.insert(report_stream::MEDIA_TYPE.to_owned(), json!({}));
    }
    forms
}

fn by_status(operation: &Operation) -> BTreeMap<u16, Vec<Outcome>> {
    let mut found: BTreeMap<u16, Vec<Outcome>> = BTreeMap::new();
    for outcome in operation.outcomes() {
        found.entry(outcome.row().0).or_default().push(outcome);
    }
    found
}

/// Problems of one status.
fn refused(outcomes: &[Outcome], generator: &mut SchemaGenerator) -> Value {
    let types: Vec<String> = outcomes.iter().map(|outcome| outcome.kind()).collect();
    let titles: Vec<&str> = outcomes.iter().map(|outcome| outcome.row().2).collect();
    let schema = json!({
        "allOf": [schema_of::<Document<'_>>(generator), {"properties": {"type": {"enum": types}}}],
    });
    json!({"description": titles.join(". "), "content": {MEDIA_TYPE: {"schema": schema}}})
}
