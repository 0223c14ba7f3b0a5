//! The daemon: wires the stages together, and takes them down again in order.

mod outputs;
mod reload;
mod stages;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use self::outputs::Outputs;
use self::reload::{Missing, Reloader};
use self::stages::{Registration, Stages};
use crate::action::FileSystem;
use crate::config::{ConfigError, Settings};
use crate::lustre::{Agent, AgentError, Library, LibraryError, Mount, MountError, Trace, other_tool};
use crate::store::{StartError, Targets};
use crate::telemetry::{self, FifoUpdates, Link, MetricsServer, Pulse, Sources};
use crate::types::ArchiveId;
use crate::worker::Sweeper;

/// For a store's first answer; one that is silent is no reason not to start.
const CHECK: Duration = Duration::from_secs(5);
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
    let mount = Mount::open(library, &settings.mount)?;
    let mount = Arc::new(mount.leaving_out(&settings.system_xattrs));
    let (targets, missing) = find_targets(settings, how).await?;
    tracing::info!(
        mount = %settings.mount.display(),
        fsname = mount.name(),
        archives = ?ids(&targets).iter().map(|id| id.get()).collect::<Vec<_>>(),
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
    let Some(agent) = register(settings, &mount, &targets, &mut signals).await? else {
        stages.stop(None, settings.drain_timeout, &mut signals).await;
        return Ok(());
    };
    let (tell, mut mounted_anew) = tokio::sync::oneshot::channel();
    stages.inherit(&agent, &ids(&targets))?;
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
    let reloader = Reloader {
        running: settings,
        read: reload,
        targets,
        nudge: registration.nudge(),
        missing,
    };
    drop(tokio::spawn(reloader.look_again()));
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
            _ = hup.recv() => reloader.reload(),
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

/// The archives' buckets. One that can't be used is no reason not to serve the others, as long as there are any.
async fn find_targets(settings: &Settings, how: How) -> Result<(Targets, Missing), DaemonError> {
    let (targets, missing) = (Targets::default(), Missing::default());
    let mut refused = Vec::new();
    for options in &settings.targets {
        match reload::find(options.clone(), how.dry_run).await {
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

/// Registers; waits for a coordinator that is stopped. `None`: told to end meanwhile.
async fn register(
    settings: &Settings,
    mount: &Arc<Mount>,
    targets: &Targets,
    signals: &mut Signals,
) -> Result<Option<Arc<Agent>>, DaemonError> {
    if settings.heeds_other_tools {
        let mount = Arc::clone(mount);
        if let Some(other) = blocking(move || other_tool(&mount)).await? {
            return Err(DaemonError::Agent {
                mount: settings.mount.clone(),
                source: AgentError::OtherTool(other),
            });
        }
    }
    let archives = ids(targets);
    let trace = Trace::new(&settings.state_dir, mount.path());
    let mut pause = REGISTER_PAUSE;
    loop {
        let (mount, archives, trace) = (Arc::clone(mount), archives.clone(), trace.clone());
        let source = match blocking(move || Agent::register(mount, archives, trace)).await? {
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
