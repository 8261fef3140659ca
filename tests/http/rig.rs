//! A scripted driver, and a client that speaks raw bytes.

use core::future::{Future, pending};
use core::net::SocketAddr;
use core::time::Duration;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use driftgate::driver::{
    BrokerState, OperatorOrder, ReadFault, Readiness, ReportFault, Submission, TraceOf, Unavailable,
};
use driftgate::http::listener::{Bound, Listener};
use driftgate::http::server::{Stopped, serve};
use driftgate::http::settings::{ApiAddress, ApiSettings};
use driftgate::http::{Backend, Observer, api_router};
use driftgate::protocol::audit::Act;
use driftgate::protocol::bridge::{Answer, GateState};
use driftgate::protocol::canonical::Json;
use driftgate::protocol::exchange::{ExchangeMode, ModeReason, Version};
use driftgate::protocol::gate::Band;
use driftgate::protocol::packet::{Posture, RuntimeId};
use driftgate::protocol::time::Timestamp;
use driftgate::protocol::trace::TraceParent;
use driftgate::protocol::view::{
    AttractorView, Barrier, DriftView, FieldState, FleetView, HandshakeView, OperatorReply,
    PeerMode, PeerView, ReportReply, SafetyView, TraceView,
};
use driftgate::telemetry::Feed;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

mod answers;

use answers::{closed, out_of_range, reply, safety, trace};

/// Longest wait for anything in these tests; reached only when something is broken.
const PATIENCE: Duration = Duration::from_secs(20);

/// A native report.
pub(crate) const REPORT: &str = r#"{"cycle":7,"drift_metrics":{"sdi":0.2,"sv":0.1,"pd":0.1}}"#;

/// What the scripted driver does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Calm,
    Isolated,
    Overloaded,
    Picky,
    Stopping,
    Stuck,
}

#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) mood: Mood,
    pub(crate) alive: bool,
    pub(crate) ready: bool,
    /// Documents that reached the driver.
    pub(crate) reports: Vec<Json>,
    /// Calls of `unreadable`.
    pub(crate) unreadable: usize,
    /// Calls of `check`: whether there was a document.
    pub(crate) checks: Vec<bool>,
    /// Orders of an operator.
    pub(crate) orders: Vec<OperatorOrder>,
    /// Bytes of text in each peer's packet.
    pub(crate) packet_bytes: usize,
    pub(crate) feed: Feed,
    /// Readings of the fleet.
    pub(crate) fleet_reads: usize,
}

/// A driver that plays a script.
#[derive(Clone, Debug)]
pub(crate) struct Actor(Arc<Mutex<Script>>);

impl Actor {
    pub(crate) fn new(mood: Mood) -> Self {
        Self(Arc::new(Mutex::new(Script {
            mood,
            alive: true,
            ready: true,
            reports: Vec::new(),
            unreadable: 0,
            checks: Vec::new(),
            orders: Vec::new(),
            packet_bytes: 1,
            feed: Feed::start(),
            fleet_reads: 0,
        })))
    }

    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Script) -> T) -> T {
        act(&mut self.0.lock().unwrap())
    }

    pub(crate) fn reports(&self) -> usize {
        self.with(|script| script.reports.len())
    }

    pub(crate) fn unreadable_count(&self) -> usize {
        self.with(|script| script.unreadable)
    }

    async fn unavailable(&self) -> Result<(), Unavailable> {
        match self.with(|script| script.mood) {
            Mood::Overloaded => Err(Unavailable::Overloaded(3)),
            Mood::Stopping => Err(Unavailable::Stopping),
            Mood::Stuck => pending().await,
            Mood::Calm | Mood::Isolated | Mood::Picky => Ok(()),
        }
    }

    fn peer(&self, source: &str) -> PeerView {
        let text = "x".repeat(self.with(|script| script.packet_bytes));
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../vectors/packets.json")).unwrap();
        let golden = vectors["cases"][0]["wire"].as_str().unwrap();
        let mut packet: serde_json::Value = serde_json::from_str(golden).unwrap();
        // A later minor may say more.
        packet["header"]["protocol_version"] = "1.1".into();
        packet["more"] = text.into();
        let packet = serde_json::value::to_raw_value(&packet).unwrap();
        PeerView {
            source: runtime(source),
            external: true,
            mode: ExchangeMode::Full,
            mode_reason: ModeReason::Matching,
            authorised_until: None,
            received: Some(Timestamp::default()),
            age_s: Some(0.5),
            packet: Some(packet),
            exchange: None,
            presence: None,
            absent: None,
            refused: None,
        }
    }
}

pub(crate) fn runtime(id: &str) -> RuntimeId {
    RuntimeId::new(id).unwrap()
}

