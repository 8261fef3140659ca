//! Each row of the status table, through the router alone.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use driftgate::http::describe::Name;
use driftgate::http::listener::Bound;
use driftgate::http::settings::{ApiSettings, BodyLimits, Token};
use driftgate::http::{Metrics, admin_router, api_router};
use http_body_util::BodyExt;
use tower::ServiceExt;

use super::described::{self, Seen};
use super::rig::{Actor, Log, Mood, REPORT, Reply};

pub(super) const TOKEN: &str = "0123456789abcdef";

/// Sends one request: a line, header lines, a body.
pub(super) async fn ask(
    actor: &Actor,
    settings: &ApiSettings,
    request: (&str, &str, &[u8]),
) -> Reply {
    let bound = Bound::Tcp(([127, 0, 0, 1], 7405).into());
    let log = Log::default();
    let router = api_router(actor.clone(), settings, &bound, log.observer());
    let reply = reply(router, request).await;
    assert_eq!(log.lines().len(), 1, "every answer is observed once");
    assert_eq!(log.lines()[0].1, reply.status);
    if reply.header("content-encoding").is_none() {
        let (method, target) = request.0.split_once(' ').unwrap();
        let (status, media_type, body) = (reply.status, reply.header("content-type"), &reply.body);
        described::check(&Seen { method, target, status, media_type, body });
    }
    reply
}

async fn reply(router: axum::Router, (line, headers, body): (&str, &str, &[u8])) -> Reply {
    let (method, target) = line.split_once(' ').unwrap();
    let mut request = Request::builder().method(method).uri(target);
    if !headers.to_ascii_lowercase().contains("host:") {
        request = request.header("host", "127.0.0.1:7405");
    }
    for header in headers.lines() {
        let (name, value) = header.split_once(':').unwrap();
        request = request.header(name, value.trim());
    }
    let request = request.body(Body::from(body.to_vec())).unwrap();
    let response = router.oneshot(request).await.unwrap();
    let mut head = format!("HTTP/1.1 {}\r\n", response.status());
    for (name, value) in response.headers() {
        head += &format!("{name}: {}\r\n", value.to_str().unwrap());
    }
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes().to_vec();
    Reply { status, head, body }
}

/// Asks a driver in `mood` and expects a problem of `status` that names `field`.
pub(super) async fn check(
    mood: Mood,
    request: (&str, &str, &[u8]),
    status: u16,
    field: &str,
) -> Reply {
    check_with(&ApiSettings::default(), mood, request, status, field).await
}

async fn check_with(
    settings: &ApiSettings,
    mood: Mood,
    request: (&str, &str, &[u8]),
    status: u16,
    field: &str,
) -> Reply {
    let reply = ask(&Actor::new(mood), settings, request).await;
    let (line, headers, _) = request;
    assert_eq!(reply.status, status, "{line} {headers} {:?}", str::from_utf8(&reply.body));
    assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{line}");
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
    let problem = reply.json();
    assert_eq!(problem["status"], status);
    assert!(problem["type"].as_str().unwrap().starts_with("urn:driftgate:problem:"));
    assert!(!problem["title"].as_str().unwrap().is_empty());
    assert!(!problem["detail"].as_str().unwrap().is_empty());
    assert_eq!(problem.get("field").and_then(|field| field.as_str()).unwrap_or(""), field);
    reply
}

const JSON: &str = "content-type: application/json";

#[tokio::test]
async fn a_report_is_answered_with_its_verdict_in_each_media_type() {
    let yaml = "cycle: 7\ndrift_metrics: {sdi: 0.2, sv: 0.1, pd: 0.1}\n";
    let zstd = zstd::encode_all(REPORT.as_bytes(), 3).unwrap();
    let rows: [(&str, &[u8]); 9] = [
        (JSON, REPORT.as_bytes()),
        ("content-type: application/json; charset=UTF-8", REPORT.as_bytes()),
        ("content-type: Application/LD+JSON", REPORT.as_bytes()),
        ("content-type: application/yaml", yaml.as_bytes()),
        ("content-type: text/yaml;charset=\"utf-8\"", yaml.as_bytes()),
        ("content-type: application/x-yaml", yaml.as_bytes()),
        ("content-type: application/json\ncontent-encoding: identity", REPORT.as_bytes()),
        ("content-type: application/json\ncontent-encoding: zstd", &zstd),
        ("content-type: application/json\naccept: application/*", REPORT.as_bytes()),
    ];
    let expected = Actor::new(Mood::Calm);
    ask(&expected, &ApiSettings::default(), ("POST /field/state", JSON, REPORT.as_bytes())).await;
    for (headers, body) in rows {
        let actor = Actor::new(Mood::Calm);
        let reply =
            ask(&actor, &ApiSettings::default(), ("POST /field/state", headers, body)).await;
        assert_eq!(reply.status, 200, "{headers}");
        assert_eq!(reply.header("content-type"), Some("application/json"));
        assert_eq!(reply.json()["verdict"], "export");
        assert_eq!(reply.json()["packets"][0]["status"], "stored");
        assert_eq!(
            actor.with(|script| script.reports.clone()),
            expected.with(|script| script.reports.clone()),
            "{headers}"
        );
        assert_eq!(actor.unreadable_count(), 0);
    }
}

