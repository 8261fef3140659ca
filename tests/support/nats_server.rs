//! A real nats-server on free loopback ports, gone when the guard is.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use driftgate::config::Config;
use driftgate::nats::settings::Settings;
use serde_json::Value;

use super::least;

/// How long anything here may take before the test fails: far above what it takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(5);

const CONFIG: &str = "server.conf";
/// Lines of it before those that a test adds.
const HEAD_LINES: usize = 4;

/// A running server. Killed by its id on drop; its folder goes with it.
pub(crate) struct NatsServer {
    child: Child,
    folder: tempfile::TempDir,
    port: u16,
    monitor: u16,
}

impl NatsServer {
    /// Starts the server of `$NATS_SERVER` with JetStream in a temporary folder.
    pub(crate) fn start() -> Self {
        Self::start_with("")
    }

    /// The same with more lines of configuration.
    pub(crate) fn start_with(lines: &str) -> Self {
        let server = Self::begin_with(lines);
        server.is_healthy();
        server
    }

    /// The same without waiting for its health, which one of a cluster has only with the others.
    pub(crate) fn begin_with(lines: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (child, port, monitor) = launch(&folder, -1, -1, lines);
        std::fs::write(folder.path().join("lines"), lines).expect("the folder is ours");
        Self { child, folder, port, monitor }
    }

    /// Waits until `/healthz` says that it is ready.
    pub(crate) fn is_healthy(&self) {
        until(
            "the server to be healthy",
            || self.log(),
            || get(self.monitor, "/healthz").filter(|(status, _)| *status == 200),
        );
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("server.log")).unwrap_or_default()
    }

    /// `nats://127.0.0.1:port`.
    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Where `/connz` and the like answer.
    pub(crate) fn monitor_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.monitor)
    }

    /// Default settings of one runtime, with this server.
    pub(crate) fn settings(&self, runtime: &str) -> Settings {
        let text = format!(
            "[runtime]\nid = \"{runtime}\"\n[nats]\nurl = [\"{}\"]\n[integrity]\nsign_with = \"k1\"\n\
             keys = [{{ id = \"k1\", file = \"/k1\" }}]\n",
            self.url()
        );
        // The base64 of 32 bytes: a key that nobody signs with here.
        let key = format!("{}=", "A".repeat(43));
        let read = |path: &Path| match path.to_str() {
            Some("/k1") => Ok(key.clone().into_bytes()),
            _ => Ok(text.clone().into_bytes()),
        };
        let config = Config::load(&["/c.toml".into()], &BTreeMap::new(), &read);
        let mut settings = Settings::of(&config.expect("a whole configuration"));
        least::room(&mut settings, &self.url());
        settings
    }

    /// Number of its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills the server at once.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("our own child");
        self.child.wait().expect("our own child");
        least::register(self.port, self.folder.path(), None);
    }

    /// Starts it again on the same ports with the same store; kills it first if it runs.
    pub(crate) fn restart(&mut self) {
        self.begin_again();
        self.is_healthy();
    }

    /// The same without waiting for its health.
    pub(crate) fn begin_again(&mut self) {
        self.kill();
        let lines = std::fs::read_to_string(self.folder.path().join("lines")).expect("written");
        let ports = (i32::from(self.port), i32::from(self.monitor));
        (self.child, self.port, self.monitor) = launch(&self.folder, ports.0, ports.1, &lines);
    }

    /// Puts other lines of configuration in force while it runs (SIGHUP).
    pub(crate) fn reload_with(&self, lines: &str) {
        std::fs::write(self.folder.path().join("lines"), lines).expect("the folder is ours");
        reload(self.folder.path(), self.child.id(), lines);
    }

    /// Whether it has not been killed.
    pub(crate) fn is_running(&self) -> bool {
        get(self.monitor, "/varz").is_some()
    }

    /// Stops it where it is (SIGSTOP): connections stand, nothing is read.
    pub(crate) fn freeze(&self) {
        self.signal("STOP");
        // The signal is on its way when `kill` returns; each thread stops for itself.
        let tasks = format!("/proc/{}/task", self.child.id());
        while let Ok(entries) = std::fs::read_dir(&tasks)
            && !entries.flatten().all(|task| {
                let status = std::fs::read_to_string(task.path().join("status"));
                status.is_ok_and(|text| text.contains("State:\tT"))
            })
        {
            std::thread::yield_now();
        }
    }

    /// Lets it go on (SIGCONT).
    pub(crate) fn thaw(&self) {
        self.signal("CONT");
    }

    /// Asks for lame duck mode (SIGUSR2).
    pub(crate) fn retire(&self) {
        self.signal("USR2");
    }

    fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// What the monitoring port answers to a GET.
    pub(crate) fn get(&self, path: &str) -> Value {
        let (status, body) = get(self.monitor, path).expect("the monitoring port answers");
        assert_eq!(status, 200, "{path}");
        serde_json::from_slice(&body).expect("JSON")
    }

    /// `/connz?subs=detail` of every open connection.
    pub(crate) fn connz(&self) -> Vec<Value> {
        let answer = self.get("/connz?subs=detail&auth=true");
        answer["connections"].as_array().cloned().unwrap_or_default()
    }

    /// The subjects that the connection of `runtime` has subscribed to; `None` without one.
    pub(crate) fn subscriptions_of(&self, runtime: &str) -> Option<Vec<String>> {
        let name = format!("driftgate-{runtime}");
        let connection = self.connz().into_iter().find(|one| one["name"] == name.as_str())?;
        let details = connection["subscriptions_list_detail"].as_array().cloned();
        let subject = |one: &Value| one["subject"].as_str().unwrap_or_default().to_owned();
        Some(details.unwrap_or_default().iter().map(subject).collect())
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        // A frozen process dies of SIGKILL as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
        least::forget(self.port, &self.log());
    }
}

