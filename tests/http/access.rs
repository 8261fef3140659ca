//! Host and Origin over a raw socket: DNS rebinding, CSRF.

use axum::body::Body;
use driftgate::http::{Metrics, admin_router};
use hyper::{Request, Version};
use tower::ServiceExt as _;

use super::rig::{Actor, Log, Mood, Served, settings};

/// Sends a GET of the safety view with exactly these lines, and gives the status.
async fn status(served: &Served, target: &str, lines: &str) -> u16 {
    let mut client = served.connect().await;
    client.send(format!("GET {target} HTTP/1.1\r\n{lines}\r\n")).await;
    client.answer().await.status
}

#[tokio::test]
async fn only_an_exact_loopback_host_is_let_in() {
    let mut settings = settings();
    settings.hosts = vec!["driftgate.internal:7405".into(), "planner".into()];
    let served = Served::start(Mood::Calm, settings).await;
    let port = served.address().port();
    for (host, expected) in [
        (format!("127.0.0.1:{port}"), 200),
        (format!("localhost:{port}"), 200),
        (format!("LocalHost:{port}"), 200),
        (format!("[::1]:{port}"), 200),
        ("driftgate.internal:7405".into(), 200),
        ("planner".into(), 200),
        ("127.0.0.1".into(), 421),
        ("localhost".into(), 421),
        (String::new(), 421),
        (format!("localhost:{}", port ^ 1), 421),
        (format!("localhost.:{port}"), 421),
        (format!("127.0.0.1.:{port}"), 421),
        (format!("127.1:{port}"), 421),
        (format!("2130706433:{port}"), 421),
        (format!("0.0.0.0:{port}"), 421),
        (format!("::1:{port}"), 421),
        (format!("[0:0:0:0:0:0:0:1]:{port}"), 421),
        (format!("user@localhost:{port}"), 421),
        (format!("localhost:{port}@evil.example"), 421),
        (format!("evil.example:{port}"), 421),
        (format!("localhost.evil.example:{port}"), 421),
        (format!("localhost:{port}, evil.example"), 421),
        (format!("localhost:0{port}"), 421),
        ("driftgate.internal".into(), 421),
        ("planner:80".into(), 421),
    ] {
        let lines = format!("Host: {host}\r\n");
        assert_eq!(status(&served, "/aegida/safety", &lines).await, expected, "{host}");
    }
    served.assert_works().await;
}

#[tokio::test]
async fn a_host_that_is_missing_twice_there_or_contradicted_is_refused() {
    let served = Served::start(Mood::Calm, settings()).await;
    let port = served.address().port();
    let right = format!("Host: 127.0.0.1:{port}\r\n");
    let absolute = |authority: &str| format!("http://{authority}/aegida/safety");
    for (target, lines, expected) in [
        ("/aegida/safety".to_owned(), String::new(), 421),
        ("/aegida/safety".to_owned(), format!("{right}{right}"), 421),
        ("/aegida/safety".to_owned(), format!("{right}Host: evil.example\r\n"), 421),
        (absolute(&format!("127.0.0.1:{port}")), right.clone(), 200),
        (absolute("evil.example"), right.clone(), 421),
        (absolute(&format!("localhost:{port}")), right.clone(), 421),
        (absolute(&format!("user@127.0.0.1:{port}")), right.clone(), 421),
        (absolute(&format!("127.0.0.1.:{port}")), right.clone(), 421),
        (format!("https://127.0.0.1:{port}/aegida/safety"), right.clone(), 421),
        (absolute(&format!("127.0.0.1:{port}")), String::new(), 421),
        (absolute(&format!("127.0.0.1:{port}")), "Host: evil.example\r\n".to_owned(), 421),
    ] {
        assert_eq!(status(&served, &target, &lines).await, expected, "{target} {lines}");
    }
    let mut client = served.connect().await;
    client.send("GET /aegida/safety HTTP/1.0\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 421);
    let mut client = served.connect().await;
    client.send(format!("CONNECT evil.example:443 HTTP/1.1\r\n{right}\r\n")).await;
    assert_eq!(client.answer().await.status, 421);
    served.assert_works().await;
}

#[tokio::test]
async fn a_page_of_a_foreign_origin_gets_nothing_and_does_nothing() {
    let mut settings = settings();
    settings.origins = vec!["http://console.internal".into()];
    let served = Served::start(Mood::Calm, settings).await;
    let host = format!("Host: {}\r\n", served.address());
    for (origin, expected) in [
        ("http://console.internal", 200),
        ("http://console.internal:80", 403),
        ("http://console.internal.", 403),
        ("http://console.internal/", 403),
        ("https://console.internal", 403),
        ("http://CONSOLE.internal", 403),
        ("null", 403),
        ("", 403),
        ("http://127.0.0.1:7405", 403),
        ("http://evil.example", 403),
    ] {
        let lines = format!("{host}Origin: {origin}\r\n");
        assert_eq!(status(&served, "/aegida/safety", &lines).await, expected, "{origin}");
    }
    let own = "Origin: http://console.internal\r\n";
    let two = format!("{host}{own}Origin: http://evil.example\r\n");
    assert_eq!(status(&served, "/aegida/safety", &two).await, 403);

    // What a form, an image or a preflight of a page can send.
    for (line, more) in [
        ("POST /field/state", "Origin: null\r\nContent-Type: application/json\r\n"),
        ("POST /field/state", "Content-Type: text/plain\r\n"),
        ("POST /field/state", "Content-Type: application/x-www-form-urlencoded\r\n"),
        ("GET /field/state", "Sec-Fetch-Site: cross-site\r\n"),
        ("OPTIONS /field/state", "Access-Control-Request-Method: POST\r\n"),
    ] {
        let mut client = served.connect().await;
        let head = served.head(line, &format!("{more}Content-Length: 2\r\n"));
        client.send(head + "{}").await;
        let reply = client.answer().await;
        assert!(!reply.head.to_ascii_lowercase().contains("access-control"), "{line} {more}");
    }
    assert_eq!((served.actor.reports(), served.actor.unreadable_count()), (0, 0));
    served.assert_works().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_listener_is_called_by_address_or_by_a_name_that_is_configured() {
    let metrics: Metrics = std::sync::Arc::new(|| Box::pin(async { Some(String::new()) }));
    let names = vec!["planner.svc".to_owned()];
    let router = admin_router(Actor::new(Mood::Calm), metrics, names, Log::default().observer());
    let call = async |version: Version, host: Option<&str>| {
        let mut request = Request::builder().uri("/livez").version(version);
        if let Some(host) = host {
            request = request.header("Host", host);
        }
        let request = request.body(Body::empty()).unwrap();
        router.clone().oneshot(request).await.unwrap().status().as_u16()
    };
    let newer = Version::HTTP_11;
    for host in ["10.1.2.3:7406", "[fd00::1]:7406", "localhost:1", "127.0.0.1", "PLANNER.svc:99"] {
        assert_eq!(call(newer, Some(host)).await, 200, "{host}");
    }
    for host in ["evil.example:7406", "planner.svc.evil.example", "localhost:x", ""] {
        assert_eq!(call(newer, Some(host)).await, 421, "{host}");
    }
    assert_eq!(call(newer, None).await, 421);
    assert_eq!(call(Version::HTTP_10, None).await, 200);
}
