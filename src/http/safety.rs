//! `/aegida/safety`: thresholds, envelope, band and reasons, readable in every band.

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::get;

use super::accept::AnswerType;
use super::problem::Problem;
use super::query::parameters;
use super::{ApiState, Backend};

pub(super) fn routes<A: Backend>() -> Router<ApiState<A>> {
    Router::new().route("/aegida/safety", get(read::<A>))
}

async fn read<A: Backend>(
    State(state): State<ApiState<A>>,
    request: Request,
) -> Result<Response, Problem> {
    parameters(request.uri(), &[])?;
    let answer = AnswerType::of(request.headers())?;
    answer.write(&state.backend.safety().await?)
}
