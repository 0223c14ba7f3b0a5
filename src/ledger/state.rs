//! What the ledger's thread and those who tell it of changes share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;

use super::changes::{Changes, CopyNews, Word};
use super::peers::RETURN;
use super::peers::{GONE, SERVING, TAKEN};
use super::recent::Mark;
use super::rows::Owner;
use super::turns::Turns;
use super::{Heir, LedgerOptions};
use crate::action::{ActionKey, Item, Kind, Verb};
use crate::journal::{JournalSink, UploadRecord};
use crate::types::Fid;

/// Changes of so long go together, unless a reader waits: with the journal's own moment they are within 100 ms.
const COLLECT: Duration = Duration::from_millis(50);
/// Of changes that wait, some hundred bytes each. With more the ledger is out of step, and nothing is kept for it.
const MOST: usize = 100_000;
/// Of marks that wait for their file.
const MOST_MARKS: usize = 200_000;

/// How far the rows are those of the journal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Step {
    /// There is no connection.
    #[default]
    Away,
    /// The rows are being made equal.
    CatchingUp,
    /// They are equal, but for the last moment.
    InStep,
}

impl Step {
    /// As `status` has it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Away => "away",
            Self::CatchingUp => "catching up",
            Self::InStep => "in step",
        }
    }
}

/// How the ledger is.
#[derive(Clone, PartialEq, Debug)]
pub struct LedgerHealth {
    /// How far the rows are those of the journal.
    pub step: Step,
    /// The age of the oldest change that the ledger lacks.
    pub lag: Duration,
    /// Changes that wait to be written, or are being written.
    pub unwritten: usize,
    /// Changes that were written since the start.
    pub written: u64,
    /// Renewals of the mover's own row since the start.
    pub renewals: u64,
    /// Connections that were made since the start.
    pub connections: u64,
    /// Why it is away.
    pub error: Option<String>,
    /// What the ledger calls this mover.
    pub mover: String,
    /// The random number of this process.
    pub incarnation: i64,
    /// The other movers, as they were seen last.
    pub peers: Vec<PeerHealth>,
    /// Movers that this one found dead since the start.
    pub found_dead: u64,
    /// Actions that were taken over from dead movers since the start.
    pub taken_over: u64,
    /// Actions that other movers have taken over from this one since the start.
    pub given_up: u64,
    /// Movers for whose actions of the same files some of this one's wait, and how many do.
    pub waits_for: BTreeMap<String, u64>,
}

/// Another mover, as its row in the ledger tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerHealth {
    /// What the ledger calls it.
    pub name: String,
    /// As the row has it.
    pub(super) state: i16,
    /// For how long it was not renewed while this mover looked.
    pub still: Duration,
}

impl PeerHealth {
    /// Whether it is there to take anything over.
    pub(super) const fn may_take_over(&self) -> bool {
        !matches!(self.state, GONE | TAKEN)
    }

    /// As `status` has it.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self.state {
            SERVING => "serving",
            GONE => "gone",
            TAKEN => "dead",
            _ => "draining",
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// There is something to do before the next renewal.
    stirred: Notify,
    /// It is to end.
    stopped: Notify,
    /// Copies are none of its business.
    without_copies: bool,
    mover: String,
    incarnation: i64,
    lease: Duration,
    turns: Turns,
}

#[derive(Debug)]
struct State {
    step: Step,
    changes: Changes,
    /// Changes that are being written.
    writing: usize,
    /// Of the oldest change that is not written.
    since: Option<Instant>,
    /// Since when it has not been in step.
    out_since: Instant,
    /// A reader waits for what one of the changes tells.
    urgent: bool,
    /// There were too many changes.
    overrun: bool,
    marks: Vec<Mark>,
    marks_lost: u64,
    stopping: bool,
    written: u64,
    renewals: u64,
    connections: u64,
    error: Option<String>,
    /// It was found out once which actions others have, or that this can't be found out now.
    has_looked: bool,
    /// When the last renewal was asked for that succeeded.
    renewed_at: Option<Instant>,
    /// When all other movers were asked that had no ledger either.
    all_away: Option<Instant>,
    address: Option<String>,
    heir: Option<Arc<dyn Heir>>,
    peers: Vec<PeerHealth>,
    found_dead: u64,
    taken_over: u64,
    given_up: u64,
}

