//! The signals that end a command in order, and those of an operator.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::driver::{Handle, Order};
use crate::protocol::audit::{Act, Way};

/// SIGINT, SIGTERM and SIGHUP, listened to from its making on: made before anything is started that
/// a sudden end would leave behind.
#[derive(Debug)]
pub(super) struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    /// A terminal that was closed.
    hangup: Signal,
}

impl StopSignals {
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for one of them. Safe to drop.
    pub(super) async fn recv(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

/// SIGUSR1 isolates, SIGUSR2 releases: for an operator whose HTTP is down. Made first of all,
/// because until somebody listens these two would end the process.
#[derive(Debug)]
pub(super) struct OperatorSignals {
    isolate: Signal,
    release: Signal,
}

impl OperatorSignals {
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self {
            isolate: signal(SignalKind::user_defined1())?,
            release: signal(SignalKind::user_defined2())?,
        })
    }

    /// Passes them on to a sidecar's driver. Never ends.
    pub(super) async fn obey(mut self, handle: Handle) {
        loop {
            let act = tokio::select! {
                biased;
                _ = self.isolate.recv() => Act::Isolate,
                _ = self.release.recv() => Act::Release,
            };
            if let Err(fault) = handle.operate(Order::new(act, Way::Signal)).await {
                tracing::error!(%fault, act = act.word(), "an operator's signal was not obeyed");
            }
        }
    }
}
