//! The stages behind the registration, and what ties them to the coordinator.

use std::collections::{BTreeMap, HashMap};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Signals, blocking};
use crate::action::{FileSystem, Item, Verdict};
use crate::config::Settings;
use crate::crowd::Crowd;
use crate::intake::{Arrival, Finder, Heartbeat, Intake};
use crate::journal::Journal;
use crate::lustre::{Agent, Nudge, ReaderStats, Registrar};
use crate::mdt::Domain;
use crate::queue::{Class, Queue};
use crate::store::Targets;
use crate::transfer::Stop;
use crate::types::{ArchiveId, Extent, HsmErrno};
use crate::worker::{Crew, Settler, Site, Tally, Witnesses};

/// For running actions that were told to stop: an abort of an upload each.
const STOP_GRACE: Duration = Duration::from_secs(30);
/// For each MDT.
const SETTLERS: usize = 4;
/// For the answers of all that waited. What an MDT does not take in that time stays in the journal.
const LAST_ANSWERS: Duration = Duration::from_secs(20);
/// Until those that are taken over are sorted by MDT as well as can be.
const FIND: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(20);
/// For the journal's last changes, where somebody holds it open.
const LAST_CHANGES: Duration = Duration::from_secs(2);

/// Everything behind the intake; it can run without a registration.
pub(super) struct Stages {
    pub(super) queue: Arc<Queue>,
    settler: Arc<Settler>,
    finder: Arc<Finder>,
    pub(super) site: Site,
    crew: Crew,
    arrivals: std::sync::mpsc::Sender<Vec<Arrival>>,
    inlet: Inlet,
    intake: JoinHandle<()>,
}

/// The intake's door for threads that a dead MDT may hold: it is shut at the end, wherever they are.
type Inlet = Arc<Mutex<Option<std::sync::mpsc::Sender<Vec<Arrival>>>>>;

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
            Arc::clone(&stages.site.fs),
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
        let queue = Arc::new(Queue::new(fs.sequences(), settings.threads, settings.restore_threads));
        let finder = Arc::new(Finder::start(&fs)?);
        let tally = Arc::new(Tally::default());
        let settler = Arc::new(Settler::new(fs.sequences(), SETTLERS, &tally));
        let journal = Arc::new(Journal::open(&settings.state_dir, fs.name(), &settings.mount));
        let site = Site {
            fs,
            journal,
            tally,
            witnesses,
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
            Arc::clone(&finder),
            settings.heartbeat.waiting,
        );
        let intake = std::thread::Builder::new()
            .name("intake".into())
            .spawn(move || intake.run(&inbox))?;
        Ok(Self {
            queue,
            settler,
            finder,
            site,
            crew,
            inlet: Arc::new(Mutex::new(Some(arrivals.clone()))),
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
        let heir = Heir {
            agent: Arc::clone(agent),
            inlet: Arc::clone(&self.inlet),
            site: self.site.clone(),
            queue: Arc::clone(&self.queue),
        };
        let finder = Arc::clone(&self.finder);
        std::thread::Builder::new()
            .name("inherit".into())
            .spawn(move || heir.sort(items, &finder))?;
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
            finder,
            site,
            crew,
            arrivals,
            inlet,
            intake,
        } = self;
        drop(finder);
        drop(inlet.lock().unwrap_or_else(PoisonError::into_inner).take());
        drop(arrivals);
        if intake.join().is_err() {
            tracing::error!("the intake panicked");
        }
        answer_waiting(&queue, &settler);
        // Everybody who waits has an answer, also when a worker is stuck in a system call.
        settler.finish(LAST_ANSWERS);
        queue.close();
        if queue.wait_idle(Instant::now()) {
            crew.join();
        } else {
            let until = Instant::now() + LAST_CHANGES;
            while site.journal.unwritten() > 0 && Instant::now() < until {
                std::thread::park_timeout(LOOK);
            }
        }
        tracing::info!(seconds = start.elapsed().as_secs_f64(), sums = ?site.tally.sums(), "stopped");
    }

    async fn idle_within(&self, limit: Duration, signals: &mut Signals) -> bool {
        let queue = Arc::clone(&self.queue);
        let idle = blocking(move || queue.wait_done(Instant::now() + limit));
        tokio::select! {
            idle = idle => idle.unwrap_or(false),
            () = signals.wait() => {
                tracing::warn!("second signal");
                self.queue.wait_done(Instant::now())
            }
        }
    }
}

