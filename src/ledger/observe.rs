//! What the ledger's thread does about the other movers: it watches them (`peers`), asks those over HTTP that stand still, says
//! which are dead, and takes over what these had, some rows at a time (`claim`).

use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use super::claim::{self, Share};
use super::fence::Fences;
use super::fencer::{BUSY, EVICTION};
use super::found::Found;
use super::health::{PeerHealth, Step};
use super::keeper::Keeper;
use super::keyed;
use super::link::Link;
use super::moment::Moment;
use super::own::between;
use super::peers::{Peer, PeerRow};
use super::{Heir, LedgerError};
use crate::action::{ActionKey, Item, Kind, Verb};
use crate::fleet::{Fleet, LedgerReport};

/// Rows of one lot. Other movers that take over get the next ones.
pub(super) const LOT: usize = 500;
/// Lots between two looks at what else there is to do.
pub(super) const LOTS: usize = 4;
/// Before the next look where somebody was asked.
const ANSWER: Duration = Duration::from_millis(100);
/// For the journal, to have a lot on disk: one whose disk fails has it in memory, and the rows are held meanwhile.
pub(super) const WRITTEN: Duration = Duration::from_secs(2);
/// Between two looks at whether it has.
pub(super) const LOOK: Duration = Duration::from_millis(5);

/// Between two looks for movers that are no more.
const PRUNE: Duration = Duration::from_secs(3600);

/// A peer that was asked whether it lives.
pub(super) type Question = (PeerRow, Receiver<bool>);

impl Keeper {
    /// Looks at the others, right after a renewal. How long until the next look: readers wait for what a dead one had.
    pub(super) async fn observe(&mut self, link: &Link) -> Result<Duration, LedgerError> {
        let heir = self.shared.heir();
        if let Some(heir) = &heir {
            heir.look();
        }
        self.do_returned();
        let asked = Instant::now();
        let rows = claim::peers(link, &self.row.owner.name).await?;
        self.row.owner.others = rows.iter().map(|row| row.incarnation).collect();
        if self.watch.look(asked, Instant::now(), rows) {
            // What was heard before says nothing of now.
            self.questions.clear();
        }
        self.ask();
        let mut is_more = false;
        for peer in self.watch.dead() {
            if claim::find_dead(link, &peer).await? {
                tracing::warn!(
                    mover = peer.name,
                    lease_s = self.options.lease.as_secs_f64(),
                    "a mover is dead: its row in the ledger was not renewed for a lease, and nobody answers at its address. What \
                     it had in hand is taken over"
                );
                self.shared.found_dead();
                is_more = true;
            }
        }
        let archives = heir.map(|heir| heir.archives()).unwrap_or_default();
        let archives: Vec<_> = archives.iter().map(|id| id.get().cast_signed()).collect();
        let fences = Box::pin(self.fence(link, !archives.is_empty())).await?;
        self.tell_peers(&fences);
        Box::pin(self.see(link)).await?;
        let taken = self.watch.taken();
        if !archives.is_empty() {
            for dead in &taken {
                let is_fenced = fences.is_fenced(&dead.row);
                is_more |= self.take_over(link, (dead, is_fenced), &archives).await?;
            }
        }
        is_more |= Box::pin(self.offer(link)).await?;
        if !archives.is_empty() && !self.row.owner.others.is_empty() {
            is_more |= Box::pin(self.take_offers(link, &archives)).await?;
        }
        if !taken.is_empty() || self.pruned.is_none_or(|pruned| pruned.elapsed() >= PRUNE) {
            self.pruned = Some(Instant::now());
            let movers = claim::prune(link, &self.row.owner.name).await?;
            if movers > 0 {
                tracing::info!(movers, "movers that are no more are not in the ledger any more");
            }
        }
        let usual = match self.fencer.is_busy() {
            true => between(self.options.lease).min(BUSY),
            false => between(self.options.lease),
        };
        Ok(match (is_more, self.questions.is_empty()) {
            (true, _) => Duration::ZERO,
            (false, false) => usual.min(ANSWER),
            (false, true) => usual,
        })
    }

