//! Parts of one file, worked off by the thread that owns the file and by any that are idle.

use std::sync::{Arc, PoisonError};

use super::{Lane, TransferError};
use crate::sync::{Condvar, Mutex, MutexGuard};
use crate::thread::guarded;

/// Work that an idle thread can take a piece of.
pub trait SharedWork: Send + Sync {
    /// Does one piece on `lane`. `false`: there is none left to take.
    fn work_one(&self, lane: &Lane) -> bool;

    /// Those at work are in each other's way: one more would only wait.
    fn is_crowded(&self) -> bool;
}

/// Where work is offered to idle threads.
pub trait IdleThreads: Send + Sync {
    /// Offers `parts` until its `work_one` says that there are none left. `urgent`: a reader waits.
    fn offer(&self, parts: Arc<dyn SharedWork>, urgent: bool);

    /// Ends the offer: nobody may have asked for more since the last piece was taken.
    fn withdraw(&self, parts: &Arc<dyn SharedWork>);
}

/// Nobody helps: the thread does all parts itself.
#[derive(Clone, Copy, Debug)]
pub struct NoIdleThreads;

impl IdleThreads for NoIdleThreads {
    fn offer(&self, _: Arc<dyn SharedWork>, _: bool) {}
    fn withdraw(&self, _: &Arc<dyn SharedWork>) {}
}

type PartFn<R> = Arc<dyn Fn(&Lane, usize) -> Result<R, TransferError> + Send + Sync>;

/// Whether those at work are in each other's way.
pub(super) type Crowded = Box<dyn Fn() -> bool + Send + Sync>;

struct Pool<R> {
    count: usize,
    crowded: Crowded,
    state: Mutex<PoolState<R>>,
    changed: Condvar,
}

struct PoolState<R> {
    /// Taken away when the last part is given out or one has failed: it holds the file open.
    work: Option<PartFn<R>>,
    next: usize,
    running: usize,
    results: Vec<Option<R>>,
    error: Option<TransferError>,
}

impl<R: Send> Pool<R> {
    fn lock(&self) -> MutexGuard<'_, PoolState<R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<(PartFn<R>, usize)> {
        let mut state = self.lock();
        if state.error.is_some() || state.next == self.count {
            state.work = None;
            return None;
        }
        let work = Arc::clone(state.work.as_ref()?);
        let index = state.next;
        state.next += 1;
        state.running += 1;
        Some((work, index))
    }
}

impl<R: Send> SharedWork for Pool<R> {
    fn work_one(&self, lane: &Lane) -> bool {
        let Some((work, index)) = self.take() else {
            return false;
        };
        // A panic here must not leave the owner waiting for a part that nobody does.
        let result = guarded(|| work(lane, index)).unwrap_or(Err(TransferError::Panic));
        // Before anybody can see that this part is done: it may hold the last reference to the file.
        drop(work);
        let mut state = self.lock();
        state.running -= 1;
        match result {
            Ok(result) => {
                if let Some(slot) = state.results.get_mut(index) {
                    *slot = Some(result);
                }
            }
            Err(error) => {
                state.error.get_or_insert(error);
                state.work = None;
            }
        }
        self.changed.notify_all();
        true
    }

    fn is_crowded(&self) -> bool {
        (self.crowded)()
    }
}

/// Runs `work` for each index below `count`, on this lane and on those of `idle_threads`, and returns when
/// no thread is in it any more. Each piece must end soon after a stop, by its own means.
///
/// # Errors
/// The first piece's that failed; the others are then not begun.
pub(super) fn run<R: Send + 'static>(
    lane: &Lane,
    idle_threads: &dyn IdleThreads,
    urgent: bool,
    count: usize,
    crowded: Crowded,
    work: impl Fn(&Lane, usize) -> Result<R, TransferError> + Send + Sync + 'static,
) -> Result<Vec<R>, TransferError> {
    let pool = Arc::new(Pool {
        count,
        crowded,
        state: Mutex::new(PoolState {
            work: Some(Arc::new(work)),
            next: 0,
            running: 0,
            results: (0..count).map(|_| None).collect(),
            error: None,
        }),
        changed: Condvar::new(),
    });
    let offered: Arc<dyn SharedWork> = Arc::clone(&pool) as _;
    if count > 1 {
        idle_threads.offer(Arc::clone(&offered), urgent);
    }
    while pool.work_one(lane) {}
    idle_threads.withdraw(&offered);
    let mut state = pool.lock();
    while state.running > 0 {
        state = pool.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
    state.work = None;
    match state.error.take() {
        Some(error) => Err(error),
        None => Ok(state.results.drain(..).flatten().collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transfer::TransferOptions;

    #[derive(Default)]
    struct Board(Mutex<Vec<Arc<dyn SharedWork>>>);

    impl IdleThreads for Board {
        fn offer(&self, parts: Arc<dyn SharedWork>, _: bool) {
            self.0.lock().unwrap().push(parts);
        }
        fn withdraw(&self, parts: &Arc<dyn SharedWork>) {
            self.0.lock().unwrap().retain(|offer| !Arc::ptr_eq(offer, parts));
        }
    }

    #[test]
    fn an_offer_ends_with_the_work_also_when_nobody_helped_or_it_failed() {
        let lane = Lane::new(&[], TransferOptions::IDLE).unwrap();
        let board = Arc::new(Board::default());
        for failing in [9, 2] {
            let seen = Arc::clone(&board);
            let work = move |_: &Lane, index| {
                assert_eq!(seen.0.lock().unwrap().len(), 1, "it is offered");
                if index == failing {
                    Err(TransferError::Changed)
                } else {
                    Ok(index)
                }
            };
            let result = run(&lane, board.as_ref(), false, 4, Box::new(|| false), work);
            assert_eq!(result.ok(), (failing > 4).then(|| vec![0, 1, 2, 3]));
            assert!(board.0.lock().unwrap().is_empty());
        }
    }
}
