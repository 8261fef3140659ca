//! `driftgate watch`: the fleet in a terminal, from presence and telemetry alone.
//!
//! Over one connection it reads the bucket every `READ_INTERVAL` and hears the frames of the
//! configuration's peers, believes what verifies under its keys, and writes nothing. Where nobody
//! can be shown a picture it prints one table. What deliberately is not here: any way to change
//! what it shows.

mod feed;
mod keys;
mod screen;
mod view;

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _, stdout};
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::colour::When;
use super::files::Files;
use super::signals::StopSignals;
use super::status;
use super::sysexits::{self, Fault};
use super::terminal::Canvas;
use super::trace;
use crate::config::Config;
use crate::protocol::time::Timestamp;
use feed::{News, READ_INTERVAL};
use keys::{Keys, Pressed};
use view::{View, Wish};

/// Least time between two pictures: what changes faster is seen together.
const DRAW_INTERVAL: Duration = Duration::from_millis(250);
/// News that wait for the picture; the feed waits when it is full.
const NEWS_MAX: usize = 1024;

const EXAMPLES: &str = "Examples:
  driftgate watch -c driftgate.toml
  driftgate watch -c driftgate.toml --once
  driftgate watch -c driftgate.toml --once --json | jq '.runtimes[].band'

Letters of BANDS, one for each look: o open, c caution, B blocked, I isolated, - nobody vouches for
it. INDEX, DRIFT and /MIN come from telemetry frames of the configuration's peers, which no closed
gate sends. Without a terminal it prints one table, or with --json one object for each look. Exit
codes: 0, also after Ctrl-C; 69 without a broker or bucket; 78 a wrong configuration.";

/// Shows the fleet live in the terminal
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Watch {
    #[command(flatten)]
    config: Files,
    /// Prints one table and ends
    #[arg(long)]
    once: bool,
    /// Prints JSON, one object for each look
    #[arg(long)]
    json: bool,
}

/// Shows it until it is told to stop.
///
/// # Errors
/// [`Fault`], when there is nothing to show.
pub async fn run(
    watch: &Watch,
    color: When,
    environment: &BTreeMap<String, String>,
    now: &(dyn Fn() -> Timestamp + Sync),
) -> Result<ExitCode, Fault> {
    let mut signals = StopSignals::listen()?;
    let config = watch.config.load(environment)?;
    let is_terminal = stdout().is_terminal();
    if watch.once || watch.json || !is_terminal {
        let looks = async {
            loop {
                let rows = status::rows(&config, now()).await?;
                print(&status::text(&rows, watch.json, now()))?;
                if watch.once || !watch.json {
                    return Ok(ExitCode::SUCCESS);
                }
                tokio::time::sleep(READ_INTERVAL).await;
            }
        };
        return tokio::select! {
            ended = looks => ended,
            _ = signals.recv() => Ok(ExitCode::SUCCESS),
        };
    }
    // What is wrong at once is said on a terminal that is still as it was.
    let rows = tokio::select! {
        rows = status::rows(&config, now()) => rows?,
        _ = signals.recv() => return Ok(ExitCode::SUCCESS),
    };
    let mut view = View { broker: broker(&config), ..View::default() };
    view.took(rows, now());
    let Some(canvas) = Canvas::open_with_keys(color.applies(environment, is_terminal)) else {
        return Err(Fault::new(sysexits::UNAVAILABLE, "watch: the terminal cannot be drawn on"));
    };
    show(canvas, view, &config, watch, environment, now, &mut signals).await;
    Ok(ExitCode::SUCCESS)
}

fn print(text: &str) -> Result<(), Fault> {
    let mut output = stdout().lock();
    output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush())
        .map_err(|error| Fault::new(sysexits::IO_ERROR, format!("standard output: {error}")))
}

fn broker(config: &Config) -> String {
    config.nats.url.first().map(ToString::to_string).unwrap_or_default()
}

/// Draws until a key or a signal ends it. The canvas, dropped on the way out, gives the terminal
/// back.
async fn show(
    mut canvas: Canvas,
    mut view: View,
    config: &Config,
    watch: &Watch,
    environment: &BTreeMap<String, String>,
    now: &(dyn Fn() -> Timestamp + Sync),
    signals: &mut StopSignals,
) {
    let (sender, mut news) = mpsc::channel(NEWS_MAX);
    let feed = feed::run(config, now, sender);
    tokio::pin!(feed);
    let mut keys = Keys::read();
    let mut pictures = interval(DRAW_INTERVAL);
    pictures.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut asking: Option<Question<'_>> = None;
    let mut is_changed = true;
    let mut drawn = None;
    loop {
        tokio::select! {
            () = &mut feed => return,
            _ = signals.recv() => return,
            Some(news) = news.recv() => {
                match news {
                    News::Rows(rows) => view.took(rows, now()),
                    News::Frame { source, index } => view.heard(&source, index, now()),
                    News::Broker(version) => view.broker = format!("{} {version}", broker(config)),
                    News::Fault(fault) => view.fault = Some(fault),
                }
                is_changed = true;
            }
            text = answered(&mut asking) => {
                asking = None;
                view.explained = Some(text);
                is_changed = true;
            }
            pressed = keys.next() => match pressed {
                None | Some(Pressed::Quit) => return,
                Some(Pressed::Resized) => is_changed = true,
                Some(Pressed::Wish(Wish::Letter('q'))) if !view.is_filtering => return,
                Some(Pressed::Wish(Wish::Letter('e'))) if !view.is_filtering => {
                    // One question at a time.
                    asking.get_or_insert_with(|| Box::pin(ask(watch, environment)));
                }
                Some(Pressed::Wish(wish)) => {
                    view.obey(wish, now());
                    is_changed = true;
                }
            },
            _ = pictures.tick() => {
                // Ages move by the second; nothing else does by itself.
                let second = now().unix_ms().div_euclid(1000);
                if !is_changed && drawn == Some(second) {
                    continue;
                }
                (is_changed, drawn) = (false, Some(second));
                if canvas.draw(|frame| screen::render(&mut view, now(), frame)).is_err() {
                    return;
                }
            }
        }
    }
}

/// An explanation that was asked for.
type Question<'a> = Pin<Box<dyn Future<Output = String> + 'a>>;

/// Waits for the answer; for ever where nothing was asked.
async fn answered(question: &mut Option<Question<'_>>) -> String {
    match question {
        Some(question) => question.await,
        None => std::future::pending().await,
    }
}

/// The newest report of the local sidecar explained, the only one that can be asked.
async fn ask(watch: &Watch, environment: &BTreeMap<String, String>) -> String {
    match trace::newest(&watch.config, environment).await {
        Ok(text) => format!("newest report of the local sidecar\n\n{text}"),
        Err(fault) => format!("the local sidecar cannot be asked: {fault}"),
    }
}
