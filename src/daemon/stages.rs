//! The stages behind the registration, and what ties them to the coordinator.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Signals, blocking};
use crate::action::{FileSystem, Kind, Verb, Verdict};
use crate::config::Settings;
use crate::intake::{Arrival, Heartbeat, Intake};
use crate::journal::Journal;
use crate::lustre::{Agent, Nudge, ReaderStats, Registrar};
use crate::queue::{Class, Queue};
use crate::store::Targets;
use crate::transfer::Stop;
use crate::types::{ArchiveId, Extent, HsmErrno};
use crate::worker::{Crew, Forgotten, Settler, Site, Tally, Witnesses};

/// For running actions that were told to stop: an abort of an upload each.
const STOP_GRACE: Duration = Duration::from_secs(30);
const SETTLERS: usize = 4;
/// Before an archive that was forgotten is asked for again.
const FORGOTTEN_PAUSE: Duration = Duration::from_secs(1);
const FORGOTTEN_LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Everything behind the intake; it can run without a registration.
pub(super) struct Stages {
    pub(super) queue: Arc<Queue>,
    settler: Arc<Settler>,
    pub(super) site: Site,
    crew: Crew,
    arrivals: std::sync::mpsc::Sender<Vec<Arrival>>,
    intake: JoinHandle<()>,
}

/// What ties the stages to the coordinator.
pub(super) struct Registration {
    registrar: Registrar,
    pub(super) heartbeat: Heartbeat,
    pub(super) stats: Arc<ReaderStats>,
}

impl Registration {
    /// For what wants another registration.
    pub(super) fn nudge(&self) -> Nudge {
        self.registrar.nudge()
    }

    pub(super) fn start(
        settings: &Settings,
        agent: Arc<Agent>,
        stages: &Stages,
        mounted_anew: tokio::sync::oneshot::Sender<()>,
    ) -> std::io::Result<Self> {
        let stats = Arc::new(ReaderStats::default());
        let registrar = Registrar::start(
            agent,
            stages.arrivals.clone(),
            Arc::clone(&stats),
            settings.keepalive,
            move || {
                // The daemon may be ending already.
                let _gone = mounted_anew.send(());
            },
        )?;
        let nudge = registrar.nudge();
        let heartbeat = Heartbeat::start(
            Arc::clone(&stages.queue),
            Arc::clone(&stages.settler),
            (Arc::clone(&stages.site.fs), Arc::clone(&stages.site.forgotten)),
            settings.heartbeat,
            move |_lost| nudge.nudge(),
        )?;
        Ok(Self {
            registrar,
            heartbeat,
            stats,
        })
    }
}

