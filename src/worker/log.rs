//! An archive's place in the journal: what a successor needs to go on with it or to clean up after it.

use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};

use super::place::{is_mapped, look_after, may_be_shared, natural_key};
use super::{Context, Ended, JobError};
use crate::action::{ActionKey, Item};
use crate::journal::{Journal, UploadRecord};
use crate::store::{
    Location, ObjectInfo, ObjectKey, Origin, Owner, SentPart, StoreError, UploadId, WriteAttempt, WriterId,
};
use crate::transfer::{Bearer, Lane, TransferError, Unfinished, Upload, UploadLog, abort_upload, sweep_key};
use crate::types::{ArchiveId, Cookie, Extent, Fid};

#[derive(Debug)]
pub(super) struct AttemptLog {
    journal: Arc<Journal>,
    key: ActionKey,
    writer: WriterId,
    data_version: Option<u64>,
    unfinished: Mutex<Option<Unfinished>>,
}

/// Who an archive writes as. A successor goes on as the one that it takes the action over from: what that one's requests
/// still make is its own. What is written already and can't be gone on with goes now: this attempt may have another key,
/// as the file may have another name, and what is known of the former one ends with this one's record.
pub(super) fn author(context: &Context, lane: &Lane, item: &Item) -> WriteAttempt {
    let key = item.key();
    let inherited = context
        .journal
        .may_have_upload(key)
        .then(|| context.journal.upload_of(key));
    let inherited = inherited.flatten().map(|(record, _)| record);
    if let Some(record) = &inherited {
        let goes_on = record.upload().is_some() && may_be_key_of(context, lane, item, record);
        if !goes_on && clean_up(context, lane, key) {
            context.journal.taken(key);
        }
    }
    // A copy that was committed is another attempt's.
    let inherited = inherited.filter(|record| record.previous().is_none());
    WriteAttempt {
        owner: context.owner(item.fid),
        cookie: item.cookie,
        writer: inherited
            .and_then(|record| record.writer())
            .unwrap_or_else(WriterId::random),
    }
}

/// Whether the file is still archived to where an upload of it goes.
fn may_be_key_of(context: &Context, lane: &Lane, item: &Item, record: &UploadRecord) -> bool {
    let Some((archive_id, key)) = record.target() else {
        return false;
    };
    let natural = natural_key(context, lane, item);
    let is_natural = natural.is_ok_and(|(id, natural)| {
        id == archive_id && (natural == key || natural.beside(item.fid).is_ok_and(|beside| beside == key))
    });
    let own = || context.fs.map(item.fid).ok().flatten();
    is_natural || own().is_some_and(|own| Location::from_bytes(&own).is_ok_and(|own| own.key == key))
}

/// Says what an archive is about to write, before its first request that makes something: that may be the sidecar's.
/// What a former daemon began, and this one may go on with, stands. Waits while what is left of the file's former archives
/// is taken away.
pub(super) fn announce(context: &Context, item: &Item, (archive_id, key): (ArchiveId, &ObjectKey), writer: WriterId) {
    let action = item.key();
    context.journal.wait_swept(item.fid);
    if context.journal.may_have_upload(action)
        && let Some((record, _)) = context.journal.upload_of(action)
        && record.writer() == Some(writer)
    {
        return;
    }
    let record = UploadRecord::single(archive_id, key, writer);
    context.journal.uploading(action, &record);
}

/// What an archive may have written, until its end: whatever becomes of it, the journal knows of it for longer than the
/// action lives.
#[derive(Debug)]
pub(super) struct Trail {
    journal: Arc<Journal>,
    action: ActionKey,
    nothing_left: bool,
    /// Whoever goes on with the action finds what is written down of it.
    is_handed_on: bool,
}

impl Trail {
    pub(super) fn new(context: &Context, action: ActionKey) -> Self {
        Self {
            journal: Arc::clone(&context.journal),
            action,
            nothing_left: false,
            is_handed_on: false,
        }
    }

    /// It was answered, and all that follows from that was done.
    pub(super) fn end(mut self, ended: &Ended) {
        self.is_handed_on = ended.is_handed_on();
        self.nothing_left = !ended.left_something && ended.error.as_ref().is_none_or(wrote_nothing);
    }
}

