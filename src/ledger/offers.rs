//! What this mover has and can't carry out, while others perhaps can: it lives, and is cut off from an MDT or from a store.
//!
//! What waits for that and has not begun leaves its line in the queue, and then its row says that it is offered. Whoever reaches
//! both the MDT and the store takes such rows, as those of a dead mover: the row's owner decides whose an action is, at any
//! time. None begins here before its row is this mover's and says no more that it is offered. What others have taken is let
//! go of without an answer.
//!
//! It lasts until the MDT or the store answers again, or nobody has taken any for long: then they wait in line as any other, and
//! fail in the end if nothing changes. While the ledger is away nobody knows what was taken; then restores begin here after the
//! time for which others would leave them to a mover that lives, and the rest after that of the rest.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::claim::Share;
use super::keeper::Keeper;
use super::keyed;
use super::link::Link;
use super::observe::{LOT, LOTS, restores};
use super::offered::{self, Offer};
use super::peers::{Peer, PeerRow, SERVING};
use super::{Heir, LedgerError};
use crate::action::{ActionKey, Item, Kind, Verb};
use crate::types::{ArchiveId, Mdt, OutOfReach};

/// The most restores that are offered at a time, and the most others: all of them are looked at.
const MOST: usize = 10_000;
/// Of one statement.
const AT_ONCE: usize = 1000;
/// For somebody to take one of them. Nobody reaches it either then.
const LONGEST: Duration = Duration::from_secs(600);

/// For how long nothing is heard of an MDT or a store before others are asked: 30 s with the usual lease.
fn patience(lease: Duration) -> Duration {
    lease + lease / 2
}

/// What is offered.
#[derive(Debug, Default)]
pub(super) struct Offers {
    places: BTreeMap<OutOfReach, Place>,
    /// Since when there is no ledger.
    away: Option<Instant>,
    /// Taken from movers that offered them, and it is not known whether the rows are this mover's.
    unsure: Vec<(String, Item)>,
}

/// What wants one MDT or one store.
#[derive(Debug)]
struct Place {
    actions: BTreeMap<ActionKey, Offered>,
    /// When others took one of them last, or the first was offered.
    moved: Instant,
    /// Nobody took any for long.
    is_over: bool,
    /// It was said that they are offered.
    is_told: bool,
}

#[derive(Clone, Copy, Debug)]
struct Offered {
    /// Its row says so, or may.
    is_said: bool,
    is_restore: bool,
}

impl Offers {
    fn count(&self) -> usize {
        self.places.values().map(|place| place.actions.len()).sum()
    }

    /// For how many more there is room.
    fn room(&self, restores: bool) -> usize {
        let all = self.places.values().flat_map(|place| place.actions.values());
        MOST.saturating_sub(all.filter(|offered| offered.is_restore == restores).count())
    }

    /// Of all whose rows say so, or may; sorted.
    fn said(&self) -> Vec<ActionKey> {
        let all = self.places.values().flat_map(|place| &place.actions);
        let said = all.filter(|(_, offered)| offered.is_said);
        let mut keys: Vec<_> = said.map(|(key, _)| *key).collect();
        keys.sort_unstable();
        keys
    }

    /// These rows do not say so: they are to, as long as what they want is out of reach.
    fn unsay(&mut self, is_unsaid: impl Fn(&ActionKey) -> bool) {
        let all = self.places.values_mut().flat_map(|place| &mut place.actions);
        all.filter(|(key, _)| is_unsaid(key))
            .for_each(|(_, offered)| offered.is_said = false);
    }

    /// These, in their order, are nothing to this mover any more, as others have them, or they have ended.
    fn forget(&mut self, keys: &[ActionKey], are_taken: bool) {
        for place in self.places.values_mut() {
            let before = place.actions.len();
            place.actions.retain(|key, _| keys.binary_search(key).is_err());
            if are_taken && place.actions.len() < before {
                place.moved = Instant::now();
            }
        }
    }
}

impl Keeper {
    /// No row says that it is offered: who waited for the answer waits on until it is known what others have.
    pub(super) async fn withdraw_offers(&mut self, link: &Link) -> Result<(), LedgerError> {
        offered::withdraw(link, &self.row.owner).await?;
        self.offers.unsay(|_| true);
        Ok(())
    }

    /// The ledger is there, and rows are as the journal has it: what was taken when a connection broke is done if it is here.
    pub(super) async fn settle_offers(&mut self, link: &Link) -> Result<(), LedgerError> {
        self.offers.away = None;
        if self.offers.unsure.is_empty() {
            return Ok(());
        }
        let keys = self.offers.unsure.iter().map(|(_, item)| item.key());
        let own = keyed::held(link, &self.row.owner, keys).await?;
        for (mover, item) in std::mem::take(&mut self.offers.unsure) {
            if own.contains(&item.key()) {
                self.inherit(&mover, vec![item]);
            }
        }
        Ok(())
    }

