//! `/runtime/handshake`: version and identity, with us and through us with each peer.

use axum::extract::{Request, State};
use axum::response::Response;

use super::accept::AnswerType;
use super::document::BodyForm;
use super::operation::{AnswerDoc, Input, Method, Operation, Routes, schema_of};
use super::problem::{Outcome, Problem};
use super::settings::BodyLimits;
use super::{ApiState, Backend};
use crate::protocol::canonical::Json;
use crate::protocol::exchange::{SUPPORTED, Version};
use crate::protocol::packet::{PROTOCOL_VERSION, RUNTIME_ID_BYTES_MAX, RuntimeId};
use crate::protocol::schema;
use crate::protocol::view::HandshakeView;

/// Largest body: an id and a version.
const BYTES_MAX: usize = 4 * 1024;

static NEGOTIATE: Operation = Operation {
    method: Method::Post,
    path: "/runtime/handshake",
    summary: "Version and identity, with us and through us with each peer",
    parameters: &[],
    body: Input::Document(|_| {
        let version = schema::version("(0|[1-9][0-9]{0,9})");
        let members = [("runtime_id", schema::runtime_id()), ("protocol_version", version)];
        schema::of(schema::open_object(members))
    }),
    answers: &[AnswerDoc::document(
        200,
        "Who we are, and what is exchanged",
        schema_of::<HandshakeView>,
    )],
    problems: &[Outcome::UnsupportedVersion, Outcome::BadHandshake, Outcome::Isolated],
};

pub(super) fn routes<A: Backend>() -> Routes<ApiState<A>> {
    Routes::new().on(&NEGOTIATE, negotiate::<A>)
}

async fn negotiate<A: Backend>(
    State(state): State<ApiState<A>>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    NEGOTIATE.query(&parts.uri)?;
    let answer = AnswerType::of(&parts.headers)?;
    let form = BodyForm::of(&parts.headers)?;
    let limits = BodyLimits { bytes_max: state.body.bytes_max.min(BYTES_MAX), ..state.body };
    let (id, version) = read(&form.read(body, limits, &state.budget).await?.json)?;
    let view = state.backend.handshake(id.clone(), version).await?;
    if id != view.runtime_id {
        let detail = "not the id of the runtime that this sidecar stands beside";
        return Err(Problem::new(Outcome::BadHandshake, detail).of_field("/runtime_id"));
    }
    if version.major != SUPPORTED.major {
        let detail = format!("supported: {PROTOCOL_VERSION} and every later {}.x", SUPPORTED.major);
        let problem = Problem::new(Outcome::UnsupportedVersion, detail);
        return Err(problem.of_field("/protocol_version"));
    }
    answer.write(&view).await
}

/// Reads `{"runtime_id": "...", "protocol_version": "1.0"}`; other members are passed over.
fn read(document: &Json) -> Result<(RuntimeId, Version), Problem> {
    let refuse =
        |field: &str, detail: String| Problem::new(Outcome::BadHandshake, detail).of_field(field);
    let Json::Object(members) = document else {
        return Err(refuse("", "must be an object".to_owned()));
    };
    let text = |name: &str| members.get(name).and_then(Json::as_str);
    let id = text("runtime_id").and_then(RuntimeId::new).ok_or_else(|| {
        let detail = format!("must be 1 to {RUNTIME_ID_BYTES_MAX} of A-Z a-z 0-9 _ -");
        refuse("/runtime_id", detail)
    })?;
    let version = text("protocol_version").and_then(Version::parse).ok_or_else(|| {
        refuse("/protocol_version", "must be MAJOR.MINOR, such as \"1.0\"".to_owned())
    })?;
    Ok((id, version))
}
