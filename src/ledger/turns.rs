//! Two movers that have actions of one file: the newer waits, until the other's is over.
//!
//! The coordinator compares no requests, so it gives an archive of a file to one mover, and its remove, or another archive of
//! it, to a second one at the same time. What each of them deletes and replaces rests on what objects say of themselves; that
//! they take turns saves what one of them would do in vain, and the failure of both.
//!
//! An action's row says whether it waits (`behind`). One that does not may be under way. Who has written a row looks, when it
//! is committed, at the other movers' rows of the file. If there are any it waits, and says so. Who waits and sees nobody who
//! does not, nor anybody older who does, takes its word back, and when that is committed looks once more: of two that do so at
//! the same time at least one sees the other, and waits again. So never are two under way that looked before they began. The
//! order is that of the rows' serials, which the ledger gives; no clock has a say.
//!
//! An action that this mover loses to another one was ahead of what waits behind it here, which has looked and seen nobody. So
//! that is looked at once more, and waits until it was.
//!
//! Restores wait for restores alone, as in a mover's own queue.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::action::{ActionKey, Item, Kind, Verb};
use crate::types::{Cookie, Fid};

/// For the answer whether an archive has to wait. What it does without one rests on what objects say of themselves.
const ARCHIVES_ASK: Duration = Duration::from_millis(250);
/// The same of a remove: until the ledger is given up that does not answer.
const REMOVES_ASK: Duration = Duration::from_secs(15);
/// With more than so many that ask they are written together, as all changes are; so are those that ask so soon after others.
const FEW: usize = 4;
const SOON: Duration = Duration::from_millis(10);
/// For what an archive does behind its answer: its cleaning up may be put off for long. And for a mover that is started again.
const SETTLES: Duration = Duration::from_secs(30);
/// The longest that anything waits for a mover that lives: the same as without a ledger comes behind it.
const LONGEST: Duration = Duration::from_secs(6 * 3600);

/// Which actions have to wait for other movers'. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Turns(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Somebody looks, and there are other movers.
    is_open: bool,
    /// Those that nobody has looked at yet.
    fresh: BTreeMap<ActionKey, Fresh>,
    number: u64,
    /// When one was looked at last.
    looked: Option<Instant>,
    waiting: BTreeMap<(Fid, Cookie), Waiting>,
    /// Ended while they waited, or before anybody had looked.
    over: Vec<ActionKey>,
}

/// An action that was taken in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Fresh {
    pub(super) is_restore: bool,
    /// One that comes again is looked at again.
    number: u64,
}

/// An action that waits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Waiting {
    pub(super) is_restore: bool,
    pub(super) stage: Stage,
    /// Of its row.
    pub(super) serial: i64,
    since: Instant,
    /// Whose action it waits for.
    mover: String,
    /// Since when it waits for one that is dead.
    dead_since: Option<Instant>,
    /// Since when it waits for one that settles.
    settles_since: Option<Instant>,
}

/// How far an action is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// Its row has just been written, and does not say that it waits.
    Fresh,
    /// Its row says that it waits.
    Behind,
    /// Its row does not say so any more, and it waits still.
    Claims,
}

/// Another mover's action of the same file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Other {
    pub(super) mover: String,
    pub(super) serial: i64,
    pub(super) behind: bool,
    /// It was answered, and something is left of what it wrote; or it is not known whose it is. It is soon over, or not at all.
    pub(super) settles: bool,
    pub(super) is_dead: bool,
}

/// What is to be done about an action.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Turn<'a> {
    /// It is its turn.
    Goes,
    /// It seems to be: its row is to say so, and then it is looked at once more.
    Claims,
    Waits(&'a Other),
}

