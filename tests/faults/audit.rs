//! The writer on a real disk, and `driftgate audit verify` over what it left.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::future::Future;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::row::row;
use driftgate::audit::{QUEUE_MAX, REFUSALS_BURST, Recorder};
use driftgate::config::Audit;
use driftgate::protocol::audit::{Event, Link};
use driftgate::protocol::exchange::Artifact;
use driftgate::protocol::gate::Band;
use driftgate::protocol::packet::RuntimeId;
use driftgate::protocol::refusal::Fault;
use driftgate::protocol::time::{Now, Timestamp};

/// Longest wait for anything here; reached only when something is broken.
const PATIENCE: Duration = Duration::from_secs(20);

fn now() -> Now {
    Now { wall: Timestamp::from_unix_ms(1_767_225_600_000), mono: Duration::ZERO }
}

fn start(settings: &Audit) -> Recorder {
    Recorder::start(settings.clone(), RuntimeId::new("planner").unwrap())
}

fn log_path(settings: &Audit) -> &PathBuf {
    settings.file.as_ref().unwrap()
}

fn settings(folder: &Path) -> Audit {
    Audit { file: Some(folder.join("audit.jsonl")), bytes_max: 64 * 1024, files_max: 4 }
}

fn started() -> Event {
    Event::Started { version: "0.1.0", band: Band::Blocked, operator_hold: false }
}

/// One life of a sidecar: so many reloads between its start and its stop.
async fn live(settings: &Audit, reloads: usize) {
    let mut recorder = start(settings);
    recorder.record(now(), started());
    for _ in 0..reloads {
        recorder.record(now(), Event::Reloaded);
    }
    recorder.record(now(), Event::Stopped);
    finish(recorder).await;
}

/// Ends the recorder, however slow the disk is today.
async fn finish(recorder: Recorder) {
    recorder.finish(PATIENCE).await;
}

/// Waits until so many lines are on disk.
async fn written(recorder: &Recorder, lines: u64) {
    let wait = async {
        while recorder.seq() < lines {
            tokio::task::yield_now().await;
        }
    };
    soon(wait).await;
}

/// The newest file, and how many events its lines say are lost.
fn lost(settings: &Audit) -> (String, u64) {
    let text = fs::read_to_string(log_path(settings)).unwrap();
    let lost = text.lines().map(|line| Link::read(line.as_bytes()).unwrap().lost).sum();
    (text, lost)
}

async fn until(recorder: &mut Recorder, mut holds: impl FnMut(&Recorder) -> bool) {
    let wait = async {
        while !holds(recorder) {
            recorder.changed().await;
            recorder.flush(now());
        }
    };
    soon(wait).await;
}

async fn soon<T>(event: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, event).await.expect("what must come has come")
}

fn verify(files: &[impl AsRef<OsStr>]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_driftgate"))
        .args(["audit", "verify"])
        .args(files)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

fn assert_whole(files: &[impl AsRef<OsStr>], expected: &[&str]) {
    let (code, text) = verify(files);
    assert_eq!(code, Some(0), "{text}");
    for line in expected {
        assert!(text.contains(line), "{line} in\n{text}");
    }
}

fn rotated(settings: &Audit) -> Vec<PathBuf> {
    let folder = log_path(settings).parent().unwrap();
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[tokio::test]
async fn the_chain_goes_on_across_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    live(&settings, 5).await;
    live(&settings, 5).await;
    assert_whole(
        &[log_path(&settings)],
        &["whole     14 lines, 1 to 14", "starts    2, 0 of them"],
    );
    let mode = fs::metadata(log_path(&settings)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777 & !0o640, 0, "{mode:o}");
}

#[tokio::test]
async fn files_are_rotated_by_size_and_only_so_many_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Audit { files_max: 3, ..settings(folder.path()) };
    live(&settings, 900).await;
    let files = rotated(&settings);
    assert_eq!(files.len(), 3, "{files:?}");
    assert!(files.iter().all(|file| fs::metadata(file).unwrap().len() <= 64 * 1024));
    // The shell's order is not the log's; verify finds the right one.
    assert_whole(&files, &["to 902", "older lines were rotated away"]);
    live(&settings, 0).await;
    assert_whole(&rotated(&settings), &["to 904", "starts    1"]);
    assert_eq!(rotated(&settings).len(), 3);
    // Without the middle file, lines are missing.
    let (code, text) = verify(&[files[0].clone(), files[2].clone()]);
    assert_eq!(code, Some(65));
    assert!(text.contains("are missing"), "{text}");
}

