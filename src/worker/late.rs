//! Copies of which the ledger came to know after the REMOVE of their file, which found none: their objects go as if it came
//! now. A store that is away is tried again, as long as it takes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::run::Run;
use super::{Context, JobError, remove};
use crate::action::{Item, Kind, Verb};
use crate::ledger::{LateCopy, OthersCopies};
use crate::queue::Queue;
use crate::store::Targets;
use crate::transfer::{Control, Lane, RetryOptions, Transfer, TransferOptions};
use crate::types::{Cookie, Extent};

/// Of one look; the sweeper has other things to do as well.
const AT_ONCE: usize = 100;
/// Of one look: the store is away, mostly.
const MOST_FAILED: usize = 3;
/// A store is given up for this time.
const PATIENCE: Duration = Duration::from_secs(5);
/// Before another look, doubled from the first to the last while objects can't be deleted.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What deletes them.
#[derive(Debug)]
pub(super) struct LateCopies {
    copies: OthersCopies,
    lane: Lane,
    due: Instant,
    pause: Duration,
}

impl LateCopies {
    /// `None`: nobody would tell of any.
    ///
    /// # Errors
    /// There is no runtime for it.
    pub(super) fn new(context: &Context, targets: &Targets, options: TransferOptions) -> std::io::Result<Option<Self>> {
        let Some(copies) = context.others_copies.clone() else {
            return Ok(None);
        };
        let retry = RetryOptions {
            give_up_after: options.retry.give_up_after.min(PATIENCE),
            ..options.retry
        };
        let lane = Lane::new(&targets.all(), TransferOptions { retry, ..options })?;
        Ok(Some(Self {
            copies,
            lane,
            due: Instant::now(),
            pause: FIRST_PAUSE,
        }))
    }

    /// Deletes the next ones, if it is time.
    pub(super) fn look(&mut self, context: &Context, queue: &Queue, targets: &Targets, control: &Arc<Control>) {
        if Instant::now() < self.due || !context.is_warranted() {
            return;
        }
        self.lane.follow(targets);
        let mut lot = self.copies.take_late(AT_ONCE).into_iter();
        let mut kept = Vec::new();
        let mut failed = 0;
        while failed < MOST_FAILED
            && control.stopped().is_none()
            && let Some(copy) = lot.next()
        {
            // Not beside an action of the file, and an MDT that does not answer holds up nothing else.
            if queue.has_file(copy.fid) || queue.is_silent(copy.fid) {
                kept.push(copy);
            } else if !self.delete(context, control, &copy) {
                failed += 1;
                kept.push(copy);
            }
        }
        self.copies.add_late(lot.chain(kept));
        self.pause = match failed {
            0 => FIRST_PAUSE,
            _ => (self.pause * 2).min(LONGEST_PAUSE),
        };
        self.due = Instant::now() + self.pause;
    }

    /// `false`: not now. One whose object can't be deleted whatever comes holds up no other.
    fn delete(&self, context: &Context, control: &Arc<Control>, copy: &LateCopy) -> bool {
        match delete(context, &self.lane, control, copy) {
            Ok(()) => true,
            // Its row stays, and brings it here again.
            Err(JobError::Transfer(error)) if error.is_of_one_object() => {
                tracing::warn!(fid = %copy.fid, %error, "the copy of a file that was unlinked can't be deleted");
                true
            }
            Err(error) => {
                tracing::warn!(fid = %copy.fid, %error, "the copy of a file that was unlinked could not be deleted now");
                false
            }
        }
    }
}

/// Deletes the object of one, as its REMOVE would have.
pub(super) fn delete(context: &Context, lane: &Lane, control: &Arc<Control>, copy: &LateCopy) -> Result<(), JobError> {
    let item = Item {
        kind: Kind::Do(Verb::Remove),
        fid: copy.fid,
        dfid: copy.fid,
        cookie: Cookie(0),
        archive_id: None,
        extent: Extent::WHOLE,
        gid: 0,
        blocking: false,
        data: Box::default(),
    };
    let run = Run {
        context,
        transfer: Transfer::new(lane, control),
        item: &item,
    };
    remove::late(run, &copy.record)
}
