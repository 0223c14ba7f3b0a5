//! What an action runs with.

use std::time::{Duration, Instant};

use super::cleanup::CleanUp;
use super::{Context, Ended, JobError};
use crate::action::{ActionHandle, HsmError, Item, Verdict};
use crate::ledger::Warrant;
use crate::store::{KeyAt, ObjectInfo, Owner, StoreError};
use crate::transfer::{Control, Stop, Transfer, TransferError};
use crate::types::ErrorClass;

/// Before a restore is begun again for which this mover was cut off from something, doubled with each time, so often: a minute in
/// the end, and some minutes in all.
const CUT_OFF_PAUSE: Duration = Duration::from_secs(2);
const MOST_DOUBLED: u32 = 5;
const MOST_CUT_OFF: u32 = 8;
/// The same where what it wrote to is gone, once more with each time: at once at first.
const LOST_PAUSE: Duration = Duration::from_millis(250);

/// An action that runs. Its handle goes beside it, for its end consumes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run<'a> {
    pub(super) context: &'a Context,
    pub(super) transfer: Transfer<'a>,
    pub(super) item: &'a Item,
}

impl<'a> Run<'a> {
    /// Its file, as objects and records name it.
    pub(super) fn owner(self) -> Owner {
        self.context.owner(self.item.fid)
    }

    /// What takes away what is nobody's copy.
    pub(super) const fn clean_up(self) -> CleanUp<'a> {
        CleanUp {
            context: self.context,
            lane: self.transfer.lane(),
        }
    }

    /// [`Context::is_mapped`] of its file.
    pub(super) fn is_mapped(self, at: KeyAt<'_>, found: &ObjectInfo) -> bool {
        self.context.is_mapped(self.item.fid, at, found)
    }

    /// [`CleanUp::look_after`] its file.
    pub(super) fn look_after(self, at: KeyAt<'_>) {
        self.clean_up().look_after(self.item.fid, at);
    }

    /// Gives its answer.
    pub(super) fn finish(self, handle: Box<dyn ActionHandle>, verdict: Verdict, copied: u64) -> Result<(), HsmError> {
        finish(self.transfer.control(), handle, verdict, copied)
    }

    /// Ends it when it was done; the coordinator may object.
    pub(super) fn complete(self, handle: Box<dyn ActionHandle>, copied: u64) -> Ended {
        match self.finish(handle, Verdict::Done, copied) {
            Ok(()) => Ended::done(copied),
            Err(error) => Ended::failed(error.into()),
        }
    }

    /// When to begin it again after a failure that is not to be told yet: another mover may have taken it over, and do it.
    /// `None`: it is to be told, for nobody could have, or it was stopped, or the coordinator says that nobody waits for it, or
    /// waits for just that answer. `doubled`: how often the pause was.
    pub(super) fn again_after(self, error: &JobError, stop: Option<Stop>, doubled: u32) -> Option<Instant> {
        let is_over = matches!(error, JobError::Hsm(error) if error.is_not_found() || error.is_cancelled());
        match stop {
            None if !is_over => self.context.postponed(self.item.key(), doubled),
            _ => None,
        }
    }

    /// When to begin a restore again that failed for where this mover is, and not for what its file or its object is: it is
    /// cut off from the store, or was by the file system's servers. Another mover can do it perhaps, and is offered what waits
    /// (`crate::ledger`). `tried`: how often it was begun again so. `None`: it is to be told, for there is no other, or that was
    /// often enough.
    pub(super) fn again_in_reach(self, error: &JobError, stop: Option<Stop>, tried: u32) -> Option<Instant> {
        let tries_left = match error {
            JobError::Hsm(error) if error.class().is_passing() => MOST_CUT_OFF.checked_sub(tried)?,
            // What it wrote to is gone with a restart of the MDT, or with this client's eviction: another file serves.
            JobError::Transfer(TransferError::Write(error))
                if is_lost(ErrorClass::of_io(error)) && stop.is_none() && tried < MOST_CUT_OFF =>
            {
                return Some(Instant::now() + LOST_PAUSE * tried);
            }
            JobError::Transfer(TransferError::Write(error)) if ErrorClass::of_io(error).is_passing() => {
                MOST_CUT_OFF.checked_sub(tried)?
            }
            // That took as long as a store may take.
            JobError::Transfer(TransferError::GaveUp {
                last: StoreError::Unavailable { .. } | StoreError::Stalled { .. },
                ..
            }) => 1u32.checked_sub(tried)?,
            _ => 0,
        };
        let has_others = || self.context.warrant.as_ref().is_some_and(Warrant::has_others);
        let goes_on = stop.is_none() && tries_left > 0 && has_others();
        goes_on.then(|| Instant::now() + CUT_OFF_PAUSE * 2u32.pow(tried.min(MOST_DOUBLED)))
    }

    /// Ends it when it failed.
    pub(super) fn refuse(self, handle: Box<dyn ActionHandle>, error: JobError) -> Ended {
        refuse(self.transfer.control(), handle, error)
    }
}

/// Of a file that was open: it is gone with its name (2.17: ESTALE behind a restart of the MDT, ENOENT behind this client's eviction).
const fn is_lost(class: ErrorClass) -> bool {
    matches!(class, ErrorClass::Stale | ErrorClass::Gone)
}

fn finish(control: &Control, handle: Box<dyn ActionHandle>, verdict: Verdict, copied: u64) -> Result<(), HsmError> {
    control.set_ending();
    handle.finish(verdict, copied)
}

/// The answer that the coordinator objects to is logged: it ended already. One that a successor is to go on with is not
/// answered, whatever failed: the stop may be why, and the successor finds out.
pub(super) fn refuse(control: &Control, handle: Box<dyn ActionHandle>, error: JobError) -> Ended {
    if control.is_handed_on() || matches!(error, JobError::Transfer(TransferError::Stopped(Stop::HandOn))) {
        handle.disown();
        return Ended::failed(TransferError::Stopped(Stop::HandOn).into());
    }
    let ended = Ended::failed(error);
    if let Err(objection) = finish(control, handle, ended.verdict, 0) {
        tracing::debug!(%objection, "the coordinator did not take the verdict");
    }
    ended
}
