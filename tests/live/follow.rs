//! Following a file, with real files: where reading begins and ends, what a line is, and what the
//! receiver hears when there is nothing to read.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a panic is the report"
)]

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use driftgate::config::Tail;
use driftgate::ingest::tail::{LINES_LEN_MAX, LOOK_BYTES_MAX, Line, LineFault, follow};
use driftgate::protocol::canonical::Json;
use tempfile::TempDir;
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const INTERVAL: Duration = Duration::from_millis(10);
/// Far above what anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);
/// Many looks: what has not come by then does not come.
const MANY_LOOKS: Duration = Duration::from_millis(150);
const LINE_BYTES_MAX: usize = 1024;

struct Rig {
    folder: TempDir,
    path: PathBuf,
    lines: Receiver<Line>,
    task: JoinHandle<()>,
}

impl Rig {
    /// Follows `cycles.jsonl`, which begins as `text`.
    fn with(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        append(&folder.path().join("cycles.jsonl"), text);
        Self::in_folder(folder, "cycles.jsonl")
    }

    /// Follows a file that does not exist yet, and is known to do so.
    async fn waiting() -> Self {
        let mut rig = Self::in_folder(tempfile::tempdir().unwrap(), "cycles.jsonl");
        assert!(rig.fault().await.ends_with("cycles.jsonl: does not exist"));
        rig
    }

    /// Follows a file that came after the start; its first cycle, 1, has been received.
    async fn reading() -> Self {
        let mut rig = Self::waiting().await;
        rig.write(cycle(1));
        rig.expect_cycles(1..=1).await;
        rig
    }

    fn in_folder(folder: TempDir, name: &str) -> Self {
        let path = folder.path().join(name);
        let line_bytes_max = LINE_BYTES_MAX.try_into().unwrap();
        let settings = Tail { interval: INTERVAL, line_bytes_max, path: path.clone() };
        let (lines, task) = follow(settings);
        Self { folder, path, lines, task }
    }

    fn write(&self, text: impl AsRef<[u8]>) {
        append(&self.path, text);
    }

