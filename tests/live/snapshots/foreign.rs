//! Restoring without us: `nats object get` and the `zstd` command alone, and the shell lines of
//! `docs/snapshots.md` as they stand there.
//!
//! Where a command is not installed, this says aloud what it did not try, and async-nats or the
//! `zstd` library stands in for it: neither shares a line with our store or our decoder.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use async_nats::jetstream;
use driftgate::nats::object::ObjectInfo;
use driftgate::protocol::digest::Digest;
use driftgate::protocol::snapshot::DCZ_HEADER_BYTES;
use driftgate::snapshots::bucket::BUCKET;
use tokio::io::AsyncReadExt as _;

use crate::support::nats_server::NatsServer;
use crate::support::sidecar::Sidecar;
use crate::support::snapshots::{noise, objects, plan, push};

/// The commands that are there.
struct Commands {
    nats: Option<PathBuf>,
    zstd: Option<PathBuf>,
}

impl Commands {
    fn find() -> Self {
        let nats = std::env::var_os("NATS_CLI").map(PathBuf::from).or_else(|| on_path("nats"));
        let zstd = on_path("zstd");
        if nats.is_none() {
            eprintln!("SKIPPED: no `nats` command (set NATS_CLI): async-nats reads the objects");
        }
        if zstd.is_none() {
            eprintln!("SKIPPED: no `zstd` command: the zstd library decodes the frames");
        }
        Self { nats, zstd }
    }
}

fn on_path(name: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH")?;
    std::env::split_paths(&paths).map(|folder| folder.join(name)).find(|path| path.is_file())
}

fn run(command: &mut Command) -> String {
    let output = command.output().expect("the command starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}{error}");
    said
}

/// Three snapshots, each growing by a little, the first of `bytes`.
async fn pushed(sidecar: &Sidecar, bytes: usize) -> Vec<Vec<u8>> {
    sidecar.report(0.2).await;
    let mut plain = noise(31, bytes);
    let mut plains = Vec::new();
    for step in 0..3_usize {
        let reply = push(sidecar, &plain).await;
        assert_eq!(reply.status, 201, "{}", reply.json());
        plains.push(plain.clone());
        let middle = plain.len() / 2;
        plain.splice(middle..middle, format!("insertion {step}").into_bytes());
    }
    plains
}