#[tokio::test]
async fn one_file_is_enough_where_one_is_configured() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Audit { files_max: 1, ..settings(folder.path()) };
    live(&settings, 300).await;
    live(&settings, 300).await;
    assert_eq!(rotated(&settings).len(), 1);
    assert_whole(&rotated(&settings), &["to 604"]);
}

#[tokio::test]
async fn a_crash_between_a_rotation_and_the_next_line_loses_no_link() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    live(&settings, 3).await;
    fs::rename(log_path(&settings), folder.path().join("audit.jsonl.1")).unwrap();
    live(&settings, 3).await;
    assert_whole(&rotated(&settings), &["whole     10 lines, 1 to 10"]);
}

#[tokio::test]
async fn a_write_cut_short_by_a_crash_is_closed_by_a_line_that_says_so() {
    for (traces, torn) in [
        ("{\"authority\":\"gate\",\"cau", "torn      1"),
        ("\0\0\0\0\n\0\0", "torn      1"),
        ("\n", "torn      1"),
        ("", "torn      0"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path());
        live(&settings, 3).await;
        let mut file = OpenOptions::new().append(true).open(log_path(&settings)).unwrap();
        file.write_all(traces.as_bytes()).unwrap();
        drop(file);
        if !traces.is_empty() {
            let (code, text) = verify(&[log_path(&settings)]);
            assert_eq!(code, Some(65), "{text}");
            assert!(text.contains(":6: "), "{text}");
        }
        live(&settings, 3).await;
        live(&settings, 3).await;
        assert_whole(&[log_path(&settings)], &[torn, "starts    3"]);
        assert!(
            fs::read_to_string(log_path(&settings)).unwrap().contains(traces),
            "evidence stays"
        );
    }
}

#[tokio::test]
async fn a_crash_that_only_cost_the_newline_costs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    live(&settings, 3).await;
    let text = fs::read(log_path(&settings)).unwrap();
    fs::write(log_path(&settings), text.trim_ascii_end()).unwrap();
    assert_whole(&[log_path(&settings)], &["whole     5 lines"]);
    live(&settings, 3).await;
    assert_whole(&[log_path(&settings)], &["whole     10 lines", "torn      0"]);
}

#[tokio::test]
async fn a_changed_file_is_found_by_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    live(&settings, 300).await;
    let files = rotated(&settings);
    let text = fs::read_to_string(&files[1]).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.remove(7);
    fs::write(&files[1], lines.join("\n") + "\n").unwrap();
    let (code, text) = verify(&files);
    assert_eq!(code, Some(65));
    assert!(text.contains("audit.jsonl.1:8: lines 8 to 8 before it are missing"), "{text}");
    assert_eq!(verify(&[folder.path().join("absent")]).0, Some(66));
}

#[tokio::test]
async fn a_file_that_is_no_log_is_kept_beside_and_not_taken_for_one() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    fs::write(log_path(&settings), "not a log\n").unwrap();
    live(&settings, 1).await;
    assert_eq!(fs::read_to_string(folder.path().join("audit.jsonl.1")).unwrap(), "not a log\n");
    assert_whole(&[log_path(&settings)], &["whole     3 lines, 1 to 3"]);
    // A destroyed log is replaced by a chain that cannot pass for the old one.
    live(&settings, 1).await;
    let before = folder.path().join("before");
    fs::copy(log_path(&settings), &before).unwrap();
    fs::write(log_path(&settings), "gone\n").unwrap();
    live(&settings, 1).await;
    assert_eq!(verify(&[&before, log_path(&settings)]).0, Some(65));
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "a time is taken")]
async fn a_file_that_cannot_be_written_holds_nobody_up_and_is_made_up_for() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Audit { bytes_max: 16 << 20, ..settings(folder.path()) };
    // A folder in the place of the file.
    fs::create_dir(log_path(&settings)).unwrap();
    let mut recorder = start(&settings);
    recorder.record(now(), started());
    until(&mut recorder, |recorder| recorder.fault().is_some()).await;
    let (_, fault) = recorder.fault().unwrap();
    assert!(fault.contains("not a regular file") && fault.contains("wait in memory"), "{fault}");
    let begun = Instant::now();
    for _ in 0..10_000 {
        recorder.record(now(), Event::Reloaded);
    }
    let per_event = begun.elapsed() / 10_000;
    assert!(per_event < Duration::from_millis(1), "{per_event:?} an event");
    assert!(recorder.fault().unwrap().1.contains("events are being lost"));
    let lost = recorder.lost();
    assert!(lost >= 10_000 - u64::try_from(QUEUE_MAX).unwrap() - 64, "{lost}");
    fs::remove_dir(log_path(&settings)).unwrap();
    until(&mut recorder, |recorder| recorder.fault().is_none()).await;
    recorder.record(now(), Event::Stopped);
    finish(recorder).await;
    assert_whole(&[log_path(&settings)], &[&format!("lost      {lost} events")]);
    // Every event has a line or is counted.
    let (text, counted) = self::lost(&settings);
    let lines = text.lines().filter(|line| !line.contains("\"lost\"")).count();
    assert_eq!(u64::try_from(lines).unwrap() + counted, 10_002, "start, reloads, stop");
}