impl Stages {
    pub(super) fn start(
        settings: &Settings,
        fs: Arc<dyn FileSystem>,
        witnesses: Witnesses,
        targets: &Targets,
    ) -> std::io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let tally = Arc::new(Tally::default());
        let settler = Arc::new(Settler::start(SETTLERS, &tally)?);
        let journal = Arc::new(Journal::open(&settings.state_dir, fs.name(), &settings.mount));
        let pause = settings
            .heartbeat
            .running
            .clamp(FORGOTTEN_PAUSE, FORGOTTEN_LONGEST_PAUSE);
        let site = Site {
            fs,
            journal,
            tally,
            witnesses,
            forgotten: Arc::new(Forgotten::new(settings.forgotten, pause)),
        };
        let crew = Crew::start(
            settings.threads,
            settings.restore_threads,
            &queue,
            &settler,
            &site,
            targets,
            settings.transfer,
        )?;
        let (arrivals, inbox) = channel();
        let intake = Intake::new(
            Arc::clone(&queue),
            Arc::clone(&settler),
            Arc::clone(&site.journal),
            settings.heartbeat.waiting,
        );
        let intake = std::thread::Builder::new()
            .name("intake".into())
            .spawn(move || intake.run(&inbox))?;
        Ok(Self {
            queue,
            settler,
            site,
            crew,
            arrivals,
            intake,
        })
    }

    /// Takes over what a former daemon had in hand: an action belongs to its cookie, not to a process. Restores
    /// are done again, archives of unchanged files go on, and what the coordinator no longer knows ends at once.
    /// `served`: what is of another archive stays in the journal, for a daemon that can use it.
    pub(super) fn inherit(&self, agent: &Arc<Agent>, served: &[ArchiveId]) -> std::io::Result<()> {
        let mut items = self.site.journal.unfinished();
        let all = items.len();
        items.retain(|item| item.archive_id.is_none_or(|id| served.contains(&id)));
        if items.len() < all {
            let actions = all - items.len();
            tracing::warn!(actions, "left in the journal: their archive can't be used now");
        }
        if items.is_empty() {
            return Ok(());
        }
        tracing::info!(actions = items.len(), "taking over from a former daemon");
        // Somebody may wait for a restore.
        items.sort_by_key(Class::of);
        let (agent, arrivals, site) = (Arc::clone(agent), self.arrivals.clone(), self.site.clone());
        let queue = Arc::clone(&self.queue);
        std::thread::Builder::new().name("inherit".into()).spawn(move || {
            for item in items {
                let key = item.key();
                // What is not taken over yet stays in the journal, for the next daemon.
                if queue.is_parked() {
                    return;
                }
                // A remove asks the coordinator only when it is done: what it gave up must not begin.
                let arrivals_of_it = match site.fs.progress(key, Extent::EMPTY) {
                    Err(error) if error.is_not_found() => {
                        tracing::info!(fid = %key.fid, cookie = %key.cookie, "the coordinator gave this action up");
                        site.journal.ended(key);
                        if item.kind == Kind::Do(Verb::Archive) {
                            site.forgotten.note(key, item.archive_id);
                        }
                        continue;
                    }
                    Err(error) if error.errno == libc::ECANCELED => {
                        vec![Arrival::Inherited(agent.owe(item)), Arrival::Cancel(key)]
                    }
                    _ => vec![Arrival::Inherited(agent.owe(item))],
                };
                if arrivals.send(arrivals_of_it).is_err() {
                    return;
                }
            }
        })?;
        Ok(())
    }

    /// For `kill -USR1`.
    pub(super) fn log_status(&self, registration: &Registration) {
        let depth = self.queue.depth();
        let sum = |counts: &HashMap<Class, usize>| counts.values().sum::<usize>();
        tracing::info!(
            waiting = sum(&depth.waiting),
            running = sum(&depth.running),
            by_class = ?depth,
            unwritten = self.site.journal.unwritten(),
            heartbeats = ?registration.heartbeat.sent(),
            pipe = ?registration.stats,
            sums = ?self.site.tally.sums(),
            "status"
        );
    }

    /// Ends all in order. The reader goes on until the end: whatever the coordinator still sends is
    /// taken and answered. A second signal shortens the waiting.
    pub(super) async fn stop(self, registration: Option<Registration>, drain: Duration, signals: &mut Signals) {
        let start = Instant::now();
        let depth = self.queue.depth();
        tracing::info!(running = ?depth.running, waiting = ?depth.waiting, "stopping; running actions may finish");
        self.queue.park();
        if !self.idle_within(drain, signals).await {
            tracing::warn!("stopping the actions that still run");
            self.queue.stop_running(Stop::Shutdown);
            if !self.idle_within(STOP_GRACE, signals).await {
                // They are in a system call that does not return; their answers go with them.
                tracing::error!(running = ?self.queue.depth().running, "some actions can't be stopped");
            }
        }
        answer_waiting(&self.queue, &self.settler);
        if let Some(registration) = registration {
            let Registration {
                registrar,
                heartbeat,
                stats,
            } = registration;
            drop(heartbeat);
            // The kernel closes the pipe, what is in it is read, the reader joined.
            drop(registrar);
            tracing::debug!(?stats, "pipe closed");
        }
        let Self {
            queue,
            settler,
            site,
            crew,
            arrivals,
            intake,
        } = self;
        drop(arrivals);
        if intake.join().is_err() {
            tracing::error!("the intake panicked");
        }
        answer_waiting(&queue, &settler);
        // Everybody who waits has an answer, also when a worker is stuck in a system call.
        settler.finish();
        queue.close();
        if queue.wait_idle(Instant::now()) {
            crew.join();
        }
        tracing::info!(seconds = start.elapsed().as_secs_f64(), sums = ?site.tally.sums(), "stopped");
    }

    async fn idle_within(&self, limit: Duration, signals: &mut Signals) -> bool {
        let queue = Arc::clone(&self.queue);
        let idle = blocking(move || queue.wait_idle(Instant::now() + limit));
        tokio::select! {
            idle = idle => idle.unwrap_or(false),
            () = signals.wait() => {
                tracing::warn!("second signal");
                self.queue.wait_idle(Instant::now())
            }
        }
    }
}

/// Tells the coordinator at once, so that another mover gets what has not begun here.
fn answer_waiting(queue: &Queue, settler: &Settler) {
    for debt in queue.take_all_waiting() {
        settler.settle(debt, Verdict::try_again(HsmErrno::ESHUTDOWN));
    }
}