impl Default for State {
    fn default() -> Self {
        Self {
            step: Step::Away,
            changes: Changes::default(),
            writing: 0,
            since: None,
            out_since: Instant::now(),
            urgent: false,
            overrun: false,
            marks: Vec::new(),
            marks_lost: 0,
            stopping: false,
            written: 0,
            renewals: 0,
            connections: 0,
            error: None,
            has_looked: false,
            renewed_at: None,
            all_away: None,
            address: None,
            heir: None,
            peers: Vec::new(),
            found_dead: 0,
            taken_over: 0,
            given_up: 0,
        }
    }
}

impl State {
    fn forget_changes(&mut self) {
        self.changes = Changes::default();
        self.writing = 0;
        self.since = None;
        self.urgent = false;
    }
}

impl Shared {
    pub(super) fn new(options: &LedgerOptions, owner: &Owner) -> Self {
        Self {
            without_copies: !options.copies,
            lease: options.lease,
            mover: owner.name.clone(),
            incarnation: owner.incarnation,
            ..Self::default()
        }
    }

    pub(super) const fn turns(&self) -> &Turns {
        &self.turns
    }

    pub(super) fn set_address(&self, address: String) {
        self.lock().address = Some(address);
    }

    pub(super) fn address(&self) -> Option<String> {
        self.lock().address.clone()
    }

    pub(super) fn set_heir(&self, heir: Arc<dyn Heir>) {
        self.lock().heir = Some(heir);
    }

    pub(super) fn drop_heir(&self) {
        let heir = self.lock().heir.take();
        drop(heir);
    }

    pub(super) fn has_looked(&self) -> bool {
        self.lock().has_looked
    }

    /// `None`: nothing is served yet.
    pub(super) fn heir(&self) -> Option<Arc<dyn Heir>> {
        self.lock().heir.clone()
    }

    pub(super) fn set_peers(&self, peers: Vec<PeerHealth>) {
        self.lock().peers = peers;
    }

    pub(super) fn found_dead(&self) {
        self.lock().found_dead += 1;
    }

    pub(super) fn took_over(&self, actions: u64) {
        self.lock().taken_over += actions;
    }

    pub(super) fn gave_up(&self, actions: u64) {
        self.lock().given_up += actions;
    }

