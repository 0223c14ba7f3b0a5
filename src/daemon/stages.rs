//! The stages behind the registration, and what ties them to the coordinator.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::events::{BlockingCall, DaemonEvents};
use super::heir::FleetHeir;
use super::leave::{Leaving, keep_waiting, reason};
use super::takeover::Takeover;
use super::teller;
use crate::action::{Arrival, FileSystem, Verdict};
use crate::config::{OnStop, Settings};
use crate::intake::{Heartbeat, Intake, MdtFinder};
use crate::journal::Journal;
use crate::ledger::{Ledger, LedgerMover, MoverNode};
use crate::lustre::{Agent, ReaderStats, Registrar, RegistrarHandle};
use crate::queue::Queue;
use crate::store::Targets;
use crate::telemetry::{FifoUpdates, MetricsServer};
use crate::thread::{Supervisor, Thread};
use crate::types::{ArchiveId, HsmErrno};
use crate::worker::{Context, Forgotten, Observers, PoolSize, Responder, Sweeper, Tally, WorkerPool};

/// For running actions that were told to stop: an abort of an upload each.
const STOP_GRACE: Duration = Duration::from_secs(30);
/// For the threads that are told to end, where no other time is said: they do at once, or hang.
const STEP: Duration = Duration::from_secs(5);
/// For answers of what waited; a thousand take some seconds on a slow MDT.
const LAST_ANSWERS: Duration = Duration::from_secs(20);
/// For the sweeper's last look, and clients of the metrics.
const LAST_LOOK: Duration = Duration::from_secs(12);
/// For the journal.
const LAST_CHANGES: Duration = Duration::from_secs(10);
/// All of these together, and some slack. Keep `TimeoutStopSec` above `drain_timeout`, [`STOP_GRACE`] and this.
const LAST_STEPS: Duration = Duration::from_secs(60);
/// For the workers that do nothing while another one hangs.
const GLANCE: Duration = Duration::from_millis(500);
/// Between two looks at whether anything runs.
const LOOK: Duration = Duration::from_millis(10);
/// Of those that can't be stopped.
const NAMED: usize = 5;
/// For each MDT.
const RESPONDERS: usize = 4;
/// Before an archive that was forgotten is asked for again.
const FORGOTTEN_PAUSE: Duration = Duration::from_secs(1);
const FORGOTTEN_LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Everything behind the intake; it can run without a registration.
pub(super) struct Pipeline {
    pub(super) queue: Arc<Queue>,
    responder: Arc<Responder>,
    finder: Arc<MdtFinder>,
    pub(super) context: Context,
    /// Where the journal's changes also go.
    pub(super) ledger: Option<Arc<Ledger>>,
    pool: WorkerPool,
    arrivals: std::sync::mpsc::Sender<Vec<Arrival>>,
    intake: Thread,
    /// It takes over what a former daemon had in hand.
    inheriting: Option<Thread>,
    supervisor: Supervisor,
}

/// What ties the stages to the coordinator.
pub(super) struct Registration {
    /// `None`: it was given up, and nothing comes any more.
    registrar: Option<Registrar>,
    nudge: RegistrarHandle,
    /// What is taken over from a former daemon goes on by it, also when the registrar has been given up.
    _agent: Arc<Agent>,
    pub(super) heartbeat: Heartbeat,
    pub(super) stats: Arc<ReaderStats>,
}

impl Registration {
    /// For what wants another registration.
    pub(super) fn nudge(&self) -> RegistrarHandle {
        self.nudge.clone()
    }

    /// Whoever ends it has the coordinators give their work to others; what is in hand is reported alive as before.
    pub(super) const fn give_up(&mut self) -> Option<Registrar> {
        self.registrar.take()
    }

    pub(super) fn start(
        settings: &Settings,
        agent: Arc<Agent>,
        stages: &Pipeline,
        mounted_anew: tokio::sync::oneshot::Sender<()>,
    ) -> std::io::Result<Self> {
        let stats = Arc::new(ReaderStats::default());
        let registrar = Registrar::start(
            &stages.supervisor,
            Arc::clone(&agent),
            stages.arrivals.clone(),
            Arc::clone(&stats),
            settings.keepalive,
            move || {
                // The daemon may be ending already.
                let _gone = mounted_anew.send(());
            },
        )?;
        let (nudge, lost) = (registrar.nudge(), registrar.nudge());
        let heartbeat = Heartbeat::start(
            &stages.supervisor,
            Arc::clone(&stages.queue),
            Arc::clone(&stages.responder),
            (Arc::clone(&stages.context.fs), Arc::clone(&stages.context.forgotten)),
            settings.heartbeat,
            move |_lost| lost.nudge(),
        )?;
        Ok(Self {
            registrar: Some(registrar),
            nudge,
            _agent: agent,
            heartbeat,
            stats,
        })
    }
}