impl Drop for Trail {
    fn drop(&mut self) {
        if !self.is_handed_on {
            self.journal.settled(self.action, self.nothing_left);
        }
    }
}

/// Whether an error says that no request had made an object by then. One whose answer did not come, or was not believed,
/// may have; and what the coordinator did not take was there.
fn wrote_nothing(error: &JobError) -> bool {
    match error {
        JobError::Hsm(_) | JobError::TakenAway(_) | JobError::Panic(_) => false,
        JobError::Transfer(TransferError::Store(error)) => !error.is_transient(),
        JobError::Transfer(
            // An upload in parts may be left.
            TransferError::Read(_)
            | TransferError::Changed
            | TransferError::Announcement(_)
            | TransferError::Stopped(_)
            | TransferError::GaveUp { .. }
            | TransferError::Checksum { .. }
            | TransferError::Panic,
        ) => false,
        JobError::Transfer(_)
        | JobError::Location(_)
        | JobError::Attributes(_)
        | JobError::NotRegular
        | JobError::NoArchiveId
        | JobError::PartialExtent { .. }
        | JobError::UnknownAction(_)
        | JobError::NoCopy { .. }
        | JobError::NoFreeKey(_)
        | JobError::StillOpen
        | JobError::Released => true,
    }
}

impl AttemptLog {
    pub(super) fn new(context: &Context, lane: &Lane, item: &Item, writer: WriterId, file: &File, size: u64) -> Self {
        // Asked for what will be sent in parts; anything else begins anew.
        let large = size > lane.options().plan.threshold;
        let data_version = large.then(|| context.fs.data_version(file)).flatten();
        let unfinished = large
            .then(|| context.journal.upload_of(item.key()))
            .flatten()
            .and_then(|(record, parts)| {
                let (_, key) = record.target()?;
                Some(Unfinished {
                    key,
                    upload: record.upload()?.clone(),
                    size: record.size,
                    part_size: record.part_size,
                    // An object's metadata is fixed when its upload begins: it must name this attempt.
                    same_data: data_version.is_some()
                        && record.data_version == data_version
                        && record.writer() == Some(writer),
                    parts,
                })
            });
        Self {
            journal: Arc::clone(&context.journal),
            key: item.key(),
            writer,
            data_version,
            unfinished: Mutex::new(unfinished),
        }
    }
}

impl UploadLog for AttemptLog {
    fn unfinished(&self) -> Option<Unfinished> {
        let unfinished = self.unfinished.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        self.journal.taken(self.key);
        Some(unfinished)
    }

    fn single(&self, to: &Upload) {
        let record = UploadRecord::single(to.archive_id, &to.key, self.writer);
        self.journal.uploading(self.key, &record);
    }

    fn begun(&self, to: &Upload, upload: &UploadId, size: u64, part_size: u64) {
        let single = UploadRecord::single(to.archive_id, &to.key, self.writer);
        let record = single.multipart(upload, size, part_size, self.data_version);
        self.journal.uploading(self.key, &record);
    }

    fn sent(&self, index: u32, part: &SentPart) {
        self.journal.sent(self.key, index, part);
    }
}

