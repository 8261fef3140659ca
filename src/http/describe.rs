//! The documents that describe the rest. They are the same in every band and for everybody who may
//! ask, and need no driver.

use axum::Router;
use axum::response::IntoResponse as _;
use axum::routing::get;
use hyper::header::CONTENT_TYPE;

use super::{ApiState, Backend};

/// What [`CONTEXT`](crate::protocol::packet::CONTEXT) names.
const CONTEXT: &str = include_str!("../../deploy/context.jsonld");

pub(super) fn routes<A: Backend>() -> Router<ApiState<A>> {
    let context = || async { ([(CONTENT_TYPE, "application/ld+json")], CONTEXT).into_response() };
    Router::new().route("/context.jsonld", get(context))
}
