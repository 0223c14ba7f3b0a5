//! A gate at which requests wait, and from which a test learns that they do.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

#[derive(Debug, Default, Clone, Copy)]
struct State {
    held: usize,
    open: bool,
    /// So many requests pass before it holds.
    free: u32,
}

#[derive(Debug)]
struct Inner {
    op: String,
    state: watch::Sender<State>,
    /// For those who wait on a thread: the lock protects nothing but the wait itself.
    lock: Mutex<()>,
    changed: Condvar,
}

impl Inner {
    fn change(&self, change: impl FnOnce(&mut State)) {
        self.state.send_modify(change);
        // Taken so that no waiter is between its look at the state and its wait.
        let guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.changed.notify_all();
        drop(guard);
    }
}

/// Holds the requests of an operation until it is released. Clones are the same gate; one that is dropped without
/// having been released goes on holding.
#[derive(Debug, Clone)]
pub struct Gate {
    inner: Arc<Inner>,
}

impl Gate {
    pub(crate) fn new(op: &str) -> Self {
        let state = watch::Sender::new(State::default());
        Self {
            inner: Arc::new(Inner {
                op: op.to_owned(),
                state,
                lock: Mutex::default(),
                changed: Condvar::new(),
            }),
        }
    }

    pub(crate) fn after(self, free: u32) -> Self {
        self.inner.change(|state| state.free = free);
        self
    }

    pub(crate) fn op(&self) -> &str {
        &self.inner.op
    }

    pub(crate) fn is_open(&self) -> bool {
        self.inner.state.borrow().open
    }

    /// Lets all held requests proceed, and those to come. Releasing twice is releasing once.
    pub fn release(&self) {
        self.inner.change(|state| state.open = true);
    }

    /// How many requests are waiting now. One whose client went away no longer counts.
    #[must_use]
    pub fn held(&self) -> usize {
        self.inner.state.borrow().held
    }

    /// Waits until at least `count` requests are being held at once.
    pub async fn wait_held(&self, count: usize) {
        let mut state = self.inner.state.subscribe();
        // The sender is in the gate, so it cannot be gone.
        drop(state.wait_for(|state| state.held >= count).await);
    }

    /// The same on a thread, for at most `timeout`; false when that ran out.
    #[must_use]
    pub fn wait_held_blocking(&self, count: usize, timeout: Duration) -> bool {
        let guard = self.inner.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let result = self
            .inner
            .changed
            .wait_timeout_while(guard, timeout, |()| self.held() < count);
        let (guard, outcome) = result.unwrap_or_else(PoisonError::into_inner);
        drop(guard);
        !outcome.timed_out()
    }

    /// A request passes: at once when the gate is open, else when it is released.
    pub(crate) async fn pass(&self) {
        let mut state = self.inner.state.subscribe();
        let mut passes = false;
        self.inner.change(|state| {
            passes = state.open || state.free > 0;
            state.free = state.free.saturating_sub(1);
        });
        if passes {
            return;
        }
        let held = Held::new(&self.inner);
        drop(state.wait_for(|state| state.open).await);
        drop(held);
    }
}

/// A request at the gate. A guard, since a request ends with its client's patience.
struct Held<'a>(&'a Inner);

impl<'a> Held<'a> {
    fn new(inner: &'a Inner) -> Self {
        inner.change(|state| state.held += 1);
        Self(inner)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.change(|state| state.held -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn holds_until_released() {
        let gate = Gate::new("GetObject");
        let requests: Vec<_> = (0..3)
            .map(|_| {
                let gate = gate.clone();
                tokio::spawn(async move { gate.pass().await })
            })
            .collect();
        gate.wait_held(3).await;
        assert!(requests.iter().all(|request| !request.is_finished()));
        gate.release();
        for request in requests {
            request.await.unwrap();
        }
        assert_eq!(gate.held(), 0);
        gate.pass().await;
    }

    #[tokio::test]
    async fn a_request_that_is_given_up_no_longer_counts() {
        let gate = Gate::new("*");
        let request = {
            let gate = gate.clone();
            tokio::spawn(async move { gate.pass().await })
        };
        gate.wait_held(1).await;
        request.abort();
        assert!(request.await.unwrap_err().is_cancelled());
        assert_eq!(gate.held(), 0);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_thread_waits_too() {
        let gate = Gate::new("*");
        assert!(!gate.wait_held_blocking(1, Duration::ZERO));
        let waiter = {
            let gate = gate.clone();
            std::thread::spawn(move || gate.wait_held_blocking(1, Duration::from_secs(30)))
        };
        let request = {
            let gate = gate.clone();
            tokio::spawn(async move { gate.pass().await })
        };
        assert!(tokio::task::spawn_blocking(|| waiter.join().unwrap()).await.unwrap());
        gate.release();
        request.await.unwrap();
    }
}
