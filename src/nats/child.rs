//! An own nats-server as a child process, for `run --dev` and `demo`, which need nothing set up.
//!
//! It listens on loopback only, on ports that the system chooses, and keeps JetStream in a
//! temporary folder that goes when the child goes: on [`ChildServer::stop`], on drop, and so also
//! on the way out of a panic. It has a process group of its own, so that Ctrl-C in a terminal
//! reaches only us and we end it after the sidecars. What deliberately is not here: fetching a
//! program (`make demo` does), and outliving our own SIGKILL, after which nobody is left to end
//! the child.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

/// The server's whole configuration. Paths are relative to its folder, so none needs quoting.
const CONFIG: &str = "server_name: driftgate\nlisten: \"127.0.0.1:-1\"\nhttp: \"127.0.0.1:-1\"\n\
                      ports_file_dir: \".\"\nlog_file: \"server.log\"\n\
                      jetstream { store_dir: \"store\", max_mem: 64M, max_file: 1G }\n";
/// Oldest server that has what the stream's configuration asks for, as major and minor version.
const VERSION_MIN: (u32, u32) = (2, 10);
/// From spawn to healthy; it takes some 50 ms.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two looks at a child that starts or stops.
const POLL: Duration = Duration::from_millis(10);
/// How long a stop waits after SIGTERM before it kills. The store is temporary: nothing is lost.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// How long one answer of the monitoring port may take.
const MONITOR_TIMEOUT: Duration = Duration::from_secs(2);
/// Largest answer of the monitoring port, in bytes: a few connections take a few KiB.
const MONITOR_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// No nats-server to start; the message says what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotFound {
    /// `NATS_SERVER` names something that cannot be run.
    #[error("NATS_SERVER names {0}, which is not a program that can be run")]
    Named(String),
    /// Not in any of the usual places.
    #[error(
        "no nats-server found. In the source `make demo` fetches one; or install nats-server \
         {}.{} or newer, on PATH or named by NATS_SERVER",
        VERSION_MIN.0,
        VERSION_MIN.1
    )]
    Nowhere,
}

/// Finds the program: the one that `NATS_SERVER` names, else the first on `PATH`. A relative folder
/// of `PATH` is left out: what lies in the folder that one happens to stand in is not to be run.
///
/// # Errors
/// [`NotFound`].
pub fn find(environment: &BTreeMap<String, String>) -> Result<PathBuf, NotFound> {
    if let Some(named) = environment.get("NATS_SERVER").filter(|named| !named.is_empty()) {
        return runnable(Path::new(named)).ok_or_else(|| NotFound::Named(named.clone()));
    }
    let folders = environment.get("PATH").map(String::as_str).unwrap_or_default();
    let on_path = std::env::split_paths(folders).map(|folder| folder.join("nats-server"));
    on_path
        .filter(|path| path.is_absolute())
        .find_map(|path| runnable(&path))
        .ok_or(NotFound::Nowhere)
}

/// The absolute path of a program that may be run: the child has another working folder.
fn runnable(path: &Path) -> Option<PathBuf> {
    let metadata = std::fs::metadata(path).ok()?;
    let is_program = metadata.is_file() && metadata.permissions().mode() & 0o111 != 0;
    is_program.then(|| std::path::absolute(path).ok()).flatten()
}

/// Why the child does not serve.
#[derive(Debug, thiserror::Error)]
pub enum StartFault {
    /// Its folder cannot be made.
    #[error("no temporary folder for nats-server: {0}")]
    Folder(io::Error),
    /// It cannot be started.
    #[error("{}: {error}", .program.display())]
    Spawn {
        /// What was to be started.
        program: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// It ended by itself.
    #[error("{} ended at once: {words}", .program.display())]
    Ended {
        /// What was started.
        program: PathBuf,
        /// The last line of its log.
        words: String,
    },
    /// It did not become healthy in time.
    #[error("{} did not start to serve within {} s", .0.display(), START_TIMEOUT.as_secs())]
    Late(PathBuf),
    /// It is too old for the streams.
    #[error(
        "{} is version {version}; {}.{} or newer is needed",
        .program.display(),
        VERSION_MIN.0,
        VERSION_MIN.1
    )]
    TooOld {
        /// What was started.
        program: PathBuf,
        /// Its version.
        version: String,
    },
}

/// A running server of our own. Dropping it kills it and removes its folder.
#[derive(Debug)]
pub struct ChildServer {
    child: Child,
    port: u16,
    monitor: Monitor,
    version: String,
    /// After `child`, so that it is removed when nobody writes there any more.
    folder: TempDir,
}

