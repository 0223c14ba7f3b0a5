//! Moments by a clock that goes on while the node sleeps: what was fresh before it was suspended is not fresh after that.
//!
//! A guest whose hypervisor paused it has no clock that went on.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// A moment since this node's start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Moment(Duration);

impl Moment {
    /// This one. Without such a clock all is of long ago.
    pub(super) fn now() -> Self {
        Self(since_start().unwrap_or_default())
    }

    /// For how long it has been over.
    pub(super) fn elapsed(self) -> Duration {
        since_start().map_or(Duration::MAX, |now| now.saturating_sub(self.0))
    }

    #[cfg(test)]
    pub(super) fn checked_sub(self, length: Duration) -> Option<Self> {
        self.0.checked_sub(length).map(Self)
    }
}

fn since_start() -> Option<Duration> {
    clock_gettime(ClockId::CLOCK_BOOTTIME).ok().map(Duration::from)
}
