//! The local sidecar's API as this command line asks it: where it is, one exchange, its errors.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Full, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{AUTHORIZATION, HOST, HeaderValue};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::files::Files;
use super::sysexits::{self, Fault};
use crate::config::{Config, Listener};

/// Where a sidecar listens that nobody has configured otherwise.
const DEFAULT: &str = "127.0.0.1:7405";
/// A sidecar is on the same machine; it accepts at once or not at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for `GET /aegida/safety`, which the sidecar itself bounds at 2 s.
const SAFETY_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of an answer that is a document. Receipts and problems are below 1 KiB.
const DOCUMENT_BYTES_MAX: usize = 256 * 1024;
/// Bytes of a token file: as the configuration's.
const TOKEN_BYTES_MAX: usize = 512;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Where the sidecar is, and who asks.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    config: Files,
    /// Address of the API, HOST:PORT or unix:PATH; wins over the configuration. Default
    /// 127.0.0.1:7405
    #[arg(long, value_name = "ADDRESS")]
    api: Option<String>,
    /// File with the bearer token; wins over the configuration
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl From<Files> for Options {
    fn from(config: Files) -> Self {
        Self { config, api: None, token_file: None }
    }
}

impl Options {
    /// Reads the configuration, which has to be one.
    ///
    /// # Errors
    /// [`Fault`] with all its mistakes.
    pub(super) fn load(&self, environment: &BTreeMap<String, String>) -> Result<Config, Fault> {
        self.config.load(environment)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Address {
    /// `host:port`, as it stands in `Host`.
    Tcp(String),
    Unix(PathBuf),
}

/// A sidecar's API.
#[derive(Clone, Debug)]
pub(super) struct Api {
    address: Address,
    authorization: Option<HeaderValue>,
}

/// An answer that is an error: RFC 9457, as far as it is needed here.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
struct Problem {
    title: String,
    detail: String,
    field: Option<String>,
}

/// What is needed of `GET /aegida/safety`.
#[derive(Debug, serde::Deserialize)]
struct Safety {
    band: String,
    reasons: Vec<String>,
    would_reopen: Option<String>,
    thresholds: Thresholds,
}

#[derive(Debug, serde::Deserialize)]
struct Thresholds {
    reopen: f64,
}

impl Api {
    /// Finds out where the sidecar is.
    ///
    /// # Errors
    /// [`Fault`]: the configuration, the address or the token cannot be used.
    pub(super) fn find(
        options: &Options,
        environment: &BTreeMap<String, String>,
    ) -> Result<Self, Fault> {
        let config = match options.config.paths(environment).as_slice() {
            [] => None,
            _ => Some(options.load(environment)?),
        };
        let address = match (&options.api, &config) {
            (Some(text), _) => address(text)?,
            (None, Some(config)) => configured(config)?,
            (None, None) => Address::Tcp(DEFAULT.to_owned()),
        };
        let token = match (&options.token_file, &config) {
            (Some(file), _) => Some(token(file)?),
            (None, Some(config)) => config
                .listen
                .token_file
                .as_ref()
                .map(|token| String::from_utf8_lossy(token.secret.expose()).into_owned()),
            (None, None) => None,
        };
        let authorization = token.map(|token| {
            let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| {
                Fault::new(sysexits::CONFIG, "the token may hold letters, digits and -._~+/= only")
            })?;
            value.set_sensitive(true);
            Ok(value)
        });
        Ok(Self { address, authorization: authorization.transpose()? })
    }

    /// The admin listener at this address, which asks for no token.
    pub(super) fn at(admin: SocketAddr) -> Self {
        Self { address: Address::Tcp(admin.to_string()), authorization: None }
    }

    /// Sends one request on a connection of its own and waits for the head of its answer. Host and
    /// token are set here.
    ///
    /// # Errors
    /// [`Fault`] when nobody answers.
    pub(super) async fn send<B>(&self, request: Request<B>) -> Result<Response<Incoming>, Fault>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        match &self.address {
            Address::Tcp(authority) => {
                let stream = self.connected(TcpStream::connect(authority.as_str())).await?;
                self.exchange(stream, request).await
            }
            Address::Unix(path) => {
                let stream = self.connected(UnixStream::connect(path)).await?;
                self.exchange(stream, request).await
            }
        }
    }

