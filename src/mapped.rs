//! Which object is a file's copy, as far as the file tells: its record says so, or the key that its FID gives.
//!
//! A record is an extended attribute, and writing one changes the file's ctime for good: Lustre lets nobody put a ctime
//! back. So a file gets none where its object tells all that a record would say: it lies at the key of the file's FID
//! (`layout = "fid"`), in a bucket without versions, and its metadata names the file, its file system and that key. Such a
//! file has a copy while HSM's state says so, of the file as it is or as it was, and what is at the key is that copy. What
//! can't be told counts as "it has one": nothing of it is deleted then. Nor is it while an archive of the file is under way.

use crate::action::{FileSystem, HsmError};
use crate::mislaid;
use crate::store::{KeyAt, Location, ObjectInfo, ObjectKey, Owner};
use crate::transfer::{Transfer, TransferError};
use crate::types::{ArchiveId, Fid};

/// What a look at the key of a file's FID has found.
#[derive(Debug)]
pub struct ByKey {
    /// The key.
    pub key: ObjectKey,
    /// What is there.
    pub found: Option<ObjectInfo>,
    /// As a record would say it; `None`: what is there is not the file's, or nothing is.
    pub location: Option<Location>,
}

/// Looks at the key of a file's FID.
///
/// # Errors
/// The store's refusal.
pub fn by_key(transfer: Transfer<'_>, archive_id: ArchiveId, file: &Owner) -> Result<ByKey, TransferError> {
    let key = ObjectKey::from_fid(&transfer.store(archive_id)?.target().prefix, file.fid)?;
    let found = transfer.find(key.at(archive_id))?;
    let location = found
        .as_ref()
        .and_then(|found| Location::told_by(found, key.at(archive_id), file));
    Ok(ByKey { key, found, location })
}

/// Whether a file without a record may have its copy at a key, or is about to have it there: of an archive that is under
/// way nothing else tells, and its object may be another attempt's with the same bytes by now.
#[must_use]
pub fn may_be_told(fs: &dyn FileSystem, fid: Fid, at: KeyAt<'_>) -> bool {
    let or_unknown = |told: Result<bool, HsmError>| told.unwrap_or_else(|error| !error.is_not_found());
    let has_copy = || or_unknown(fs.copy_state(fid).map(|state| state.may_be_in(at.archive_id)));
    // The state once more: an archive that is over by now may have ended behind the first look.
    at.key.may_be_from(fid) && (has_copy() || or_unknown(fs.has_archive(fid)) || has_copy())
}

/// Whether a file that has no record, as it is now, may have its copy at a key.
///
/// # Errors
/// What tells neither. A file that is gone has none.
pub fn is_told(fs: &dyn FileSystem, fid: Fid, at: KeyAt<'_>) -> Result<bool, HsmError> {
    if !at.key.may_be_from(fid) {
        return Ok(false);
    }
    match fs.map(fid) {
        Ok(record) => Ok(record.is_none() && may_be_told(fs, fid, at)),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether a file, as it is now, may mean what was found at a key: by its record, or without one, or because it is the copy that
/// was archived though the record says otherwise ([`mislaid`]). A record that can't be read may mean anything.
#[must_use]
pub fn may_mean(fs: &dyn FileSystem, fid: Fid, at: KeyAt<'_>, found: &ObjectInfo) -> bool {
    match fs.map(fid) {
        Ok(None) => may_be_told(fs, fid, at) || mislaid::may_be_copy(fs, fid, None, at, found),
        Ok(Some(record)) => Location::from_bytes(&record).map_or(true, |location| {
            location.means(at, found) || mislaid::may_be_copy(fs, fid, Some(&location), at, found)
        }),
        Err(error) => !error.is_not_found(),
    }
}
