//! The routes: what is answered, and what is in the bucket then.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use driftgate::protocol::digest::Digest;
use driftgate::protocol::snapshot::{
    CODING_WINDOW_BYTES, DCZ_HEADER_BYTES, DCZ_MAGIC, FrameHeader, FrameKind,
};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::nats_server::NatsServer;
use crate::support::sidecar::Sidecar;
use crate::support::snapshots::{ask, noise, objects, plan, pull, push};

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
    assert_eq!(plain.header("repr-digest"), Some(field.as_str()));
    let plain_digest = Digest::of(&second).to_string();
    assert_eq!(plain.header("driftgate-digest"), Some(plain_digest.as_str()));
    assert_eq!(plain.header("content-type"), Some("text/plain"));
    let known = pull(&sidecar, "", &format!("If-None-Match: {etag}\r\n")).await;
    assert_eq!((known.status, known.body.len()), (304, 0));

    let coded = pull(&sidecar, "", "Accept-Encoding: zstd\r\n").await;
    assert_eq!(coded.header("content-encoding"), Some("zstd"));
    assert_eq!(zstd::decode_all(&coded.body[..]).unwrap(), second);
    let field = format!("sha-256=:{}:", STANDARD.encode(Digest::of(&coded.body).as_bytes()));
    assert_eq!(coded.header("content-digest"), Some(field.as_str()));
    assert_eq!(coded.header("repr-digest"), Some(field.as_str()), "its coding included");
    assert_eq!(coded.header("driftgate-digest"), Some(plain_digest.as_str()));

    let zipped = pull(&sidecar, "", "Accept-Encoding: gzip;q=0.5, zstd;q=0.4\r\n").await;
    assert_eq!(zipped.header("content-encoding"), Some("gzip"));
    let mut unzipped = Vec::new();
    std::io::copy(&mut flate2::read::GzDecoder::new(&zipped.body[..]), &mut unzipped).unwrap();
    assert_eq!(unzipped, second);
    let field = format!("sha-256=:{}:", STANDARD.encode(Digest::of(&zipped.body).as_bytes()));
    assert_eq!(zipped.header("repr-digest"), Some(field.as_str()), "its coding included");

    let dictionary = STANDARD.encode(Digest::of(&first).as_bytes());
    let headers = format!("Accept-Encoding: dcz, zstd\r\nAvailable-Dictionary: :{dictionary}:\r\n");
    let delta = pull(&sidecar, "", &headers).await;
    assert_eq!(delta.header("content-encoding"), Some("dcz"));
    assert!(delta.body.len() < 300 && delta.body.starts_with(&DCZ_MAGIC), "{}", delta.body.len());
    let field = format!("sha-256=:{}:", STANDARD.encode(Digest::of(&delta.body).as_bytes()));
    assert_eq!(delta.header("repr-digest"), Some(field.as_str()));

    // One tag for each representation; a question for one is not answered by another's.
    let answers = [
        ("", &plain),
        ("Accept-Encoding: zstd\r\n", &coded),
        ("Accept-Encoding: gzip\r\n", &zipped),
        (headers.as_str(), &delta),
    ];
    for (asked, _) in answers {
        for (other, answer) in answers {
            let tag = answer.header("etag").unwrap();
            let reply =
                pull(&sidecar, "", &format!("{asked}If-None-Match: \"x\", {tag}\r\n")).await;
            let expected = if asked == other { 304 } else { 200 };
            assert_eq!(reply.status, expected, "{tag} for {asked:?}");
            if reply.status == 304 {
                assert!(reply.body.is_empty());
                for name in ["etag", "vary"] {
                    assert_eq!(reply.header(name), answer.header(name), "as a 200 says");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_coded_answer_wants_a_larger_window_than_clients_must_have() {
    let server = NatsServer::start();
    let large = "[listen]\nreply_timeout = \"30s\"\n";
    let sidecar = Sidecar::connected(plan("planner", "critic", &server.url()).with(large)).await;
    sidecar.report(0.2).await;
    let window = |frame: &[u8]| {
        FrameHeader::parse(FrameKind::Full, frame).expect("a frame of ours").window_bytes
    };
    // Base and source in bytes, and the coding of RFC 9842 that is answered.
    let cases = [(9 << 20, 10 << 20, "dcz"), (9 << 20, 12 << 20, "zstd"), (1000, 8 << 20, "dcz")];
    for (case, (base, source, coding)) in (50..).zip(cases) {
        let base = noise(case, base);
        let mut next = base.clone();
        next.extend_from_slice(&noise(case + 10, source - base.len()));
        for bytes in [&base, &next] {
            let reply = push(&sidecar, bytes).await;
            assert_eq!(reply.status, 201, "{}", reply.json());
        }
        let dictionary = STANDARD.encode(Digest::of(&base).as_bytes());
        let named = format!("Available-Dictionary: :{dictionary}:\r\n");
        let both = format!("Accept-Encoding: dcz, zstd\r\n{named}");
        let reply = pull(&sidecar, "", &both).await;
        assert_eq!(reply.header("content-encoding"), Some(coding), "case {case}");
        if coding == "dcz" {
            let allowed = CODING_WINDOW_BYTES.max(u64::try_from(base.len()).unwrap() / 4 * 5);
            let wanted = window(&reply.body[DCZ_HEADER_BYTES..]);
            assert!(wanted <= allowed, "case {case}: {wanted} of {allowed}");
        } else {
            let dcz = format!("Accept-Encoding: dcz\r\n{named}");
            let reply = pull(&sidecar, "", &dcz).await;
            assert_eq!(reply.header("content-encoding"), None, "no window fits, so no coding");
            assert!(reply.body == next);
        }
        let reply = pull(&sidecar, "", "Accept-Encoding: zstd\r\n").await;
        assert_eq!(reply.header("content-encoding"), Some("zstd"));
        assert!(window(&reply.body) <= CODING_WINDOW_BYTES, "case {case}");
        assert!(zstd::decode_all(&reply.body[..]).unwrap() == next);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_pushes_are_refused_and_leave_nothing() {
    let server = NatsServer::start();
    let small = "[snapshot]\nbytes_max = \"64KiB\"\nspool_bytes_max = \"1MiB\"\n";
    let plan = plan("planner", "critic", &server.url()).with(small);
    let sidecar = Sidecar::connected(plan).await;
    sidecar.report(0.2).await;
    let put = "PUT /memory/snapshot";
    // A gibibyte in 32 KB.
    let mut bomb = Vec::new();
    let zeros = std::io::Read::take(std::io::repeat(0), 1 << 30);
    zstd::stream::copy_encode(zeros, &mut bomb, 3).unwrap();
    assert!(bomb.len() < 33_000);
    let digest = STANDARD.encode(Digest::of(b"other").as_bytes());
    let digest = format!("Content-Digest: sha-256=:{digest}:\r\n");
    let plain_digest = digest.replace("Content-Digest", "Repr-Digest");
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::read::GzEncoder::new(bytes, flate2::Compression::best());
        let mut coded = Vec::new();
        std::io::copy(&mut encoder, &mut coded).unwrap();
        coded
    };
    let (zipped, zeros) = (gzip(&noise(4, 50_000)), gzip(&vec![0; 64 << 20]));
    let cases: [(&str, &[u8], u16); 14] = [
        ("", &noise(3, 64 * 1024 + 1), 413),
        ("Content-Encoding: zstd\r\n", &bomb, 413),
        ("Content-Encoding: zstd\r\n", b"no frame", 400),
        ("Content-Encoding: zstd\r\n", &bomb[..1000], 413),
        ("Content-Encoding: gzip\r\n", &zeros, 413),
        ("Content-Encoding: gzip\r\n", b"no member", 400),
        ("Content-Encoding: gzip\r\n", b"", 400),
        ("Content-Encoding: gzip\r\n", &zipped[..5], 400),
        ("Content-Encoding: gzip\r\n", &zipped[..zipped.len() - 3], 400),
        ("Content-Encoding: br\r\n", b"whatever", 415),
        ("Accept: text/html\r\n", b"whatever", 406),
        (&digest, b"these bytes", 400),
        (&plain_digest, b"these bytes", 400),
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
    two_gigabytes(&sidecar).await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", sidecar.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kibibytes: u64 = peak.split_whitespace().next().unwrap().parse().unwrap();
    assert!(kibibytes < 128 << 10, "{kibibytes} KiB");

    assert_eq!(pull(&sidecar, "", "").await.status, 404);
    let left = std::fs::read_dir(sidecar.folder().join("spool/snapshots")).unwrap();
    let left: Vec<_> = left.flatten().map(|file| file.file_name()).collect();
    assert_eq!(left, ["lock"], "nothing of a refused push is left");
    assert_eq!(push(&sidecar, b"a good one").await.status, 201);
    let more = "Content-Encoding: gzip\r\nAccept: application/yaml\r\n";
    let reply = ask(sidecar.api, put, more, &[zipped, gzip(b"more")].concat()).await.unwrap();
    assert_eq!((reply.status, reply.header("content-type")), (201, Some("application/yaml")));
    assert_eq!(pull(&sidecar, "", "").await.body, [noise(4, 50_000), b"more".to_vec()].concat());
    let list = pull(&sidecar, "?list", "Accept: application/ld+json\r\n").await;
    assert_eq!(list.json()["snapshots"].as_array().map(Vec::len), Some(2));
}

/// A PUT of two gigabytes is refused by its length before a byte of it is read, and one that does
/// not say its length as soon as it is too long.
async fn two_gigabytes(sidecar: &Sidecar) {
    for length in ["Content-Length: 2147483648", "Transfer-Encoding: chunked"] {
        let head =
            format!("PUT /memory/snapshot HTTP/1.1\r\nHost: {}\r\n{length}\r\n\r\n", sidecar.api);
        let stream = tokio::net::TcpStream::connect(sidecar.api).await.unwrap();
        let (mut reader, mut writer) = stream.into_split();
        writer.write_all(head.as_bytes()).await.unwrap();
        let body = tokio::spawn(async move {
            let chunk = [b"10000\r\n", &[7; 0x10000][..], b"\r\n"].concat();
            // Until the server will not have more.
            for _ in 0..(2_u64 << 30) / 0x10000 {
                if writer.write_all(&chunk).await.is_err() {
                    return true;
                }
            }
            false
        });
        let mut answer = [0; 12];
        reader.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 413", "{length}");
        drop(reader);
        assert!(body.await.unwrap(), "{length}: two gigabytes were read");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_digest_of_a_push_is_checked_against_what_it_is_of() {
    let server = NatsServer::start();
    let sidecar = Sidecar::connected(plan("planner", "critic", &server.url())).await;
    sidecar.report(0.2).await;
    let plain = noise(7, 40_000);
    let coded = zstd::encode_all(&plain[..], 3).unwrap();
    let field =
        |bytes: &[u8]| format!("sha-256=:{}:", STANDARD.encode(Digest::of(bytes).as_bytes()));
    let rows = [
        (format!("Repr-Digest: {}\r\n", field(&plain)), 400),
        (format!("Content-Digest: {}\r\n", field(&plain)), 400),
        (format!("Driftgate-Digest: {}\r\n", Digest::of(&coded)), 400),
        ("Driftgate-Digest: nonsense\r\n".to_owned(), 400),
        (
            format!(
                "Repr-Digest: {}\r\nDriftgate-Digest: {}\r\n",
                field(&coded),
                Digest::of(&plain)
            ),
            201,
        ),
        (format!("Content-Digest: {}\r\n", field(&coded)), 200),
    ];
    for (headers, expected) in rows {
        let more = format!("Content-Encoding: zstd\r\n{headers}");
        let reply = ask(sidecar.api, "PUT /memory/snapshot", &more, &coded).await.unwrap();
        assert_eq!(reply.status, expected, "{headers}: {}", reply.json());
        if expected == 400 {
            let name = headers.split(':').next().unwrap().to_lowercase();
            assert_eq!(reply.json()["field"], name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pushes_that_hardly_come_keep_no_other_out() {
    let server = NatsServer::start();
    let sidecar = Sidecar::connected(plan("planner", "critic", &server.url())).await;
    sidecar.report(0.2).await;
    let mut slow = Vec::new();
    for _ in 0..8 {
        let mut stream = tokio::net::TcpStream::connect(sidecar.api).await.unwrap();
        let head = format!(
            "PUT /memory/snapshot HTTP/1.1\r\nHost: {}\r\nContent-Length: 50000\r\n\r\nbytes",
            sidecar.api
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    let reply = push(&sidecar, &noise(8, 40_000)).await;
    assert_eq!(reply.status, 201, "{}", reply.json());
    // A byte now and then keeps none of them: who is too slow is told so.
    for stream in &mut slow {
        let (mut reader, mut writer) = stream.split();
        let mut ticks = tokio::time::interval(std::time::Duration::from_millis(500));
        let mut said = Vec::new();
        let mut piece = [0; 4096];
        let hung_up = async {
            loop {
                tokio::select! {
                    read = reader.read(&mut piece) => match read {
                        Ok(0) | Err(_) => break,
                        Ok(length) => said.extend_from_slice(&piece[..length]),
                    },
                    _ = ticks.tick() => drop(writer.write_all(b"x").await),
                }
            }
        };
        let hung_up = tokio::time::timeout(std::time::Duration::from_secs(40), hung_up).await;
        assert!(hung_up.is_ok(), "it may go on for ever");
        assert!(said.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&said));
    }
}
