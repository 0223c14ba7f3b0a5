//! The daemon: wires the stages together, and takes them down again in order.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::channel;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use crate::action::{FileSystem, Item, Verdict};
use crate::config::{ConfigError, Settings};
use crate::intake::{Arrival, Heartbeat, Intake};
use crate::journal::Journal;
use crate::lustre::{Agent, AgentError, Library, LibraryError, Mount, MountError, ReaderStats, Registrar};
use crate::queue::{Class, Queue};
use crate::store::{StartError, Target};
use crate::telemetry::{self, Completions, EventFifo, FifoUpdates, FifoWitness, Link, MetricsServer, Pulse, Sources};
use crate::transfer::Stop;
use crate::types::{ArchiveId, Extent, HsmErrno};
use crate::worker::{Crew, Ending, Settler, Site, Sweeper, Tally, Witness, Witnesses};

/// For a store's first answer; one that is silent is no reason not to start.
const CHECK: Duration = Duration::from_secs(5);
/// For running actions that were told to stop: an abort of an upload each.
const STOP_GRACE: Duration = Duration::from_secs(30);
const SETTLERS: usize = 4;
const REGISTER_PAUSE: Duration = Duration::from_secs(1);
const REGISTER_LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Why the daemon does not run. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// liblustreapi.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// The mount point.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// A bucket.
    #[error(transparent)]
    Store(#[from] StartError),
    /// The registration.
    #[error("can't register as a copytool for '{}': {source}", mount.display())]
    Agent {
        /// The mount point.
        mount: PathBuf,
        /// Why.
        source: AgentError,
    },
    /// The mount that is served was replaced.
    #[error("'{}' was mounted anew while it was served; start again to serve the new mount (systemd does)", .0.display())]
    MountedAnew(PathBuf),
    /// The address of the metrics.
    #[error("can't serve metrics on {listen}: {source}. Correct `listen` in section [metrics]")]
    Metrics {
        /// As configured.
        listen: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The FIFO of events, or the completion log.
    #[error("can't write '{}': {source}. Correct `{key}` of the configuration", path.display())]
    Output {
        /// Section and key.
        key: &'static str,
        /// As configured.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// `--abort-on-error`.
    #[error("an action failed: {0}")]
    Aborted(String),
    /// Threads, signals.
    #[error("can't start: {0}")]
    System(#[from] std::io::Error),
}

/// Runs until a signal ends it. SIGHUP has the configuration read again.
///
/// # Errors
/// What keeps it from starting.
pub fn run(settings: &Settings, how: How, reload: Reload<'_>) -> Result<(), DaemonError> {
    // The control runtime: signals and credentials. Data moves on the workers' own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(settings, how, reload))
}

/// How it runs beside what is configured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct How {
    /// It ends at the first action that fails.
    pub abort_on_error: bool,
    /// It looks at everything and serves nothing.
    pub dry_run: bool,
}

/// Reads the configuration again.
pub type Reload<'a> = &'a dyn Fn() -> Result<Settings, ConfigError>;

async fn serve(settings: &Settings, how: How, reload: Reload<'_>) -> Result<(), DaemonError> {
    let mut signals = Signals::new()?;
    let mut status = signal(SignalKind::user_defined1())?;
    let mut hup = signal(SignalKind::hangup())?;
    let library = Library::open(&settings.library)?;
    let mount = Arc::new(Mount::open(library, &settings.mount)?);
    let mut targets = Vec::new();
    for options in &settings.targets {
        let target = Target::resolve(options.clone()).await?;
        target.check(CHECK).await?;
        targets.push(Arc::new(target));
    }
    tracing::info!(
        mount = %settings.mount.display(),
        fsname = mount.name(),
        archives = ?settings.targets.iter().map(|t| t.archive_id.get()).collect::<Vec<_>>(),
        version = env!("CARGO_PKG_VERSION"),
        "starting"
    );
    if how.dry_run {
        tracing::info!("a dry run: nothing is registered");
        return Ok(());
    }
    let Outputs {
        witnesses,
        fifo,
        failure,
    } = Outputs::open(settings, &mount, how)?;
    let stages = Stages::start(settings, Arc::clone(&mount) as Arc<dyn FileSystem>, witnesses, &targets)?;
    let link = Arc::new(OnceLock::new());
    let sources = Sources {
        mount: settings.mount.clone(),
        threads: (settings.threads, settings.restore_threads),
        queue: Arc::clone(&stages.queue),
        site: stages.site.clone(),
        targets: targets.clone(),
        link: Arc::clone(&link),
    };
    let mut pulse = Pulse::new(sources.clone());
    let metrics = settings
        .metrics
        .map(|listen| MetricsServer::start(listen, sources).map_err(|source| DaemonError::Metrics { listen, source }));
    let _metrics = metrics.transpose()?;
    let Some(agent) = register(settings, &mount, &mut signals).await? else {
        stages.stop(None, settings.drain_timeout, &mut signals).await;
        return Ok(());
    };
    let (tell, mut mounted_anew) = tokio::sync::oneshot::channel();
    stages.inherit(&agent)?;
    let registration = Registration::start(settings, agent, &stages, tell)?;
    // Set once, here.
    let _first = link.set(Link {
        reader: Arc::clone(&registration.stats),
        heartbeats: Arc::clone(registration.heartbeat.sent()),
    });
    tracing::info!("registered; serving");
    telemetry::ready("registered; serving");
    let updates = match &fifo {
        Some(fifo) => {
            fifo.registered();
            let (fifo, queue) = (Arc::clone(fifo), Arc::clone(&stages.queue));
            Some(FifoUpdates::start(fifo, queue, settings.event_interval)?)
        }
        None => None,
    };
    let sweeper = Sweeper::start(
        &stages.queue,
        &stages.site,
        &targets,
        settings.transfer,
        settings.abort_uploads_after,
    )?;
    let mut beat = tokio::time::interval(pulse.every());
    let result = loop {
        tokio::select! {
            _ = beat.tick() => pulse.beat(),
            () = failure.notified() => {
                let last = stages.site.tally.failures_after(0).pop();
                break Err(DaemonError::Aborted(last.map(|last| last.reason).unwrap_or_default()));
            }
            () = signals.wait() => break Ok(()),
            Ok(()) = &mut mounted_anew => break Err(DaemonError::MountedAnew(settings.mount.clone())),
            _ = status.recv() => stages.log_status(&registration),
            _ = hup.recv() => apply(settings, &reload(), &targets),
        }
    };
    telemetry::stopping();
    stages
        .stop(Some(registration), settings.drain_timeout, &mut signals)
        .await;
    drop(updates);
    drop(fifo);
    drop(sweeper);
    result
}

/// What can change while it runs changes; what can't is said.
fn apply(running: &Settings, read: &Result<Settings, ConfigError>, targets: &[Arc<Target>]) {
    let new = match read {
        Ok(new) => new,
        Err(error) => {
            tracing::error!(%error, "not reloaded; going on as before");
            return;
        }
    };
    let mut rest = new.clone();
    for target in targets {
        let id = target.options().archive_id;
        let Some(options) = rest.targets.iter_mut().find(|options| options.archive_id == id) else {
            continue;
        };
        let (up, down) = (options.upload_bandwidth, options.download_bandwidth);
        target.limits().upload.set(up);
        target.limits().download.set(down);
        tracing::info!(archive = id.get(), upload_bandwidth = ?up, download_bandwidth = ?down, "reloaded");
        // Compared below: whatever else differs needs a restart.
        options.upload_bandwidth = target.options().upload_bandwidth;
        options.download_bandwidth = target.options().download_bandwidth;
    }
    if rest.log_level != running.log_level {
        let changed = telemetry::set_level(&rest.log_level);
        tracing::info!(level = rest.log_level, changed, "log level");
        rest.log_level.clone_from(&running.log_level);
    }
    // It takes as long as their source and the store do; nobody waits for it.
    drop(tokio::spawn(reload_credentials(targets.to_vec())));
    if rest != *running {
        tracing::warn!("the configuration has other changes, too: they hold after a restart");
    }
}

async fn reload_credentials(targets: Vec<Arc<Target>>) {
    for target in targets {
        let archive = target.options().archive_id.get();
        match target.reload_credentials(CHECK).await {
            Ok(true) => tracing::info!(archive, "new credentials"),
            Ok(false) => {}
            Err(error) => tracing::error!(archive, %error, "credentials not reloaded; going on with those before"),
        }
    }
}

/// Registers; waits for a coordinator that is stopped. `None`: told to end meanwhile.
async fn register(
    settings: &Settings,
    mount: &Arc<Mount>,
    signals: &mut Signals,
) -> Result<Option<Arc<Agent>>, DaemonError> {
    let archives: Vec<ArchiveId> = settings.targets.iter().map(|target| target.archive_id).collect();
    let mut pause = REGISTER_PAUSE;
    loop {
        let (mount, archives) = (Arc::clone(mount), archives.clone());
        let source = match blocking(move || Agent::register(mount, archives)).await? {
            Ok(agent) => return Ok(Some(Arc::new(agent))),
            Err(error) => error,
        };
        if !source.is_transient() {
            return Err(DaemonError::Agent {
                mount: settings.mount.clone(),
                source,
            });
        }
        tracing::warn!(error = %source, retry_s = pause.as_secs(), "can't register yet");
        // It runs, and nobody else could do more.
        telemetry::ready("waiting for the coordinator");
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = signals.wait() => return Ok(None),
        }
        pause = (pause * 2).min(REGISTER_LONGEST_PAUSE);
    }
}

/// Everything behind the intake; it can run without a registration.
struct Stages {
    queue: Arc<Queue>,
    settler: Arc<Settler>,
    site: Site,
    crew: Crew,
    arrivals: std::sync::mpsc::Sender<Vec<Arrival>>,
    intake: JoinHandle<()>,
}

/// What ties the stages to the coordinator.
struct Registration {
    registrar: Registrar,
    heartbeat: Heartbeat,
    stats: Arc<ReaderStats>,
}

impl Registration {
    fn start(
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
    fn start(
        settings: &Settings,
        fs: Arc<dyn FileSystem>,
        witnesses: Witnesses,
        targets: &[Arc<Target>],
    ) -> std::io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let tally = Arc::new(Tally::default());
        let settler = Arc::new(Settler::start(SETTLERS, &tally)?);
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
    fn inherit(&self, agent: &Arc<Agent>) -> std::io::Result<()> {
        let mut items = self.site.journal.unfinished();
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
    fn log_status(&self, registration: &Registration) {
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
    async fn stop(self, registration: Option<Registration>, drain: Duration, signals: &mut Signals) {
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

/// Who is told of actions.
struct Outputs {
    witnesses: Witnesses,
    fifo: Option<Arc<EventFifo>>,
    /// Notified at the first failure, where that ends it.
    failure: Arc<tokio::sync::Notify>,
}

impl Outputs {
    fn open(settings: &Settings, mount: &Mount, how: How) -> Result<Self, DaemonError> {
        let mut all: Vec<Box<dyn Witness>> = Vec::new();
        if let Some(options) = &settings.completions {
            let log = Completions::open(options.clone()).map_err(|source| DaemonError::Output {
                key: "path in section [completions]",
                path: options.path.clone(),
                source,
            })?;
            all.push(Box::new(log));
        }
        let fifo = match &settings.event_fifo {
            None => None,
            Some(path) => {
                let uuid = mount.client_uuid().unwrap_or_default();
                let fifo = EventFifo::open(path, &settings.mount, settings.targets.len(), uuid);
                let fifo = Arc::new(fifo.map_err(|source| DaemonError::Output {
                    key: "fifo in section [events]",
                    path: path.clone(),
                    source,
                })?);
                all.push(Box::new(FifoWitness(Arc::clone(&fifo))));
                Some(fifo)
            }
        };
        let failure = Arc::new(tokio::sync::Notify::new());
        if how.abort_on_error {
            all.push(Box::new(Abort(Arc::clone(&failure))));
        }
        Ok(Self {
            witnesses: Witnesses::new(all),
            fifo,
            failure,
        })
    }
}

/// Ends the daemon at the first failure.
#[derive(Debug)]
struct Abort(Arc<tokio::sync::Notify>);

impl Witness for Abort {
    fn started(&self, _: &dyn FileSystem, _: &Item) {}

    fn ended(&self, _: &dyn FileSystem, ending: &Ending<'_>) {
        if let Verdict::Failed { .. } = ending.verdict {
            self.0.notify_one();
        }
    }
}

/// Tells the coordinator at once, so that another mover gets what has not begun here.
fn answer_waiting(queue: &Queue, settler: &Settler) {
    for debt in queue.take_all_waiting() {
        settler.settle(debt, Verdict::try_again(HsmErrno::ESHUTDOWN));
    }
}

/// Runs what blocks on a thread of its own; one at a time, at the start and at the end.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> std::io::Result<T> {
    let (done, result) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("control-call".into()).spawn(move || {
        // Nobody waits any more after a second signal.
        let _unwanted = done.send(work());
    })?;
    result.await.map_err(std::io::Error::other)
}

struct Signals {
    term: tokio::signal::unix::Signal,
    int: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
        })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}
