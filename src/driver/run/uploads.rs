//! The driver and the snapshots: their questions answered, their orders given.

use super::{BATCH_MAX, Driver};
use crate::nats::headers;
use crate::nats::link::Outgoing;
use crate::protocol::audit::Event;
use crate::protocol::bridge::Announcement;
use crate::protocol::exchange::Artifact;
use crate::protocol::snapshot::Evidence;
use crate::snapshots::gate::{Announced, Grant, Judged, Question};

impl Driver {
    /// Answers what is asked already, a bounded part of it.
    pub(super) fn take_questions(&mut self) {
        for _ in 0..BATCH_MAX {
            let Some(question) = self.uploads.try_question() else { break };
            self.upload(question);
        }
    }

    /// Answers one question of the room.
    pub(super) fn upload(&mut self, question: Question) {
        let now = self.clock.now();
        self.keeper.reserve(self.bridge.seq_next(now));
        let revocations = self.uploads.revocations();
        let grant = |_| Grant { now: now.wall, revocations };
        match question {
            // Whoever asked may have given up.
            Question::Accept(answer) => {
                let _ = answer.send(self.bridge.grant_push(now).map(grant));
            }
            Question::Upload(answer) => {
                let granted = self.bridge.grant_upload(now).map(grant);
                if granted.is_some() {
                    self.keeper.doubt();
                }
                let evidence = self.bridge.evidence();
                let _ = answer.send(granted.map(|granted| (granted, evidence)));
            }
            Question::Fetch { source, answer } => {
                let mode = self.bridge.exchange_mode(now, &source);
                let granted = self.bridge.grant_fetch(now).map(grant);
                let _ = answer.send(granted.map(|granted| (granted, mode)));
            }
            Question::Recovered { is_waiting } => {
                self.effects.extend(self.bridge.recovered(now, 0, is_waiting));
            }
            Question::Quiet { number, confirmed } => {
                // An older order's answer says nothing about what was granted since, but the doubt
                // of the connection that it ended stays.
                if self.uploads.is_newest(number) {
                    self.effects.extend(self.bridge.uploads_quiet(now, confirmed));
                } else if !confirmed {
                    self.effects.extend(self.bridge.uploads_unread(now));
                }
            }
            Question::Stored { digest, announced } => {
                let announcement = announced.map(|announced| {
                    let Announced { manifest, envelope, seq, evidence } = announced;
                    let Evidence { drift_source, trace } = evidence;
                    let event = Event::SnapshotStored { seq, digest, drift_source, trace };
                    self.recorder.record(now, event);
                    Announcement { manifest, envelope }
                });
                self.effects.extend(self.bridge.stored(now, digest, announcement));
            }
            Question::Judged(Judged { source, seq, verdict }) => {
                let artifact = Artifact::Snapshot;
                let event = match verdict {
                    Ok((admission, trace)) => {
                        Event::InboundAccepted { artifact, source, seq, admission, trace }
                    }
                    Err(fault) => Event::InboundRefused { artifact, fault, source: Some(source) },
                };
                self.recorder.record(now, event);
            }
        }
    }

    /// Carries out [`Effect::Announce`](crate::protocol::bridge::Effect::Announce), on
    /// `{p}.snapshot.{source}`.
    pub(super) fn announce(&mut self, announcement: Announcement) {
        let Some((link, settings)) = self.connector.link_and_settings() else { return };
        self.keeper.doubt();
        let subject = settings.broker.prefix.snapshot(&settings.runtime_id);
        let headers = headers::enclosed(Some(&announcement.envelope));
        let payload = announcement.manifest;
        if link.notify(Outgoing { subject, headers, payload }).is_err() {
            tracing::warn!("a snapshot manifest found the connection full");
        }
    }

    /// Carries out [`Effect::StopUploads`](crate::protocol::bridge::Effect::StopUploads).
    pub(super) fn stop_uploads(&mut self, revoke: bool) {
        if !self.uploads.stop(revoke) {
            // A room that has ended has dropped its connection unconfirmed.
            self.effects.extend(self.bridge.uploads_quiet(self.clock.now(), false));
        }
    }

    /// Carries out [`Effect::SeverUploads`](crate::protocol::bridge::Effect::SeverUploads).
    pub(super) fn sever_uploads(&self) {
        tracing::warn!("the snapshot upload did not become quiet in time; dropping its connection");
        self.uploads.sever();
    }

    /// Tells the room where the gate stands.
    pub(super) fn show_uploads(&self) {
        let is_isolated = self.bridge.band() == crate::protocol::gate::Band::Isolated;
        let is_shared = self.bridge.may_share(self.clock.now());
        self.uploads.show(self.bridge.may_upload(), is_shared, is_isolated);
    }
}
