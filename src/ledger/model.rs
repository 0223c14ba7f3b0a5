//! The ledger in memory, for tests that decide what happens when: the rows, what each statement does with them, and a
//! mover's side of it, a transaction at a time. There is no server and no clock: whoever tests says when a connection is
//! lost, when a lease is over, and how old the rows of a replica are. What the statements in `rows`, `own`, `claim` and
//! `tombs` demand of a row is said here once more; `tests/it` tries those on a PostgreSQL.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::changes::{ActionNews, Changes, CopyNews, Word};
use super::peers::{GONE, SERVING, TAKEN};
use super::rows::{Owner, Rows};
use super::state::Shared;
use super::{LateCopy, OthersCopies, PeerHealth, Warrant};
use crate::action::{ActionKey, Item, Kind, Verb};
use crate::journal::{InHand, Journal, JournalSink, UploadRecord};
use crate::types::Fid;

/// All rows.
#[derive(Clone, Debug, Default)]
pub(crate) struct LedgerModel {
    movers: BTreeMap<String, MoverRow>,
    actions: BTreeMap<ActionKey, ActionRow>,
    copies: BTreeMap<Fid, CopyRow>,
    tombstones: BTreeSet<Fid>,
}

#[derive(Clone, Copy, Debug)]
struct MoverRow {
    incarnation: i64,
    state: i16,
}

#[derive(Clone, Debug)]
struct ActionRow {
    /// `None`: it was answered before it came here.
    item: Option<Item>,
    owner: i64,
    is_answered: bool,
    upload: Option<UploadRecord>,
}

#[derive(Clone, Debug)]
struct CopyRow {
    stamp: i64,
    record: Vec<u8>,
}

impl ActionRow {
    fn is_own(&self, owner: &Owner) -> bool {
        owner.known_as.contains(&self.owner)
    }
}

/// What can be gone on with.
fn goes_on(upload: &UploadRecord) -> bool {
    upload.upload().is_some() && upload.data_version.is_some()
}

impl LedgerModel {
    /// Nobody has found it dead, and nobody else has its row.
    fn holds(&self, owner: &Owner) -> bool {
        let row = self.movers.get(&owner.name);
        row.is_some_and(|row| row.incarnation == owner.incarnation && row.state != TAKEN)
    }

    fn others(&self, owner: &Owner) -> Vec<i64> {
        let others = self.movers.iter().filter(|(name, _)| **name != owner.name);
        others.map(|(_, row)| row.incarnation).collect()
    }

    /// `has_waited`: for a lease, in which nobody else renewed the row.
    fn claim(&mut self, owner: &Owner, has_waited: bool) -> bool {
        let is_free = self.movers.get(&owner.name).is_none_or(|row| {
            has_waited || owner.known_as.contains(&row.incarnation) || [GONE, TAKEN].contains(&row.state)
        });
        if is_free {
            let row = MoverRow {
                incarnation: owner.incarnation,
                state: SERVING,
            };
            self.movers.insert(owner.name.clone(), row);
        }
        is_free
    }

    fn write(&mut self, owner: &Owner, changes: &Changes, rows: Rows) {
        for (key, news) in &changes.actions {
            if let Word::Is(item) = &news.item {
                self.take_in(owner, *key, item, rows);
            }
            if let Word::Is(upload) = &news.upload {
                self.write_upload(owner, *key, upload);
            }
            let Some(row) = self.actions.get_mut(key).filter(|row| row.is_own(owner)) else {
                continue;
            };
            let is_over = match (&news.item, &news.upload) {
                (Word::Gone, Word::Gone) => true,
                (Word::Gone, _) => {
                    row.is_answered = true;
                    row.upload.is_none()
                }
                (_, Word::Gone) => {
                    row.upload = None;
                    row.is_answered
                }
                _ => false,
            };
            if is_over {
                self.actions.remove(key);
            }
        }
        for (fid, CopyNews { stamp, record }) in &changes.copies {
            let former = self.copies.get(fid);
            match record {
                Some(record) if former.is_none_or(|former| former.stamp <= *stamp) => {
                    let (stamp, record) = (*stamp, record.clone());
                    self.copies.insert(*fid, CopyRow { stamp, record });
                }
                None if former.is_some_and(|former| former.stamp <= *stamp) => drop(self.copies.remove(fid)),
                _ => {}
            }
        }
    }

