//! When the objects were written that an import has looked at: younger ones are nobody's but their writers'.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

/// The latest so far.
#[derive(Debug)]
pub struct NewestObject {
    /// In seconds since 1970, by the store's clock.
    latest: AtomicI64,
    untimed: AtomicBool,
}

impl Default for NewestObject {
    fn default() -> Self {
        Self {
            latest: AtomicI64::new(i64::MIN),
            untimed: AtomicBool::new(false),
        }
    }
}

impl NewestObject {
    /// One that was last written then, as far as that is told.
    pub(super) fn note(&self, modified: Option<i64>) {
        match modified {
            Some(modified) => _ = self.latest.fetch_max(modified, Ordering::Relaxed),
            None => self.untimed.store(true, Ordering::Relaxed),
        }
    }

    /// The latest of all, in seconds since 1970; `None`: there was none.
    #[must_use]
    pub fn latest(&self) -> Option<i64> {
        Some(self.latest.load(Ordering::Relaxed)).filter(|latest| *latest != i64::MIN)
    }

    /// Whether the time of one is not known.
    #[must_use]
    pub fn is_untimed(&self) -> bool {
        self.untimed.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_of_all_counts_and_one_without_a_time_is_remembered() {
        let seen = NewestObject::default();
        assert_eq!(seen.latest(), None);
        for modified in [5, 9, 7] {
            seen.note(Some(modified));
        }
        assert_eq!((seen.latest(), seen.is_untimed()), (Some(9), false));
        seen.note(None);
        assert_eq!((seen.latest(), seen.is_untimed()), (Some(9), true));
    }
}
