//! `/aegida/trace`: one report explained step by step, readable in every band.

use axum::extract::{Request, State};
use axum::response::Response;
use schemars::{Schema, SchemaGenerator};
use serde_json::json;

use super::accept::AnswerType;
use super::operation::{
    AnswerDoc, Input, Location, Method, Operation, Parameter, Routes, schema_of,
};
use super::problem::{Outcome, Problem};
use super::server::Stopping;
use super::{ApiState, Backend};
use crate::driver::{TraceOf, Unavailable};
use crate::protocol::schema;
use crate::protocol::view::TraceView;

static READ: Operation = Operation {
    method: Method::Get,
    path: "/aegida/trace",
    summary: "One report explained: what was read, compared, inspected, and what became of it",
    parameters: &[Parameter {
        name: "seq",
        location: Location::Query,
        text: "The report of this number, of the newest 32; or `next`, which waits 10 s for one; \
               the newest without it",
        schema: seq,
    }],
    body: Input::None,
    answers: &[AnswerDoc::document(200, "The report, step by step", schema_of::<TraceView>)],
    problems: &[Outcome::UnknownReport],
};

fn seq(_: &mut SchemaGenerator) -> Schema {
    schema::of(json!({"anyOf": [{"type": "integer", "minimum": 0}, {"const": "next"}]}))
}

pub(super) fn routes<A: Backend>() -> Routes<ApiState<A>> {
    Routes::new().on(&READ, read::<A>)
}

async fn read<A: Backend>(
    State(state): State<ApiState<A>>,
    request: Request,
) -> Result<Response, Problem> {
    let mut parameters = READ.query(request.uri())?;
    let answer = AnswerType::of(request.headers())?;
    let which = match parameters.remove("seq").as_deref() {
        None => TraceOf::Newest,
        Some("next") => TraceOf::Next,
        Some(seq) => TraceOf::Seq(seq.parse().map_err(|_| {
            let detail = "the number of a report, or next";
            Problem::new(Outcome::BadQuery, detail).of_field("seq")
        })?),
    };
    let trace = state.backend.trace(which);
    let Some(mut stopping) = request.extensions().get::<Stopping>().cloned() else {
        return answer.write(&trace.await?).await;
    };
    tokio::select! {
        trace = trace => answer.write(&trace?).await,
        () = stopping.wait() => Err(Unavailable::Stopping.into()),
    }
}
