//! Whether this node has processors to spare. Threads that help with a file's parts hide the waiting for a store; where
//! we keep all processors busy there is none to hide, and more connections only push each other out of the caches. Where
//! others keep them busy, a job's computing say, we take what the kernel gives us.

use std::time::Duration;

use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Instant, Mutex};

/// What one look tells is about so long.
const WINDOW: Duration = Duration::from_millis(100);
/// A look so long ago tells nothing of now.
const STALE: Duration = Duration::from_millis(500);
/// Free processors among a hundred that are to spare.
const SPARE: u64 = 15;
/// Processors among a hundred that we must use ourselves for their being busy to be our doing.
const OURS: u64 = 25;

/// Jiffies since the start of the node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Times {
    /// Of all processors.
    all: u64,
    /// Of those, without work.
    idle: u64,
    /// Of those, spent by this process.
    own: u64,
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
        let times = read();
        let before = seen.filter(|(at, _)| now.duration_since(*at) < STALE);
        let spare = match (before, times) {
            (Some((_, before)), Some(now)) => now.has_spare_since(before),
            (None, Some(_)) => false,
            // Nobody can tell here: as if there were.
            (_, None) => true,
        };
        self.spare.store(spare, Ordering::Relaxed);
        *seen = Some((now, times.unwrap_or_default()));
    }
}

impl Times {
    const fn has_spare_since(self, before: Self) -> bool {
        let all = self.all.saturating_sub(before.all);
        let idle = self.idle.saturating_sub(before.idle);
        let own = self.own.saturating_sub(before.own);
        all > 0 && (idle * 100 >= all * SPARE || own * 100 < all * OURS)
    }
}

fn read() -> Option<Times> {
    let read = std::fs::read_to_string;
    parse(&read("/proc/stat").ok()?, &read("/proc/self/stat").ok()?)
}

/// Of `stat` the first line: user, nice, system, idle, iowait, and what else they are busy with; guests' time is in
/// user's and nice's already. Of `own` user and system time, the 14th and 15th words (proc(5)).
fn parse(stat: &str, own: &str) -> Option<Times> {
    let mut words = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
    let mut times = [0u64; 8];
    for time in &mut times {
        *time = words.next()?.parse().ok()?;
    }
    let [_, _, _, idle, waiting, ..] = times;
    // The second word is our name in parentheses, whatever that may be; the third comes after the last of them.
    let (_, own) = own.rsplit_once(')')?;
    let mut own = own.split_whitespace().skip(11).map(str::parse::<u64>);
    Some(Times {
        all: times.iter().sum(),
        idle: idle + waiting,
        own: own.next()?.ok()? + own.next()?.ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "7 (a) b) S 1 7 7 0 -1 4194304 900 0 0 0 31 12 5 6 20 0 9 0 100";

    #[test]
    fn lines_of_the_kernels_are_understood_and_damage_is_not_guessed_at() {
        let text = "cpu  10 20 30 400 5 1 2 3 7 8\ncpu0 1 2 3 4\n";
        let times = Times {
            all: 471,
            idle: 405,
            own: 43,
        };
        assert_eq!(parse(text, OWN), Some(times));
        for damaged in ["", "cpu  1 2", "cpu  1 2 3 x 5 6 7 8", "intr 1"] {
            assert_eq!(parse(damaged, OWN), None, "{damaged}");
        }
        for damaged in ["", "7 (a", "7 (a) S 1 2 3", "7 (a) S 1 7 7 0 -1 4194304 900 0 0 0 x 12"] {
            assert_eq!(parse(text, damaged), None, "{damaged}");
        }
        assert!(read().is_some_and(|times| times.all > times.idle));
    }

    #[test]
    fn processors_are_to_spare_that_idle_or_that_others_keep_busy() {
        let before = Times {
            all: 200,
            idle: 100,
            own: 10,
        };
        let later = |all, idle, own| Times { all, idle, own }.has_spare_since(before);
        // Busy with us: it is what is idle that counts.
        assert!(later(300, 115, 60) && later(300, 200, 60));
        assert!(!later(300, 114, 60) && !later(300, 100, 35));
        // Busy with others.
        assert!(later(300, 100, 34) && later(300, 100, 10));
        assert!(!later(200, 100, 10), "no time has passed");
    }

    #[test]
    fn a_first_look_tells_nothing() {
        let processors = Processors::default();
        let now = Instant::now();
        assert!(processors.is_due(now));
        processors.look(now);
        assert!(!processors.is_due(now) && processors.is_due(now + WINDOW));
        assert!(processors.count() >= 2 && !processors.are_to_spare());
    }
}
