//! Parts of one file, worked off by the thread that owns the file and by any that are idle.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::{Lane, TransferError};

/// Work that an idle thread can take a piece of.
pub trait Parts: Send + Sync {
    /// Does one piece on `lane`. `false`: there is none left to take.
    fn work_one(&self, lane: &Lane) -> bool;

    /// Those at work are in each other's way: one more would only wait.
    fn is_crowded(&self) -> bool;
}

/// Where work is offered to idle threads.
pub trait Helpers: Send + Sync {
    /// Offers `parts` until its `work_one` says that there are none left. `urgent`: a reader waits.
    fn offer(&self, parts: Arc<dyn Parts>, urgent: bool);
}

/// Nobody helps: the thread does all parts itself.
#[derive(Clone, Copy, Debug)]
pub struct Alone;

impl Helpers for Alone {
    fn offer(&self, _: Arc<dyn Parts>, _: bool) {}
}

type Work<R> = Arc<dyn Fn(&Lane, usize) -> Result<R, TransferError> + Send + Sync>;

/// Whether those at work are in each other's way.
pub(super) type Crowded = Box<dyn Fn() -> bool + Send + Sync>;

struct Pool<R> {
    count: usize,
    crowded: Crowded,
    state: Mutex<State<R>>,
    changed: Condvar,
}

struct State<R> {
    /// Taken away when the last part is given out or one has failed: it holds the file open.
    work: Option<Work<R>>,
    next: usize,
    running: usize,
    results: Vec<Option<R>>,
    error: Option<TransferError>,
}

impl<R: Send> Pool<R> {
    fn lock(&self) -> MutexGuard<'_, State<R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<(Work<R>, usize)> {
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

impl<R: Send> Parts for Pool<R> {
    fn work_one(&self, lane: &Lane) -> bool {
        let Some((work, index)) = self.take() else {
            return false;
        };
        // A panic here must not leave the owner waiting for a part that nobody does.
        let result = catch_unwind(AssertUnwindSafe(|| work(lane, index))).unwrap_or(Err(TransferError::Panic));
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

/// Runs `work` for each index below `count`, on this lane and on those of `helpers`, and returns when
/// no thread is in it any more. Each piece must end soon after a stop, by its own means.
///
/// # Errors
/// The first piece's that failed; the others are then not begun.
pub(super) fn run<R: Send + 'static>(
    lane: &Lane,
    helpers: &dyn Helpers,
    urgent: bool,
    count: usize,
    crowded: Crowded,
    work: impl Fn(&Lane, usize) -> Result<R, TransferError> + Send + Sync + 'static,
) -> Result<Vec<R>, TransferError> {
    let pool = Arc::new(Pool {
        count,
        crowded,
        state: Mutex::new(State {
            work: Some(Arc::new(work)),
            next: 0,
            running: 0,
            results: (0..count).map(|_| None).collect(),
            error: None,
        }),
        changed: Condvar::new(),
    });
    if count > 1 {
        helpers.offer(Arc::clone(&pool) as Arc<dyn Parts>, urgent);
    }
    while pool.work_one(lane) {}
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