impl Backend for Actor {
    async fn report(
        &self,
        document: Json,
        _trace: Option<TraceParent>,
    ) -> Result<ReportReply, ReportFault> {
        self.with(|script| script.reports.push(document));
        self.unavailable().await?;
        let mood = self.with(|script| script.mood);
        if mood == Mood::Picky {
            let malformed = out_of_range();
            return Err(ReportFault::Malformed { malformed, state: closed() });
        }
        Ok(reply(mood == Mood::Isolated))
    }

    async fn unreadable(&self) -> Result<GateState, Unavailable> {
        self.with(|script| script.unreadable += 1);
        Ok(closed())
    }

    async fn stream(&self, lines: VecDeque<Submission>) -> Result<(), Unavailable> {
        for line in lines {
            match line {
                Submission::Report { document, trace, answer } => {
                    let _ = answer.send(self.report(document, trace).await);
                }
                Submission::Unreadable { answer } => {
                    let _ = answer.send(self.unreadable().await?);
                }
            }
        }
        Ok(())
    }

    async fn check(&self, document: Option<Json>) -> Result<Answer, Unavailable> {
        self.with(|script| script.checks.push(document.is_some()));
        self.unavailable().await?;
        let state = GateState { barrier: None, ..closed() };
        let mood = self.with(|script| script.mood);
        Ok(match document {
            None => Answer::Refused { fault: None, state },
            Some(_) if mood == Mood::Picky => {
                Answer::Refused { fault: Some(out_of_range()), state }
            }
            Some(_) => Answer::Report(Box::new(ReportReply {
                check: true,
                ..reply(mood == Mood::Isolated)
            })),
        })
    }

    async fn trace(&self, which: TraceOf) -> Result<TraceView, ReadFault> {
        self.unavailable().await?;
        match which {
            TraceOf::Newest | TraceOf::Seq(7) => Ok(trace()),
            TraceOf::Seq(_) => Err(ReadFault::NotKept),
            TraceOf::Next => Err(ReadFault::NoneCame),
        }
    }

    async fn operate(&self, order: OperatorOrder) -> Result<OperatorReply, Unavailable> {
        self.unavailable().await?;
        let operator_hold = order.act == Act::Isolate;
        self.with(|script| script.orders.push(order));
        Ok(OperatorReply {
            band: Band::Isolated,
            operator_hold,
            held_by: if operator_hold { vec!["command"] } else { Vec::new() },
            barrier: operator_hold.then_some(Barrier::Confirmed),
            survives_restart: true,
            audited: true,
        })
    }

    async fn field_state(&self) -> Result<FieldState, ReadFault> {
        self.unavailable().await?;
        if self.with(|script| script.mood) == Mood::Isolated {
            return Err(ReadFault::Isolated);
        }
        Ok(FieldState {
            runtime_id: runtime("planner"),
            band: Band::Open,
            di: Some(0.25),
            drift_metrics: DriftView::default(),
            drift_source: "native",
            posture: Posture::Stable,
            reasons: Vec::new(),
            since: Timestamp::default(),
            cycle: Some(7),
            peers: vec![self.peer("critic")],
        })
    }

    async fn attractor(&self, id: String) -> Result<AttractorView, ReadFault> {
        self.unavailable().await?;
        match (self.with(|script| script.mood), id.as_str()) {
            (Mood::Isolated, _) => Err(ReadFault::Isolated),
            (_, "a-1") => Ok(AttractorView::unknown(id, runtime("planner"), Timestamp::default())),
            _ => Err(ReadFault::NoAttractor),
        }
    }

    async fn peer_state(&self, source: RuntimeId) -> Result<PeerView, ReadFault> {
        self.unavailable().await?;
        match (self.with(|script| script.mood), source.as_str()) {
            (Mood::Isolated, _) => Err(ReadFault::Isolated),
            (_, "critic") => Ok(self.peer("critic")),
            (_, stranger) => Err(ReadFault::Unknown(stranger.to_owned())),
        }
    }

    async fn handshake(
        &self,
        _runtime_id: RuntimeId,
        _version: Version,
    ) -> Result<HandshakeView, ReadFault> {
        self.unavailable().await?;
        if self.with(|script| script.mood) == Mood::Isolated {
            return Err(ReadFault::Isolated);
        }
        let (mode, reason) = (ExchangeMode::Unreachable, ModeReason::NoAnswer);
        let critic = PeerMode { id: runtime("critic"), mode, reason };
        Ok(HandshakeView::new(runtime("planner"), Band::Open, vec![critic]))
    }

    async fn fleet(&self, _all: bool) -> Result<FleetView, ReadFault> {
        self.unavailable().await?;
        if self.with(|script| script.mood) == Mood::Isolated {
            return Err(ReadFault::Isolated);
        }
        self.with(|script| script.fleet_reads += 1);
        Ok(FleetView { at: Timestamp::default(), runtimes: Vec::new() })
    }

    async fn safety(&self) -> Result<SafetyView, Unavailable> {
        self.unavailable().await?;
        Ok(safety())
    }

    async fn is_alive(&self) -> bool {
        self.with(|script| script.alive)
    }

