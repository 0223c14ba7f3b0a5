//! All movers as their rows have them, with what each tells of itself: what one that serves has seen of them, for whoever asks it,
//! and a look from outside, for a command on a node without a daemon.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio_postgres::types::Type;

use super::fence::{self, Fences};
use super::keeper::Keeper;
use super::link::Link;
use super::peers::{GONE, PeerRow, TAKEN};
use super::schema::LedgerState;
use super::sharers::Sharers;
use super::state::Shared;
use super::{LedgerError, LedgerOptions};
use crate::fleet::{FleetReport, SeenMover, SeenState, Telling, Unreached};
use crate::types::OutOfReach;

/// Movers that are looked at; more than any site has.
const MOST: i64 = 1000;
/// Between two looks from outside.
const SHORTEST_LOOK: Duration = Duration::from_millis(50);
const LONGEST_LOOK: Duration = Duration::from_millis(500);

/// Former incarnations of which a node's files know nothing are no movers (`own`).
const READ: &str = "\
SELECT name, incarnation, renewals, state, left_at IS NOT DISTINCT FROM renewals, release, archive_ids,
    CASE WHEN described_by = incarnation THEN host END,
    CASE WHEN told_by = incarnation AND length(told) <= 65536 THEN told END
FROM lhsmtool_s3.mover WHERE NOT (state = $1 AND archive_ids = '{}') ORDER BY name LIMIT $2";

/// A mover's row.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct SeenRow {
    name: String,
    incarnation: i64,
    renewals: i64,
    state: i16,
    /// It had ended in order before anybody found it dead.
    has_left: bool,
    release: String,
    archives: Vec<u32>,
    host: Option<String>,
    told: Option<Telling>,
}

impl SeenRow {
    /// Whether it neither ended nor was found dead.
    const fn is_there(&self) -> bool {
        !matches!(self.state, GONE | TAKEN)
    }

    fn as_peer(&self) -> PeerRow {
        PeerRow {
            name: self.name.clone(),
            incarnation: self.incarnation,
            renewals: self.renewals,
            state: self.state,
            address: None,
        }
    }

    fn seen_as(&self, is_silent: bool) -> SeenState {
        match self.state {
            GONE => SeenState::Ended,
            TAKEN if self.has_left => SeenState::Ended,
            TAKEN => SeenState::Dead,
            _ if is_silent => SeenState::Silent,
            _ if self.told.as_ref().is_some_and(|told| told.draining) => SeenState::Draining,
            _ => SeenState::Serving,
        }
    }
}

async fn read(link: &Link) -> Result<Vec<SeenRow>, LedgerError> {
    let rows = link.query(READ, &[(&TAKEN, Type::INT2), (&MOST, Type::INT8)]).await?;
    rows.iter()
        .map(|row| {
            let archives: Vec<i32> = link.get(row, 6)?;
            let told: Option<String> = link.get(row, 8)?;
            Ok(SeenRow {
                name: link.get(row, 0)?,
                incarnation: link.get(row, 1)?,
                renewals: link.get(row, 2)?,
                state: link.get(row, 3)?,
                has_left: link.get(row, 4)?,
                release: link.get(row, 5)?,
                archives: archives.into_iter().map(i32::cast_unsigned).collect(),
                host: link.get(row, 7)?,
                told: told.as_deref().and_then(Telling::from_json),
            })
        })
        .collect()
}

/// What a mover has seen of all, itself included.
#[derive(Debug)]
pub(super) struct SeenFleet {
    looked: Instant,
    movers: Vec<SeenAt>,
}

/// A row, and what the observer knows of it.
#[derive(Debug)]
struct SeenAt {
    row: SeenRow,
    /// When it was seen to renew last.
    renewed: Option<Instant>,
    still: Duration,
}

