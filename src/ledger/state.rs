//! What the ledger's thread and those who tell it of changes share: what is told (`told`), what is shown of it (`health`), and
//! who may do what others could not put right (`warrant`).

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;

use super::changes::Changes;
use super::health::{PeerHealth, Step};
use super::moment::Moment;
use super::recent::Mark;
use super::rows::Owner;
use super::seen::SeenFleet;
use super::sharers::{Sharers, Teller};
use super::turns::Turns;
use super::{Heir, LedgerOptions};
use crate::action::ActionKey;

#[derive(Debug, Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// There is something to do before the next renewal.
    pub(super) stirred: Notify,
    /// It is to end.
    pub(super) stopped: Notify,
    /// Copies are none of its business.
    pub(super) without_copies: bool,
    /// Where it is, for people.
    pub(super) place: String,
    pub(super) mover: String,
    pub(super) incarnation: i64,
    pub(super) lease: Duration,
    pub(super) turns: Turns,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) step: Step,
    pub(super) changes: Changes,
    /// Changes that are being written.
    pub(super) writing: usize,
    /// Of the oldest change that is not written.
    pub(super) since: Option<Instant>,
    /// Since when it has not been in step.
    pub(super) out_since: Instant,
    /// A reader waits for what one of the changes tells.
    pub(super) urgent: bool,
    /// There were too many changes.
    pub(super) overrun: bool,
    pub(super) marks: Vec<Mark>,
    pub(super) marks_lost: u64,
    pub(super) stopping: bool,
    pub(super) written: u64,
    pub(super) renewals: u64,
    pub(super) connections: u64,
    pub(super) error: Option<String>,
    /// It was found out once which actions others have, or that this can't be found out now.
    pub(super) has_looked: bool,
    /// When the last renewal was asked for that succeeded.
    pub(super) renewed_at: Option<Moment>,
    /// The same, from a claim of the row on until it is known what others have taken.
    pub(super) claimed_at: Option<Moment>,
    /// When all other movers were asked that had no ledger either.
    pub(super) all_away: Option<Moment>,
    /// Actions that wait for a warrant.
    pub(super) postponed: HashSet<ActionKey>,
    /// How often there was none.
    pub(super) refusals: u64,
    pub(super) address: Option<String>,
    pub(super) heir: Option<Arc<dyn Heir>>,
    pub(super) teller: Option<Arc<dyn Teller>>,
    pub(super) peers: Vec<PeerHealth>,
    /// All movers with what they tell; `None`: nobody has looked yet.
    pub(super) fleet: Option<SeenFleet>,
    /// How many movers use limits that are the fleet's.
    pub(super) sharers: Sharers,
    pub(super) found_dead: u64,
    pub(super) taken_over: u64,
    pub(super) given_up: u64,
    pub(super) offered: usize,
    pub(super) offers_taken: u64,
    pub(super) offers_given: u64,
    pub(super) fences: u64,
    pub(super) fence_failures: u64,
}

impl Default for State {
    fn default() -> Self {
        Self {
            step: Step::Away,
            changes: Changes::default(),
            writing: 0,
            since: None,
            out_since: Instant::now(),
            urgent: false,
            overrun: false,
            marks: Vec::new(),
            marks_lost: 0,
            stopping: false,
            written: 0,
            renewals: 0,
            connections: 0,
            error: None,
            has_looked: false,
            renewed_at: None,
            claimed_at: None,
            all_away: None,
            postponed: HashSet::new(),
            refusals: 0,
            address: None,
            heir: None,
            teller: None,
            peers: Vec::new(),
            fleet: None,
            sharers: Sharers::default(),
            found_dead: 0,
            taken_over: 0,
            given_up: 0,
            offered: 0,
            offers_taken: 0,
            offers_given: 0,
            fences: 0,
            fence_failures: 0,
        }
    }
}

impl Shared {
    pub(super) fn new(options: &LedgerOptions, owner: &Owner) -> Self {
        Self {
            without_copies: !options.copies,
            place: options.address.place.clone(),
            lease: options.lease,
            mover: owner.name.clone(),
            incarnation: owner.incarnation,
            ..Self::default()
        }
    }

    pub(super) const fn turns(&self) -> &Turns {
        &self.turns
    }

    pub(super) fn set_address(&self, address: String) {
        self.lock().address = Some(address);
    }

    pub(super) fn address(&self) -> Option<String> {
        self.lock().address.clone()
    }

    pub(super) fn set_heir(&self, heir: Arc<dyn Heir>) {
        self.lock().heir = Some(heir);
    }

    pub(super) fn drop_heir(&self) {
        let mut state = self.lock();
        let both = (state.heir.take(), state.teller.take());
        drop(state);
        drop(both);
    }

    pub(super) fn has_looked(&self) -> bool {
        self.lock().has_looked
    }

    /// `None`: nothing is served yet.
    pub(super) fn heir(&self) -> Option<Arc<dyn Heir>> {
        self.lock().heir.clone()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn stop(&self) {
        self.lock().stopping = true;
        self.stirred.notify_one();
        self.stopped.notify_one();
    }

    /// Comes back when it was told to end so long ago, or at once where there is nothing to be finished. One may wait for
    /// it.
    pub(super) async fn overtime(&self, length: Duration) {
        while !self.is_stopping() {
            self.stopped.notified().await;
        }
        if self.health().step != Step::Away {
            tokio::time::sleep(length).await;
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.lock().stopping
    }

    /// A pause that a stop ends.
    pub(super) async fn pause(&self, length: Duration) {
        let until = Instant::now() + length;
        while !self.is_stopping() {
            let stirred = tokio::time::timeout_at(until.into(), self.stirred.notified());
            if stirred.await.is_err() {
                return;
            }
        }
    }
}

/// Milliseconds of this node's clock.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::ledger) const LEASE: Duration = Duration::from_secs(20);

    pub(in crate::ledger) fn shared_of(with_copies: bool) -> Shared {
        let owner = Owner {
            name: "mover1".into(),
            incarnation: 1,
            known_as: vec![1],
            others: Vec::new(),
        };
        let options = LedgerOptions {
            address: crate::ledger::LedgerAddress::parse("postgresql://lhsm@127.0.0.1/lhsm").unwrap(),
            password_file: None,
            ca_bundle: None,
            name: None,
            lease: LEASE,
            takeover_archives: LEASE,
            copies: with_copies,
        };
        Shared::new(&options, &owner)
    }
}
