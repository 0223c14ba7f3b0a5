//! How the daemon leaves: what becomes of the actions that it has, and what it tells of those that wait.
//!
//! An action is owed one answer, by whichever daemon of the mount comes to it. One that is stopped keeps what it has for
//! its successor, and one that is drained does it all before it goes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use super::stages::Registration;
use crate::config::{OnStop, Settings};
use crate::fleet::{DrainedActions, StopReport, WaitingActions};
use crate::journal::Journal;
use crate::queue::Queue;
use crate::thread::{Supervisor, Thread};
use crate::transfer::Stop;
use crate::types::ArchiveId;
use crate::worker::{Context, Tally};

/// What running actions get to end in when a successor could go on with them: readers wait meanwhile.
const LET_FINISH: Duration = Duration::from_secs(5);
/// For the coordinators, to hear that they are served no more.
const UNREGISTER: Duration = Duration::from_secs(10);
/// Between two looks at whether all is done.
pub(super) const LOOK: Duration = Duration::from_millis(100);
/// So many looks that find nothing one after the other: what was read last may be on its way to the queue.
const QUIET: u32 = 3;

/// What is to become of what the daemon has, and where it says so.
#[derive(Debug)]
pub(super) struct Leaving {
    on_stop: OnStop,
    drain_timeout: Duration,
    state_dir: PathBuf,
    mount: PathBuf,
    /// What had ended when a drain began.
    before: Option<DrainedActions>,
}

impl Leaving {
    pub(super) fn new(settings: &Settings, mount: &Path) -> Self {
        Self {
            on_stop: settings.on_stop,
            drain_timeout: settings.drain_timeout,
            state_dir: settings.state_dir.clone(),
            mount: mount.to_owned(),
            before: None,
        }
    }

    /// What is to become of it by now.
    pub(super) const fn change(&mut self, on_stop: OnStop) {
        self.on_stop = on_stop;
    }

    /// A successor serves: what its predecessor told is over.
    pub(super) fn forget_former(&self) {
        if let Err(error) = StopReport::forget(&self.state_dir, &self.mount) {
            tracing::warn!(%error, "what the former daemon told of its stop stays in the state directory");
        }
    }

    /// Everything is done before the end, and counted.
    pub(super) fn drains(&mut self, tally: &Tally) {
        self.before = Some(ended(tally));
    }

    /// What becomes of what is in hand, if there `is_anything`: it can be kept only where there is a journal, and somebody
    /// who writes it.
    pub(super) fn decide(&self, journal: &Journal, supervisor: &Supervisor, is_anything: bool) -> OnStop {
        let is_written = supervisor.first_death().is_none_or(|death| death.thread != "journal");
        if self.on_stop == OnStop::Answer || (journal.keeps() && is_written) {
            return self.on_stop;
        }
        if is_anything {
            tracing::warn!(
                "there is no journal that could keep actions for the next daemon: the coordinator is told of each that is \
                 not done"
            );
        }
        OnStop::Answer
    }

    /// What running actions get.
    pub(super) fn time_to_finish(&self, on_stop: OnStop) -> Duration {
        match on_stop {
            OnStop::Keep => self.drain_timeout.min(LET_FINISH),
            OnStop::Answer => self.drain_timeout,
        }
    }

    /// Says what waits for a successor, in the log and for whoever asks later. When all is written.
    pub(super) fn tell(&self, context: &Context) {
        let waiting: Vec<_> = context
            .journal
            .owed()
            .into_iter()
            .map(|owed| WaitingActions {
                archive: owed.archive_id.map_or(0, ArchiveId::get),
                actions: owed.actions,
                restores: owed.restores,
            })
            .collect();
        for waiting in &waiting {
            tracing::warn!("{waiting}");
        }
        let drained = self.before.map(|before| {
            let now = ended(&context.tally);
            DrainedActions {
                done: now.done.saturating_sub(before.done),
                failed: now.failed.saturating_sub(before.failed),
                cancelled: now.cancelled.saturating_sub(before.cancelled),
            }
        });
        if let Some(drained) = drained {
            tracing::info!("drained: {drained}");
        }
        let report = StopReport {
            mount: self.mount.display().to_string(),
            at: SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
            pid: std::process::id(),
            drained,
            waiting,
        };
        if let Err(error) = report.write(&self.state_dir) {
            tracing::warn!(%error, "what waits can't be told in the state directory: `status` does not know of it");
        }
    }
}

/// Why running actions are stopped.
pub(super) const fn reason(on_stop: OnStop) -> Stop {
    match on_stop {
        OnStop::Keep => Stop::HandOn,
        OnStop::Answer => Stop::Shutdown,
    }
}

/// Leaves what waits to a successor, and tells nobody.
pub(super) fn keep_waiting(queue: &Queue) {
    let waiting = queue.take_all_waiting();
    if !waiting.is_empty() {
        tracing::info!(actions = waiting.len(), "what waits is kept for the next daemon");
    }
    waiting.into_iter().for_each(|handle| handle.disown());
}

fn ended(tally: &Tally) -> DrainedActions {
    tally
        .sums()
        .values()
        .fold(DrainedActions::default(), |all, sums| DrainedActions {
            done: all.done + sums.done,
            failed: all.failed + sums.failed,
            cancelled: all.cancelled + sums.cancelled,
        })
}

/// A daemon that takes nothing new and ends when what it has is done.
#[derive(Debug)]
pub(super) struct Draining {
    /// Nothing more can come.
    is_left: Arc<AtomicBool>,
    /// Actions of a former daemon that are still being taken over.
    handing: Arc<AtomicUsize>,
    quiet: u32,
    _leaving: Option<Thread>,
}

impl Draining {
    /// Has the coordinators give their work to others from now on; does not wait. What is in hand is reported alive and
    /// answered as ever: an action belongs to its cookie, not to a registration.
    pub(super) fn begin(supervisor: &Supervisor, registration: &mut Registration, handing: Arc<AtomicUsize>) -> Self {
        tracing::info!(
            "draining: nothing new is taken any more, what is in hand and what waits here is done, and then the daemon ends"
        );
        let is_left = Arc::new(AtomicBool::new(false));
        let left = Arc::clone(&is_left);
        let mut registrar = registration.give_up();
        let leaving = supervisor.errand("drain", move || {
            if let Some(registrar) = &mut registrar
                && !registrar.thread().join(Instant::now() + UNREGISTER)
            {
                tracing::warn!(
                    "an MDT does not answer: it may go on sending, and what it sends is left to the next daemon"
                );
            }
            left.store(true, Ordering::SeqCst);
        });
        let leaving = leaving
            .inspect_err(|error| {
                tracing::error!(%error, "there is no thread that unregisters; that is done at the end");
                is_left.store(true, Ordering::SeqCst);
            })
            .ok();
        Self {
            is_left,
            handing,
            quiet: 0,
            _leaving: leaving,
        }
    }

    /// Whether all is done. To be asked now and then.
    pub(super) fn is_over(&mut self, queue: &Queue) -> bool {
        let depth = queue.depth();
        let is_quiet = self.is_left.load(Ordering::SeqCst)
            && self.handing.load(Ordering::SeqCst) == 0
            && depth.all_waiting() == 0
            && depth.all_running() == 0;
        self.quiet = if is_quiet { self.quiet + 1 } else { 0 };
        self.quiet >= QUIET
    }
}