    fn take_in(&mut self, owner: &Owner, key: ActionKey, item: &Item, rows: Rows) {
        let row = self.actions.entry(key).or_insert_with(|| ActionRow {
            item: None,
            owner: owner.incarnation,
            is_answered: false,
            upload: None,
        });
        if rows == Rows::Fresh || row.is_own(owner) || !owner.others.contains(&row.owner) {
            row.owner = owner.incarnation;
            row.item = Some(item.clone());
            row.is_answered = false;
        }
    }

    fn write_upload(&mut self, owner: &Owner, key: ActionKey, upload: &UploadRecord) {
        let row = self.actions.entry(key).or_insert_with(|| ActionRow {
            item: None,
            owner: owner.incarnation,
            is_answered: true,
            upload: None,
        });
        if row.is_own(owner) {
            row.owner = owner.incarnation;
            row.upload = Some(upload.clone());
        }
    }

    /// Of copies that were just written those whose REMOVE has come before.
    fn meet(&self, changes: &Changes) -> Vec<LateCopy> {
        let met = self.tombstones.iter().filter_map(|fid| {
            let record = changes.copies.get(fid)?.record.clone()?;
            Some(LateCopy { fid: *fid, record })
        });
        met.collect()
    }

    /// Says that a mover is dead. `false`: somebody has said so, or it has gone and left nothing.
    pub(crate) fn find_dead(&mut self, name: &str) -> bool {
        let Some(row) = self.movers.get_mut(name) else {
            return false;
        };
        let mut left = self.actions.values();
        let is_to_be = row.state != TAKEN
            && (row.state != GONE || left.any(|action| action.owner == row.incarnation && !action.is_answered));
        if is_to_be {
            row.state = TAKEN;
        }
        is_to_be
    }

    /// Whether somebody has said that it is dead, and it has not come back since.
    pub(crate) fn is_dead(&self, name: &str) -> bool {
        self.movers.get(name).is_some_and(|row| row.state == TAKEN)
    }

    /// What a dead mover had that is not answered: restores, or the others.
    pub(crate) fn left_by(&self, name: &str, restores: bool) -> Vec<Item> {
        let Some(dead) = self.movers.get(name).filter(|row| row.state == TAKEN) else {
            return Vec::new();
        };
        let rows = self.actions.values();
        let rows = rows.filter(|row| row.owner == dead.incarnation && !row.is_answered);
        rows.filter_map(|row| row.item.clone())
            .filter(|item| (item.kind == Kind::Do(Verb::Restore)) == restores)
            .collect()
    }

    /// Copies whose REMOVE has come before, of all tombstones.
    fn late(&self) -> Vec<LateCopy> {
        let late = self.tombstones.iter().filter_map(|fid| {
            let record = self.copies.get(fid)?.record.clone();
            Some(LateCopy { fid: *fid, record })
        });
        late.collect()
    }
}

/// Which copies changed, as a node keeps it beside the journal.
#[derive(Clone, Copy, Debug)]
struct Marked {
    fid: Fid,
    stamp: i64,
    is_gone: bool,
}

/// What the journal tells.
#[derive(Debug)]
struct Heard {
    state: Mutex<HeardState>,
    /// Everybody's, and how far this node's is off.
    clock: Arc<AtomicI64>,
    skew: i64,
}

#[derive(Debug, Default)]
struct HeardState {
    is_kept: bool,
    /// The process was killed: what its threads do still is nothing that happens.
    is_dead: bool,
    changes: Changes,
    marks: Vec<Marked>,
}