impl Keeper {
    /// Looks at what all movers tell, right after the look at whether they live.
    pub(super) async fn see(&self, link: &Link) -> Result<(), LedgerError> {
        let rows = read(link).await?;
        let looked = Instant::now();
        let own = &self.row.owner.name;
        let others = rows.iter().filter(|row| row.name != *own && row.is_there());
        let sharers = Sharers::told(others.filter_map(|row| row.told.as_ref()));
        let mut peers: BTreeMap<&str, _> = self.watch.all().map(|peer| (peer.row.name.as_str(), peer)).collect();
        let movers = rows.into_iter().map(|row| {
            let peer = peers.remove(row.name.as_str());
            let same =
                |row: &SeenRow, peer: &PeerRow| (row.incarnation, row.renewals) == (peer.incarnation, peer.renewals);
            let (renewed, still) = match peer {
                Some(peer) if same(&row, &peer.row) => (peer.renewed(), peer.still),
                // Its own, which it has just renewed, or one that has changed since the look before.
                _ => (Some(looked), Duration::ZERO),
            };
            SeenAt { row, renewed, still }
        });
        let movers = movers.collect();
        self.shared.lock().fleet = Some(SeenFleet { looked, movers });
        self.shared.share(sharers);
        Ok(())
    }

    /// What the row is to say of this mover with its next renewal.
    pub(super) fn tell(&mut self) {
        let mut told = match self.shared.teller() {
            Some(teller) => teller.telling(),
            None => self.told.clone(),
        };
        let heir = self.shared.heir();
        let out = heir.map(|heir| heir.out_of_reach()).unwrap_or_default();
        told.out_of_reach = out
            .into_iter()
            .map(|(of, length)| Unreached {
                is_mdt: matches!(of, OutOfReach::Mdt(_)),
                what: of.to_string(),
                seconds: length.as_secs_f64(),
            })
            .collect();
        let health = self.shared.health();
        told.behind = health.lag.as_secs_f64();
        told.offered = health.offered as u64;
        told.postponed = health.postponed as u64;
        self.row.told = told.to_json();
    }
}

impl Shared {
    /// All movers as this one saw them last; `None`: it has not looked for longer than a lease.
    pub(super) fn fleet(&self) -> Option<FleetReport> {
        let state = self.lock();
        let seen = state.fleet.as_ref()?;
        let age = seen.looked.elapsed();
        if age > self.lease {
            return None;
        }
        let movers = seen.movers.iter().map(|mover| {
            let is_silent = mover.still >= self.lease;
            let peer = state.peers.iter().find(|peer| peer.name == mover.row.name);
            SeenMover {
                fenced: peer.is_some_and(|peer| peer.is_fenced),
                fencer: peer.and_then(|peer| peer.fencer.clone()),
                fence_error: peer.and_then(|peer| peer.fence_error.clone()),
                ..of_row(&mover.row, is_silent, mover.renewed.map(|at| at.elapsed()), mover.still)
            }
        });
        Some(FleetReport {
            ledger: self.place.clone(),
            observer: Some(self.mover.clone()),
            age: age.as_secs_f64(),
            lease: self.lease.as_secs_f64(),
            movers: movers.collect(),
        })
    }
}

fn of_row(row: &SeenRow, is_silent: bool, renewed: Option<Duration>, still: Duration) -> SeenMover {
    SeenMover {
        mover: row.name.clone(),
        state: row.seen_as(is_silent),
        node: row.host.clone(),
        release: row.release.clone(),
        archives: row.archives.clone(),
        renewed: renewed.map(|length| length.as_secs_f64()),
        silent: still.as_secs_f64(),
        told: row.told.clone(),
        ..SeenMover::default()
    }
}

/// Which movers were seen to renew by who is none.
#[derive(Debug, Default)]
struct Glance {
    renewals: BTreeMap<String, (i64, i64)>,
    renewed: BTreeMap<String, Instant>,
}

impl Glance {
    /// Another look; whether all that are there were seen to renew.
    fn look(&mut self, rows: &[SeenRow], at: Instant) -> bool {
        for row in rows {
            let now = (row.incarnation, row.renewals);
            let before = self.renewals.insert(row.name.clone(), now);
            if before.is_some_and(|before| before != now) {
                self.renewed.insert(row.name.clone(), at);
            }
        }
        let mut there = rows.iter().filter(|row| row.is_there());
        there.all(|row| self.renewed.contains_key(&row.name))
    }

    fn report(
        &self,
        ledger: &LedgerState,
        lease: Duration,
        rows: &[SeenRow],
        fences: &Fences,
        began: Instant,
    ) -> FleetReport {
        let looked = began.elapsed();
        let movers = rows.iter().map(|row| {
            let renewed = self.renewed.get(&row.name).map(Instant::elapsed);
            let still = renewed.unwrap_or(looked);
            let fence = fences.of(&row.as_peer());
            SeenMover {
                fenced: fence.is_some_and(|fence| fence.is_fenced),
                fencer: fence
                    .filter(|fence| !fence.is_fenced && !fence.has_left)
                    .and_then(|fence| fence.fencer.clone()),
                ..of_row(row, renewed.is_none(), renewed, still)
            }
        });
        FleetReport {
            ledger: ledger.place.clone(),
            observer: None,
            age: 0.0,
            lease: lease.as_secs_f64(),
            movers: movers.collect(),
        }
    }
}

