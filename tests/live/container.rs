//! A sidecar inside a real control group with the memory of the shipped container, attacked through
//! its own API. Needs to be allowed to make a group; without that it says SKIPPED.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use tokio::task::JoinSet;

use crate::support::http::Caller;
use crate::support::nats_server::NatsServer;
use crate::support::report::report;
use crate::support::sidecar::Sidecar;
use crate::support::snapshots::{noise, plan, push};

const MIB: u64 = 1 << 20;
/// Of the shipped container.
const LIMIT: u64 = 96 * MIB;

/// A group of our own, gone with its guard.
struct Group {
    folder: PathBuf,
    /// How many times it has killed; the file's name and the word before the number.
    kills: (&'static str, &'static str),
}

impl Group {
    /// Of either version; `None`, loudly, where none can be made.
    fn with_limit(bytes: u64) -> Option<Self> {
        let name = format!("driftgate-test-{}-{bytes}", std::process::id());
        let versions = [
            ("/sys/fs/cgroup", "memory.max", "memory.events"),
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.oom_control"),
        ];
        for (root, limit, events) in versions {
            let folder = Path::new(root).join(&name);
            // In a folder that is no control group the file of the limit does not appear.
            let is_made = fs::create_dir(&folder).is_ok()
                && folder.join(limit).exists()
                && fs::write(folder.join(limit), bytes.to_string()).is_ok();
            let group = Self { folder, kills: (events, "oom_kill ") };
            if is_made {
                return Some(group);
            }
        }
        let said = "SKIPPED: no control group with a memory limit can be made here\n";
        // Past the test harness, which keeps what a passed test prints.
        std::io::stderr().write_all(said.as_bytes()).unwrap();
        None
    }

    /// What a shell runs to be in it.
    fn entering(&self) -> String {
        format!("echo $$ > {}/cgroup.procs", self.folder.display())
    }

    fn kills(&self) -> u64 {
        let text = fs::read_to_string(self.folder.join(self.kills.0)).unwrap();
        let mut counts = text.lines().filter_map(|line| line.strip_prefix(self.kills.1));
        counts.next().expect("a count of kills").trim().parse().unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.folder);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_snapshots_and_reports_at_once_do_not_kill_it() {
    let Some(group) = Group::with_limit(LIMIT) else { return };
    let server = NatsServer::start();
    let plan = plan("planner", "critic", &server.url()).after(&group.entering());
    let sidecar = Sidecar::connected(plan).await;
    assert!(sidecar.log().contains("memory limit leaves snapshots less"), "{}", sidecar.log());
    sidecar.stores().await;
    let (snapshots, api) = (&noise(1, 12 << 20), sidecar.api);
    let mut reporters = JoinSet::new();
    for _ in 0..40 {
        reporters.spawn(async move {
            let padding = "0,".repeat(125_000);
            let body = report(0.2).replacen('{', &format!("{{\"note\":[{padding}0],"), 1);
            for _ in 0..5 {
                // Some are told to come again; all are answered.
                let answer = Caller::new(api).post("/field/state", &body).await.unwrap();
                assert!([200, 503].contains(&answer.status), "{}", answer.text());
            }
        });
    }
    let pushes = (0..8u8).map(|turn| {
        let mut bytes = snapshots.clone();
        bytes[0] = turn;
        let sidecar = &sidecar;
        async move { push(sidecar, &bytes).await.status }
    });
    let statuses = futures_util::future::join_all(pushes).await;
    reporters.join_all().await;
    assert!(statuses.iter().any(|status| [201, 202].contains(status)), "{statuses:?}");
    let one_more = push(&sidecar, &noise(2, (12 << 20) + 1)).await;
    assert_eq!(one_more.status, 413, "{}", one_more.head);
    assert_eq!(group.kills(), 0);
    assert_eq!(sidecar.report(0.2).await["verdict"], "export");
}