    fn other(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn line(&mut self) -> Line {
        let line = timeout(PATIENCE, self.lines.recv()).await.expect("a line in time");
        line.expect("the task lives")
    }

    async fn fault(&mut self) -> String {
        let line = self.line().await;
        let Line::Fault(text) = line else { panic!("{line:?} is no fault of the file") };
        text
    }

    async fn unreadable(&mut self) -> (u64, String) {
        let line = self.line().await;
        let Line::Unreadable { line_number, fault } = line else { panic!("{line:?} can be read") };
        (line_number, fault.to_string())
    }

    async fn expect_cycles(&mut self, cycles: impl IntoIterator<Item = u32>) {
        for expected in cycles {
            assert_eq!(number(&self.line().await), expected);
        }
    }

    async fn expect_silence(&mut self) {
        let line = timeout(MANY_LOOKS, self.lines.recv()).await;
        assert!(line.is_err(), "{line:?} came out of turn");
    }
}

fn append(path: &Path, text: impl AsRef<[u8]>) {
    let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(text.as_ref()).unwrap();
}

/// Puts a symbolic link to `target` at `path`, without a moment in which nothing stands there.
fn point(path: &Path, target: &Path) {
    let link = path.with_extension("link");
    std::os::unix::fs::symlink(target, &link).unwrap();
    fs::rename(link, path).unwrap();
}

/// A report of one cycle. All of four digits are equally long.
fn cycle(number: u32) -> String {
    format!("{{\"cycle\":{number}}}\n")
}

fn number(line: &Line) -> u32 {
    let Line::Report(report) = line else { panic!("{line:?} is no report") };
    let cycle = report.pointer("/cycle").and_then(Json::as_f64).unwrap();
    cycle.to_string().parse().unwrap()
}

#[tokio::test]
async fn what_stands_in_the_file_at_the_start_is_stale_and_stays_there() {
    let mut rig = Rig::with(&(cycle(1) + &cycle(2)));
    // When following begins cannot be seen from outside, so cycles are added until one arrives.
    let mut newest = 100;
    let first = loop {
        rig.write(cycle(newest));
        if let Ok(line) = timeout(MANY_LOOKS, rig.lines.recv()).await {
            break number(&line.unwrap());
        }
        newest += 1;
    };
    assert!(first >= 100, "cycle {first} is of the past");
    rig.expect_cycles(first + 1..=newest).await;
}

#[tokio::test]
async fn a_last_line_that_is_being_written_at_the_start_is_read_whole() {
    for _ in 0..10 {
        let mut rig = Rig::with(&(cycle(1) + "{\"cycle\""));
        rig.expect_silence().await;
        rig.write(":2}\n");
        // On a very slow machine following may begin only now; then the line is of the past.
        if let Ok(line) = timeout(PATIENCE / 10, rig.lines.recv()).await {
            assert_eq!(number(&line.unwrap()), 2);
            return;
        }
    }
    panic!("the line never came");
}

#[tokio::test]
async fn a_last_line_that_is_too_long_already_at_the_start_is_reported_once() {
    for bytes in [LINE_BYTES_MAX + 2, 3 * LOOK_BYTES_MAX] {
        let mut rig = Rig::with(&(cycle(1) + &"x".repeat(bytes)));
        let (line_number, fault) = rig.unreadable().await;
        assert_eq!((line_number, fault.as_str()), (1, "longer than 1024 bytes"));
        rig.write("xxx\n".to_owned() + &cycle(2) + "{\n");
        rig.expect_cycles([2]).await;
        assert_eq!(rig.unreadable().await.0, 3);
    }
}

#[tokio::test]
async fn a_file_that_comes_after_the_start_is_read_from_its_beginning() {
    let mut rig = Rig::waiting().await;
    rig.expect_silence().await;
    fs::write(rig.other("new"), cycle(1) + &cycle(2)).unwrap();
    fs::rename(rig.other("new"), &rig.path).unwrap();
    rig.expect_cycles(1..=2).await;
}

#[tokio::test]
async fn a_line_waits_for_its_newline() {
    let mut rig = Rig::reading().await;
    for part in ["{\"cyc", "le\":", "2}"] {
        rig.write(part);
        rig.expect_silence().await;
    }
    rig.write("\n");
    rig.expect_cycles([2]).await;
}

#[tokio::test]
async fn crlf_ends_a_line_and_empty_lines_are_passed_over() {
    let mut rig = Rig::waiting().await;
    rig.write("\r\n\n{\"cycle\":1}\r\n \t \n\r\n{\"cycle\":2}\n\n");
    rig.expect_cycles(1..=2).await;
    rig.expect_silence().await;
}

#[tokio::test]
async fn a_line_that_cannot_be_read_is_reported_with_its_number_and_without_its_text() {
    let mut rig = Rig::reading().await;
    let long = "secret".repeat(200);
    let bad: [(&[u8], &str); 5] = [
        (b"{\"cycle\": secret}", "line 1, column 11"),
        (b"{\"cycle\":2,\"cycle\":3}", "/cycle: "),
        (b"{\"secret\":\"\xff\"}", "not UTF-8 after 11 bytes"),
        (b"{\"cycle\":\"secret\0\"}", "control character"),
        (long.as_bytes(), "longer than 1024 bytes"),
    ];
    for (text, _) in bad {
        rig.write([text, b"\n", cycle(2).as_bytes()].concat());
    }
    for ((_, expected), line_number) in bad.into_iter().zip((2..).step_by(2)) {
        let (found, fault) = rig.unreadable().await;
        assert_eq!(found, line_number, "{fault}");
        assert!(fault.contains(expected), "{fault} does not say {expected}");
        assert!(!fault.contains("secret"), "{fault} quotes the line");
        rig.expect_cycles([2]).await;
    }
}

#[tokio::test]
async fn a_line_that_is_too_long_is_reported_before_it_ends_and_skipped_to_its_newline() {
    let mut rig = Rig::reading().await;
    rig.write("x".repeat(LINE_BYTES_MAX + 2));
    let fault = LineFault::TooLong { bytes_max: LINE_BYTES_MAX };
    assert_eq!(rig.line().await, Line::Unreadable { line_number: 2, fault });
    rig.write("x".repeat(3 * LOOK_BYTES_MAX));
    rig.expect_silence().await;
    rig.write("x\n".to_owned() + &cycle(3));
    rig.expect_cycles([3]).await;
}

#[tokio::test]
async fn after_a_rename_the_old_file_is_read_to_its_end_and_then_the_new_one() {
    let mut rig = Rig::reading().await;
    let mut old = OpenOptions::new().append(true).open(&rig.path).unwrap();
    fs::rename(&rig.path, rig.other("cycles.1")).unwrap();
    File::create(&rig.path).unwrap();
    rig.expect_silence().await;
    // The writer has not noticed yet.
    old.write_all(cycle(2).as_bytes()).unwrap();
    rig.expect_cycles([2]).await;
    old.write_all((cycle(3) + &cycle(4)).as_bytes()).unwrap();
    rig.write(cycle(5) + &cycle(6));
    rig.expect_cycles(3..=6).await;
    old.write_all(cycle(7).as_bytes()).unwrap();
    rig.write(cycle(8));
    rig.expect_cycles([8]).await;
}

#[tokio::test]
async fn a_line_without_newline_in_a_file_that_was_replaced_is_read_as_it_stands() {
    let mut rig = Rig::reading().await;
    for (torn, new) in [("{\"cycle\":2}", 3), ("{\"cycle\":4", 5)] {
        rig.write(torn);
        rig.expect_silence().await;
        fs::write(rig.other("new"), cycle(new)).unwrap();
        fs::rename(rig.other("new"), &rig.path).unwrap();
        if new == 3 {
            rig.expect_cycles([2]).await;
        } else {
            assert!(rig.unreadable().await.1.contains("EOF"));
        }
        rig.expect_cycles([new]).await;
    }
}

#[tokio::test]
async fn a_truncated_file_is_read_from_its_beginning() {
    let mut rig = Rig::reading().await;
    rig.write(cycle(2) + &cycle(3));
    rig.expect_cycles(2..=3).await;
    fs::copy(&rig.path, rig.other("cycles.1")).unwrap();
    OpenOptions::new().write(true).open(&rig.path).unwrap().set_len(0).unwrap();
    rig.write(cycle(4));
    rig.expect_cycles([4]).await;
    rig.write(cycle(5));
    rig.expect_cycles([5]).await;
}

#[tokio::test]
async fn a_truncation_is_noticed_though_the_file_is_no_shorter_afterwards() {
    let mut rig = Rig::reading().await;
    // One write, so that no look comes in between.
    let file = OpenOptions::new().write(true).open(&rig.path).unwrap();
    file.write_all_at((cycle(2) + &cycle(3)).as_bytes(), 0).unwrap();
    rig.expect_cycles(2..=3).await;
    file.write_all_at((cycle(4) + &cycle(5)).as_bytes(), 0).unwrap();
    rig.expect_cycles(4..=5).await;
}

#[tokio::test]
async fn a_hole_that_a_writer_leaves_after_a_truncation_is_passed_over() {
    let mut rig = Rig::waiting().await;
    // Not in append mode: it goes on at its own position.
    let mut file = File::create(&rig.path).unwrap();
    file.write_all(cycle(1).repeat(LOOK_BYTES_MAX / 8).as_bytes()).unwrap();
    for _ in 0..LOOK_BYTES_MAX / 8 {
        rig.expect_cycles([1]).await;
    }
    file.set_len(0).unwrap();
    rig.expect_silence().await;
    file.write_all(cycle(2).as_bytes()).unwrap();
    rig.expect_cycles([2]).await;
    assert_eq!(fs::read(&rig.path).unwrap().first(), Some(&0));
}

#[tokio::test]
async fn a_file_that_is_deleted_and_made_again_is_read_from_its_beginning() {
    let mut rig = Rig::reading().await;
    for number in 2..5 {
        rig.write(cycle(number));
        fs::remove_file(&rig.path).unwrap();
        rig.expect_cycles([number]).await;
        assert!(rig.fault().await.ends_with("does not exist"));
        rig.write(cycle(number + 100));
        rig.expect_cycles([number + 100]).await;
    }
}

#[tokio::test]
async fn what_is_no_regular_file_is_refused_without_waiting_for_it() {
    let mut rig = Rig::reading().await;
    fs::create_dir(rig.other("directory")).unwrap();
    let pipe = Command::new("mkfifo").arg(rig.other("named pipe")).status().unwrap();
    assert!(pipe.success());
    drop(UnixListener::bind(rig.other("socket")).unwrap());
    for kind in ["directory", "named pipe", "socket"] {
        point(&rig.path, &rig.other(kind));
        let expected = format!("{}: is a {kind}, not a regular file", rig.path.display());
        assert_eq!(rig.fault().await, expected);
        rig.expect_silence().await;
        fs::write(rig.other("new"), cycle(2)).unwrap();
        fs::rename(rig.other("new"), &rig.path).unwrap();
        rig.expect_cycles([2]).await;
    }
}

#[tokio::test]
async fn a_fault_of_the_file_is_said_once_per_change() {
    let folder = tempfile::tempdir().unwrap();
    let [file, directory, link] =
        ["file", "directory", "logs"].map(|name| folder.path().join(name));
    fs::write(&file, "").unwrap();
    fs::create_dir(&directory).unwrap();
    point(&link, &file);
    let mut rig = Rig::in_folder(folder, "logs/cycles.jsonl");
    let first = rig.fault().await;
    assert!(first.contains("logs/cycles.jsonl: Not a directory"), "{first}");
    rig.expect_silence().await;
    point(&link, &directory);
    assert!(rig.fault().await.ends_with("does not exist"));
    rig.expect_silence().await;
    rig.write(cycle(1));
    rig.expect_cycles([1]).await;
    point(&link, &file);
    assert_eq!(rig.fault().await, first);
    rig.expect_silence().await;
}

#[tokio::test]
async fn many_lines_at_once_are_all_handed_over_in_order() {
    let mut rig = Rig::reading().await;
    let text: String = (2..=20_000).map(cycle).collect();
    assert!(text.len() > 4 * LOOK_BYTES_MAX);
    rig.write(text);
    rig.expect_cycles(2..=20_000).await;
    rig.expect_silence().await;
}

#[tokio::test]
async fn nothing_is_read_ahead_of_a_slow_receiver() {
    let mut rig = Rig::waiting().await;
    let text: String = (1000..=9999).map(cycle).collect();
    let unread = LOOK_BYTES_MAX.next_multiple_of(cycle(1000).len());
    assert!(text.len() > 2 * unread);
    fs::write(rig.other("new"), &text).unwrap();
    fs::rename(rig.other("new"), &rig.path).unwrap();
    let full = async {
        while rig.lines.len() < LINES_LEN_MAX {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, full).await.expect("the channel fills");
    // What lies beyond the first look can still be changed, however long the receiver waits.
    let changed = cycle(9999).repeat((text.len() - unread) / cycle(9999).len());
    let file = OpenOptions::new().write(true).open(&rig.path).unwrap();
    file.write_all_at(changed.as_bytes(), unread.try_into().unwrap()).unwrap();
    let kept = text.get(..unread).unwrap().lines().count();
    rig.expect_cycles((1000..=9999).take(kept)).await;
    rig.expect_cycles(std::iter::repeat_n(9999, 9000 - kept)).await;
}

#[tokio::test]
async fn following_ends_when_nobody_receives() {
    let idle = Rig::reading().await;
    drop(idle.lines);
    timeout(PATIENCE, idle.task).await.expect("it ends in time").unwrap();
    let busy = Rig::waiting().await;
    busy.write((1..1000).map(cycle).collect::<String>());
    drop(busy.lines);
    timeout(PATIENCE, busy.task).await.expect("it ends in time").unwrap();
}