    async fn connected<S>(
        &self,
        connecting: impl Future<Output = std::io::Result<S>>,
    ) -> Result<S, Fault> {
        match timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(self.unavailable(&error.to_string())),
            Err(_) => Err(self.unavailable("it does not accept connections")),
        }
    }

    async fn exchange<S, B>(
        &self,
        stream: S,
        mut request: Request<B>,
    ) -> Result<Response<Incoming>, Fault>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let host = match &self.address {
            Address::Tcp(authority) => authority.as_str(),
            Address::Unix(_) => "localhost",
        };
        let host = HeaderValue::try_from(host)
            .map_err(|_| Fault::new(sysexits::CONFIG, "--api is no address"))?;
        request.headers_mut().insert(HOST, host);
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        let broken = |error: hyper::Error| self.unavailable(&error.to_string());
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // It ends with the answer's body, or with the process.
        drop(tokio::spawn(connection));
        sender.send_request(request).await.map_err(broken)
    }

    /// Sends one request and waits for the document that answers it, at most `within`.
    ///
    /// # Errors
    /// [`Fault`] when nobody answers in time, or with a status other than 200.
    pub(super) async fn ask(
        &self,
        request: Request<Full<Bytes>>,
        within: Duration,
    ) -> Result<serde_json::Value, Fault> {
        let answer = async {
            let response = self.send(request).await?;
            if response.status() != StatusCode::OK {
                return Err(self.refused(response).await);
            }
            serde_json::from_slice(&document(response).await)
                .map_err(|_| self.unavailable("its answer cannot be read"))
        };
        let late = |_| self.unavailable("its answer takes too long");
        timeout(within, answer).await.map_err(late)?
    }

    /// Makes an answer that is an error into what is said.
    pub(super) async fn refused(&self, response: Response<Incoming>) -> Fault {
        let status = response.status();
        let code = code_of(status);
        let problem = document(response).await;
        let problem: Problem = serde_json::from_slice(&problem).unwrap_or_default();
        let Problem { title, detail, field } = problem;
        if status == StatusCode::LOCKED
            && let Some(why) = self.why_closed().await
        {
            return Fault::new(code, why);
        }
        if title.is_empty() {
            return Fault::new(code, format!("the sidecar answers {status}"));
        }
        let field = field.map_or_else(String::new, |field| format!("{field}: "));
        Fault::new(
            code,
            format!("the sidecar answers {}: {title}: {field}{detail}", status.as_u16()),
        )
    }

    /// Why the gate is closed, and what would open it.
    async fn why_closed(&self) -> Option<String> {
        let request = Request::get("/aegida/safety").body(Empty::<Bytes>::new()).ok()?;
        let response = timeout(SAFETY_TIMEOUT, self.send(request)).await.ok()?.ok()?;
        let safety = timeout(SAFETY_TIMEOUT, document(response)).await.ok()?;
        let safety: Safety = serde_json::from_slice(&safety).ok()?;
        Some(safety.say())
    }

    /// Nobody answers, or not to the end.
    pub(super) fn unavailable(&self, why: &str) -> Fault {
        let address = match &self.address {
            Address::Tcp(authority) => authority.clone(),
            Address::Unix(path) => format!("unix:{}", path.display()),
        };
        Fault::new(sysexits::UNAVAILABLE, format!("no sidecar answers at {address}: {why}"))
    }
}

impl Safety {
    fn say(&self) -> String {
        let reasons = self.reasons.join(", ");
        let reasons = if reasons.is_empty() { reasons } else { format!(" ({reasons})") };
        let below = || format!("a report with di < {}, posture stable", self.thresholds.reopen);
        let opens = self.would_reopen.clone().unwrap_or_else(below);
        format!("the gate is {}{reasons}; what opens it: {opens}", self.band)
    }
}