#[tokio::test]
async fn a_held_report_is_no_error() {
    let request = ("POST /field/state", JSON, REPORT.as_bytes());
    let reply = ask(&Actor::new(Mood::Isolated), &ApiSettings::default(), request).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.json()["verdict"], "isolate");
}

#[tokio::test]
async fn a_report_that_cannot_be_read_is_refused_and_closes_the_gate() {
    let deep = "[".repeat(100_000);
    let deep_yaml = "- ".repeat(10_000);
    let bomb = "a: &a [x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\n\
                c: &c [*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c]\n\
                e: &e [*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e]\n\
                g: [*f,*f,*f,*f,*f,*f,*f,*f]\n";
    let whole = zstd::encode_all(REPORT.as_bytes(), 3).unwrap();
    let (yaml, zstd) =
        ("content-type: text/yaml", "content-type: application/json\ncontent-encoding: zstd");
    let rows: [(&str, &[u8], u16); 19] = [
        (JSON, b"", 400),
        (JSON, b"{", 400),
        (JSON, b"{} {}", 400),
        (JSON, b"{\"di\": NaN}", 400),
        (JSON, b"{\"di\": 1e400}", 400),
        (JSON, b"{\"di\": 1, \"di\": 2}", 400),
        (JSON, b"{\"id\": \"\xff\xfe\"}", 400),
        (JSON, b"{\"id\": \"\\ud800\"}", 400),
        (JSON, b"\x00\x01\x02", 400),
        (JSON, deep.as_bytes(), 400),
        (yaml, b"a: [", 400),
        (yaml, b"a: 1\na: 2", 400),
        (yaml, b"a: .nan", 400),
        (yaml, b"a: \xff", 400),
        (yaml, deep_yaml.as_bytes(), 400),
        (yaml, bomb.as_bytes(), 400),
        (zstd, b"no frame", 400),
        (zstd, &whole[..whole.len() - 3], 400),
        (JSON, &[b' '; 300 * 1024], 413),
    ];
    for (headers, body, status) in rows {
        let actor = Actor::new(Mood::Calm);
        let request = ("POST /field/state", headers, body);
        let reply = ask(&actor, &ApiSettings::default(), request).await;
        let shown = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
        assert_eq!(reply.status, status, "{headers} {shown}");
        assert!(reply.json()["field"].is_string(), "{headers} {shown}");
        assert_eq!((actor.reports(), actor.unreadable_count()), (0, 1), "{headers} {shown}");
    }
}

#[tokio::test]
async fn a_body_is_bounded_before_and_after_decoding() {
    let settings = ApiSettings {
        body: BodyLimits { bytes_max: 4096, ..BodyLimits::default() },
        ..ApiSettings::default()
    };
    let at_limit = format!("{REPORT}{}", " ".repeat(4096 - REPORT.len()));
    let over_limit = format!("{at_limit} ");
    let zstd = "content-type: application/json\ncontent-encoding: zstd";
    for (headers, body, status) in [
        (JSON, at_limit.clone().into_bytes(), 200),
        (JSON, over_limit.clone().into_bytes(), 413),
        (zstd, zstd::encode_all(at_limit.as_bytes(), 19).unwrap(), 200),
        (zstd, zstd::encode_all(over_limit.as_bytes(), 19).unwrap(), 413),
        (zstd, zstd::encode_all(&vec![0; 16 << 20][..], 19).unwrap(), 413),
    ] {
        assert!(headers == JSON || body.len() < 4096, "what is bounded here is the plain text");
        let request = ("POST /field/state", headers, &body[..]);
        let reply = ask(&Actor::new(Mood::Calm), &settings, request).await;
        assert_eq!(reply.status, status, "{headers} {}", body.len());
    }
}

