//! One object: is it some file's copy?

use std::ops::ControlFlow;
use std::path::Path;

use super::{Feed, Scrub, ScrubError, What};
use crate::action::{ActionKey, FileSystem as _};
use crate::import::location_at;
use crate::store::{Entry, Identity, ListFrom, Location, ObjectInfo, ObjectKey, Origin, Query, StoreError};
use crate::transfer::{
    Lane, TransferError, abort_upload, delete, find, list as list_page, pages, uploads as list_uploads,
};
use crate::types::{ArchiveId, Cookie, Extent, Timestamp};

pub(super) fn list(
    scrub: &Scrub<'_>,
    lanes: &[Lane],
    archive_id: ArchiveId,
    prefix: &str,
    feed: &Feed<'_, Entry>,
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
pub(super) fn exists(scrub: &Scrub<'_>, lane: &Lane, archive_id: ArchiveId, prefix: &str) -> Result<(), TransferError> {
    let query = Query {
        limit: 1,
        ..Query::below(prefix, &ListFrom::Start)
    };
    match list_page(lane, &scrub.control, archive_id, query) {
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
    let found = match find(lane, &scrub.control, archive_id, &key) {
        Ok(Some(found)) => found,
        // Gone meanwhile.
        Ok(None) => return Ok(()),
        Err(error) => {
            let why = scrub.of_one(lane, archive_id, error)?;
            let detail = format!("the object can't be looked at: {why}");
            scrub.find(What::Unknown, key.to_string(), detail, false);
            return Ok(());
        }
    };
    // Somebody's copy of an object of ours within the bucket carries our metadata along, and names another key.
    let identity = match Origin::of(&found, &key) {
        Origin::Written(identity) if identity.owner.fs == scrub.mount.name() => identity,
        _ => {
            scrub.count(|counts| counts.foreign += 1);
            return Ok(());
        }
    };
    let Some(_) = why_orphan(scrub, archive_id, &key, &identity) else {
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
    if may_be_running(scrub, &identity) {
        scrub.count(|counts| counts.young += 1);
        return Ok(());
    }
    let Some(why) = why_orphan(scrub, archive_id, &key, &identity) else {
        return Ok(());
    };
    // Below a mount point that is gone no file is to be found.
    if !scrub.mount.is_there() {
        return Err(ScrubError::Gone(scrub.mount.path().to_owned()));
    }
    if scrub.options.delete_orphans && why.certain {
        scrub.suspect(Suspect {
            archive_id,
            key,
            found,
            identity,
        });
    } else {
        scrub.find(What::Orphan, key.to_string(), why.text, false);
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
    identity: Identity,
}

pub(super) fn condemn(scrub: &Scrub<'_>, lane: &Lane, suspect: &Suspect) -> Result<(), ScrubError> {
    let Suspect {
        archive_id,
        key,
        found,
        identity,
    } = suspect;
    let Some(why) = why_orphan(scrub, *archive_id, key, identity).filter(|why| why.certain) else {
        return Ok(());
    };
    if !scrub.mount.is_there() {
        return Err(ScrubError::Gone(scrub.mount.path().to_owned()));
    }
    let mended = match remove(scrub, lane, suspect, &found.at(*archive_id, key)) {
        Ok(removed) => removed,
        // Locked, or denied: others may go.
        Err(error) => {
            let reason = scrub.of_one(lane, *archive_id, error)?;
            let why = format!("{}; it can't be deleted: {reason}", why.text);
            scrub.find(What::Orphan, key.to_string(), why, false);
            return Ok(());
        }
    };
    scrub.find(What::Orphan, key.to_string(), why.text, mended);
    Ok(())
}

/// Why an object is no file's copy.
struct Why {
    text: String,
    /// It is ours to delete.
    certain: bool,
}

/// Why an object of this file system is no file's copy; `None`: it is one, or that can't be told.
fn why_orphan(scrub: &Scrub<'_>, archive_id: ArchiveId, key: &ObjectKey, identity: &Identity) -> Option<Why> {
    let owner = &identity.owner;
    let certain = |text| Some(Why { text, certain: true });
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
            Ok(location) => {
                let text = format!("the copy of its file {} is '{}'", owner.fid, location.key);
                // An older release's does not name its key: a copy that somebody made of it looks just so.
                if identity.names_key || ObjectKey::is_sidecar(key.as_str().as_bytes()) {
                    return certain(text);
                }
                Some(Why {
                    text: format!("{text}, and this may be anybody's copy of it: it is left, delete it by hand"),
                    certain: false,
                })
            }
            // It may mean any object.
            Err(_) => None,
        },
        Ok(None) => certain(format!("its file {} has no record of a copy", owner.fid)),
        Err(error) if error.is_not_found() => certain(format!("its file {} is gone", owner.fid)),
        Err(error) => {
            scrub.find(What::Unknown, key.to_string(), error.to_string(), false);
            None
        }
    }
}

/// Whether the action that wrote an object may still be under way.
fn may_be_running(scrub: &Scrub<'_>, identity: &Identity) -> bool {
    let cookie = identity.cookie.as_ref().and_then(|text| text.strip_prefix("0x"));
    let Some(cookie) = cookie.and_then(|digits| u64::from_str_radix(digits, 16).ok()) else {
        return false;
    };
    let key = ActionKey {
        cookie: Cookie(cookie),
        fid: identity.owner.fid,
    };
    !matches!(scrub.mount.progress(key, Extent::EMPTY), Err(error) if error.is_not_found())
}

fn is_copy_of(path: &Path, archive_id: ArchiveId, key: &ObjectKey) -> bool {
    location_at(path).is_some_and(|location| location.archive_id == archive_id && location.key == *key)
}

/// Just the one that was looked at. Its file's record and whether an action goes on are asked after one more look: it may
/// have been archived again since, with equal bytes.
fn remove(scrub: &Scrub<'_>, lane: &Lane, suspect: &Suspect, location: &Location) -> Result<bool, TransferError> {
    let Suspect {
        archive_id,
        key,
        identity,
        ..
    } = suspect;
    let result = delete(lane, &scrub.control, location, |_, origin| {
        matches!(origin, Origin::Written(now) if now == identity)
            && !may_be_running(scrub, identity)
            && why_orphan(scrub, *archive_id, key, identity).is_some_and(|why| why.certain)
    });
    match result {
        Ok(()) => Ok(true),
        Err(TransferError::Store(StoreError::Precondition { .. })) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Uploads that are old, which a daemon that runs would have finished.
pub(super) fn uploads(scrub: &Scrub<'_>, lane: &Lane, archive_id: ArchiveId) -> Result<(), ScrubError> {
    let age = scrub.options.upload_age;
    let old = match list_uploads(lane, &scrub.control, archive_id, age) {
        Ok(old) => old,
        Err(TransferError::Store(StoreError::Unsupported { .. } | StoreError::Denied { .. })) => return Ok(()),
        Err(error) => {
            let why = scrub.of_one(lane, archive_id, error)?;
            let detail = format!("the uploads of archive {archive_id} can't be listed: {why}");
            scrub.find(What::Unknown, "(uploads)".into(), detail, false);
            return Ok(());
        }
    };
    for upload in old {
        if scrub.control.stopped().is_some() {
            return Err(ScrubError::Stopped);
        }
        let mut detail = format!("upload {} of long ago", upload.id.as_str());
        let aborted = scrub
            .options
            .delete_orphans
            .then(|| abort_upload(lane, archive_id, &upload.key, &upload.id));
        let mended = match aborted {
            None => false,
            Some(Ok(()) | Err(TransferError::Store(StoreError::NotFound { .. }))) => true,
            // One try, and not the last word: the next scrub finds it again.
            Some(Err(error)) => {
                detail.push_str(&format!("; it can't be aborted: {error}"));
                false
            }
        };
        scrub.find(What::Upload, upload.key.to_string(), detail, mended);
    }
    Ok(())
}
