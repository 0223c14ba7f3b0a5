//! Answers without work: refusals, cancels of what waited, the sweep at shutdown.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::{Ended, Ending, JobError, Tally};
use crate::action::{Debt, HsmError, Verdict};
use crate::guard::guarded;
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
    queue: Mutex<Option<Sender<Settlement>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Settler {
    /// Starts `threads` of them.
    ///
    /// # Errors
    /// A thread could not be made.
    pub fn start(threads: usize, tally: &Arc<Tally>) -> std::io::Result<Self> {
        let (queue, work) = channel::<Settlement>();
        let work = Arc::new(Mutex::new(work));
        let threads = (0..threads)
            .map(|n| {
                let (work, tally) = (Arc::clone(&work), Arc::clone(tally));
                std::thread::Builder::new().name(format!("settler-{n}")).spawn(move || {
                    loop {
                        let next = work.lock().unwrap_or_else(PoisonError::into_inner).recv();
                        let Ok((debt, verdict)) = next else {
                            return;
                        };
                        drop(guarded(|| answer(debt, verdict, &tally)));
                    }
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            queue: Mutex::new(Some(queue)),
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

    /// Returns when all have been answered; nothing is taken any more.
    pub fn finish(&self) {
        *self.queue.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a settler thread panicked");
            }
        }
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