    /// Asks those that stand still, without waiting for the answers, and hears what came of earlier questions.
    fn ask(&mut self) {
        let mut open = Vec::new();
        for (peer, answer) in std::mem::take(&mut self.questions) {
            match answer.try_recv() {
                Ok(lives) => self.watch.heard(&peer, lives),
                Err(TryRecvError::Empty) => open.push((peer, answer)),
                // One that could not be asked is not known to be dead.
                Err(TryRecvError::Disconnected) => self.watch.heard(&peer, true),
            }
        }
        for peer in self.watch.suspects() {
            let (told, answer) = channel();
            let of = peer.clone();
            let asking = self.supervisor.errand("ledger-ask", move || {
                // Whoever asked may have begun anew.
                let _gone = told.send(answers(&of));
            });
            if let Err(error) = asking {
                tracing::error!(%error, mover = peer.name, "no thread to ask whether a mover lives");
            }
            open.push((peer, answer));
        }
        self.questions = open;
    }

    /// Takes some of what a dead one had: restores first, and the rest once nothing that it had under way can still arrive.
    async fn take_over(
        &mut self,
        link: &Link,
        (dead, is_fenced): (&Peer, bool),
        archives: &[i32],
    ) -> Result<bool, LedgerError> {
        let shares: &[Share] = match is_fenced || dead.still >= self.options.takeover_archives {
            true => &[Share::Restores, Share::Rest],
            false => &[Share::Restores],
        };
        let mut lots = 0;
        for share in shares {
            loop {
                if lots == LOTS {
                    return Ok(true);
                }
                lots += 1;
                let found = claim::lot(link, &self.row.owner, &dead.row, *share, archives, LOT).await?;
                let Some(found) = found.filter(|found| !found.is_empty()) else {
                    break;
                };
                let is_last = found.len() < LOT;
                self.make_own(link, &dead.row, found).await?;
                if is_last {
                    break;
                }
            }
        }
        Ok(false)
    }

    async fn make_own(&mut self, link: &Link, dead: &PeerRow, found: Vec<Found>) -> Result<(), LedgerError> {
        let taken = self.move_here(link, dead, &found).await;
        tracing::info!(
            mover = dead.name,
            actions = found.len(),
            restores = restores(&found),
            "taken over from a dead mover"
        );
        self.shared.took_over(found.len() as u64);
        // Also where it is not known whether the rows are this mover's: done twice is better than not done.
        self.inherit(&dead.name, found.into_iter().map(|found| found.item).collect());
        taken
    }

    /// The journal has them before they are this mover's: one that dies in between has a successor that does them.
    pub(super) async fn move_here(&self, link: &Link, from: &PeerRow, found: &[Found]) -> Result<(), LedgerError> {
        self.take_in(found).await;
        claim::take(link, &self.row.owner, from, found).await
    }

    /// They are this mover's, and to be done.
    pub(super) fn inherit(&mut self, from: &str, items: Vec<Item>) {
        self.given_up.forget(items.iter().map(Item::key));
        items.iter().for_each(|item| self.shared.turns().add(item));
        if let Some(heir) = self.shared.heir() {
            heir.inherit(from, items);
        }
    }

    /// Lets go of those of these actions that other movers have taken.
    pub(super) async fn give_up_lost(&mut self, link: &Link, keys: &[ActionKey]) -> Result<(), LedgerError> {
        if self.row.owner.others.is_empty() {
            return Ok(());
        }
        let mut lost = keyed::lost(link, &self.row.owner, keys.iter().copied()).await?;
        // The coordinator has given them to this one since.
        lost.retain(|key| !self.shared.is_fresh(*key));
        if lost.is_empty() {
            return Ok(());
        }
        tracing::warn!(
            actions = lost.len(),
            "other movers have taken these over meanwhile: this one was not heard of for too long. They are let go of here"
        );
        self.shared.gave_up(&lost);
        self.given_up.add(&lost);
        match self.shared.heir() {
            Some(heir) => self.let_go_of(heir.as_ref(), lost),
            // Nothing is in the queue yet.
            None => lost.into_iter().for_each(|key| self.journal.lost(key, true)),
        }
        Ok(())
    }

