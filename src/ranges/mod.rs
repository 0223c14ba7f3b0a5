//! What is being listed: ranges of keys, each with the place up to which everything is done.
//!
//! A lister owns a range, `(after, end]` in the order of keys. One that has nothing to do cuts another's range in
//! two. What is listed goes out in batches, which end in any order; the place up to which all of a range's batches
//! are done is what a checkpoint says.

mod space;
mod state;

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use self::state::{CUTS, Cutting, RangesState};
use crate::store::Entry;

/// The last wait for something to cut; others wake it before.
const PATIENCE: Duration = Duration::from_millis(200);

/// A range that is not done, as a checkpoint keeps it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OpenRange {
    /// Everything up to here is done; `None`: nothing is.
    pub after: Option<String>,
    /// The last key of the range; `None`: it ends with the prefix.
    pub end: Option<String>,
}

impl OpenRange {
    /// Everything, and nothing of it is done.
    pub const ALL: Self = Self { after: None, end: None };
}

/// All ranges of a listing.
#[derive(Debug)]
pub struct Ranges {
    prefix: String,
    state: Mutex<RangesState>,
    changed: Condvar,
}

/// What a lister is to do next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ListerTask {
    /// List this range from `after` on.
    List {
        /// Its number.
        range: u64,
        /// The key behind which it begins; `None`: at the first one.
        after: Option<String>,
    },
    /// Look for the first key behind `middle` and say so to [`Ranges::cut`].
    Probe {
        /// The range that may be cut.
        range: u64,
        /// Where to look; no key.
        middle: String,
    },
    /// Nothing is left.
    Done,
}

/// Some entries in a row, to be done together.
#[derive(Debug)]
pub struct Batch {
    /// Whose they are.
    pub ticket: Ticket,
    /// In the order of their keys.
    pub entries: Vec<Entry>,
}

/// A batch of a range; it must come back to [`Ranges::done`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ticket {
    range: u64,
    number: u64,
}

impl Ranges {
    /// Everything with the prefix, or what a checkpoint left.
    #[must_use]
    pub fn new(prefix: &str, open: Vec<OpenRange>) -> Self {
        let ranges = Self {
            prefix: prefix.to_owned(),
            state: Mutex::default(),
            changed: Condvar::new(),
        };
        let mut state = ranges.lock();
        state.was_cut = open != [OpenRange::ALL];
        for open in open {
            state.add(open.after, open.end, None);
        }
        drop(state);
        ranges
    }

    /// Nothing is cut until [`allow_cuts`](Self::allow_cuts).
    pub fn hold_cuts(&self) {
        self.lock().cutting = Cutting::NotYet;
    }

    /// Whether it was not yet said that ranges may be cut, or may not.
    #[must_use]
    pub fn holds_cuts(&self) -> bool {
        self.lock().cutting == Cutting::NotYet
    }