/// The whole body of an answer; empty when it is too long or breaks off.
pub(super) async fn document(response: Response<Incoming>) -> Bytes {
    let body = Limited::new(response.into_body(), DOCUMENT_BYTES_MAX);
    body.collect().await.map_or_else(|_| Bytes::new(), |body| body.to_bytes())
}

fn code_of(status: StatusCode) -> u8 {
    match status.as_u16() {
        400 | 406 | 413 | 415 | 422 | 502 => sysexits::DATA_ERROR,
        404 => sysexits::NO_INPUT,
        401 | 403 | 421 => sysexits::NO_PERMISSION,
        423 => sysexits::TEMPORARY,
        _ => sysexits::UNAVAILABLE,
    }
}

fn address(text: &str) -> Result<Address, Fault> {
    if let Some(path) = text.strip_prefix("unix:") {
        return Ok(Address::Unix(PathBuf::from(path)));
    }
    if text.starts_with('/') {
        return Ok(Address::Unix(PathBuf::from(text)));
    }
    let authority = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
    let has_port = authority.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if has_port && !authority.contains('/') {
        return Ok(Address::Tcp(authority.to_owned()));
    }
    Err(Fault::new(sysexits::CONFIG, "--api must be HOST:PORT or unix:PATH"))
}

fn configured(config: &Config) -> Result<Address, Fault> {
    match &config.listen.api {
        Listener::Unix(path) => Ok(Address::Unix(path.clone())),
        Listener::Tcp(address) if address.port() == 0 => {
            let text = "listen.api: port 0 is any free one; name the address with --api";
            Err(Fault::new(sysexits::CONFIG, text))
        }
        Listener::Tcp(address) => Ok(Address::Tcp(here(*address).to_string())),
    }
}

/// What listens everywhere listens here.
pub(super) fn here(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        ip if !ip.is_unspecified() => address,
        _ => SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port()),
    }
}

fn token(file: &Path) -> Result<String, Fault> {
    let fault = |problem: &str| {
        Fault::new(sysexits::CONFIG, format!("--token-file {}: {problem}", file.display()))
    };
    let text = std::fs::read_to_string(file).map_err(|error| fault(&error.to_string()))?;
    let text = text.trim();
    if text.is_empty() || text.len() > TOKEN_BYTES_MAX {
        return Err(fault("holds no bearer token"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_with_a_port_or_a_socket() {
        let tcp = |text: &str| Some(Address::Tcp(text.to_owned()));
        let unix = |text: &str| Some(Address::Unix(PathBuf::from(text)));
        for (text, expected) in [
            ("127.0.0.1:7405", tcp("127.0.0.1:7405")),
            ("http://localhost:7405/", tcp("localhost:7405")),
            ("[::1]:7405", tcp("[::1]:7405")),
            ("unix:/run/driftgate.sock", unix("/run/driftgate.sock")),
            ("/run/driftgate.sock", unix("/run/driftgate.sock")),
            ("localhost", None),
            (":7405", None),
            ("localhost:0", None),
            ("https://localhost:7405", None),
            ("localhost:7405/field", None),
            ("", None),
        ] {
            assert_eq!(address(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn a_closed_gate_says_why_and_what_opens_it() {
        let safety = |text: &str| serde_json::from_str::<Safety>(text).unwrap().say();
        let closed = r#"{"band": "blocked", "reasons": ["di_block"], "more": 1,
                         "would_reopen": "a good report", "thresholds": {"reopen": 0.45}}"#;
        assert_eq!(safety(closed), "the gate is blocked (di_block); what opens it: a good report");
        let caution = r#"{"band": "caution", "reasons": [], "would_reopen": null,
                          "thresholds": {"reopen": 0.4}}"#;
        let said = "the gate is caution; what opens it: a report with di < 0.4, posture stable";
        assert_eq!(safety(caution), said);
    }
}
