//! A real `driftgate run` in a process of its own: temporary folder, free ports, killed by its id
//! when the guard is dropped.

use std::fs::{File, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::books::Books;
use super::http::{Answer, Caller};
use super::least;
use super::wait::until;

/// The HMAC secret of every fleet under test.
pub(crate) const SECRET: [u8; 32] = [7; 32];
/// The same as `driftgate keygen` writes it.
const KEY_FILE: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";

/// Longest answer of a sidecar with short bounds, a closing one included, and what a busy machine
/// may add.
pub(crate) const BOUND: Duration = Duration::from_millis(800 + 5000);

/// What one sidecar is started with.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) runtime: String,
    peers: Vec<String>,
    urls: Vec<String>,
    more: String,
    /// Name of the second file.
    more_file: &'static str,
    /// What a shell does before it becomes the sidecar: limits.
    before: String,
}

impl Plan {
    pub(crate) fn new(runtime: &str, peers: &[&str], url: &str) -> Self {
        let peers = peers.iter().map(|&peer| peer.to_owned()).collect();
        let (runtime, urls) = (runtime.to_owned(), vec![url.to_owned()]);
        let (more, before) = (String::new(), String::new());
        Self { runtime, peers, urls, more, more_file: "more.toml", before }
    }

    /// More servers of the same cluster.
    pub(crate) fn with_urls(mut self, urls: Vec<String>) -> Self {
        self.urls = urls;
        self
    }

    /// Short bounds, so that the tests are short: a reply takes at most [`BOUND`].
    pub(crate) fn short(self) -> Self {
        self.with(
            "[listen]\nreply_timeout = \"400ms\"\n[containment]\nbarrier_timeout = \"400ms\"\n\
             [nats]\nack_timeout = \"500ms\"\nping_interval = \"1s\"",
        )
    }

    /// More configuration, as a second TOML file: it wins key by key.
    pub(crate) fn with(mut self, more: &str) -> Self {
        self.more.push_str(more);
        self.more.push('\n');
        self
    }

    /// The second file is YAML.
    pub(crate) fn in_yaml(mut self) -> Self {
        self.more_file = "more.yaml";
        self
    }

    /// A shell line that is run first in the process that becomes the sidecar.
    pub(crate) fn after(mut self, line: &str) -> Self {
        self.before = line.to_owned();
        self
    }

    /// The same configuration without a sidecar, in a folder of the caller.
    pub(crate) fn files_in(&self, folder: &Path) -> [PathBuf; 2] {
        write_key(folder);
        self.write(folder)
    }

    fn write(&self, folder: &Path) -> [PathBuf; 2] {
        let peers: String = self
            .peers
            .iter()
            .map(|peer| {
                format!("[[peers]]\nid = {peer:?}\nexport = [\"state\"]\nimport = [\"state\"]\n\n")
            })
            .collect();
        let base = format!(
            "[runtime]\nid = {:?}\nattractor_type = \"symbolic\"\n\n{peers}[nats]\nurl = {:?}\n\n\
             [listen]\napi = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n\n[integrity]\n\
             sign_with = \"k1\"\nkeys = [{{ id = \"k1\", file = {:?} }}]\n\n[snapshot]\n\
             spool = {:?}\n",
            self.runtime,
            self.urls,
            folder.join("k1"),
            folder.join("spool"),
        );
        let paths = [folder.join("base.toml"), folder.join(self.more_file)];
        std::fs::write(&paths[0], base).expect("the folder is ours");
        std::fs::write(&paths[1], &self.more).expect("the folder is ours");
        paths
    }
}

fn write_key(folder: &Path) {
    let key = folder.join("k1");
    std::fs::write(&key, KEY_FILE).expect("the folder is ours");
    private(&key);
}

/// What became of the packet for the first target.
pub(crate) fn status(reply: &Value) -> &str {
    reply["packets"][0]["status"].as_str().expect("a status")
}

/// The number of a report.
pub(crate) fn seq(reply: &Value) -> u64 {
    reply["seq"].as_u64().expect("a number")
}

/// A running sidecar.
pub(crate) struct Sidecar {
    child: Child,
    folder: tempfile::TempDir,
    pub(crate) plan: Plan,
    pub(crate) api: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Sidecar {
    /// Starts one and waits until both listeners answer. The broker may be anything.
    pub(crate) async fn start(plan: Plan) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        write_key(folder.path());
        let (child, api, admin) = launch(&plan, folder.path()).await;
        Self { child, folder, plan, api, admin }
    }

    /// The same, and waits until it is connected to the broker.
    pub(crate) async fn connected(plan: Plan) -> Self {
        let sidecar = Self::start(plan).await;
        sidecar.is_connected().await;
        sidecar
    }

