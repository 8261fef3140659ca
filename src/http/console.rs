//! `/` of `listen.console`: one page for a person, and what it shows.
//!
//! The page holds no data and is the same for everybody. It asks for its data with the operator's
//! token, which it keeps in memory alone: no cookie, so no page of another site can ask in its
//! name. Who may ask is decided here, stricter than on the API listener: `Host` is one of a few
//! names, with any port, because `kubectl port-forward` changes it; an `Origin` is the page's own.
//!
//! However many pages there are, they are no more to the broker than one: the fleet is read once
//! for all of them, and not at all while nobody looks.
//!
//! It reads. The one thing that it can order is what an operator may: isolate and release.

use core::time::Duration;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, ORIGIN, REFERRER_POLICY};
use hyper::{HeaderMap, StatusCode};
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::access::{MayRelease, ORDER_PREFIX, bearer_of, split_host, unauthorized};
use super::listener::Bound;
use super::problem::{Outcome, Problem};
use super::settings::{ConsoleSettings, Token};
use super::{ApiState, Backend, Metrics, field_state, operator, phase_telemetry, trace};
use crate::driver::{ReadFault, Readiness};
use crate::protocol::gate::Band;
use crate::protocol::view::{FieldState, FleetView, SafetyView};

/// The parts of the page. Nothing else is loaded, and nothing is written into them.
const PAGE: [(&str, &str, &str); 9] = [
    ("/", "text/html; charset=utf-8", include_str!("console/index.html")),
    ("/console.css", "text/css; charset=utf-8", include_str!("console/console.css")),
    ("/console.js", SCRIPT, include_str!("console/console.js")),
    ("/ask.js", SCRIPT, include_str!("console/ask.js")),
    ("/draw.js", SCRIPT, include_str!("console/draw.js")),
    ("/fleet.js", SCRIPT, include_str!("console/fleet.js")),
    ("/page.js", SCRIPT, include_str!("console/page.js")),
    ("/words.js", SCRIPT, WORDS),
    ("/operations.md", "text/plain; charset=utf-8", include_str!("../../docs/operations.md")),
];
const SCRIPT: &str = "text/javascript; charset=utf-8";
/// What the words of the gate mean.
const WORDS: &str = include_str!("console/words.js");
/// No script, style or connection but our own, and no frame around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
                      connect-src 'self'; img-src 'self' data:; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";
/// What a browser says of a request that a page of this listener makes, or a person.
const OWN_SITES: [&[u8]; 2] = [b"same-origin", b"none"];

/// How long one reading of the fleet serves every page; entries are written every ten seconds.
const FLEET_FOR: Duration = Duration::from_secs(3);
/// Of the time, at most one part in so many goes into reading the fleet, however large it is.
const FLEET_SHARE: u32 = 10;

/// The newest reading of the fleet, with how long it counts. Whoever asks while it is read waits
/// for the same one.
type Shared = Arc<Mutex<Option<(FleetView, Instant)>>>;

/// Who may see what.
#[derive(Debug)]
pub(super) struct Entrance {
    hosts: Vec<String>,
    token: Option<Token>,
    is_open: bool,
}

impl Entrance {
    pub(super) fn new(settings: &ConsoleSettings, bound: &Bound) -> Self {
        let mut hosts = settings.hosts.clone();
        hosts.extend(["127.0.0.1", "localhost", "[::1]"].map(str::to_owned));
        if let Bound::Tcp(address) = bound
            && !address.ip().is_unspecified()
        {
            hosts.push(match address.ip() {
                std::net::IpAddr::V4(ip) => ip.to_string(),
                std::net::IpAddr::V6(ip) => format!("[{ip}]"),
            });
        }
        Self { hosts, token: settings.token.clone(), is_open: settings.is_open }
    }

    /// Lets a request in, or says why not.
    pub(super) fn check(&self, request: &Request) -> Result<MayRelease, Problem> {
        let headers = request.headers();
        let host = self.check_host(request)?;
        let is_page = PAGE.iter().any(|(path, ..)| *path == request.uri().path());
        check_site(headers, host, is_page)?;
        if is_page {
            return Ok(MayRelease::Nobody);
        }
        match &self.token {
            Some(token) if bearer_of(headers).is_some_and(|guess| token.matches(guess)) => {
                Ok(MayRelease::Yes)
            }
            None if self.is_open => Ok(MayRelease::Nobody),
            Some(_) if self.is_open && !request.uri().path().starts_with(ORDER_PREFIX) => {
                Ok(MayRelease::No)
            }
            Some(_) => Err(unauthorized("the console needs the operator's token")),
            None => {
                let detail = "set listen.operator_token_file: the agent shares loopback";
                Err(Problem::new(Outcome::NoOperatorToken, detail))
            }
        }
    }

