//! SIGHUP: what can change while it runs changes; what can't is said.

use std::sync::Arc;

use super::{CHECK, Reload};
use crate::config::Settings;
use crate::lustre::Nudge;
use crate::store::{StartError, Target, TargetOptions, Targets};
use crate::telemetry;

/// What a reload reaches.
pub(super) struct Reloader<'a> {
    pub(super) running: &'a Settings,
    pub(super) read: Reload<'a>,
    pub(super) targets: Targets,
    pub(super) nudge: Nudge,
}

impl Reloader<'_> {
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
        for options in std::mem::take(&mut new.targets) {
            drop(tokio::spawn(add(options, self.targets.clone(), self.nudge.clone())));
        }
        let running = self.running;
        if new.log_level != running.log_level {
            let changed = telemetry::set_level(&new.log_level);
            tracing::info!(level = new.log_level, changed, "log level");
            new.log_level.clone_from(&running.log_level);
        }
        new.targets.clone_from(&running.targets);
        if rest || new != *running {
            tracing::warn!("the configuration has other changes, too: they hold after a restart");
        }
    }
}

/// What can change of an archive changes. Whether there is more that differs.
fn adjust(target: &Target, mut new: TargetOptions) -> bool {
    let (upload_bandwidth, download_bandwidth) = (new.upload_bandwidth, new.download_bandwidth);
    target.limits().upload.set(upload_bandwidth);
    target.limits().download.set(download_bandwidth);
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

/// An archive that was not there when the daemon started.
async fn add(options: TargetOptions, targets: Targets, nudge: Nudge) {
    let id = options.archive_id;
    match find(options).await {
        // Another reload may have been faster.
        Ok(target) => {
            if targets.add(target) {
                nudge.add(id);
            }
        }
        Err(error) => tracing::error!(archive = id.get(), %error, "an archive is not added; going on without it"),
    }
}

/// A target as the daemon needs it: with credentials, and not refused by its store.
pub(super) async fn find(options: TargetOptions) -> Result<Arc<Target>, StartError> {
    let target = Target::resolve(options).await?;
    target.check(CHECK).await?;
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
