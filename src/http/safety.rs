//! `/aegida/safety`: thresholds, envelope, band and reasons, readable in every band.

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::get;

use super::answer::Answer;
use super::problem::Problem;
use super::query::parameters;
use super::{Ask, Room};

pub(super) fn routes<A: Ask>() -> Router<Room<A>> {
    Router::new().route("/aegida/safety", get(read::<A>))
}

async fn read<A: Ask>(State(room): State<Room<A>>, request: Request) -> Result<Response, Problem> {
    parameters(request.uri(), &[])?;
    let answer = Answer::of(request.headers())?;
    answer.write(&room.ask.safety().await?)
}
