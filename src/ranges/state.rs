//! Which ranges there are, and which of them is cut for a lister that has nothing to do.

use std::collections::{BTreeMap, VecDeque};

use super::ListerTask;
use super::space::between;

/// A look that finds no keys makes the space for the next one smaller; after so many the range is left alone for a while.
pub(super) const CUTS: u32 = 48;

/// A range that is not done.
#[derive(Debug)]
pub(super) struct ListedRange {
    /// Listed up to here.
    pub(super) cursor: Option<String>,
    pub(super) end: Option<String>,
    /// Done up to here.
    pub(super) done: Option<String>,
    /// Batches under way: their last keys, and whether they are done.
    pub(super) batches: VecDeque<(u64, String, bool)>,
    pub(super) owned: bool,
    /// The listing is at its end.
    pub(super) listed: bool,
    /// Cuts that found nothing.
    pub(super) cuts: u32,
    /// Nothing was found behind it when a place for a cut was looked for. Whoever lists goes on to the end all the same.
    pub(super) ceiling: Option<String>,
}

/// Whether ranges may be cut: only keys that come in the order of their bytes have ranges at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Cutting {
    #[default]
    Allowed,
    /// Nothing is known of the order.
    NotYet,
    /// The order is another one.
    Never,
}

/// All that are not done.
#[derive(Debug, Default)]
pub(super) struct RangesState {
    pub(super) ranges: BTreeMap<u64, ListedRange>,
    pub(super) next: u64,
    pub(super) stopped: bool,
    pub(super) cutting: Cutting,
    /// It is no longer one range from the beginning to the end.
    pub(super) was_cut: bool,
}

impl RangesState {
    /// `None`: there may be something later.
    pub(super) fn claim(&mut self, prefix: &str) -> Option<ListerTask> {
        if self.stopped {
            return Some(ListerTask::Done);
        }
        let free = self.ranges.iter_mut().find(|(_, range)| !range.owned && !range.listed);
        if let Some((number, range)) = free {
            range.owned = true;
            return Some(ListerTask::List {
                range: *number,
                after: range.cursor.clone(),
            });
        }
        if self.ranges.values().all(|range| range.listed) {
            return Some(ListerTask::Done);
        }
        if self.cutting != Cutting::Allowed {
            return None;
        }
        loop {
            // One that has been listed for a while, so that its keys say something; the least cut first.
            let candidate = self
                .ranges
                .iter_mut()
                .filter(|(_, range)| !range.listed && range.cursor.is_some() && range.cuts < CUTS)
                .min_by_key(|(_, range)| range.cuts);
            let (number, range) = candidate?;
            range.cuts += 1;
            let cursor = range.cursor.clone().unwrap_or_default();
            let end = range.ceiling.as_deref().or(range.end.as_deref());
            if let Some(middle) = between(&cursor, end, prefix) {
                return Some(ListerTask::Probe { range: *number, middle });
            }
            range.cuts = CUTS;
        }
    }

    pub(super) fn add(&mut self, after: Option<String>, end: Option<String>, ceiling: Option<String>) {
        self.next += 1;
        self.ranges.insert(
            self.next,
            ListedRange {
                cursor: after.clone(),
                end,
                done: after,
                batches: VecDeque::new(),
                owned: false,
                listed: false,
                cuts: 0,
                ceiling,
            },
        );
    }

    /// Cuts the range that has no end at all of these places that it has not come to.
    pub(super) fn split_last(&mut self, places: &[String]) {
        let Some(range) = self
            .ranges
            .values_mut()
            .find(|range| !range.listed && range.end.is_none())
        else {
            return;
        };
        let ahead = |place: &&String| range.cursor.as_ref().is_none_or(|cursor| *place > cursor);
        let places: Vec<&String> = places.iter().filter(ahead).collect();
        let (Some(first), Some(last)) = (places.first(), places.last()) else {
            return;
        };
        range.end = Some((*first).clone());
        for pair in places.windows(2) {
            if let [after, end] = pair {
                self.add(Some((*after).clone()), Some((*end).clone()), None);
            }
        }
        self.add(Some((*last).clone()), None, None);
        self.was_cut = true;
    }

    /// A range that is listed and done is forgotten.
    pub(super) fn settle(&mut self, number: u64) {
        let over = |range: &ListedRange| range.listed && range.batches.is_empty();
        if self.ranges.get(&number).is_some_and(over) {
            self.ranges.remove(&number);
        }
    }
}