/// Looks at the movers of a ledger from outside, until each that is there was seen to renew its row, and for half a lease at most:
/// who lives renews twice in that. Who does not is silent, and not dead: that is decided by other movers.
///
/// # Errors
/// It can't be reached, or not be used.
pub async fn see(options: &LedgerOptions) -> Result<FleetReport, LedgerError> {
    let link = Box::pin(Link::open(options)).await?;
    let ledger = Box::pin(LedgerState::read(&link)).await?;
    ledger.must_be_usable()?;
    let pause = (options.lease / 40).clamp(SHORTEST_LOOK, LONGEST_LOOK);
    let (began, mut glance) = (Instant::now(), Glance::default());
    loop {
        let rows = Box::pin(read(&link)).await?;
        if glance.look(&rows, Instant::now()) || began.elapsed() >= options.lease / 2 {
            // No mover's name is empty.
            let fences = Box::pin(fence::read(&link, "")).await?;
            return Ok(glance.report(&ledger, options.lease, &rows, &fences, began));
        }
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::super::peers::SERVING;
    use super::super::state::tests::{LEASE, shared_of};
    use super::*;

    fn row(name: &str, state: i16) -> SeenRow {
        SeenRow {
            name: name.into(),
            incarnation: 1,
            renewals: 1,
            state,
            has_left: false,
            release: "0.3.0".into(),
            archives: vec![1],
            host: None,
            told: Some(Telling::default()),
        }
    }

    #[test]
    fn a_look_from_outside_is_over_when_all_that_are_there_were_seen_to_renew() {
        let (mut glance, now) = (Glance::default(), Instant::now());
        let mut rows = [row("a", SERVING), row("b", SERVING), row("c", TAKEN), row("d", GONE)];
        assert!(!glance.look(&rows, now), "one look shows nobody's renewal");
        rows[0].renewals += 1;
        assert!(!glance.look(&rows, now));
        // Started again: that one lives as well.
        rows[1].incarnation = 9;
        assert!(glance.look(&rows, now));
        assert!(glance.look(&rows, now), "what was seen stays seen");
        assert!(Glance::default().look(&rows[2..], now), "nobody is there");
    }

    #[test]
    fn one_that_ended_in_order_is_not_called_dead_whoever_found_it() {
        let mut gone = row("a", TAKEN);
        assert_eq!(gone.seen_as(true), SeenState::Dead);
        gone.has_left = true;
        assert_eq!(gone.seen_as(true), SeenState::Ended);
        assert_eq!(row("a", GONE).seen_as(false), SeenState::Ended);
        let mut drains = row("a", SERVING);
        assert_eq!(
            (drains.seen_as(true), drains.seen_as(false)),
            (SeenState::Silent, SeenState::Serving)
        );
        drains.told = Some(Telling {
            draining: true,
            ..Telling::default()
        });
        assert_eq!(drains.seen_as(false), SeenState::Draining);
    }

    #[test]
    fn what_was_seen_is_told_until_a_lease_without_a_look_is_over() {
        let shared = shared_of(true);
        assert!(shared.fleet().is_none());
        let seen = |looked: Instant, still| SeenFleet {
            looked,
            movers: vec![SeenAt {
                row: row("mover2", SERVING),
                renewed: None,
                still,
            }],
        };
        let now = Instant::now();
        shared.lock().fleet = Some(seen(now, LEASE));
        let fleet = shared.fleet().unwrap();
        assert_eq!(fleet.movers[0].state, SeenState::Silent);
        assert_eq!(fleet.observer.as_deref(), Some("mover1"));
        shared.lock().fleet = Some(seen(now, LEASE / 2));
        assert_eq!(shared.fleet().unwrap().movers[0].state, SeenState::Serving);
        if let Some(long_ago) = now.checked_sub(LEASE * 2) {
            shared.lock().fleet = Some(seen(long_ago, Duration::ZERO));
            assert!(shared.fleet().is_none());
        }
    }
}