    fn readiness(&self) -> Readiness {
        Readiness {
            ready: self.with(|script| script.ready),
            broker: BrokerState::Disconnected,
            band: match self.with(|script| script.mood) {
                Mood::Isolated => Band::Isolated,
                Mood::Calm | Mood::Overloaded | Mood::Picky | Mood::Stopping | Mood::Stuck => {
                    Band::Blocked
                }
            },
            degraded: vec!["no broker".into()],
        }
    }

    fn feed(&self) -> Feed {
        self.with(|script| script.feed.clone())
    }
}

/// Every answer that was observed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<(String, u16)>>>);

impl Log {
    pub(crate) fn observer(&self) -> Observer {
        let log = Arc::clone(&self.0);
        Observer::new(move |route, status| log.lock().unwrap().push((route.to_owned(), status)))
    }

    pub(crate) fn lines(&self) -> Vec<(String, u16)> {
        self.0.lock().unwrap().clone()
    }
}

/// A served API listener.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) bound: Bound,
    pub(crate) actor: Actor,
    pub(crate) log: Log,
    pub(crate) stop: oneshot::Sender<()>,
    pub(crate) server: JoinHandle<Stopped>,
}

impl Served {
    pub(crate) async fn start(mood: Mood, settings: ApiSettings) -> Self {
        let listener = Listener::bind(&settings.address).await.unwrap();
        let bound = listener.bound().unwrap();
        let (actor, log) = (Actor::new(mood), Log::default());
        let router = api_router(actor.clone(), &settings, &bound, log.observer());
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async { drop(stopped.await) };
        let server =
            tokio::spawn(serve(listener, router, settings.limits, log.observer(), shutdown));
        Self { bound, actor, log, stop, server }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        match &self.bound {
            Bound::Tcp(address) => *address,
            Bound::Unix(path) => panic!("{} is no address", path.display()),
        }
    }

    pub(crate) async fn connect(&self) -> Client<TcpStream> {
        Client::new(soon(TcpStream::connect(self.address())).await.unwrap())
    }

    /// `METHOD TARGET` with a right Host, and `more` as further header lines.
    pub(crate) fn head(&self, request_line: &str, more: &str) -> String {
        format!("{request_line} HTTP/1.1\r\nHost: {}\r\n{more}\r\n", self.address())
    }

    pub(crate) fn post(&self, body: &str) -> String {
        let length = body.len();
        let more = format!("Content-Type: application/json\r\nContent-Length: {length}\r\n");
        self.head("POST /field/state", &more) + body
    }

    /// The promise behind every test here: whatever was done, the next request works.
    pub(crate) async fn assert_works(&self) {
        let before = self.actor.reports();
        let mut client = self.connect().await;
        client.send(self.post(REPORT)).await;
        assert_eq!(client.answer().await.status, 200);
        assert_eq!(self.actor.reports(), before + 1);
        assert!(!self.server.is_finished());
    }
}

/// Settings on a free loopback port.
pub(crate) fn settings() -> ApiSettings {
    let address = ApiAddress::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)));
    ApiSettings { address, ..ApiSettings::default() }
}

/// Waits for what must come.
pub(crate) async fn soon<T>(event: impl Future<Output = T>) -> T {
    timeout(PATIENCE, event).await.expect("what must come has come")
}

/// One answer.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// A raw connection.
#[derive(Debug)]
pub(crate) struct Client<S> {
    pub(crate) stream: S,
    buffer: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        soon(self.stream.write_all(bytes.as_ref())).await.unwrap();
    }

    /// Reads one answer with a `Content-Length`.
    pub(crate) async fn answer(&mut self) -> Reply {
        self.try_answer(false).await.expect("an answer, not the end of the connection")
    }

    /// Reads the answer to a HEAD, which has no body.
    pub(crate) async fn answer_to_head(&mut self) -> Reply {
        self.try_answer(true).await.expect("an answer, not the end of the connection")
    }

    /// As [`Self::answer`], `None` when the server closes instead.
    pub(crate) async fn try_answer(&mut self, is_head: bool) -> Option<Reply> {
        let end = loop {
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            self.more().await?;
        };
        let head = String::from_utf8(self.buffer.drain(..end).collect()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut reply = Reply { status, head, body: Vec::new() };
        let length = reply.header("content-length").map_or(0, |length| length.parse().unwrap());
        if !is_head {
            while self.buffer.len() < length {
                self.more().await?;
            }
            reply.body = self.buffer.drain(..length).collect();
        }
        Some(reply)
    }

    /// Waits until the server closes; gives what it still said.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while self.more().await.is_some() {}
        core::mem::take(&mut self.buffer)
    }

    async fn more(&mut self) -> Option<()> {
        let mut piece = [0; 4096];
        // A reset is an end too: the server closed while bytes of ours were still unread.
        let length = soon(self.stream.read(&mut piece)).await.unwrap_or(0);
        self.buffer.extend_from_slice(&piece[..length]);
        (length > 0).then_some(())
    }
}
