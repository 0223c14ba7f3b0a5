//! How a bucket is listed: in ranges of keys at once where its store lists in the order of the keys' bytes, else from the
//! beginning to the end by one lister, which finds all in any order.
//!
//! Not every store lists in that order, and one that does not shows it only where two of its keys are the wrong way
//! round. So one lister always goes from the beginning to the end, by the store's own tokens. It begins with the only
//! range; when its first pages were in order and the store has listed from behind one of their keys, the rest may be cut.
//! It goes on beyond the end of its own range and looks at the order alone: when it has come to the end, no range can have
//! missed a key. Where it, or anybody else, meets a key in another order, what was cut is given up, and all is listed in
//! one: what was made already is found and kept.

use std::ops::ControlFlow;
use std::sync::mpsc::SyncSender;

use super::flow::{BATCH, ImportRun};
use crate::ranges::Batch;
use crate::store::{Entry, ListFrom, Query, StoreError};
use crate::transfer::{Lane, TransferError};

/// Pages in the right order before anything is cut: what is smaller is listed as fast by one.
const PAGES_BEFORE_CUTS: u32 = 16;
/// Of a first look by directories, as places to cut at.
const CUTS: usize = 64;

/// The first key behind another one.
struct NextKey {
    key: Option<Vec<u8>>,
    disorder: Option<String>,
}

