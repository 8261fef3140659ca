//! One life of the sidecar after another, and the settings that change in it.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use driftgate::protocol::bridge::{Bridge, LINGER_MAX, Memory};
use driftgate::protocol::gate::{Band, Mode};
use driftgate::protocol::time::Now;

use super::super::start::Start;
use super::{Item, Uploads, World};

impl World {
    /// A new life, with what an earlier one has left.
    pub(super) fn life(
        start: &Rc<Start>,
        memory: Memory,
        now: Now,
        lingers_until: Duration,
    ) -> Self {
        let held = memory.operator_hold;
        let live = start.live(true, false);
        Self {
            start: Rc::clone(start),
            bridge: Bridge::new(start.setup.identity.clone(), live, memory, now),
            now,
            tickets: 0,
            band: if held { Band::Isolated } else { Band::Blocked },
            held,
            last_valid: now.mono,
            is_closing: false,
            confirmed: false,
            exportable: Vec::new(),
            is_connected: false,
            has_acks: false,
            pulls: false,
            newest_number: 0,
            wire: VecDeque::new(),
            lingers_until,
            owed: BTreeMap::new(),
            is_listed: true,
            is_tight: false,
            is_fenced: false,
            newest: None,
            jumps: false,
            uploads: Uploads::default(),
            effects: VecDeque::new(),
            broken: None,
        }
    }

    pub(super) fn is_shadow(&self) -> bool {
        self.start.setup.identity.mode == Mode::Shadow
    }

    /// `kill -9`: what the driver keeps is on the disk before it matters.
    pub(super) fn restart(&mut self) {
        let memory = self.bridge.memory(self.now);
        let is_unread = self.wire.iter().any(|(_, item)| *item != Item::Echo);
        if is_unread || self.uploads.is_running || self.uploads.is_stopping {
            self.lingers_until = self.now.mono + LINGER_MAX;
        }
        let broken = self.broken.take();
        *self = Self::life(&self.start, memory, self.now, self.lingers_until);
        self.broken = broken;
    }

    /// The band that a report asks for under the present marks.
    pub(super) fn called(&self, kind: usize) -> Band {
        let bands = if self.is_tight {
            [Band::Blocked, Band::Isolated, Band::Isolated, Band::Isolated]
        } else {
            [Band::Open, Band::Caution, Band::Blocked, Band::Isolated]
        };
        bands[kind]
    }

    /// The newest report is judged again, which opens nothing.
    pub(super) fn reload(&mut self) {
        let called = self.newest.map_or(Band::Open, |kind| self.called(kind));
        if called > self.band {
            self.enter(called);
            self.uploads.is_doomed |= called >= Band::Blocked;
        }
        let live = self.start.live(self.is_listed, self.is_tight);
        self.perform(|bridge, now| bridge.reload(now, live));
    }
}
