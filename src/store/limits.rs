//! How fast a store may be used: its own complaints, and the administrator's limits. Shared by all threads.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::measure::Recent;
use crate::sync::Instant;

/// Limits of one archive.
#[derive(Debug, Default)]
pub struct Limits {
    /// How often a request was not the first.
    pub trouble: Trouble,
    /// Whether it is there.
    pub reach: Reach,
    /// Requests.
    pub pace: Pace,
    /// Bytes to the store.
    pub upload: Bandwidth,
    /// Bytes from the store.
    pub download: Bandwidth,
}

/// What did not go as it should, in numbers.
#[derive(Debug, Default)]
pub struct Trouble {
    /// Second and further tries.
    pub retries: AtomicU64,
    /// Answers that asked for fewer requests.
    pub throttled: AtomicU64,
    /// Bytes that did not have their checksum.
    pub damaged: AtomicU64,
    /// Requests that are under way, with their bodies.
    pub in_flight: AtomicU64,
}

/// Whether the store is there, by what came of the last requests. Who asks for nothing knows nothing.
#[derive(Debug, Default)]
pub struct Reach(Mutex<ReachState>);

#[derive(Debug, Default)]
struct ReachState {
    answered: Option<Instant>,
    /// Of the first request without an answer since.
    missed: Option<Instant>,
}

impl Reach {
    fn lock(&self) -> MutexGuard<'_, ReachState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It answered.
    pub fn answered(&self) {
        *self.lock() = ReachState {
            answered: Some(Instant::now()),
            missed: None,
        };
    }

    /// No answer came, or that it is unwell.
    pub fn missed(&self) {
        self.lock().missed.get_or_insert_with(Instant::now);
    }

    /// For how long nothing was heard of it that was asked for; `None`: it answered last, or nobody asked.
    #[must_use]
    pub fn away_for(&self) -> Option<Duration> {
        self.lock().missed.map(|missed| missed.elapsed())
    }

    /// Whether it answered last, and no longer ago than this.
    #[must_use]
    pub fn has_answered_within(&self, length: Duration) -> bool {
        let state = self.lock();
        state.missed.is_none() && state.answered.is_some_and(|answered| answered.elapsed() <= length)
    }
}

/// The first step down, and where the brake is let go.
const SLOWEST_UNBRAKED: Duration = Duration::from_millis(1);
const LONGEST_INTERVAL: Duration = Duration::from_secs(1);
/// Many threads hear the same complaint; it counts once.
const ONE_COMPLAINT: Duration = Duration::from_millis(100);
/// Of the interval, for each request that worked.
const RECOVERY: f64 = 0.98;
/// As the SDKs have it: a store that is down is not drowned in second tries.
const RETRIES: u32 = 500;
const RETRY_COST: u32 = 5;

/// Time between the starts of requests: nothing, until the store says SlowDown; doubled then, and let go bit by
/// bit with each request that works.
#[derive(Debug)]
pub struct Pace(Mutex<PaceState>);

#[derive(Debug)]
struct PaceState {
    interval: Duration,
    next: Instant,
    complained: Option<Instant>,
    retries: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self(Mutex::new(PaceState {
            interval: Duration::ZERO,
            next: Instant::now(),
            complained: None,
            retries: RETRIES,
        }))
    }
}

impl Pace {
    fn lock(&self) -> MutexGuard<'_, PaceState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place in the line; when it is that one's turn.
    #[must_use]
    pub fn turn(&self) -> Option<Instant> {
        let mut state = self.lock();
        if state.interval.is_zero() {
            return None;
        }
        let now = Instant::now();
        let turn = state.next.max(now);
        state.next = turn + state.interval;
        (turn > now).then_some(turn)
    }

    /// The store said SlowDown.
    pub fn complained(&self) {
        let mut state = self.lock();
        let now = Instant::now();
        if state.complained.is_some_and(|at| now < at + ONE_COMPLAINT) {
            return;
        }
        state.complained = Some(now);
        state.interval = (state.interval * 2).clamp(SLOWEST_UNBRAKED * 2, LONGEST_INTERVAL);
        tracing::debug!(
            interval_ms = state.interval.as_millis(),
            "the store asks for a slower pace"
        );
    }

