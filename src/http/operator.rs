//! `/operator/isolate` and `/operator/release`: an operator's hold.
//!
//! They stand on the API listener, behind its checks (Host, Origin, token or uid), and not on the
//! admin listener, which in a pod is reachable by everybody and has no write route. Whoever can
//! report can isolate; releasing asks for the operator's own token. When HTTP is down, a file and
//! two signals do the same.

use axum::extract::{Request, State};
use axum::response::Response;
use hyper::body::Body as _;
use hyper::header::CONTENT_TYPE;
use schemars::{Schema, SchemaGenerator};

use super::accept::AnswerType;
use super::access::{MayRelease, unauthorized};
use super::document::BodyForm;
use super::operation::{AnswerDoc, Input, Method, Operation, Routes, schema_of};
use super::problem::{Outcome, Problem};
use super::settings::BodyLimits;
use super::{ApiState, Backend};
use crate::driver::OperatorOrder;
use crate::protocol::audit::{Act, BY_BYTES_MAX, REASON_BYTES_MAX, Remark, Way};
use crate::protocol::canonical::Json;
use crate::protocol::schema;
use crate::protocol::view::OperatorReply;

/// Largest body: two short remarks, every byte of them escaped.
const BYTES_MAX: usize = 4 * 1024;

static ISOLATE: Operation = Operation {
    method: Method::Post,
    path: "/operator/isolate",
    summary: "Isolate at once and hold",
    parameters: &[],
    body: Input::Optional(remarks),
    answers: &[AnswerDoc::document(
        200,
        "The hold, once the closing has ended",
        schema_of::<OperatorReply>,
    )],
    problems: &[Outcome::BadOrder],
};

static RELEASE: Operation = Operation {
    path: "/operator/release",
    summary: "Take the hold back; the gate waits for a good report",
    answers: &[AnswerDoc::document(200, "The hold is gone", schema_of::<OperatorReply>)],
    problems: &[Outcome::NoOperatorToken, Outcome::BadOrder],
    ..ISOLATE
};

fn remarks(_: &mut SchemaGenerator) -> Schema {
    let remark = |bytes_max| schema::or_null(schema::text(bytes_max));
    schema::of(schema::object([
        ("by?", remark(BY_BYTES_MAX)),
        ("reason?", remark(REASON_BYTES_MAX)),
    ]))
}

pub(super) fn routes<A: Backend>() -> Routes<ApiState<A>> {
    Routes::new().on(&ISOLATE, isolate::<A>).on(&RELEASE, release::<A>)
}

async fn isolate<A: Backend>(
    state: State<ApiState<A>>,
    request: Request,
) -> Result<Response, Problem> {
    operate(state, request, (&ISOLATE, Act::Isolate)).await
}

async fn release<A: Backend>(
    state: State<ApiState<A>>,
    request: Request,
) -> Result<Response, Problem> {
    match request.extensions().get() {
        Some(MayRelease::Yes) => operate(state, request, (&RELEASE, Act::Release)).await,
        Some(MayRelease::No) => Err(unauthorized("releasing needs the operator's token")),
        Some(MayRelease::Nobody) | None => {
            let detail = "set listen.operator_token_file; the hold file and SIGUSR2 release too";
            Err(Problem::new(Outcome::NoOperatorToken, detail))
        }
    }
}

async fn operate<A: Backend>(
    State(state): State<ApiState<A>>,
    request: Request,
    (operation, act): (&Operation, Act),
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    operation.query(&parts.uri)?;
    let answer = AnswerType::of(&parts.headers)?;
    // The hand that is in a hurry writes no body.
    let order = if body.is_end_stream() && !parts.headers.contains_key(CONTENT_TYPE) {
        OperatorOrder::new(act, Way::Http)
    } else {
        let form = BodyForm::of(&parts.headers)?;
        let limits = BodyLimits { bytes_max: state.body.bytes_max.min(BYTES_MAX), ..state.body };
        order(act, &form.read(body, limits, &state.budget).await?.json)?
    };
    answer.write(&state.backend.operate(order).await?).await
}

/// Reads `{"reason": "...", "by": "..."}`; both may be left out.
fn order(act: Act, document: &Json) -> Result<OperatorOrder, Problem> {
    let refuse = |field: &str, detail: String| {
        Problem::new(Outcome::BadOrder, detail).of_field(field.to_owned())
    };
    let Json::Object(members) = document else {
        return Err(refuse("/", "must be an object, at least {}".to_owned()));
    };
    if members.keys().any(|key| key != "reason" && key != "by") {
        return Err(refuse("/", "may hold reason and by, and nothing else".to_owned()));
    }
    let remark = |name: &str, bytes_max: usize| match members.get(name) {
        None | Some(Json::Null) => Ok(None),
        Some(json) => {
            let remark = json.as_str().and_then(|text| Remark::new(text, bytes_max));
            let detail = || format!("must be text of 1 to {bytes_max} bytes in one line");
            remark.map(Some).ok_or_else(|| refuse(&format!("/{name}"), detail()))
        }
    };
    Ok(OperatorOrder {
        act,
        way: Way::Http,
        by: remark("by", BY_BYTES_MAX)?,
        reason: remark("reason", REASON_BYTES_MAX)?,
    })
}