#[tokio::test]
async fn a_flood_of_refusals_pushes_nothing_else_out_and_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Audit { bytes_max: 16 << 20, ..settings(folder.path()) };
    let mut recorder = start(&settings);
    recorder.record(now(), started());
    let flood = REFUSALS_BURST + 1000;
    for sent in 0..flood {
        let event =
            Event::InboundRefused { artifact: Artifact::State, fault: Fault::Forged, source: None };
        recorder.record(now(), event);
        if sent % 512 == 0 {
            let line = sent.min(REFUSALS_BURST);
            written(&recorder, line).await;
        }
    }
    let later = Now { mono: Duration::from_secs(3600), ..now() };
    recorder.flush(later);
    recorder.record(later, Event::Stopped);
    finish(recorder).await;
    let (text, lost) = lost(&settings);
    let refused = text.lines().filter(|line| line.contains("\"inbound_refused\"")).count();
    assert_eq!(u64::try_from(refused).unwrap() + lost, flood);
    assert!(text.contains("\"throttled\""));
    assert_whole(&[log_path(&settings)], &[&format!("lost      {lost} events")]);
}

#[tokio::test]
async fn two_processes_do_not_write_one_log() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let mut first = start(&settings);
    first.record(now(), started());
    written(&first, 1).await;
    let mut second = start(&settings);
    second.record(now(), started());
    until(&mut second, |recorder| recorder.fault().is_some()).await;
    assert!(second.fault().unwrap().1.contains("another process"), "{:?}", second.fault());
    first.record(now(), Event::Stopped);
    finish(first).await;
    until(&mut second, |recorder| recorder.fault().is_none()).await;
    second.record(now(), Event::Stopped);
    finish(second).await;
    assert_whole(&[log_path(&settings)], &["whole     4 lines", "starts    2, 0 of them"]);
}

/// A tiny file system of its own; needs the right to mount.
struct Volume {
    folder: tempfile::TempDir,
}

impl Volume {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=128k", "driftgate-test"])
            .arg(folder.path())
            .output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self { folder })
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.folder.path()).output());
    }
}

#[expect(clippy::disallowed_methods, reason = "a time is taken")]
#[tokio::test]
async fn a_full_disk_degrades_to_counted_loss_and_heals() {
    let Some(volume) = Volume::mount() else {
        // Said aloud; the test with a folder in the file's place covers the same path of the code.
        println!("no right to mount a small disk: not tried on a really full one");
        return;
    };
    let settings = Audit { bytes_max: 16 << 20, ..settings(volume.folder.path()) };
    let mut recorder = start(&settings);
    recorder.record(now(), started());
    for _ in 0..3000 {
        recorder.record(now(), Event::Reloaded);
        tokio::task::yield_now().await;
    }
    until(&mut recorder, |recorder| {
        recorder.fault().is_some_and(|(_, fault)| fault.contains("No space left"))
    })
    .await;
    let ballast = volume.folder.path().join("audit.jsonl");
    assert!(fs::metadata(&ballast).unwrap().len() <= 128 * 1024);
    let (code, text) = verify(&[log_path(&settings)]);
    assert_eq!(code, Some(0), "what is there is whole:\n{text}");
    let grown = Command::new("mount")
        .args(["-o", "remount,size=8m"])
        .arg(volume.folder.path())
        .status()
        .unwrap();
    assert!(grown.success());
    let begin = Instant::now();
    until(&mut recorder, |recorder| recorder.fault().is_none()).await;
    recorder.record(now(), Event::Stopped);
    let lost = recorder.lost();
    finish(recorder).await;
    let (code, text) = verify(&[log_path(&settings)]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains(&format!("lost      {lost} events")), "{text}");
    assert!(text.contains("torn      0"), "{text}");
    let observed = format!("{lost} events counted as lost, the chain whole");
    row("disk full under the audit log (ENOSPC)", "counted loss, said", observed, Some(begin));
}
