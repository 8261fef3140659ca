//! `put`: a file to the local sidecar, streamed.
//!
//! It asks before it sends (`Expect: 100-continue`): a closed gate costs no bytes. The digest is
//! made while the bytes go by, and held against the answer's.

use std::collections::BTreeMap;
use std::io::{Write, stdout};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderValue};
use hyper::{Request, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::super::api::{Api, Options, document};
use super::super::sysexits;
use super::Fault;
use super::bar::Meter;
use crate::protocol::digest::{Digest, Hasher};

/// Bytes that are read at a time.
const PIECE_BYTES: usize = 64 * 1024;
/// Pieces that may wait for the connection.
const PIECES_MAX: usize = 8;
/// How long the sidecar may take to say that it wants the bytes; then they are sent unasked, as
/// RFC 9110 section 10.1.1 has it.
const CONTINUE_TIMEOUT: Duration = Duration::from_secs(1);

/// The sidecar's answer, and what its status means.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Receipt {
    /// `stored`, `spooled` or `unchanged`.
    #[serde(skip_deserializing)]
    status: &'static str,
    digest: String,
    seq: u64,
    kind: Option<String>,
    size: u64,
    stored_bytes: Option<u64>,
    base: Option<String>,
}

type Piece = std::io::Result<Frame<Bytes>>;
type Reader = JoinHandle<std::io::Result<Digest>>;

/// Pushes one.
pub(super) async fn run(
    options: &Options,
    environment: &BTreeMap<String, String>,
    file: &Path,
    media_type: &str,
    json: bool,
) -> Result<(), Fault> {
    let api = Api::find(options, environment)?;
    let media_type = HeaderValue::try_from(media_type)
        .map_err(|_| Fault::new(sysexits::DATA_ERROR, "--media-type: not a header's value"))?;
    let meter = Arc::new(Meter::new("put"));
    let pushing = meter.unless_stalled(push(&api, file, media_type, &meter));
    let receipt = match meter.drawn(pushing).await {
        Some(outcome) => outcome?,
        None => return Err(api.unavailable("nothing has moved for too long")),
    };
    let text =
        if json { serde_json::to_string(&receipt).unwrap_or_default() } else { receipt.say() };
    writeln!(stdout(), "{text}")
        .map_err(|error| Fault::new(sysexits::IO_ERROR, format!("standard output: {error}")))
}

async fn push(
    api: &Api,
    file: &Path,
    media_type: HeaderValue,
    meter: &Arc<Meter>,
) -> Result<Receipt, Fault> {
    let unreadable = |error: std::io::Error| {
        Fault::new(sysexits::NO_INPUT, format!("{}: {error}", file.display()))
    };
    let (source, length) = open(file).await.map_err(unreadable)?;
    let (pieces, mut queue) = mpsc::channel::<Piece>(PIECES_MAX);
    let (go, gone) = oneshot::channel();
    let mut reader = tokio::spawn(read(source, length, pieces, gone, Arc::clone(meter)));
    let body = StreamBody::new(stream::poll_fn(move |context| queue.poll_recv(context)));
    let mut request = Request::put("/memory/snapshot")
        .header(CONTENT_TYPE, media_type)
        .header(EXPECT, "100-continue")
        .body(body)
        .map_err(|error| api.unavailable(&error.to_string()))?;
    if let Some(length) = length {
        meter.set_total(length);
        request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    let go = std::sync::Mutex::new(Some(go));
    hyper::ext::on_informational(&mut request, move |_| {
        if let Some(go) = go.lock().ok().and_then(|mut go| go.take()) {
            // A reader that has not waited for it reads already.
            let _ = go.send(());
        }
    });
    let response = match api.send(request).await {
        Ok(response) => response,
        // Perhaps it broke off because the file did.
        Err(fault) => return Err(broken(&mut reader).await.map_or(fault, unreadable)),
    };
    let status = match response.status() {
        StatusCode::CREATED => "stored",
        StatusCode::ACCEPTED => "spooled",
        StatusCode::OK => "unchanged",
        _ => {
            reader.abort();
            return Err(api.refused(response).await);
        }
    };
    let receipt: Receipt = serde_json::from_slice(&document(response).await)
        .map_err(|_| api.unavailable("its answer cannot be read"))?;
    match reader.await {
        Ok(Ok(digest)) if digest.to_string() == receipt.digest => {}
        Ok(Err(error)) => return Err(unreadable(error)),
        Ok(Ok(_)) | Err(_) => {
            let text = "the sidecar has taken other bytes than were sent";
            return Err(Fault::new(sysexits::IO_ERROR, text));
        }
    }
    Ok(Receipt { status, ..receipt })
}

type Source = Box<dyn AsyncRead + Send + Unpin>;

/// What is read, and how long it is; nobody knows that of standard input.
async fn open(file: &Path) -> std::io::Result<(Source, Option<u64>)> {
    if file.as_os_str() == "-" {
        let input = std::fs::File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
        return Ok((Box::new(tokio::fs::File::from_std(input)), None));
    }
    let source = tokio::fs::File::open(file).await?;
    let metadata = source.metadata().await?;
    if metadata.is_dir() {
        return Err(std::io::ErrorKind::IsADirectory.into());
    }
    Ok((Box::new(source), metadata.is_file().then_some(metadata.len())))
}

/// Reads piece by piece once the sidecar wants it, and makes the digest. A file that is not as
/// long as it was is an error, and so is one that cannot be read.
async fn read(
    mut source: Source,
    length: Option<u64>,
    pieces: mpsc::Sender<Piece>,
    gone: oneshot::Receiver<()>,
    meter: Arc<Meter>,
) -> std::io::Result<Digest> {
    // Asked or not, it is time.
    let _ = timeout(CONTINUE_TIMEOUT, gone).await;
    let mut hash = Hasher::default();
    let mut read = 0_u64;
    let outcome = loop {
        let mut piece = vec![0; PIECE_BYTES];
        match source.read(&mut piece).await {
            Ok(0) if length.is_none_or(|length| length == read) => {
                return Ok(hash.finish());
            }
            Ok(0) => break changed(),
            Ok(count) => {
                piece.truncate(count);
                read = read.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
                if length.is_some_and(|length| length < read) {
                    break changed();
                }
                hash.update(&piece);
                if pieces.send(Ok(Frame::data(piece.into()))).await.is_err() {
                    // The connection is gone; who sends knows why.
                    return Ok(Digest::from_bytes([0; 32]));
                }
                meter.add(count);
            }
            Err(error) => break error,
        }
    };
    // Without the rest the request breaks off, and nothing is taken.
    let _ = pieces.send(Err(std::io::Error::from(outcome.kind()))).await;
    Err(outcome)
}

fn changed() -> std::io::Error {
    std::io::Error::other("it has changed while it was read")
}

/// Why the file could not be read, if that was it.
async fn broken(reader: &mut Reader) -> Option<std::io::Error> {
    if !reader.is_finished() {
        reader.abort();
    }
    reader.await.ok()?.err()
}

impl Receipt {
    fn say(&self) -> String {
        let Self { status, digest, seq, size, .. } = self;
        let how = match (self.kind.as_deref(), self.stored_bytes, &self.base) {
            (Some(kind), Some(stored), Some(base)) => {
                format!("{kind} of {stored} bytes, base {base}")
            }
            (Some(kind), Some(stored), None) => format!("{kind} of {stored} bytes"),
            _ => "safe on the sidecar's disk; it is sent when gate and broker allow".to_owned(),
        };
        format!("{status}  {seq}  {size} bytes  {digest}  {how}")
    }
}
