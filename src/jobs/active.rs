//! Files that were asked for, and when each is looked at again: less and less often, until its end.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::hand::Task;
use super::ledger::Row;
use super::outcome::Outcome;
use crate::types::Fid;

/// Between the first request and the first look.
const FIRST_LOOK: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// From then on the coordinator is asked as well whether anything goes on: it looks through its log for that.
const ASK_AFTER: Duration = Duration::from_secs(1);

/// A file that is asked for.
pub(super) struct ActiveFile {
    pub(super) path: PathBuf,
    pub(super) fid: Fid,
    pub(super) size: u64,
    since: Instant,
    pause: Duration,
}

impl ActiveFile {
    pub(super) fn new(path: PathBuf, fid: Fid, size: u64) -> Self {
        Self {
            path,
            fid,
            size,
            since: Instant::now(),
            pause: FIRST_LOOK,
        }
    }

    /// Its row while it has no end.
    pub(super) fn requested(&self) -> Row {
        Row::new(Outcome::Requested, Some(self.fid), self.size, Duration::ZERO)
    }

    /// Its row at its end, which is now.
    pub(super) fn ended(&self, outcome: Outcome) -> Row {
        Row::new(outcome, Some(self.fid), self.size, self.since.elapsed())
    }
}

/// The files that were asked for and have not ended, each by a number.
#[derive(Default)]
pub(super) struct Actives {
    files: HashMap<u64, ActiveFile>,
    last: u64,
    most: usize,
    looks: BinaryHeap<Reverse<(Instant, u64)>>,
}

impl Actives {
    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    /// The most that there were at a time.
    pub(super) const fn most(&self) -> usize {
        self.most
    }

    /// One whose end an answer tells, without a look.
    pub(super) fn add(&mut self, file: ActiveFile) -> u64 {
        self.last += 1;
        self.files.insert(self.last, file);
        self.most = self.most.max(self.files.len());
        self.last
    }

    /// One that is looked at again and again until its end.
    pub(super) fn follow(&mut self, file: ActiveFile) {
        let due = Instant::now() + file.pause;
        let number = self.add(file);
        self.looks.push(Reverse((due, number)));
    }

    /// For whoever knows what became of it: its end, [`Actives::look_again`] or [`Actives::look_in`].
    pub(super) fn take(&mut self, number: u64) -> Option<ActiveFile> {
        self.files.remove(&number)
    }

    /// Nothing has changed: the next look is later than the last one was.
    pub(super) fn look_again(&mut self, number: u64, mut file: ActiveFile) {
        file.pause = (file.pause * 3 / 2).min(LONGEST_PAUSE);
        let pause = file.pause;
        self.look_in(pause, number, file);
    }

    /// The look failed in passing.
    pub(super) fn look_in(&mut self, pause: Duration, number: u64, file: ActiveFile) {
        self.looks.push(Reverse((Instant::now() + pause, number)));
        self.files.insert(number, file);
    }

    /// When the next look is due.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.looks.peek().map(|Reverse((at, _))| *at)
    }

    /// A look that is due; each is given once.
    pub(super) fn due(&mut self, now: Instant) -> Option<Task> {
        while let Some(Reverse((at, number))) = self.looks.peek().copied()
            && at <= now
        {
            self.looks.pop();
            if let Some(file) = self.files.get(&number) {
                return Some(Task::Check(number, file.fid, file.pause >= ASK_AFTER));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(oid: u32) -> ActiveFile {
        ActiveFile::new(PathBuf::from("a"), Fid { seq: 1, oid, ver: 0 }, 7)
    }

    #[test]
    fn a_file_is_looked_at_less_and_less_often_and_deeply_once_it_takes_long() {
        let mut actives = Actives::default();
        actives.follow(file(1));
        let mut pauses = Vec::new();
        let mut deep = Vec::new();
        for _ in 0..20 {
            let at = actives.next_look().unwrap();
            assert!(actives.due(at - Duration::from_millis(1)).is_none(), "it comes early");
            let Some(Task::Check(number, fid, is_deep)) = actives.due(at) else {
                panic!("it does not come");
            };
            assert_eq!((fid.oid, actives.due(at).is_none()), (1, true));
            let file = actives.take(number).unwrap();
            pauses.push(file.pause);
            deep.push(is_deep);
            actives.look_again(number, file);
        }
        assert_eq!(pauses.first(), Some(&FIRST_LOOK));
        assert_eq!(pauses.last(), Some(&LONGEST_PAUSE));
        assert!(pauses.is_sorted());
        for (pause, is_deep) in pauses.iter().zip(deep) {
            assert_eq!(*pause >= ASK_AFTER, is_deep);
        }
    }

    #[test]
    fn what_has_ended_is_not_looked_at_and_counts_no_more() {
        let mut actives = Actives::default();
        let released = actives.add(file(1));
        actives.follow(file(2));
        assert_eq!((actives.len(), actives.most()), (2, 2));
        let later = actives.next_look().unwrap();
        assert!(actives.take(released).is_some() && actives.take(released).is_none());
        assert!(actives.take(2).is_some());
        assert!(actives.due(later).is_none());
        assert_eq!((actives.len(), actives.most()), (0, 2));
    }
}