#[tokio::test]
async fn a_frame_with_a_huge_window_is_refused() {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(27).unwrap();
    std::io::Write::write_all(&mut encoder, REPORT.as_bytes()).unwrap();
    let frame = encoder.finish().unwrap();
    let headers = "content-type: application/json\ncontent-encoding: zstd";
    check(Mood::Calm, ("POST /field/state", headers, &frame), 400, "content-encoding").await;
}

#[tokio::test]
async fn what_is_no_report_by_its_headers_leaves_the_gate_alone() {
    let body = REPORT.as_bytes();
    for (headers, status, field) in [
        ("", 415, "content-type"),
        ("content-type: text/plain", 415, "content-type"),
        ("content-type: application/x-www-form-urlencoded", 415, "content-type"),
        ("content-type: multipart/form-data; boundary=x", 415, "content-type"),
        ("content-type: application/json, text/plain", 415, "content-type"),
        ("content-type: application/json\ncontent-type: application/json", 415, "content-type"),
        ("content-type: application/json; charset=latin1", 415, "content-type"),
        ("content-type: application/json\ncontent-encoding: br", 415, "content-encoding"),
        ("content-type: application/json\ncontent-encoding: gzip, zstd", 415, "content-encoding"),
        ("content-type: application/json\ncontent-encoding: zstd, zstd", 415, "content-encoding"),
        ("content-type: application/json\naccept: text/html", 406, "accept"),
        ("content-type: application/json\nhost: evil.example", 421, "host"),
        ("content-type: application/json\norigin: null", 403, "origin"),
    ] {
        let actor = Actor::new(Mood::Calm);
        let request = ("POST /field/state", headers, body);
        let reply = ask(&actor, &ApiSettings::default(), request).await;
        assert_eq!(reply.status, status, "{headers}");
        assert_eq!(reply.json()["field"], field, "{headers}");
        assert_eq!((actor.reports(), actor.unreadable_count()), (0, 0), "{headers}");
    }
}

#[tokio::test]
async fn each_fault_of_the_driver_has_its_status() {
    let post = ("POST /field/state", JSON, REPORT.as_bytes());
    check(Mood::Picky, post, 422, "/drift_metrics/sdi").await;
    let reply = check(Mood::Overloaded, post, 503, "").await;
    assert_eq!(reply.header("retry-after"), Some("3"));
    for line in ["GET /field/state", "GET /field/state?source=critic", "GET /aegida/safety"] {
        let reply = check(Mood::Stopping, (line, "", b""), 503, "").await;
        assert_eq!(reply.header("retry-after"), Some("1"), "{line}");
    }
    check(Mood::Isolated, ("GET /field/state", "", b""), 423, "").await;
    check(Mood::Isolated, ("GET /field/state?source=critic", "", b""), 423, "").await;
    check(Mood::Isolated, ("GET /field/attractors/a-1", "", b""), 423, "").await;
    for id in ["a-2", "", "%ff", "a/b", "a-1/", "%61-2"] {
        let line = format!("GET /field/attractors/{id}");
        let field = if id.contains('/') || id.is_empty() { "" } else { "id" };
        check(Mood::Calm, (&line, "", b""), 404, field).await;
    }
    check(Mood::Calm, ("GET /aegida/trace?seq=8", "", b""), 404, "seq").await;
    check(Mood::Calm, ("GET /aegida/trace?seq=next", "", b""), 404, "seq").await;
    check(Mood::Calm, ("GET /field/attractors/a-1?x", "", b""), 400, "x").await;
    check(Mood::Calm, ("POST /field/attractors/a-1", "", b""), 405, "").await;
    check(Mood::Calm, ("GET /field/state?source=stranger", "", b""), 404, "source").await;
}

#[tokio::test]
async fn the_field_and_the_safety_view_are_read() {
    let rows = [
        (Mood::Calm, "GET /field/state", "/peers/0/source", "critic"),
        (Mood::Calm, "GET /field/attractors/a-1", "/id", "a-1"),
        (Mood::Calm, "GET /field/state?source=critic", "/packet/more", "x"),
        (Mood::Calm, "GET /aegida/safety", "/runtime_id", "planner"),
        (Mood::Isolated, "GET /aegida/safety", "/runtime_id", "planner"),
        (Mood::Isolated, "GET /aegida/trace?seq=7", "/table/0/reason", "locked"),
        (Mood::Calm, "GET /aegida/trace", "/gate/reasons/0", "incomplete"),
    ];
    for (mood, line, pointer, expected) in rows {
        let headers = "accept: application/ld+json";
        let reply = ask(&Actor::new(mood), &ApiSettings::default(), (line, headers, b"")).await;
        assert_eq!(reply.status, 200, "{line}");
        assert_eq!(reply.header("content-type"), Some("application/ld+json"));
        assert_eq!(reply.json().pointer(pointer).unwrap(), expected, "{line}");
    }
}