impl ChildServer {
    /// Starts `program` and waits until it serves.
    ///
    /// # Errors
    /// [`StartFault`]; nothing is left running or lying about.
    ///
    /// # Cancel safety
    /// Dropping the future ends what was started.
    pub async fn start(program: &Path) -> Result<Self, StartFault> {
        let folder =
            tempfile::Builder::new().prefix("driftgate-").tempdir().map_err(StartFault::Folder)?;
        std::fs::write(folder.path().join("server.conf"), CONFIG).map_err(StartFault::Folder)?;
        let child = Command::new(program)
            .args(["-c", "server.conf"])
            .current_dir(folder.path())
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| StartFault::Spawn { program: program.to_owned(), error })?;
        // From here on every way out ends the child.
        let monitor = Monitor { address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)) };
        let mut server = Self { child, port: 0, monitor, version: String::new(), folder };
        server.wait_until_healthy(program).await?;
        let minor = |text: &str| -> Option<(u32, u32)> {
            let mut numbers = text.split('.').map(|number| number.parse().ok());
            Some((numbers.next()??, numbers.next()??))
        };
        if minor(&server.version).is_some_and(|version| version < VERSION_MIN) {
            let version = server.version.clone();
            return Err(StartFault::TooOld { program: program.to_owned(), version });
        }
        Ok(server)
    }

    async fn wait_until_healthy(&mut self, program: &Path) -> Result<(), StartFault> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if let Ok(Some(_)) = self.child.try_wait() {
                let words = self.last_words();
                return Err(StartFault::Ended { program: program.to_owned(), words });
            }
            if let Some((port, monitor_port)) = self.ports() {
                self.port = port;
                self.monitor.address.set_port(monitor_port);
                if self.monitor.get("/healthz").await.is_ok()
                    && let Ok(about) = self.monitor.get("/varz").await
                {
                    let version = about.get("version").and_then(Value::as_str);
                    self.version = version.unwrap_or_default().to_owned();
                    return Ok(());
                }
            }
            if Instant::now() >= deadline {
                return Err(StartFault::Late(program.to_owned()));
            }
            sleep(POLL).await;
        }
    }

    /// Client and monitoring port, once the server has written them down.
    fn ports(&self) -> Option<(u16, u16)> {
        let entries = std::fs::read_dir(self.folder.path()).ok()?;
        let mut files = entries.flatten().map(|entry| entry.path());
        let file = files.find(|path| path.extension().is_some_and(|kind| kind == "ports"))?;
        let ports: Value = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
        let port = |kind: &str| -> Option<u16> {
            ports.get(kind)?.get(0)?.as_str()?.rsplit(':').next()?.parse().ok()
        };
        Some((port("nats")?, port("monitoring")?))
    }

    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.folder.path().join("server.log"));
        let log = log.unwrap_or_default();
        log.lines().last().unwrap_or("it said nothing").to_owned()
    }

    /// `nats://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Its monitoring port.
    #[must_use]
    pub fn monitor(&self) -> Monitor {
        self.monitor
    }

    /// Its version, for instance `2.15.1`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its temporary folder, readable by its owner only. What else is put there goes with it.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Asks it to end, kills it after 2 s if need be, and removes its folder.
    ///
    /// # Cancel safety
    /// Dropping the future kills it at once.
    pub async fn stop(mut self) {
        // A child that has ended already cannot be asked; the wait below notices.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let deadline = Instant::now() + STOP_TIMEOUT;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            sleep(POLL).await;
        }
    }
}

impl Drop for ChildServer {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // Both fail only for a child that has ended.
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

/// The monitoring port of a server on loopback. Cheap to copy.
#[derive(Clone, Copy, Debug)]
pub struct Monitor {
    address: SocketAddr,
}

/// The monitoring port gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum MonitorFault {
    /// The connection failed.
    #[error("monitoring: {0}")]
    Io(#[from] io::Error),
    /// No answer within 2 s.
    #[error("monitoring: no answer in time")]
    Late,
    /// An answer other than 200 with JSON.
    #[error("monitoring: not the expected answer")]
    Answer,
}

impl Monitor {
    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(self) -> String {
        format!("http://{}", self.address)
    }

    /// What it answers to a GET, for instance of `/connz?subs=detail`.
    ///
    /// # Errors
    /// [`MonitorFault`].
    pub async fn get(self, path: &str) -> Result<Value, MonitorFault> {
        let answer = timeout(MONITOR_TIMEOUT, self.exchange(path));
        let answer = answer.await.map_err(|_| MonitorFault::Late)??;
        let text = core::str::from_utf8(&answer).map_err(|_| MonitorFault::Answer)?;
        let (head, body) = text.split_once("\r\n\r\n").ok_or(MonitorFault::Answer)?;
        if head.split_whitespace().nth(1) != Some("200") {
            return Err(MonitorFault::Answer);
        }
        serde_json::from_str(body).map_err(|_| MonitorFault::Answer)
    }

    /// HTTP/1.0, so that the end of the connection is the end of the answer.
    async fn exchange(self, path: &str) -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(self.address).await?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.address);
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(MONITOR_BYTES_MAX).read_to_end(&mut answer).await?;
        Ok(answer)
    }
}