impl Pipeline {
    pub(super) fn start(
        supervisor: &Supervisor,
        settings: &Settings,
        (fs, node): (Arc<dyn FileSystem>, MoverNode),
        observers: Observers,
        targets: &Targets,
    ) -> std::io::Result<Self> {
        let queue = Arc::new(Queue::new(fs.sequences(), settings.threads, settings.restore_threads));
        let finder = Arc::new(MdtFinder::start(supervisor, &fs)?);
        let tally = Arc::new(Tally::default());
        let responder = Arc::new(Responder::new(supervisor, fs.sequences(), RESPONDERS, &tally));
        let journal = Arc::new(Journal::open(
            supervisor,
            &settings.state_dir,
            fs.name(),
            &settings.mount,
        ));
        let pause = settings
            .heartbeat
            .running
            .clamp(FORGOTTEN_PAUSE, FORGOTTEN_LONGEST_PAUSE);
        let ledger = start_ledger(supervisor, settings, (fs.as_ref(), node), &journal)?;
        let context = Context {
            fs,
            journal,
            tally,
            observers,
            forgotten: Arc::new(Forgotten::new(settings.forgotten, pause)),
            warrant: ledger.as_ref().map(|ledger| ledger.warrant()),
            others_copies: ledger.as_ref().and_then(|ledger| ledger.others_copies()),
        };
        let pool = WorkerPool::start(
            supervisor,
            PoolSize {
                threads: settings.threads,
                for_restores: settings.restore_threads,
            },
            &queue,
            &responder,
            &context,
            targets,
            settings.transfer,
        )?;
        let (arrivals, inbox) = channel();
        let intake = Intake::new(
            Arc::clone(&queue),
            Arc::clone(&responder),
            Arc::clone(&context.journal),
            Arc::clone(&finder),
            ledger.as_ref().map(|ledger| ledger.turns()),
            settings.heartbeat.waiting,
        );
        let last = arrivals.clone();
        let stop = move || {
            let _gone = last.send(vec![Arrival::Last]);
        };
        let intake = supervisor.serve("intake", stop, move || intake.run(&inbox))?;
        Ok(Self {
            queue,
            responder,
            finder,
            context,
            ledger,
            pool,
            arrivals,
            intake,
            inheriting: None,
            supervisor: supervisor.clone(),
        })
    }

    /// Takes over what a former daemon had in hand: an action belongs to its cookie, not to a process. Restores
    /// are done again, archives of unchanged files go on, and what the coordinator no longer knows ends at once.
    /// `served`: what is of another archive stays in the journal, until that can be used or for a daemon that can use it;
    /// the heir takes it over then. From here on it takes over from other movers, too, where there is a ledger, unless
    /// `draining` says that it takes nothing.
    pub(super) fn inherit(
        &mut self,
        agent: &Arc<Agent>,
        (targets, served): (&Targets, &[ArchiveId]),
        draining: &Arc<AtomicBool>,
    ) -> std::io::Result<Takeover> {
        let (mut items, mut left) = (Vec::new(), BTreeMap::<_, Vec<_>>::new());
        for item in self.context.journal.unfinished() {
            match item.archive_id.filter(|id| !served.contains(id)) {
                None => items.push(item),
                Some(id) => left.entry(id).or_default().push(item),
            }
        }
        if !left.is_empty() {
            let actions = left.values().map(Vec::len).sum::<usize>();
            tracing::warn!(actions, "left in the journal: their archive can't be used now");
        }
        let takeover = Takeover {
            supervisor: self.supervisor.clone(),
            agent: Arc::downgrade(agent),
            arrivals: self.arrivals.clone(),
            context: self.context.clone(),
            queue: Arc::clone(&self.queue),
            finder: Arc::clone(&self.finder),
            left: Arc::new(Mutex::new(left)),
            handing: Arc::default(),
            ledger: self.ledger.clone(),
        };
        // Behind the look at the journal: what is taken over from now on is not in it twice.
        if let Some(ledger) = &self.ledger {
            ledger.set_heir(Arc::new(FleetHeir::new(
                takeover.clone(),
                targets.clone(),
                Arc::clone(draining),
            )));
        }
        if !items.is_empty() {
            self.inheriting = Some(takeover.begin(items)?);
        }
        Ok(takeover)
    }

