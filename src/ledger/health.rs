//! How the ledger is, for whoever is shown it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::peers::{GONE, SERVING, TAKEN};
use super::state::Shared;
use crate::action::ActionKey;

/// How far the rows are those of the journal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Step {
    /// There is no connection.
    #[default]
    Away,
    /// The rows are being made equal.
    CatchingUp,
    /// They are equal, but for the last moment.
    InStep,
}

impl Step {
    /// As `status` has it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Away => "away",
            Self::CatchingUp => "catching up",
            Self::InStep => "in step",
        }
    }
}

/// How the ledger is.
#[derive(Clone, PartialEq, Debug)]
pub struct LedgerHealth {
    /// How far the rows are those of the journal.
    pub step: Step,
    /// The age of the oldest change that the ledger lacks.
    pub lag: Duration,
    /// Changes that wait to be written, or are being written.
    pub unwritten: usize,
    /// Changes that were written since the start.
    pub written: u64,
    /// Renewals of the mover's own row since the start.
    pub renewals: u64,
    /// Connections that were made since the start.
    pub connections: u64,
    /// Why it is away.
    pub error: Option<String>,
    /// What the ledger calls this mover.
    pub mover: String,
    /// The random number of this process.
    pub incarnation: i64,
    /// The other movers, as they were seen last.
    pub peers: Vec<PeerHealth>,
    /// Movers that this one found dead since the start.
    pub found_dead: u64,
    /// Actions that were taken over from dead movers since the start.
    pub taken_over: u64,
    /// Actions that other movers have taken over from this one since the start.
    pub given_up: u64,
    /// Actions that other movers may take now, for this one can't carry them out.
    pub offered: usize,
    /// Actions that were taken since the start from movers that offered them.
    pub offers_taken: u64,
    /// Actions that other movers have taken since the start which this one offered.
    pub offers_given: u64,
    /// Dead movers' nodes that this one has fenced since the start.
    pub fences: u64,
    /// Fence commands that have failed since the start.
    pub fence_failures: u64,
    /// Actions that wait until nobody else can have taken them over.
    pub postponed: usize,
    /// Movers for whose actions of the same files some of this one's wait, and how many do.
    pub waits_for: BTreeMap<String, u64>,
}

/// Another mover, as its row in the ledger tells.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PeerHealth {
    /// What the ledger calls it.
    pub name: String,
    /// As the row has it.
    pub(super) state: i16,
    /// For how long it was not renewed while this mover looked.
    pub still: Duration,
    /// It is dead, and its node was fenced.
    pub is_fenced: bool,
    /// It is dead, and this living mover sees to the fence of its node.
    pub fencer: Option<String>,
    /// Why the last command failed by which this mover was to fence its node.
    pub fence_error: Option<String>,
    /// It is dead, and the servers evict its node about then.
    pub(super) evicted_at: Option<Instant>,
}

impl PeerHealth {
    /// About how long it takes until the servers have evicted a dead mover's node, for which MDTs' coordinators may wait; `None`:
    /// nobody waits for that, as far as is known.
    #[must_use]
    pub fn until_eviction(&self) -> Option<Duration> {
        let left = self.evicted_at?.checked_duration_since(Instant::now());
        left.filter(|left| !left.is_zero())
    }

    /// Whether it is there to take anything over.
    pub(super) const fn may_take_over(&self) -> bool {
        !matches!(self.state, GONE | TAKEN)
    }

    /// As `status` has it.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self.state {
            SERVING => "serving",
            GONE => "gone",
            TAKEN => "dead",
            _ => "draining",
        }
    }
}

impl Shared {
    pub(super) fn set_peers(&self, peers: Vec<PeerHealth>) {
        self.lock().peers = peers;
    }

    pub(super) fn found_dead(&self) {
        self.lock().found_dead += 1;
    }

    pub(super) fn took_over(&self, actions: u64) {
        self.lock().taken_over += actions;
    }

    /// Others have these.
    pub(super) fn gave_up(&self, keys: &[ActionKey]) {
        let mut state = self.lock();
        state.given_up += keys.len() as u64;
        for key in keys {
            state.postponed.remove(key);
        }
    }

    pub(super) fn set_offered(&self, actions: usize) {
        self.lock().offered = actions;
    }

    pub(super) fn took_offered(&self, actions: u64) {
        self.lock().offers_taken += actions;
    }

    /// Others have these, which this mover offered.
    pub(super) fn gave_offered(&self, keys: &[ActionKey]) {
        let mut state = self.lock();
        state.offers_given += keys.len() as u64;
        for key in keys {
            state.postponed.remove(key);
        }
    }

    pub(super) fn fences_ended(&self, done: u64, failed: u64) {
        let mut state = self.lock();
        state.fences += done;
        state.fence_failures += failed;
    }

    pub(super) fn health(&self) -> LedgerHealth {
        let state = self.lock();
        let lag = match state.step {
            Step::InStep => state.since.map_or(Duration::ZERO, |since| since.elapsed()),
            Step::Away | Step::CatchingUp => state.out_since.elapsed(),
        };
        LedgerHealth {
            step: state.step,
            lag,
            unwritten: state.changes.len() + state.writing,
            written: state.written,
            renewals: state.renewals,
            connections: state.connections,
            error: state.error.clone(),
            mover: self.mover.clone(),
            incarnation: self.incarnation,
            peers: state.peers.clone(),
            found_dead: state.found_dead,
            taken_over: state.taken_over,
            given_up: state.given_up,
            offered: state.offered,
            offers_taken: state.offers_taken,
            offers_given: state.offers_given,
            fences: state.fences,
            fence_failures: state.fence_failures,
            postponed: state.postponed.len(),
            waits_for: self.turns.by_mover(),
        }
    }
}
