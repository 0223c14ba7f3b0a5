//! Keeps actions alive at the coordinator: it cancels silently what shows no progress for its
//! `active_request_timeout` (3600 s by default), and the copytool is not told.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::action::{ActionKey, FileSystem, HsmError, Verb, Verdict};
use crate::guard::guarded;
use crate::queue::{Cancelled, Queue};
use crate::transfer::Stop;
use crate::types::Extent;
use crate::worker::{Forgotten, Settler};

/// How often, as configured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeartbeatOptions {
    /// Between two reports of a waiting action; well below the coordinator's time-out.
    pub waiting: Duration,
    /// Between two reports of a running action.
    pub running: Duration,
    /// For waiting ones, all together: a million must not flood the MDT.
    pub per_second: u32,
}

/// What the heartbeat learnt about the coordinator, for whoever keeps us registered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pulse {
    /// It knows nothing of an action of ours, or does not run: it may have forgotten us, too.
    Lost,
}

/// The running thread; dropping it stops and joins it.
#[derive(Debug)]
pub struct Heartbeat {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
    sent: Arc<AtomicU64>,
}

impl Heartbeat {
    /// Starts it. `forgotten` is told of archives that the coordinator forgot, `pulse` of every sign that it forgot us.
    ///
    /// # Errors
    /// The thread could not be made.
    pub fn start(
        queue: Arc<Queue>,
        settler: Arc<Settler>,
        (fs, forgotten): (Arc<dyn FileSystem>, Arc<Forgotten>),
        options: HeartbeatOptions,
        pulse: impl Fn(Pulse) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (stop, stopped) = channel();
        let sent = Arc::new(AtomicU64::new(0));
        let beat = Beat {
            queue,
            settler,
            fs,
            forgotten,
            options,
            pulse: Box::new(pulse),
            sent: Arc::clone(&sent),
            reported: HashMap::new(),
        };
        let thread = std::thread::Builder::new()
            .name("heartbeat".into())
            .spawn(move || beat.run(&stopped))?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
            sent,
        })
    }

    /// Reports sent so far.
    #[must_use]
    pub const fn sent(&self) -> &Arc<AtomicU64> {
        &self.sent
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the heartbeat thread panicked");
        }
    }
}

struct Beat {
    queue: Arc<Queue>,
    settler: Arc<Settler>,
    fs: Arc<dyn FileSystem>,
    forgotten: Arc<Forgotten>,
    options: HeartbeatOptions,
    pulse: Box<dyn Fn(Pulse) + Send>,
    sent: Arc<AtomicU64>,
    /// Bytes that running actions have been reported with.
    reported: HashMap<ActionKey, u64>,
}

impl Beat {
    fn run(mut self, stopped: &Receiver<()>) {
        let tick = (self.options.waiting.min(self.options.running) / 4)
            .clamp(Duration::from_millis(20), Duration::from_secs(1));
        let per_tick = (f64::from(self.options.per_second) * tick.as_secs_f64()).ceil();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a small positive number"
        )]
        let per_tick = per_tick as usize;
        let mut next_running = Instant::now() + self.options.running;
        loop {
            match stopped.recv_timeout(tick) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
            }
            let now = Instant::now();
            // Without the next one all actions would be given up by the coordinator.
            drop(guarded(|| {
                for key in self.queue.due_waiting(now, now + self.options.waiting, per_tick) {
                    self.report(key, Extent::EMPTY);
                }
            }));
            if now >= next_running {
                next_running = now + self.options.running;
                drop(guarded(|| self.running()));
            }
        }
    }

    fn running(&mut self) {
        let running = self.queue.running();
        let mut reported = HashMap::with_capacity(running.len());
        for running in running {
            let (key, moved) = (running.key, running.moved());
            let before = self.reported.get(&key).copied().unwrap_or(0);
            // Parts come out of order; what counts is how much there is.
            let extent = Extent {
                offset: before,
                length: moved.saturating_sub(before),
            };
            self.report(key, extent);
            reported.insert(key, moved.max(before));
        }
        self.reported = reported;
    }

    fn report(&self, key: ActionKey, extent: Extent) {
        self.sent.fetch_add(1, Ordering::Relaxed);
        let Err(error) = self.fs.progress(key, extent) else {
            return;
        };
        self.objection(key, &error);
    }

    fn objection(&self, key: ActionKey, error: &HsmError) {
        let (fid, cookie) = (key.fid, key.cookie);
        match error.errno {
            libc::ECANCELED => {
                tracing::info!(%fid, %cookie, "the coordinator cancelled the action");
                self.end(key, Stop::Cancelled);
            }
            libc::ENOENT => {
                (self.pulse)(Pulse::Lost);
                match self.queue.verb(key) {
                    // It will come again with the same cookie, and the copy in hand is then the answer.
                    Some(Verb::Restore) => {
                        tracing::debug!(%fid, %cookie, "the coordinator forgot a restore; keeping it");
                    }
                    Some(verb @ (Verb::Archive | Verb::Remove)) => {
                        tracing::warn!(%fid, %cookie, "the coordinator forgot the action; dropping it");
                        if verb == Verb::Archive {
                            self.forgotten.note(key, self.queue.archive_of(key));
                        }
                        self.end(key, Stop::Forgotten);
                    }
                    None => {}
                }
            }
            libc::EAGAIN => (self.pulse)(Pulse::Lost),
            _ => tracing::debug!(%fid, %cookie, %error, "a heartbeat was not taken"),
        }
    }

    fn end(&self, key: ActionKey, reason: Stop) {
        match self.queue.cancel(key, reason) {
            Cancelled::Waiting(debt) if reason == Stop::Cancelled => {
                self.settler.settle(debt, Verdict::Cancelled);
            }
            // Nobody is left who would take an answer.
            Cancelled::Waiting(debt) => debt.forgotten(),
            Cancelled::Running | Cancelled::Unknown => {}
        }
    }
}