impl Heard {
    fn lock(&self) -> MutexGuard<'_, HeardState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Changes)) {
        let mut state = self.lock();
        if state.is_kept && !state.is_dead {
            change(&mut state.changes);
        }
    }
}

impl JournalSink for Heard {
    fn admitted(&self, item: &Item) {
        self.change(|changes| changes.admitted(item));
    }

    fn ended(&self, key: ActionKey) {
        self.change(|changes| changes.ended(key));
    }

    fn uploading(&self, key: ActionKey, upload: &UploadRecord) {
        self.change(|changes| changes.uploading(key, upload));
    }

    fn settled(&self, key: ActionKey) {
        self.change(|changes| changes.settled(key));
    }

    fn copied(&self, fid: Fid, record: Option<&[u8]>) {
        let stamp = self.clock.fetch_add(1, Ordering::SeqCst) + self.skew;
        {
            let mut state = self.lock();
            if state.is_dead {
                return;
            }
            let is_gone = record.is_none();
            state.marks.push(Marked { fid, stamp, is_gone });
        }
        self.change(|changes| {
            let record = record.map(<[u8]>::to_vec);
            changes.copies.insert(fid, CopyNews { stamp, record });
        });
    }
}

/// How a transaction that was sent came out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    Committed,
    /// It was, and the connection broke before its answer.
    Unheard,
    /// It was not, and the connection broke.
    Broken,
}

/// How far the rows are those of the journal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Away,
    /// The row is claimed.
    Claimed,
    /// The rows of actions are equal.
    Compared,
    InStep,
}

/// What a step did.
#[derive(Debug)]
pub(crate) struct Stepped {
    pub(crate) words: &'static str,
    /// Actions that other movers have by now.
    pub(crate) lost: Vec<ActionKey>,
    /// Those that it gave up, and that are its own again: in its journal, and to be done.
    pub(crate) returned: Vec<Item>,
}

const fn stepped(words: &'static str) -> Stepped {
    Stepped {
        words,
        lost: Vec::new(),
        returned: Vec::new(),
    }
}

/// No clock decides it, but whether there is anybody who could take over.
fn set_valid(shared: &Shared, is_valid: bool) {
    let other = PeerHealth {
        name: "another".to_owned(),
        state: SERVING,
        ..PeerHealth::default()
    };
    shared.set_peers(if is_valid { Vec::new() } else { vec![other] });
}

/// A mover's side: what the ledger's thread does.
#[derive(Debug)]
pub(crate) struct KeeperModel {
    owner: Owner,
    stage: Stage,
    has_looked: bool,
    has_waited: bool,
    /// What others had taken; the next process knows nothing of it.
    given_up: BTreeSet<ActionKey>,
    heard: Arc<Heard>,
    journal: Arc<Journal>,
    copies: OthersCopies,
    /// Of which a warrant asks who there is that could take over.
    shared: Arc<Shared>,
}

impl KeeperModel {
    /// Of a process that begins. `former`: the one before it on its node.
    pub(crate) fn new(
        name: &str,
        incarnation: i64,
        former: Option<&Self>,
        journal: &Arc<Journal>,
        clock: (&Arc<AtomicI64>, i64),
    ) -> Self {
        let mut known_as = vec![incarnation];
        known_as.extend(former.iter().flat_map(|former| &former.owner.known_as));
        let marks = former.map(|former| former.heard.lock().marks.clone());
        let heard = Arc::new(Heard {
            state: Mutex::new(HeardState {
                marks: marks.unwrap_or_default(),
                ..HeardState::default()
            }),
            clock: Arc::clone(clock.0),
            skew: clock.1,
        });
        journal.tell(Arc::clone(&heard) as Arc<dyn JournalSink>);
        let (copies, shared) = (OthersCopies::default(), Arc::new(Shared::default()));
        copies.close();
        set_valid(&shared, false);
        Self {
            owner: Owner {
                name: name.to_owned(),
                incarnation,
                known_as,
                others: Vec::new(),
            },
            stage: Stage::Away,
            has_looked: false,
            has_waited: false,
            given_up: BTreeSet::new(),
            heard,
            journal: Arc::clone(journal),
            copies,
            shared,
        }
    }

