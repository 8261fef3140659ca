//! The routes: what is answered, and what is in the bucket then.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use driftgate::protocol::snapshot::{DCZ_MAGIC, Digest};

use super::rig::{ask, noise, objects, plan, pull, push};
use super::support::nats_server::NatsServer;
use super::support::sidecar::Sidecar;

#[tokio::test(flavor = "multi_thread")]
async fn a_pushed_snapshot_is_stored_and_comes_back_as_it_was() {
    let server = NatsServer::start();
    let sidecar = Sidecar::connected(plan("planner", "critic", &server.url())).await;
    assert_eq!(push(&sidecar, b"too early").await.status, 423);
    assert_eq!(sidecar.report(0.2).await["verdict"], "export");

    let first = noise(1, 100_000);
    let reply = push(&sidecar, &first).await;
    assert_eq!(reply.status, 201, "{}", reply.json());
    let receipt = reply.json();
    assert_eq!(receipt["digest"], Digest::of(&first).to_string());
    assert_eq!((&receipt["kind"], &receipt["base"]), (&"full".into(), &serde_json::Value::Null));

    let mut second = first.clone();
    second.extend_from_slice(b"and one line more");
    let receipt = push(&sidecar, &second).await.json();
    assert_eq!(receipt["kind"], "delta", "{receipt}");
    assert_eq!(receipt["base"], Digest::of(&first).to_string());
    assert!(receipt["stored_bytes"].as_u64().unwrap() < 300, "{receipt}");
    let same = push(&sidecar, &second).await;
    assert_eq!((same.status, &same.json()["seq"]), (200, &receipt["seq"]));

    let names: Vec<String> = objects(&server).await.into_iter().map(|info| info.name).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names[0].starts_with("planner/") && names[0].ends_with(".zst"), "{names:?}");
    assert!(names[1].ends_with(".dcz"), "{names:?}");

    let newest = pull(&sidecar, "", "").await;
    assert_eq!((newest.status, newest.body), (200, second.clone()));
    let older = pull(&sidecar, &format!("?digest={}", Digest::of(&first)), "").await;
    assert_eq!((older.status, older.body), (200, first));
    let list = pull(&sidecar, "?list", "").await.json();
    let list = list["snapshots"].as_array().unwrap().clone();
    assert_eq!(list.len(), 2);
    assert_eq!((&list[1]["state"], &list[1]["objects"]), (&"stored".into(), &2.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_coded_as_the_client_asks() {
    let server = NatsServer::start();
    let sidecar = Sidecar::connected(plan("planner", "critic", &server.url())).await;
    sidecar.report(0.2).await;
    let first = noise(2, 50_000);
    let mut second = first.clone();
    second.extend_from_slice(&[7; 50_000]);
    push(&sidecar, &first).await;
    push(&sidecar, &second).await;

    let plain = pull(&sidecar, "", "").await;
    let etag = format!("\"{}\"", Digest::of(&second));
    assert_eq!(plain.header("etag"), Some(etag.as_str()));
    let field = format!("sha-256=:{}:", STANDARD.encode(Digest::of(&second).as_bytes()));
    assert_eq!(plain.header("content-digest"), Some(field.as_str()));
    assert_eq!(plain.header("content-type"), Some("text/plain"));
    let known = pull(&sidecar, "", &format!("If-None-Match: {etag}\r\n")).await;
    assert_eq!((known.status, known.body.len()), (304, 0));

    let coded = pull(&sidecar, "", "Accept-Encoding: zstd\r\n").await;
    assert_eq!(coded.header("content-encoding"), Some("zstd"));
    assert_eq!(zstd::decode_all(&coded.body[..]).unwrap(), second);
    let field = format!("sha-256=:{}:", STANDARD.encode(Digest::of(&coded.body).as_bytes()));
    assert_eq!(coded.header("content-digest"), Some(field.as_str()));

    let dictionary = STANDARD.encode(Digest::of(&first).as_bytes());
    let headers = format!("Accept-Encoding: dcz, zstd\r\nAvailable-Dictionary: :{dictionary}:\r\n");
    let delta = pull(&sidecar, "", &headers).await;
    assert_eq!(delta.header("content-encoding"), Some("dcz"));
    assert!(delta.body.len() < 300 && delta.body.starts_with(&DCZ_MAGIC), "{}", delta.body.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_pushes_are_refused_and_leave_nothing() {
    let server = NatsServer::start();
    let small = "[snapshot]\nbytes_max = \"64KiB\"\nspool_bytes_max = \"1MiB\"\n";
    let plan = plan("planner", "critic", &server.url()).with(small);
    let sidecar = Sidecar::connected(plan).await;
    sidecar.report(0.2).await;
    let put = "PUT /memory/snapshot";
    let bomb = zstd::encode_all(&vec![0; 64 << 20][..], 3).unwrap();
    let digest = STANDARD.encode(Digest::of(b"other").as_bytes());
    let digest = format!("Content-Digest: sha-256=:{digest}:\r\n");
    let cases: [(&str, &[u8], u16); 7] = [
        ("", &noise(3, 64 * 1024 + 1), 413),
        ("Content-Encoding: zstd\r\n", &bomb, 413),
        ("Content-Encoding: zstd\r\n", b"no frame", 400),
        ("Content-Encoding: zstd\r\n", &bomb[..1000], 413),
        ("Content-Encoding: br\r\n", b"whatever", 415),
        (&digest, b"these bytes", 400),
        ("Content-Digest: nonsense\r\n", b"these bytes", 400),
    ];
    for (headers, body, status) in cases {
        let reply = ask(sidecar.api, put, headers, body).await.expect("an answer");
        assert_eq!(reply.status, status, "{headers} {}", reply.json());
        assert_eq!(reply.header("content-type"), Some("application/problem+json"));
    }
    let frame = zstd::encode_all(&noise(4, 50_000)[..], 3).unwrap();
    let cut = &frame[..frame.len() - 3];
    let reply = ask(sidecar.api, put, "Content-Encoding: zstd\r\n", cut).await.unwrap();
    assert_eq!(reply.status, 400, "{}", reply.json());
    // Two gigabytes are refused by their length, before a byte of them is read.
    let head = format!(
        "PUT /memory/snapshot HTTP/1.1\r\nHost: {}\r\nContent-Length: 2147483648\r\n\r\n",
        sidecar.api
    );
    let mut stream = tokio::net::TcpStream::connect(sidecar.api).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    tokio::io::AsyncReadExt::read_exact(&mut stream, &mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");

    assert_eq!(pull(&sidecar, "", "").await.status, 404);
    let left = std::fs::read_dir(sidecar.folder().join("spool/snapshots")).unwrap();
    let left: Vec<_> = left.flatten().map(|file| file.file_name()).collect();
    assert_eq!(left, ["lock"], "nothing of a refused push is left");
    assert_eq!(push(&sidecar, b"a good one").await.status, 201);
}
