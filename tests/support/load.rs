//! Reporters that hammer one sidecar, each on a connection that is kept alive, with drift that
//! crosses the marks at random.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::http::Caller;
use super::report::{Dice, report};
use super::sentry::{Replies, Sentry};
use super::wait::LONG;

/// A running load.
pub(crate) struct Load {
    reporters: JoinSet<(Replies, Duration)>,
    stop: watch::Sender<bool>,
}

impl Load {
    /// Starts so many reporters. The address may change while they run. A confirmed closing is
    /// told to the sentry before its reporter goes on.
    pub(crate) fn start(
        count: u64,
        seed: u64,
        api: &watch::Receiver<SocketAddr>,
        sentry: &Sentry,
    ) -> Self {
        let (stop, stopping) = watch::channel(false);
        let mut reporters = JoinSet::new();
        for index in 0..count {
            let dice = Dice::new(seed * 1000 + index);
            reporters.spawn(run(dice, api.clone(), sentry.clone(), stopping.clone()));
        }
        Self { reporters, stop }
    }

    /// Ends it; gives all replies and the longest time that any took.
    pub(crate) async fn stop(mut self) -> (Replies, Duration) {
        self.stop.send_replace(true);
        let mut replies = Replies::default();
        let mut slowest = Duration::ZERO;
        while let Some(outcome) = self.reporters.join_next().await {
            let (more, took) = outcome.expect("a reporter that does not panic");
            replies.join(more);
            slowest = slowest.max(took);
        }
        (replies, slowest)
    }
}

/// Mostly good, often in caution, one in five over a mark.
pub(crate) fn any_index(dice: &mut Dice) -> f64 {
    let (low, high) = match dice.below(20) {
        0..14 => (0.05, 0.44),
        14..16 => (0.45, 0.49),
        16..19 => (0.50, 0.59),
        _ => (0.60, 0.90),
    };
    let share = f64::from(u32::try_from(dice.below(10_000)).expect("below")) / 10_000.0;
    low + (high - low) * share
}

async fn run(
    mut dice: Dice,
    mut api: watch::Receiver<SocketAddr>,
    sentry: Sentry,
    stop: watch::Receiver<bool>,
) -> (Replies, Duration) {
    let mut replies = Replies::default();
    let mut slowest = Duration::ZERO;
    let mut caller = Caller::new(*api.borrow_and_update());
    while !*stop.borrow() {
        let body = report(any_index(&mut dice));
        match caller.post("/field/state", &body).await {
            Ok(answer) if answer.status == 200 => {
                slowest = slowest.max(answer.took);
                let reply = answer.json();
                replies.add(&reply);
                if reply["barrier"] == "confirmed" {
                    sentry.closed(reply["seq"].as_u64().expect("a number")).await;
                }
            }
            Ok(answer) => {
                assert_eq!(answer.status, 503, "{}", answer.text());
                replies.lost += 1;
            }
            Err(_) => {
                replies.lost += 1;
                // The sidecar is gone; it comes back under another address, or the load ends.
                let mut stop = stop.clone();
                let change = async {
                    tokio::select! {
                        _ = api.changed() => {}
                        _ = stop.wait_for(|stop| *stop) => {}
                    }
                };
                drop(tokio::time::timeout(LONG, change).await);
                caller = Caller::new(*api.borrow_and_update());
            }
        }
    }
    (replies, slowest)
}