    /// A request worked.
    pub fn worked(&self) {
        let mut state = self.lock();
        state.retries = (state.retries + 1).min(RETRIES);
        if !state.interval.is_zero() {
            state.interval = state.interval.mul_f64(RECOVERY);
            if state.interval < SLOWEST_UNBRAKED {
                state.interval = Duration::ZERO;
            }
        }
    }

    /// Whether the budget that all requests share has room for one more second try now.
    #[must_use]
    pub fn may_retry(&self) -> bool {
        let mut state = self.lock();
        match state.retries.checked_sub(RETRY_COST) {
            Some(left) => {
                state.retries = left;
                true
            }
            None => false,
        }
    }

    /// Between the starts of two requests, now.
    #[must_use]
    pub fn interval(&self) -> Duration {
        self.lock().interval
    }
}

/// Bytes a second; can be changed at any time. 0: no limit.
#[derive(Debug)]
pub struct Bandwidth {
    rate: AtomicU64,
    /// The rate is that of all movers together, and this one has its share of it.
    is_shared: AtomicBool,
    /// By how many it is divided then.
    sharers: AtomicU64,
    bucket: Mutex<Bucket>,
    moved: Recent,
}

#[derive(Debug)]
struct Bucket {
    /// Bytes that may go now; below zero after a large piece.
    tokens: f64,
    filled: Instant,
}

/// Of the rate, in seconds: what may go at once after a pause.
const BURST: f64 = 0.25;
/// Nobody sleeps longer on an old rate.
const LONGEST_NAP: Duration = Duration::from_millis(500);

impl Default for Bandwidth {
    fn default() -> Self {
        Self {
            rate: AtomicU64::new(0),
            is_shared: AtomicBool::new(false),
            sharers: AtomicU64::new(1),
            bucket: Mutex::new(Bucket {
                tokens: 0.0,
                filled: Instant::now(),
            }),
            moved: Recent::default(),
        }
    }
}

impl Bandwidth {
    /// Sets the limit; `None`: none.
    pub fn set(&self, bytes_per_second: Option<u64>) {
        self.rate.store(bytes_per_second.unwrap_or(0), Ordering::Relaxed);
    }

    /// Whether it is the limit of all movers together.
    pub fn set_shared(&self, is_shared: bool) {
        self.is_shared.store(is_shared, Ordering::Relaxed);
    }

    /// By how many movers it is divided if it is shared, this one included. Whether that is another share than before.
    pub fn share(&self, sharers: u64) -> bool {
        let before = self.rate();
        self.sharers.store(sharers.max(1), Ordering::Relaxed);
        self.rate() != before
    }

