//! How many files may be asked for and not done: enough for some seconds of work, so that the coordinator always has
//! some, and no more, so that what others ask for does not wait behind a million.

use std::time::{Duration, Instant};

/// What the queue should last for.
const AHEAD: f64 = 3.0;
const PERIOD: Duration = Duration::from_secs(1);
const LEAST: usize = 64;
const FIRST: usize = 256;

/// How many files may be asked for and not done; it follows the rate at which they are done.
#[derive(Debug)]
pub(super) struct Window {
    size: usize,
    most: usize,
    /// Completions since then.
    done: usize,
    since: Instant,
    rate: f64,
}

impl Window {
    pub(super) fn new(most: usize, now: Instant) -> Self {
        Self {
            size: FIRST.min(most),
            most,
            done: 0,
            since: now,
            rate: 0.0,
        }
    }

    pub(super) const fn size(&self) -> usize {
        self.size
    }

    /// Completions a second, of late.
    pub(super) const fn rate(&self) -> f64 {
        self.rate
    }

    pub(super) const fn completed(&mut self, files: usize) {
        self.done += files;
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate"
    )]
    pub(super) fn adjust(&mut self, now: Instant) {
        let took = now.saturating_duration_since(self.since);
        if took < PERIOD {
            return;
        }
        let rate = self.done as f64 / took.as_secs_f64();
        // A quiet second says less than a long quiet.
        self.rate = if self.rate == 0.0 {
            rate
        } else {
            0.5 * self.rate + 0.5 * rate
        };
        self.size = ((self.rate * AHEAD) as usize).clamp(LEAST.min(self.most), self.most);
        self.done = 0;
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_follows_the_completions_between_its_bounds() {
        let start = Instant::now();
        let mut window = Window::new(5000, start);
        assert_eq!(window.size(), 256);
        for second in 1..=10 {
            window.completed(1000);
            window.adjust(start + Duration::from_secs(second));
        }
        assert_eq!(window.size(), 3000);
        for second in 11..=20 {
            window.completed(100_000);
            window.adjust(start + Duration::from_secs(second));
        }
        assert_eq!(window.size(), 5000);
        for second in 21..=60 {
            window.adjust(start + Duration::from_secs(second));
        }
        assert_eq!(window.size(), 64);
    }

    #[test]
    fn a_small_most_is_never_passed() {
        let start = Instant::now();
        let mut window = Window::new(3, start);
        window.completed(1_000_000);
        window.adjust(start + Duration::from_secs(1));
        assert_eq!(window.size(), 3);
    }
}
