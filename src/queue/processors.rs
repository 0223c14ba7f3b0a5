//! Whether this node has processors to spare. Threads that help with a file's parts hide the waiting for a store; where
//! all processors are busy there is none to hide, and more connections only push each other out of the caches.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What one look tells is about so long.
const WINDOW: Duration = Duration::from_millis(100);
/// A look so long ago tells nothing of now.
const STALE: Duration = Duration::from_millis(500);
/// Free processors among a hundred that are to spare.
const SPARE: u64 = 15;

/// Jiffies of all processors since the start of the node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Times {
    idle: u64,
    all: u64,
}

#[derive(Debug)]
pub(super) struct Processors {
    count: usize,
    spare: AtomicBool,
    seen: Mutex<Option<(Instant, Times)>>,
}

impl Default for Processors {
    fn default() -> Self {
        Self {
            count: std::thread::available_parallelism().map_or(1, usize::from).max(2),
            spare: AtomicBool::new(false),
            seen: Mutex::default(),
        }
    }
}

impl Processors {
    #[cfg(test)]
    pub(super) fn of(count: usize, spare: bool) -> Self {
        Self {
            count,
            spare: spare.into(),
            seen: Mutex::default(),
        }
    }

    /// At least two: one computes while the other waits.
    pub(super) const fn count(&self) -> usize {
        self.count
    }

    /// As of the last look.
    pub(super) fn are_to_spare(&self) -> bool {
        self.spare.load(Ordering::Relaxed)
    }

    /// Whether it is time to [`Processors::look`].
    pub(super) fn is_due(&self, now: Instant) -> bool {
        // Held by who looks already.
        let Ok(seen) = self.seen.try_lock() else {
            return false;
        };
        seen.is_none_or(|(at, _)| now.saturating_duration_since(at) >= WINDOW)
    }

    /// Reads `/proc/stat`, which takes a millisecond on a large node. One looks for all: who comes meanwhile goes on.
    pub(super) fn look(&self, now: Instant) {
        let Ok(mut seen) = self.seen.try_lock() else {
            return;
        };
        if seen.is_some_and(|(at, _)| now.saturating_duration_since(at) < WINDOW) {
            return;
        }
        let times = std::fs::read_to_string("/proc/stat").ok().and_then(|text| parse(&text));
        let before = seen.filter(|(at, _)| now.duration_since(*at) < STALE);
        let spare = match (before, times) {
            (Some((_, before)), Some(now)) => now.has_spare_since(before),
            (None, Some(_)) => false,
            // Nobody can tell here: as if there were.
            (_, None) => true,
        };
        self.spare.store(spare, Ordering::Relaxed);
        *seen = Some((now, times.unwrap_or(Times { idle: 0, all: 0 })));
    }
}

impl Times {
    const fn has_spare_since(self, before: Self) -> bool {
        let (idle, all) = (
            self.idle.saturating_sub(before.idle),
            self.all.saturating_sub(before.all),
        );
        idle * 100 >= all * SPARE && all > 0
    }
}

/// The first line: user, nice, system, idle, iowait, and what else they are busy with (proc(5)); guests' time is in
/// user's and nice's already.
fn parse(stat: &str) -> Option<Times> {
    let mut words = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
    let mut times = [0u64; 8];
    for time in &mut times {
        *time = words.next()?.parse().ok()?;
    }
    let [_, _, _, idle, waiting, ..] = times;
    Some(Times {
        idle: idle + waiting,
        all: times.iter().sum(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_kernels_is_understood_and_damage_is_not_guessed_at() {
        let text = "cpu  10 20 30 400 5 1 2 3 7 8\ncpu0 1 2 3 4\n";
        assert_eq!(parse(text), Some(Times { idle: 405, all: 471 }));
        for damaged in ["", "cpu  1 2", "cpu  1 2 3 x 5 6 7 8", "intr 1"] {
            assert_eq!(parse(damaged), None, "{damaged}");
        }
    }

    #[test]
    fn idle_processors_are_to_spare_and_a_first_look_tells_nothing() {
        let before = Times { idle: 100, all: 200 };
        let later = |idle, all| Times { idle, all }.has_spare_since(before);
        assert!(later(115, 300) && later(200, 300));
        assert!(!later(114, 300) && !later(100, 300) && !later(100, 200));

        let processors = Processors::default();
        let now = Instant::now();
        assert!(processors.is_due(now));
        processors.look(now);
        assert!(!processors.is_due(now) && processors.is_due(now + WINDOW));
        assert!(processors.count() >= 2 && !processors.are_to_spare());
    }
}
