//! `/field/state`: report a cycle, read the field. `/field/attractors/{id}`: read an attractor.

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use axum::routing::get;

use super::accept::AnswerType;
use super::document::BodyForm;
use super::problem::{Outcome, Problem};
use super::query::parameters;
use super::{ApiState, Backend};
use crate::protocol::packet::{RUNTIME_ID_BYTES_MAX, RuntimeId};
use crate::protocol::trace::TraceParent;

pub(super) fn routes<A: Backend>() -> Router<ApiState<A>> {
    Router::new()
        .route("/field/state", get(read::<A>).post(report::<A>))
        .route("/field/attractors/{id}", get(attractor::<A>))
}

/// What passes the three header checks is a report. If it cannot be read, the gate closes: a
/// runtime that sends what nobody can read gives no evidence that it is stable (P6).
async fn report<A: Backend>(
    State(state): State<ApiState<A>>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    if !state.reports {
        let detail = "ingest.http is false: reports come in from the file of ingest.tail alone";
        return Err(Problem::new(Outcome::NoReports, detail));
    }
    parameters(&parts.uri, &[])?;
    let answer = AnswerType::of(&parts.headers)?;
    let form = BodyForm::of(&parts.headers)?;
    let document = match form.read(body, state.body, &state.budget).await {
        Ok(document) => document,
        // It was not read: it says nothing about the runtime.
        Err(problem) if problem.outcome() == Outcome::Overloaded => return Err(problem),
        Err(problem) => {
            return Err(match state.backend.unreadable().await {
                Ok(state) => problem.that_closed(state),
                Err(_) => problem,
            });
        }
    };
    let trace = parts.headers.get("traceparent").and_then(|value| value.to_str().ok());
    let trace = trace.and_then(TraceParent::parse);
    let reply = state.backend.report(document.json, trace).await;
    drop(document.place);
    answer.write(&reply?)
}

async fn read<A: Backend>(
    State(state): State<ApiState<A>>,
    request: Request,
) -> Result<Response, Problem> {
    let mut parameters = parameters(request.uri(), &["source"])?;
    let answer = AnswerType::of(request.headers())?;
    let Some(source) = parameters.remove("source") else {
        return answer.write(&state.backend.field_state().await?);
    };
    let source = RuntimeId::new(&source).ok_or_else(|| {
        let detail = format!("a runtime id is 1 to {RUNTIME_ID_BYTES_MAX} of A-Z a-z 0-9 _ -");
        Problem::new(Outcome::BadQuery, detail).of_field("source")
    })?;
    answer.write(&state.backend.peer_state(source).await?)
}

/// What is no id of an attractor names none.
async fn attractor<A: Backend>(
    State(state): State<ApiState<A>>,
    id: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    parameters(request.uri(), &[])?;
    let answer = AnswerType::of(request.headers())?;
    let id = id.map_or_else(|_| String::new(), |Path(id)| id);
    answer.write(&state.backend.attractor(id).await?)
}
