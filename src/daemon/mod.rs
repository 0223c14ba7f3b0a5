//! The daemon: wires the stages together, and takes them down again in order.

mod events;
mod heir;
mod launch;
mod leave;
mod outputs;
mod reach;
mod reload;
mod stages;
mod takeover;
mod teller;

use std::cell::Cell;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::MissedTickBehavior;

use self::events::{BlockingCall, DaemonEvents};
pub use self::launch::{Background, PidFile, Starter, into_background};
use self::leave::{Draining, Leaving};
use self::outputs::Outputs;
use self::reload::{Reloader, UnusableArchives};
use self::stages::{Pipeline, Registration, SideThreads};
use self::teller::FleetTeller;
use crate::action::FileSystem;
use crate::config::{ConfigError, Settings};
use crate::ledger::{MoverNode, UploadsInHand};
use crate::lustre::{
    Agent, AgentError, AgentTrace, Identify, Library, LibraryError, Mount, MountError, MountLock, other_tool, own_nids,
};
use crate::store::{StartError, Targets};
use crate::telemetry::{self, FifoUpdates, MetricsServer, ReaderLink, StatusNotifier, TelemetrySources};
use crate::thread::{StuckThread, Supervisor, ThreadDeath};
use crate::types::ArchiveId;
use crate::worker::Sweeper;

/// For a store's first answer; one that is silent is no reason not to start.
const CHECK: Duration = Duration::from_secs(5);
/// For an MDT's answer, in between as `keepalive` is.
const SHORTEST_PATIENCE: Duration = Duration::from_secs(1);
const LONGEST_PATIENCE: Duration = Duration::from_secs(10);
const REGISTER_PAUSE: Duration = Duration::from_secs(1);
const REGISTER_LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// For a call of Lustre's that is under way when it is told to end.
const CALL_GRACE: Duration = Duration::from_secs(3);
/// As systemd is told.
const WAITING: &str = "waiting for the coordinator";

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
        /// The mount point that was to be served.
        mount: PathBuf,
        /// Why there is no registration.
        source: AgentError,
    },
    /// The mount that is served was replaced.
    #[error("'{}' was mounted anew while it was served; start again to serve the new mount (systemd does)", .0.display())]
    MountedAnew(PathBuf),
    /// The address of the metrics.
    #[error("can't serve metrics on {listen}: {source}. Correct `listen` in section [metrics]")]
    Metrics {
        /// `listen` of `[metrics]`.
        listen: SocketAddr,
        /// The system's error.
        source: std::io::Error,
    },
    /// The FIFO of events, or the completion log.
    #[error("can't write '{}': {source}. Correct `{key}` of the configuration", path.display())]
    Output {
        /// Section and key.
        key: &'static str,
        /// What can not be written.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// Whoever started it wants something that can't be had.
    #[error("{0}")]
    Started(String),
    /// One of its threads.
    #[error("{0}. Its work would not be done any more: start again (systemd does). This is a defect: please report it")]
    Died(#[from] ThreadDeath),
    /// `--abort-on-error`.
    #[error("an action failed: {0}")]
    Aborted(String),
    /// Threads, signals.
    #[error("can't start: {0}")]
    System(#[from] std::io::Error),
}

/// Runs until a signal ends it. SIGHUP has the configuration read again, SIGUSR2 has it end when all that it has is
/// done. A thread that dies ends it, too: its work would not be done any more.
///
/// # Errors
/// What keeps it from starting, or from going on.
pub fn run(
    settings: &Settings,
    how: RunMode,
    calls: DaemonHooks<'_>,
    supervisor: &Supervisor,
) -> Result<(), DaemonError> {
    // The control runtime: signals and credentials. Data moves on the workers' own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(serve(settings, how, calls, supervisor));
    // A look-up of a name may be under way; nobody wants it.
    runtime.shutdown_background();
    tell_held(&supervisor.held());
    result
}

/// How it runs beside what is configured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RunMode {
    /// It ends at the first action that fails.
    pub abort_on_error: bool,
    /// It looks at everything and serves nothing.
    pub dry_run: bool,
}

/// Reads the configuration again.
pub type Reload<'a> = &'a dyn Fn() -> Result<Settings, ConfigError>;

/// What it calls whoever started it for.
#[derive(Clone, Copy)]
pub struct DaemonHooks<'a> {
    /// Reads the configuration again.
    pub reload: Reload<'a>,
    /// It is registered and serves, from now on. The error is why it can't go on nevertheless.
    pub registered: &'a dyn Fn() -> Result<(), String>,
}

