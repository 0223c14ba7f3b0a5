//! An archive's place in the journal: what a successor needs to go on with it or to clean up after it.

use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};

use super::Site;
use super::place::{is_mapped, may_be_shared};
use crate::action::{ActionKey, Item};
use crate::journal::{Journal, UploadRecord};
use crate::store::{Author, Location, ObjectInfo, ObjectKey, Origin, SentPart, StoreError, UploadId, Writer};
use crate::transfer::{Lane, TransferError, Unfinished, Upload, UploadLog, abort_upload, sweep_key};
use crate::types::ArchiveId;

#[derive(Debug)]
pub(super) struct Log {
    journal: Arc<Journal>,
    key: ActionKey,
    writer: Writer,
    data_version: Option<u64>,
    unfinished: Mutex<Option<Unfinished>>,
}

/// Who an archive writes as. A successor goes on as the one that it takes the action over from: what that one's requests
/// still make is its own.
pub(super) fn author(site: &Site, item: &Item) -> Author {
    let key = item.key();
    let inherited = site.journal.may_have_upload(key).then(|| site.journal.upload_of(key));
    let inherited = inherited.flatten().map(|(record, _)| record);
    // A copy that was committed is another attempt's.
    let inherited = inherited.filter(|record| record.previous().is_none());
    Author {
        owner: site.owner(item.fid),
        cookie: item.cookie,
        writer: inherited
            .and_then(|record| record.writer())
            .unwrap_or_else(Writer::random),
    }
}

impl Log {
    pub(super) fn new(site: &Site, lane: &Lane, item: &Item, writer: Writer, file: &File, size: u64) -> Self {
        // Asked for what will be sent in parts; anything else begins anew.
        let large = size > lane.options().plan.threshold;
        let data_version = large.then(|| site.fs.data_version(file)).flatten();
        let unfinished = large
            .then(|| site.journal.upload_of(item.key()))
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
            journal: Arc::clone(&site.journal),
            key: item.key(),
            writer,
            data_version,
            unfinished: Mutex::new(unfinished),
        }
    }
}

impl UploadLog for Log {
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

/// An archive that a former daemon began and that can't be begun any more: its upload goes, and its object, unless
/// it is the file's copy. `false`: not now.
pub(super) fn clean_up(site: &Site, lane: &Lane, action: ActionKey) -> bool {
    let Some((record, _)) = site.journal.upload_of(action) else {
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
    match site.fs.map(fid) {
        // It may mean any object: all stay.
        Ok(Some(bytes)) if Location::from_bytes(&bytes).is_err() => return true,
        // Whether it is the file's copy can't be told: it stays.
        Err(error) if !error.is_not_found() => return false,
        _ => {}
    }
    let author = Author {
        owner: site.owner(fid),
        cookie: action.cookie,
        // An older release's objects name none, and are told by their action.
        writer: record.writer().unwrap_or_else(Writer::random),
    };
    let mut done = swept(lane, archive_id, &key, |found, origin| {
        origin.is_by(&author) && !is_mapped(site, fid, (archive_id, &key), found)
    });
    if let Some((archive_id, key, etag)) = record.previous() {
        done &= swept(lane, archive_id, &key, |found, origin| {
            origin.is_of(&author.owner)
                && found.etag == etag
                && !may_be_shared(site, found)
                && !is_mapped(site, fid, (archive_id, &key), found)
        });
    }
    done
}

fn swept(
    lane: &Lane,
    archive_id: ArchiveId,
    key: &ObjectKey,
    is_garbage: impl Fn(&ObjectInfo, &Origin) -> bool,
) -> bool {
    match sweep_key(lane, archive_id, key, None, is_garbage) {
        Ok(()) => true,
        // Without s3:ListBucket a key with no object is "denied".
        Err(TransferError::Store(StoreError::Denied { .. })) => true,
        Err(error) => {
            tracing::warn!(%key, %error, "what a former daemon left could not be looked for");
            false
        }
    }
}
