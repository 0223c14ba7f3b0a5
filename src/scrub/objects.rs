//! One object: is it some file's copy?

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::path::Path;

use super::orphan::{Judgment, OrphanCandidate};
use super::{BatchFeed, FindingKind, Scrub, ScrubError};
use crate::import::location_at;
use crate::store::{Entry, ListFrom, ListedUpload, ObjectInfo, ObjectKey, Query, StoreError};
use crate::transfer::{Lane, TransferError};
use crate::types::{ArchiveId, Timestamp};

/// Uploads that the ledger is asked about in one question.
const UPLOADS_AT_ONCE: usize = 1000;

pub(super) fn list(
    scrub: &Scrub<'_>,
    lanes: &[Lane],
    archive_id: ArchiveId,
    prefix: &str,
    feed: &BatchFeed<'_, Entry>,
) -> Result<(), ScrubError> {
    let Some(lane) = lanes.first().map(Lane::another).transpose().map_err(ScrubError::Lane)? else {
        return Ok(());
    };
    // From its beginning, whatever a former run has done: only in a listing that is in the order of its keys does the
    // last one that is done say that those before it are, and not every store's is.
    let all = Query::below(prefix, &ListFrom::Start);
    let after = feed.after.as_deref();
    let is_done = |entry: &Entry| after.is_some_and(|after| entry.key.as_slice() <= after.as_bytes());
    let (mut disorder, mut passed_over, mut goes_on) = (None, false, true);
    let listed = scrub.transfer(&lane).pages(archive_id, all, |page| {
        disorder = page.disorder;
        for entry in page.entries {
            if disorder.is_none() && is_done(&entry) {
                passed_over = true;
                continue;
            }
            goes_on = goes_on && feed.push_listed(entry, disorder.is_none());
        }
        if goes_on {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    });
    match listed {
        Err(TransferError::Stopped(_)) => return Ok(()),
        listed => listed?,
    }
    let Some(disorder) = disorder else {
        return Ok(());
    };
    tracing::warn!(
        %disorder,
        "the bucket is looked through in its store's own order: a scrub that is killed begins it again"
    );
    if !passed_over || !goes_on {
        return Ok(());
    }
    // What was passed over was perhaps not done.
    let listed = scrub.transfer(&lane).pages(archive_id, all, |page| {
        let rest = page.entries.into_iter().filter(&is_done);
        for entry in rest {
            if !feed.push_listed(entry, false) {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    });
    match listed {
        Err(TransferError::Stopped(_)) => Ok(()),
        listed => Ok(listed?),
    }
}

impl BatchFeed<'_, Entry> {
    /// `in_order`: all keys before it have been pushed. `false`: nobody takes them any more.
    fn push_listed(&self, entry: Entry, in_order: bool) -> bool {
        // A key that is no text is no place to go on from.
        let place = std::str::from_utf8(&entry.key).ok().filter(|_| in_order);
        let place = place.unwrap_or_default().to_owned();
        self.push(entry, place)
    }
}

/// Whether the bucket can be listed; an empty one can.
pub(super) fn exists(scrub: &Scrub<'_>, lane: &Lane, archive_id: ArchiveId, prefix: &str) -> Result<(), TransferError> {
    let query = Query {
        limit: 1,
        ..Query::below(prefix, &ListFrom::Start)
    };
    match scrub.transfer(lane).list(archive_id, query) {
        Err(TransferError::Stopped(_)) => Ok(()),
        listed => listed.map(drop),
    }
}

pub(super) fn check(
    scrub: &Scrub<'_>,
    lane: &Lane,
    archive_id: ArchiveId,
    prefix: &str,
    entry: &Entry,
) -> Result<(), ScrubError> {
    scrub.count(|counts| counts.objects += 1);
    let Some(key) = std::str::from_utf8(&entry.key)
        .ok()
        .and_then(|key| ObjectKey::new(key).ok())
    else {
        scrub.count(|counts| counts.foreign += 1);
        return Ok(());
    };
    // The file that its key names, which is nearly always the one.
    let target = lane.store(archive_id)?.target().prefix.clone();
    let below = key
        .as_str()
        .strip_prefix(&target)
        .unwrap_or_else(|| key.as_str().strip_prefix(prefix).unwrap_or(""));
    if !below.is_empty() && is_copy_of(&scrub.mount.path().join(below), archive_id, &key) {
        return Ok(());
    }
    let found = match scrub.transfer(lane).find(key.at(archive_id)) {
        Ok(Some(found)) => found,
        // Gone meanwhile.
        Ok(None) => return Ok(()),
        Err(error) => {
            let why = scrub.of_one(lane, archive_id, error)?;
            let detail = format!("the object can't be looked at: {why}");
            scrub.find(FindingKind::Unknown, key.to_string(), detail, false);
            return Ok(());
        }
    };
    let grace = i64::try_from(scrub.options.grace.as_secs()).unwrap_or(i64::MAX);
    let is_old = |found: &ObjectInfo| {
        let modified = found.modified.or(entry.modified).unwrap_or(0);
        grace == 0 || modified <= Timestamp::now().seconds.saturating_sub(grace)
    };
    let (suspect, why) = match scrub.grounds().judge(lane, key.at(archive_id), found, is_old) {
        Judgment::Copy => return Ok(()),
        Judgment::Foreign => {
            scrub.count(|counts| counts.foreign += 1);
            return Ok(());
        }
        Judgment::Young => {
            scrub.count(|counts| counts.young += 1);
            return Ok(());
        }
        Judgment::Mislaid(copy) => {
            // Where its file is found under the name that the key is made of it is told with that.
            let mended = scrub.options.repair && scrub.grounds().put_right(lane, &copy);
            let detail = format!(
                "it is the copy of {}, whose record does not name it: a late write of a mover that was cut off",
                copy.fid()
            );
            scrub.find(FindingKind::Mislaid, key.to_string(), detail, mended);
            return Ok(());
        }
        Judgment::Unknown(words) => {
            scrub.find(FindingKind::Unknown, key.to_string(), words, false);
            return Ok(());
        }
        Judgment::Orphan(suspect, why) => (suspect, why),
    };
    // Below a mount point that is gone no file is to be found.
    if !scrub.mount.is_there() {
        return Err(ScrubError::Gone(scrub.mount.path().to_owned()));
    }
    if scrub.options.delete_orphans && why.certain {
        scrub.suspect(*suspect);
    } else {
        scrub.find(FindingKind::Orphan, key.to_string(), why.text, false);
    }
    Ok(())
}

pub(super) fn condemn(scrub: &Scrub<'_>, lane: &Lane, suspect: &OrphanCandidate) -> Result<(), ScrubError> {
    let (grounds, key) = (scrub.grounds(), &suspect.key);
    let Some(why) = grounds.sure(lane, suspect) else {
        return Ok(());
    };
    if !scrub.mount.is_there() {
        return Err(ScrubError::Gone(scrub.mount.path().to_owned()));
    }
    let mended = match grounds.delete(lane, suspect) {
        Ok(deleted) => deleted,
        // Locked, or denied: others may go.
        Err(error) => {
            let reason = scrub.of_one(lane, suspect.archive_id, error)?;
            let why = format!("{}; it can't be deleted: {reason}", why.text);
            scrub.find(FindingKind::Orphan, key.to_string(), why, false);
            return Ok(());
        }
    };
    scrub.find(FindingKind::Orphan, key.to_string(), why.text, mended);
    Ok(())
}

fn is_copy_of(path: &Path, archive_id: ArchiveId, key: &ObjectKey) -> bool {
    location_at(path).is_some_and(|location| location.archive_id == archive_id && location.key == *key)
}

/// Uploads that are old, which a daemon that runs would have finished, unless a mover has them in hand by the ledger.
pub(super) fn uploads(scrub: &Scrub<'_>, lane: &Lane, archive_id: ArchiveId) -> Result<(), ScrubError> {
    let age = scrub.options.upload_age;
    let unknown = |detail| scrub.find(FindingKind::Unknown, "(uploads)".into(), detail, false);
    let old = match scrub.transfer(lane).uploads(archive_id, age) {
        Ok(old) => old,
        Err(TransferError::Store(StoreError::Unsupported { .. } | StoreError::Denied { .. })) => return Ok(()),
        Err(error) => {
            let why = scrub.of_one(lane, archive_id, error)?;
            unknown(format!("the uploads of archive {archive_id} can't be listed: {why}"));
            return Ok(());
        }
    };
    for lot in old.chunks(UPLOADS_AT_ONCE) {
        let ids: Vec<_> = lot.iter().map(|upload| upload.id.as_str()).collect();
        let movers = scrub.options.movers.as_ref();
        let in_hand = movers.map_or_else(|| Ok(HashSet::new()), |movers| movers.in_hand(&ids));
        match in_hand {
            Ok(in_hand) => {
                for upload in lot.iter().filter(|upload| !in_hand.contains(upload.id.as_str())) {
                    old_upload(scrub, lane, archive_id, upload)?;
                }
            }
            Err(error) => unknown(format!(
                "of {} old uploads of archive {archive_id} it can't be told whether a mover has them in hand: {error}",
                lot.len()
            )),
        }
    }
    Ok(())
}

fn old_upload(scrub: &Scrub<'_>, lane: &Lane, archive_id: ArchiveId, upload: &ListedUpload) -> Result<(), ScrubError> {
    if scrub.control.stopped().is_some() {
        return Err(ScrubError::Stopped);
    }
    let mut detail = format!("upload {} of long ago", upload.id.as_str());
    let aborted = scrub
        .options
        .delete_orphans
        .then(|| lane.abort_upload(upload.key.at(archive_id), &upload.id));
    let mended = match aborted {
        None => false,
        Some(Ok(()) | Err(TransferError::Store(StoreError::NotFound { .. }))) => true,
        // One try, and not the last word: the next scrub finds it again.
        Some(Err(error)) => {
            detail.push_str(&format!("; it can't be aborted: {error}"));
            false
        }
    };
    scrub.find(FindingKind::Upload, upload.key.to_string(), detail, mended);
    Ok(())
}
