//! `driftgate demo`: an own nats-server, three sidecars and a runtime whose drift rises and falls,
//! watched live, with the promises checked from outside.
//!
//! The sidecars run in this process as `run` runs them; the broker, the packets and the observer
//! are real. What deliberately is not here: any knowledge of how the gate decides (`promise.rs`
//! states once more what the specification asks for), and anything that a sidecar would not do
//! alone.

mod observer;
mod promise;
mod runtime;
mod screen;
mod script;
mod story;
mod summary;

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write as _, stdout};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::colour::When;
use super::fleet::{Fleet, Member, connected};
use super::signals::StopSignals;
use super::sysexits::Fault;
use crate::driver::Books;
use crate::http::listener::Bound;
use crate::nats::child::{self, ChildServer};
use crate::protocol::gate::Band;
use crate::protocol::view::Barrier;
use crate::sidecar::Sidecar;
use observer::Observer;
use promise::{Evidence, Outcome, Promise, Replied};
use runtime::{Event, Runtime};
use screen::{Board, Row, Screen};
use script::Temper;
use summary::Account;

/// The sidecars: every one is a peer of every other.
const CAST: [(&str, Temper); 3] =
    [("planner", Temper::Drifting), ("critic", Temper::Calm(0)), ("monitor", Temper::Calm(1))];
/// Shortest run in which each part of the story gets a report.
const SECONDS_MIN: u64 = 3;
/// Longest run: what gathers for the isolated planner must not be older than a packet may be.
const SECONDS_MAX: u64 = 600;
/// Between two pictures.
const DRAW_INTERVAL: Duration = Duration::from_millis(200);
/// How long the end waits for what is on its way; on loopback that takes milliseconds.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);
const SETTLE_POLL: Duration = Duration::from_millis(20);
/// Events that wait for the picture. The runtimes wait when it is full.
const EVENTS_MAX: usize = 256;

/// Shows three sidecars and a runtime whose drift rises and falls
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  driftgate demo\n  driftgate demo --seconds 10 --json\n\n\
                        Exits 0 when every promise held, 1 when one did not, 69 without a \
                        nats-server. Ctrl-C ends it early, with the summary.")]
pub struct Demo {
    /// How long it takes, 3 to 600
    #[arg(long, value_name = "N", default_value_t = 40,
          value_parser = clap::value_parser!(u64).range(SECONDS_MIN..=SECONDS_MAX))]
    pub seconds: u64,
    /// Prints only the summary, as JSON
    #[arg(long)]
    pub json: bool,
    /// As --color never
    #[arg(long, hide = true)]
    pub no_color: bool,
}

