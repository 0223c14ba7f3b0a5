//! What the ledger's thread is told of changes, and how far it has written them.

use std::time::{Duration, Instant};

use super::changes::{Changes, CopyNews, Word};
use super::health::Step;
use super::recent::Mark;
use super::state::{Shared, State, now};
use crate::action::{ActionKey, Item, Kind, Verb};
use crate::journal::{JournalSink, UploadRecord};
use crate::types::Fid;

/// Changes of so long go together, unless a reader waits: with the journal's own moment they are within 100 ms.
const COLLECT: Duration = Duration::from_millis(50);
/// Of changes that wait, some hundred bytes each. With more the ledger is out of step, and nothing is kept for it.
const MOST: usize = 100_000;
/// Of marks that wait for their file.
const MOST_MARKS: usize = 200_000;

impl State {
    fn forget_changes(&mut self) {
        self.changes = Changes::default();
        self.writing = 0;
        self.since = None;
        self.urgent = false;
    }
}

impl Shared {
    /// Whether the coordinator has given an action to this mover, and the ledger does not know yet.
    pub(super) fn is_fresh(&self, key: ActionKey) -> bool {
        let state = self.lock();
        let news = state.changes.actions.get(&key);
        news.is_some_and(|news| matches!(news.item, Word::Is(_)))
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
        state.renewed_at = state.claimed_at.take().or(state.renewed_at);
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
        state.claimed_at = None;
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
}

impl JournalSink for Shared {
    fn admitted(&self, item: &Item) {
        let is_awaited = item.kind == Kind::Do(Verb::Restore) || self.turns.is_urgent();
        self.change(is_awaited, |changes| changes.admitted(item));
        // Behind that: who looks at it finds its row.
        self.turns.add(item);
    }

    fn ended(&self, key: ActionKey) {
        self.lock().postponed.remove(&key);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::state::tests::shared_of;

    #[test]
    fn nothing_is_kept_for_a_ledger_that_is_away_but_which_copies_changed() {
        let shared = shared_of(true);
        shared.admitted(&Item::of_test(1, Verb::Archive));
        shared.copied(Item::of_test(1, Verb::Archive).fid, Some(b"{}"));
        assert!(shared.take().is_empty());
        assert_eq!(shared.take_marks().0.len(), 1);
        shared.begin();
        shared.admitted(&Item::of_test(1, Verb::Archive));
        assert_eq!(shared.take().len(), 1);
        let without = shared_of(false);
        without.begin();
        without.copied(Item::of_test(1, Verb::Archive).fid, None);
        assert!(without.take().is_empty() && without.take_marks().0.is_empty());
    }

    #[test]
    fn too_many_changes_are_let_go_and_the_rows_are_made_equal_instead() {
        let shared = shared_of(true);
        shared.begin();
        assert!(shared.in_step());
        for cookie in 0..=MOST as u64 {
            shared.admitted(&Item::of_test(cookie, Verb::Archive));
        }
        assert!(shared.is_overrun() && !shared.in_step());
        shared.admitted(&Item::of_test(0, Verb::Restore));
        assert!(shared.take().is_empty());
        shared.begin();
        assert!(!shared.is_overrun());
        assert_eq!(shared.health().step, Step::CatchingUp);
    }

    #[test]
    fn of_each_action_the_last_word_counts() {
        let shared = shared_of(true);
        shared.begin();
        let item = Item::of_test(1, Verb::Restore);
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
        shared.admitted(&Item::of_test(1, Verb::Archive));
        let start = Instant::now();
        runtime.block_on(shared.wait(long()));
        assert!(start.elapsed() >= COLLECT / 2 && start.elapsed() < Duration::from_secs(30));
        shared.take();
        shared.written(1);
        shared.admitted(&Item::of_test(2, Verb::Restore));
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
        shared.ended(Item::of_test(1, Verb::Archive).key());
        assert!(shared.take().len() == 1 && shared.health().lag > Duration::ZERO);
        shared.written(1);
        assert_eq!(shared.health().lag, Duration::ZERO);
        assert!(shared.away("gone") && !shared.away("gone"));
        assert_eq!(shared.health().error.as_deref(), Some("gone"));
    }
}
