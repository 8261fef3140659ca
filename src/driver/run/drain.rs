//! How the driver ends: in order, and in time.

use super::super::DRAIN_TIMEOUT;
use super::{Command, Driver, mpsc};

impl Driver {
    /// Stops in order: no new reports, what may still go goes or is revoked, the broker confirms,
    /// the connection ends, the memory is kept.
    pub(super) async fn drain(mut self, mut commands: mpsc::Receiver<Command>) {
        self.readiness.send_modify(|readiness| readiness.ready = false);
        commands.close();
        let deadline = self.clock.now().mono + DRAIN_TIMEOUT;
        let until = self.clock.instant(deadline);
        while let Ok(command) = commands.try_recv() {
            self.command(command);
        }
        self.perform().await;
        while !self.bridge.is_idle() {
            let wake = self.clock.instant(self.bridge.deadline(self.clock.now())).min(until);
            tokio::select! {
                change = self.connector.changed(false) => self.change(change).await,
                () = tokio::time::sleep_until(wake) => {}
            }
            let now = self.clock.now();
            self.bridge.tick(now);
            self.perform().await;
            if now.mono >= deadline {
                break;
            }
        }
        self.connector.sever().await;
        self.bridge.disconnected(self.clock.now());
        self.perform().await;
        self.keeper.keep(self.bridge.memory()).await;
    }
}
