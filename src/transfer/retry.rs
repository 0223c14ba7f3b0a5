//! The one retry loop: each try is watched for a stop and for bytes that no longer move. Its tests, where hours pass in
//! no time, are in `tests/clock`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::{Control, TransferError};
use crate::store::{Bandwidth, Limits, StoreError};

/// When to try again and when to stop trying.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RetryOptions {
    /// A try is given up when no byte moved for so long.
    pub stall: Duration,
    /// The store is given up when it did not work for so long.
    pub give_up_after: Duration,
    /// First pause; doubled each time.
    pub first_pause: Duration,
    /// Longest pause.
    pub longest_pause: Duration,
    /// For the one try of what nobody waits for, an action's answer being given.
    pub afterwards: Duration,
}

/// Damage on the way is repaired by sending again; damage that stays is not.
const DAMAGED_TRIES: u32 = 3;

/// What a store wants otherwise is learned once; one that goes on objecting is tried no sooner than any other.
const LESSONS: u32 = 4;

/// Counts whatever moves in one try; the stall watch looks at it.
#[derive(Debug, Default)]
pub(super) struct Activity(AtomicU64);

impl Activity {
    pub(super) fn note(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits for bandwidth, which is no stall.
    pub(super) async fn wait_for(&self, bandwidth: &Bandwidth, bytes: u64) {
        while let Err(wait) = bandwidth.take(bytes) {
            self.note();
            tokio::time::sleep(wait).await;
        }
    }

    /// For what takes long without a byte on the line; after `limit` it is like any other.
    pub(super) async fn busy<F: Future>(&self, limit: Duration, future: F) -> F::Output {
        let mut future = std::pin::pin!(future);
        let until = Instant::now() + limit;
        loop {
            tokio::select! {
                biased;
                output = &mut future => return output,
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
            if Instant::now() < until {
                self.note();
            }
        }
    }

    async fn stalled(&self, limit: Duration) -> StoreError {
        let mut seen = self.0.load(Ordering::Relaxed);
        let mut since = Instant::now();
        loop {
            tokio::time::sleep(limit / 8).await;
            let now = self.0.load(Ordering::Relaxed);
            if now != seen {
                seen = now;
                since = Instant::now();
            } else if since.elapsed() >= limit {
                return StoreError::Stalled {
                    seconds: limit.as_secs(),
                };
            }
        }
    }
}

/// Runs `attempt` until it works, until it fails for good, until the store is given up, or until
/// `control` is stopped. A try that is stopped or stalls is dropped: its connection is closed.
pub(super) async fn retry<T>(
    options: &RetryOptions,
    control: &Control,
    limits: &Limits,
    mut attempt: impl AsyncFnMut(Arc<Activity>) -> Result<T, TransferError>,
) -> Result<T, TransferError> {
    let Limits {
        pace, trouble, reach, ..
    } = limits;
    let mut trouble_since: Option<Instant> = None;
    let mut pause = options.first_pause;
    let (mut damaged, mut learned) = (0, 0);
    loop {
        if let Some(stop) = control.stopped() {
            return Err(TransferError::Stopped(stop));
        }
        if let Some(turn) = pace.turn() {
            tokio::select! {
                () = tokio::time::sleep_until(turn.into()) => {}
                () = control.wait_stopped() => continue,
            }
        }
        let activity = Arc::new(Activity::default());
        let under_way = UnderWay::new(&trouble.in_flight);
        let result = tokio::select! {
            biased;
            result = attempt(Arc::clone(&activity)) => result,
            () = control.wait_stopped() => continue,
            stalled = activity.stalled(options.stall) => Err(stalled.into()),
        };
        match &result {
            Err(TransferError::Store(StoreError::Unavailable { .. } | StoreError::Stalled { .. })) => reach.missed(),
            // Whatever else it says, it says something.
            Ok(_) | Err(TransferError::Store(_)) => reach.answered(),
            Err(_) => {}
        }
        let last = match result {
            Err(TransferError::Store(error)) if error.is_transient() => error,
            other => {
                if other.is_ok() {
                    pace.worked();
                }
                return other;
            }
        };
        if let StoreError::Learned { .. } = last {
            learned += 1;
            if learned <= LESSONS {
                continue;
            }
        }
        if let StoreError::Throttled { .. } = last {
            pace.complained();
            trouble.throttled.fetch_add(1, Ordering::Relaxed);
        }
        if let StoreError::Corrupt { .. } = last {
            damaged += 1;
            trouble.damaged.fetch_add(1, Ordering::Relaxed);
            if damaged >= DAMAGED_TRIES {
                return Err(last.into());
            }
        }
        drop(under_way);
        let since = *trouble_since.get_or_insert_with(Instant::now);
        if since.elapsed() + pause > options.give_up_after {
            return Err(TransferError::GaveUp {
                seconds: since.elapsed().as_secs(),
                last,
            });
        }
        // Where everybody tries again, each does so rarely.
        if !pace.may_retry() {
            pause = pause.max(options.longest_pause / 4);
        }
        trouble.retries.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(error = %last, pause_ms = pause.as_millis(), "trying again");
        tokio::select! {
            () = tokio::time::sleep(jittered(pause)) => {}
            () = control.wait_stopped() => {}
        }
        pause = (pause * 2).min(options.longest_pause);
    }
}

/// A request that is under way, until it ends or is dropped.
struct UnderWay<'a>(&'a AtomicU64);

impl<'a> UnderWay<'a> {
    fn new(gauge: &'a AtomicU64) -> Self {
        gauge.fetch_add(1, Ordering::Relaxed);
        Self(gauge)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Between half and all of it, so that many do not come back at the same moment.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + fastrand::f64() / 2.0)
}
