//! Which of the other movers are dead, by what one observer sees of their rows. No clock of anybody decides.
//!
//! A peer may be dead when its counter of renewals stood still for a lease in which the observer itself renewed without a
//! gap: an observer that was paused, or whose ledger was away, begins to watch anew. After an outage everybody comes back in
//! their own time, so whoever was not seen to renew since then is given [`RETURN`] more.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Until a mover that lives has the ledger again after an outage: a connection that hangs, a pause before the next, and some
/// slack.
pub(super) const RETURN: Duration = Duration::from_secs(30);

pub(super) const SERVING: i16 = 1;
pub(super) const GONE: i16 = 3;
/// It was found dead: what it had is free for the taking. It is over when that mover claims its row again.
pub(super) const TAKEN: i16 = 4;

/// A mover's row, as it was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct PeerRow {
    pub(super) name: String,
    pub(super) incarnation: i64,
    pub(super) renewals: i64,
    pub(super) state: i16,
    pub(super) address: Option<String>,
}

impl PeerRow {
    /// Whether it neither ended nor was found dead.
    pub(super) const fn is_there(&self) -> bool {
        !matches!(self.state, GONE | TAKEN)
    }
}

/// What is known of one of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Peer {
    pub(super) row: PeerRow,
    /// For how long its row was the same, in time without a gap.
    pub(super) still: Duration,
    /// It was seen to change since the last outage.
    has_renewed: bool,
    /// When it was seen to renew last; `None`: never.
    renewed: Option<Instant>,
    heard: Heard,
}

/// What its HTTP said since its counter stands still.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Heard {
    NotAsked,
    Asked,
    Nothing,
}

impl Peer {
    const fn new(row: PeerRow, has_renewed: bool) -> Self {
        Self {
            row,
            still: Duration::ZERO,
            has_renewed,
            renewed: None,
            heard: Heard::NotAsked,
        }
    }

    /// The same one with another row, which was read `at`.
    fn changed(self, row: PeerRow, at: Instant) -> Self {
        let is_renewal = (row.incarnation, row.renewals) != (self.row.incarnation, self.row.renewals);
        Self {
            renewed: if is_renewal { Some(at) } else { self.renewed },
            ..Self::new(row, true)
        }
    }

    /// When it was seen to renew last; `None`: never by this observer, so nobody knows since when it is dead.
    pub(super) const fn renewed(&self) -> Option<Instant> {
        self.renewed
    }

    pub(super) const fn is_taken(&self) -> bool {
        self.row.state == TAKEN
    }

    /// Whether it neither ended nor was found dead.
    pub(super) const fn is_there(&self) -> bool {
        self.row.is_there()
    }
}

/// All that one observer has seen.
#[derive(Debug)]
pub(super) struct PeerWatch {
    lease: Duration,
    /// When the rows had been read last.
    looked: Option<Instant>,
    peers: BTreeMap<String, Peer>,
}

impl PeerWatch {
    pub(super) const fn new(lease: Duration) -> Self {
        Self {
            lease,
            looked: None,
            peers: BTreeMap::new(),
        }
    }

    /// Those that an earlier process of this mover saw, until the ledger tells who there is.
    pub(super) fn remember(&mut self, rows: Vec<PeerRow>) {
        let peers = rows.into_iter().map(|row| (row.name.clone(), Peer::new(row, false)));
        self.peers.extend(peers);
    }

    /// The observer could not renew: what it saw before proves nothing.
    pub(super) fn lost(&mut self) {
        self.looked = None;
    }

    /// The rows of the others, right after a renewal of the observer's own. They were asked for at `asked` and there at `read`.
    /// `true`: there was a gap, and all are watched anew.
    pub(super) fn look(&mut self, asked: Instant, read: Instant, rows: Vec<PeerRow>) -> bool {
        let step = self.looked.map(|last| asked.saturating_duration_since(last));
        self.looked = Some(read);
        // Without a look for a whole lease nobody was watched; with a shorter gap the counters begin anew.
        let is_outage = step.is_none_or(|step| step > self.lease);
        let step = step.filter(|step| *step <= self.lease / 2);
        let mut former = std::mem::take(&mut self.peers);
        for row in rows {
            let (mut peer, is_same) = match former.remove(&row.name) {
                Some(peer) if peer.row == row => (peer, true),
                Some(peer) => (peer.changed(row, read), false),
                None => (Peer::new(row, false), false),
            };
            if is_outage {
                peer.has_renewed = false;
            }
            match step {
                Some(step) if is_same => peer.still += step,
                // It changed at some moment since the last look.
                Some(_) => {}
                // One that was found dead has been: nobody has to prove it again.
                None if peer.is_taken() => {}
                None => {
                    peer.still = Duration::ZERO;
                    peer.heard = Heard::NotAsked;
                }
            }
            self.peers.insert(peer.row.name.clone(), peer);
        }
        step.is_none()
    }

