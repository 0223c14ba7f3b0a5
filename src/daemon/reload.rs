//! SIGHUP: what can change while it runs changes; what can't is said. And archives that could not be used are looked at
//! again.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::takeover::Takeover;
use super::teller::share;
use super::{CHECK, Reload};
use crate::config::{OnStop, Settings};
use crate::lustre::RegistrarHandle;
use crate::store::{BandwidthLimit, StartError, Target, TargetOptions, Targets};
use crate::telemetry;
use crate::types::ArchiveId;

/// Between two looks at archives that could not be used: at first, and in the end.
const LOOK_PAUSE: Duration = Duration::from_secs(5);
const LOOK_LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// For the trial of a store's conditions where nothing waits for it: some twenty requests, one after the other.
const TRIAL: Duration = Duration::from_secs(30);

/// Archives of the configuration that can't be used yet. The coordinator is not told of them, so their actions wait
/// there, or go to other movers.
#[derive(Clone, Debug, Default)]
pub(super) struct UnusableArchives(Arc<Mutex<BTreeMap<ArchiveId, UnusableArchive>>>);

#[derive(Debug)]
struct UnusableArchive {
    options: TargetOptions,
    /// Why, as it was last said.
    why: String,
}

impl UnusableArchives {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<ArchiveId, UnusableArchive>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These are looked at from now on.
    fn insert(&self, options: TargetOptions) {
        let why = String::new();
        self.lock().insert(options.archive_id, UnusableArchive { options, why });
    }

    /// Says why one can't be used, unless it was said before.
    pub(super) fn tell(&self, options: TargetOptions, error: &StartError) {
        let why = error.to_string();
        let id = options.archive_id;
        let former = self.lock().insert(
            id,
            UnusableArchive {
                options,
                why: why.clone(),
            },
        );
        if former.is_none_or(|former| former.why != why) {
            tracing::error!(
                archive = id.get(),
                error = why,
                "an archive is not added; going on without it and trying again"
            );
        }
    }

    /// Those that the configuration has no more are forgotten.
    fn only(&self, all: &[TargetOptions]) {
        self.lock()
            .retain(|id, _| all.iter().any(|options| options.archive_id == *id));
    }

    /// `false`: the configuration wants it otherwise by now, or not at all.
    fn is_wanted(&self, options: &TargetOptions) -> bool {
        let missing = self.lock();
        missing
            .get(&options.archive_id)
            .is_some_and(|absent| absent.options == *options)
    }

    fn found(&self, id: ArchiveId) {
        self.lock().remove(&id);
    }

    fn all(&self) -> Vec<TargetOptions> {
        self.lock().values().map(|absent| absent.options.clone()).collect()
    }
}

/// Looks again at those that could not be used, as long as the daemon runs.
async fn look_again(missing: UnusableArchives, targets: Targets, takeover: Takeover, nudge: RegistrarHandle) {
    let mut pause = LOOK_PAUSE;
    loop {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LOOK_LONGEST_PAUSE);
        for options in missing.all() {
            add(
                options,
                missing.clone(),
                targets.clone(),
                takeover.clone(),
                nudge.clone(),
            )
            .await;
        }
    }
}

/// What a reload reaches.
pub(super) struct Reloader<'a> {
    pub(super) running: &'a Settings,
    pub(super) read: Reload<'a>,
    pub(super) targets: Targets,
    pub(super) nudge: RegistrarHandle,
    pub(super) takeover: Takeover,
    pub(super) missing: UnusableArchives,
    /// What becomes of actions at a stop, as it was read last.
    pub(super) on_stop: Cell<OnStop>,
}

impl Reloader<'_> {
    /// What looks again at the archives that could not be used, as long as the daemon runs.
    pub(super) fn look_again(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let (missing, targets) = (self.missing.clone(), self.targets.clone());
        look_again(missing, targets, self.takeover.clone(), self.nudge.clone())
    }

    /// Reads the configuration again. Nobody waits for what asks a store: it goes on behind.
    pub(super) fn reload(&self) {
        let mut new = match (self.read)() {
            Ok(new) => new,
            Err(error) => {
                tracing::error!(%error, "not reloaded; going on as before");
                return;
            }
        };
        let known = self.targets.all();
        drop(tokio::spawn(reload_credentials(known.clone())));
        let mut rest = false;
        for target in &known {
            let options = target.options();
            let found = new.targets.iter().position(|new| new.archive_id == options.archive_id);
            rest |= match found {
                Some(n) => {
                    // Where an earlier reload's registration for it was refused.
                    self.nudge.add(options.archive_id);
                    adjust(target, new.targets.swap_remove(n))
                }
                None => true,
            };
        }
        self.missing.only(&new.targets);
        for options in std::mem::take(&mut new.targets) {
            self.missing.insert(options.clone());
            let (missing, targets) = (self.missing.clone(), self.targets.clone());
            let (takeover, nudge) = (self.takeover.clone(), self.nudge.clone());
            drop(tokio::spawn(add(options, missing, targets, takeover, nudge)));
        }
        let running = self.running;
        if new.log_level != running.log_level {
            let changed = telemetry::set_level(&new.log_level);
            tracing::info!(level = new.log_level, changed, "log level");
            new.log_level.clone_from(&running.log_level);
        }
        if self.on_stop.replace(new.on_stop) != new.on_stop {
            tracing::info!(on_stop = ?new.on_stop, "what a stop does");
        }
        new.on_stop = running.on_stop;
        new.targets.clone_from(&running.targets);
        if rest || new != *running {
            tracing::warn!("the configuration has other changes, too: they hold after a restart");
        }
    }
}

/// What can change of an archive changes. Whether there is more that differs.
fn adjust(target: &Target, mut new: TargetOptions) -> bool {
    let (upload_bandwidth, download_bandwidth) = (new.upload_bandwidth, new.download_bandwidth);
    BandwidthLimit::set(upload_bandwidth, &target.limits().upload);
    BandwidthLimit::set(download_bandwidth, &target.limits().download);
    tracing::info!(
        archive = new.archive_id.get(),
        ?upload_bandwidth,
        ?download_bandwidth,
        "reloaded"
    );
    let options = target.options();
    new.upload_bandwidth = options.upload_bandwidth;
    new.download_bandwidth = options.download_bandwidth;
    new != *options
}

/// An archive that was not there when the daemon started, or could not be used then.
async fn add(
    options: TargetOptions,
    missing: UnusableArchives,
    targets: Targets,
    takeover: Takeover,
    nudge: RegistrarHandle,
) {
    let id = options.archive_id;
    let found = find(options.clone(), Some(TRIAL)).await;
    if !missing.is_wanted(&options) {
        return;
    }
    match found {
        // Another reload may have been faster.
        Ok(target) => {
            missing.found(id);
            if let Some(ledger) = &takeover.ledger {
                share(&target, &ledger.sharers());
            }
            if targets.add(target) {
                tracing::info!(archive = id.get(), "an archive is added");
                takeover.take_up(id);
                nudge.add(id);
            }
        }
        Err(error) => missing.tell(options, &error),
    }
}

/// A target as the daemon needs it: with credentials, not refused by its store, and with what its store does known, as far
/// as that can be found in the time of `trial`; `None`: nothing is written.
pub(super) async fn find(options: TargetOptions, trial: Option<Duration>) -> Result<Arc<Target>, StartError> {
    let target = Target::resolve(options).await?;
    target.check(CHECK).await?;
    if let Some(time) = trial {
        target.try_conditions(time).await?;
    }
    Ok(Arc::new(target))
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