/// `serial`: the lowest of this mover's that wait for the same, which its own queue puts in order; lower than all where one
/// behind it in that queue does not wait, for then the others may wait for that one.
pub(super) fn turn(stage: Stage, serial: i64, others: &[Other]) -> Turn<'_> {
    // What a dead one has not begun is looked at anew by whoever takes it over; nobody takes over what it has answered.
    let others = others
        .iter()
        .filter(|other| !other.is_dead || !(other.behind || other.settles));
    let first = others.min_by_key(|other| (other.behind, other.settles, other.serial));
    match (stage, first) {
        (Stage::Fresh | Stage::Claims, None) => Turn::Goes,
        (Stage::Claims, Some(other)) if other.behind => Turn::Goes,
        (Stage::Behind, None) => Turn::Claims,
        (Stage::Behind, Some(other)) if other.behind && serial < other.serial => Turn::Claims,
        (_, Some(other)) => Turn::Waits(other),
    }
}

impl Turns {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until when an action that was just taken in is to wait for the answer whether it has to wait; `None`: it has one, or
    /// begins without.
    #[must_use]
    pub fn asks_until(&self, item: &Item) -> Option<Instant> {
        let patience = match item.kind {
            Kind::Do(Verb::Archive) => ARCHIVES_ASK,
            Kind::Do(Verb::Remove) => REMOVES_ASK,
            // A reader waits.
            Kind::Do(Verb::Restore) | Kind::Cancel | Kind::Unknown(_) => return None,
        };
        let asks = self.lock().fresh.contains_key(&item.key());
        asks.then(|| Instant::now() + patience)
    }

    /// Whether the next one that asks is not to wait for others.
    pub(super) fn is_urgent(&self) -> bool {
        let state = self.lock();
        let is_soon = state.looked.is_some_and(|looked| looked.elapsed() < SOON);
        state.is_open && state.fresh.len() < FEW && !is_soon
    }

    /// An action is in hand, and its row is written, or on its way.
    pub(super) fn add(&self, item: &Item) {
        self.ask(item.key(), item.kind == Kind::Do(Verb::Restore));
    }

    /// It is looked at, also if it was before. `false`: nobody looks.
    pub(super) fn ask(&self, key: ActionKey, is_restore: bool) -> bool {
        let mut state = self.lock();
        if state.is_open {
            state.number += 1;
            let number = state.number;
            state.fresh.insert(key, Fresh { is_restore, number });
        }
        state.is_open
    }

    /// It was answered.
    pub(super) fn ended(&self, key: ActionKey) {
        let mut state = self.lock();
        let asked = state.fresh.remove(&key).is_some();
        if state.waiting.remove(&(key.fid, key.cookie)).is_some() || asked {
            state.over.push(key);
        }
    }

    /// From now on somebody looks.
    pub(super) fn open(&self) {
        self.lock().is_open = true;
    }

    /// Nobody looks: all that waits or asks, and is to go.
    pub(super) fn close(&self) -> Vec<ActionKey> {
        let mut state = self.lock();
        state.is_open = false;
        let fresh = std::mem::take(&mut state.fresh).into_keys();
        let mut keys: Vec<_> = fresh.chain(std::mem::take(&mut state.over)).collect();
        let waiting = std::mem::take(&mut state.waiting).into_keys();
        keys.extend(waiting.map(|(fid, cookie)| ActionKey { cookie, fid }));
        keys
    }

    /// Those that nobody has looked at, no more than `most`.
    pub(super) fn fresh(&self, most: usize) -> Vec<(ActionKey, Fresh)> {
        let state = self.lock();
        let fresh = state.fresh.iter().take(most);
        fresh.map(|(key, fresh)| (*key, *fresh)).collect()
    }

    /// That one was looked at. `false`: it ended meanwhile, or came again.
    pub(super) fn looked_at(&self, key: ActionKey, fresh: Fresh) -> bool {
        let mut state = self.lock();
        let is_it = state.fresh.get(&key) == Some(&fresh);
        if is_it {
            state.fresh.remove(&key);
            state.looked = Some(Instant::now());
        }
        is_it
    }