    /// There is no ledger.
    pub(super) fn keep_offers(&mut self) {
        let since = *self.offers.away.get_or_insert_with(Instant::now);
        let Some(heir) = self.shared.heir() else {
            return;
        };
        // Who offered them has let go of them, if they were taken: nobody else would do them while this lasts.
        let is_due = |(_, item): &(String, Item)| {
            let patience = match item.kind {
                Kind::Do(Verb::Restore) => self.options.lease,
                _ => self.options.takeover_archives,
            };
            since.elapsed() > patience
        };
        let (due, unsure) = std::mem::take(&mut self.offers.unsure).into_iter().partition(is_due);
        self.offers.unsure = unsure;
        let due: Vec<_> = due;
        for (mover, item) in due {
            self.inherit(&mover, vec![item]);
        }
        let out = heir.out_of_reach();
        for (place, at) in &mut self.offers.places {
            if out.iter().any(|(out, _)| out == place) {
                continue;
            }
            let begins = |offered: &Offered| {
                let patience = match offered.is_restore {
                    true => self.options.lease,
                    false => self.options.takeover_archives,
                };
                since.elapsed() > patience
            };
            let keys = at.actions.iter().filter(|(_, offered)| begins(offered));
            let keys: Vec<_> = keys.map(|(key, _)| *key).collect();
            if !keys.is_empty() {
                at.actions.retain(|_, offered| !begins(offered));
                heir.take_up(keys);
            }
        }
        self.shared.set_offered(self.offers.count());
    }

    /// Offers what this mover can't carry out, takes back what it can again, and lets go of what others have taken. Whether
    /// there is more of it.
    pub(super) async fn offer(&mut self, link: &Link) -> Result<bool, LedgerError> {
        let Some(heir) = self.shared.heir() else {
            return Ok(false);
        };
        let out: BTreeMap<_, _> = heir.out_of_reach().into_iter().collect();
        if out.is_empty() && self.offers.places.is_empty() {
            return Ok(false);
        }
        self.let_go_of_taken(link, heir.as_ref()).await?;
        let has_peers = self.watch.all().any(Peer::is_there);
        let places: Vec<_> = self.offers.places.keys().copied().collect();
        for place in places {
            let is_out = out.contains_key(&place);
            if let Some(at) = self.offers.places.get_mut(&place) {
                at.is_over |= !at.actions.is_empty() && at.moved.elapsed() > LONGEST;
                if !is_out || !has_peers || at.is_over {
                    self.take_offers_back(link, heir.as_ref(), place).await?;
                }
            }
            if let Some(at) = self.offers.places.get(&place)
                && !is_out
                && at.actions.is_empty()
            {
                if at.is_told {
                    tracing::info!("{place} answers again: what waits for it is not offered to other movers any more");
                }
                self.offers.places.remove(&place);
            }
        }
        let mut is_more = false;
        for (place, since) in out {
            if has_peers && since >= patience(self.options.lease) {
                is_more |= self.offer_of(link, heir.as_ref(), place).await?;
            }
        }
        self.shared.set_offered(self.offers.count());
        Ok(is_more)
    }

    /// What others have taken, or have done already.
    async fn let_go_of_taken(&mut self, link: &Link, heir: &dyn Heir) -> Result<(), LedgerError> {
        let (said, ended): (Vec<_>, Vec<_>) = self.offers.said().into_iter().partition(|key| heir.is_aside(*key));
        self.offers.forget(&ended, false);
        for keys in said.chunks(AT_ONCE) {
            let own = keyed::own_offers(link, &self.row.owner, keys.iter().copied()).await?;
            // One that the coordinator sent again has a row that says nothing of offers.
            self.offers.unsay(|key| own.get(key) == Some(&false));
            let is_lost = |key: &ActionKey| !own.contains_key(key) && !self.shared.is_fresh(*key);
            let lost: Vec<_> = keys.iter().copied().filter(is_lost).collect();
            if lost.is_empty() {
                continue;
            }
            tracing::info!(
                actions = lost.len(),
                "other movers have taken these, which were offered to them: they are let go of here"
            );
            self.shared.gave_offered(&lost);
            self.offers.forget(&lost, true);
            self.given_up.add(&lost);
            self.let_go_of(heir, lost);
        }
        Ok(())
    }

