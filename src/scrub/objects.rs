//! One object: is it some file's copy?

use std::ops::ControlFlow;
use std::path::Path;

use super::{Feed, Scrub, ScrubError, What};
use crate::action::{ActionKey, FileSystem as _};
use crate::namespace::location_at;
use crate::store::{COOKIE, Entry, ListFrom, Location, ObjectInfo, ObjectKey, Owner, Query, StoreError};
use crate::transfer::{
    Lane, TransferError, delete, find, list as list_page, pages, sweep_uploads, uploads as list_uploads,
};
use crate::types::{ArchiveId, Cookie, Extent, Timestamp};

pub(super) fn list(
    scrub: &Scrub<'_>,
    lanes: &[Lane],
    archive_id: ArchiveId,
    prefix: &str,
    feed: &Feed<'_, Entry>,
) -> Result<(), ScrubError> {
    let Some(lane) = lanes
        .first()
        .map(Lane::another)
        .transpose()
        .map_err(|source| ScrubError::Walk {
            path: Path::new("(runtime)").to_owned(),
            source,
        })?
    else {
        return Ok(());
    };
    // From its beginning, whatever a former run has done: only in a listing that is in the order of its keys does the
    // last one that is done say that those before it are, and not every store's is.
    let all = Query::below(prefix, &ListFrom::Start);
    let after = feed.after.as_deref();
    let is_done = |entry: &Entry| after.is_some_and(|after| entry.key.as_slice() <= after.as_bytes());
    let (mut disorder, mut passed_over, mut goes_on) = (None, false, true);
    let listed = pages(&lane, &scrub.control, archive_id, all, |page| {
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
    let listed = pages(&lane, &scrub.control, archive_id, all, |page| {
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

impl Feed<'_, Entry> {
    /// `in_order`: all keys before it have been pushed. `false`: nobody takes them any more.
    fn push_listed(&self, entry: Entry, in_order: bool) -> bool {
        // A key that is no text is no place to go on from.
        let place = std::str::from_utf8(&entry.key).ok().filter(|_| in_order);
        let place = place.unwrap_or_default().to_owned();
        self.push(entry, place)
    }
}

/// Whether the bucket can be listed; an empty one can.
pub(super) fn exists(scrub: &Scrub<'_>, lane: &Lane, archive_id: ArchiveId, prefix: &str) -> Result<(), ScrubError> {
    let query = Query {
        limit: 1,
        ..Query::below(prefix, &ListFrom::Start)
    };
    match list_page(lane, &scrub.control, archive_id, query) {
        Err(TransferError::Stopped(_)) => Ok(()),
        listed => Ok(listed.map(drop)?),
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
    let Some(found) = find(lane, &scrub.control, archive_id, &key)? else {
        // Gone meanwhile.
        return Ok(());
    };
    let Some(owner) = Owner::of(&found.metadata).filter(|owner| owner.fs == scrub.mount.name()) else {
        scrub.count(|counts| counts.foreign += 1);
        return Ok(());
    };
    let Some(_) = why_orphan(scrub, archive_id, &key, &owner) else {
        return Ok(());
    };
    let grace = i64::try_from(scrub.options.grace.as_secs()).unwrap_or(i64::MAX);
    let modified = found.modified.or(entry.modified).unwrap_or(0);
    if modified > Timestamp::now().seconds.saturating_sub(grace) && grace > 0 {
        scrub.count(|counts| counts.young += 1);
        return Ok(());
    }
    // A multipart upload's object is as old as the beginning of the upload. While its action runs, its file's record
    // may be about to be written; when the coordinator no longer knows the action, the record says all.
    if may_be_running(scrub, &found, &owner) {
        scrub.count(|counts| counts.young += 1);
        return Ok(());
    }
    let Some(why) = why_orphan(scrub, archive_id, &key, &owner) else {
        return Ok(());
    };
    // Below a mount point that is gone no file is to be found.
    if !scrub.mount.is_there() {
        return Err(ScrubError::Gone(scrub.mount.path().to_owned()));
    }
    if scrub.options.delete_orphans {
        scrub.suspect(Suspect {
            archive_id,
            key,
            found,
            owner,
        });
    } else {
        scrub.find(What::Orphan, key.to_string(), why, false);
    }
    Ok(())
}

/// An object that is to be deleted once every record was read again: a file may have been renamed while the tree was
/// walked, or imported since.
#[derive(Debug)]
pub(super) struct Suspect {
    archive_id: ArchiveId,
    key: ObjectKey,
    found: ObjectInfo,
    owner: Owner,
}

pub(super) fn condemn(scrub: &Scrub<'_>, lane: &Lane, suspect: &Suspect) -> Result<(), ScrubError> {
    let Suspect {
        archive_id,
        key,
        found,
        owner,
    } = suspect;
    let Some(why) = why_orphan(scrub, *archive_id, key, owner) else {
        return Ok(());
    };
    if !scrub.mount.is_there() {
        return Err(ScrubError::Gone(scrub.mount.path().to_owned()));
    }
    let mended = remove(scrub, lane, *archive_id, key, found, owner)?;
    scrub.find(What::Orphan, key.to_string(), why, mended);
    Ok(())
}

/// Why an object of this file system is no file's copy; `None`: it is one, or that can't be told.
fn why_orphan(scrub: &Scrub<'_>, archive_id: ArchiveId, key: &ObjectKey, owner: &Owner) -> Option<String> {
    // Another file's: after an import elsewhere, by another archive id, or of a file system made anew.
    if scrub.known.may_have(key) {
        return None;
    }
    match scrub.mount.map(owner.fid) {
        Ok(Some(record)) => match Location::from_bytes(&record) {
            Ok(location)
                if location.archive_id == archive_id
                    && (location.key == *key || location.sidecar.as_ref() == Some(key)) =>
            {
                None
            }
            Ok(location) => Some(format!("the copy of its file {} is '{}'", owner.fid, location.key)),
            // It may mean any object.
            Err(_) => None,
        },
        Ok(None) => Some(format!("its file {} has no record of a copy", owner.fid)),
        Err(error) if error.is_not_found() => Some(format!("its file {} is gone", owner.fid)),
        Err(error) => {
            scrub.find(What::Unknown, key.to_string(), error.to_string(), false);
            None
        }
    }
}

/// Whether the action that wrote an object may still be under way.
fn may_be_running(scrub: &Scrub<'_>, found: &ObjectInfo, owner: &Owner) -> bool {
    let cookie = found.metadata.get(COOKIE).and_then(|text| text.strip_prefix("0x"));
    let Some(cookie) = cookie.and_then(|digits| u64::from_str_radix(digits, 16).ok()) else {
        return false;
    };
    let key = ActionKey {
        cookie: Cookie(cookie),
        fid: owner.fid,
    };
    !matches!(scrub.mount.progress(key, Extent::EMPTY), Err(error) if error.is_not_found())
}

fn is_copy_of(path: &Path, archive_id: ArchiveId, key: &ObjectKey) -> bool {
    location_at(path).is_some_and(|location| location.archive_id == archive_id && location.key == *key)
}

/// Just the one that was looked at.
fn remove(
    scrub: &Scrub<'_>,
    lane: &Lane,
    archive_id: ArchiveId,
    key: &ObjectKey,
    found: &ObjectInfo,
    owner: &Owner,
) -> Result<bool, ScrubError> {
    let location = found.at(archive_id, key);
    let result = delete(lane, &scrub.control, &location, |info| {
        Owner::of(&info.metadata).as_ref() == Some(owner)
    });
    match result {
        Ok(()) => Ok(true),
        Err(TransferError::Store(StoreError::Precondition { .. })) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Uploads that are old, which a daemon that runs would have finished.
pub(super) fn uploads(scrub: &Scrub<'_>, lane: &Lane, archive_id: ArchiveId) -> Result<(), ScrubError> {
    let age = scrub.options.upload_age;
    let old = match list_uploads(lane, &scrub.control, archive_id, age) {
        Ok(old) => old,
        Err(TransferError::Store(StoreError::Unsupported { .. } | StoreError::Denied { .. })) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let mended = scrub.options.delete_orphans && !old.is_empty();
    if mended {
        sweep_uploads(lane, &scrub.control, archive_id, age, &std::collections::HashSet::new())?;
    }
    for upload in old {
        let detail = format!("upload {} of long ago", upload.id.as_str());
        scrub.find(What::Upload, upload.key.to_string(), detail, mended);
    }
    Ok(())
}
