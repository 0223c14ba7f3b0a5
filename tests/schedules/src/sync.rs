//! What the files take for threads, locks and time: shuttle's, with a clock that only timers move, and with a way to leave
//! a wake-up out, so that a check can show that it would miss it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::ops::{Add, Sub};
use std::panic::Location;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LockResult, PoisonError};
use std::time::Duration;

pub use shuttle::sync::{Mutex, MutexGuard, RwLock, atomic};
pub use shuttle::thread;

/// A wait of so long runs out in no schedule, also what is left of it after a while.
pub const FOR_EVER: Duration = Duration::from_secs(24 * 3600);
const LONGEST: Duration = Duration::from_secs(3600);

// All threads of one schedule are one thread of the system's, and each test has one of its own.
std::thread_local! {
    static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    static TIME: Cell<Time> = const { Cell::new(Time::Stands) };
    static LEFT_OUT: Cell<Option<Site>> = const { Cell::new(None) };
    static SEEN: RefCell<BTreeSet<Site>> = const { RefCell::new(BTreeSet::new()) };
}

/// What time does in a schedule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Time {
    /// It stands still: no wait runs out, so what ends it must be a wake-up.
    Stands,
    /// A wait may run out before anything else happens, or after, as the scheduler has it.
    Passes,
}

/// A line that wakes threads up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Site {
    /// As the compiler names it.
    pub file: &'static str,
    /// From 1.
    pub line: u32,
}

/// A schedule begins. `left_out`: the line whose wake-ups are lost in it.
pub fn begin(time: Time, left_out: Option<Site>) {
    NOW.set(Duration::ZERO);
    TIME.set(time);
    LEFT_OUT.set(left_out);
}

/// The lines that have woken threads up, or tried to, since the last call.
pub fn take_sites() -> BTreeSet<Site> {
    SEEN.take()
}

/// The calling thread's number; never 0.
#[must_use]
pub fn thread_number() -> i32 {
    i32::try_from(usize::from(thread::current().id())).map_or(i32::MAX, |number| number.saturating_add(1))
}

/// A moment since the schedule began.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Instant(Duration);

impl Instant {
    /// This one.
    #[must_use]
    pub fn now() -> Self {
        Self(NOW.get())
    }

    /// Since then.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        Self::now().duration_since(*self)
    }

    /// 0 where `earlier` is later.
    #[must_use]
    pub const fn duration_since(&self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// The same.
    #[must_use]
    pub const fn saturating_duration_since(&self, earlier: Self) -> Duration {
        self.duration_since(earlier)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, later: Duration) -> Self {
        Self(self.0 + later)
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.duration_since(earlier)
    }
}

/// Whether a wait ran out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimedOut(bool);

impl TimedOut {
    /// Whether it did.
    #[must_use]
    pub const fn timed_out(self) -> bool {
        self.0
    }
}

type Waited<'a, T> = LockResult<(MutexGuard<'a, T>, TimedOut)>;

/// `std`'s, as far as it is used. Its waits can wake for nothing where time passes, for a timer wakes all.
#[derive(Clone, Debug, Default)]
pub struct Condvar(Arc<shuttle::sync::Condvar>);

impl Condvar {
    /// Nobody waits.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Until it is woken up.
    ///
    /// # Errors
    /// Somebody panicked under the lock.
    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        self.0.wait(guard)
    }

    /// Until it is woken up, or where time passes so long.
    ///
    /// # Errors
    /// Somebody panicked under the lock.
    pub fn wait_timeout<'a, T>(&self, guard: MutexGuard<'a, T>, wait: Duration) -> Waited<'a, T> {
        let until = Instant::now() + wait;
        let over = Arc::new(AtomicBool::new(false));
        if TIME.get() == Time::Passes && wait < LONGEST {
            let (condvar, over) = (self.clone(), Arc::clone(&over));
            let _timer = thread::spawn(move || {
                NOW.set(NOW.get().max(until.0));
                // The first may come before the wait has begun.
                while !over.load(Ordering::SeqCst) {
                    condvar.0.notify_all();
                    thread::yield_now();
                }
            });
        }
        let waited = self.0.wait(guard);
        over.store(true, Ordering::SeqCst);
        let out = |guard| (guard, TimedOut(Instant::now() >= until));
        match waited {
            Ok(guard) => Ok(out(guard)),
            Err(poison) => Err(PoisonError::new(out(poison.into_inner()))),
        }
    }

    /// While `is_so`, or where time passes so long.
    ///
    /// # Errors
    /// Somebody panicked under the lock.
    pub fn wait_timeout_while<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        wait: Duration,
        mut is_so: impl FnMut(&mut T) -> bool,
    ) -> Waited<'a, T> {
        let until = Instant::now() + wait;
        loop {
            if !is_so(&mut guard) {
                return Ok((guard, TimedOut(false)));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return Ok((guard, TimedOut(true)));
            }
            guard = self.wait_timeout(guard, left)?.0;
        }
    }

    /// Wakes one of those that wait.
    #[track_caller]
    pub fn notify_one(&self) {
        if is_heard(Location::caller()) {
            self.0.notify_one();
        }
    }

    /// Wakes all of those that wait.
    #[track_caller]
    pub fn notify_all(&self) {
        if is_heard(Location::caller()) {
            self.0.notify_all();
        }
    }
}

fn is_heard(caller: &'static Location<'static>) -> bool {
    let site = Site {
        file: caller.file(),
        line: caller.line(),
    };
    SEEN.with_borrow_mut(|seen| seen.insert(site));
    LEFT_OUT.get() != Some(site)
}
