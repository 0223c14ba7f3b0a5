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
                Some(ListerTask::List { range, after }) => owned.push((range, after)),
                Some(ListerTask::Probe { range, middle }) => {
                    let (found, _) = page(bucket, Some(&middle));
                    let first = found.first().map(|entry| String::from_utf8(entry.key.clone()).unwrap());
                    ranges.cut(range, &middle, first.as_deref());
                }
                Some(ListerTask::Done) => break,
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
    let ranges = Ranges::new("p/", vec![OpenRange::ALL]);
    ranges.hold_cuts();
    let (mut seen, mut listers, mut pages) = (Vec::new(), Vec::<Lister>::new(), 0);
    loop {
        if listers.is_empty() || (listers.len() < 4 && step().is_multiple_of(3)) {
            let work = ranges.lock().claim("p/");
            match work {
                Some(ListerTask::List { range, after }) => listers.push(Lister::new(range, after)),
                Some(ListerTask::Probe { range, middle }) => {
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
                Some(ListerTask::Done) if listers.is_empty() => return Some(seen),
                Some(ListerTask::Done) | None => {}
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
        let ranges = Ranges::new("p/", vec![OpenRange { after: None, end: None }]);
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
        let first = Ranges::new("p/", vec![OpenRange { after: None, end: None }]);
        let mut seen = list(&bucket, &first, &mut step, limit);
        let second = Ranges::new("p/", first.open());
        let again = list(&bucket, &second, &mut step, usize::MAX);
        seen.extend(again);
        seen.sort();
        seen.dedup();
        prop_assert_eq!(seen, bucket);
    }
}
