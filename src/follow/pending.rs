//! FIDs that something happened to, until they were quiet for a while and were dealt with.
//!
//! A changelog may be cleared up to the record before the oldest that is still open here. So nothing of this needs to
//! be kept on disk: a restarted process reads the same records again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::time::{Duration, Instant};

use crate::types::Fid;

/// A file that is never quiet is dealt with after so many quiet times.
const PATIENCE: u32 = 20;

/// Directory and name.
pub(super) type Name = (Fid, OsString);

/// Of one file; a copy that was made under a further one is found by a scrub.
const MOST_NAMES: usize = 8;

#[derive(Debug)]
struct Entry {
    names: Vec<Name>,
    /// The first record of each MDT that is about it.
    records: Vec<(u32, u64)>,
    first_seen: Instant,
    due: Instant,
    tries: u32,
    /// Before which end of the changelogs it was first noted.
    round: u64,
    /// It is gone, and no longer among those that others wait for.
    doomed: bool,
    /// Since when something is in its way that is not its fault.
    waits_since: Option<Instant>,
    /// The changelogs, and those that others wait for, go on without it.
    let_go: bool,
    /// It is written down elsewhere that it is open.
    owed: bool,
}

/// What waits.
#[derive(Debug, Default)]
pub(super) struct PendingFids {
    entries: HashMap<Fid, Entry>,
    by_due: BTreeSet<(Instant, Fid)>,
    by_record: BTreeSet<(u32, u64, Fid)>,
    /// The last record of each MDT that was read.
    read: HashMap<u32, u64>,
    /// How often all changelogs were read to their ends.
    round: u64,
    /// Of those that are not doomed.
    by_round: BTreeMap<u64, usize>,
    /// Those that are gone, by the round in which that was found.
    doomed: BTreeSet<(u64, Fid)>,
    /// The same by FID.
    doomed_in: HashMap<Fid, u64>,
}

impl Entry {
    const fn new(at: Instant, round: u64) -> Self {
        Self {
            names: Vec::new(),
            records: Vec::new(),
            first_seen: at,
            due: at,
            tries: 0,
            round,
            doomed: false,
            waits_since: None,
            let_go: false,
            owed: false,
        }
    }
}

