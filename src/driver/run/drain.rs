//! What the driver keeps for its next life, and how this one ends.

use super::super::{DRAIN_TIMEOUT, memory};
use super::{Command, Driver, Duration, mpsc};

impl Driver {
    /// Writes the memory when something in it matters and no write is under way.
    pub(super) async fn remember(&mut self) {
        let Some(path) = &self.memory_file else { return };
        if let Some(write) = &self.writing {
            if !write.is_finished() {
                return;
            }
            memory::end_of_write(&mut self.writing).await;
        }
        let (stamp, last) = (self.bridge.stamp(), self.remembered);
        // Half of the reservation is left: time to reserve again.
        let is_reserved = stamp.seq < last.seq.saturating_add(memory::RESERVE_US / 2);
        if is_reserved && stamp.accepted == last.accepted && stamp.hold == last.hold {
            self.remember_at = Duration::MAX;
            return;
        }
        let now = self.clock.now().mono;
        if now < self.remembered_at + memory::WRITE_INTERVAL {
            self.remember_at = self.remembered_at + memory::WRITE_INTERVAL;
            return;
        }
        self.remember_at = Duration::MAX;
        self.remembered_at = now;
        self.remembered = stamp;
        let memory = self.bridge.memory();
        let path = path.clone();
        self.writing = Some(tokio::task::spawn_blocking(move || memory::store(&path, &memory)));
    }

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
        if let Some(path) = self.memory_file.take() {
            // One write at a time: an older one must not end up in the place of this one.
            if self.writing.is_some() {
                memory::end_of_write(&mut self.writing).await;
            }
            let memory = self.bridge.memory();
            self.writing = Some(tokio::task::spawn_blocking(move || memory::store(&path, &memory)));
            memory::end_of_write(&mut self.writing).await;
        }
    }
}
