//! One action from begin to verdict.
//!
//! In: jobs and parts from the queue. Out: an answer to the coordinator, exactly one for each job.
//! An archive is answered "done" after its object is stored, verified and mapped; a restore after its
//! bytes were compared and synced; a remove after its object is gone. What an action wrote before it
//! failed is taken away again.

mod archive;
mod crew;
mod error;
mod forgotten;
mod log;
mod place;
mod readback;
mod remove;
mod restore;
mod settle;
mod sweeper;
mod tally;
mod thaw;
mod verdict;
mod witness;

use std::sync::Arc;
use std::time::Instant;

pub use crew::Crew;
pub use error::JobError;
pub use forgotten::{Forgotten, OnForgotten};
pub use settle::Settler;
pub use sweeper::Sweeper;
pub use tally::{Ending, Share, Sums, Tally};
pub use verdict::verdict;
pub use witness::{Witness, Witnesses};

use crate::action::{Debt, FileSystem, Verdict};
use crate::journal::Journal;
use crate::store::{ObjectKey, Owner};
use crate::types::Fid;

/// What every job needs besides its thread's lane.
#[derive(Clone, Debug)]
pub struct Site {
    /// The file system.
    pub fs: Arc<dyn FileSystem>,
    /// What outlives files.
    pub journal: Arc<Journal>,
    /// The counters.
    pub tally: Arc<Tally>,
    /// Who is told.
    pub witnesses: Witnesses,
    /// Archives that the coordinator forgot.
    pub forgotten: Arc<Forgotten>,
}

impl Site {
    /// A file as objects and records name it.
    fn owner(&self, fid: Fid) -> Owner {
        Owner {
            fs: self.fs.name().to_owned(),
            fid,
        }
    }
}

/// An archive or a remove from begin to answer, without queue and crew: for tests that decide what happens when.
#[cfg(test)]
pub(crate) fn perform(
    site: &Site,
    lane: &crate::transfer::Lane,
    control: &Arc<crate::transfer::Control>,
    debt: Box<dyn Debt>,
) -> Verdict {
    use crate::action::{Kind, Verb};
    let ended = match debt.item().kind {
        Kind::Do(Verb::Remove) => remove::remove(site, lane, control, debt),
        _ => archive::archive(site, lane, &crate::transfer::Alone, control, debt),
    };
    ended.verdict
}

/// How one job ended, for the log.
#[derive(Debug)]
struct Ended {
    verdict: Verdict,
    bytes: u64,
    error: Option<JobError>,
    /// Of the object that it was about.
    key: Option<ObjectKey>,
    /// What is no copy any more could not be deleted: the journal is to have it tried again.
    left_something: bool,
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
            key: None,
            left_something: false,
        }
    }

    fn about(self, key: &ObjectKey) -> Self {
        Self {
            key: Some(key.clone()),
            ..self
        }
    }

    fn failed(error: JobError) -> Self {
        Self {
            verdict: verdict(&error),
            bytes: 0,
            error: Some(error),
            key: None,
            left_something: false,
        }
    }
}