/// Runs the demonstration. `environment` is asked for the nats-server and `NO_COLOR`.
///
/// # Errors
/// [`Fault`], when it cannot begin.
pub async fn run(
    demo: &Demo,
    color: When,
    environment: &BTreeMap<String, String>,
) -> Result<ExitCode, Fault> {
    let mut signals = StopSignals::listen()?;
    let program = child::find(environment).map_err(Fault::unavailable)?;
    let stage = tokio::select! {
        started = Box::pin(Stage::build(&program)) => started.map_err(Fault::unavailable)?,
        _ = signals.recv() => return Ok(ExitCode::SUCCESS),
    };
    let has_colours = !demo.no_color && color.applies(environment, stdout().is_terminal());
    let screen = Screen::new(&stage.hints().0, demo.json, has_colours);
    let mut show = Show::new(&stage, Duration::from_secs(demo.seconds), screen);
    // A standard output that nobody reads ends the run like a signal.
    let interrupted = show.play(&stage, &mut signals).await.unwrap_or(true);
    show.screen.finish();
    let accounts = show.settle(&stage).await;
    let promises = show.evidence.judge(&stage.observer.seen(), Some(summary::check(&accounts)));
    let verdict = verdict(&promises, show.evidence.faults(), interrupted);
    let written = if demo.json {
        show.write_json(&stage, &accounts, &promises, &verdict, interrupted)
    } else {
        show.write_summary(&accounts, &promises, &verdict)
    };
    stage.strike().await;
    // A summary that cannot be written changes nothing about what it says.
    drop(written);
    Ok(if verdict.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether everything that had to hold did, in words. An interrupted run need not have seen it all.
fn verdict(promises: &[Promise], faults: &[String], interrupted: bool) -> Result<String, String> {
    let codes = |outcome: Outcome| -> Vec<&str> {
        let some = promises.iter().filter(|promise| promise.outcome == outcome);
        some.map(|promise| promise.code).collect()
    };
    let (broken, unseen) = (codes(Outcome::Broken), codes(Outcome::Unseen));
    if let Some(fault) = faults.first() {
        Err(format!("the demonstration failed: {fault}"))
    } else if !broken.is_empty() {
        Err(format!("broken: {}", broken.join(", ")))
    } else if unseen.is_empty() {
        let early = if interrupted { "interrupted; " } else { "" };
        Ok(format!("{early}every promise held"))
    } else if interrupted {
        Ok(format!("interrupted before {} could be seen; the others held", unseen.join(", ")))
    } else {
        Err(format!("never seen: {}", unseen.join(", ")))
    }
}

/// Everything that runs. Dropped in this order: the server goes last.
#[derive(Debug)]
struct Stage {
    sidecars: Vec<(&'static str, Temper, Sidecar)>,
    observer: Arc<Observer>,
    server: ChildServer,
}

impl Stage {
    async fn build(program: &Path) -> Result<Self, String> {
        let server = ChildServer::start(program).await.map_err(|fault| fault.to_string())?;
        let ids = CAST.map(|(id, _)| id);
        let observer = Observer::connect(&server.url(), &ids).await;
        let observer = Arc::new(observer.map_err(|fault| fault.to_string())?);
        let fleet = Fleet::new(&server).map_err(|fault| fault.to_string())?;
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut sidecars = Vec::new();
        for (id, temper) in CAST {
            let peers: Vec<(&str, bool)> =
                ids.iter().filter(|peer| **peer != id).map(|peer| (*peer, true)).collect();
            let console = sidecars.is_empty();
            let member = Member { id, peers: &peers, api: free, admin: free, console };
            let config = fleet.config(&member).map_err(|fault| fault.to_string())?;
            let sidecar = Sidecar::start(&config).await.map_err(|fault| fault.to_string())?;
            sidecars.push((id, temper, sidecar));
        }
        if !connected(sidecars.iter().map(|(_, _, sidecar)| sidecar)).await {
            return Err("the sidecars cannot reach the nats-server just started".to_owned());
        }
        Ok(Self { sidecars, observer, server })
    }

    /// Ends everything in order.
    async fn strike(self) {
        for (_, _, sidecar) in self.sidecars {
            let _ = sidecar.stop().await;
        }
        drop(self.observer);
        self.server.stop().await;
    }

    async fn books(&self) -> Vec<(&'static str, Option<Books>)> {
        let mut all = Vec::new();
        for (id, _, sidecar) in &self.sidecars {
            all.push((*id, sidecar.handle.books().await.ok()));
        }
        all
    }

    /// The commands to look at it from outside, and the two that stay in the picture.
    fn hints(&self) -> (String, [String; 2]) {
        let nats = format!("nats --server {}", self.server.url());
        let api = self.sidecars.first().map(|(_, _, sidecar)| match &sidecar.api {
            Bound::Tcp(address) => format!("http://{address}"),
            Bound::Unix(path) => path.display().to_string(),
        });
        let admin = self.sidecars.first().map(|(_, _, sidecar)| sidecar.admin);
        let key = Fleet::key_of(&self.server).display().to_string();
        let (api, monitor) = (api.unwrap_or_default(), self.server.monitor().url());
        let admin = admin.map(|admin| format!("http://{admin}")).unwrap_or_default();
        let console = self.sidecars.first().and_then(|(_, _, sidecar)| sidecar.console);
        let page = console.map_or_else(String::new, |address| {
            format!("Planner and its fleet on a page, for a browser: http://{address}/\n\n")
        });
        let all = format!(
            "Driftgate demo. {page}While it runs, look at it from another terminal:\n\n  \
             {nats} sub 'driftgate.v1.>'\n  \
             {nats} stream subjects DRIFTGATE_STATE\n  \
             {nats} consumer ls DRIFTGATE_STATE\n  \
             {nats} sub --raw 'driftgate.v1.state.>' | driftgate verify --key-file k1={key}\n  \
             curl -s {api}/aegida/safety\n  \
             curl -s {admin}/metrics\n  \
             curl -s '{monitor}/connz?subs=detail'\n\n"
        );
        (all, [format!("{nats} sub 'driftgate.v1.>'"), format!("curl -s {api}/aegida/safety")])
    }
}

/// The run as it goes: what is shown and what is noted.
#[derive(Debug)]
struct Show {
    started: Instant,
    board: Board,
    screen: Screen,
    evidence: Evidence,
    /// Reports with a verdict, by sidecar.
    reports: BTreeMap<&'static str, u64>,
}

impl Show {
    fn new(stage: &Stage, length: Duration, screen: Screen) -> Self {
        let row = |(id, _, _): &(&str, Temper, Sidecar)| Row {
            id: (*id).to_owned(),
            band: Band::Blocked,
            drift: None,
            sent: 0,
            throttled: 0,
            held: 0,
            received: 0,
            barrier: String::new(),
            why: String::new(),
        };
        let rows = stage.sidecars.iter().map(row).collect();
        let (_, hints) = stage.hints();
        Self {
            started: Instant::now(),
            board: Board::new(length, rows, hints),
            screen,
            evidence: Evidence::default(),
            reports: BTreeMap::new(),
        }
    }

    /// Plays the script to its end, or until told to stop: then `true`.
    async fn play(&mut self, stage: &Stage, signals: &mut StopSignals) -> io::Result<bool> {
        self.started = Instant::now();
        let (sender, mut events) = mpsc::channel(EVENTS_MAX);
        // Dropping it on the way out ends the runtimes, each after the report it is at.
        let (stop, stopped) = watch::channel(false);
        for (id, temper, sidecar) in &stage.sidecars {
            let runtime = Runtime {
                id,
                temper: *temper,
                handle: sidecar.handle.clone(),
                observer: Arc::clone(&stage.observer),
                monitor: stage.server.monitor(),
                started: self.started,
                length: self.board.length,
            };
            tokio::spawn(runtime.play(sender.clone(), stopped.clone()));
        }
        drop(sender);
        let mut pictures = interval(DRAW_INTERVAL);
        pictures.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut interrupted = false;
        let mut shown = Ok(());
        loop {
            let drawn = tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.take(event),
                    None => break,
                },
                _ = pictures.tick() => self.refresh(stage).await,
                _ = signals.recv() => {
                    interrupted = true;
                    stop.send_replace(true);
                    Ok(())
                }
            };
            if drawn.is_err() {
                // Nobody reads: the runtimes end, and what they have still reported is counted.
                stop.send_replace(true);
                shown = drawn;
            }
        }
        shown?;
        self.refresh(stage).await?;
        Ok(interrupted)
    }

    fn take(&mut self, event: Event) -> io::Result<()> {
        let Event { source, at, drift, before, took, outcome, subscriptions } = event;
        if let Some(subscriptions) = subscriptions {
            self.evidence.looked(subscriptions);
        }
        let reply = match outcome {
            Ok(reply) => reply,
            Err(fault) => {
                self.evidence.fault(format!("{source}: {fault}"));
                return Ok(());
            }
        };
        *self.reports.entry(source).or_default() += 1;
        self.evidence.replied(&Replied { source, drift, before, reply: &reply, took });
        if let Some(row) = self.board.rows.iter_mut().find(|row| row.id == source) {
            row.band = reply.band;
            row.drift = Some(drift);
            row.why =
                reply.reasons.iter().map(|reason| reason.word()).collect::<Vec<_>>().join(" ");
            match reply.barrier {
                Some(Barrier::Confirmed) => row.barrier = format!("{} ms", ms(took)),
                Some(Barrier::Unconfirmed) => "cut off".clone_into(&mut row.barrier),
                None => {}
            }
        }
        if source == CAST[0].0 {
            self.board.plot(at, drift, reply.band);
        }
        if reply.band == before {
            return Ok(());
        }
        let reasons: Vec<&str> = reply.reasons.iter().map(|reason| reason.word()).collect();
        let silence = if reply.barrier.is_some() {
            format!("  silent in {} ms", ms(took))
        } else {
            String::new()
        };
        let change = format!("{before} -> {}", reply.band);
        let line = format!(
            "{:>5.1} s  {source:<7}  {change:<19}  {drift:.3}  {}{silence}",
            at.as_secs_f64(),
            reasons.join(" "),
        );
        self.screen.tell(&mut self.board, line.trim_end())
    }

    /// Takes the newest counts and draws.
    async fn refresh(&mut self, stage: &Stage) -> io::Result<()> {
        for (id, books) in stage.books().await {
            let Some(books) = books else {
                self.evidence.fault(format!("{id} does not say its counts"));
                continue;
            };
            self.evidence.balanced(books.is_balanced());
            let sum = summary::total(books.ledgers.iter().map(|(_, ledger)| ledger));
            if let Some(row) = self.board.rows.iter_mut().find(|row| row.id == id) {
                row.sent = sum.stored;
                row.throttled = sum.throttled;
                row.held = sum.held;
                row.received = books.counters.accepted;
            }
        }
        let seen = stage.observer.seen();
        self.board.elapsed = self.started.elapsed().min(self.board.length);
        self.board.seen = (seen.count(), seen.notices);
        self.board.promises = self.evidence.judge(&seen, None);
        self.screen.draw(&self.board)
    }

    /// Waits until nothing is on its way, and draws up the accounts.
    async fn settle(&mut self, stage: &Stage) -> Vec<Account> {
        let deadline = Instant::now() + SETTLE_TIMEOUT;
        loop {
            let waiting = summary::waiting(stage.server.monitor()).await.unwrap_or_default();
            let mut books = Vec::new();
            for (id, own) in stage.books().await {
                let reports = self.reports.get(id).copied().unwrap_or(0);
                match own {
                    Some(own) => books.push((id.to_owned(), reports, own)),
                    None => self.evidence.fault(format!("{id} does not say its counts")),
                }
            }
            if let Err(fault) = stage.observer.catch_up().await {
                self.evidence.fault(fault.to_string());
            }
            let accounts = summary::accounts(&books, &stage.observer.seen(), &waiting);
            if accounts.iter().all(Account::is_settled) || Instant::now() >= deadline {
                return accounts;
            }
            sleep(SETTLE_POLL).await;
        }
    }

    fn write_summary(
        &self,
        accounts: &[Account],
        promises: &[Promise],
        verdict: &Result<String, String>,
    ) -> io::Result<()> {
        let mut output = stdout().lock();
        writeln!(output, "\n{}", summary::table(accounts))?;
        for promise in promises {
            writeln!(output, "{}", summary::promise_line(promise))?;
        }
        let words = verdict.as_ref().unwrap_or_else(|words| words);
        writeln!(output, "\nAfter {:.1} s: {words}.", self.board.elapsed.as_secs_f64())?;
        output.flush()
    }

    fn write_json(
        &self,
        stage: &Stage,
        accounts: &[Account],
        promises: &[Promise],
        verdict: &Result<String, String>,
        interrupted: bool,
    ) -> io::Result<()> {
        let mut document = summary::to_json(accounts, &stage.observer.seen(), promises);
        if let Some(members) = document.as_object_mut() {
            let server = serde_json::json!({
                "version": stage.server.version(),
                "url": stage.server.url(),
                "process": stage.server.id(),
            });
            members.insert("nats_server".to_owned(), server);
            members.insert("seconds".to_owned(), self.board.elapsed.as_secs_f64().into());
            members.insert("interrupted".to_owned(), interrupted.into());
            members.insert("held".to_owned(), verdict.is_ok().into());
            members.insert(
                "verdict".to_owned(),
                verdict.as_ref().unwrap_or_else(|words| words).as_str().into(),
            );
        }
        let mut output = stdout().lock();
        writeln!(output, "{document:#}")?;
        output.flush()
    }
}

fn ms(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64() * 1000.0)
}