    /// Ranges may be cut from now on; the last one is at once, at those of these places that it has not come to. In
    /// order.
    pub fn allow_cuts(&self, places: &[String]) {
        let mut state = self.lock();
        if state.cutting == Cutting::NotYet {
            state.cutting = Cutting::Allowed;
            state.split_last(places);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// There is one range, whose entries are in any order, and nothing cuts it any more. `false`: it was cut before.
    #[must_use]
    pub fn keep_whole(&self) -> bool {
        let mut state = self.lock();
        if state.cutting != Cutting::Never && state.was_cut {
            return false;
        }
        state.cutting = Cutting::Never;
        true
    }

    /// Whether there is one range, whose entries are in any order.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.lock().cutting == Cutting::Never
    }

    fn lock(&self) -> MutexGuard<'_, RangesState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next thing to do; waits while others may leave something.
    #[must_use]
    pub fn claim(&self) -> ListerTask {
        let mut state = self.lock();
        loop {
            if let Some(work) = state.claim(&self.prefix) {
                if work == ListerTask::Done {
                    self.changed.notify_all();
                }
                return work;
            }
            state = self
                .changed
                .wait_timeout(state, PATIENCE)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// The first key behind `middle` is `found`: the range becomes two, the first of which ends with it.
    ///
    /// Not with `middle`, which is no key: a store that lists in another order may see it in another place than we do, also
    /// where all its keys are in the right one.
    pub fn cut(&self, range: u64, middle: &str, found: Option<&str>) {
        let mut state = self.lock();
        if state.cutting != Cutting::Allowed {
            return;
        }
        let Some(whole) = state.ranges.get_mut(&range) else {
            return;
        };
        // The listing may have passed it meanwhile.
        if whole.listed || whole.cursor.as_deref().is_some_and(|cursor| cursor >= middle) {
            return;
        }
        let ceiling = whole.ceiling.replace(middle.to_owned());
        let inside = |key: &&str| *key > middle && whole.end.as_deref().is_none_or(|end| *key < end);
        if let Some(found) = found.filter(inside) {
            let end = whole.end.replace(found.to_owned());
            whole.cuts = 0;
            state.add(Some(found.to_owned()), end, ceiling);
            state.was_cut = true;
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Takes a page of the range and makes batches of it; what lies behind the range's end is dropped. `false`: the
    /// range is listed.
    #[must_use]
    pub fn listed(&self, range: u64, mut entries: Vec<Entry>, more: bool, batch: usize) -> (Vec<Batch>, bool) {
        let mut state = self.lock();
        let RangesState { ranges, next, .. } = &mut *state;
        let Some(found) = ranges.get_mut(&range) else {
            return (Vec::new(), false);
        };
        // What a store lists that does not look behind a key is another range's; whoever lists has looked at the order.
        if let Some(cursor) = &found.cursor {
            entries.retain(|entry| entry.key.as_slice() > cursor.as_bytes());
        }
        let before = entries.len();
        if let Some(end) = &found.end {
            entries.retain(|entry| entry.key.as_slice() <= end.as_bytes());
        }
        let complete = entries.len() == before;
        let mut batches = Vec::with_capacity(entries.len().div_ceil(batch));
        while !entries.is_empty() {
            let rest = entries.split_off(batch.min(entries.len()));
            let last = entries
                .iter()
                .rev()
                .find_map(|entry| std::str::from_utf8(&entry.key).ok());
            let last = last
                .map(str::to_owned)
                .or_else(|| found.cursor.clone())
                .unwrap_or_default();
            if !last.is_empty() {
                found.cursor = Some(last.clone());
            }
            *next += 1;
            found.batches.push_back((*next, last, false));
            let ticket = Ticket { range, number: *next };
            batches.push(Batch { ticket, entries });
            entries = rest;
        }
        let more = more && complete && (found.end.is_none() || found.end != found.cursor);
        if found.cuts >= CUTS {
            found.cuts -= 1;
        }
        if !more {
            found.listed = true;
            state.settle(range);
        }
        drop(state);
        self.changed.notify_all();
        (batches, more)
    }

    /// Takes rows of a source that is in no order of keys; `place` is where the last of them stands.
    #[must_use]
    pub fn rows(&self, range: u64, entries: Vec<Entry>, place: String, more: bool) -> Option<Batch> {
        let mut state = self.lock();
        let RangesState { ranges, next, .. } = &mut *state;
        let found = ranges.get_mut(&range)?;
        let batch = (!entries.is_empty()).then(|| {
            *next += 1;
            found.batches.push_back((*next, place, false));
            let ticket = Ticket { range, number: *next };
            Batch { ticket, entries }
        });
        if !more {
            found.listed = true;
            state.settle(range);
            drop(state);
            self.changed.notify_all();
        }
        batch
    }

    /// One thing more of the only range, in a walk that is in no order of keys.
    #[must_use]
    pub fn ticket(&self, place: String) -> Ticket {
        let mut state = self.lock();
        state.next += 1;
        let number = state.next;
        match state.ranges.iter_mut().next() {
            Some((range, found)) => {
                found.batches.push_back((number, place, false));
                Ticket { range: *range, number }
            }
            None => Ticket { range: 0, number },
        }
    }

    /// A batch is done.
    pub fn done(&self, ticket: Ticket) {
        let mut state = self.lock();
        if let Some(range) = state.ranges.get_mut(&ticket.range) {
            if let Some(batch) = range.batches.iter_mut().find(|batch| batch.0 == ticket.number) {
                batch.2 = true;
            }
            while let Some((_, last, true)) = range.batches.front() {
                if !last.is_empty() {
                    range.done = Some(last.clone());
                }
                range.batches.pop_front();
            }
        }
        state.settle(ticket.range);
    }

    /// What is not done.
    #[must_use]
    pub fn open(&self) -> Vec<OpenRange> {
        let state = self.lock();
        // No key says how far a listing is that is in another order.
        if state.cutting == Cutting::Never {
            return state.ranges.values().take(1).map(|_| OpenRange::ALL).collect();
        }
        let open = state.ranges.values().map(|range| OpenRange {
            after: range.done.clone(),
            end: range.end.clone(),
        });
        open.collect()
    }

    /// Lets all listers end.
    pub fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    /// Whether listers are to end.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.lock().stopped
    }
}

#[cfg(test)]
mod tests;
