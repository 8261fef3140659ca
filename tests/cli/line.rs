//! The command line as a whole: its voice, its completions and manual, where a configuration comes
//! from, colours, and what an error names.

use std::process::{Command, Output, Stdio};

use clap::builder::StyledStr;
use driftgate::commands::arguments::line;
use driftgate::commands::colour::When;
use serde_json::Value;

fn driftgate(words: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_driftgate"));
    command.args(words).envs(environment.iter().copied()).stdin(Stdio::null());
    command.output().expect("it runs")
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Verbs that a text would begin with if it gave orders.
const ORDERS: [&str; 24] = [
    "Add", "Ask", "Check", "Draw", "Explain", "Find", "Give", "Hold", "List", "Make", "Print",
    "Push", "Read", "Refuse", "Restore", "Run", "Send", "Show", "Use", "Verify", "Wait", "Watch",
    "Write", "Do",
];

fn assert_voice(path: &str, text: Option<&StyledStr>) {
    let text = text.unwrap_or_else(|| panic!("{path}: nothing is said")).to_string();
    let first = text.split_whitespace().next().unwrap_or_default();
    assert!(!ORDERS.contains(&first), "{path}: {text}: gives an order");
    assert!(!text.ends_with('.'), "{path}: {text}: ends with a full stop");
}

fn assert_told(command: &clap::Command, path: &str) {
    assert_voice(path, command.get_about());
    for argument in command.get_arguments() {
        assert_voice(&format!("{path} {}", argument.get_id()), argument.get_help());
    }
    for own in command.get_subcommands().filter(|own| own.get_name() != "help") {
        assert_told(own, &format!("{path} {}", own.get_name()));
    }
}

#[test]
fn every_text_of_the_help_speaks_in_one_voice() {
    line(When::Never).debug_assert();
    assert_told(&line(When::Never), "driftgate");
    let shown = out(&driftgate(&["replay", "--help"], &[]));
    assert!(shown.contains("Prints help") && !shown.contains("Print help"), "{shown}");
}

#[test]
fn every_command_that_reads_a_configuration_takes_it_alike() {
    fn look(command: &clap::Command, found: &mut Vec<String>) {
        for argument in command.get_arguments().filter(|argument| argument.get_id() == "config") {
            assert_eq!(argument.get_short(), Some('c'), "{}", command.get_name());
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("DRIFTGATE_CONFIG"), "{}: {help}", command.get_name());
            found.push(command.get_name().to_owned());
        }
        command.get_subcommands().for_each(|own| look(own, found));
    }
    let mut found = Vec::new();
    look(&line(When::Never), &mut found);
    for name in
        ["run", "check", "verify", "doctor", "health", "status", "permissions", "send", "trace"]
    {
        assert!(found.iter().any(|one| one == name), "{name}: {found:?}");
    }
}

#[test]
fn driftgate_config_names_the_files_where_the_command_line_names_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("a.toml"), "[runtime]\nid = \"planner\"\n").unwrap();
    std::fs::write(path("b.toml"), "[nats]\nwindow = 0\n").unwrap();
    let both = format!("{}:{}", path("a.toml"), path("b.toml"));
    let named = [("DRIFTGATE_CONFIG", both.as_str())];
    let shown = out(&driftgate(&["check"], &named));
    assert!(shown.contains("nats.window: ") && !shown.contains("runtime.id: "), "{shown}");
    let one = out(&driftgate(&["check", "-c", &path("a.toml")], &named));
    assert!(!one.contains("nats.window: "), "{one}");
    let none = driftgate(&["status"], &[("DRIFTGATE_CONFIG", "/absent/driftgate.toml")]);
    assert_eq!(none.status.code(), Some(78));
    assert!(said(&none).contains("/absent/driftgate.toml"), "{}", said(&none));
}

#[test]
fn completions_and_pages_are_there_for_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let text = out(&driftgate(&["completions", shell], &[]));
        for word in ["replay", "snapshot", "assumed-scr"] {
            assert!(text.contains(word), "{shell}: {word}");
        }
    }
    let page = out(&driftgate(&["man"], &[]));
    assert!(page.contains(".TH driftgate 1") && page.contains("doctor"), "{page}");
    let page = out(&driftgate(&["man", "snapshot", "put"], &[]));
    assert!(page.contains("media\\-type"), "{page}");
    let absent = driftgate(&["man", "nothing"], &[]);
    assert_eq!(absent.status.code(), Some(64));
    assert!(said(&absent).contains("no command \"nothing\""), "{}", said(&absent));
    let folder = tempfile::tempdir().unwrap();
    let man1 = folder.path().join("man/man1");
    let all = driftgate(&["man", "--out", man1.to_str().unwrap()], &[]);
    assert_eq!(all.status.code(), Some(0), "{}", said(&all));
    for name in ["driftgate.1", "driftgate-run.1", "driftgate-snapshot-put.1"] {
        assert!(man1.join(name).exists(), "{name}");
    }
}