    pub(crate) fn warrant(&self) -> Warrant {
        Warrant::new(Arc::clone(&self.shared))
    }

    pub(crate) const fn copies(&self) -> &OthersCopies {
        &self.copies
    }

    /// It has renewed within a lease, or knows that nobody could take over.
    pub(crate) fn is_valid(&self) -> bool {
        self.shared.is_warranted()
    }

    pub(crate) fn set_valid(&self, is_valid: bool) {
        set_valid(&self.shared, is_valid);
    }

    pub(crate) const fn has_looked(&self) -> bool {
        self.has_looked
    }

    pub(crate) fn is_in_step(&self) -> bool {
        self.stage == Stage::InStep
    }

    /// Nothing waits to be written.
    pub(crate) fn is_quiet(&self) -> bool {
        self.is_in_step() && self.heard.lock().changes.is_empty()
    }

    /// The connection is lost.
    pub(crate) fn goes_away(&mut self) {
        self.stage = Stage::Away;
        self.has_looked = true;
        let mut heard = self.heard.lock();
        heard.is_kept = false;
        heard.changes = Changes::default();
        drop(heard);
        self.copies.close();
    }

    /// The process was killed.
    pub(crate) fn dies(&mut self) {
        self.heard.lock().is_dead = true;
        self.goes_away();
    }

    fn row_lost(&mut self) -> Stepped {
        self.goes_away();
        stepped("its row is lost")
    }

    /// The next thing that its thread does, with a ledger that answers.
    pub(crate) fn step(&mut self, ledger: &mut LedgerModel, fate: Fate) -> Stepped {
        match self.stage {
            Stage::Away => {
                if !ledger.claim(&self.owner, self.has_waited) {
                    self.has_waited = true;
                    return stepped("another process has its row");
                }
                self.copies.open();
                self.stage = Stage::Claimed;
                stepped("claims its row")
            }
            _ if !ledger.holds(&self.owner) => self.row_lost(),
            Stage::Claimed => {
                let (lost, returned) = self.compare(ledger);
                self.stage = Stage::Compared;
                Stepped {
                    words: "makes its rows equal",
                    lost,
                    returned,
                }
            }
            Stage::Compared => {
                let mut news = Changes::default();
                let marks = self.heard.lock().marks.clone();
                for Marked { fid, stamp, is_gone } in marks {
                    let record = self.journal.find(fid).map(|location| location.to_bytes());
                    if record.is_some() || is_gone {
                        news.copies.insert(fid, CopyNews { stamp, record });
                    }
                }
                self.put(ledger, &news, Rows::Own);
                self.set_valid(true);
                self.owner.known_as.truncate(1);
                (self.stage, self.has_looked, self.has_waited) = (Stage::InStep, true, false);
                stepped("is in step")
            }
            Stage::InStep => {
                self.set_valid(true);
                self.owner.others = ledger.others(&self.owner);
                let changes = std::mem::take(&mut self.heard.lock().changes);
                let is_new = |key: &ActionKey| {
                    let news = changes.actions.get(key);
                    news.is_some_and(|news| matches!(news.item, Word::Is(_)))
                };
                self.given_up.retain(|key| !is_new(key));
                if fate != Fate::Broken {
                    self.put(ledger, &changes, Rows::Fresh);
                }
                if fate != Fate::Committed {
                    self.goes_away();
                    return stepped("loses its connection");
                }
                self.copies.add_late(ledger.late());
                stepped("renews and writes")
            }
        }
    }

    fn put(&self, ledger: &mut LedgerModel, changes: &Changes, rows: Rows) {
        ledger.write(&self.owner, changes, rows);
        self.copies.add_late(ledger.meet(changes));
    }

