//! The documents that describe the rest. They are the same in every band and for everybody who may
//! ask, and need no driver.

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use hyper::header::{CONTENT_TYPE, ETAG, HeaderValue};

use super::problem::{Outcome, Problem};
use super::query::parameters;
use super::{ApiState, Backend};
use crate::schemas::Name;

/// What [`CONTEXT`](crate::protocol::packet::CONTEXT) names.
const CONTEXT: &str = include_str!("../../deploy/context.jsonld");
/// What the names of schemas stand behind.
const SCHEMAS: &str = "/schemas/";
const SCHEMA_TYPE: &str = "application/schema+json";

pub(super) fn routes<A: Backend>() -> Router<ApiState<A>> {
    let context = || async { ([(CONTENT_TYPE, "application/ld+json")], CONTEXT).into_response() };
    Router::new().route("/context.jsonld", get(context)).route("/schemas/{file}", get(schema))
}

/// One schema, with its digest as its entity tag.
async fn schema(request: Request) -> Result<Response, Problem> {
    parameters(request.uri(), &[])?;
    let file = request.uri().path().strip_prefix(SCHEMAS).unwrap_or_default();
    let name = file.strip_suffix(".json").and_then(|name| name.parse::<Name>().ok());
    let name = name.ok_or_else(|| {
        let all: Vec<String> =
            Name::ALL.iter().map(|name| format!("{SCHEMAS}{}.json", name.word())).collect();
        Problem::new(Outcome::UnknownSchema, format!("there is {}", all.join(", ")))
    })?;
    let (bytes, digest) = name.document();
    let mut response = ([(CONTENT_TYPE, SCHEMA_TYPE)], bytes).into_response();
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{digest}\"")) {
        response.headers_mut().insert(ETAG, tag);
    }
    Ok(response)
}
