//! What threads share, wait with and read the time by, in the rooms whose schedules are checked: the queue, a file's
//! parts, turns and chunks, the journal, threads themselves. They name it here and not in `std`: `tests/schedules`
//! compiles the same files with a `sync` of its own, whose scheduler decides who runs when, and `tests/clock` what waits
//! for a store, with a clock that stands still.

pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, RwLock, atomic};
pub(crate) use std::thread;
pub(crate) use std::time::Instant;

/// The calling thread's number in the kernel; never 0.
pub(crate) fn thread_number() -> i32 {
    nix::unistd::gettid().as_raw()
}