    /// Those whose counter has stood still for long enough and that were not asked yet over HTTP. They are now.
    pub(super) fn suspects(&mut self) -> Vec<PeerRow> {
        let lease = self.lease;
        let suspects = self
            .peers
            .values_mut()
            .filter(|peer| peer.heard == Heard::NotAsked && is_still(peer, lease));
        suspects
            .map(|peer| {
                peer.heard = Heard::Asked;
                peer.row.clone()
            })
            .collect()
    }

    /// Whether one that was asked has answered. One that lives is asked again after another lease.
    pub(super) fn heard(&mut self, of: &PeerRow, lives: bool) {
        let Some(peer) = self.peers.get_mut(&of.name).filter(|peer| peer.row == *of) else {
            return;
        };
        if lives {
            peer.still = Duration::ZERO;
            peer.heard = Heard::NotAsked;
        } else if peer.heard == Heard::Asked {
            peer.heard = Heard::Nothing;
        }
    }

    /// Those that neither renew nor answer.
    pub(super) fn dead(&self) -> Vec<PeerRow> {
        let dead = self
            .peers
            .values()
            .filter(|peer| peer.heard == Heard::Nothing && is_still(peer, self.lease));
        dead.map(|peer| peer.row.clone()).collect()
    }

    /// Those that somebody found dead, whose actions are free for the taking.
    pub(super) fn taken(&self) -> Vec<Peer> {
        self.peers.values().filter(|peer| peer.is_taken()).cloned().collect()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Peer> {
        self.peers.values()
    }
}

fn is_still(peer: &Peer, lease: Duration) -> bool {
    let enough = if peer.has_renewed { lease } else { lease + RETURN };
    !peer.is_taken() && peer.still >= enough
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(20);
    const STEP: Duration = Duration::from_secs(5);

    struct Seen {
        watch: PeerWatch,
        now: Instant,
        row: PeerRow,
        is_lost: bool,
    }

    impl Seen {
        /// A peer that was seen to renew.
        fn living() -> Self {
            let mut seen = Self {
                watch: PeerWatch::new(LEASE),
                now: Instant::now(),
                row: PeerRow {
                    name: "mover2".into(),
                    incarnation: 7,
                    renewals: 1,
                    state: SERVING,
                    address: None,
                },
                is_lost: true,
            };
            seen.look(STEP);
            seen.row.renewals += 1;
            seen.look(STEP);
            seen
        }

        fn look(&mut self, after: Duration) {
            self.now += after;
            let is_gap = self.watch.look(self.now, self.now, vec![self.row.clone()]);
            assert!(!is_gap || after > LEASE / 2 || self.is_lost);
            self.is_lost = false;
        }

        fn loses(&mut self) {
            self.watch.lost();
            self.is_lost = true;
        }

        /// Looks without a gap for so long; whether it is suspected then.
        fn stands_still(&mut self, length: Duration) -> bool {
            let until = self.now + length;
            while self.now < until {
                self.look(STEP);
            }
            !self.watch.suspects().is_empty()
        }

        fn says(&mut self, lives: bool) {
            let row = self.row.clone();
            self.watch.heard(&row, lives);
        }
    }

    #[test]
    fn a_peer_is_dead_when_it_stood_still_for_a_lease_and_does_not_answer() {
        let mut seen = Seen::living();
        assert!(!seen.stands_still(LEASE - STEP));
        assert!(seen.stands_still(STEP));
        assert!(seen.watch.suspects().is_empty(), "it is asked once");
        assert!(seen.watch.dead().is_empty(), "it may answer still");
        seen.says(false);
        assert_eq!(seen.watch.dead(), [seen.row.clone()]);
    }

    #[test]
    fn one_that_answers_lives_and_is_asked_again_after_another_lease() {
        let mut seen = Seen::living();
        assert!(seen.stands_still(LEASE));
        seen.says(true);
        assert!(seen.watch.dead().is_empty() && !seen.stands_still(LEASE - STEP));
        assert!(seen.stands_still(STEP));
        seen.says(false);
        assert_eq!(seen.watch.dead().len(), 1);
    }

    #[test]
    fn one_that_renews_after_it_was_asked_is_not_dead_whatever_is_heard() {
        let mut seen = Seen::living();
        assert!(seen.stands_still(LEASE));
        let asked = seen.row.clone();
        seen.row.renewals += 1;
        seen.look(STEP);
        seen.watch.heard(&asked, false);
        assert!(seen.watch.dead().is_empty());
        assert!(!seen.stands_still(LEASE - STEP));
        assert!(seen.stands_still(STEP));
    }

    #[test]
    fn after_an_outage_everybody_has_the_time_to_come_back() {
        let mut seen = Seen::living();
        assert!(!seen.stands_still(LEASE - STEP));
        seen.loses();
        // All leases would be over at once, by any clock.
        seen.look(Duration::from_secs(3600));
        assert!(!seen.stands_still(LEASE + RETURN - STEP));
        assert!(seen.stands_still(STEP), "one that never came back is dead");
        // And one that did is watched as ever.
        let mut seen = Seen::living();
        seen.loses();
        seen.look(Duration::from_secs(3600));
        seen.row.renewals += 1;
        seen.look(STEP);
        assert!(!seen.stands_still(LEASE - STEP));
        assert!(seen.stands_still(STEP));
    }

    #[test]
    fn what_changed_during_an_outage_is_no_sign_of_life_after_it() {
        let mut seen = Seen::living();
        seen.loses();
        seen.row.renewals += 5;
        seen.look(Duration::from_secs(600));
        assert!(!seen.stands_still(LEASE + RETURN - STEP));
        assert!(seen.stands_still(STEP));
    }

    #[test]
    fn an_observer_that_was_paused_begins_anew() {
        for pause in [LEASE / 2 + STEP, Duration::from_secs(600)] {
            let mut seen = Seen::living();
            assert!(!seen.stands_still(LEASE - STEP));
            seen.look(pause);
            assert!(!seen.stands_still(LEASE - STEP), "{pause:?}");
        }
        // Also where it had asked already, and the answer was lost on the way.
        let mut seen = Seen::living();
        assert!(seen.stands_still(LEASE));
        seen.says(false);
        seen.look(Duration::from_secs(600));
        assert!(seen.watch.dead().is_empty());
    }

    #[test]
    fn a_replica_that_lags_shows_an_older_counter_and_that_is_no_standstill() {
        let mut seen = Seen::living();
        assert!(!seen.stands_still(LEASE - STEP));
        // The connection broke; another server has it now.
        seen.loses();
        seen.row.renewals -= 1;
        seen.look(STEP);
        assert!(!seen.stands_still(LEASE));
        seen.row.renewals += 1;
        seen.look(STEP);
        assert!(!seen.stands_still(LEASE - STEP));
    }

    #[test]
    fn one_that_was_started_again_is_another_and_begins_to_be_watched() {
        let mut seen = Seen::living();
        assert!(!seen.stands_still(LEASE - STEP));
        seen.row.incarnation = 8;
        assert!(!seen.stands_still(LEASE));
        assert!(seen.stands_still(STEP));
        let killed = seen.row.clone();
        seen.row.incarnation = 9;
        seen.look(STEP);
        seen.watch.heard(&killed, false);
        assert!(seen.watch.dead().is_empty());
    }

    #[test]
    fn one_that_was_never_seen_to_renew_has_longer() {
        let mut seen = Seen::living();
        seen.watch = PeerWatch::new(LEASE);
        seen.is_lost = true;
        assert!(!seen.stands_still(LEASE + RETURN));
        assert!(seen.stands_still(STEP));
    }

    #[test]
    fn when_it_renewed_last_is_known_of_whom_it_was_seen_and_a_mark_is_no_renewal() {
        let mut seen = Seen::living();
        let renewed = seen.watch.all().next().unwrap().renewed();
        assert_eq!(renewed, Some(seen.now));
        assert!(seen.stands_still(LEASE));
        seen.row.state = TAKEN;
        seen.look(STEP);
        assert_eq!(seen.watch.taken()[0].renewed(), renewed);
        seen.watch = PeerWatch::new(LEASE);
        seen.loses();
        seen.look(STEP);
        assert_eq!(seen.watch.taken()[0].renewed(), None, "another observer");
    }

    #[test]
    fn what_was_found_dead_stays_so_through_gaps_until_it_claims_its_row() {
        let mut seen = Seen::living();
        seen.row.state = TAKEN;
        assert!(!seen.stands_still(LEASE + STEP) && seen.watch.dead().is_empty());
        let before = seen.watch.taken()[0].still;
        assert_eq!(before, LEASE, "the first look begins it");
        seen.loses();
        seen.look(Duration::from_secs(600));
        assert_eq!(seen.watch.taken()[0].still, before);
        seen.row.state = SERVING;
        seen.look(STEP);
        assert!(seen.watch.taken().is_empty());
        assert!(!seen.stands_still(LEASE - STEP));
    }

    #[test]
    fn one_that_is_remembered_is_no_living_one_before_the_ledger_shows_it() {
        let mut seen = Seen::living();
        let mut row = seen.row.clone();
        row.incarnation = 0;
        seen.watch = PeerWatch::new(LEASE);
        seen.watch.remember(vec![row]);
        assert!(seen.watch.all().all(Peer::is_there) && seen.watch.suspects().is_empty());
        seen.is_lost = true;
        assert!(
            !seen.stands_still(LEASE + RETURN),
            "that its row is another one is no renewal"
        );
        assert!(seen.stands_still(STEP));
    }
}