    /// For `kill -USR1`.
    pub(super) fn log_status(&self, registration: &Registration) {
        let depth = self.queue.depth();
        tracing::info!(
            waiting = depth.all_waiting(),
            running = depth.all_running(),
            by_class = %depth,
            unwritten = self.context.journal.unwritten(),
            heartbeats = registration.heartbeat.sent().load(Ordering::Relaxed),
            pipe_bytes = registration.stats.bytes.load(Ordering::Relaxed),
            pipe_messages = registration.stats.messages.load(Ordering::Relaxed),
            registrations = registration.stats.registrations.load(Ordering::Relaxed),
            ended = %ended(&self.context.tally),
            "status"
        );
    }

    /// Ends all in order. The reader goes on until the end: whatever the coordinator still sends is
    /// taken, and answered or kept as what was there before. A second signal shortens the waiting. Whatever an MDT does, it
    /// takes no longer than what `leaving` gives, [`STOP_GRACE`] and [`LAST_STEPS`].
    pub(super) async fn stop(
        self,
        registration: Option<Registration>,
        beside: SideThreads,
        leaving: Leaving,
        events: &mut DaemonEvents,
    ) {
        let start = Instant::now();
        let depth = self.queue.depth();
        let is_anything = depth.all_running() + depth.all_waiting() > 0;
        let on_stop = leaving.decide(&self.context.journal, &self.supervisor, is_anything);
        tracing::info!(
            running = depth.all_running(),
            waiting = depth.all_waiting(),
            "stopping; running actions may finish"
        );
        self.queue.park(reason(on_stop));
        if !self.idle_within(leaving.time_to_finish(on_stop), events).await {
            tracing::warn!("stopping the actions that still run");
            self.queue.stop_running(reason(on_stop));
            if !self.idle_within(STOP_GRACE, events).await {
                // They are in a system call that does not return; their answers go with them.
                let running = self.queue.running();
                let named: Vec<_> = running
                    .iter()
                    .take(NAMED)
                    .map(|action| {
                        format!(
                            "{} {} for {} s",
                            action.verb,
                            action.key.fid,
                            action.since.elapsed().as_secs()
                        )
                    })
                    .collect();
                tracing::error!(
                    running = running.len(),
                    actions = named.join(", "),
                    "some actions can't be stopped"
                );
            }
        }
        let supervisor = self.supervisor.clone();
        // Not here: whoever supervises the daemon is to hear that it lives.
        match BlockingCall::start(&supervisor, "end", move || {
            self.end(registration, beside, (&leaving, on_stop), start);
        }) {
            Ok(mut call) => match tokio::time::timeout(LAST_STEPS, call.done()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "not all could be ended in order"),
                Err(_) => tracing::error!("not all could be ended in order: it took too long"),
            },
            Err(error) => tracing::error!(%error, "there is no thread that ends the others in order"),
        }
    }

    /// The last steps. Each waits until a deadline: what a thread that hangs has in hand stays in the journal.
    fn end(
        self,
        registration: Option<Registration>,
        beside: SideThreads,
        (leaving, on_stop): (&Leaving, OnStop),
        start: Instant,
    ) {
        let Self {
            queue,
            responder,
            finder,
            context,
            ledger,
            pool,
            arrivals,
            mut intake,
            inheriting,
            supervisor: _,
        } = self;
        let within = |limit: Duration| Instant::now() + limit;
        let let_go = || match on_stop {
            // The disk may have failed since that was decided: what is on none is answered.
            OnStop::Keep if context.journal.keeps() => keep_waiting(&queue),
            OnStop::Keep | OnStop::Answer => answer_waiting(&queue, &responder),
        };
        let_go();
        let until = within(STEP);
        if let Some(mut registration) = registration {
            registration.heartbeat.thread().stop();
            // The kernel closes the pipe, what is in it is read.
            let mut registrar = registration.give_up();
            if let Some(registrar) = &mut registrar {
                registrar.thread().stop();
            }
            registration.heartbeat.thread().join(until);
            if let Some(registrar) = &mut registrar {
                registrar.thread().join(until);
            }
            let stats = registration.stats;
            tracing::debug!(
                bytes = stats.bytes.load(Ordering::Relaxed),
                messages = stats.messages.load(Ordering::Relaxed),
                items = stats.items.load(Ordering::Relaxed),
                "the pipe is no longer read"
            );
        }
        if let Some(mut inheriting) = inheriting {
            inheriting.join(until);
        }
        drop(arrivals);
        intake.join(within(STEP));
        finder.finish(within(GLANCE));
        let_go();
        // Everybody who is to be answered has an answer, also when a worker is stuck in a system call.
        if !responder.finish(within(LAST_ANSWERS)) {
            tracing::warn!(
                "not all that waited could be answered in time: it stays in the journal, for the next daemon"
            );
        }
        let is_idle = queue.wait_idle(Instant::now());
        pool.join(within(if is_idle { STEP } else { GLANCE }));
        if on_stop == OnStop::Keep {
            // Sent again, and taken back into the queue by a worker that let go of it only now.
            keep_waiting(&queue);
        }
        beside.end(within(LAST_LOOK));
        context.journal.finish(within(LAST_CHANGES));
        leaving.tell(&context);
        if let Some(ledger) = ledger {
            ledger.finish(within(STEP));
        }
        tracing::info!(
            seconds = start.elapsed().as_secs_f64(),
            ended = %ended(&context.tally),
            "stopped"
        );
    }

    async fn idle_within(&self, limit: Duration, events: &mut DaemonEvents) -> bool {
        let until = Instant::now() + limit;
        loop {
            if self.queue.wait_done(Instant::now()) {
                return true;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            tokio::select! {
                () = tokio::time::sleep(left.min(LOOK)) => {}
                () = events.told() => {
                    tracing::warn!("second signal");
                    return self.queue.wait_done(Instant::now());
                }
            }
        }
    }
}

