//! The Unix socket.

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use driftgate::http::listener::Listener;
use driftgate::http::settings::{ApiAddress, ApiSettings};
use tokio::net::UnixStream;

use super::rig::{Client, Mood, REPORT, Served, soon};

fn settings(path: &Path) -> ApiSettings {
    let address = ApiAddress::Unix { path: path.to_owned(), uids: Vec::new() };
    ApiSettings { address, ..ApiSettings::default() }
}

#[tokio::test]
async fn a_unix_socket_serves_whatever_the_host_and_refuses_pages() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.sock");
    let served = Served::start(Mood::Calm, settings(&path)).await;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    for (more, expected) in [("", 200), ("Host: made-up\r\n", 200), ("Origin: null\r\n", 403)] {
        let mut client = Client::new(UnixStream::connect(&path).await.unwrap());
        let length = REPORT.len();
        let head = format!(
            "POST /field/state HTTP/1.1\r\n{more}Content-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n"
        );
        client.send(head + REPORT).await;
        assert_eq!(client.answer().await.status, expected, "{more}");
    }
    served.stop.send(()).unwrap();
    soon(served.server).await.unwrap();
    assert!(!path.exists(), "the socket file goes with the listener");
}

#[tokio::test]
async fn a_socket_file_is_replaced_only_if_nobody_answers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("api.sock");
    // A process that was killed leaves its file behind.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let first = Listener::unix(&path, &[]).await.unwrap();
    let error = Listener::unix(&path, &[]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert!(path.exists());

    // A file that took its place is not ours to remove.
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "mine").unwrap();
    drop(first);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    let error = Listener::unix(&path, &[]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
}
