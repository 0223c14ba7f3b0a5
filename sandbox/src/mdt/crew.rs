//! The threads that are the MDT: what they do to files is not a user's doing.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

static THREADS: Mutex<Option<HashSet<i32>>> = Mutex::new(None);

fn threads() -> MutexGuard<'static, Option<HashSet<i32>>> {
    THREADS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Held by a thread for as long as it is one of them.
pub(super) struct Membership(i32);

pub(super) fn join() -> Membership {
    let tid = nix::unistd::gettid().as_raw();
    threads().get_or_insert_default().insert(tid);
    Membership(tid)
}

pub(super) fn contains(tid: i32) -> bool {
    threads().get_or_insert_default().contains(&tid)
}

impl Drop for Membership {
    fn drop(&mut self) {
        threads().get_or_insert_default().remove(&self.0);
    }
}
