//! Whether a mover may do what its successor could not put right: another one may have taken over what it has in hand, while
//! it was not heard of.

use std::sync::Arc;
use std::time::Instant;

use super::health::PeerHealth;
use super::peers::RETURN;
use super::state::Shared;

/// Asked before an action is answered with an error, and before a copy is removed. What completes needs none.
#[derive(Clone, Debug)]
pub struct Warrant(Arc<Shared>);

impl Warrant {
    pub(super) const fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    /// The mover has renewed its row within the lease, so nobody takes it for dead. Or there is nobody who could, as far as it
    /// has ever seen; or none of them has the ledger either.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.0.is_warranted()
    }
}

impl Shared {
    /// `at`: before it was asked for.
    pub(super) fn renewed(&self, at: Instant) {
        let mut state = self.lock();
        state.renewals += 1;
        state.renewed_at = Some(at);
    }

    /// `at`: before the row was claimed, which renews it.
    pub(super) fn connected(&self, at: Instant) {
        let mut state = self.lock();
        state.connections += 1;
        state.renewed_at = Some(at);
    }

    /// `at`: before the others were asked.
    pub(super) fn all_are_away(&self, at: Instant) {
        self.lock().all_away = Some(at);
    }

    pub(super) fn is_warranted(&self) -> bool {
        let state = self.lock();
        let is_alone = !state.peers.iter().any(PeerHealth::may_take_over);
        let is_fresh = |at: Option<Instant>, length| at.is_some_and(|at| at.elapsed() < length);
        // Whoever gets the ledger back gives the others a while to do so, too.
        is_alone || is_fresh(state.renewed_at, self.lease) || is_fresh(state.all_away, self.lease + RETURN / 2)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ledger::peers::{GONE, SERVING, TAKEN};
    use crate::ledger::state::tests::{LEASE, shared_of};

    #[test]
    fn who_has_not_renewed_for_a_lease_has_no_warrant_unless_nobody_could_have_taken_over() {
        let peer = |state| PeerHealth {
            name: "mover2".into(),
            state,
            still: Duration::ZERO,
        };
        let shared = shared_of(true);
        assert!(shared.is_warranted(), "it has never seen another one");
        for state in [GONE, TAKEN] {
            shared.set_peers(vec![peer(state)]);
            assert!(shared.is_warranted());
        }
        shared.set_peers(vec![peer(GONE), peer(SERVING)]);
        assert!(!shared.is_warranted());
        let now = Instant::now();
        shared.renewed(now);
        assert!(shared.is_warranted());
        let Some(long_ago) = now.checked_sub(LEASE) else {
            return;
        };
        shared.renewed(long_ago);
        assert!(!shared.is_warranted());
        shared.all_are_away(long_ago);
        assert!(shared.is_warranted(), "they give it time to come back");
    }
}
