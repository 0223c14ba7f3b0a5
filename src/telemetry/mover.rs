//! This mover as others see it: what `lhsmtool-s3 status` asks each mover of a site.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use super::TelemetrySources;
use crate::fleet::{ClassTotals, Failures, LedgerReport, Mover, PeerReport, Running};
use crate::ledger::{LedgerHealth, PeerHealth};
use crate::queue::{Class, RunningAction};
use crate::store::Trouble;
use crate::types::ArchiveId;
use crate::worker::{ActionTotals, TotalsKey};

/// Running actions that are shown, those that run longest.
const SHOWN: usize = 10;

/// This mover at this moment.
pub(super) fn now(sources: &TelemetrySources) -> Mover {
    let depth = sources.queue.depth();
    let by_class = |counts: &HashMap<Class, usize>| {
        let of = |class: &Class| counts.get(class).map_or(0, |n| *n as u64);
        Class::ALL
            .iter()
            .map(|class| (class.word().to_owned(), of(class)))
            .collect()
    };
    let mut at_work = sources.queue.running();
    at_work.sort_by_key(|running| running.since);
    let tally = &sources.context.tally;
    let targets = sources.targets.all();
    let limits = targets.iter().map(|target| target.limits());
    let bytes_per_second = limits.map(|limits| limits.upload.moved().rate() + limits.download.moved().rate());
    let trouble = |of: fn(&Trouble) -> &AtomicU64| {
        let counts = targets.iter().map(|target| of(&target.limits().trouble));
        counts.map(|count| count.load(Ordering::Relaxed)).sum()
    };
    Mover {
        host: host(),
        mount: sources.mount.display().to_string(),
        file_system: sources.context.fs.name().to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ready: sources.is_ready(),
        draining: sources.is_draining(),
        archives: targets.iter().map(|target| target.options().archive_id.get()).collect(),
        uptime: tally.age().as_secs_f64(),
        waiting: by_class(&depth.waiting),
        running: by_class(&depth.running),
        oldest_waiting: depth.oldest.map(|age| age.as_secs_f64()),
        sums: tally.sums().into_iter().map(ClassTotals::from).collect(),
        actions_per_second: tally.ended().rate(),
        bytes_per_second: bytes_per_second.sum(),
        longest: at_work.iter().take(SHOWN).map(Running::from).collect(),
        retries: trouble(|trouble| &trouble.retries),
        throttled: trouble(|trouble| &trouble.throttled),
        silent_mdts: silent(sources),
        ledger: sources.ledger.as_ref().map(|ledger| ledger.health().into()),
        dialects: targets
            .iter()
            .map(|target| {
                let names = target.quirks().names().into_iter().map(str::to_owned);
                (target.options().archive_id.get(), names.collect::<Vec<_>>())
            })
            .filter(|(_, names)| !names.is_empty())
            .collect(),
    }
}

/// By name.
fn silent(sources: &TelemetrySources) -> Vec<String> {
    let mdts = sources.queue.mdts().into_iter();
    mdts.filter(|(_, _, answers)| !answers)
        .map(|(mdt, ..)| mdt.to_string())
        .collect()
}

impl From<(TotalsKey, ActionTotals)> for ClassTotals {
    fn from(((archive, class), sums): (TotalsKey, ActionTotals)) -> Self {
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

impl From<LedgerHealth> for LedgerReport {
    fn from(health: LedgerHealth) -> Self {
        Self {
            state: health.step.word().to_owned(),
            lag: health.lag.as_secs_f64(),
            error: health.error,
            mover: health.mover,
            incarnation: format!("{:016x}", health.incarnation),
            peers: health.peers.iter().map(PeerReport::from).collect(),
            found_dead: health.found_dead,
            taken_over: health.taken_over,
            given_up: health.given_up,
            offered: health.offered as u64,
            offers_taken: health.offers_taken,
            offers_given: health.offers_given,
            postponed: health.postponed as u64,
            fences: health.fences,
            fence_failures: health.fence_failures,
            waits_for: health.waits_for,
        }
    }
}

impl From<&PeerHealth> for PeerReport {
    fn from(peer: &PeerHealth) -> Self {
        Self {
            mover: peer.name.clone(),
            state: peer.word().to_owned(),
            silent: peer.still.as_secs_f64(),
            fenced: peer.is_fenced,
            fencer: peer.fencer.clone(),
            fence_error: peer.fence_error.clone(),
            until_eviction: peer.until_eviction().map(|left| left.as_secs_f64()),
        }
    }
}

impl From<&RunningAction> for Running {
    fn from(running: &RunningAction) -> Self {
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

/// Its failures after that number.
pub(super) fn failures_after(sources: &TelemetrySources, number: u64) -> Failures {
    let failures = sources.context.tally.failures_after(number);
    Failures {
        last: failures.last().map_or(number, |failure| failure.number),
        failures,
    }
}

/// This node's name.
#[must_use]
pub fn host() -> String {
    nix::unistd::gethostname().map_or_else(|_| "?".to_owned(), |name| name.to_string_lossy().into_owned())
}
