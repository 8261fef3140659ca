//! Probes and metrics. Nothing here writes, and nothing here is secret.
//!
//! A broker that is away and a gate that is closed are not unready: they must not take the agent's
//! pod out of service. What readiness means is the driver's to say.

use std::net::IpAddr;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{StatusCode, Version};

use super::access::split_host;
use super::problem::{Outcome, Problem};
use super::{Backend, Metrics};

/// What `prometheus-client` writes.
const METRICS_MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) fn routes<A: Backend>(metrics: Metrics) -> Router<A> {
    Router::new()
        // It answers, so it is bound; the caller binds the API listener before it serves this one.
        .route("/startupz", get(|| async { "ok" }))
        .route("/livez", get(livez::<A>))
        .route("/readyz", get(readyz::<A>))
        .route("/metrics", get(|| async move { exposition(metrics().await) }))
}

/// Lets in who calls by address, as `localhost` or by one of `names`. Whoever speaks HTTP/1.0 need
/// not say whom he calls.
pub(super) fn check_host(request: &Request, names: &[String]) -> Result<(), Problem> {
    let refuse =
        |detail: &str| Err(Problem::new(Outcome::Misdirected, detail).of_field(HOST.as_str()));
    let mut given = request.headers().get_all(HOST).iter();
    let host = match (given.next(), given.next()) {
        (None, _) if request.version() == Version::HTTP_10 => return Ok(()),
        (Some(host), None) => host.to_str().unwrap_or_default(),
        _ => return refuse("exactly one Host is needed"),
    };
    let (name, port) = split_host(host);
    let is_address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
    let is_named = |known: &str| known.eq_ignore_ascii_case(name);
    let is_port = port.is_none_or(|port| port.parse::<u16>().is_ok());
    if is_port && (is_address || is_named("localhost") || names.iter().any(|known| is_named(known)))
    {
        return Ok(());
    }
    refuse("neither an address nor a name of this listener; listen.admin_hosts can add one")
}

fn exposition(text: Option<String>) -> Response {
    match text {
        Some(text) => ([(CONTENT_TYPE, METRICS_MEDIA_TYPE)], text).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "the driver does not answer").into_response(),
    }
}

async fn livez<A: Backend>(State(backend): State<A>) -> Response {
    if backend.is_alive().await {
        "ok".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the driver's heartbeat has stopped").into_response()
    }
}

async fn readyz<A: Backend>(State(backend): State<A>) -> Response {
    let readiness = backend.readiness();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, axum::Json(readiness)).into_response()
}