    /// The `Host` with its port, when its name is one of ours.
    fn check_host<'a>(&self, request: &'a Request) -> Result<&'a str, Problem> {
        let refuse =
            |detail: &str| Err(Problem::new(Outcome::Misdirected, detail).of_field(HOST.as_str()));
        let mut given = request.headers().get_all(HOST).iter();
        let (Some(Ok(host)), None) = (given.next().map(|host| host.to_str()), given.next()) else {
            return refuse("exactly one Host is needed");
        };
        let (name, port) = split_host(host);
        let is_port = port.is_none_or(|port| port.parse::<u16>().is_ok());
        if !is_port || !self.hosts.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            return refuse("not a name of this listener; listen.allowed_hosts can add one");
        }
        let uri = request.uri();
        if uri.authority().is_some_and(|authority| !authority.as_str().eq_ignore_ascii_case(host))
            || uri.scheme_str().is_some_and(|scheme| scheme != "http")
        {
            return refuse("the request target names another host");
        }
        Ok(host)
    }
}

/// No page of another site gets anything: neither what it says of itself in `Origin`, nor what the
/// browser says of it. A person may follow a link to the page itself.
fn check_site(headers: &HeaderMap, host: &str, is_page: bool) -> Result<(), Problem> {
    let own = format!("http://{host}");
    let is_own = |origin: &[u8]| origin.eq_ignore_ascii_case(own.as_bytes());
    let sites = headers.get_all("sec-fetch-site");
    let is_near = sites.iter().all(|site| OWN_SITES.contains(&site.as_bytes()));
    if headers.get_all(ORIGIN).iter().all(|origin| is_own(origin.as_bytes()))
        && (is_near || is_page)
    {
        return Ok(());
    }
    let detail = "pages of another origin may not ask";
    Err(Problem::new(Outcome::ForeignOrigin, detail).of_field(ORIGIN.as_str()))
}

/// What the page shows of this sidecar.
#[derive(Serialize)]
struct View {
    version: &'static str,
    readiness: Readiness,
    safety: SafetyView,
    /// `None` while isolated: nothing inbound is shown.
    field: Option<FieldState>,
    /// Whether an order of the page can be obeyed.
    may_release: bool,
}

pub(super) fn routes<A: Backend>(metrics: Metrics, all: bool) -> Router<ApiState<A>> {
    let mut router = Router::new();
    let shared = Shared::default();
    for (path, media_type, text) in PAGE {
        router = router.route(path, get(async move || part(media_type, text)));
    }
    router
        .route("/console/view", get(view::<A>))
        .route(
            "/console/fleet",
            get(move |State(state): State<ApiState<A>>| fleet(state, all, Arc::clone(&shared))),
        )
        .route("/console/metrics", get(async move || text(metrics().await)))
        .merge(field_state::read_routes::<A>().router)
        .merge(trace::routes::<A>().router)
        .merge(phase_telemetry::routes::<A>().router)
        .merge(operator::routes::<A>().router)
}

fn part(media_type: &'static str, text: &'static str) -> Response {
    let headers = [
        (CONTENT_TYPE, media_type),
        (CONTENT_SECURITY_POLICY, POLICY),
        (REFERRER_POLICY, "no-referrer"),
    ];
    (headers, text).into_response()
}

fn text(exposition: Option<String>) -> Response {
    match exposition {
        Some(text) => ([(CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response(),
        None => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

async fn view<A: Backend>(
    State(state): State<ApiState<A>>,
    request: Request,
) -> Result<Response, Problem> {
    let field = match state.backend.field_state().await {
        Ok(field) => Some(field),
        Err(ReadFault::Isolated) => None,
        Err(fault) => return Err(fault.into()),
    };
    let may_release = request.extensions().get() == Some(&MayRelease::Yes);
    Ok(axum::Json(View {
        version: env!("CARGO_PKG_VERSION"),
        readiness: state.backend.readiness(),
        safety: state.backend.safety().await?,
        field,
        may_release,
    })
    .into_response())
}

async fn fleet<A: Backend>(
    state: ApiState<A>,
    all: bool,
    shared: Shared,
) -> Result<Response, Problem> {
    let mut newest = shared.lock().await;
    // What is cut off is shown nobody, not even who was there before.
    let is_cut = state.backend.readiness().band == Band::Isolated;
    let kept = newest.take().filter(|(_, until)| !is_cut && Instant::now() < *until);
    let (fleet, _) = match kept {
        Some(kept) => newest.insert(kept),
        None => {
            let begun = Instant::now();
            let fleet = state.backend.fleet(all).await?;
            let until = Instant::now() + FLEET_FOR.max(begun.elapsed() * FLEET_SHARE);
            newest.insert((fleet, until))
        }
    };
    Ok(axum::Json(&*fleet).into_response())
}

#[cfg(test)]
mod tests {
    use strum::VariantArray as _;

    use super::*;
    use crate::protocol::reason::Reason;

    #[test]
    fn the_page_has_words_for_every_reason() {
        for reason in Reason::VARIANTS {
            let entry = format!("\n  {}: \"", reason.word());
            assert!(WORDS.contains(&entry), "{entry}");
        }
    }

    #[test]
    fn nothing_of_the_page_comes_from_elsewhere() {
        for (path, media_type, text) in PAGE {
            if media_type.starts_with("text/plain") {
                continue;
            }
            for sign in ["http://", "https://", "innerHTML", "eval(", "document.write", " onclick="]
            {
                let is_namespace = sign == "http://" && text.contains("http://www.w3.org/2000/svg");
                assert!(is_namespace || !text.contains(sign), "{path} holds {sign}");
            }
        }
    }
}
