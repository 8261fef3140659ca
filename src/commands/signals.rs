//! The signals that end a command in order, and those of an operator.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::sysexits::Fault;
use crate::driver::{Handle, OperatorOrder};
use crate::protocol::audit::{Act, Way};

fn listen(kind: SignalKind) -> Result<Signal, Fault> {
    signal(kind)
        .map_err(|error| Fault::unavailable(format!("signals cannot be listened to: {error}")))
}

/// SIGINT, SIGTERM and SIGHUP, listened to from its making on: made before anything is started that
/// a sudden end would leave behind.
#[derive(Debug)]
pub(super) struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    /// A terminal that was closed.
    hangup: Signal,
}

/// What was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// SIGINT or SIGTERM.
    Asked,
    /// SIGHUP: `run` reads its configuration again, everything else ends.
    Hangup,
}

impl StopSignals {
    pub(super) fn listen() -> Result<Self, Fault> {
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// Waits for one of them; says whether it was SIGHUP. Safe to drop.
    pub(super) async fn recv(&mut self) -> Stop {
        tokio::select! {
            _ = self.interrupt.recv() => Stop::Asked,
            _ = self.terminate.recv() => Stop::Asked,
            _ = self.hangup.recv() => Stop::Hangup,
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
    pub(super) fn listen() -> Result<Self, Fault> {
        Ok(Self {
            isolate: listen(SignalKind::user_defined1())?,
            release: listen(SignalKind::user_defined2())?,
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
            if let Err(fault) = handle.operate(OperatorOrder::new(act, Way::Signal)).await {
                tracing::error!(%fault, act = act.word(), "an operator's signal was not obeyed");
            }
        }
    }
}