async fn fetch(commands: &Commands, server: &NatsServer, name: &str, path: &Path) {
    if let Some(nats) = &commands.nats {
        let arguments = ["object", "get", BUCKET, name, "--force", "--no-progress", "--output"];
        let home = path.parent().expect("a folder");
        run(Command::new(nats)
            .env("HOME", home)
            .env("XDG_CONFIG_HOME", home)
            .args(["--server", &server.url()])
            .args(arguments)
            .arg(path));
        return;
    }
    let context = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let bucket = context.get_object_store(BUCKET).await.unwrap();
    let mut bytes = Vec::new();
    bucket.get(name).await.unwrap().read_to_end(&mut bytes).await.unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// What a full frame, or with a base a delta, decodes to.
fn decode(commands: &Commands, object: &Path, base: Option<&Path>) -> Vec<u8> {
    let mut stored = std::fs::read(object).unwrap();
    if base.is_some() {
        stored.drain(..DCZ_HEADER_BYTES);
    }
    let Some(zstd) = &commands.zstd else {
        let base = base.map(|path| std::fs::read(path).unwrap()).unwrap_or_default();
        let decoder = zstd::stream::read::Decoder::with_ref_prefix(&stored[..], &base);
        let mut plain = Vec::new();
        decoder.unwrap().read_to_end(&mut plain).unwrap();
        return plain;
    };
    let (frame, plain) = (object.with_extension("frame"), object.with_extension("plain"));
    std::fs::write(&frame, stored).unwrap();
    let mut command = Command::new(zstd);
    command.args(["-d", "-f", "-q"]).arg(&frame).arg("-o").arg(&plain);
    if let Some(base) = base {
        let mut option = std::ffi::OsString::from("--patch-from=");
        option.push(base);
        command.arg(option);
    }
    run(&mut command);
    std::fs::read(plain).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn full_and_delta_objects_are_restored_with_nats_and_zstd_alone() {
    let commands = Commands::find();
    let server = NatsServer::start();
    let plan = plan("planner", "critic", &server.url());
    let sidecar = Sidecar::connected(plan.with("[listen]\nreply_timeout = \"30s\"\n")).await;
    // Base and source of 9 MiB want a window of 32 MiB, above what the command takes unasked
    // without --patch-from.
    let plains = pushed(&sidecar, 9 << 20).await;
    let listed = objects(&server).await;
    let endings: Vec<&str> = listed.iter().map(|info| &info.name[info.name.len() - 4..]).collect();
    assert_eq!(endings, [".zst", ".dcz", ".dcz"]);
    let folder = tempfile::tempdir().unwrap();
    let mut restored: Vec<PathBuf> = Vec::new();
    for (number, (info, plain)) in listed.iter().zip(&plains).enumerate() {
        let object = folder.path().join(format!("object-{number}"));
        fetch(&commands, &server, &info.name, &object).await;
        let base = info.name.ends_with(".dcz").then(|| {
            // The header names the base by its digest, and that finds the file.
            let named = &std::fs::read(&object).unwrap()[8..DCZ_HEADER_BYTES];
            let is_named =
                |path: &&PathBuf| Digest::of(&std::fs::read(path).unwrap()).as_bytes() == named;
            restored.iter().find(is_named).expect("the base came before").clone()
        });
        let found = decode(&commands, &object, base.as_deref());
        assert!(found == *plain, "{} is restored to other bytes", info.name);
        let path = folder.path().join(format!("plain-{number}"));
        std::fs::write(&path, found).unwrap();
        restored.push(path);
    }
}

/// The first shell block of `docs/snapshots.md` that mentions `what`.
fn block(what: &str) -> String {
    let page = include_str!("../../../docs/snapshots.md");
    let mut blocks = page.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.find(|block| block.contains(what)).expect("the page says how").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shell_lines_of_the_page_restore_every_snapshot() {
    let commands = Commands::find();
    let (Some(nats), Some(_)) = (&commands.nats, &commands.zstd) else {
        eprintln!("SKIPPED: the page's lines need `nats` and `zstd`. NOTHING WAS TESTED HERE.");
        return;
    };
    let lines = block("--patch-from");
    let server = NatsServer::start();
    let sidecar = Sidecar::connected(plan("planner", "critic", &server.url())).await;
    let plains = pushed(&sidecar, 200_000).await;
    let path = std::env::var("PATH").unwrap_or_default();
    let listed: Vec<ObjectInfo> = objects(&server).await;
    assert_eq!(listed.len(), plains.len());
    for (info, plain) in listed.iter().zip(&plains) {
        // A folder of its own: what an earlier restore left must not stand in for a base.
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(nats, folder.path().join("nats")).unwrap();
        let script = lines
            .lines()
            .map(|line| match line.split_once('=') {
                Some(("name", _)) => format!("name={}\n", info.name),
                Some(_) | None => format!("{line}\n"),
            })
            .collect::<String>();
        assert!(script.contains(&info.name), "the page sets name= on a line of its own");
        let said = run(Command::new("sh")
            .args(["-e", "-c", &script])
            .current_dir(folder.path())
            .env("HOME", folder.path())
            .env("XDG_CONFIG_HOME", folder.path())
            .env("NATS_URL", server.url())
            .env("PATH", format!("{}:{path}", folder.path().display())));
        let found = std::fs::read(folder.path().join("snapshot")).unwrap();
        assert!(found == *plain, "{}: {said}", info.name);
        assert!(said.contains(&Digest::of(plain).hex()), "the digest is shown: {said}");
    }
}
