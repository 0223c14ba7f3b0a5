//! Calls that may not come back: one about a dead MDT holds its thread in the kernel, beyond any signal. Whoever makes one
//! waits only so long.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::thread::{Supervisor, Thread};

/// For a thread to end that has brought its answer.
const END: Duration = Duration::from_secs(1);

/// Calls of one kind, one at a time.
#[derive(Debug)]
pub(super) struct Call<T> {
    name: &'static str,
    out: Option<(Thread, Receiver<T>)>,
}

impl<T: Send + 'static> Call<T> {
    /// Their threads have that name.
    #[must_use]
    pub(super) const fn new(name: &'static str) -> Self {
        Self { name, out: None }
    }

    /// Begins one on a thread of its own; nothing, while the one before has not come back.
    pub(super) fn begin(&mut self, supervisor: &Supervisor, call: impl FnOnce() -> T + Send + 'static) {
        if self.out.is_some() {
            return;
        }
        let (back, answer) = channel();
        let thread = supervisor.errand(self.name, move || {
            // Nobody waits any more when all ends.
            let _unwanted = back.send(call());
        });
        match thread {
            Ok(thread) => self.out = Some((thread, answer)),
            Err(error) => tracing::error!(%error, thread = self.name, "can't be made"),
        }
    }

    /// What it came back with, if it does until then.
    pub(super) fn answer(&mut self, until: Instant) -> Option<T> {
        let (thread, answer) = self.out.as_mut()?;
        let answer = match answer.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(answer) => Some(answer),
            Err(RecvTimeoutError::Timeout) => return None,
            // It panicked.
            Err(RecvTimeoutError::Disconnected) => None,
        };
        // It is at its end: nobody is to take it for one that is held.
        thread.join(Instant::now() + END);
        self.out = None;
        answer
    }

    /// Whether it has not come back.
    #[must_use]
    pub(super) const fn is_out(&self) -> bool {
        self.out.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_does_not_come_back_is_the_only_one_and_its_answer_is_the_next() {
        let supervisor = Supervisor::default();
        let (hold, held) = channel::<u32>();
        let mut call = Call::new("call");
        call.begin(&supervisor, move || held.recv().unwrap_or(0));
        assert_eq!(call.answer(Instant::now()), None);
        call.begin(&supervisor, || 2);
        assert!(call.is_out());
        assert_eq!(supervisor.held().len(), 1);
        hold.send(1).unwrap();
        let soon = Instant::now() + Duration::from_secs(60);
        assert_eq!(call.answer(soon), Some(1));
        call.begin(&supervisor, || 2);
        assert_eq!(call.answer(soon), Some(2));
        assert!(!call.is_out());
        assert!(supervisor.held().is_empty());
    }
}
