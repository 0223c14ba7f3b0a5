//! What is being listed: ranges of keys, each with the place up to which everything is done.
//!
//! A lister owns a range, `(after, end]` in the order of keys. One that has nothing to do cuts another's range in
//! two. What is listed goes out in batches, which end in any order; the place up to which all of a range's batches
//! are done is what a checkpoint says.

mod space;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use self::space::between;
use crate::store::Entry;

/// A look that finds no keys makes the space for the next one smaller; after so many the range is left alone for a while.
const CUTS: u32 = 48;
/// The last wait for something to cut; others wake it before.
const PATIENCE: Duration = Duration::from_millis(200);

/// A range that is not done, as a checkpoint keeps it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Open {
    /// Everything up to here is done; `None`: nothing is.
    pub after: Option<String>,
    /// The last key of the range; `None`: it ends with the prefix.
    pub end: Option<String>,
}

impl Open {
    /// Everything, and nothing of it is done.
    pub const ALL: Self = Self { after: None, end: None };
}

#[derive(Debug)]
struct Range {
    /// Listed up to here.
    cursor: Option<String>,
    end: Option<String>,
    /// Done up to here.
    done: Option<String>,
    /// Batches under way: their last keys, and whether they are done.
    batches: VecDeque<(u64, String, bool)>,
    owned: bool,
    /// The listing is at its end.
    listed: bool,
    /// Cuts that found nothing.
    cuts: u32,
    /// Nothing was found behind it when a place for a cut was looked for. Whoever lists goes on to the end all the same.
    ceiling: Option<String>,
}

/// Whether ranges may be cut: only keys that come in the order of their bytes have ranges at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Cutting {
    #[default]
    Allowed,
    /// Nothing is known of the order.
    NotYet,
    /// The order is another one.
    Never,
}

#[derive(Debug, Default)]
struct State {
    ranges: BTreeMap<u64, Range>,
    next: u64,
    stopped: bool,
    cutting: Cutting,
    /// It is no longer one range from the beginning to the end.
    was_cut: bool,
}

/// All ranges of a listing.
#[derive(Debug)]
pub struct Ranges {
    prefix: String,
    state: Mutex<State>,
    changed: Condvar,
}

/// What a lister is to do next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Work {
    /// List this range from `after` on.
    List {
        /// Its number.
        range: u64,
        /// The key behind which it begins; `None`: at the first one.
        after: Option<String>,
    },
    /// Look for the first key behind `middle` and say so to [`Ranges::cut`].
    Probe {
        /// The range that may be cut.
        range: u64,
        /// Where to look; no key.
        middle: String,
    },
    /// Nothing is left.
    Done,
}

/// Some entries in a row, to be done together.
#[derive(Debug)]
pub struct Batch {
    /// Whose they are.
    pub ticket: Ticket,
    /// In the order of their keys.
    pub entries: Vec<Entry>,
}

/// A batch of a range; it must come back to [`Ranges::done`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ticket {
    range: u64,
    number: u64,
}

impl Ranges {
    /// Everything with the prefix, or what a checkpoint left.
    #[must_use]
    pub fn new(prefix: &str, open: Vec<Open>) -> Self {
        let ranges = Self {
            prefix: prefix.to_owned(),
            state: Mutex::default(),
            changed: Condvar::new(),
        };
        let mut state = ranges.lock();
        state.was_cut = open != [Open::ALL];
        for open in open {
            state.add(open.after, open.end, None);
        }
        drop(state);
        ranges
    }

    /// Nothing is cut until [`allow_cuts`](Self::allow_cuts).
    pub fn hold_cuts(&self) {
        self.lock().cutting = Cutting::NotYet;
    }

    /// Whether it was not yet said that ranges may be cut, or may not.
    #[must_use]
    pub fn holds_cuts(&self) -> bool {
        self.lock().cutting == Cutting::NotYet
    }

