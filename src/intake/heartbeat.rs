//! Keeps actions alive at the coordinator: it cancels silently what shows no progress for its
//! `active_request_timeout` (3600 s by default), and the copytool is not told.
//!
//! Each MDT has a coordinator and a thread here: a report to a dead one does not come back, and holds up its own alone.
//! One thread more looks after these. It sees by them which MDT does not answer.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::action::{ActionKey, FileSystem, HsmError, Verb, Verdict};
use crate::queue::{Cancelled, Queue};
use crate::thread::{Supervisor, Thread, guarded};
use crate::transfer::Stop;
use crate::types::{Domain, ErrorClass, Extent, domain_name};
use crate::worker::{Forgotten, Responder};

/// How often, as configured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeartbeatOptions {
    /// Between two reports of a waiting action; well below the coordinator's time-out.
    pub waiting: Duration,
    /// Between two reports of a running action.
    pub running: Duration,
    /// For waiting ones of an MDT, all together: a million must not flood it.
    pub per_second: u32,
}

/// A report takes milliseconds. An MDT that has had one for longer gets no more threads until it has answered.
const SILENCE: Duration = Duration::from_secs(5);
/// For a report that is under way when all ends.
const LAST_REPORT: Duration = Duration::from_secs(2);

/// What the heartbeat learnt about the coordinator, for whoever keeps us registered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeartbeatEvent {
    /// It knows nothing of an action of ours, or does not run: it may have forgotten us, too.
    Lost,
}

/// The running threads; dropping it stops them.
#[derive(Debug)]
pub struct Heartbeat {
    thread: Thread,
    sent: Arc<AtomicU64>,
}

impl Heartbeat {
    /// Starts it. `forgotten` is told of archives that the coordinator forgot, `pulse` of every sign that it forgot us.
    ///
    /// # Errors
    /// The thread could not be made.
    pub fn start(
        supervisor: &Supervisor,
        queue: Arc<Queue>,
        responder: Arc<Responder>,
        (fs, forgotten): (Arc<dyn FileSystem>, Arc<Forgotten>),
        options: HeartbeatOptions,
        pulse: impl Fn(HeartbeatEvent) + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let (stop, stopped): (Sender<()>, _) = channel();
        let sent = Arc::new(AtomicU64::new(0));
        let watch = HeartbeatWatch {
            beat: Beat {
                queue,
                responder,
                fs,
                forgotten,
                options,
                pulse: Arc::new(pulse),
                sent: Arc::clone(&sent),
                domain: None,
                since: Arc::default(),
                reported: HashMap::new(),
            },
            threads: BTreeMap::new(),
            supervisor: supervisor.clone(),
        };
        let thread = supervisor.serve("heartbeat", || drop(stop), move || watch.run(&stopped))?;
        Ok(Self { thread, sent })
    }

    /// The thread that looks after the others.
    pub const fn thread(&mut self) -> &mut Thread {
        &mut self.thread
    }

    /// Reports sent so far.
    #[must_use]
    pub const fn sent(&self) -> &Arc<AtomicU64> {
        &self.sent
    }
}

/// Since when a call has been out.
type Since = Arc<Mutex<Option<Instant>>>;

/// Sees to it that each MDT with actions has its thread.
struct HeartbeatWatch {
    /// What they are made of.
    beat: Beat,
    threads: BTreeMap<Domain, OneMdt>,
    supervisor: Supervisor,
}

struct OneMdt {
    since: Since,
    thread: Thread,
}

impl HeartbeatWatch {
    fn run(mut self, stopped: &Receiver<()>) {
        let tick = self.beat.options.tick();
        while stopped.recv_timeout(tick) == Err(RecvTimeoutError::Timeout) {
            for domain in self.beat.queue.domains() {
                if !self.threads.contains_key(&domain) {
                    self.start(domain);
                }
            }
            for (domain, thread) in &self.threads {
                self.listen(*domain, &thread.since);
            }
        }
        let until = Instant::now() + LAST_REPORT;
        self.threads.values_mut().for_each(|one| one.thread.stop());
        for one in self.threads.values_mut() {
            // One that a dead MDT holds is named at the end.
            one.thread.join(until);
        }
    }

