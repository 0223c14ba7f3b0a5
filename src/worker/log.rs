//! An archive's place in the journal: what a successor needs to go on with it or to clean up after it.

use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};

use super::Site;
use super::place::may_be_shared;
use crate::action::{ActionKey, Item};
use crate::journal::{Journal, UploadRecord};
use crate::store::{COOKIE, Location, ObjectInfo, ObjectKey, Owner, SentPart, StoreError, UploadId};
use crate::transfer::{Lane, TransferError, Unfinished, Upload, UploadLog, abort_upload, sweep_key};
use crate::types::ArchiveId;

#[derive(Debug)]
pub(super) struct Log {
    journal: Arc<Journal>,
    key: ActionKey,
    data_version: Option<u64>,
    unfinished: Mutex<Option<Unfinished>>,
}

impl Log {
    pub(super) fn new(site: &Site, lane: &Lane, item: &Item, file: &File, size: u64) -> Self {
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
                    same_data: data_version.is_some() && record.data_version == data_version,
                    parts,
                })
            });
        Self {
            journal: Arc::clone(&site.journal),
            key: item.key(),
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
        self.journal
            .uploading(self.key, &UploadRecord::single(to.archive_id, &to.key));
    }

    fn begun(&self, to: &Upload, upload: &UploadId, size: u64, part_size: u64) {
        let record = UploadRecord::multipart(to.archive_id, &to.key, upload, size, part_size, self.data_version);
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
    let mapped = match site.fs.map(fid) {
        Ok(None) => None,
        Ok(Some(bytes)) => match Location::from_bytes(&bytes) {
            Ok(location) => Some(location),
            // It may mean any object: all stay.
            Err(_) => return true,
        },
        Err(error) if error.is_not_found() => None,
        // Whether it is the file's copy can't be told: it stays.
        Err(_) => return false,
    };
    let is_own = |found: &ObjectInfo| {
        Owner::of(&found.metadata).is_some_and(|owner| owner.fs == site.fs.name() && owner.fid == fid)
    };
    let is_mapped = |key: &ObjectKey| mapped.as_ref().is_some_and(|mapped| mapped.key == *key);
    let cookie = action.cookie.to_string();
    let written = |found: &ObjectInfo| is_own(found) && found.metadata.get(COOKIE) == Some(&cookie);
    let mut done = is_mapped(&key) || swept(lane, archive_id, &key, written);
    if let Some((archive_id, key, etag)) = record.previous().filter(|(_, key, _)| !is_mapped(key)) {
        done &= swept(lane, archive_id, &key, |found| {
            is_own(found) && found.etag == etag && !may_be_shared(site, found)
        });
    }
    done
}

fn swept(lane: &Lane, archive_id: ArchiveId, key: &ObjectKey, is_garbage: impl Fn(&ObjectInfo) -> bool) -> bool {
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
