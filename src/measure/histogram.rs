//! Durations by size, cheap to count and as Prometheus wants them.

use std::time::Duration;

/// Durations, by powers of about three.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Histogram {
    /// One more than [`Self::BOUNDS`]: the last is for what is longer.
    counts: [u64; Self::BOUNDS.len() + 1],
    seconds: f64,
}

impl Histogram {
    /// Seconds, inclusive.
    pub const BOUNDS: [f64; 13] = [
        0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1_000.0, 10_000.0,
    ];

    /// One more.
    pub fn add(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        let at = Self::BOUNDS.partition_point(|bound| *bound < seconds);
        if let Some(count) = self.counts.get_mut(at) {
            *count += 1;
        }
        self.seconds += seconds;
    }

    /// The sum of all, in seconds.
    #[must_use]
    pub const fn seconds(&self) -> f64 {
        self.seconds
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Each bound with how many are in its own bucket; the last bound is infinite.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> {
        let bounds = Self::BOUNDS.into_iter().chain([f64::INFINITY]);
        bounds.zip(self.counts)
    }
}
