//! One scripted runtime: reports at its pace, waits for each reply, and has the observer and the
//! server asked at the moments that the promises are about.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::observer::{Mark, Observer, ObserverFault};
use super::script::{Report, Temper};
use crate::driver::Handle;
use crate::nats::child::Monitor;
use crate::protocol::canonical::Json;
use crate::protocol::gate::{Band, REOPEN_MAX};
use crate::protocol::view::ReportReply;

/// One report, and what came of it.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) source: &'static str,
    /// Since the start of the run.
    pub(super) at: Duration,
    /// The report's gate value.
    pub(super) drift: f64,
    /// Band before it.
    pub(super) before: Band,
    /// From report to reply.
    pub(super) took: Duration,
    pub(super) outcome: Result<ReportReply, String>,
    /// While isolated: subscriptions that the server shows, `None` when it gave no answer.
    pub(super) subscriptions: Option<Option<u64>>,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Runtime {
    pub(super) id: &'static str,
    pub(super) temper: Temper,
    pub(super) handle: Handle,
    pub(super) observer: Arc<Observer>,
    pub(super) monitor: Monitor,
    pub(super) started: Instant,
    pub(super) length: Duration,
}

impl Runtime {
    /// Reports until the run is over or `stop` turns true or nobody takes the events.
    pub(super) async fn play(self, events: mpsc::Sender<Event>, stop: watch::Receiver<bool>) {
        let mut ticks = interval(self.temper.interval(self.length));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut band = Band::Blocked;
        let mut stop_told = stop.clone();
        for cycle in 1.. {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = stop_told.wait_for(|is_told| *is_told) => return,
            }
            let at = self.started.elapsed();
            if at >= self.length {
                return;
            }
            let event = self.report(cycle, at, band).await;
            if let Ok(reply) = &event.outcome {
                band = reply.band;
            }
            if events.send(event).await.is_err() {
                return;
            }
        }
    }

    async fn report(&self, cycle: u64, at: Duration, before: Band) -> Event {
        let fraction = at.as_secs_f64() / self.length.as_secs_f64();
        let report = Report::new(self.id, cycle, self.temper.drift(fraction));
        let mut event = Event {
            source: self.id,
            at,
            drift: report.drift,
            before,
            took: Duration::ZERO,
            outcome: Err("the built-in report cannot be read".to_owned()),
            subscriptions: None,
        };
        let Ok(document) = Json::parse(report.text.as_bytes()) else { return event };
        // Until this mark has come by, the observer takes any packet of a closed sidecar for a
        // broken promise.
        if before.is_closed()
            && report.drift < REOPEN_MAX
            && let Err(fault) = self.mark(Mark::Opening).await
        {
            event.outcome = Err(fault.to_string());
            return event;
        }
        let asked = Instant::now();
        let outcome = self.handle.report(document, None).await;
        event.took = asked.elapsed();
        event.outcome = match outcome {
            Err(fault) => Err(fault.to_string()),
            Ok(reply) => {
                // The reply has left: silence from here on.
                let closes =
                    reply.band.is_closed() && (reply.barrier.is_some() || !before.is_closed());
                let marked = if closes { self.mark(Mark::Closed(reply.seq)).await } else { Ok(()) };
                marked.map(|()| reply).map_err(|fault| fault.to_string())
            }
        };
        if event.outcome.as_ref().is_ok_and(|reply| reply.band == Band::Isolated) {
            event.subscriptions = Some(self.subscriptions().await);
        }
        event
    }

    async fn mark(&self, mark: Mark) -> Result<(), ObserverFault> {
        self.observer.mark(self.id, mark).await
    }

    /// How many subscriptions the server itself shows on the connections of this sidecar.
    async fn subscriptions(&self) -> Option<u64> {
        let answer = self.monitor.get("/connz?subs=detail").await.ok()?;
        let name = format!("driftgate-{}", self.id);
        let connections = answer.get("connections")?.as_array()?.iter();
        let own = connections
            .filter(|one| one.get("name").and_then(Value::as_str) == Some(name.as_str()));
        let count = |one: &Value| {
            let listed = one.get("subscriptions_list_detail").and_then(Value::as_array);
            let listed = listed.map_or(0, |list| u64::try_from(list.len()).unwrap_or(u64::MAX));
            listed.max(one.get("subscriptions").and_then(Value::as_u64).unwrap_or(0))
        };
        Some(own.map(count).sum())
    }
}
