//! How the driver ends: in order, and in time.

use std::time::Duration;

use tokio::sync::watch;

use super::super::{DRAIN_TIMEOUT, MEMORY_TIMEOUT};
use super::{Driver, Event, Inputs};
use crate::audit::FINISH_TIMEOUT;

impl Driver {
    /// Stops in order: no new reports, what may still go goes or is revoked, the broker confirms,
    /// the connection ends, the memory is kept.
    pub(super) async fn drain(mut self, inputs: Inputs) {
        let Inputs { mut commands, mut orders, .. } = inputs;
        self.standing.send_modify(|standing| standing.ready = false);
        commands.close();
        orders.close();
        let deadline = self.clock.now().mono + DRAIN_TIMEOUT;
        let until = self.clock.instant(deadline);
        while let Ok((order, answer)) = orders.try_recv() {
            self.operate(order, answer);
        }
        while let Ok(command) = commands.try_recv() {
            self.command(command);
        }
        self.perform().await;
        while !self.bridge.is_idle() {
            let wake = self.clock.instant(self.bridge.deadline(self.clock.now())).min(until);
            tokio::select! {
                change = self.connector.changed() => self.change(change).await,
                () = self.keeper.written() => {}
                () = tokio::time::sleep_until(wake) => {}
            }
            let now = self.clock.now();
            self.effects.extend(self.bridge.tick(now));
            self.perform().await;
            self.remember();
            if now.mono >= deadline {
                break;
            }
        }
        self.say_goodbye(deadline).await;
        self.disconnect().await;
        self.perform().await;
        let in_doubt = self.bridge.in_doubt(self.clock.now());
        self.recorder.record(self.clock.now(), Event::Stopped);
        let (_, ()) = tokio::join!(
            tokio::time::timeout(MEMORY_TIMEOUT, self.keeper.keep(in_doubt)),
            self.recorder.finish(FINISH_TIMEOUT)
        );
    }

    /// Says in our presence that we stop, and waits until the broker has it.
    async fn say_goodbye(&mut self, deadline: Duration) {
        let now = self.clock.now();
        self.effects.extend(self.bridge.stop(now));
        self.perform().await;
        while !self.bridge.is_shown() && self.connector.link().is_some() {
            tokio::select! {
                change = self.connector.changed() => self.change(change).await,
                () = tokio::time::sleep_until(self.clock.instant(deadline)) => return,
            }
            self.perform().await;
        }
    }
}

/// Done when told to stop, or when nobody is left who could tell.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    while !*stop.borrow_and_update() {
        if stop.changed().await.is_err() {
            return;
        }
    }
}
