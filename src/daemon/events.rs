//! What the daemon listens to while it waits: signals, and deaths of its threads. Whoever supervises it hears meanwhile
//! that it lives.

use std::io;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use super::DaemonError;
use crate::telemetry;
use crate::thread::{Supervisor, Thread};

/// A call of Lustre's takes longer only where an MDT does not answer: then systemd is told that the daemon waits.
const SLOW: Duration = Duration::from_secs(10);
/// For a thread to end whose work is done.
const END: Duration = Duration::from_secs(1);

/// Signals and deaths.
pub(super) struct DaemonEvents {
    term: Signal,
    int: Signal,
    supervisor: Supervisor,
    /// It was told to end, and that is still to be done.
    is_ending: bool,
    /// systemd was told that it runs: from now on its watchdog is fed.
    is_ready: bool,
}

impl DaemonEvents {
    pub(super) fn new(supervisor: &Supervisor) -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            supervisor: supervisor.clone(),
            is_ending: false,
            is_ready: false,
        })
    }

    /// A signal tells it to end.
    pub(super) async fn told(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }

    /// Whoever asks next whether it is told to end hears that it is.
    pub(super) const fn end_soon(&mut self) {
        self.is_ending = true;
    }

    /// It is told to end, or a thread without which it can't go on died.
    ///
    /// # Errors
    /// The death.
    pub(super) async fn ending(&mut self) -> Result<(), DaemonError> {
        if std::mem::take(&mut self.is_ending) {
            return Ok(());
        }
        tokio::select! {
            _ = self.term.recv() => Ok(()),
            _ = self.int.recv() => Ok(()),
            death = self.supervisor.death() => Err(death.into()),
        }
    }

    /// Does what ends by itself. `None`: it is told to end before.
    ///
    /// # Errors
    /// A thread died.
    pub(super) async fn unless_ending<T>(&mut self, work: impl Future<Output = T>) -> Result<Option<T>, DaemonError> {
        tokio::select! {
            done = work => Ok(Some(done)),
            ended = self.ending() => ended.map(|()| None),
        }
    }

    /// Waits for what may wait for an MDT, without an end; whoever supervises it hears of that. `None`: it is told to end
    /// before.
    ///
    /// # Errors
    /// A thread died.
    pub(super) async fn wait<T>(
        &mut self,
        what: &str,
        work: impl Future<Output = T>,
    ) -> Result<Option<T>, DaemonError> {
        let mut work = std::pin::pin!(work);
        let first = if self.is_ready { Duration::ZERO } else { SLOW };
        let start = tokio::time::Instant::now() + first;
        let mut beat = tokio::time::interval_at(start, telemetry::beat_interval());
        loop {
            tokio::select! {
                done = &mut work => return Ok(Some(done)),
                ended = self.ending() => return ended.map(|()| None),
                _ = beat.tick() => self.alive(what),
            }
        }
    }

    fn alive(&mut self, what: &str) {
        if self.is_ready {
            telemetry::alive(what);
        } else {
            self.ready(what);
        }
    }

    /// It runs, and nobody else could do more.
    pub(super) fn ready(&mut self, status: &str) {
        self.is_ready = true;
        telemetry::ready(status);
    }
}

/// What blocks, on a thread of its own. To drop it leaves it alone.
pub(super) struct BlockingCall<T> {
    thread: Thread,
    result: oneshot::Receiver<T>,
}

impl<T: Send + 'static> BlockingCall<T> {
    pub(super) fn start(
        supervisor: &Supervisor,
        name: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<Self> {
        let (done, result) = oneshot::channel();
        let thread = supervisor.errand(name, move || {
            // Where nobody waits any more its result goes here, too: it may be a registration, and to end that blocks.
            let _unwanted = done.send(work());
        })?;
        Ok(Self { thread, result })
    }

    /// # Errors
    /// It panicked.
    pub(super) async fn done(&mut self) -> io::Result<T> {
        let result = (&mut self.result).await.map_err(io::Error::other);
        // It is at its end: nobody is to take it for one that hangs.
        self.thread.join(Instant::now() + END);
        result
    }

    /// Nobody wants its result: waits a moment until it has come to its end.
    pub(super) fn give_up(self, limit: Duration) {
        let Self { mut thread, result } = self;
        drop(result);
        thread.join(Instant::now() + limit);
    }
}
