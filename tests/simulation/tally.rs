//! What was seen, in numbers.

use crate::checkers::Hearing;

/// What a run has seen: a simulation in which nothing happens proves nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) steps: u64,
    pub(crate) reports: u64,
    pub(crate) packets: u64,
    pub(crate) processed: u64,
    pub(crate) closings: u64,
    pub(crate) confirmed: u64,
    pub(crate) unconfirmed: u64,
    pub(crate) severed: u64,
    pub(crate) not_sent: u64,
    pub(crate) crashes: u64,
    pub(crate) hostile: u64,
    pub(crate) accepted: u64,
    pub(crate) redelivered: u64,
    pub(crate) refused: u64,
    pub(crate) unheard: u64,
    pub(crate) snapshots: u64,
    pub(crate) puts: u64,
    pub(crate) stopped: u64,
    pub(crate) retries: u64,
    pub(crate) requests: u64,
    pub(crate) delivered: u64,
    pub(crate) damaged: u64,
    pub(crate) refused_reloads: u64,
    pub(crate) shown: u64,
    pub(crate) twins: u64,
    pub(crate) hung_up: u64,
    pub(crate) narrowed: u64,
    pub(crate) unfit: u64,
}

impl Tally {
    pub(crate) fn heard(&mut self, hearing: Hearing) {
        match hearing {
            Hearing::Unheard => self.unheard += 1,
            Hearing::Accept => self.accepted += 1,
            Hearing::Redelivered => self.redelivered += 1,
            Hearing::Refuse => self.refused += 1,
        }
    }

    pub(crate) fn columns(&self) -> [(&'static str, u64); 28] {
        [
            ("steps", self.steps),
            ("reports", self.reports),
            ("packets", self.packets),
            ("processed", self.processed),
            ("closings", self.closings),
            ("confirmed", self.confirmed),
            ("unconfirmed", self.unconfirmed),
            ("severed", self.severed),
            ("not_sent", self.not_sent),
            ("crashes", self.crashes),
            ("hostile", self.hostile),
            ("accepted", self.accepted),
            ("redelivered", self.redelivered),
            ("refused", self.refused),
            ("unheard", self.unheard),
            ("snapshots", self.snapshots),
            ("puts", self.puts),
            ("stopped", self.stopped),
            ("retries", self.retries),
            ("requests", self.requests),
            ("delivered", self.delivered),
            ("damaged", self.damaged),
            ("refused_reloads", self.refused_reloads),
            ("shown", self.shown),
            ("twins", self.twins),
            ("hung_up", self.hung_up),
            ("narrowed", self.narrowed),
            ("unfit", self.unfit),
        ]
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.reports += other.reports;
        self.packets += other.packets;
        self.processed += other.processed;
        self.closings += other.closings;
        self.confirmed += other.confirmed;
        self.unconfirmed += other.unconfirmed;
        self.severed += other.severed;
        self.not_sent += other.not_sent;
        self.crashes += other.crashes;
        self.hostile += other.hostile;
        self.accepted += other.accepted;
        self.redelivered += other.redelivered;
        self.refused += other.refused;
        self.unheard += other.unheard;
        self.snapshots += other.snapshots;
        self.puts += other.puts;
        self.stopped += other.stopped;
        self.retries += other.retries;
        self.requests += other.requests;
        self.delivered += other.delivered;
        self.damaged += other.damaged;
        self.refused_reloads += other.refused_reloads;
        self.shown += other.shown;
        self.twins += other.twins;
        self.hung_up += other.hung_up;
        self.narrowed += other.narrowed;
        self.unfit += other.unfit;
    }
}