impl fmt::Debug for DaemonHooks<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calls").finish_non_exhaustive()
    }
}

async fn serve(
    settings: &Settings,
    how: RunMode,
    calls: DaemonHooks<'_>,
    supervisor: &Supervisor,
) -> Result<(), DaemonError> {
    let mut events = DaemonEvents::new(supervisor)?;
    let mut status = signal(SignalKind::user_defined1())?;
    let mut hup = signal(SignalKind::hangup())?;
    let mut drain = signal(SignalKind::user_defined2())?;
    let Some(OpenedMount { mount, lock, node }) = open(settings, how, supervisor, &mut events).await? else {
        return Ok(());
    };
    let Some(found) = events.unless_ending(Box::pin(find_targets(settings, how))).await? else {
        return Ok(());
    };
    let (targets, missing) = found?;
    tracing::info!(
        mount = %settings.mount.display(),
        fsname = mount.name(),
        archives = ?ids(&targets).iter().map(|id| id.get()).collect::<Vec<_>>(),
        version = env!("CARGO_PKG_VERSION"),
        "starting"
    );
    let Some(lock) = lock else {
        tracing::info!("a dry run: nothing is registered");
        return Ok(());
    };
    mount.serve(supervisor, &settings.state_dir);
    let Outputs {
        observers,
        fifo,
        failure,
    } = Outputs::open(settings, node.client_uuid.clone().unwrap_or_default(), how)?;
    let fs = Arc::clone(&mount) as Arc<dyn FileSystem>;
    let mut stages = Pipeline::start(supervisor, settings, (fs, node), observers, &targets)?;
    let link = Arc::new(OnceLock::new());
    let sources = TelemetrySources {
        mount: settings.mount.clone(),
        threads: (settings.threads, settings.restore_threads),
        queue: Arc::clone(&stages.queue),
        context: stages.context.clone(),
        targets: targets.clone(),
        ledger: stages.ledger.clone(),
        link: Arc::clone(&link),
        draining: Arc::new(AtomicBool::new(false)),
    };
    let is_draining = Arc::clone(&sources.draining);
    if let Some(ledger) = &stages.ledger {
        // Before anything is moved: limits of the whole fleet are divided from here on.
        ledger.set_teller(Arc::new(FleetTeller::new(&sources)));
    }
    let mut leaving = Leaving::new(settings, mount.path());
    let metrics = settings.metrics.map(|listen| {
        let server = MetricsServer::start(supervisor, listen, &sources);
        server.map_err(|source| DaemonError::Metrics { listen, source })
    });
    let mut beside = SideThreads {
        metrics: metrics.transpose()?,
        ..SideThreads::default()
    };
    if let (Some(metrics), Some(ledger)) = (&beside.metrics, &stages.ledger) {
        ledger.listens_at(metrics.address_for_others());
    }
    let mut pulse = StatusNotifier::new(sources);
    let registered = register(
        settings,
        supervisor,
        (&mount, &lock),
        &targets,
        (&mut events, &mut drain),
    )
    .await;
    let agent = match registered {
        Ok(Registered::Agent(agent)) => agent,
        other => {
            // There is nothing to be done before.
            if let Ok(Registered::Drained) = other {
                leaving.drains(&stages.context.tally);
            }
            telemetry::stopping();
            let stop = stages.stop(None, beside, leaving, &mut events);
            beating(&mut pulse, stop).await;
            return other.map(drop);
        }
    };
    let (tell, mut mounted_anew) = tokio::sync::oneshot::channel();
    let takeover = stages.inherit(&agent, (&targets, &ids(&targets)), &is_draining)?;
    let handing = Arc::clone(&takeover.handing);
    let mut registration = Registration::start(settings, agent, &stages, tell)?;
    leaving.forget_former();
    // Set once, here.
    let _first = link.set(ReaderLink {
        reader: Arc::clone(&registration.stats),
        heartbeats: Arc::clone(registration.heartbeat.sent()),
    });
    tracing::info!("registered; serving");
    events.ready("registered; serving");
    if let Some(fifo) = &fifo {
        fifo.registered();
        let (fifo, queue) = (Arc::clone(fifo), Arc::clone(&stages.queue));
        beside.updates = Some(FifoUpdates::start(supervisor, fifo, queue, settings.event_interval)?);
    }
    beside.sweeper = Some(Sweeper::start(
        supervisor,
        &stages.queue,
        &stages.context,
        &targets,
        settings.transfer,
        settings.abort_uploads_after,
        settings
            .ledger
            .as_ref()
            .map(|ledger| UploadsInHand::new(ledger, mount.name())),
    )?);
    let reloader = Reloader {
        running: settings,
        read: calls.reload,
        targets,
        nudge: registration.nudge(),
        takeover,
        missing,
        on_stop: Cell::new(settings.on_stop),
    };
    drop(tokio::spawn(reloader.look_again()));
    let mut beat = tokio::time::interval(telemetry::beat_interval());
    let mut look = tokio::time::interval(leave::LOOK);
    // They are to be apart, also the first ones.
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut draining = None;
    let result = match (calls.registered)() {
        Err(what) => Err(DaemonError::Started(what)),
        Ok(()) => loop {
            tokio::select! {
                _ = beat.tick() => pulse.beat(),
                () = failure.notified() => {
                    let last = stages.context.tally.failures_after(0).pop();
                    break Err(DaemonError::Aborted(last.map(|last| last.reason).unwrap_or_default()));
                }
                ended = events.ending() => break ended,
                Ok(()) = &mut mounted_anew, if draining.is_none() => break Err(DaemonError::MountedAnew(settings.mount.clone())),
                _ = status.recv() => stages.log_status(&registration),
                _ = hup.recv() => reloader.reload(),
                _ = drain.recv(), if draining.is_none() => {
                    leaving.drains(&stages.context.tally);
                    is_draining.store(true, Ordering::Relaxed);
                    draining = Some(Draining::begin(supervisor, &mut registration, Arc::clone(&handing)));
                }
                _ = look.tick(), if draining.is_some() => {
                    if draining.as_mut().is_some_and(|draining| draining.is_over(&stages.queue)) {
                        break Ok(());
                    }
                }
            }
        },
    };
    leaving.change(reloader.on_stop.get());
    telemetry::stopping();
    let stop = stages.stop(Some(registration), beside, leaving, &mut events);
    beating(&mut pulse, stop).await;
    drop(fifo);
    result
}

