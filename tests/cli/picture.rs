//! The picture of the README, drawn from the run that is beside it.

use clap::Parser;
use driftgate::commands::replay::{self, Replay};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    replay: Replay,
}

/// `make documents` sets the variable and so draws it.
#[test]
fn documents_the_picture_is_what_replay_draws_of_the_example() {
    let root = env!("CARGO_MANIFEST_DIR");
    let run = format!("{root}/docs/example-run.jsonl");
    let drawn = tempfile::NamedTempFile::new().unwrap();
    let svg = drawn.path().to_str().unwrap();
    let cli = Cli::try_parse_from(["replay", &run, "--svg", svg]).unwrap();
    replay::write(&cli.replay, &mut &b""[..], &mut Vec::new(), &mut Vec::new()).unwrap();
    let drawn = std::fs::read_to_string(svg).unwrap();
    let picture = format!("{root}/docs/drift.svg");
    if std::env::var_os("DRIFTGATE_WRITE_DOCUMENTS").is_some() {
        std::fs::write(picture, drawn).unwrap();
        return;
    }
    assert!(std::fs::read_to_string(picture).unwrap() == drawn, "run `make documents`");
}