    /// That one waits from now on.
    pub(super) fn waits(&self, key: ActionKey, is_restore: bool) {
        let waiting = Waiting {
            is_restore,
            stage: Stage::Behind,
            serial: i64::MAX,
            since: Instant::now(),
            mover: String::new(),
            dead_since: None,
            settles_since: None,
        };
        self.lock().waiting.insert((key.fid, key.cookie), waiting);
    }

    /// Those that wait, behind that one in the order of FIDs, no more than `most`.
    pub(super) fn waiting(&self, behind: Option<ActionKey>, most: usize) -> Vec<(ActionKey, Waiting)> {
        use std::ops::Bound::{Excluded, Unbounded};

        let state = self.lock();
        let from = behind.map_or(Unbounded, |key| Excluded((key.fid, key.cookie)));
        let waiting = state.waiting.range((from, Unbounded)).take(most);
        waiting
            .map(|((fid, cookie), waiting)| {
                let key = ActionKey {
                    cookie: *cookie,
                    fid: *fid,
                };
                (key, waiting.clone())
            })
            .collect()
    }

    /// The lowest serial of those of a file that wait for the same.
    pub(super) fn first_serial(&self, fid: Fid, is_restore: bool) -> i64 {
        let state = self.lock();
        let of_file = state.waiting.range((fid, Cookie(0))..=(fid, Cookie(u64::MAX)));
        let same = of_file.filter(|(_, waiting)| waiting.is_restore == is_restore);
        same.map(|(_, waiting)| waiting.serial).min().unwrap_or(i64::MAX)
    }

    /// Its row says so.
    pub(super) fn stands(&self, key: ActionKey, stage: Stage, serial: i64) {
        if let Some(waiting) = self.lock().waiting.get_mut(&(key.fid, key.cookie)) {
            waiting.stage = stage;
            waiting.serial = serial;
        }
    }

    /// It is that one that it waits for.
    pub(super) fn waits_for(&self, key: ActionKey, other: &Other) {
        if let Some(waiting) = self.lock().waiting.get_mut(&(key.fid, key.cookie)) {
            let since = |is_so: bool, since: Option<Instant>| is_so.then(|| since.unwrap_or_else(Instant::now));
            if waiting.mover != other.mover {
                waiting.mover.clone_from(&other.mover);
            }
            waiting.dead_since = since(other.is_dead, waiting.dead_since);
            waiting.settles_since = since(other.settles, waiting.settles_since);
        }
    }

    /// How many wait for which mover.
    pub(super) fn by_mover(&self) -> BTreeMap<String, u64> {
        let mut movers = BTreeMap::new();
        for waiting in self.lock().waiting.values() {
            match movers.get_mut(&waiting.mover) {
                Some(count) => *count += 1,
                None => drop(movers.insert(waiting.mover.clone(), 1)),
            }
        }
        movers
    }

    /// It does not wait any more.
    pub(super) fn goes(&self, key: ActionKey) {
        self.lock().waiting.remove(&(key.fid, key.cookie));
    }

    /// What ended since this was called last.
    pub(super) fn take_over(&self) -> Vec<ActionKey> {
        std::mem::take(&mut self.lock().over)
    }

    /// Whether any asks or waits.
    pub(super) fn is_empty(&self) -> bool {
        let state = self.lock();
        state.fresh.is_empty() && state.waiting.is_empty() && state.over.is_empty()
    }
}

impl Waiting {
    /// Whether it has waited for as long as it may; `dead`: for one that is dead, which somebody takes over before that.
    pub(super) fn is_overdue(&self, dead: Duration) -> bool {
        let has_lasted = |since: Option<Instant>, limit| since.is_some_and(|since| since.elapsed() > limit);
        self.since.elapsed() > LONGEST || has_lasted(self.dead_since, dead) || has_lasted(self.settles_since, SETTLES)
    }
}

#[cfg(test)]
mod tests;