/// Where to cut before anything is known: at directories.
pub(super) fn directories(flow: &ImportRun<'_>, lane: &Lane) -> Result<Vec<String>, TransferError> {
    let query = Query {
        by_directory: true,
        ..Query::below(&flow.shared.prefix, &ListFrom::Start)
    };
    let page = match flow.shared.transfer(lane).list(flow.shared.archive_id, query) {
        Ok(page) => page,
        // They are a help and no more.
        Err(error) if is_refusal(&error) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut places = page.prefixes;
    places.sort();
    places.dedup();
    let step = places.len().div_ceil(CUTS).max(1);
    Ok(places.into_iter().step_by(step).collect())
}

/// Lists one of several ranges.
pub(super) fn list_range(
    flow: &ImportRun<'_>,
    lane: &Lane,
    range: u64,
    after: Option<String>,
    sender: &SyncSender<Batch>,
) -> Result<(), TransferError> {
    let from_key = after.is_some();
    let from = after.map_or(ListFrom::Start, ListFrom::After);
    let ImportRun { shared, ranges, .. } = flow;
    let query = Query::below(&shared.prefix, &from);
    let listed = shared.transfer(lane).pages(shared.archive_id, query, |page| {
        // Before anything of the page is dropped: what is behind the range's end may be followed by what is not.
        if let Some(disorder) = &page.disorder {
            flow.give_up_ranges(disorder);
        }
        if ranges.is_stopped() {
            return ControlFlow::Break(());
        }
        let (batches, more) = ranges.listed(range, page.entries, page.next.is_some(), BATCH);
        match send(sender, batches) && more {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    });
    match listed {
        Err(TransferError::Stopped(_)) => Ok(()),
        Err(error) if from_key && is_refusal(&error) => {
            flow.give_up_ranges(&refused(&error));
            Ok(())
        }
        listed => listed,
    }
}

/// Lists from the beginning to the end: the entries of `range`, up to where others have theirs, and the order of all.
pub(super) fn from_the_beginning(
    flow: &ImportRun<'_>,
    lane: &Lane,
    range: Option<u64>,
    sender: &SyncSender<Batch>,
) -> Result<(), TransferError> {
    let ImportRun { shared, ranges, .. } = flow;
    let (mut own, mut count, mut failed) = (range, 0, None);
    let query = Query::below(&shared.prefix, &ListFrom::Start);
    let listed = shared.transfer(lane).pages(shared.archive_id, query, |page| {
        if let Some(disorder) = &page.disorder
            && !flow.disordered(disorder)
        {
            return ControlFlow::Break(());
        }
        if ranges.is_stopped() {
            return ControlFlow::Break(());
        }
        let more = page.next.is_some();
        let Some(range) = own else {
            return ControlFlow::Continue(());
        };
        if ranges.is_whole() {
            return match send_all(flow, range, page.entries, more, sender) {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            };
        }
        let pair = neighbours(&page.entries);
        let (batches, goes_on) = ranges.listed(range, page.entries, more, BATCH);
        if !send(sender, batches) {
            return ControlFlow::Break(());
        }
        if !goes_on {
            own = None;
        }
        count += 1;
        if let Some(pair) = pair
            && goes_on
            && count >= PAGES_BEFORE_CUTS
            && flow.may_cut
            && ranges.holds_cuts()
            && let Err(error) = open_cuts(flow, lane, &pair)
        {
            failed = Some(error);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    });
    match (listed, failed) {
        (Err(TransferError::Stopped(_)), _) | (Ok(()), Some(TransferError::Stopped(_)) | None) => Ok(()),
        (Err(error), _) | (Ok(()), Some(error)) => Err(error),
    }
}

/// Two keys, the second of which is the next one behind the first.
fn neighbours(entries: &[Entry]) -> Option<(String, String)> {
    let text = |entry: &Entry| String::from_utf8(entry.key.clone()).ok();
    entries.windows(2).find_map(|pair| match pair {
        [first, second] => Some((text(first)?, text(second)?)),
        _ => None,
    })
}

/// Lets others take a part, if the store lists from behind a key what it has just listed.
fn open_cuts(flow: &ImportRun<'_>, lane: &Lane, (first, second): &(String, String)) -> Result<(), TransferError> {
    let disorder = match behind(flow, lane, first) {
        Ok(NextKey { key: Some(key), .. }) if key == second.as_bytes() => None,
        Ok(NextKey {
            disorder: Some(disorder),
            ..
        }) => Some(disorder),
        Ok(_) => Some(format!(
            "the listing from behind '{first}' does not begin with '{second}'"
        )),
        Err(error) if is_refusal(&error) => Some(refused(&error)),
        Err(error) => return Err(error),
    };
    match disorder {
        // Nothing is cut yet.
        Some(disorder) => {
            flow.disordered(&disorder);
        }
        None => flow.ranges.allow_cuts(&directories(flow, lane)?),
    }
    Ok(())
}

fn behind(flow: &ImportRun<'_>, lane: &Lane, key: &str) -> Result<NextKey, TransferError> {
    let from = ListFrom::After(key.to_owned());
    let query = Query {
        limit: 1,
        ..Query::below(&flow.shared.prefix, &from)
    };
    let mut found = NextKey {
        key: None,
        disorder: None,
    };
    // Some stores give empty pages before the end.
    flow.shared
        .transfer(lane)
        .pages(flow.shared.archive_id, query, |page| {
            found.disorder = page.disorder;
            found.key = page.entries.into_iter().next().map(|entry| entry.key);
            match found.key {
                Some(_) => ControlFlow::Break(()),
                None => ControlFlow::Continue(()),
            }
        })?;
    Ok(found)
}

/// Looks where a range can be cut, and cuts it.
pub(super) fn probe(flow: &ImportRun<'_>, lane: &Lane, range: u64, middle: &str) -> Result<(), TransferError> {
    match behind(flow, lane, middle) {
        Ok(NextKey {
            disorder: Some(disorder),
            ..
        }) => {
            flow.disordered(&disorder);
        }
        Ok(NextKey { key, .. }) => {
            let found = key.as_deref().map(String::from_utf8_lossy);
            flow.ranges.cut(range, middle, found.as_deref());
        }
        Err(TransferError::Stopped(_)) => {}
        Err(error) if is_refusal(&error) => {
            flow.disordered(&refused(&error));
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

/// A store that can't do that, and no trouble with the bucket.
const fn is_refusal(error: &TransferError) -> bool {
    matches!(
        error,
        TransferError::Store(StoreError::Refused { .. } | StoreError::Unsupported { .. })
    )
}

fn refused(error: &TransferError) -> String {
    format!("the store lists nothing from behind a key: {error}")
}

/// `false`: nobody takes them any more.
fn send(sender: &SyncSender<Batch>, batches: Vec<Batch>) -> bool {
    batches.into_iter().all(|batch| sender.send(batch).is_ok())
}

/// Entries in any order.
fn send_all(flow: &ImportRun<'_>, range: u64, mut entries: Vec<Entry>, more: bool, sender: &SyncSender<Batch>) -> bool {
    while !entries.is_empty() {
        let rest = entries.split_off(BATCH.min(entries.len()));
        let batch = flow.ranges.rows(range, entries, String::new(), true);
        if batch.is_some_and(|batch| sender.send(batch).is_err()) {
            return false;
        }
        entries = rest;
    }
    if !more {
        // The end, which has no batch.
        let end = flow.ranges.rows(range, Vec::new(), String::new(), false);
        debug_assert!(end.is_none());
    }
    true
}