#[tokio::test]
async fn a_bad_query_names_the_parameter() {
    let long = format!("GET /field/state?source={}", "a".repeat(65));
    for (line, field) in [
        ("GET /field/state?source=", "source"),
        ("GET /field/state?source=a.b", "source"),
        ("GET /field/state?source=*", "source"),
        ("GET /field/state?source=%ff%00", "source"),
        ("GET /field/state?source=a&source=b", "source"),
        ("GET /field/state?sauce=a", "sauce"),
        ("GET /aegida/safety?verbose", "verbose"),
        ("GET /aegida/trace?seq=", "seq"),
        ("GET /aegida/trace?seq=-1", "seq"),
        ("GET /aegida/trace?seq=newest", "seq"),
        ("GET /aegida/trace?cycle=1", "cycle"),
        ("POST /field/state?dry_run=1", "dry_run"),
        (long.as_str(), "source"),
    ] {
        check(Mood::Calm, (line, JSON, REPORT.as_bytes()), 400, field).await;
    }
}

#[tokio::test]
async fn only_the_exact_path_is_a_route() {
    for path in [
        "/",
        "//field/state",
        "/field/state/",
        "/field//state",
        "/field/%73tate",
        "/field%2fstate",
        "/FIELD/STATE",
        "/field/state;x=1",
        "/aegida/../field/state",
        "/livez",
        "/metrics",
        "/memory/snapshot/x?a=/livez",
        "*",
    ] {
        for method in ["GET", "POST", "OPTIONS"] {
            let line = format!("{method} {path}");
            check(Mood::Calm, (&line, JSON, REPORT.as_bytes()), 404, "").await;
        }
    }
}

#[tokio::test]
async fn a_wrong_method_is_told_which_are_right() {
    for method in ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "get", "BREW"] {
        let line = format!("{method} /field/state");
        let reply = check(Mood::Calm, (&line, JSON, REPORT.as_bytes()), 405, "").await;
        assert_eq!(reply.header("allow"), Some("GET,HEAD,POST"), "{method}");
    }
    let reply = check(Mood::Calm, ("POST /aegida/safety", "", b""), 405, "").await;
    assert_eq!(reply.header("allow"), Some("GET,HEAD"));
}

#[tokio::test]
async fn the_token_is_asked_for_before_anything_else_is_told() {
    let settings =
        ApiSettings { token: Some(Token::new(TOKEN).unwrap()), ..ApiSettings::default() };
    let right = format!("authorization: bearer {TOKEN}");
    let twice = format!("{right}\n{right}");
    let other_scheme = format!("authorization: Basic {TOKEN}");
    let longer = format!("authorization: Bearer {TOKEN}0");
    let wrong = ["", "authorization: Bearer", "authorization: Bearer x", &twice, &other_scheme];
    for headers in wrong.into_iter().chain([longer.as_str()]) {
        for line in [
            "GET /aegida/safety",
            "GET /field/state",
            "POST /field/state",
            "PUT /field/state",
            "GET /nowhere",
            "GET /livez",
            "GET /nowhere?x=/livez",
        ] {
            let request = (line, headers, b"".as_slice());
            let reply = check_with(&settings, Mood::Calm, request, 401, "authorization").await;
            assert!(reply.header("www-authenticate").unwrap().starts_with("Bearer"));
        }
    }
    let reply = ask(&Actor::new(Mood::Calm), &settings, ("GET /aegida/safety", &right, b"")).await;
    assert_eq!(reply.status, 200);
    assert!(!format!("{settings:?}").contains(TOKEN));
}

