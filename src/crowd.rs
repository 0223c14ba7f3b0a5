//! Threads that end together, some of which may not: a call about a dead MDT holds a thread in the kernel, beyond any
//! signal. Whoever waits for them waits only so long, and is told who is left.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The threads so far.
#[derive(Debug)]
pub struct Crowd {
    threads: Vec<(String, JoinHandle<()>)>,
    /// Held by each of them until its end. Nothing is ever sent.
    alive: Sender<()>,
    gone: Receiver<()>,
}

impl Default for Crowd {
    fn default() -> Self {
        let (alive, gone) = channel();
        Self {
            threads: Vec::new(),
            alive,
            gone,
        }
    }
}

impl Crowd {
    /// One more.
    ///
    /// # Errors
    /// The system has no more threads.
    pub fn spawn(&mut self, name: String, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        let alive = self.alive.clone();
        let thread = std::thread::Builder::new().name(name.clone()).spawn(move || {
            work();
            drop(alive);
        })?;
        self.threads.push((name, thread));
        Ok(())
    }

    /// Waits until all have ended, which they must have been told, or until `within` is over; the names of those that are
    /// left. They end with the process.
    pub fn join(self, within: Duration) -> Vec<String> {
        let Self { threads, alive, gone } = self;
        drop(alive);
        let all_ended = matches!(gone.recv_timeout(within), Err(RecvTimeoutError::Disconnected));
        let mut left = Vec::new();
        for (name, thread) in threads {
            if all_ended || thread.is_finished() {
                if thread.join().is_err() {
                    tracing::error!(thread = name, "it panicked");
                }
            } else {
                left.push(name);
            }
        }
        left
    }
}

/// What a call may do: come back, or not.
#[derive(Debug)]
pub struct Call<T> {
    name: &'static str,
    out: Option<(Instant, Receiver<T>)>,
}

impl<T: Send + 'static> Call<T> {
    /// Calls of that name, one at a time.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self { name, out: None }
    }

    /// Begins one on a thread of its own; nothing, while the one before has not come back.
    pub fn begin(&mut self, call: impl FnOnce() -> T + Send + 'static) {
        if self.out.is_some() {
            return;
        }
        let (back, answer) = channel();
        let thread = std::thread::Builder::new().name(self.name.into()).spawn(move || {
            // Nobody waits any more when all ends.
            let _unwanted = back.send(call());
        });
        match thread {
            Ok(_detached) => self.out = Some((Instant::now(), answer)),
            Err(error) => tracing::error!(%error, thread = self.name, "can't be made"),
        }
    }

    /// What it came back with, if it does until then.
    pub fn answer(&mut self, until: Instant) -> Option<T> {
        let (_, answer) = self.out.as_ref()?;
        match answer.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(answer) => {
                self.out = None;
                Some(answer)
            }
            Err(RecvTimeoutError::Timeout) => None,
            // It panicked.
            Err(RecvTimeoutError::Disconnected) => {
                self.out = None;
                None
            }
        }
    }

    /// For how long it has been out.
    #[must_use]
    pub fn out_for(&self) -> Option<Duration> {
        self.out.as_ref().map(|(since, _)| since.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_do_not_end_are_named_and_the_others_joined() {
        let (hold, held) = channel::<()>();
        let mut crowd = Crowd::default();
        crowd.spawn("quick".into(), || {}).unwrap();
        crowd
            .spawn("stuck".into(), move || {
                drop(held.recv());
            })
            .unwrap();
        assert_eq!(crowd.join(Duration::from_millis(200)), ["stuck"]);
        drop(hold);
        let mut crowd = Crowd::default();
        crowd.spawn("quick".into(), || {}).unwrap();
        assert_eq!(crowd.join(Duration::from_secs(60)), Vec::<String>::new());
    }

    #[test]
    fn a_call_that_does_not_come_back_is_the_only_one_and_its_answer_is_the_next() {
        let (hold, held) = channel::<u32>();
        let mut call = Call::new("call");
        call.begin(move || held.recv().unwrap_or(0));
        assert_eq!(call.answer(Instant::now()), None);
        call.begin(|| 2);
        assert!(call.out_for().is_some());
        hold.send(1).unwrap();
        let soon = Instant::now() + Duration::from_secs(60);
        assert_eq!(call.answer(soon), Some(1));
        call.begin(|| 2);
        assert_eq!(call.answer(soon), Some(2));
        assert_eq!(call.out_for(), None);
    }
}
