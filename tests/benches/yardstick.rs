//! The yardstick: one table of what the sidecar costs beside a bare async-nats client that does the
//! same work in the same run.
//!
//! `cargo bench --bench yardstick -- [--json] [--only WORD]... [--seconds S] [--turns N]`. The
//! sidecar, the bare client and the load are processes of their own; CPU is what the kernel has
//! booked for the sidecar or the bare client, so neighbours and the load do not count. Each row is
//! measured in turns, and the pair with the median ratio is printed. Prints; asserts nothing about
//! time. Under `cargo test` it exits at once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::as_conversions,
    reason = "a bench prints, takes times, and ends where something is wrong"
)]

#[path = "yardstick/bare.rs"]
mod bare;
#[path = "yardstick/closing.rs"]
mod closing;
#[path = "yardstick/flow.rs"]
mod flow;
#[path = "yardstick/idle.rs"]
mod idle;
#[path = "yardstick/load.rs"]
mod load;
#[path = "yardstick/objects.rs"]
mod objects;
#[path = "yardstick/process.rs"]
mod process;
#[path = "yardstick/readers.rs"]
mod readers;
#[path = "../support/mod.rs"]
mod support;
#[path = "yardstick/table.rs"]
mod table;

use std::time::Duration;

use table::{Row, Table};

/// What one run is told.
struct Plan {
    only: Vec<String>,
    span: Duration,
    turns: usize,
    json: bool,
}

impl Plan {
    fn parse(arguments: impl Iterator<Item = String>) -> Self {
        let mut plan =
            Self { only: Vec::new(), span: Duration::from_secs(2), turns: 3, json: false };
        let mut arguments = arguments.filter(|argument| argument != "--bench");
        while let Some(argument) = arguments.next() {
            let mut word = || arguments.next().expect("a word after the option");
            match argument.as_str() {
                "--json" => plan.json = true,
                "--only" => plan.only.push(word()),
                "--seconds" => plan.span = Duration::from_secs(word().parse().unwrap()),
                "--turns" => plan.turns = word().parse().unwrap(),
                other => panic!("unknown: {other}"),
            }
        }
        plan
    }

    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|word| name.contains(word.as_str()))
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    // A child of our own: the bare client or the load.
    if let Ok(task) = std::env::var(process::TASK) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        return match task.as_str() {
            "bare" => runtime.block_on(bare::run(arguments.next().unwrap())),
            "load" => runtime.block_on(load::run(arguments.next().unwrap())),
            "connect" => runtime.block_on(bare::connect(&arguments.next().unwrap())),
            "wait" => runtime.block_on(bare::wait(&arguments.next().unwrap())),
            other => panic!("unknown task {other}"),
        };
    }
    if std::env::args().any(|argument| argument == "--bench") {
        let plan = Plan::parse(arguments);
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(run(plan));
    }
}

async fn run(plan: Plan) {
    let table = Table::begin(plan.json);
    for flow in flow::FLOWS {
        if plan.wants(flow.name) {
            table.add(flow::measure(flow, plan.span, plan.turns).await);
        }
    }
    let mut rest: Vec<Row> = Vec::new();
    if plan.wants("closing") {
        rest.extend(closing::measure().await);
    }
    if plan.wants("readers") {
        rest.extend(readers::measure().await);
    }
    if plan.wants("objects") {
        rest.extend(objects::measure().await);
    }
    if plan.wants("idle") {
        rest.extend(idle::measure().await);
    }
    if plan.wants("start") {
        rest.extend(idle::start().await);
    }
    for row in rest {
        table.add(row);
    }
    table.end();
}