    /// Has a place's actions wait in line again; not those that somebody is about to take.
    async fn take_offers_back(&mut self, link: &Link, heir: &dyn Heir, place: OutOfReach) -> Result<(), LedgerError> {
        let Some(at) = self.offers.places.get_mut(&place) else {
            return Ok(());
        };
        let (said, unsaid): (Vec<_>, Vec<_>) = at.actions.iter().partition(|(_, offered)| offered.is_said);
        let said: Vec<_> = said.into_iter().map(|(key, _)| *key).collect();
        let unsaid: Vec<_> = unsaid.into_iter().map(|(key, _)| *key).collect();
        at.actions.retain(|_, offered| offered.is_said);
        heir.take_up(unsaid);
        for keys in said.chunks(AT_ONCE) {
            let back = offered::take_back(link, &self.row.owner, keys.iter().copied()).await?;
            for key in &back {
                at.actions.remove(key);
            }
            heir.take_up(back);
        }
        Ok(())
    }

    /// Has a place's actions wait for others, as far as there is room; whether there may be more of them.
    async fn offer_of(&mut self, link: &Link, heir: &dyn Heir, place: OutOfReach) -> Result<bool, LedgerError> {
        let rooms = [true, false].map(|restores| (restores, self.offers.room(restores).min(AT_ONCE)));
        let at = self.offers.places.entry(place).or_insert_with(|| Place {
            actions: BTreeMap::new(),
            moved: Instant::now(),
            is_over: false,
            is_told: false,
        });
        if at.is_over {
            return Ok(false);
        }
        if at.actions.is_empty() {
            at.moved = Instant::now();
        }
        for (is_restore, room) in rooms {
            let offered = Offered {
                is_said: false,
                is_restore,
            };
            let aside = heir.set_aside(place, is_restore, room);
            at.actions.extend(aside.into_iter().map(|key| (key, offered)));
        }
        // Those too that were offered on an earlier connection, or were sent again.
        let waiting = at.actions.iter_mut().filter(|(_, offered)| !offered.is_said);
        let mut waiting: Vec<_> = waiting.collect();
        waiting.sort_by_key(|(_, offered)| !offered.is_restore);
        let mut actions = Vec::new();
        for (key, offered) in waiting.into_iter().take(AT_ONCE) {
            // From here on it is not known.
            offered.is_said = true;
            actions.push((*key, self.sequences.domain(key.fid)));
        }
        if actions.is_empty() {
            return Ok(false);
        }
        let mut said = offered::offer(link, &self.row.owner, &actions).await?;
        said.sort_unstable();
        for (key, _) in &actions {
            // Its row is not written yet, or it was handed about often enough.
            if said.binary_search(key).is_err() {
                at.actions.remove(key);
                heir.put_back(*key);
            }
        }
        if !said.is_empty() && !std::mem::replace(&mut at.is_told, true) {
            tracing::warn!(
                "{place} does not answer this mover: what waits for it is offered to the other movers, until it does. What runs \
                 goes on trying"
            );
        }
        Ok(said.len() == AT_ONCE)
    }

    /// Takes what other movers offer and this one can carry out: restores first. Whether there may be more of it.
    pub(super) async fn take_offers(&mut self, link: &Link, archives: &[i32]) -> Result<bool, LedgerError> {
        let Some(heir) = self.shared.heir() else {
            return Ok(false);
        };
        let mut movers: BTreeMap<(String, i64), Vec<(Mdt, ArchiveId)>> = BTreeMap::new();
        for offer in offered::offers(link, &self.row.owner, archives).await? {
            let Offer {
                mover,
                incarnation,
                mdt,
                archive_id,
                fid,
            } = offer;
            if heir.reaches(mdt, archive_id, fid) {
                movers.entry((mover, incarnation)).or_default().push((mdt, archive_id));
            }
        }
        let mut lots = 0;
        for share in [Share::Restores, Share::Rest] {
            for ((name, incarnation), reached) in &movers {
                loop {
                    if lots == LOTS {
                        return Ok(true);
                    }
                    let found = offered::offered_lot(link, &self.row.owner, *incarnation, share, reached, LOT).await?;
                    if found.is_empty() {
                        break;
                    }
                    // Those without anything don't count: else many of them would keep others from being asked.
                    lots += 1;
                    let is_last = found.len() < LOT;
                    let from = PeerRow {
                        name: name.clone(),
                        incarnation: *incarnation,
                        renewals: 0,
                        state: SERVING,
                        address: None,
                    };
                    let (actions, restores) = (found.len(), restores(&found));
                    let taken = self.move_here(link, &from, &found).await;
                    let items: Vec<_> = found.into_iter().map(|found| found.item).collect();
                    if let Err(error) = taken {
                        // The other one lives: only one of the two is to do them.
                        let unsure = items.into_iter().map(|item| (name.clone(), item));
                        self.offers.unsure.extend(unsure);
                        return Err(error);
                    }
                    tracing::info!(
                        mover = name,
                        actions,
                        restores,
                        "taken from a mover that is cut off from what they need"
                    );
                    self.shared.took_offered(actions as u64);
                    self.inherit(name, items);
                    if is_last {
                        break;
                    }
                }
            }
        }
        Ok(false)
    }
}