    /// Whether there is a limit that all movers share.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.is_shared.load(Ordering::Relaxed) && self.rate.load(Ordering::Relaxed) > 0
    }

    /// What this mover may do now; `None`: what it can.
    #[must_use]
    pub fn rate(&self) -> Option<u64> {
        let rate = self.rate.load(Ordering::Relaxed);
        let share = match self.is_shared() {
            true => (rate / self.sharers.load(Ordering::Relaxed).max(1)).max(1),
            false => rate,
        };
        (rate > 0).then_some(share)
    }

    /// Takes `bytes`, or says for how long to wait before asking again.
    ///
    /// # Errors
    /// The time.
    pub fn take(&self, bytes: u64) -> Result<(), Duration> {
        let taken = self.take_at(bytes, Instant::now());
        if taken.is_ok() {
            self.moved.add(bytes);
        }
        taken
    }

    /// Bytes that were taken.
    #[must_use]
    pub const fn moved(&self) -> &Recent {
        &self.moved
    }

    #[expect(clippy::cast_precision_loss, reason = "rates and chunks are far below 2^52")]
    fn take_at(&self, bytes: u64, now: Instant) -> Result<(), Duration> {
        let Some(rate) = self.rate() else {
            return Ok(());
        };
        let rate = rate as f64;
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = now.saturating_duration_since(bucket.filled).as_secs_f64();
        bucket.tokens = (bucket.tokens + passed * rate).min(rate * BURST);
        bucket.filled = now.max(bucket.filled);
        if bucket.tokens < 0.0 {
            let wait = Duration::from_secs_f64((-bucket.tokens / rate).min(1.0));
            return Err(wait.clamp(Duration::from_millis(1), LONGEST_NAP));
        }
        bucket.tokens -= bytes as f64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_slow_the_pace_and_success_brings_it_back() {
        let pace = Pace::default();
        assert_eq!(pace.turn(), None);
        pace.complained();
        pace.complained();
        assert_eq!(
            pace.interval(),
            Duration::from_millis(2),
            "many threads hear one complaint"
        );
        let first = pace.turn();
        let second = pace.turn().unwrap();
        assert!(first.is_none_or(|first| second >= first + Duration::from_millis(2)));
        (0..100).for_each(|_| pace.worked());
        assert_eq!(pace.interval(), Duration::ZERO);
    }

    #[test]
    fn a_store_is_away_from_the_first_request_without_an_answer_to_the_next_with_one() {
        let reach = Reach::default();
        let long = Duration::from_secs(3600);
        assert!(
            reach.away_for().is_none() && !reach.has_answered_within(long),
            "nobody asked"
        );
        reach.answered();
        assert!(reach.away_for().is_none() && reach.has_answered_within(long));
        reach.missed();
        let first = reach.away_for().unwrap();
        reach.missed();
        assert!(reach.away_for().unwrap() >= first && !reach.has_answered_within(long));
        reach.answered();
        assert!(reach.away_for().is_none() && reach.has_answered_within(long));
    }

    #[test]
    fn the_budget_of_second_tries_is_shared_and_grows_with_what_works() {
        let pace = Pace::default();
        let allowed = (0..1000).filter(|_| pace.may_retry()).count();
        assert_eq!(allowed, 100);
        (0..5).for_each(|_| pace.worked());
        assert!(pace.may_retry());
        assert!(!pace.may_retry());
    }

    #[test]
    fn bytes_go_at_the_rate_and_a_new_rate_holds_at_once() {
        let bandwidth = Bandwidth::default();
        assert_eq!(bandwidth.take(1 << 40), Ok(()));
        bandwidth.set(Some(1_000_000));
        let start = Instant::now();
        // A second of simulated time in steps of a millisecond.
        let gone: u64 = (0..1000)
            .filter(|ms| bandwidth.take_at(10_000, start + Duration::from_millis(*ms)).is_ok())
            .count() as u64
            * 10_000;
        assert!((900_000..=1_300_000).contains(&gone), "{gone}");
        bandwidth.set(None);
        assert_eq!(bandwidth.take(1 << 40), Ok(()));
    }

    #[test]
    fn a_shared_limit_is_divided_and_one_of_its_own_is_not() {
        let bandwidth = Bandwidth::default();
        bandwidth.set(Some(3_000_000));
        assert!(!bandwidth.share(3), "it is its own");
        bandwidth.set_shared(true);
        assert_eq!(bandwidth.rate(), Some(1_000_000));
        let start = Instant::now();
        let gone: u64 = (0..1000)
            .filter(|ms| bandwidth.take_at(10_000, start + Duration::from_millis(*ms)).is_ok())
            .count() as u64
            * 10_000;
        assert!((900_000..=1_300_000).contains(&gone), "{gone}");
        assert!(bandwidth.share(2) && !bandwidth.share(2));
        assert_eq!(bandwidth.rate(), Some(1_500_000));
        bandwidth.share(u64::MAX);
        assert_eq!(bandwidth.rate(), Some(1), "0 would be none");
        bandwidth.set(None);
        assert_eq!((bandwidth.rate(), bandwidth.is_shared()), (None, false));
    }
}