    /// Ranges may be cut from now on; the last one is at once, at those of these places that it has not come to. In
    /// order.
    pub fn allow_cuts(&self, places: &[String]) {
        let mut state = self.lock();
        if state.cutting == Cutting::NotYet {
            state.cutting = Cutting::Allowed;
            state.split_last(places);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// There is one range, whose entries are in any order, and nothing cuts it any more. `false`: it was cut before.
    #[must_use]
    pub fn keep_whole(&self) -> bool {
        let mut state = self.lock();
        if state.cutting != Cutting::Never && state.was_cut {
            return false;
        }
        state.cutting = Cutting::Never;
        true
    }

    /// Whether there is one range, whose entries are in any order.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.lock().cutting == Cutting::Never
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next thing to do; waits while others may leave something.
    #[must_use]
    pub fn claim(&self) -> Work {
        let mut state = self.lock();
        loop {
            if let Some(work) = state.claim(&self.prefix) {
                if work == Work::Done {
                    self.changed.notify_all();
                }
                return work;
            }
            state = self
                .changed
                .wait_timeout(state, PATIENCE)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// The first key behind `middle` is `found`: the range becomes two, the first of which ends with it.
    ///
    /// Not with `middle`, which is no key: a store that lists in another order may see it in another place than we do, also
    /// where all its keys are in the right one.
    pub fn cut(&self, range: u64, middle: &str, found: Option<&str>) {
        let mut state = self.lock();
        if state.cutting != Cutting::Allowed {
            return;
        }
        let Some(whole) = state.ranges.get_mut(&range) else {
            return;
        };
        // The listing may have passed it meanwhile.
        if whole.listed || whole.cursor.as_deref().is_some_and(|cursor| cursor >= middle) {
            return;
        }
        let ceiling = whole.ceiling.replace(middle.to_owned());
        let inside = |key: &&str| *key > middle && whole.end.as_deref().is_none_or(|end| *key < end);
        if let Some(found) = found.filter(inside) {
            let end = whole.end.replace(found.to_owned());
            whole.cuts = 0;
            state.add(Some(found.to_owned()), end, ceiling);
            state.was_cut = true;
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Takes a page of the range and makes batches of it; what lies behind the range's end is dropped. `false`: the
    /// range is listed.
    #[must_use]
    pub fn listed(&self, range: u64, mut entries: Vec<Entry>, more: bool, batch: usize) -> (Vec<Batch>, bool) {
        let mut state = self.lock();
        let State { ranges, next, .. } = &mut *state;
        let Some(found) = ranges.get_mut(&range) else {
            return (Vec::new(), false);
        };
        // What a store lists that does not look behind a key is another range's; whoever lists has looked at the order.
        if let Some(cursor) = &found.cursor {
            entries.retain(|entry| entry.key.as_slice() > cursor.as_bytes());
        }
        let before = entries.len();
        if let Some(end) = &found.end {
            entries.retain(|entry| entry.key.as_slice() <= end.as_bytes());
        }
        let complete = entries.len() == before;
        let mut batches = Vec::with_capacity(entries.len().div_ceil(batch));
        while !entries.is_empty() {
            let rest = entries.split_off(batch.min(entries.len()));
            let last = entries
                .iter()
                .rev()
                .find_map(|entry| std::str::from_utf8(&entry.key).ok());
            let last = last
                .map(str::to_owned)
                .or_else(|| found.cursor.clone())
                .unwrap_or_default();
            if !last.is_empty() {
                found.cursor = Some(last.clone());
            }
            *next += 1;
            found.batches.push_back((*next, last, false));
            let ticket = Ticket { range, number: *next };
            batches.push(Batch { ticket, entries });
            entries = rest;
        }
        let more = more && complete && (found.end.is_none() || found.end != found.cursor);
        if found.cuts >= CUTS {
            found.cuts -= 1;
        }
        if !more {
            found.listed = true;
            state.settle(range);
        }
        drop(state);
        self.changed.notify_all();
        (batches, more)
    }

    /// Takes rows of a source that is in no order of keys; `place` is where the last of them stands.
    #[must_use]
    pub fn rows(&self, range: u64, entries: Vec<Entry>, place: String, more: bool) -> Option<Batch> {
        let mut state = self.lock();
        let State { ranges, next, .. } = &mut *state;
        let found = ranges.get_mut(&range)?;
        let batch = (!entries.is_empty()).then(|| {
            *next += 1;
            found.batches.push_back((*next, place, false));
            let ticket = Ticket { range, number: *next };
            Batch { ticket, entries }
        });
        if !more {
            found.listed = true;
            state.settle(range);
            drop(state);
            self.changed.notify_all();
        }
        batch
    }

    /// One thing more of the only range, in a walk that is in no order of keys.
    #[must_use]
    pub fn ticket(&self, place: String) -> Ticket {
        let mut state = self.lock();
        state.next += 1;
        let number = state.next;
        match state.ranges.iter_mut().next() {
            Some((range, found)) => {
                found.batches.push_back((number, place, false));
                Ticket { range: *range, number }
            }
            None => Ticket { range: 0, number },
        }
    }

    /// A batch is done.
    pub fn done(&self, ticket: Ticket) {
        let mut state = self.lock();
        if let Some(range) = state.ranges.get_mut(&ticket.range) {
            if let Some(batch) = range.batches.iter_mut().find(|batch| batch.0 == ticket.number) {
                batch.2 = true;
            }
            while let Some((_, last, true)) = range.batches.front() {
                if !last.is_empty() {
                    range.done = Some(last.clone());
                }
                range.batches.pop_front();
            }
        }
        state.settle(ticket.range);
    }

    /// What is not done.
    #[must_use]
    pub fn open(&self) -> Vec<Open> {
        let state = self.lock();
        // No key says how far a listing is that is in another order.
        if state.cutting == Cutting::Never {
            return state.ranges.values().take(1).map(|_| Open::ALL).collect();
        }
        let open = state.ranges.values().map(|range| Open {
            after: range.done.clone(),
            end: range.end.clone(),
        });
        open.collect()
    }

    /// Lets all listers end.
    pub fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    /// Whether listers are to end.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.lock().stopped
    }
}

impl State {
    /// `None`: there may be something later.
    fn claim(&mut self, prefix: &str) -> Option<Work> {
        if self.stopped {
            return Some(Work::Done);
        }
        let free = self.ranges.iter_mut().find(|(_, range)| !range.owned && !range.listed);
        if let Some((number, range)) = free {
            range.owned = true;
            return Some(Work::List {
                range: *number,
                after: range.cursor.clone(),
            });
        }
        if self.ranges.values().all(|range| range.listed) {
            return Some(Work::Done);
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
                return Some(Work::Probe { range: *number, middle });
            }
            range.cuts = CUTS;
        }
    }

    fn add(&mut self, after: Option<String>, end: Option<String>, ceiling: Option<String>) {
        self.next += 1;
        self.ranges.insert(
            self.next,
            Range {
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
    fn split_last(&mut self, places: &[String]) {
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
    fn settle(&mut self, number: u64) {
        let over = |range: &Range| range.listed && range.batches.is_empty();
        if self.ranges.get(&number).is_some_and(over) {
            self.ranges.remove(&number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{ListFrom, Listing, Page, Query, hash};
    use proptest::prelude::*;

    fn entry(key: &str) -> Entry {
        Entry {
            key: key.into(),
            size: 0,
            etag: None,
            modified: None,
            class: None,
        }
    }

    /// The first page behind a key, of a sorted bucket.
    fn page(bucket: &[String], after: Option<&str>) -> (Vec<Entry>, bool) {
        let rest: Vec<_> = bucket
            .iter()
            .filter(|key| after.is_none_or(|after| key.as_str() > after))
            .collect();
        (rest.iter().take(7).map(|key| entry(key)).collect(), rest.len() > 7)
    }

    /// Some listers, batches done in any order; everything seen until `limit`.
    fn list(bucket: &[String], ranges: &Ranges, step: &mut impl FnMut() -> u8, limit: usize) -> Vec<String> {
        let (mut seen, mut owned, mut tickets) = (Vec::new(), Vec::<(u64, Option<String>)>::new(), Vec::new());
        for _ in 0..limit {
            if owned.is_empty() || (owned.len() < 4 && step().is_multiple_of(3)) {
                let work = ranges.lock().claim("p/");
                match work {
                    Some(Work::List { range, after }) => owned.push((range, after)),
                    Some(Work::Probe { range, middle }) => {
                        let (found, _) = page(bucket, Some(&middle));
                        let first = found.first().map(|entry| String::from_utf8(entry.key.clone()).unwrap());
                        ranges.cut(range, &middle, first.as_deref());
                    }
                    Some(Work::Done) => break,
                    None => assert!(!owned.is_empty(), "somebody has something to do"),
                }
                // Then somebody lists, or nothing would ever change.
                if owned.is_empty() {
                    continue;
                }
            }
            let at = usize::from(step()) % owned.len();
            let (range, after) = owned.swap_remove(at);
            let (entries, more) = page(bucket, after.as_deref());
            let (batches, more) = ranges.listed(range, entries, more, 3);
            for batch in batches {
                let keys = batch
                    .entries
                    .iter()
                    .map(|entry| String::from_utf8(entry.key.clone()).unwrap());
                tickets.push((batch.ticket, keys.collect::<Vec<_>>()));
            }
            if more {
                let cursor = ranges.lock().ranges[&range].cursor.clone();
                owned.push((range, cursor));
            }
            while tickets.len() > 2 {
                let at = usize::from(step()) % tickets.len();
                let (ticket, keys) = tickets.swap_remove(at);
                ranges.done(ticket);
                seen.extend(keys);
            }
        }
        if limit == usize::MAX {
            seen.extend(tickets.into_iter().flat_map(|(ticket, keys)| {
                ranges.done(ticket);
                keys
            }));
            assert_eq!(ranges.open(), []);
        }
        seen
    }

    /// A store that lists in an order of its own.
    #[derive(Debug)]
    struct Odd {
        keys: Vec<String>,
        order: u8,
        /// What is behind a key is what it lists behind it, else what is greater.
        by_place: bool,
    }

    impl Odd {
        fn rank(&self, key: &str) -> Vec<u8> {
            match self.order {
                0 => key.into(),
                // As a walk through directories.
                1 => key.replace('/', "\0").into(),
                // Without regard to case.
                2 => format!("{}{key}", key.to_lowercase()).into(),
                _ => [&hash(&key).to_be_bytes()[..], key.as_bytes()].concat(),
            }
        }

        fn page(&self, after: Option<&str>, at: usize) -> (Page, usize) {
            let is_behind = |key: &&String| match after {
                None => true,
                Some(after) if self.by_place => self.rank(key) > self.rank(after),
                Some(after) => key.as_str() > after,
            };
            let mut listed: Vec<&String> = self.keys.iter().filter(is_behind).collect();
            listed.sort_by_key(|key| self.rank(key));
            let end = (at + 2).min(listed.len());
            let page = Page {
                entries: listed[at..end].iter().map(|key| entry(key)).collect(),
                next: (end < listed.len()).then(|| end.to_string()),
                ..Page::default()
            };
            (page, end)
        }
    }

    struct Lister {
        range: Option<u64>,
        after: Option<String>,
        at: usize,
        listing: Listing,
    }

    impl Lister {
        fn new(range: u64, after: Option<String>) -> Self {
            let from = after.clone().map_or(ListFrom::Start, ListFrom::After);
            Self {
                range: Some(range),
                after,
                at: 0,
                listing: Listing::new(&Query::below("p/", &from)),
            }
        }
    }

    fn texts(entries: &[Entry]) -> impl Iterator<Item = String> {
        entries
            .iter()
            .map(|entry| String::from_utf8(entry.key.clone()).unwrap())
    }

    /// What listers find as those of an import do; `None`: all is to be listed in one.
    fn found(odd: &Odd, step: &mut impl FnMut() -> u8) -> Option<Vec<String>> {
        let ranges = Ranges::new("p/", vec![Open::ALL]);
        ranges.hold_cuts();
        let (mut seen, mut listers, mut pages) = (Vec::new(), Vec::<Lister>::new(), 0);
        loop {
            if listers.is_empty() || (listers.len() < 4 && step().is_multiple_of(3)) {
                let work = ranges.lock().claim("p/");
                match work {
                    Some(Work::List { range, after }) => listers.push(Lister::new(range, after)),
                    Some(Work::Probe { range, middle }) => {
                        let first = texts(&odd.page(Some(&middle), 0).0.entries).next();
                        match first {
                            Some(first) if first <= middle => {
                                if !ranges.keep_whole() {
                                    return None;
                                }
                            }
                            first => ranges.cut(range, &middle, first.as_deref()),
                        }
                    }
                    Some(Work::Done) if listers.is_empty() => return Some(seen),
                    Some(Work::Done) | None => {}
                }
                if listers.is_empty() {
                    continue;
                }
            }
            let number = usize::from(step()) % listers.len();
            let lister = &mut listers[number];
            let is_first = lister.after.is_none();
            let (mut page, end) = odd.page(lister.after.as_deref(), lister.at);
            lister.at = end;
            lister.listing.take(&mut page).unwrap();
            if page.disorder.is_some() && !ranges.keep_whole() {
                return None;
            }
            let more = page.next.is_some();
            let mut batches = Vec::new();
            if let Some(range) = lister.range {
                if ranges.is_whole() {
                    batches.extend(ranges.rows(range, page.entries, String::new(), more));
                } else {
                    let (listed, goes_on) = ranges.listed(range, page.entries, more, 3);
                    batches = listed;
                    lister.range = lister.range.filter(|_| goes_on);
                }
            }
            let goes_on = more && (is_first || lister.range.is_some());
            for batch in batches {
                seen.extend(texts(&batch.entries));
                ranges.done(batch.ticket);
            }
            if is_first {
                pages += 1;
                if pages == 2 {
                    ranges.allow_cuts(&[]);
                }
            }
            if !goes_on {
                listers.swap_remove(number);
            }
        }
    }

    proptest! {
        #[test]
        fn all_keys_are_found_or_another_order_is_whatever_the_store_does(
            keys in prop::collection::btree_set("[abB+/]{1,4}", 0..60), order in 0u8..4, by_place in any::<bool>(),
            steps in prop::collection::vec(any::<u8>(), 1..200),
        ) {
            let keys: Vec<String> = keys.iter().map(|key| format!("p/{key}")).collect();
            let odd = Odd { keys, order, by_place };
            let mut at = 0;
            let mut step = || { at += 1; steps[at % steps.len()] };
            match found(&odd, &mut step) {
                Some(mut seen) => {
                    seen.sort();
                    prop_assert_eq!(&seen, &odd.keys);
                }
                None => prop_assert!(order != 0, "the order is that of the bytes"),
            }
        }

        #[test]
        fn every_key_is_listed_once_however_ranges_are_cut(
            keys in prop::collection::btree_set("[a-e]{1,4}", 0..120), steps in prop::collection::vec(any::<u8>(), 1..200)
        ) {
            let bucket: Vec<String> = keys.iter().map(|key| format!("p/{key}")).collect();
            let mut at = 0;
            let mut step = || { at += 1; steps[at % steps.len()] };
            let ranges = Ranges::new("p/", vec![Open { after: None, end: None }]);
            let mut seen = list(&bucket, &ranges, &mut step, usize::MAX);
            seen.sort();
            prop_assert_eq!(seen, bucket);
        }

        #[test]
        fn a_successor_lists_all_that_was_not_done(
            keys in prop::collection::btree_set("[a-e]{1,4}", 0..120), steps in prop::collection::vec(any::<u8>(), 1..200),
            limit in 0usize..40,
        ) {
            let bucket: Vec<String> = keys.iter().map(|key| format!("p/{key}")).collect();
            let mut at = 0;
            let mut step = || { at += 1; steps[at % steps.len()] };
            let first = Ranges::new("p/", vec![Open { after: None, end: None }]);
            let mut seen = list(&bucket, &first, &mut step, limit);
            let second = Ranges::new("p/", first.open());
            let again = list(&bucket, &second, &mut step, usize::MAX);
            seen.extend(again);
            seen.sort();
            seen.dedup();
            prop_assert_eq!(seen, bucket);
        }
    }
}
