//! One action from begin to verdict.
//!
//! In: jobs and parts from the queue. Out: an answer to the coordinator, exactly one for each job.
//! An archive is answered "done" after its object is stored, verified and mapped; a restore after its
//! bytes were compared and synced; a remove after its object is gone. What an action wrote before it
//! failed is taken away again.

mod archive;
mod crew;
mod error;
mod log;
mod metadata;
mod place;
mod remove;
mod restore;
mod settle;
mod sweeper;
mod verdict;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

pub use crew::Crew;
pub use error::JobError;
pub use settle::Settler;
pub use sweeper::Sweeper;
pub use verdict::verdict;

use crate::action::{Debt, FileSystem, Verdict};
use crate::journal::Journal;

/// What was done, in numbers.
#[derive(Debug, Default)]
pub struct Tally {
    /// Actions that ended as asked.
    pub done: AtomicU64,
    /// Actions that were cancelled.
    pub cancelled: AtomicU64,
    /// Actions that failed.
    pub failed: AtomicU64,
    /// Bytes of those that were done.
    pub bytes: AtomicU64,
    /// Archives that went beside their key because it held what may be another file's only copy.
    pub conflicts: AtomicU64,
}

impl Tally {
    fn count(&self, verdict: Verdict, bytes: u64) {
        let counter = match verdict {
            Verdict::Done => &self.done,
            Verdict::Cancelled => &self.cancelled,
            Verdict::Failed { .. } => &self.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if verdict == Verdict::Done {
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}

/// What every job needs besides its thread's lane.
#[derive(Clone, Debug)]
pub struct Site {
    /// The file system.
    pub fs: Arc<dyn FileSystem>,
    /// What outlives files.
    pub journal: Arc<Journal>,
    /// The counters.
    pub tally: Arc<Tally>,
}

/// How one job ended, for the log.
#[derive(Debug)]
struct Ended {
    verdict: Verdict,
    bytes: u64,
    error: Option<JobError>,
}

/// What a worker did with a job.
#[derive(Debug)]
enum Outcome {
    Ended(Ended),
    /// It goes on when there is something to do.
    Later(Box<dyn Debt>, Instant),
}

impl From<Ended> for Outcome {
    fn from(ended: Ended) -> Self {
        Self::Ended(ended)
    }
}

impl Ended {
    const fn done(bytes: u64) -> Self {
        Self {
            verdict: Verdict::Done,
            bytes,
            error: None,
        }
    }

    fn failed(error: JobError) -> Self {
        Self {
            verdict: verdict(&error),
            bytes: 0,
            error: Some(error),
        }
    }
}
