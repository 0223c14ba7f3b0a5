//! Pieces of a worker's and the sweeper's work without their threads and the queue: for tests that decide what happens when.

use std::sync::Arc;

use super::cleanup::CleanUp;
use super::run::Run;
use super::{Context, Outcome, late, pool, search};
use crate::action::{ActionHandle, ActionKey, Item, Verdict};
use crate::ledger::LateCopy;
use crate::queue::Deferrals;
use crate::store::Location;
use crate::transfer::{Control, Lane, Transfer, TransferError};

/// What came of an action that was begun.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tried {
    /// With this verdict.
    Over(Verdict),
    /// It was let go of without an answer, for another one to go on with.
    HandedOn,
    /// It waits to be begun anew; its handle was let go of.
    Later,
}

/// An action from begin to answer, as a worker does it.
pub(crate) fn action(context: &Context, lane: &Lane, control: &Arc<Control>, handle: Box<dyn ActionHandle>) -> Tried {
    let item = &handle.item().clone();
    let run = Run {
        context,
        transfer: Transfer::new(lane, control),
        item,
    };
    let ended = match pool::perform(run, handle, Deferrals::default()) {
        Outcome::Ended(ended) => ended,
        // As the queue has it.
        Outcome::Later(handle, ..) => match control.stopped() {
            Some(stop) => run.refuse(handle, TransferError::Stopped(stop).into()),
            None => {
                handle.disown();
                return Tried::Later;
            }
        },
    };
    match ended.is_handed_on() {
        true => Tried::HandedOn,
        false => Tried::Over(ended.verdict),
    }
}

/// Takes away what an action left, as the sweeper does. `false`: not now.
pub(crate) fn sweep(context: &Context, lane: &Lane, action: ActionKey) -> bool {
    CleanUp { context, lane }.after(action)
}

/// Deletes what came to be known after the REMOVE of its file. `false`: not now.
pub(crate) fn late(context: &Context, lane: &Lane, control: &Arc<Control>, copy: &LateCopy) -> bool {
    late::delete(context, lane, control, copy).is_ok()
}

/// What an archive does about its record when its end did not count though the file is archived. `false`: the copy that counts is
/// not found.
pub(crate) fn give_way(context: &Context, lane: &Lane, control: &Arc<Control>, item: &Item, own: &Location) -> bool {
    let run = Run {
        context,
        transfer: Transfer::new(lane, control),
        item,
    };
    search::give_way(run, own)
}
