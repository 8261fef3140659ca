//! `/aegida/safety`: thresholds, envelope, band and reasons, readable in every band.

use axum::extract::{Request, State};
use axum::response::Response;

use super::accept::AnswerType;
use super::operation::{AnswerDoc, Input, Method, Operation, Routes, schema_of};
use super::problem::Problem;
use super::{ApiState, Backend};
use crate::protocol::view::SafetyView;

static READ: Operation = Operation {
    method: Method::Get,
    path: "/aegida/safety",
    summary: "Thresholds, envelope, band and reasons, in every band",
    parameters: &[],
    body: Input::None,
    answers: &[AnswerDoc::document(200, "Where the gate stands, and why", schema_of::<SafetyView>)],
    problems: &[],
};

pub(super) fn routes<A: Backend>() -> Routes<ApiState<A>> {
    Routes::new().on(&READ, read::<A>)
}

async fn read<A: Backend>(
    State(state): State<ApiState<A>>,
    request: Request,
) -> Result<Response, Problem> {
    READ.query(request.uri())?;
    let answer = AnswerType::of(request.headers())?;
    answer.write(&state.backend.safety().await?).await
}
