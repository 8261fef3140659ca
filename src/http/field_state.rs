//! `/field/state`: report a cycle, or many (`report_stream.rs`), and read the field.
//! `/field/attractors/{id}`: read an attractor.

use std::borrow::Cow;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::json;

use super::accept::AnswerType;
use super::describe::Name;
use super::document::BodyForm;
use super::operation::{
    AnswerDoc, Content, Input, Location, Method, Operation, Parameter, Routes, schema_of,
};
use super::problem::{Outcome, Problem};
use super::report_stream::verdict;
use super::{ApiState, Backend, report_stream};
use crate::protocol::packet::{RUNTIME_ID_BYTES_MAX, RuntimeId};
use crate::protocol::schema;
use crate::protocol::trace::TraceParent;
use crate::protocol::view::{AttractorView, FieldState, PeerView, ReportReply};

static READ: Operation = Operation {
    method: Method::Get,
    path: "/field/state",
    summary: "Own posture and every configured peer, or one peer",
    parameters: &[Parameter {
        name: "source",
        location: Location::Query,
        text: "One peer alone",
        schema: schema_of::<RuntimeId>,
    }],
    body: Input::None,
    answers: &[AnswerDoc::document(
        200,
        "The field, or the peer that was asked for",
        field_or_peer,
    )],
    problems: &[Outcome::UnknownPeer, Outcome::Isolated],
};

static REPORT: Operation = Operation {
    method: Method::Post,
    path: "/field/state",
    summary: "Report a cycle, or a stream of them, one in each line; a held report is no error",
    parameters: &[TRACE_PARENT, CHECK],
    body: Input::Documents(schema_of::<Report>),
    answers: &[AnswerDoc {
        status: 200,
        text: "What the gate decided",
        content: Content::Documents(schema_of::<ReportReply>),
        headers: &[],
    }],
    problems: &[Outcome::NoReports, Outcome::Malformed, Outcome::TooManyStreams],
};

static ATTRACTOR: Operation = Operation {
    method: Method::Get,
    path: "/field/attractors/{id}",
    summary: "One attractor, ours or a peer's; what nobody knows is null",
    parameters: &[Parameter {
        name: "id",
        location: Location::Path,
        text: "As a report or a packet names it",
        schema: schema_of::<String>,
    }],
    body: Input::None,
    answers: &[AnswerDoc::document(200, "The attractor", schema_of::<AttractorView>)],
    problems: &[Outcome::UnknownAttractor, Outcome::Isolated],
};

const CHECK: Parameter = Parameter {
    name: "check",
    location: Location::Query,
    text: "Says what would happen, and changes nothing",
    schema: schema_of::<String>,
};

const TRACE_PARENT: Parameter = Parameter {
    name: "traceparent",
    location: Location::Header,
    text: "W3C Trace Context; what is none is passed over",
    schema: schema_of::<String>,
};

fn field_or_peer(generator: &mut SchemaGenerator) -> Schema {
    let either = [schema_of::<FieldState>(generator), schema_of::<PeerView>(generator)];
    schema::of(json!({"anyOf": either}))
}

/// A report of the native profile. `runtime.profile` may ask for another shape.
struct Report;

impl JsonSchema for Report {
    fn schema_name() -> Cow<'static, str> {
        "Report".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        Name::Report.schema().map(schema::of).unwrap_or_default()
    }
}

pub(super) fn routes<A: Backend>() -> Routes<ApiState<A>> {
    read_routes().on(&REPORT, report::<A>)
}

/// What only reads.
pub(super) fn read_routes<A: Backend>() -> Routes<ApiState<A>> {
    Routes::new().on(&READ, read::<A>).on(&ATTRACTOR, attractor::<A>)
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
    let is_check = REPORT.query(&parts.uri)?.contains_key("check");
    if report_stream::is_asked_for(&parts.headers) {
        return report_stream::answer(state, Request::from_parts(parts, body), is_check);
    }
    let answer = AnswerType::of(&parts.headers)?;
    let form = BodyForm::of(&parts.headers)?;
    let document = match form.read(body, state.body, &state.budget).await {
        Ok(document) => document,
        // It was not read: it says nothing about the runtime.
        Err(problem) if problem.outcome() == Outcome::Overloaded => return Err(problem),
        Err(problem) if is_check => {
            let checked = state.backend.check(None).await?;
            return answer.write(&verdict(checked, problem)?).await;
        }
        Err(problem) => {
            return Err(match state.backend.unreadable().await {
                Ok(state) => problem.that_closed(state),
                Err(_) => problem,
            });
        }
    };
    if is_check {
        let checked = state.backend.check(Some(document.json)).await;
        drop(document.place);
        let unread = Problem::new(Outcome::Malformed, "the report was not judged");
        return answer.write(&verdict(checked?, unread)?).await;
    }
    let trace = parts.headers.get("traceparent").and_then(|value| value.to_str().ok());
    let trace = trace.and_then(TraceParent::parse);
    let reply = state.backend.report(document.json, trace).await;
    drop(document.place);
    answer.write(&reply?).await
}

async fn read<A: Backend>(
    State(state): State<ApiState<A>>,
    request: Request,
) -> Result<Response, Problem> {
    let mut parameters = READ.query(request.uri())?;
    let answer = AnswerType::of(request.headers())?;
    let Some(source) = parameters.remove("source") else {
        return answer.write(&state.backend.field_state().await?).await;
    };
    let source = RuntimeId::new(&source).ok_or_else(|| {
        let detail = format!("a runtime id is 1 to {RUNTIME_ID_BYTES_MAX} of A-Z a-z 0-9 _ -");
        Problem::new(Outcome::BadQuery, detail).of_field("source")
    })?;
    answer.write(&state.backend.peer_state(source).await?).await
}

/// What is no id of an attractor names none.
async fn attractor<A: Backend>(
    State(state): State<ApiState<A>>,
    id: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    ATTRACTOR.query(request.uri())?;
    let answer = AnswerType::of(request.headers())?;
    let id = id.map_or_else(|_| String::new(), |Path(id)| id);
    answer.write(&state.backend.attractor(id).await?).await
}