    /// Has what others have let go of here. What waits behind it is looked at anew: it may be behind it there.
    pub(super) fn let_go_of(&mut self, heir: &dyn Heir, lost: Vec<ActionKey>) {
        for key in heir.give_up(lost) {
            if !self.shared.turns().ask(key, false) {
                heir.let_go(key);
            }
            self.turn_due = Some(Instant::now());
        }
    }

    /// Asks the others whether they have no ledger either, without waiting for the answers: then nobody takes anything over.
    pub(super) fn ask_whether_all_are_away(&mut self) {
        if matches!(
            self.outage.as_ref().map(Receiver::try_recv),
            Some(Err(TryRecvError::Empty))
        ) {
            return;
        }
        let living = self.watch.all().filter(|peer| peer.is_there());
        let others: Vec<_> = living.map(|peer| peer.row.clone()).collect();
        if others.is_empty() {
            return;
        }
        let (asking, over) = channel::<()>();
        let shared = Arc::clone(&self.shared);
        let asked = self.supervisor.errand("ledger-ask", move || {
            let at = Moment::now();
            let is_away = |row| report(row).is_some_and(|ledger| ledger.state == Step::Away.word());
            if others.iter().all(is_away) {
                shared.all_are_away(at);
            }
            drop(asking);
        });
        match asked {
            Ok(_) => self.outage = Some(over),
            Err(error) => tracing::error!(%error, "no thread to ask the other movers"),
        }
    }

    /// Before anything is done: who is started while the ledger is away is alone only if it was.
    pub(super) fn remember_peers(&mut self) {
        self.watch.remember(self.remembered.read());
        self.shared
            .list_sharers(self.watch.all().filter(|peer| peer.is_there()).count());
        self.tell_peers(&Fences::default());
    }

    fn tell_peers(&mut self, fences: &Fences) {
        let peers = self.watch.all().map(|peer| {
            let fence = fences.of(&peer.row);
            let is_awaited = fence.is_some_and(|fence| !fence.is_fenced && !fence.has_left);
            PeerHealth {
                name: peer.row.name.clone(),
                state: peer.row.state,
                still: peer.still,
                is_fenced: fence.is_some_and(|fence| fence.is_fenced),
                fencer: fence.and_then(|fence| fence.fencer.clone()).filter(|_| is_awaited),
                fence_error: self.fencer.error_of(&peer.row.name).map(str::to_owned),
                evicted_at: peer.renewed().filter(|_| is_awaited).map(|renewed| renewed + EVICTION),
            }
        });
        self.shared.set_peers(peers.collect());
        let living = self.watch.all().filter(|peer| peer.is_there());
        if let Err(error) = self.remembered.write(living.map(|peer| &peer.row)) {
            tracing::warn!(%error, "which other movers there are is not known to the next daemon");
        }
    }
}

/// How many readers wait for.
pub(super) fn restores(found: &[Found]) -> usize {
    let restores = |found: &&Found| found.item.kind == Kind::Do(Verb::Restore);
    found.iter().filter(restores).count()
}

/// Whether a mover answers at its address, as the process that its row names or as a later one by its name. Whoever else
/// answers there is not it: an address of loopback is each node's own.
pub(super) fn answers(peer: &PeerRow) -> bool {
    report(peer).is_some()
}

/// How a mover says that its ledger is.
fn report(peer: &PeerRow) -> Option<LedgerReport> {
    let address = peer.address.clone()?;
    let (_, answer) = Fleet::new(vec![address]).ask().pop()?;
    answer.ok()?.ledger.filter(|ledger| ledger.mover == peer.name)
}