/// Does it, and goes on telling systemd how it is.
async fn beating(pulse: &mut StatusNotifier, work: impl Future<Output = ()>) {
    let mut work = std::pin::pin!(work);
    let mut beat = tokio::time::interval(telemetry::beat_interval());
    loop {
        tokio::select! {
            () = &mut work => return,
            _ = beat.tick() => pulse.beat(),
        }
    }
}

/// The process may have to wait for these, whoever kills it.
fn tell_held(held: &[StuckThread]) {
    let threads = held.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if held.iter().any(StuckThread::is_unkillable) {
        tracing::error!(
            threads,
            "these threads did not end in time: the kernel holds them in a call, mostly because an MDT does not answer, \
             and before it lets go of them nothing can kill the process. What they had in hand is in the journal, for \
             the next daemon"
        );
    } else if !held.is_empty() {
        tracing::error!(
            threads,
            "these threads did not end in time; they end with the process. What they had in hand is in the journal, for \
             the next daemon"
        );
    }
}

/// A mount.
struct OpenedMount {
    mount: Arc<Mount>,
    /// What keeps a second daemon off it; not for a dry run.
    lock: Option<Arc<MountLock>>,
    /// What servers know it and its node by, as far as somebody wants to know.
    node: MoverNode,
}

/// The mount point, locked before anything else is opened that a daemon has. `None`: told to end meanwhile.
async fn open(
    settings: &Settings,
    how: RunMode,
    supervisor: &Supervisor,
    events: &mut DaemonEvents,
) -> Result<Option<OpenedMount>, DaemonError> {
    let library = Library::open(&settings.library)?;
    let (path, nids) = (settings.mount.clone(), settings.nids.clone());
    let (is_in_fleet, has_events) = (settings.ledger.is_some(), settings.event_fifo.is_some());
    let (left_out, migrates) = (settings.system_xattrs.clone(), settings.migrate_hsm_allowed);
    let mut call = BlockingCall::start(supervisor, "mount", move || {
        let identify = if how.dry_run { Identify::Find } else { Identify::Make };
        let mount = Mount::open(library, &path, identify)?
            .leaving_out(&left_out)
            .migrating(migrates);
        let lock = (!how.dry_run).then(|| MountLock::take_soon(&mount)).transpose();
        let is_named = is_in_fleet || has_events;
        let node = MoverNode {
            host: telemetry::host(),
            nids: nids.unwrap_or_else(|| if is_in_fleet { own_nids() } else { Vec::new() }),
            client_uuid: is_named.then(|| mount.client_uuid()).flatten(),
        };
        Ok::<_, MountError>((mount, lock, node))
    })?;
    let Some(opened) = events.wait("waiting for the file system", call.done()).await? else {
        call.give_up(CALL_GRACE);
        return Ok(None);
    };
    let (mount, lock, node) = opened??;
    let lock = lock.map_err(|source| no_agent(settings, source))?;
    Ok(Some(OpenedMount {
        mount: Arc::new(mount),
        lock: lock.map(Arc::new),
        node,
    }))
}