/// Who takes over what a former daemon had in hand: a thread for each MDT, for one that is dead answers nothing.
#[derive(Clone)]
struct Heir {
    agent: Arc<Agent>,
    inlet: Inlet,
    site: Site,
    queue: Arc<Queue>,
}

impl Heir {
    fn sort(self, items: Vec<Item>, finder: &Finder) {
        let until = Instant::now() + FIND;
        let mut unknown: Vec<_> = items.iter().map(|item| item.fid).collect();
        unknown.sort_unstable_by_key(|fid| fid.seq);
        unknown.dedup_by_key(|fid| fid.seq);
        loop {
            unknown.retain(|fid| !finder.find(*fid));
            if unknown.is_empty() || Instant::now() > until {
                break;
            }
            std::thread::park_timeout(LOOK);
        }
        let sequences = self.site.fs.sequences();
        let mut by_mdt: BTreeMap<Domain, Vec<Item>> = BTreeMap::new();
        for item in items {
            by_mdt.entry(sequences.domain(item.fid)).or_default().push(item);
        }
        let mut threads = Crowd::default();
        for (domain, items) in by_mdt {
            let name = domain.map_or_else(|| "inherit-?".to_owned(), |mdt| format!("inherit-{:x}", mdt.0));
            let (heir, rest) = (self.clone(), items.len());
            if let Err(error) = threads.spawn(name, move || heir.take_over(items)) {
                tracing::error!(%error, actions = rest, "left in the journal: no thread to take them over");
            }
        }
    }

    fn take_over(&self, items: Vec<Item>) {
        for item in items {
            let key = item.key();
            // What is not taken over yet stays in the journal, for the next daemon.
            if self.queue.is_parked() {
                return;
            }
            // A remove asks the coordinator only when it is done: what it gave up must not begin.
            let arrivals_of_it = match self.site.fs.progress(key, Extent::EMPTY) {
                Err(error) if error.is_not_found() => {
                    tracing::info!(fid = %key.fid, cookie = %key.cookie, "the coordinator gave this action up");
                    self.site.journal.ended(key);
                    continue;
                }
                Err(error) if error.errno == libc::ECANCELED => {
                    vec![Arrival::Inherited(self.agent.owe(item)), Arrival::Cancel(key)]
                }
                _ => vec![Arrival::Inherited(self.agent.owe(item))],
            };
            let inlet = self.inlet.lock().unwrap_or_else(PoisonError::into_inner);
            match &*inlet {
                Some(inlet) if !self.queue.is_parked() => {
                    if let Err(lost) = inlet.send(arrivals_of_it) {
                        return leave(lost.0);
                    }
                }
                // A stop came while it was asked.
                _ => return leave(arrivals_of_it),
            }
        }
    }
}

/// To the journal, which has them.
fn leave(arrivals: Vec<Arrival>) {
    for arrival in arrivals {
        if let Arrival::Inherited(debt) | Arrival::Owed(debt) = arrival {
            debt.disown();
        }
    }
}

/// Tells the coordinator at once, so that another mover gets what has not begun here.
fn answer_waiting(queue: &Queue, settler: &Settler) {
    let mut left = 0u64;
    for debt in queue.take_all_waiting() {
        if queue.is_silent(debt.item().fid) {
            left += 1;
            debt.disown();
        } else {
            settler.settle(debt, Verdict::try_again(HsmErrno::ESHUTDOWN));
        }
    }
    if left > 0 {
        tracing::warn!(
            actions = left,
            "not answered, for their MDT does not answer; the next daemon takes them over"
        );
    }
}
