//! The console's entrance: who gets the page, who gets data, and who gets nothing.

use std::sync::Arc;

use driftgate::http::console_router;
use driftgate::http::listener::{Bound, Listener};
use driftgate::http::server::serve;
use driftgate::http::settings::{ConsoleSettings, Limits, Token};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::rig::{Actor, Client, Log, Mood, Reply, soon};

const TOKEN: &str = "operators-token-0123456789";
const DATA: [&str; 6] = [
    "/console/view",
    "/console/fleet",
    "/console/metrics",
    "/field/state",
    "/aegida/trace",
    "/phase/telemetry",
];

struct Console {
    address: std::net::SocketAddr,
    actor: Actor,
    _stop: oneshot::Sender<()>,
}

impl Console {
    async fn start(settings: ConsoleSettings) -> Self {
        let (actor, log) = (Actor::new(Mood::Calm), Log::default());
        let listener = Listener::tcp(([127, 0, 0, 1], 0).into()).await.unwrap();
        let bound = listener.bound().unwrap();
        let Bound::Tcp(address) = bound else { panic!("no address") };
        let metrics: driftgate::http::Metrics =
            Arc::new(|| Box::pin(async { Some("driftgate_up 1\n".to_owned()) }));
        let router = console_router(actor.clone(), &settings, &bound, metrics, log.observer());
        let (stop, stopped) = oneshot::channel::<()>();
        let end = async move { drop(stopped.await) };
        tokio::spawn(serve(listener, router, Limits::default(), log.observer(), end));
        Self { address, actor, _stop: stop }
    }

    async fn ask(&self, line: &str, headers: &str, body: &str) -> Reply {
        let mut client = Client::new(soon(TcpStream::connect(self.address)).await.unwrap());
        let length = body.len();
        client
            .send(format!(
                "{line} HTTP/1.1\r\n{headers}Content-Length: {length}\r\n\
                 Connection: close\r\n\r\n{body}"
            ))
            .await;
        if line.contains("telemetry") && !headers.contains("evil") {
            return client.answer_to_head().await;
        }
        client.answer().await
    }

    fn own(&self) -> String {
        format!("Host: {}\r\n", self.address)
    }
}

fn guarded() -> ConsoleSettings {
    ConsoleSettings { token: Some(Token::new(TOKEN).unwrap()), ..ConsoleSettings::default() }
}

