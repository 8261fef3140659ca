//! What is asked of the driver, and who waits for the answer.

use std::collections::VecDeque;

use tokio::sync::oneshot;

use super::super::{Command, ReadFault, ReportFault, Submission};
use super::Driver;
use crate::protocol::bridge::{Answer, GateState};
use crate::protocol::view::{ReportReply, Ticket};

/// Lines of one stream that are not all judged, and who waits until they are. A stream hands in no
/// more before, so there are at most as many as there are streams.
pub(super) struct Batch {
    lines: VecDeque<Submission>,
    judged: oneshot::Sender<()>,
}

/// Somebody who waits for an [`Answer`].
pub(super) enum Waiter {
    Report(oneshot::Sender<Result<ReportReply, ReportFault>>),
    Unreadable(oneshot::Sender<GateState>),
    /// An operator's order, whose answer waits for the disk as well.
    Order(oneshot::Sender<GateState>),
}

impl Waiter {
    /// Whoever waited may have given up; that is his affair.
    pub(super) fn give(self, answer: Answer) {
        match (self, answer) {
            (Self::Report(to), Answer::Report(reply) | Answer::Retry(reply)) => {
                drop(to.send(Ok(*reply)));
            }
            (Self::Report(to), Answer::Refused { fault: Some(malformed), state }) => {
                drop(to.send(Err(ReportFault::Malformed { malformed, state })));
            }
            (Self::Unreadable(to), Answer::Refused { state, .. })
            | (Self::Order(to), Answer::Order(state)) => drop(to.send(state)),
            // The bridge answers what it was asked.
            (Self::Report(_) | Self::Unreadable(_) | Self::Order(_), _) => {}
        }
    }
}

impl Driver {
    pub(super) fn command(&mut self, command: Command) {
        let now = self.clock.now();
        match command {
            Command::Judge(line) => self.judge(line),
            Command::Stream { lines, judged } => {
                self.streams.push_back(Batch { lines, judged });
                self.read_streams();
            }
            Command::Check { document, answer } => {
                drop(answer.send(self.bridge.check(now, document.as_ref())));
            }
            Command::Trace { which, answer } => self.trace(which, answer),
            Command::FieldState { answer } => {
                drop(answer.send(self.bridge.field_state(now).ok_or(ReadFault::Isolated)));
            }
            Command::PeerState { source, answer } => {
                let peer = self.bridge.peer_view(now, &source);
                let peer = peer.ok_or_else(|| ReadFault::Unknown(source.to_string()));
                drop(answer.send(self.unless_isolated(peer)));
            }
            Command::Attractor { id, answer } => {
                let attractor = self.bridge.attractor(now, &id).ok_or(ReadFault::NoAttractor);
                drop(answer.send(self.unless_isolated(attractor)));
            }
            Command::Handshake { runtime_id, version, answer } => {
                drop(answer.send(self.negotiate(now, &runtime_id, version)));
            }
            Command::Fleet { all, answer } => self.look_at_fleet(all, answer),
            Command::Safety { answer } => drop(answer.send(self.safety(now))),
            Command::Books { answer } => drop(answer.send(self.books())),
            Command::Ping { answer } => drop(answer.send(())),
        }
    }

    fn judge(&mut self, line: Submission) {
        let now = self.clock.now();
        match line {
            Submission::Report { document, trace, answer } => {
                let ticket = self.wait(Waiter::Report(answer));
                self.keeper.reserve(self.bridge.seq_next(now));
                self.effects.extend(self.bridge.report(now, ticket, &document, trace));
                self.watched(ticket);
            }
            Submission::Unreadable { answer } => {
                let ticket = self.wait(Waiter::Unreadable(answer));
                self.effects.extend(self.bridge.unreadable(now, ticket));
                self.watched(ticket);
            }
        }
    }

    /// Judges lines of streams, in their order, for as long as no closing is under way: who streams
    /// does not wait for an answer before the next line, so the line after one that closed must
    /// not be judged before that closing has ended.
    pub(super) fn read_streams(&mut self) {
        while !self.bridge.is_closing() {
            let Some(stream) = self.streams.front_mut() else { return };
            if let Some(line) = stream.lines.pop_front() {
                self.judge(line);
            } else if let Some(Batch { judged, .. }) = self.streams.pop_front() {
                // Who waited may have hung up.
                let _ = judged.send(());
            }
        }
    }

    pub(super) fn wait(&mut self, waiter: Waiter) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.waiting.insert(ticket, waiter);
        ticket
    }
}
