//! Turns at writing one file. The kernel lets one writer at a time into most files and makes the others spin for
//! it; those are better off taking the next bytes from their connections.

use std::sync::{LazyLock, PoisonError};
use std::time::Duration;

use super::{Control, TransferError};
use crate::sync::atomic::{AtomicU32, Ordering};
use crate::sync::{Condvar, Mutex};

/// Between two looks at the control of whoever waits: a file's write can stall for minutes.
const LOOK: Duration = Duration::from_millis(100);

/// Asking costs as much as a small file's whole restore: the kernel's control groups are read.
static PROCESSORS: LazyLock<usize> = LazyLock::new(|| std::thread::available_parallelism().map_or(1, usize::from));

/// So many of the last turns, about, tell whether they are short.
const MEMORY: u32 = 32;
/// Of a thousand turns that were waited for.
const SHORT: u32 = 500;

#[derive(Debug)]
pub(super) struct WriteSlots {
    free: Mutex<usize>,
    freed: Condvar,
    /// Of a thousand, lately; changed under `free`'s lock.
    waited: AtomicU32,
}

/// Gives the turn back, also when the write panics.
struct WriteSlot<'a>(&'a WriteSlots);

impl WriteSlots {
    /// As many writers at a time as half of the processors: on a large node Lustre takes several ranges of a
    /// file in parallel.
    pub(super) fn new() -> Self {
        Self::of((*PROCESSORS / 2).max(1))
    }

    /// So many writers at a time.
    pub(super) fn of(writers: usize) -> Self {
        Self {
            free: Mutex::new(writers),
            freed: Condvar::new(),
            waited: AtomicU32::new(0),
        }
    }

    /// Whether most of those that want a turn have to wait for it.
    pub(super) fn are_short(&self) -> bool {
        self.waited.load(Ordering::Relaxed) > SHORT
    }

    fn note(&self, waited: bool) {
        let before = self.waited.load(Ordering::Relaxed);
        let now = before - before / MEMORY + if waited { 1000 / MEMORY } else { 0 };
        self.waited.store(now, Ordering::Relaxed);
    }

    /// Runs `write` when it is its turn.
    ///
    /// # Errors
    /// Stopped while waiting.
    pub(super) fn take<R>(&self, control: &Control, write: impl FnOnce() -> R) -> Result<R, TransferError> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        self.note(*free == 0);
        while *free == 0 {
            if let Some(stop) = control.stopped() {
                return Err(TransferError::Stopped(stop));
            }
            free = self
                .freed
                .wait_timeout(free, LOOK)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        *free -= 1;
        drop(free);
        let _turn = WriteSlot(self);
        Ok(write())
    }
}

impl Drop for WriteSlot<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transfer::Stop;

    #[test]
    fn who_waits_for_a_turn_can_be_stopped_and_a_turn_always_comes_back() {
        let slots = WriteSlots::of(1);
        let control = Control::default();
        control.stop(Stop::Cancelled);
        let inner = slots.take(&control, || slots.take(&control, || ()));
        assert!(matches!(inner, Ok(Err(TransferError::Stopped(Stop::Cancelled)))));
        assert_eq!(*slots.free.lock().unwrap(), 1);
    }

    #[test]
    fn turns_are_short_when_most_had_to_wait_and_not_for_ever() {
        let slots = WriteSlots::of(1);
        (0..100).for_each(|_| slots.note(true));
        assert!(slots.are_short());
        (0..100).for_each(|_| slots.note(false));
        assert!(!slots.are_short());
        (0..200).for_each(|n| slots.note(n % 3 == 0));
        assert!(!slots.are_short());
    }
}
