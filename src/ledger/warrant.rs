//! Whether a mover may do what its successor could not put right: another one may have taken over what it has in hand, while
//! it was not heard of.

use std::sync::Arc;

use super::health::PeerHealth;
use super::moment::Moment;
use super::peers::RETURN;
use super::state::Shared;
use crate::action::ActionKey;

/// Asked before an action is answered with an error, and before a copy, what an archive left, or an upload is taken away. What
/// completes needs none.
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

    /// Whether there is another mover, as far as this one has seen.
    #[must_use]
    pub fn has_others(&self) -> bool {
        self.0.lock().peers.iter().any(PeerHealth::may_take_over)
    }

    /// [`Warrant::is_valid`] for whoever leaves what it has to do to others if it may not: that is counted.
    #[must_use]
    pub fn permits(&self) -> bool {
        let is_valid = self.is_valid();
        if !is_valid {
            self.0.lock().refusals += 1;
        }
        is_valid
    }

    /// How often it was not valid when something was to be permitted, for whoever asked.
    #[must_use]
    pub fn refusals(&self) -> u64 {
        self.0.lock().refusals
    }

    /// An action waits for it, and is tried again later.
    pub fn postpone(&self, key: ActionKey) {
        self.0.lock().postponed.insert(key);
    }

    /// It is being tried again.
    pub fn resume(&self, key: ActionKey) {
        self.0.lock().postponed.remove(&key);
    }
}

impl Shared {
    /// `at`: before it was asked for.
    pub(super) fn renewed(&self, at: Moment) {
        let mut state = self.lock();
        state.renewals += 1;
        if state.claimed_at.is_some() {
            state.claimed_at = Some(at);
        } else {
            state.renewed_at = Some(at);
        }
    }

    /// `at`: before the row was claimed, which renews it. That counts once it is known what others have taken from this mover:
    /// with [`Shared::in_step`].
    pub(super) fn connected(&self, at: Moment) {
        let mut state = self.lock();
        state.connections += 1;
        state.claimed_at = Some(at);
    }

    /// `at`: before the others were asked.
    pub(super) fn all_are_away(&self, at: Moment) {
        self.lock().all_away = Some(at);
    }

    pub(super) fn is_warranted(&self) -> bool {
        let state = self.lock();
        let is_alone = !state.peers.iter().any(PeerHealth::may_take_over);
        let is_fresh = |at: Option<Moment>, length| at.is_some_and(|at| at.elapsed() < length);
        // Whoever gets the ledger back gives the others a while to do so, too.
        is_alone || is_fresh(state.renewed_at, self.lease) || is_fresh(state.all_away, self.lease + RETURN / 2)
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::journal::JournalSink as _;
    use crate::ledger::peers::{GONE, SERVING, TAKEN};
    use crate::ledger::state::tests::{LEASE, shared_of};
    use crate::types::{Cookie, Fid};

    #[test]
    fn who_has_not_renewed_for_a_lease_has_no_warrant_unless_nobody_could_have_taken_over() {
        let peer = |state| PeerHealth {
            name: "mover2".into(),
            state,
            ..PeerHealth::default()
        };
        let shared = shared_of(true);
        assert!(shared.is_warranted(), "it has never seen another one");
        for state in [GONE, TAKEN] {
            shared.set_peers(vec![peer(state)]);
            assert!(shared.is_warranted());
        }
        shared.set_peers(vec![peer(GONE), peer(SERVING)]);
        assert!(!shared.is_warranted());
        let now = Moment::now();
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

    #[test]
    fn a_row_that_was_claimed_anew_is_no_warrant_before_it_is_known_what_others_have_taken() {
        let shared = shared_of(true);
        let peer = PeerHealth {
            name: "mover2".into(),
            state: SERVING,
            ..PeerHealth::default()
        };
        shared.set_peers(vec![peer]);
        shared.connected(Moment::now());
        shared.begin();
        assert!(!shared.is_warranted());
        shared.renewed(Moment::now());
        assert!(!shared.is_warranted(), "rows are being compared still");
        assert!(shared.in_step() && shared.is_warranted());
        // What was renewed within the lease is nobody else's, whatever becomes of the connection.
        shared.away("gone");
        shared.connected(Moment::now());
        assert!(shared.is_warranted());
    }

    #[test]
    fn actions_count_as_postponed_until_they_are_tried_again_or_end() {
        let shared = Arc::new(shared_of(true));
        let warrant = Warrant::new(Arc::clone(&shared));
        let key = |cookie| ActionKey {
            cookie: Cookie(cookie),
            fid: Fid {
                seq: 0x2_0000_0401,
                oid: 7,
                ver: 0,
            },
        };
        let peer = PeerHealth {
            name: "mover2".into(),
            state: SERVING,
            ..PeerHealth::default()
        };
        shared.set_peers(vec![peer]);
        assert!(!warrant.is_valid() && warrant.refusals() == 0);
        assert!(!warrant.permits() && warrant.refusals() == 1, "somebody left something");
        (1..=3).for_each(|cookie| warrant.postpone(key(cookie)));
        warrant.postpone(key(1));
        assert_eq!(shared.health().postponed, 3);
        warrant.resume(key(1));
        shared.ended(key(2));
        shared.gave_up(&[key(3)]);
        assert_eq!(shared.health().postponed, 0);
    }
}