    fn start(&mut self, domain: Domain) {
        let (stop, stopped): (Sender<()>, _) = channel();
        let since = Since::default();
        let beat = self.beat.of(domain, Arc::clone(&since));
        let name = domain.map_or_else(|| "heartbeat-?".to_owned(), |mdt| format!("heartbeat-{:x}", mdt.0));
        // Tried again in a moment.
        match self.supervisor.serve(name, || drop(stop), move || beat.run(&stopped)) {
            Ok(thread) => drop(self.threads.insert(domain, OneMdt { since, thread })),
            Err(error) => tracing::error!(%error, "no thread for the heartbeats of {}", domain_name(domain)),
        }
    }

    fn listen(&self, domain: Domain, since: &Since) {
        let since = *since.lock().unwrap_or_else(PoisonError::into_inner);
        let silent = since.is_some_and(|since| since.elapsed() > SILENCE);
        if !self.beat.queue.set_silent(domain, silent) {
            return;
        }
        let name = domain_name(domain);
        if silent {
            tracing::error!(
                "{name} does not answer: what is to be done for its files waits for it, all else goes on. See its server, \
                 and `lfs check mds`"
            );
        } else {
            tracing::info!("{name} answers again");
        }
    }
}

impl HeartbeatOptions {
    fn tick(&self) -> Duration {
        (self.waiting.min(self.running) / 4).clamp(Duration::from_millis(20), Duration::from_secs(1))
    }
}

/// The reports of one MDT.
struct Beat {
    queue: Arc<Queue>,
    responder: Arc<Responder>,
    fs: Arc<dyn FileSystem>,
    forgotten: Arc<Forgotten>,
    options: HeartbeatOptions,
    pulse: Arc<dyn Fn(HeartbeatEvent) + Send + Sync>,
    sent: Arc<AtomicU64>,
    domain: Domain,
    since: Since,
    /// Bytes that running actions have been reported with.
    reported: HashMap<ActionKey, u64>,
}

impl Beat {
    fn of(&self, domain: Domain, since: Since) -> Self {
        Self {
            queue: Arc::clone(&self.queue),
            responder: Arc::clone(&self.responder),
            fs: Arc::clone(&self.fs),
            forgotten: Arc::clone(&self.forgotten),
            options: self.options,
            pulse: Arc::clone(&self.pulse),
            sent: Arc::clone(&self.sent),
            domain,
            since,
            reported: HashMap::new(),
        }
    }

    fn run(mut self, stopped: &Receiver<()>) {
        let tick = self.options.tick();
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
                let again = now + self.options.waiting;
                for key in self.queue.due_waiting(self.domain, now, again, per_tick) {
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
        let running = self.queue.running_on(self.domain);
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
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        let answer = guarded(|| self.fs.progress(key, extent));
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if let Ok(Err(error)) = answer {
            self.objection(key, &error);
        }
    }

    fn objection(&self, key: ActionKey, error: &HsmError) {
        let (fid, cookie) = (key.fid, key.cookie);
        match error.class() {
            ErrorClass::Cancelled => {
                tracing::info!(%fid, %cookie, "the coordinator cancelled the action");
                self.end(key, Stop::Cancelled);
            }
            ErrorClass::Gone => {
                (self.pulse)(HeartbeatEvent::Lost);
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
            ErrorClass::Stopped => (self.pulse)(HeartbeatEvent::Lost),
            _ => tracing::debug!(%fid, %cookie, %error, "a heartbeat was not taken"),
        }
    }

    fn end(&self, key: ActionKey, reason: Stop) {
        match self.queue.cancel(key, reason) {
            Cancelled::Waiting(handle) if reason == Stop::Cancelled => {
                self.responder.settle(handle, Verdict::Cancelled);
            }
            // Nobody is left who would take an answer.
            Cancelled::Waiting(handle) => handle.forgotten(),
            Cancelled::Running | Cancelled::Unknown => {}
        }
    }
}