fn no_agent(settings: &Settings, source: AgentError) -> DaemonError {
    DaemonError::Agent {
        mount: settings.mount.clone(),
        source,
    }
}

/// The archives' buckets. One that can't be used is no reason not to serve the others, as long as there are any.
async fn find_targets(settings: &Settings, how: RunMode) -> Result<(Targets, UnusableArchives), DaemonError> {
    let (targets, missing) = (Targets::default(), UnusableArchives::default());
    let mut refused = Vec::new();
    for options in &settings.targets {
        match reload::find(options.clone(), (!how.dry_run).then_some(CHECK)).await {
            Ok(target) => {
                targets.add(target);
            }
            // A dry run is there to be told.
            Err(error) if how.dry_run => return Err(error.into()),
            Err(error) => refused.push((options.clone(), error)),
        }
    }
    if targets.count() > 0 {
        for (options, error) in refused {
            missing.tell(options, &error);
        }
        return Ok((targets, missing));
    }
    match refused.into_iter().next() {
        Some((_, error)) => Err(error.into()),
        None => Ok((targets, missing)),
    }
}

fn ids(targets: &Targets) -> Vec<ArchiveId> {
    targets.all().iter().map(|target| target.options().archive_id).collect()
}

/// How waiting for the coordinators ended.
enum Registered {
    Agent(Arc<Agent>),
    /// Told to end meanwhile.
    Ending,
    /// Told to take nothing.
    Drained,
}

/// Registers; waits for a coordinator that is stopped, and for an MDT that does not answer.
async fn register(
    settings: &Settings,
    supervisor: &Supervisor,
    (mount, lock): (&Arc<Mount>, &Arc<MountLock>),
    targets: &Targets,
    (events, drain): (&mut DaemonEvents, &mut Signal),
) -> Result<Registered, DaemonError> {
    if settings.heeds_other_tools {
        let mount = Arc::clone(mount);
        let mut call = BlockingCall::start(supervisor, "other-tool", move || other_tool(&mount))?;
        let Some(looked) = events.wait(WAITING, call.done()).await? else {
            call.give_up(CALL_GRACE);
            return Ok(Registered::Ending);
        };
        if let Some(other) = looked? {
            return Err(no_agent(settings, AgentError::OtherTool(other)));
        }
    }
    let archives = ids(targets);
    let trace = AgentTrace::new(&settings.state_dir, mount.path());
    let mut pause = REGISTER_PAUSE;
    loop {
        let (mount, lock, archives) = (Arc::clone(mount), Arc::clone(lock), archives.clone());
        let trace = trace.clone();
        let patience = settings.keepalive.clamp(SHORTEST_PATIENCE, LONGEST_PATIENCE);
        let mut call = BlockingCall::start(supervisor, "register", move || {
            Agent::register(mount, lock, archives, trace, patience)
        })?;
        let Some(called) = events.wait(WAITING, call.done()).await? else {
            // It may be registered already, and what is sent to it has to be read: the end comes behind its beginning.
            if let Ok(Ok(Ok(agent))) = tokio::time::timeout(CALL_GRACE, call.done()).await {
                events.end_soon();
                return Ok(Registered::Agent(Arc::new(agent)));
            }
            // One that comes to its end unregisters, as if nothing had been.
            call.give_up(Duration::ZERO);
            return Ok(Registered::Ending);
        };
        let source = match called? {
            Ok(agent) => return Ok(Registered::Agent(Arc::new(agent))),
            Err(error) => error,
        };
        if !source.is_transient() {
            return Err(no_agent(settings, source));
        }
        tracing::warn!(error = %source, retry_s = pause.as_secs(), "can't register yet");
        events.ready(WAITING);
        tokio::select! {
            waited = events.wait(WAITING, tokio::time::sleep(pause)) => {
                if waited?.is_none() {
                    return Ok(Registered::Ending);
                }
            }
            _ = drain.recv() => return Ok(Registered::Drained),
        }
        pause = (pause * 2).min(REGISTER_LONGEST_PAUSE);
    }
}