/// The copy of the journal that other movers read, where there is one.
fn start_ledger(
    supervisor: &Supervisor,
    settings: &Settings,
    (fs, node): (&dyn FileSystem, MoverNode),
    journal: &Arc<Journal>,
) -> std::io::Result<Option<Arc<Ledger>>> {
    let Some(options) = &settings.ledger else {
        return Ok(None);
    };
    if settings.fence.is_some() && (node.nids.is_empty() || node.client_uuid.is_none()) {
        tracing::warn!(
            nids = node.nids.join(" "),
            uuid = node.client_uuid.as_deref(),
            "not all is known here by which the servers could be told to evict this node if it dies: its NIDs (`nids` in \
             section [fleet] can name them), and what they know its mount by. The fence commands of others lack it"
        );
    }
    let mover = LedgerMover {
        name: options
            .name
            .clone()
            .unwrap_or_else(|| format!("{}:{}", node.host, settings.mount.display())),
        // It is known once somebody listens there.
        address: None,
        archive_ids: settings.targets.iter().map(|target| target.archive_id).collect(),
        node,
        fence: settings.fence.clone(),
        file_system: fs.name().to_owned(),
        sequences: fs.sequences(),
        told: teller::before(&settings.targets),
    };
    let ledger = Ledger::start(supervisor, options, mover, journal)?;
    Ok(Some(Arc::new(ledger)))
}

/// What runs beside the stages.
#[derive(Default)]
pub(super) struct SideThreads {
    pub(super) metrics: Option<MetricsServer>,
    pub(super) updates: Option<FifoUpdates>,
    pub(super) sweeper: Option<Sweeper>,
}

impl SideThreads {
    fn end(self, until: Instant) {
        let Self {
            mut metrics,
            mut updates,
            mut sweeper,
        } = self;
        let metrics = metrics.as_mut().map(MetricsServer::threads);
        let updates = updates.as_mut().map(FifoUpdates::thread);
        let sweeper = sweeper.as_mut().map(Sweeper::thread);
        let mut threads: Vec<_> = updates.into_iter().chain(sweeper).collect();
        threads.iter_mut().for_each(|thread| thread.stop());
        if let Some(metrics) = metrics {
            metrics.join(until);
        }
        for thread in threads {
            thread.join(until);
        }
    }
}

/// What has ended so far, in words.
fn ended(tally: &Tally) -> String {
    let sums = tally.sums();
    let all: Vec<_> = sums
        .iter()
        .map(|((archive, class), sums)| {
            format!(
                "{} of archive {archive}: {} done ({} bytes), {} failed, {} cancelled",
                class.word(),
                sums.done,
                sums.bytes,
                sums.failed,
                sums.cancelled
            )
        })
        .collect();
    if all.is_empty() {
        "nothing".into()
    } else {
        all.join("; ")
    }
}

/// Tells the coordinator at once, so that another mover gets what has not begun here.
fn answer_waiting(queue: &Queue, responder: &Responder) {
    let mut offered = 0u64;
    for handle in queue.take_aside() {
        offered += 1;
        handle.disown();
    }
    if offered > 0 {
        tracing::warn!(
            actions = offered,
            "not answered, for other movers may have them: they were offered to them. Those that nobody has are taken over from \
             this mover, or by its next daemon"
        );
    }
    let mut left = 0u64;
    for handle in queue.take_all_waiting() {
        if queue.is_silent(handle.item().fid) {
            left += 1;
            handle.disown();
        } else {
            responder.settle(handle, Verdict::try_again(HsmErrno::ESHUTDOWN));
        }
    }
    if left > 0 {
        tracing::warn!(
            actions = left,
            "not answered, for their MDT does not answer; the next daemon takes them over"
        );
    }
}
