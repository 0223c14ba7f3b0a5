//! Turns at writing one file. The kernel lets one writer at a time into most files and makes the others spin for
//! it; those are better off taking the next bytes from their connections.

use std::sync::{Condvar, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use super::{Control, TransferError};

/// Between two looks at the control of whoever waits: a file's write can stall for minutes.
const LOOK: Duration = Duration::from_millis(100);

/// Asking costs as much as a small file's whole restore: the kernel's control groups are read.
static PROCESSORS: LazyLock<usize> = LazyLock::new(|| std::thread::available_parallelism().map_or(1, usize::from));

#[derive(Debug)]
pub(super) struct Turns {
    free: Mutex<usize>,
    freed: Condvar,
}

/// Gives the turn back, also when the write panics.
struct Turn<'a>(&'a Turns);

impl Turns {
    /// As many writers at a time as half of the processors: on a large node Lustre takes several ranges of a
    /// file in parallel.
    pub(super) fn new() -> Self {
        Self {
            free: Mutex::new((*PROCESSORS / 2).max(1)),
            freed: Condvar::new(),
        }
    }

    /// Runs `write` when it is its turn.
    ///
    /// # Errors
    /// Stopped while waiting.
    pub(super) fn take<R>(&self, control: &Control, write: impl FnOnce() -> R) -> Result<R, TransferError> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
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
        let _turn = Turn(self);
        Ok(write())
    }
}

impl Drop for Turn<'_> {
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
        let turns = Turns {
            free: Mutex::new(1),
            freed: Condvar::new(),
        };
        let control = Control::default();
        control.stop(Stop::Cancelled);
        let inner = turns.take(&control, || turns.take(&control, || ()));
        assert!(matches!(inner, Ok(Err(TransferError::Stopped(Stop::Cancelled)))));
        assert_eq!(*turns.free.lock().unwrap(), 1);
    }
}