    /// Whether the coordinator has given an action to this mover, and the ledger does not know yet.
    pub(super) fn is_fresh(&self, key: ActionKey) -> bool {
        let state = self.lock();
        let news = state.changes.actions.get(&key);
        news.is_some_and(|news| matches!(news.item, Word::Is(_)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A change: kept while there is somebody to write it.
    fn change(&self, is_urgent: bool, change: impl FnOnce(&mut Changes)) {
        let mut state = self.lock();
        if state.step == Step::Away || state.overrun {
            return;
        }
        change(&mut state.changes);
        if state.changes.len() > MOST {
            state.forget_changes();
            state.overrun = true;
        } else {
            let is_first = state.since.is_none();
            state.since.get_or_insert_with(Instant::now);
            let is_news = is_urgent && !state.urgent;
            state.urgent |= is_urgent;
            if !is_first && !is_news {
                return;
            }
        }
        drop(state);
        self.stirred.notify_one();
    }

    pub(super) fn stop(&self) {
        self.lock().stopping = true;
        self.stirred.notify_one();
        self.stopped.notify_one();
    }

    /// Comes back when it was told to end so long ago, or at once where there is nothing to be finished. One may wait for
    /// it.
    pub(super) async fn overtime(&self, length: Duration) {
        while !self.is_stopping() {
            self.stopped.notified().await;
        }
        if self.health().step != Step::Away {
            tokio::time::sleep(length).await;
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.lock().stopping
    }

    /// From now on changes are kept: what is read of the journal after this, with them over it, is how it is.
    pub(super) fn begin(&self) {
        let mut state = self.lock();
        if state.step == Step::InStep {
            state.out_since = Instant::now();
        }
        state.step = Step::CatchingUp;
        state.overrun = false;
        state.forget_changes();
    }

    /// The rows are those of the journal, but for the changes since [`Shared::begin`]. `false`: those were too many.
    pub(super) fn in_step(&self) -> bool {
        let mut state = self.lock();
        state.has_looked = true;
        if !state.overrun {
            state.step = Step::InStep;
            state.error = None;
        }
        !state.overrun
    }

    /// There is no connection any more, or none yet: nothing is kept for it. Whether that is news.
    pub(super) fn away(&self, error: &str) -> bool {
        let mut state = self.lock();
        if state.step == Step::InStep {
            // What was being written may not be there.
            state.out_since = state.since.unwrap_or_else(Instant::now);
        }
        state.step = Step::Away;
        state.has_looked = true;
        state.overrun = false;
        state.forget_changes();
        let is_news = state.error.as_deref() != Some(error);
        state.error = Some(error.to_owned());
        is_news
    }

    /// The changes so far, to be written; [`Shared::written`] or [`Shared::away`] follows.
    pub(super) fn take(&self) -> Changes {
        let mut state = self.lock();
        let changes = std::mem::take(&mut state.changes);
        state.writing = changes.len();
        state.urgent = false;
        changes
    }

    pub(super) fn written(&self, rows: u64) {
        let mut state = self.lock();
        state.writing = 0;
        state.written += rows;
        // What came meanwhile is younger than this.
        state.since = (!state.changes.is_empty()).then(Instant::now);
    }

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

    /// Whether there were so many changes that the rows have to be made equal again.
    pub(super) fn is_overrun(&self) -> bool {
        self.lock().overrun
    }

    /// Marks that are in no file yet, and how many were lost.
    pub(super) fn take_marks(&self) -> (Vec<Mark>, u64) {
        let mut state = self.lock();
        (std::mem::take(&mut state.marks), std::mem::take(&mut state.marks_lost))
    }

    /// Waits for something to do, no longer than until then.
    pub(super) async fn wait(&self, until: Instant) {
        loop {
            let due = {
                let state = self.lock();
                if state.stopping || state.urgent || state.overrun {
                    return;
                }
                state.since.map_or(until, |since| until.min(since + COLLECT))
            };
            let stirred = tokio::time::timeout_at(due.into(), self.stirred.notified());
            if stirred.await.is_err() {
                return;
            }
        }
    }

    /// A pause that a stop ends.
    pub(super) async fn pause(&self, length: Duration) {
        let until = Instant::now() + length;
        while !self.is_stopping() {
            let stirred = tokio::time::timeout_at(until.into(), self.stirred.notified());
            if stirred.await.is_err() {
                return;
            }
        }
    }

    pub(super) fn health(&self) -> LedgerHealth {
        let state = self.lock();
        let lag = match state.step {
            Step::InStep => state.since.map_or(Duration::ZERO, |since| since.elapsed()),
            Step::Away | Step::CatchingUp => state.out_since.elapsed(),
        };
        LedgerHealth {
            step: state.step,
            lag,
            unwritten: state.changes.len() + state.writing,
            written: state.written,
            renewals: state.renewals,
            connections: state.connections,
            error: state.error.clone(),
            mover: self.mover.clone(),
            incarnation: self.incarnation,
            peers: state.peers.clone(),
            found_dead: state.found_dead,
            taken_over: state.taken_over,
            given_up: state.given_up,
            waits_for: self.turns.by_mover(),
        }
    }
}

impl JournalSink for Shared {
    fn admitted(&self, item: &Item) {
        let is_awaited = item.kind == Kind::Do(Verb::Restore) || self.turns.is_urgent();
        self.change(is_awaited, |changes| changes.admitted(item));
        // Behind that: who looks at it finds its row.
        self.turns.add(item);
    }

    fn ended(&self, key: ActionKey) {
        self.change(false, |changes| changes.ended(key));
        self.turns.ended(key);
    }

    fn uploading(&self, key: ActionKey, upload: &UploadRecord) {
        self.change(false, |changes| changes.uploading(key, upload));
    }

    fn settled(&self, key: ActionKey) {
        self.change(false, |changes| changes.settled(key));
    }

    fn copied(&self, fid: Fid, record: Option<&[u8]>) {
        if self.without_copies {
            return;
        }
        let stamp = now();
        {
            let mut state = self.lock();
            if state.marks.len() < MOST_MARKS {
                let is_gone = record.is_none();
                state.marks.push(Mark { fid, stamp, is_gone });
            } else {
                state.marks_lost += 1;
            }
        }
        self.change(false, |changes| {
            let record = record.map(<[u8]>::to_vec);
            changes.copies.insert(fid, CopyNews { stamp, record });
        });
    }
}

/// Milliseconds of this node's clock.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ArchiveId, Cookie, Extent};

    const LEASE: Duration = Duration::from_secs(20);

    fn shared_of(with_copies: bool) -> Shared {
        let owner = Owner {
            name: "mover1".into(),
            incarnation: 1,
            known_as: vec![1],
            others: Vec::new(),
        };
        let options = LedgerOptions {
            address: crate::ledger::LedgerAddress::parse("postgresql://lhsm@127.0.0.1/lhsm").unwrap(),
            password_file: None,
            ca_bundle: None,
            name: None,
            lease: LEASE,
            takeover_archives: LEASE,
            copies: with_copies,
        };
        Shared::new(&options, &owner)
    }

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

    fn item(cookie: u64, verb: Verb) -> Item {
        let fid = Fid {
            seq: 0x2_0000_0401,
            oid: 7,
            ver: 0,
        };
        Item {
            kind: Kind::Do(verb),
            fid,
            dfid: fid,
            cookie: Cookie(cookie),
            archive_id: ArchiveId::new(1),
            extent: Extent::WHOLE,
            gid: 0,
            blocking: false,
            data: Box::default(),
        }
    }

    #[test]
    fn nothing_is_kept_for_a_ledger_that_is_away_but_which_copies_changed() {
        let shared = shared_of(true);
        shared.admitted(&item(1, Verb::Archive));
        shared.copied(item(1, Verb::Archive).fid, Some(b"{}"));
        assert!(shared.take().is_empty());
        assert_eq!(shared.take_marks().0.len(), 1);
        shared.begin();
        shared.admitted(&item(1, Verb::Archive));
        assert_eq!(shared.take().len(), 1);
        let without = shared_of(false);
        without.begin();
        without.copied(item(1, Verb::Archive).fid, None);
        assert!(without.take().is_empty() && without.take_marks().0.is_empty());
    }

    #[test]
    fn too_many_changes_are_let_go_and_the_rows_are_made_equal_instead() {
        let shared = shared_of(true);
        shared.begin();
        assert!(shared.in_step());
        for cookie in 0..=MOST as u64 {
            shared.admitted(&item(cookie, Verb::Archive));
        }
        assert!(shared.is_overrun() && !shared.in_step());
        shared.admitted(&item(0, Verb::Restore));
        assert!(shared.take().is_empty());
        shared.begin();
        assert!(!shared.is_overrun());
        assert_eq!(shared.health().step, Step::CatchingUp);
    }

    #[test]
    fn of_each_action_the_last_word_counts() {
        let shared = shared_of(true);
        shared.begin();
        let item = item(1, Verb::Restore);
        shared.admitted(&item);
        shared.ended(item.key());
        let changes = shared.take();
        assert_eq!(changes.len(), 1);
        assert_eq!(changes.actions[&item.key()].item, Word::Gone);
        shared.admitted(&item);
        assert!(matches!(shared.take().actions[&item.key()].item, Word::Is(_)));
    }

    #[test]
    fn a_change_waits_a_moment_for_others_and_a_restore_does_not() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let long = || Instant::now() + Duration::from_secs(60);
        let shared = shared_of(true);
        shared.begin();
        shared.admitted(&item(1, Verb::Archive));
        let start = Instant::now();
        runtime.block_on(shared.wait(long()));
        assert!(start.elapsed() >= COLLECT / 2 && start.elapsed() < Duration::from_secs(30));
        shared.take();
        shared.written(1);
        shared.admitted(&item(2, Verb::Restore));
        let start = Instant::now();
        runtime.block_on(shared.wait(long()));
        assert!(start.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn the_lag_counts_from_the_oldest_change_and_while_it_is_away_from_then() {
        let shared = shared_of(true);
        assert_eq!(shared.health().step, Step::Away);
        shared.begin();
        assert!(shared.in_step());
        assert_eq!(shared.health().lag, Duration::ZERO);
        shared.ended(item(1, Verb::Archive).key());
        assert!(shared.take().len() == 1 && shared.health().lag > Duration::ZERO);
        shared.written(1);
        assert_eq!(shared.health().lag, Duration::ZERO);
        assert!(shared.away("gone") && !shared.away("gone"));
        assert_eq!(shared.health().error.as_deref(), Some("gone"));
    }
}
