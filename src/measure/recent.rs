//! How much there was of late, without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Seconds that a rate looks back.
const WINDOW: u64 = 60;
const SLOTS: usize = 64;

/// A counter that also knows its rate over the last minute. Two threads that meet at the first moment of a second may
/// lose a little of the rate, never of the total.
#[derive(Debug)]
pub struct Recent {
    began: Instant,
    total: AtomicU64,
    /// Which second a slot is of, counted from 1, and how much there was in it.
    slots: [(AtomicU64, AtomicU64); SLOTS],
}

impl Default for Recent {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            total: AtomicU64::new(0),
            slots: [const { (AtomicU64::new(0), AtomicU64::new(0)) }; SLOTS],
        }
    }
}

impl Recent {
    /// So much more.
    pub fn add(&self, n: u64) {
        self.add_at(n, self.began.elapsed().as_secs());
    }

    fn add_at(&self, n: u64, second: u64) {
        self.total.fetch_add(n, Ordering::Relaxed);
        let at = usize::try_from(second).map_or(0, |second| second % SLOTS);
        if let Some((of, sum)) = self.slots.get(at) {
            if of.swap(second + 1, Ordering::Relaxed) == second + 1 {
                sum.fetch_add(n, Ordering::Relaxed);
            } else {
                sum.store(n, Ordering::Relaxed);
            }
        }
    }

    /// All there ever was.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// A second, over the last minute or since the beginning.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.rate_at(self.began.elapsed().as_secs())
    }

    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    fn rate_at(&self, second: u64) -> f64 {
        let of_late = self.slots.iter().filter_map(|(of, sum)| {
            let of = of.load(Ordering::Relaxed);
            (of > 0 && of + WINDOW > second + 1).then(|| sum.load(Ordering::Relaxed))
        });
        let sum: u64 = of_late.sum();
        sum as f64 / (second + 1).min(WINDOW) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_of_the_last_minute_and_the_total_of_all_time() {
        let recent = Recent::default();
        for second in 0..200 {
            recent.add_at(5, second);
            recent.add_at(5, second);
        }
        assert_eq!(recent.total(), 2000);
        assert!((recent.rate_at(199) - 10.0).abs() < 1e-9, "{}", recent.rate_at(199));
        assert!(
            (recent.rate_at(229) - 5.0).abs() < 1e-9,
            "half a minute later half is left"
        );
        assert!(recent.rate_at(300) < 1e-9);
    }
}
