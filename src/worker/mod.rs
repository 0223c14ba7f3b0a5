//! One action from begin to verdict.
//!
//! In: jobs and parts from the queue. Out: an answer to the coordinator, exactly one for each job.
//! An archive is answered "done" after its object is stored, verified and mapped; a restore after its
//! bytes were compared and synced; a remove after its object is gone. What an action wrote before it
//! failed is taken away again.

mod archive;
mod attempt;
mod cleanup;
mod error;
mod forgotten;
mod key;
mod late;
mod log;
mod observer;
mod place;
mod placing;
mod pool;
mod readback;
mod remove;
mod responder;
mod restore;
mod run;
mod search;
mod standing;
mod sweeper;
mod tally;
mod thaw;
#[cfg(test)]
pub(crate) mod tried;
mod verdict;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use error::JobError;
pub use forgotten::{Forgotten, OnForgotten};
pub use observer::{Observer, Observers};
pub use pool::{PoolSize, WorkerPool};
pub use responder::Responder;
pub use sweeper::Sweeper;
pub use tally::{ActionEnd, ActionTotals, Tally, TotalsKey};
pub use verdict::verdict;

use crate::action::{ActionHandle, ActionKey, FileSystem, Verdict};
use crate::journal::Journal;
use crate::ledger::{OthersCopies, Warrant};
use crate::queue::PutOff;
use crate::store::{ObjectKey, Owner};
use crate::transfer::{Stop, TransferError};
use crate::types::Fid;

/// What every job needs besides its thread's lane.
#[derive(Clone, Debug)]
pub struct Context {
    /// The file system.
    pub fs: Arc<dyn FileSystem>,
    /// What outlives files.
    pub journal: Arc<Journal>,
    /// The counters.
    pub tally: Arc<Tally>,
    /// Who is told.
    pub observers: Observers,
    /// Archives that the coordinator forgot.
    pub forgotten: Arc<Forgotten>,
    /// Whether nobody else may have taken over what is in hand; `None`: nobody could.
    pub warrant: Option<Warrant>,
    /// Where copies are that other movers made; `None`: nobody would know.
    pub others_copies: Option<OthersCopies>,
}

/// Before an action is tried again that is postponed.
const POSTPONED: Duration = Duration::from_secs(2);
/// An archive, which may send a whole file each time, is tried after twice as long each time, so often: a minute in the end.
const MOST_DOUBLED: u32 = 5;

impl Context {
    /// Whether nobody else can have taken over what is in hand.
    fn is_warranted(&self) -> bool {
        self.warrant.as_ref().is_none_or(Warrant::is_valid)
    }

    /// The same for what destroys: where it may not be done the journal is to have it done later.
    fn may_destroy(&self) -> bool {
        self.warrant.as_ref().is_none_or(Warrant::permits)
    }

    /// When to try an action again that does what another mover could not put right, where one may have taken it over; `None`:
    /// it may be done. The action counts as postponed until it is tried.
    fn postponed(&self, action: ActionKey, doubled: u32) -> Option<Instant> {
        let warrant = self.warrant.as_ref().filter(|warrant| !warrant.is_valid())?;
        warrant.postpone(action);
        Some(Instant::now() + POSTPONED * 2u32.pow(doubled.min(MOST_DOUBLED)))
    }

    /// A file as objects and records name it.
    fn owner(&self, fid: Fid) -> Owner {
        Owner {
            fs: self.fs.name().to_owned(),
            fid,
        }
    }
}

/// An archive or a remove from begin to answer, without queue and worker pool: for tests that decide what happens when.
#[cfg(test)]
pub(crate) fn perform(
    context: &Context,
    lane: &crate::transfer::Lane,
    control: &Arc<crate::transfer::Control>,
    handle: Box<dyn ActionHandle>,
) -> Verdict {
    use crate::action::{Kind, Verb};
    let item = &handle.item().clone();
    let run = run::Run {
        context,
        transfer: crate::transfer::Transfer::new(lane, control),
        item,
    };
    match item.kind {
        Kind::Do(Verb::Remove) => remove::remove(run, handle).verdict,
        _ => match archive::archive(run, handle, 0) {
            Outcome::Ended(ended) => ended.verdict,
            Outcome::Later(handle, ..) => {
                run.refuse(handle, TransferError::Stopped(Stop::Shutdown).into())
                    .verdict
            }
        },
    }
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
    /// It goes on when there is something to do, and was put off for that reason.
    Later(Box<dyn ActionHandle>, Instant, PutOff),
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

    /// Nobody answered it: a successor goes on with it.
    const fn is_handed_on(&self) -> bool {
        matches!(
            self.error,
            Some(JobError::Transfer(TransferError::Stopped(Stop::HandOn)))
        )
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