/// What an archive has written that was not brought to its end, by a former daemon mostly: its upload goes, and its
/// object and that one's sidecar, unless they are the file's copy, or may have become another file's. `false`: not now.
pub(super) fn clean_up(context: &Context, lane: &Lane, action: ActionKey) -> bool {
    let Some((record, _)) = context.journal.upload_of(action) else {
        return true;
    };
    let Some((archive_id, key)) = record.target() else {
        return true;
    };
    let fid = action.fid;
    if let Some(upload) = record.upload()
        && let Err(error) = abort_upload(lane, archive_id, &key, upload)
    {
        tracing::warn!(%key, %error, "an upload of a former daemon could not be aborted");
        return false;
    }
    match context.fs.map(fid) {
        // It may mean any object: all stay.
        Ok(Some(bytes)) if Location::from_bytes(&bytes).is_err() => return true,
        // Whether it is the file's copy can't be told: it stays.
        Err(error) if !error.is_not_found() => return false,
        _ => {}
    }
    let author = WriteAttempt {
        owner: context.owner(fid),
        cookie: action.cookie,
        // An older release's objects name none, and are told by their action.
        writer: record.writer().unwrap_or_else(WriterId::random),
    };
    let bearer = Bearer::File(context.fs.as_ref(), fid);
    let mut done = swept(lane, bearer, archive_id, &key, |found, origin| {
        origin.is_by(&author) && !may_be_shared(context, found) && !is_mapped(context, fid, (archive_id, &key), found)
    });
    look_after(context, lane, fid, (archive_id, &key));
    if done
        && record.writer().is_some()
        && let Ok(store) = lane.store(archive_id)
        && let Ok(key) = ObjectKey::sidecar(&store.target().prefix, fid, author.writer)
    {
        // An attempt's own: no other one writes there.
        done &= swept(lane, Bearer::Nobody, archive_id, &key, |found, origin| {
            origin.is_by(&author) && !may_be_shared(context, found) && !has_sidecar(context, fid, &key)
        });
    }
    if let Some((archive_id, key, etag)) = record.previous() {
        done &= swept(lane, bearer, archive_id, &key, |found, origin| {
            origin.is_of(&author.owner)
                && (found.etag == etag || is_over(context, origin))
                && !may_be_shared(context, found)
                && !is_mapped(context, fid, (archive_id, &key), found)
        });
    }
    done
}

/// Whether the attempt that wrote an object can't make it a file's copy any more: the coordinator does not know its action.
pub(super) fn is_over(context: &Context, origin: &Origin) -> bool {
    let Origin::Written(identity) = origin else {
        return false;
    };
    let digits = identity.cookie.as_ref().and_then(|text| text.strip_prefix("0x"));
    let Some(cookie) = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()) else {
        return false;
    };
    let action = ActionKey {
        cookie: Cookie(cookie),
        fid: identity.owner.fid,
    };
    context
        .fs
        .progress(action, Extent::EMPTY)
        .is_err_and(|error| error.is_not_found())
}

/// What lies where a file's copy was, if it is another than that: an attempt of the file's that wrote over it and was
/// killed, the same bytes perhaps. `is_kept` tells, after the look, whether it is the file's copy all the same. To be called
/// when the file's record means something else: whoever cleans up after that attempt leaves what the record means, and
/// forgets it. `false`: not now.
pub(super) fn sweep_overwritten(
    context: &Context,
    lane: &Lane,
    owner: &Owner,
    former: &Location,
    is_kept: impl Fn(&ObjectInfo) -> bool,
) -> bool {
    let bearer = Bearer::File(context.fs.as_ref(), owner.fid);
    swept(lane, bearer, former.archive_id, &former.key, |found, origin| {
        (found.etag != former.etag || !former.is_written_as(found))
            && origin.is_of(owner)
            && !may_be_shared(context, found)
            && is_over(context, origin)
            && !is_kept(found)
    })
}

/// Whether a file's record, as it is now, names that sidecar. What can't be read may name any.
fn has_sidecar(context: &Context, fid: Fid, key: &ObjectKey) -> bool {
    match context.fs.map(fid) {
        Ok(None) => false,
        Ok(Some(record)) => {
            Location::from_bytes(&record).map_or(true, |location| location.sidecar.as_ref() == Some(key))
        }
        Err(error) => !error.is_not_found(),
    }
}

fn swept(
    lane: &Lane,
    bearer: Bearer<'_>,
    archive_id: ArchiveId,
    key: &ObjectKey,
    is_garbage: impl Fn(&ObjectInfo, &Origin) -> bool,
) -> bool {
    match sweep_key(lane, bearer, archive_id, key, None, is_garbage) {
        Ok(()) => true,
        // Without s3:ListBucket a key with no object is "denied".
        Err(TransferError::Store(StoreError::Denied { .. })) => true,
        Err(error) => {
            tracing::warn!(%key, %error, "what a former daemon left could not be looked for");
            false
        }
    }
}
