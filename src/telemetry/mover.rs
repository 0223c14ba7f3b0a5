//! One mover as others see it: what `lhsmtool-s3 status` asks each mover of a site.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Sources;
use crate::queue::Class;
use crate::types::ArchiveId;
use crate::worker::Failure;

/// Running actions that are shown, those that run longest.
const SHOWN: usize = 10;

/// A mover at one moment.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Mover {
    /// Its node.
    pub host: String,
    /// The mount that it serves.
    pub mount: String,
    /// The file system, with its incarnation.
    pub file_system: String,
    /// Its release.
    pub version: String,
    /// Registered and taking work.
    pub ready: bool,
    /// Seconds since it was started.
    pub uptime: f64,
    /// Actions that wait for a worker, by class.
    pub waiting: BTreeMap<String, u64>,
    /// Actions that a worker has, by class.
    pub running: BTreeMap<String, u64>,
    /// Seconds that the oldest waiting action has waited.
    pub oldest_waiting: Option<f64>,
    /// What has ended, by archive id and class.
    pub sums: Vec<Sum>,
    /// Actions that ended a second, over the last minute.
    pub actions_per_second: f64,
    /// Bytes that went to and came from the stores a second, over the last minute.
    pub bytes_per_second: f64,
    /// Running actions, the longest first; ten at most.
    pub longest: Vec<Running>,
    /// Second and further tries of requests to the stores.
    pub retries: u64,
    /// Answers of the stores that asked for fewer requests.
    pub throttled: u64,
    /// MDTs that do not answer, of those that had actions here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub silent_mdts: Vec<String>,
    /// What the store of each archive id was found to do otherwise than S3; those of which nothing is known are left out.
    #[serde(default)]
    pub dialects: BTreeMap<u32, Vec<String>>,
}

/// What has ended of one archive id and class.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Sum {
    /// 0: the action named none.
    pub archive: u32,
    /// As in metrics.
    pub class: String,
    /// Ended as it was asked for.
    pub done: u64,
    /// With an error.
    pub failed: u64,
    /// By a cancel.
    pub cancelled: u64,
    /// Of those that were done.
    pub bytes: u64,
}

/// A running action.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Running {
    /// The file, without brackets.
    pub fid: String,
    /// Below the mount point; who asks finds it, for a look at Lustre may take long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// `archive`, `restore` or `remove`.
    pub verb: String,
    /// 0: none was named.
    pub archive: u32,
    /// Since a worker took it.
    pub seconds: f64,
    /// Moved so far.
    pub bytes: u64,
}

/// Some of a mover's failures.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Failures {
    /// The number of the last one, to ask for those after it.
    pub last: u64,
    /// The oldest first.
    pub failures: Vec<Failure>,
}

impl Mover {
    pub(super) fn now(sources: &Sources) -> Self {
        let depth = sources.queue.depth();
        let by_class = |counts: &std::collections::HashMap<Class, usize>| {
            let of = |class: &Class| counts.get(class).map_or(0, |n| *n as u64);
            Class::ALL
                .iter()
                .map(|class| (class.word().to_owned(), of(class)))
                .collect()
        };
        let mut at_work = sources.queue.running();
        at_work.sort_by_key(|running| running.since);
        let tally = &sources.site.tally;
        let targets = sources.targets.all();
        let limits = targets.iter().map(|target| target.limits());
        let bytes_per_second = limits.map(|limits| limits.upload.moved().rate() + limits.download.moved().rate());
        let trouble = |of: fn(&crate::store::Trouble) -> &std::sync::atomic::AtomicU64| {
            let counts = targets.iter().map(|target| of(&target.limits().trouble));
            counts
                .map(|count| count.load(std::sync::atomic::Ordering::Relaxed))
                .sum()
        };
        Self {
            host: host(),
            mount: sources.mount.display().to_string(),
            file_system: sources.site.fs.name().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ready: sources.is_ready(),
            uptime: tally.age().as_secs_f64(),
            waiting: by_class(&depth.waiting),
            running: by_class(&depth.running),
            oldest_waiting: depth.oldest.map(|age| age.as_secs_f64()),
            sums: tally.sums().into_iter().map(Sum::from).collect(),
            actions_per_second: tally.ended().rate(),
            bytes_per_second: bytes_per_second.sum(),
            longest: at_work.iter().take(SHOWN).map(Running::from).collect(),
            retries: trouble(|trouble| &trouble.retries),
            throttled: trouble(|trouble| &trouble.throttled),
            silent_mdts: silent(sources),
            dialects: targets
                .iter()
                .map(|target| {
                    let names = target.dialect().names().into_iter().map(str::to_owned);
                    (target.options().archive_id.get(), names.collect::<Vec<_>>())
                })
                .filter(|(_, names)| !names.is_empty())
                .collect(),
        }
    }
}

/// By name.
fn silent(sources: &Sources) -> Vec<String> {
    let mdts = sources.queue.mdts().into_iter();
    mdts.filter(|(_, _, answers)| !answers)
        .map(|(mdt, ..)| mdt.to_string())
        .collect()
}

impl From<(crate::worker::Share, crate::worker::Sums)> for Sum {
    fn from(((archive, class), sums): (crate::worker::Share, crate::worker::Sums)) -> Self {
        Self {
            archive,
            class: class.word().to_owned(),
            done: sums.done,
            failed: sums.failed,
            cancelled: sums.cancelled,
            bytes: sums.bytes,
        }
    }
}

impl From<&crate::queue::AtWork> for Running {
    fn from(running: &crate::queue::AtWork) -> Self {
        Self {
            fid: running.key.fid.bare(),
            path: None,
            verb: running.verb.to_string(),
            archive: running.archive_id.map_or(0, ArchiveId::get),
            seconds: running.since.elapsed().as_secs_f64(),
            bytes: running.moved(),
        }
    }
}

impl Failures {
    pub(super) fn after(sources: &Sources, number: u64) -> Self {
        let failures = sources.site.tally.failures_after(number);
        Self {
            last: failures.last().map_or(number, |failure| failure.number),
            failures,
        }
    }
}

/// This node's name.
fn host() -> String {
    nix::unistd::gethostname().map_or_else(|_| "?".to_owned(), |name| name.to_string_lossy().into_owned())
}