#[test]
fn bash_takes_the_completions() {
    let script = out(&driftgate(&["completions", "bash"], &[]));
    let Ok(bash) = Command::new("bash").args(["-n", "-c", &script]).output() else {
        eprintln!("SKIPPED: no bash to read the completions");
        return;
    };
    assert!(bash.status.success(), "{}", said(&bash));
}

#[test]
fn colours_come_and_go_as_they_are_asked_for() {
    let is_coloured = |words: &[&str], environment: &[(&str, &str)]| {
        let output = driftgate(words, environment);
        format!("{}{}", out(&output), said(&output)).contains('\u{1b}')
    };
    assert!(is_coloured(&["--color", "always", "--help"], &[]));
    assert!(is_coloured(&["--color=always", "run", "--no-such"], &[]));
    assert!(!is_coloured(&["--help"], &[]));
    assert!(!is_coloured(&["--color", "never", "run", "--no-such"], &[]));
    let wrong = driftgate(&["--color", "perhaps", "check"], &[]);
    assert_eq!(wrong.status.code(), Some(64));
}

#[test]
fn a_taken_address_is_named_with_its_key() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let (key, file) = (folder.path().join("keys/new/k1"), folder.path().join("driftgate.toml"));
    // The folder of a key is made with it.
    let made = driftgate(&["keygen", "--out", key.to_str().unwrap()], &[]);
    assert_eq!(made.status.code(), Some(0), "{}", said(&made));
    for name in ["api", "admin"] {
        let other = if name == "api" { "admin" } else { "api" };
        let text = format!(
            "[runtime]\nid = \"planner\"\nattractor_type = \"symbolic\"\n\
             [nats]\nurl = [\"nats://127.0.0.1:9\"]\n\
             [listen]\n{name} = \"{address}\"\n{other} = \"127.0.0.1:0\"\n\
             [integrity]\nsign_with = \"k1\"\nkeys = [{{ id = \"k1\", file = {key:?} }}]\n\
             [snapshot]\nspool = {:?}\n",
            folder.path().join("spool")
        );
        std::fs::write(&file, text).unwrap();
        let run = driftgate(&["run", "--config", file.to_str().unwrap()], &[]);
        assert_eq!(run.status.code(), Some(69));
        let expected = format!("listen.{name}: {address}: Address already in use");
        assert!(said(&run).contains(&expected), "{}", said(&run));
    }
}

#[test]
fn keygen_shows_its_new_folder_to_nobody_else() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("keys/k1");
    let made = driftgate(&["keygen", "--out", key.to_str().unwrap()], &[]);
    assert_eq!(made.status.code(), Some(0), "{}", said(&made));
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode();
    assert_eq!((mode(&key) & 0o777, mode(key.parent().unwrap()) & 0o777), (0o600, 0o700));
    let again = driftgate(&["keygen", "--out", key.to_str().unwrap()], &[]);
    assert_eq!(again.status.code(), Some(73));
    assert!(said(&again).contains(key.to_str().unwrap()), "{}", said(&again));
}

#[test]
fn check_tells_programs_what_it_tells_people_and_what_audit_and_delivery_do() {
    let folder = tempfile::tempdir().unwrap();
    let (key, file) = (folder.path().join("k1"), folder.path().join("driftgate.toml"));
    driftgate(&["keygen", "--out", key.to_str().unwrap()], &[]);
    let text = format!(
        "[runtime]\nid = \"planner\"\nattractor_type = \"symbolic\"\n\
         [integrity]\nsign_with = \"k1\"\nkeys = [{{ id = \"k1\", file = {key:?} }}]\n\
         [deliver]\nurl = \"http://127.0.0.1:8080/inbox\"\n\
         [audit]\nfile = \"/var/lib/driftgate/audit.jsonl\"\n"
    );
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    let shown = out(&driftgate(&["check", "-c", file], &[]));
    for expected in [
        "deliver      posts each accepted packet to http://127.0.0.1:8080/inbox, waits 2s",
        "audit        appends to /var/lib/driftgate/audit.jsonl, keeps 8 files of 16 MiB",
    ] {
        assert!(shown.contains(expected), "{expected}\nin:\n{shown}");
    }
    let whole: Value =
        serde_json::from_str(&out(&driftgate(&["check", "-c", file, "--json"], &[]))).unwrap();
    assert_eq!(whole["valid"], true);
    assert_eq!(whole["summary"]["runtime"][0], "planner (symbolic), profile srip-05");
    let broken = driftgate(&["check", "-c", "/absent.toml", "--json"], &[]);
    assert_eq!(broken.status.code(), Some(78));
    let broken: Value = serde_json::from_str(&out(&broken)).unwrap();
    assert_eq!(
        (&broken["valid"], &broken["mistakes"][0]["key"]),
        (&false.into(), &"/absent.toml".into())
    );
}
