//! Answers without work: refusals, cancels of what waited, the sweep at shutdown.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::{Ended, Ending, JobError, Tally};
use crate::action::{Debt, HsmError, Verdict};
use crate::guard::guarded;
use crate::thread::{Supervisor, Threads};
use crate::transfer::Control;

/// Gives the answer of an action that ran.
pub(super) fn finish(control: &Control, debt: Box<dyn Debt>, verdict: Verdict, copied: u64) -> Result<(), HsmError> {
    control.set_ending();
    debt.finish(verdict, copied)
}

/// Ends an action that was done; the coordinator may object.
pub(super) fn complete(control: &Control, debt: Box<dyn Debt>, copied: u64) -> Ended {
    match finish(control, debt, Verdict::Done, copied) {
        Ok(()) => Ended::done(copied),
        Err(error) => Ended::failed(error.into()),
    }
}

/// Ends an action that failed. The answer that the coordinator objects to is logged: it ended already.
pub(super) fn refuse(control: &Control, debt: Box<dyn Debt>, error: JobError) -> Ended {
    let ended = Ended::failed(error);
    if let Err(objection) = finish(control, debt, ended.verdict, 0) {
        tracing::debug!(%objection, "the coordinator did not take the verdict");
    }
    ended
}

/// An answer to be given.
type Settlement = (Box<dyn Debt>, Verdict);

/// A few threads that answer actions that never ran. Answering blocks, so neither the intake nor a
/// worker with data to move does it.
#[derive(Debug)]
pub struct Settler {
    queue: Arc<Mutex<Option<Sender<Settlement>>>>,
    threads: Mutex<Threads>,
}

impl Settler {
    /// Starts `count` of them.
    ///
    /// # Errors
    /// A thread could not be made.
    pub fn start(supervisor: &Supervisor, count: usize, tally: &Arc<Tally>) -> std::io::Result<Self> {
        let (queue, work) = channel::<Settlement>();
        let (queue, work) = (Arc::new(Mutex::new(Some(queue))), Arc::new(Mutex::new(work)));
        let closing = Arc::clone(&queue);
        let mut threads = Threads::new(move || {
            *closing.lock().unwrap_or_else(PoisonError::into_inner) = None;
        });
        for n in 0..count {
            let (work, tally) = (Arc::clone(&work), Arc::clone(tally));
            threads.add(supervisor, format!("settler-{n}"), move || {
                loop {
                    let next = work.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok((debt, verdict)) = next else {
                        return;
                    };
                    drop(guarded(|| answer(debt, verdict, &tally)));
                }
            })?;
        }
        Ok(Self {
            queue,
            threads: Mutex::new(threads),
        })
    }

    /// Has `debt` ended with `verdict`; does not wait.
    pub fn settle(&self, debt: Box<dyn Debt>, verdict: Verdict) {
        // After the end, and if it can't be sent: dropping it answers EIO.
        if let Some(queue) = &*self.queue.lock().unwrap_or_else(PoisonError::into_inner)
            && let Err(lost) = queue.send((debt, verdict))
        {
            drop(lost);
        }
    }

    /// Returns when all have been answered, or at the deadline; nothing is taken any more. `false`: some are not
    /// answered.
    pub fn finish(&self, deadline: Instant) -> bool {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.join(deadline)
    }
}

fn answer(debt: Box<dyn Debt>, verdict: Verdict, tally: &Tally) {
    let item = debt.item();
    let (fid, cookie) = (item.fid, item.cookie);
    tracing::info!(%fid, %cookie, %verdict, "not run");
    tally.count(&Ending {
        item,
        verdict,
        bytes: 0,
        took: None,
        reason: None,
        key: None,
    });
    if let Err(objection) = debt.finish(verdict, 0) {
        tracing::debug!(%fid, %cookie, %objection, "the coordinator did not take the verdict");
    }
}