    /// Which of its actions others have, and which that it gave up are its own again.
    fn compare(&mut self, ledger: &mut LedgerModel) -> (Vec<ActionKey>, Vec<Item>) {
        self.owner.others = ledger.others(&self.owner);
        {
            let mut heard = self.heard.lock();
            heard.is_kept = true;
            heard.changes = Changes::default();
        }
        let mut held: BTreeMap<ActionKey, InHand> = self.journal.in_hand().unwrap_or_default().into_iter().collect();
        let own = ledger.actions.iter().filter(|(_, row)| row.is_own(&self.owner));
        let own: Vec<ActionKey> = own.map(|(key, _)| *key).collect();
        let (mut news, mut returned) = (Changes::default(), Vec::new());
        for key in own {
            let held = held.remove(&key);
            let row = ledger.actions.get_mut(&key).filter(|row| !row.is_answered);
            // It may still be on its way out of the queue.
            if let Some(row) = row
                && let Some(item) = row.item.clone()
                && self.given_up.remove(&key)
            {
                row.owner = self.owner.incarnation;
                self.journal.taken_over(&item, None);
                returned.push(item);
                continue;
            }
            news.actions.insert(key, held.unwrap_or_default().into());
        }
        self.put(ledger, &news, Rows::Own);
        let missing: Vec<ActionKey> = held.keys().copied().collect();
        let mut news = Changes::default();
        news.actions
            .extend(held.into_iter().map(|(key, held)| (key, ActionNews::from(held))));
        self.put(ledger, &news, Rows::Own);
        let is_anothers = |key: &ActionKey| {
            let row = ledger.actions.get(key);
            row.is_some_and(|row| self.owner.others.contains(&row.owner)) && !self.is_fresh(*key)
        };
        let lost: Vec<ActionKey> = missing.into_iter().filter(is_anothers).collect();
        self.given_up.extend(&lost);
        (lost, returned)
    }

    /// The coordinator has given it to this mover, and the ledger does not know yet.
    fn is_fresh(&self, key: ActionKey) -> bool {
        let heard = self.heard.lock();
        let news = heard.changes.actions.get(&key);
        news.is_some_and(|news| matches!(news.item, Word::Is(_)))
    }

    /// Takes some of what a dead mover had: they are in the journal before they are this one's. Those that it goes on with.
    pub(crate) fn take_over(
        &mut self,
        ledger: &mut LedgerModel,
        dead: &str,
        items: Vec<Item>,
        fate: Fate,
    ) -> Vec<Item> {
        if !ledger.holds(&self.owner) {
            self.goes_away();
            return Vec::new();
        }
        let incarnation = ledger.movers.get(dead).map(|row| row.incarnation);
        let is_its = |row: &ActionRow| Some(row.owner) == incarnation;
        for item in &items {
            let row = ledger.actions.get(&item.key()).filter(|row| is_its(row));
            let upload = row.and_then(|row| row.upload.as_ref()).filter(|upload| goes_on(upload));
            let upload = upload.map(|upload| upload.clone().of_another(true));
            self.journal.taken_over(item, upload.as_ref());
            self.given_up.remove(&item.key());
        }
        if fate != Fate::Broken {
            for item in &items {
                let row = ledger.actions.get_mut(&item.key());
                if let Some(row) = row.filter(|row| is_its(row)) {
                    row.owner = self.owner.incarnation;
                    row.upload = row.upload.take().filter(goes_on);
                }
            }
        }
        if fate != Fate::Committed {
            self.goes_away();
        }
        items
    }
}

/// Answers what REMOVEs have asked of one mover.
pub(crate) fn answer(copies: &OthersCopies, ledger: &mut LedgerModel) {
    for question in copies.questions(usize::MAX) {
        let fid = question.fid;
        let record = ledger.copies.get(&fid).map(|row| row.record.clone());
        if record.is_none() && question.is_to_stay {
            ledger.tombstones.insert(fid);
        }
        question.answer(record);
    }
}

/// Comes back when a REMOVE has asked.
pub(crate) async fn asked(copies: &OthersCopies) {
    copies.asked().await;
}
