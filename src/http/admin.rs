//! Probes and metrics. Nothing here writes, and nothing here is secret.
//!
//! A broker that is away and a gate that is closed are not unready: they must not take the agent's
//! pod out of service. What readiness means is the driver's to say.

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::StatusCode;
use hyper::header::CONTENT_TYPE;

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