fn open() -> ConsoleSettings {
    ConsoleSettings { is_open: true, ..ConsoleSettings::default() }
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_for_everybody_and_holds_no_data() {
    let console = Console::start(guarded()).await;
    let page = console.ask("GET /", &console.own(), "").await;
    let page = String::from_utf8(page.body).unwrap();
    let parts = ["ask", "console", "draw", "fleet", "page", "words"].map(|it| format!("/{it}.js"));
    assert!(parts.iter().all(|part| page.contains(part)), "asked for in one go: {page}");
    for path in
        ["/", "/console.css", "/operations.md"].into_iter().chain(parts.iter().map(String::as_str))
    {
        let reply = console.ask(&format!("GET {path}"), &console.own(), "").await;
        assert_eq!(reply.status, 200, "{path}");
        let policy = reply.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        assert!(reply.header("set-cookie").is_none());
        let text = String::from_utf8(reply.body).unwrap();
        assert!(!text.contains("planner\""), "{path} holds data");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn data_asks_for_the_operators_token_and_is_not_served_where_there_is_none() {
    let console = Console::start(guarded()).await;
    for path in DATA {
        let line = format!("GET {path}");
        let without = console.ask(&line, &console.own(), "").await;
        assert_eq!(without.status, 401, "{path}");
        let wrong = format!("{}{}", console.own(), bearer("another-token-0123456789"));
        assert_eq!(console.ask(&line, &wrong, "").await.status, 401, "{path}");
        let right = format!("{}{}", console.own(), bearer(TOKEN));
        let status = console.ask(&line, &right, "").await.status;
        assert_eq!(status, 200, "{path}");
    }
    let none = Console::start(ConsoleSettings::default()).await;
    for path in DATA {
        let reply = none.ask(&format!("GET {path}"), &none.own(), "").await;
        assert_eq!(reply.status, 403, "{path}");
    }
    let dev = Console::start(open()).await;
    assert_eq!(dev.ask("GET /console/view", &dev.own(), "").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_is_one_of_our_names_with_any_port() {
    let console = Console::start(open()).await;
    for host in ["localhost:1", "127.0.0.1:65535", "LOCALHOST", "[::1]:7407"] {
        let reply = console.ask("GET /console/view", &format!("Host: {host}\r\n"), "").await;
        assert_eq!(reply.status, 200, "{host}");
    }
    for host in [
        "evil.example",
        "localhost.evil.example:7407",
        "127.0.0.1.evil.example",
        "localhost:port",
        "127.0.0.2:7407",
        "",
        "localhost\r\nHost: evil.example",
    ] {
        for path in ["/", "/console/view"] {
            let reply = console.ask(&format!("GET {path}"), &format!("Host: {host}\r\n"), "").await;
            assert!(matches!(reply.status, 400 | 421), "{host} {path}: {}", reply.status);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_site_reads_nothing_and_changes_nothing() {
    let console = Console::start(open()).await;
    let json = "Content-Type: application/json\r\n";
    let order = r#"{"by": "evil", "reason": "none"}"#;
    for more in [
        "Origin: http://evil.example\r\n".to_owned(),
        "Origin: null\r\n".to_owned(),
        format!("Origin: https://{}\r\n", console.address),
        "Origin: http://localhost:1\r\n".to_owned(),
        "Sec-Fetch-Site: cross-site\r\n".to_owned(),
        "Sec-Fetch-Site: same-site\r\n".to_owned(),
        format!("Origin: http://{}\r\nOrigin: http://evil.example\r\n", console.address),
    ] {
        let headers = format!("{}{more}{json}", console.own());
        for path in DATA {
            let reply = console.ask(&format!("GET {path}"), &headers, "").await;
            assert_eq!(reply.status, 403, "{path} {more}");
            assert!(reply.header("access-control-allow-origin").is_none());
        }
        let reply = console.ask("POST /operator/isolate", &headers, order).await;
        assert_eq!(reply.status, 403, "{more}");
    }
    assert!(console.actor.with(|script| script.orders.is_empty()));
    let own = format!("{}Origin: http://{}\r\n{json}", console.own(), console.address);
    assert_eq!(console.ask("POST /operator/isolate", &own, order).await.status, 200);
    assert_eq!(console.actor.with(|script| script.orders.len()), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_orders_only_what_an_operator_may_and_takes_no_reports() {
    let console = Console::start(guarded()).await;
    let json = "Content-Type: application/json\r\n";
    let with = format!("{}{}{json}", console.own(), bearer(TOKEN));
    let without = format!("{}{json}", console.own());
    let body = r#"{"by": "me", "reason": "drill"}"#;
    for path in ["/operator/isolate", "/operator/release"] {
        let line = format!("POST {path}");
        assert_eq!(console.ask(&line, &without, body).await.status, 401, "{path}");
        assert_eq!(console.ask(&line, &with, body).await.status, 200, "{path}");
    }
    assert_eq!(console.actor.with(|script| script.orders.len()), 2);
    let report = super::rig::REPORT;
    for (line, status) in [
        ("POST /field/state", 405),
        ("PUT /memory/snapshot", 404),
        ("GET /memory/snapshot", 404),
        ("POST /runtime/handshake", 404),
        ("POST /", 405),
        ("DELETE /console/view", 405),
    ] {
        assert_eq!(console.ask(line, &with, report).await.status, status, "{line}");
    }
    assert_eq!(console.actor.reports(), 0);
    // Where it is open, nobody has proved to be the operator.
    let dev = Console::start(open()).await;
    let own = format!("{}{json}", dev.own());
    assert_eq!(dev.ask("POST /operator/release", &own, body).await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_pages_read_the_fleet_once_and_none_of_it_after_an_isolation() {
    let console = Console::start(open()).await;
    let (own, line) = (console.own(), "GET /console/fleet");
    let pages = (0..20).map(|_| console.ask(line, &own, ""));
    for reply in futures_util::future::join_all(pages).await {
        assert_eq!(reply.status, 200);
    }
    assert_eq!(console.actor.with(|script| script.fleet_reads), 1);
    console.actor.with(|script| script.mood = Mood::Isolated);
    assert_eq!(console.ask(line, &own, "").await.status, 423);
    console.actor.with(|script| script.mood = Mood::Calm);
    assert_eq!(console.ask(line, &own, "").await.status, 200);
    assert_eq!(console.actor.with(|script| script.fleet_reads), 2);
}
