//! What the queue gives and takes: jobs for worker threads, answers to the intake, figures for reports.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Class, ThreadRole};
use crate::action::{ActionHandle, ActionKey, Verb};
use crate::sync::Instant;
use crate::transfer::{Control, SharedWork};
use crate::types::{ArchiveId, Domain};

/// One action to be done.
#[derive(Debug)]
pub struct Job {
    /// The answer that is owed.
    pub handle: Box<dyn ActionHandle>,
    /// Its strings.
    pub control: Arc<Control>,
    /// How often it was put off until something could be done.
    pub deferrals: Deferrals,
    /// It has waited for another mover's action of the file.
    pub has_waited: bool,
}

/// Why an action is put off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PutOff {
    /// Its object is in an archive class, and can't be read yet.
    Frozen,
    /// This mover is cut off from what the action needs.
    CutOff,
    /// Whatever else.
    Other,
}

/// How often an action was put off, by why: one that waited long for its object has all its tries where it is cut off then.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Deferrals {
    /// [`PutOff::Frozen`]
    pub frozen: u32,
    /// [`PutOff::CutOff`]
    pub cut_off: u32,
    /// [`PutOff::Other`]
    pub others: u32,
}

impl Deferrals {
    /// Whether it ever was.
    #[must_use]
    pub const fn are_any(self) -> bool {
        self.frozen > 0 || self.cut_off > 0 || self.others > 0
    }

    pub(super) const fn count(&mut self, why: PutOff) {
        let count = match why {
            PutOff::Frozen => &mut self.frozen,
            PutOff::CutOff => &mut self.cut_off,
            PutOff::Other => &mut self.others,
        };
        *count = count.saturating_add(1);
    }
}

/// What a worker thread does next.
pub enum Work {
    /// A whole action.
    Job(Job),
    /// A piece of a running one.
    Parts(Arc<dyn SharedWork>),
    /// Go home.
    Closed,
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Job(_) => "Job",
            Self::Parts(_) => "Parts",
            Self::Closed => "Closed",
        })
    }
}

/// What became of a new action.
#[derive(Debug)]
pub enum Admission {
    /// It waits for its turn.
    Queued,
    /// It is in hand already (delivered twice).
    Duplicate(Box<dyn ActionHandle>),
    /// It is nothing that a worker does.
    Declined(Box<dyn ActionHandle>),
}

/// What a cancel found.
#[derive(Debug)]
pub enum Cancelled {
    /// It waited; it is now the caller's to end.
    Waiting(Box<dyn ActionHandle>),
    /// It runs; its control was stopped and its worker will end it.
    Running,
    /// Nothing (it ended meanwhile, or never came).
    Unknown,
}

/// An action that a worker has.
#[derive(Clone, Debug)]
pub struct RunningAction {
    /// The action: cookie and FID.
    pub key: ActionKey,
    /// Archive, restore or remove.
    pub verb: Verb,
    /// The archive that it is about.
    pub archive_id: Option<ArchiveId>,
    /// When the worker took it.
    pub since: Instant,
    pub(super) control: Arc<Control>,
    /// The MDT that the thread is counted for, as far as it was known when it took the action.
    pub(super) domain: Domain,
    pub(super) lanes: ThreadRole,
}

impl RunningAction {
    /// Bytes that it has moved so far.
    #[must_use]
    pub fn moved(&self) -> u64 {
        self.control.moved()
    }
}

/// How much there is of what.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct QueueDepth {
    /// Waiting actions by class.
    pub waiting: HashMap<Class, usize>,
    /// Running actions by class.
    pub running: HashMap<Class, usize>,
    /// Threads that help with the parts of another's action.
    pub helping: usize,
    /// How long the oldest waiting action has waited.
    pub oldest: Option<Duration>,
}

impl QueueDepth {
    /// Waiting actions of all classes.
    #[must_use]
    pub fn all_waiting(&self) -> usize {
        self.waiting.values().sum()
    }

    /// Running actions of all classes.
    #[must_use]
    pub fn all_running(&self) -> usize {
        self.running.values().sum()
    }
}

/// `archive 5 waiting, 2 running; remove 1 waiting, 0 running`
impl std::fmt::Display for QueueDepth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count = |counts: &HashMap<Class, usize>, class| counts.get(&class).copied().unwrap_or(0);
        let mut between = "";
        for class in Class::ALL {
            let (waiting, running) = (count(&self.waiting, class), count(&self.running, class));
            if waiting + running > 0 {
                write!(f, "{between}{} {waiting} waiting, {running} running", class.word())?;
                between = "; ";
            }
        }
        if between.is_empty() {
            f.write_str("nothing")
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_depth_reads_as_words() {
        let mut depth = QueueDepth::default();
        assert_eq!(depth.to_string(), "nothing");
        depth.waiting.insert(Class::Archive, 5);
        depth.running.insert(Class::Archive, 2);
        depth.running.insert(Class::Restore, 1);
        // What once was is in the table with nothing.
        depth.waiting.insert(Class::Remove, 0);
        assert_eq!(
            depth.to_string(),
            "restore 0 waiting, 1 running; archive 5 waiting, 2 running"
        );
        assert_eq!((depth.all_waiting(), depth.all_running()), (5, 3));
    }
}