    /// Number of its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills it at once.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("our own child");
        self.child.wait().expect("our own child");
    }

    /// Starts it again in the same folder, on new ports. It must have ended.
    pub(crate) async fn start_again(&mut self) {
        assert!(self.child.try_wait().expect("our own child").is_some(), "it still runs");
        let plan = self.plan.clone();
        (self.child, self.api, self.admin) = launch(&plan, self.folder.path()).await;
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &id]).status().expect("kill exists");
        assert!(status.success(), "cannot signal {id}");
    }

    /// Lets it stop in order: it says so, and is nobody's twin. Killed, it would be that of the
    /// next one with its name and another disk.
    pub(crate) async fn stop(&mut self) {
        self.signal("TERM");
        self.ended().await;
    }

    /// Waits for the end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let child = &mut self.child;
        until("the sidecar to end", async || child.try_wait().expect("our own child")).await
    }

    /// Writes the second configuration file anew; a signal makes the sidecar read it.
    pub(crate) fn reconfigure(&mut self, more: &str) {
        self.plan.more = more.to_owned();
        self.plan.write(self.folder.path());
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Everything it has said on standard error, over all its lives.
    pub(crate) fn log(&self) -> String {
        log(self.folder.path())
    }

    /// Posts a report on a connection of its own.
    pub(crate) async fn post(&self, body: &str) -> Answer {
        Caller::new(self.api).post("/field/state", body).await.expect("an answer")
    }

    /// Posts a report that has to be answered 200, and gives the reply.
    pub(crate) async fn report(&self, di: f64) -> Value {
        let answer = self.post(&super::report::report(di)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// The same, and holds the answer against its bound (P10).
    pub(crate) async fn bounded(&self, di: f64) -> Value {
        let answer = self.post(&super::report::report(di)).await;
        assert!(answer.took < BOUND, "{:?}", answer.took);
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// Reports until the newest packet for the first target is stored; returns its reply. The gate
    /// has to be open or to open with it.
    pub(crate) async fn stores(&self) -> Value {
        until("a packet to be stored", async || {
            let reply = self.bounded(0.30).await;
            (status(&reply) == "stored").then_some(reply)
        })
        .await
    }

    /// Gets a path of the API.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        Caller::new(self.api).get(path).await.expect("an answer")
    }

    /// What `/readyz` says.
    pub(crate) async fn readiness(&self) -> Value {
        Caller::new(self.admin).get("/readyz").await.expect("an answer").json()
    }

    /// What `/metrics` says.
    pub(crate) async fn books(&self) -> Books {
        let answer = Caller::new(self.admin).get("/metrics").await.expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
        Books::read(&answer.text())
    }

    /// Waits until `/readyz` says `connected`.
    pub(crate) async fn is_connected(&self) {
        until("the sidecar to connect", async || {
            (self.readiness().await["broker"] == "connected").then_some(())
        })
        .await;
    }

    /// Waits until it exchanges in this mode with so many peers.
    pub(crate) async fn has_peers(&self, mode: &str, count: i64) {
        until(&format!("{count} peers in mode {mode}"), async || {
            let found = self.books().await.sum("peers", &[("mode", mode)]);
            (found == count).then_some(())
        })
        .await;
    }

    /// Waits until the books show no packet that is unsettled; they must add up.
    pub(crate) async fn settled(&self) -> Books {
        until("the books to settle", async || {
            let books = self.books().await;
            books.check();
            (books.sum("packets_pending", &[]) == 0).then_some(books)
        })
        .await
    }

    /// The newest packet of `source` that it shows, if any.
    pub(crate) async fn shown(&self, source: &str) -> Option<Value> {
        let state = self.get("/field/state").await;
        let peers = state.json()["peers"].as_array().cloned().unwrap_or_default();
        let is_shown = |peer: &Value| peer["source"] == source && peer.get("packet").is_some();
        peers.into_iter().find(is_shown)
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn log(folder: &Path) -> String {
    let bytes = std::fs::read(folder.join("stderr")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

pub(crate) fn private(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let permissions = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(path, permissions).expect("our file");
}

/// The binary that cargo has just built, or another one to compare with.
pub(crate) fn binary() -> PathBuf {
    let other = std::env::var_os("DRIFTGATE_BINARY");
    other.map_or_else(|| env!("CARGO_BIN_EXE_driftgate").into(), PathBuf::from)
}

async fn launch(plan: &Plan, folder: &Path) -> (Child, SocketAddr, SocketAddr) {
    let paths = plan.write(folder);
    let said = log(folder).len();
    let stderr: File = OpenOptions::new()
        .create(true)
        .append(true)
        .open(folder.join("stderr"))
        .expect("the folder is ours");
    let binary = binary();
    let mut command = if plan.before.is_empty() {
        Command::new(binary)
    } else {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{}; exec \"$0\" \"$@\"", plan.before)]).arg(binary);
        shell
    };
    command.arg("run");
    for path in &paths {
        command.arg("--config").arg(path);
    }
    if let Some(secret) = least::sidecar(&plan.runtime, &plan.urls, &paths) {
        command.env("DRIFTGATE__NATS__NKEY_FILE", secret);
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr)
        .spawn()
        .expect("the binary under test");
    let (api, admin) = until("the sidecar to start", async || {
        let log = log(folder);
        if let Some(status) = child.try_wait().expect("our own child") {
            panic!("the sidecar ended with {status}: {}", &log[said..]);
        }
        let line = log[said..].lines().find(|line| line.contains("\"started"))?.to_owned();
        let line: Value = serde_json::from_str(&line).ok()?;
        let address = |key: &str| line[key].as_str()?.strip_prefix("http://")?.parse().ok();
        Some((address("api")?, address("admin")?))
    })
    .await;
    for path in ["/startupz", "/readyz"] {
        until(path, async || {
            let answer = Caller::new(admin).get(path).await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await;
    }
    (child, api, admin)
}