impl PendingFids {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    fn entry<'a>(
        entries: &'a mut HashMap<Fid, Entry>,
        by_round: &mut BTreeMap<u64, usize>,
        fid: Fid,
        at: Instant,
        round: u64,
    ) -> &'a mut Entry {
        entries.entry(fid).or_insert_with(|| {
            *by_round.entry(round).or_default() += 1;
            Entry::new(at, round)
        })
    }

    fn leave_round(by_round: &mut BTreeMap<u64, usize>, round: u64) {
        if let Some(count) = by_round.get_mut(&round) {
            *count -= 1;
            if *count == 0 {
                by_round.remove(&round);
            }
        }
    }

    /// All changelogs were read to their ends.
    pub(super) const fn next_round(&mut self) {
        self.round += 1;
    }

    /// It is gone. What happened before may tell that another file has its object by now, so its end waits for that.
    pub(super) fn doom(&mut self, fid: Fid) {
        let round = *self.doomed_in.entry(fid).or_insert(self.round);
        self.doomed.insert((round, fid));
        if let Some(entry) = self.entries.get_mut(&fid)
            && !entry.doomed
        {
            entry.doomed = true;
            if !entry.let_go {
                Self::leave_round(&mut self.by_round, entry.round);
            }
        }
    }

    /// Doomed ones that everything older was dealt with before; they are the caller's to settle.
    pub(super) fn ends(&mut self, limit: usize) -> Vec<Fid> {
        let oldest = self.by_round.keys().next().copied().unwrap_or(u64::MAX).min(self.round);
        let mut due = Vec::new();
        while due.len() < limit
            && let Some((round, fid)) = self.doomed.first().copied()
            && round < oldest
        {
            self.doomed.pop_first();
            self.doomed_in.remove(&fid);
            due.push(fid);
        }
        due
    }

    /// Those that wait for their ends, which are the caller's to write down and settle.
    pub(super) fn without_ends(&mut self) -> Vec<Fid> {
        self.doomed_in.clear();
        std::mem::take(&mut self.doomed)
            .into_iter()
            .map(|(_, fid)| fid)
            .collect()
    }

    /// Some wait for their end.
    pub(super) fn has_ends(&self) -> bool {
        !self.doomed.is_empty()
    }

    /// A record that is not cleared is about it.
    pub(super) fn has_record(&self, fid: Fid) -> bool {
        self.entries.get(&fid).is_some_and(|entry| !entry.records.is_empty())
    }

    /// Whether it has still to be written down that it is open; not a second time.
    pub(super) fn is_new_debt(&mut self, fid: Fid, now: Instant) -> bool {
        let entry = Self::entry(&mut self.entries, &mut self.by_round, fid, now, self.round);
        !std::mem::replace(&mut entry.owed, true)
    }

    /// What was written down is crossed out.
    pub(super) fn forget_debt(&mut self, fid: Fid) {
        if let Some(entry) = self.entries.get_mut(&fid) {
            entry.owed = false;
        }
    }

    /// Nothing happened to it, and it is to be looked at.
    pub(super) fn reopen(&mut self, fid: Fid, now: Instant) {
        let entry = Self::entry(&mut self.entries, &mut self.by_round, fid, now, self.round);
        self.by_due.insert((entry.due, fid));
    }

    /// A record was read that is about these.
    pub(super) fn note(
        &mut self,
        (mdt, index): (u32, u64),
        fids: impl IntoIterator<Item = (Fid, Vec<Name>)>,
        now: Instant,
        quiet: Duration,
    ) {
        self.read.insert(mdt, index);
        for (fid, names) in fids {
            let entry = Self::entry(&mut self.entries, &mut self.by_round, fid, now, self.round);
            for name in names {
                if entry.names.len() < MOST_NAMES && !entry.names.contains(&name) {
                    entry.names.push(name);
                }
            }
            self.by_due.remove(&(entry.due, fid));
            entry.due = (now + quiet).min(entry.first_seen + quiet * PATIENCE);
            self.by_due.insert((entry.due, fid));
            if !entry.records.iter().any(|(of, _)| *of == mdt) {
                entry.records.push((mdt, index));
                self.by_record.insert((mdt, index, fid));
            }
        }
    }

    /// A record was read that is about these and tells of no change: what is due already is not put off.
    pub(super) fn note_unchanged(
        &mut self,
        record: (u32, u64),
        fids: Vec<(Fid, Vec<Name>)>,
        now: Instant,
        quiet: Duration,
    ) {
        let due: Vec<_> = fids
            .iter()
            .filter_map(|(fid, _)| Some((self.entries.get(fid)?.due, *fid)))
            .filter(|due| self.by_due.contains(due))
            .collect();
        self.note(record, fids, now, quiet);
        for (at, fid) in due {
            self.postpone(fid, at);
        }
    }

    /// Those that were quiet for long enough. They stay open until they are settled or put back.
    pub(super) fn due(&mut self, now: Instant, limit: usize) -> Vec<Fid> {
        let mut due = Vec::new();
        while due.len() < limit
            && let Some((at, fid)) = self.by_due.first().copied()
            && at <= now
        {
            self.by_due.pop_first();
            due.push(fid);
        }
        due
    }

    /// Names that it had since it was last settled.
    pub(super) fn names(&self, fid: Fid) -> Vec<Name> {
        self.entries
            .get(&fid)
            .map(|entry| entry.names.clone())
            .unwrap_or_default()
    }

    /// When the next is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.by_due.first().map(|(at, _)| *at)
    }

    /// It was dealt with, unless something happened to it meanwhile.
    pub(super) fn settle(&mut self, fid: Fid) {
        let Some(entry) = self.entries.get(&fid) else {
            return;
        };
        if self.by_due.contains(&(entry.due, fid)) || self.doomed_in.contains_key(&fid) {
            return;
        }
        for (mdt, index) in &entry.records {
            self.by_record.remove(&(*mdt, *index, fid));
        }
        if !entry.doomed && !entry.let_go {
            Self::leave_round(&mut self.by_round, entry.round);
        }
        self.entries.remove(&fid);
    }

    /// It could not be dealt with: again at `at`. How often that was so.
    pub(super) fn put_back(&mut self, fid: Fid, at: Instant) -> u32 {
        let entry = Self::entry(&mut self.entries, &mut self.by_round, fid, at, self.round);
        self.by_due.remove(&(entry.due, fid));
        entry.due = at;
        entry.tries += 1;
        self.by_due.insert((at, fid));
        entry.tries
    }

    /// It has its next try at `at`.
    pub(super) fn postpone(&mut self, fid: Fid, at: Instant) {
        if let Some(entry) = self.entries.get_mut(&fid) {
            self.by_due.remove(&(entry.due, fid));
            entry.due = at;
            self.by_due.insert((at, fid));
        }
    }

    /// If it is to be looked at, then not before that.
    pub(super) fn not_before(&mut self, fid: Fid, at: Instant) {
        let due = self.entries.get(&fid).map(|entry| entry.due);
        if due.is_some_and(|due| due < at && self.by_due.contains(&(due, fid))) {
            self.postpone(fid, at);
        }
    }

    /// It could not be dealt with, by no fault of its own: for how long that has been so.
    pub(super) fn wait(&mut self, fid: Fid, now: Instant) -> Duration {
        let entry = Self::entry(&mut self.entries, &mut self.by_round, fid, now, self.round);
        now.saturating_duration_since(*entry.waits_since.get_or_insert(now))
    }

    /// The changelogs need not wait for it any more. It is tried on; the caller has it written down elsewhere. `false`:
    /// that was so already.
    pub(super) fn let_go(&mut self, fid: Fid) -> bool {
        let Some(entry) = self.entries.get_mut(&fid) else {
            return false;
        };
        for (mdt, index) in entry.records.drain(..) {
            self.by_record.remove(&(mdt, index, fid));
        }
        let first = !entry.let_go;
        entry.let_go = true;
        if first && !entry.doomed {
            Self::leave_round(&mut self.by_round, entry.round);
        }
        first
    }

    /// Nobody looks at it any more until something happens to it.
    pub(super) fn give_up(&mut self, fid: Fid) {
        if let Some(entry) = self.entries.get(&fid) {
            self.by_due.remove(&(entry.due, fid));
        }
        self.settle(fid);
    }

    /// The last record of an MDT that was read by this process.
    pub(super) fn last_read(&self, mdt: u32) -> Option<u64> {
        self.read.get(&mdt).copied()
    }

    /// The record up to which everything of an MDT was dealt with.
    pub(super) fn place(&self, mdt: u32) -> Option<u64> {
        let oldest = self.by_record.range((mdt, 0, Fid::MIN)..).next();
        match oldest {
            Some((of, index, _)) if *of == mdt => index.checked_sub(1),
            _ => self.read.get(&mdt).copied(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Duration = Duration::from_secs(10);

    fn fid(oid: u32) -> Fid {
        Fid { seq: 1, oid, ver: 0 }
    }

    #[test]
    fn a_file_is_due_when_it_was_quiet_or_has_been_busy_for_too_long() {
        let (mut pending, start) = (PendingFids::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        pending.note((0, 1), [(fid(1), Vec::new())], at(0), QUIET);
        pending.note((0, 2), [(fid(1), Vec::new())], at(9), QUIET);
        assert_eq!(pending.due(at(18), 9), []);
        assert_eq!(pending.due(at(19), 9), [fid(1)]);
        pending.settle(fid(1));
        for second in 0..400 {
            pending.note((0, 3 + second), [(fid(2), Vec::new())], at(20 + second), QUIET);
        }
        assert_eq!(pending.due(at(20 + 200), 9), [fid(2)]);
    }

    #[test]
    fn what_tells_of_no_change_puts_nothing_off() {
        let (mut pending, start) = (PendingFids::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        pending.note((0, 1), [(fid(1), Vec::new())], at(0), QUIET);
        pending.note_unchanged((0, 2), vec![(fid(1), Vec::new()), (fid(2), Vec::new())], at(9), QUIET);
        assert_eq!(pending.due(at(10), 9), [fid(1)]);
        pending.not_before(fid(2), at(30));
        pending.not_before(fid(2), at(20));
        assert_eq!(pending.due(at(29), 9), []);
        assert_eq!(pending.due(at(30), 9), [fid(2)]);
        pending.settle(fid(1));
        pending.settle(fid(2));
        assert_eq!((pending.place(0), pending.len()), (Some(2), 0));
    }

    #[test]
    fn the_end_of_one_that_is_gone_waits_for_all_that_happened_before_it_was_seen() {
        let (mut pending, now) = (PendingFids::default(), Instant::now());
        pending.note((0, 1), [(fid(1), Vec::new())], now, Duration::ZERO);
        pending.note((0, 2), [(fid(2), Vec::new())], now, Duration::ZERO);
        assert_eq!(pending.due(now, 9).len(), 2);
        pending.doom(fid(1));
        assert_eq!(pending.ends(9), [], "what there is may not have been read to its end");
        pending.next_round();
        assert_eq!(pending.ends(9), [], "another one is older");
        pending.note((0, 3), [(fid(3), Vec::new())], now, Duration::ZERO);
        pending.settle(fid(2));
        assert_eq!(pending.ends(9), [fid(1)], "what came later does not matter");
        assert_eq!(pending.place(0), Some(0), "it is still open");
        pending.settle(fid(1));
        assert_eq!(pending.place(0), Some(2));
    }

    #[test]
    fn the_place_is_before_the_oldest_that_is_open_on_each_mdt() {
        let (mut pending, now) = (PendingFids::default(), Instant::now());
        assert_eq!(pending.place(0), None);
        pending.note((0, 10), [(fid(1), Vec::new())], now, Duration::ZERO);
        pending.note((0, 11), [(fid(2), Vec::new())], now, Duration::ZERO);
        pending.note((0, 12), [], now, Duration::ZERO);
        pending.note((1, 5), [(fid(2), Vec::new())], now, Duration::ZERO);
        assert_eq!((pending.place(0), pending.place(1)), (Some(9), Some(4)));
        assert_eq!(pending.due(now, 9).len(), 2);
        pending.settle(fid(1));
        assert_eq!(pending.place(0), Some(10));
        // Something happens to the other one while it is dealt with: it stays open.
        pending.note((0, 13), [(fid(2), Vec::new())], now, Duration::ZERO);
        pending.settle(fid(2));
        assert_eq!(pending.place(0), Some(10));
        assert_eq!(pending.due(now, 9), [fid(2)]);
        assert_eq!(pending.put_back(fid(2), now), 1);
        assert_eq!(pending.due(now, 9), [fid(2)]);
        pending.settle(fid(2));
        assert_eq!(
            (pending.place(0), pending.place(1), pending.len()),
            (Some(13), Some(5), 0)
        );
    }

    #[test]
    fn one_that_waits_for_long_holds_up_neither_the_changelog_nor_the_end_of_another() {
        let (mut pending, start) = (PendingFids::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        pending.note((0, 1), [(fid(1), Vec::new())], start, Duration::ZERO);
        pending.note((0, 2), [(fid(2), Vec::new())], start, Duration::ZERO);
        assert_eq!(pending.due(start, 9).len(), 2);
        pending.doom(fid(2));
        pending.next_round();
        assert_eq!(pending.wait(fid(1), at(1)), Duration::ZERO);
        assert_eq!(pending.wait(fid(1), at(601)), Duration::from_secs(600));
        assert_eq!((pending.place(0), pending.ends(9)), (Some(0), Vec::new()));
        assert!(pending.let_go(fid(1)));
        assert!(!pending.let_go(fid(1)), "it is said once");
        assert_eq!(pending.ends(9), [fid(2)]);
        pending.settle(fid(2));
        assert_eq!((pending.place(0), pending.len()), (Some(2), 1));
        // What happens to it meanwhile is a record again.
        pending.note((0, 3), [(fid(1), Vec::new())], at(602), Duration::ZERO);
        assert_eq!(pending.place(0), Some(2));
        assert_eq!(pending.due(at(602), 9), [fid(1)]);
        pending.settle(fid(1));
        assert_eq!((pending.place(0), pending.len()), (Some(3), 0));
    }
}
