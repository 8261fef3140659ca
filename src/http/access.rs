//! Who may ask what of the API listener: checked before routing, on every request.
//!
//! Against DNS rebinding: an exact list of `Host` values. Against other pages in a browser: any
//! `Origin` that is not configured. Against other processes: an optional bearer token, or on a Unix
//! socket the peer's uid (`listener.rs`). No answer carries a CORS header, so no page of a foreign
//! origin can read one. The operator has a token of its own: a runtime that could lift an
//! operator's hold would not be held.

use axum::extract::Request;
use hyper::header::{AUTHORIZATION, HOST, ORIGIN};
use hyper::{HeaderMap, Uri};

use super::listener::Bound;
use super::problem::{Outcome, Problem};
use super::settings::{ApiSettings, Token};

/// What the paths of all orders begin with.
pub(super) const ORDER_PREFIX: &str = "/operator/";

/// Whether the sender of a request may release an operator's hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MayRelease {
    /// It sent the operator's token.
    Yes,
    /// It did not.
    No,
    /// Nobody may over HTTP: no such token is configured.
    Nobody,
}

/// The three checks.
#[derive(Debug)]
pub(super) struct Access {
    /// `None` on a Unix socket: no browser can open one, and clients make up the `Host` there.
    hosts: Option<Vec<String>>,
    origins: Vec<String>,
    token: Option<Token>,
    operator_token: Option<Token>,
}

impl Access {
    pub(super) fn new(settings: &ApiSettings, bound: &Bound) -> Self {
        let hosts = match bound {
            Bound::Tcp(address) => {
                let mut hosts = settings.hosts.clone();
                for name in ["127.0.0.1", "localhost", "[::1]"] {
                    hosts.push(format!("{name}:{port}", port = address.port()));
                    // A client leaves the default port out.
                    if address.port() == 80 {
                        hosts.push(name.to_owned());
                    }
                }
                Some(hosts)
            }
            Bound::Unix(_) => None,
        };
        let ApiSettings { origins, token, operator_token, .. } = settings.clone();
        Self { hosts, origins, token, operator_token }
    }

    /// Lets `request` in, or says why not.
    ///
    /// # Errors
    /// [`Outcome::Misdirected`], [`Outcome::ForeignOrigin`] or [`Outcome::Unauthorized`], in this
    /// order: a page that rebinds learns nothing about tokens.
    pub(super) fn check(&self, request: &Request) -> Result<MayRelease, Problem> {
        self.check_host(request.headers(), request.uri())?;
        self.check_origin(request.headers())?;
        self.check_token(request.headers(), request.uri())
    }

    fn check_host(&self, headers: &HeaderMap, uri: &Uri) -> Result<(), Problem> {
        let Some(hosts) = &self.hosts else { return Ok(()) };
        let refuse =
            |detail| Err(Problem::new(Outcome::Misdirected, detail).of_field(HOST.as_str()));
        let mut given = headers.get_all(HOST).iter();
        let (Some(host), None) = (given.next(), given.next()) else {
            return refuse("exactly one Host is needed");
        };
        let is_host = |name: &str| host.as_bytes().eq_ignore_ascii_case(name.as_bytes());
        if !hosts.iter().any(|allowed| is_host(allowed)) {
            return refuse("not a name of this listener; the configuration can add one");
        }
        // An absolute-form target (RFC 9112 section 3.2.2) overrides Host, so it must agree with
        // it.
        if uri.authority().is_some_and(|authority| !is_host(authority.as_str()))
            || uri.scheme_str().is_some_and(|scheme| scheme != "http")
        {
            return refuse("the request target names another host");
        }
        Ok(())
    }

    fn check_origin(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let is_allowed = |origin: &[u8]| self.origins.iter().any(|own| own.as_bytes() == origin);
        if headers.get_all(ORIGIN).iter().all(|origin| is_allowed(origin.as_bytes())) {
            return Ok(());
        }
        let detail = "pages of this origin may not ask; the configuration can add one";
        Err(Problem::new(Outcome::ForeignOrigin, detail).of_field(ORIGIN.as_str()))
    }

    /// The operator's token opens the operator's routes and no other.
    fn check_token(&self, headers: &HeaderMap, uri: &Uri) -> Result<MayRelease, Problem> {
        let guess = bearer_of(headers);
        let fits = |token: &Token| guess.is_some_and(|guess| token.matches(guess));
        let may_release = match &self.operator_token {
            None => MayRelease::Nobody,
            Some(token) if fits(token) => MayRelease::Yes,
            Some(_) => MayRelease::No,
        };
        let is_order = uri.path().starts_with(ORDER_PREFIX);
        let is_operator = is_order && may_release == MayRelease::Yes;
        if is_operator || self.token.as_ref().is_none_or(fits) {
            return Ok(may_release);
        }
        Err(unauthorized("send Authorization: Bearer <token>"))
    }
}

/// The answer to a token that is missing or wrong.
pub(super) fn unauthorized(detail: &str) -> Problem {
    Problem::new(Outcome::Unauthorized, detail).of_field(AUTHORIZATION.as_str())
}

/// The one bearer token that a request carries.
pub(super) fn bearer_of(headers: &HeaderMap) -> Option<&[u8]> {
    let mut given = headers.get_all(AUTHORIZATION).iter();
    match (given.next(), given.next()) {
        (Some(value), None) => bearer(value.as_bytes()),
        _ => None,
    }
}

/// The token of a `Bearer` value (RFC 6750 section 2.1); the scheme's case does not matter.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

/// Name and port of a `Host`.
pub(super) fn split_host(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((name, port)) if !name.is_empty() && (!name.contains(':') || name.ends_with(']')) => {
            (name, Some(port))
        }
        _ => (host, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_split_at_its_port() {
        for (host, name, port) in [
            ("localhost", "localhost", None),
            ("127.0.0.1:7407", "127.0.0.1", Some("7407")),
            ("[::1]:80", "[::1]", Some("80")),
            ("[::1]", "[::1]", None),
            ("::1", "::1", None),
            (":80", ":80", None),
        ] {
            assert_eq!(split_host(host), (name, port), "{host}");
        }
    }
}