fn signal(process: u32, name: &str) {
    let id = process.to_string();
    let status = Command::new("kill").args(["-s", name, &id]).status().expect("kill exists");
    assert!(status.success(), "cannot signal {id}");
}

/// Puts these lines in force in the place of others, after the head as it was: a server does not
/// take other ports while it runs.
pub(crate) fn reload(folder: &Path, process: u32, lines: &str) {
    let config = std::fs::read_to_string(folder.join(CONFIG)).expect("written");
    let head: Vec<&str> = config.lines().take(HEAD_LINES).collect();
    let users = least::authorization(folder, lines);
    let config = format!("{}\n{lines}\n{users}", head.join("\n"));
    std::fs::write(folder.join(CONFIG), config).expect("the folder is ours");
    let log = || std::fs::read_to_string(folder.join("server.log")).unwrap_or_default();
    let count = || log().matches("Reloaded server configuration").count();
    let before = count();
    signal(process, "HUP");
    until("the server to reload", log, || (count() > before).then_some(()));
}

/// The grants of `deploy/nats.conf` for the planner, on whoever connects without a name.
pub(crate) fn shipped_grants() -> String {
    let shipped = include_str!("../../deploy/nats.conf");
    let begin = shipped.find("PLANNER_MAY {").expect("the grants");
    let end = shipped.find("\nauthorization {").expect("what follows them");
    format!(
        "{}\nauthorization {{ users: [ {{ user: op, password: op }}\n\
         {{ user: planner, password: planner, permissions: $PLANNER_MAY }} ] }}\n\
         no_auth_user: planner",
        &shipped[begin..end]
    )
}

fn launch(folder: &tempfile::TempDir, port: i32, monitor: i32, lines: &str) -> (Child, u16, u16) {
    let Some(program) = std::env::var_os("NATS_SERVER").map(PathBuf::from) else {
        panic!(
            "NATS_SERVER is not set: these tests run against a real nats-server (2.10 or newer). \
             `make test` finds one; or set NATS_SERVER to the program's path"
        );
    };
    let path = folder.path();
    for entry in std::fs::read_dir(path).expect("our folder").flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "ports") {
            std::fs::remove_file(entry.path()).expect("our file");
        }
    }
    let config_path = write_config(path, port, monitor, lines);
    let log = path.join("server.log");
    let child = Command::new(&program)
        .arg("-c")
        .arg(&config_path)
        .arg("-l")
        .arg(&log)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("NATS_SERVER {}: {error}", program.display()));
    let ports_path = path.join(format!(
        "{}_{}.ports",
        program.file_name().expect("a program").to_string_lossy(),
        child.id()
    ));
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    let ports = until("the server to listen", said, || {
        serde_json::from_slice::<Value>(&std::fs::read(&ports_path).ok()?).ok()
    });
    let port_of = |kind: &str| -> u16 {
        let url = ports[kind][0].as_str().expect("a url");
        url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
    };
    least::register(port_of("nats"), path, Some(child.id()));
    (child, port_of("nats"), port_of("monitoring"))
}

/// A `jetstream` among the lines takes the place of ours.
fn write_config(path: &Path, port: i32, monitor: i32, lines: &str) -> PathBuf {
    let text = path.display();
    let config = format!(
        "listen: \"127.0.0.1:{port}\"\nhttp: \"127.0.0.1:{monitor}\"\nports_file_dir: \"{text}\"\n\
         jetstream {{ store_dir: \"{text}/store\", max_mem: 64M, max_file: 1G }}\n{lines}\n{}",
        least::authorization(path, lines)
    );
    let config_path = path.join(CONFIG);
    std::fs::write(&config_path, config).expect("the folder is ours");
    config_path
}

/// Polls a thing that has no event to wait for.
fn until<T>(what: &str, detail: impl Fn() -> String, poll: impl Fn() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = poll() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited too long for {what}: {}", detail());
        std::thread::park_timeout(POLL);
    }
}

/// Waits until `condition` holds of something that has no event to wait for.
pub(crate) fn eventually(what: &str, condition: impl Fn() -> bool) {
    until(what, String::new, || condition().then_some(()));
}

fn get(port: u16, path: &str) -> Option<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.split_whitespace().nth(1)?.parse().ok()?;
    Some((status, answer.split_off(end + 4)))
}
