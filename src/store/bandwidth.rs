//! Limits of bandwidth as they are configured.

use super::Bandwidth;

/// Whose a limit is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LimitScope {
    /// Each mover's own.
    #[default]
    Mover,
    /// That of all movers together which have it.
    Fleet,
}

/// Bytes a second, and of whom together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BandwidthLimit {
    /// Bytes a second.
    pub rate: u64,
    /// Of whom.
    pub scope: LimitScope,
}

impl BandwidthLimit {
    /// One mover's own.
    #[must_use]
    pub const fn of_mover(rate: u64) -> Self {
        Self {
            rate,
            scope: LimitScope::Mover,
        }
    }

    /// Whether it is the whole fleet's.
    #[must_use]
    pub fn is_shared(self) -> bool {
        self.scope == LimitScope::Fleet
    }

    /// Sets a limit, or none.
    pub fn set(limit: Option<Self>, on: &Bandwidth) {
        on.set_shared(limit.is_some_and(Self::is_shared));
        on.set(limit.map(|limit| limit.rate));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_the_fleets_and_is_the_movers_own_is_not_divided_any_more() {
        let bandwidth = Bandwidth::default();
        let limit = |scope| Some(BandwidthLimit { rate: 9000, scope });
        bandwidth.share(3);
        BandwidthLimit::set(limit(LimitScope::Fleet), &bandwidth);
        assert_eq!((bandwidth.rate(), bandwidth.is_shared()), (Some(3000), true));
        BandwidthLimit::set(limit(LimitScope::Mover), &bandwidth);
        assert_eq!((bandwidth.rate(), bandwidth.is_shared()), (Some(9000), false));
        BandwidthLimit::set(None, &bandwidth);
        assert_eq!((bandwidth.rate(), bandwidth.is_shared()), (None, false));
    }
}
