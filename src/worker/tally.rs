//! What was done, in numbers, and why the rest was not.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::action::{Item, Verdict};
use crate::fleet::ActionFailure;
use crate::measure::{Histogram, Recent};
use crate::queue::Class;
use crate::types::ArchiveId;

/// Failures that are kept for whoever asks why.
const FAILURES: usize = 10_000;

/// Whose numbers: the archive id (0: none was named) and the class.
pub type TotalsKey = (u32, Class);

/// Numbers of one archive id and class.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ActionTotals {
    /// Ended as asked.
    pub done: u64,
    /// Cancelled.
    pub cancelled: u64,
    /// Failed.
    pub failed: u64,
    /// Bytes of those that were done.
    pub bytes: u64,
    /// How long those that ran took, from the worker's first step to its answer.
    pub took: Histogram,
}

/// How an action ended.
#[derive(Clone, Copy, Debug)]
pub struct ActionEnd<'a> {
    /// Which.
    pub item: &'a Item,
    /// The answer.
    pub verdict: Verdict,
    /// That were moved.
    pub bytes: u64,
    /// Of work; `None`: it never ran.
    pub took: Option<Duration>,
    /// Why it was not done.
    pub reason: Option<&'a str>,
    /// Of the object that it was about, where that is known.
    pub key: Option<&'a str>,
}

#[derive(Debug, Default)]
struct TallyState {
    sums: BTreeMap<TotalsKey, ActionTotals>,
    failures: VecDeque<ActionFailure>,
    /// Failures that ever were.
    failed: u64,
}

/// The counters.
#[derive(Debug)]
pub struct Tally {
    began: Instant,
    state: Mutex<TallyState>,
    ended: Recent,
    /// Archives that went beside their key because it held what may be another file's only copy.
    pub conflicts: AtomicU64,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            state: Mutex::default(),
            ended: Recent::default(),
            conflicts: AtomicU64::new(0),
        }
    }
}

impl Tally {
    fn lock(&self) -> MutexGuard<'_, TallyState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more has ended.
    pub fn count(&self, ending: &ActionEnd<'_>) {
        let Some(class) = Class::of(ending.item) else {
            return;
        };
        let share = (ending.item.archive_id.map_or(0, ArchiveId::get), class);
        let mut state = self.lock();
        let sums = state.sums.entry(share).or_default();
        if let Some(took) = ending.took {
            sums.took.add(took);
        }
        match ending.verdict {
            Verdict::Done => {
                sums.done += 1;
                sums.bytes += ending.bytes;
            }
            Verdict::Cancelled => sums.cancelled += 1,
            Verdict::Failed { errno, .. } => {
                sums.failed += 1;
                state.failed += 1;
                let failure = ActionFailure {
                    number: state.failed,
                    fid: ending.item.fid.bare(),
                    class: class.word().to_owned(),
                    errno: errno.get(),
                    reason: ending.reason.unwrap_or("not run").to_owned(),
                };
                if state.failures.len() >= FAILURES {
                    state.failures.pop_front();
                }
                state.failures.push_back(failure);
            }
        }
        drop(state);
        self.ended.add(1);
    }

    /// One that went beside its key.
    pub fn count_conflict(&self) {
        self.conflicts.fetch_add(1, Ordering::Relaxed);
    }

    /// The numbers of each archive id and class.
    #[must_use]
    pub fn sums(&self) -> BTreeMap<TotalsKey, ActionTotals> {
        self.lock().sums.clone()
    }

    /// Everything that ended.
    #[must_use]
    pub const fn ended(&self) -> &Recent {
        &self.ended
    }

    /// Since it was made.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// Failures after that number, the oldest first; those before the last 10,000 are forgotten.
    #[must_use]
    pub fn failures_after(&self, number: u64) -> Vec<ActionFailure> {
        let state = self.lock();
        let first = state.failures.partition_point(|failure| failure.number <= number);
        state.failures.range(first..).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::{Kind, Verb};
    use crate::types::{Cookie, Extent, Fid, HsmErrno};

    fn item(oid: u32) -> Item {
        let fid = Fid { seq: 1, oid, ver: 0 };
        Item {
            kind: Kind::Do(Verb::Archive),
            fid,
            dfid: fid,
            cookie: Cookie(u64::from(oid)),
            archive_id: ArchiveId::new(7),
            extent: Extent::WHOLE,
            gid: 0,
            blocking: false,
            data: Box::default(),
        }
    }

    #[test]
    fn sums_are_kept_for_each_archive_id_and_class_and_failures_with_their_reason() {
        let tally = Tally::default();
        let end = |oid, verdict, reason| {
            tally.count(&ActionEnd {
                item: &item(oid),
                verdict,
                bytes: 10,
                took: Some(Duration::from_millis(20)),
                reason,
                key: None,
            });
        };
        end(1, Verdict::Done, None);
        for oid in 2..=u32::try_from(FAILURES + 3).unwrap() {
            end(oid, Verdict::failed(HsmErrno::EIO), Some("why"));
        }
        let sums = tally.sums();
        let sums = &sums[&(7, Class::Archive)];
        assert_eq!((sums.done, sums.bytes, sums.failed), (1, 10, FAILURES as u64 + 2));
        assert_eq!(sums.took.buckets().nth(2), Some((0.03, FAILURES as u64 + 3)));
        let all = tally.failures_after(0);
        assert_eq!(all.len(), FAILURES, "older ones make room");
        let last = tally.failures_after(all[all.len() - 2].number);
        assert_eq!(last, [all.last().unwrap().clone()]);
        assert_eq!((last[0].errno, last[0].reason.as_str()), (libc::EIO, "why"));
        assert!(tally.ended().rate() > 1.0);
    }
}