#[tokio::test]
async fn answers_are_observed_by_pattern_and_never_by_path() {
    let bound = Bound::Tcp(([127, 0, 0, 1], 7405).into());
    let log = Log::default();
    let router =
        api_router(Actor::new(Mood::Calm), &ApiSettings::default(), &bound, log.observer());
    for (line, headers) in [
        ("GET /field/state?source=critic", ""),
        ("PUT /field/state", ""),
        ("GET /secret/path", ""),
        ("GET /secret/path", "host: evil.example"),
    ] {
        reply(router.clone(), (line, headers, b"")).await;
    }
    let lines = log.lines();
    let lines: Vec<(&str, u16)> =
        lines.iter().map(|(route, status)| (route.as_str(), *status)).collect();
    let expected =
        [("/field/state", 200), ("/field/state", 405), ("unmatched", 404), ("access", 421)];
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn the_admin_listener_answers_probes_and_writes_nothing() {
    let actor = Actor::new(Mood::Stuck);
    let log = Log::default();
    let alive = actor.clone();
    let metrics: Metrics = Arc::new(move || {
        let text = alive.with(|script| script.alive).then(|| "# EOF\n".to_owned());
        Box::pin(async { text })
    });
    let router = admin_router(actor.clone(), metrics, Vec::new(), log.observer());
    let probe = async |path: &str| {
        let line = format!("GET {path}");
        reply(router.clone(), (&line, "host: 10.1.2.3:7406", b"")).await
    };
    assert_eq!(probe("/startupz").await.status, 200);
    assert_eq!(probe("/livez").await.body, b"ok");
    let ready = probe("/readyz").await;
    assert_eq!(ready.status, 200);
    assert_eq!(
        ready.json(),
        serde_json::json!({"ready": true, "broker": "disconnected", "band": "blocked",
            "degraded": ["no broker"]})
    );
    let metrics = probe("/metrics").await;
    assert_eq!(metrics.body, b"# EOF\n");
    assert!(metrics.header("content-type").unwrap().starts_with("application/openmetrics-text"));

    actor.with(|script| (script.alive, script.ready) = (false, false));
    assert_eq!(probe("/livez").await.status, 503);
    assert_eq!(probe("/metrics").await.status, 503);
    assert_eq!(probe("/readyz").await.status, 503);
    assert_eq!(probe("/readyz").await.json()["ready"], false);
    assert_eq!(probe("/startupz").await.status, 200);

    assert_eq!(probe("/field/state").await.status, 404);
    for path in ["/startupz", "/livez", "/readyz", "/metrics"] {
        for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
            let line = format!("{method} {path}");
            let reply = reply(router.clone(), (&line, "", b"x")).await;
            assert_eq!(reply.status, 405, "{line}");
            assert_eq!(reply.header("allow"), Some("GET,HEAD"));
        }
    }
    assert_eq!((actor.reports(), actor.unreadable_count()), (0, 0));
}

#[tokio::test]
async fn a_description_is_told_from_its_digest_and_sent_once() {
    let actor = Actor::new(Mood::Isolated);
    let settings = ApiSettings::default();
    for name in Name::ALL {
        let line = format!("GET {}", name.path());
        let reply = ask(&actor, &settings, (&line, "", b"")).await;
        let (bytes, digest) = name.document();
        assert_eq!((reply.status, &reply.body), (200, &bytes), "{line}");
        let tag = format!("\"{digest}\"");
        assert_eq!(reply.header("etag"), Some(tag.as_str()));
        let media_type = match reply.json()["$id"].as_str() {
            Some(id) if name.schema().is_some() => {
                assert_eq!(id, format!("urn:driftgate:schema:{}", name.word()));
                "application/schema+json"
            }
            None if *name == Name::Context => "application/ld+json",
            None => "application/json",
            Some(id) => panic!("{line} calls itself {id}"),
        };
        assert_eq!(reply.header("content-type"), Some(media_type));
        for known in [tag.clone(), format!("\"x\", W/{tag}"), "*".to_owned()] {
            let headers = format!("if-none-match: {known}");
            let reply = ask(&actor, &settings, (&line, &headers, b"")).await;
            assert_eq!((reply.status, reply.body.as_slice()), (304, b"".as_slice()), "{known}");
            assert_eq!(reply.header("etag"), Some(tag.as_str()));
        }
        let reply = ask(&actor, &settings, (&line, "if-none-match: \"x\"", b"")).await;
        assert_eq!((reply.status, &reply.body), (200, &bytes), "{line}");
        check(Mood::Calm, (&format!("{line}?x"), "", b""), 400, "x").await;
    }
}

#[tokio::test]
async fn a_schema_that_there_is_not_is_told_which_there_are() {
    for line in [
        "GET /schemas/nothing.json",
        "GET /schemas/packet",
        "GET /schemas/%ff.json",
        "GET /schemas/openapi.json",
    ] {
        let reply = check(Mood::Calm, (line, "", b""), 404, "").await;
        let detail = reply.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains("/schemas/packet.json"), "{line}");
        assert!(!detail.contains("openapi"), "{line}");
    }
}
