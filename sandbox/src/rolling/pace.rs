//! How fast the load comes: it must last until each mover had its turns, however small it is and however long they take.

use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What is left of a turn's files goes at a rate that would end it in this time: slower and slower, so that something is
/// under way until the turn is over.
const DECAY_US: u64 = 2_000_000;
/// Between two looks at how much that is by now.
const LOOK: Duration = Duration::from_millis(20);

/// Gives out numbers of files.
#[derive(Debug)]
pub(crate) struct Pace {
    files: u32,
    /// That the load waits for.
    turns: u32,
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug)]
struct Inner {
    next: u32,
    turns_over: u32,
    /// Of a file in [`DECAY_US`] parts: what may be given out.
    credit: u64,
    at: Instant,
    is_stopped: bool,
}

impl Pace {
    pub(crate) fn new(files: u32, turns: u32) -> Self {
        Self {
            files,
            turns,
            inner: Mutex::new(Inner {
                next: 0,
                turns_over: 0,
                credit: 0,
                at: Instant::now(),
                is_stopped: false,
            }),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next files, `most` of them at most, when it is time for them. `None`: there are no more.
    pub(crate) fn take(&self, most: u32) -> Option<Range<u32>> {
        let mut inner = self.lock();
        loop {
            if inner.is_stopped || inner.next >= self.files {
                return None;
            }
            let count = inner.may_take(self.files, self.turns, most);
            if count > 0 {
                let from = inner.next;
                inner.next += count;
                return Some(from..inner.next);
            }
            inner = self
                .changed
                .wait_timeout(inner, LOOK)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// A mover had its turn.
    pub(crate) fn turn_over(&self) {
        self.lock().turns_over += 1;
        self.changed.notify_all();
    }

    /// No more of them, for something went wrong.
    pub(crate) fn stop(&self) {
        self.lock().is_stopped = true;
        self.changed.notify_all();
    }

    /// Whether all are given out.
    pub(crate) fn is_spent(&self) -> bool {
        let inner = self.lock();
        inner.is_stopped || inner.next >= self.files
    }
}

impl Inner {
    fn may_take(&mut self, files: u32, turns: u32, most: u32) -> u32 {
        if self.turns_over >= turns {
            return most.min(files.saturating_sub(self.next));
        }
        let share = u64::from(files) * u64::from(self.turns_over + 1) / u64::from(turns + 1);
        let left = share.saturating_sub(u64::from(self.next));
        let us = u64::try_from(self.at.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.at = Instant::now();
        self.credit = (self.credit.saturating_add(left.saturating_mul(us))).min(left * DECAY_US);
        let count = u32::try_from(self.credit / DECAY_US).unwrap_or(most).min(most);
        self.credit -= u64::from(count) * DECAY_US;
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_has_its_share_and_the_rest_comes_when_all_are_over() {
        let pace = Pace::new(100, 3);
        let mut taken = 0;
        while taken < 3 {
            taken += u32::try_from(pace.take(10).unwrap().len()).unwrap();
        }
        assert!(taken <= 25, "{taken}");
        for _ in 0..3 {
            pace.turn_over();
        }
        while let Some(range) = pace.take(10) {
            assert_eq!(range.start, taken);
            taken = range.end;
        }
        assert_eq!(taken, 100);
        assert!(pace.is_spent());
    }

    #[test]
    fn nobody_gets_anything_when_it_is_stopped() {
        let pace = Pace::new(100, 0);
        assert_eq!(pace.take(10), Some(0..10));
        pace.stop();
        assert_eq!(pace.take(10), None);
    }
}
