//! Is an object some file's copy? The file system is asked as it is now, each time anew: what was true when the object
//! was listed says nothing of the moment in which it is deleted.

use std::sync::Arc;

use super::key_filter::KeyFilter;
use crate::action::{ActionKey, FileSystem};
use crate::mapped::{self, ByKey};
use crate::mislaid::{self, ArchivedData, Likeness, PutRight, SaidCopy, Seen};
use crate::store::{Identity, KeyAt, Location, ObjectInfo, ObjectKey, Origin, Owner, StoreError};
use crate::transfer::{Bearer, Control, Lane, Transfer, TransferError};
use crate::types::{ArchiveId, Cookie, Extent, Fid};

/// What an object is judged by.
pub(crate) struct Grounds<'a> {
    /// Files' records and actions, now.
    pub(crate) fs: &'a dyn FileSystem,
    /// What some file's record points at.
    pub(crate) known: &'a KeyFilter,
    /// Stops requests.
    pub(crate) control: &'a Arc<Control>,
}

/// What an object is.
pub(crate) enum Judgment {
    /// Others put it there.
    Foreign,
    /// Some file's copy, or that can't be told.
    Copy,
    /// It may be on its way to be one.
    Young,
    /// A file's copy, and the file's record names something else, or is not there.
    Mislaid(Box<OrphanCandidate>),
    /// It could not be told, in words.
    Unknown(String),
    /// No file's copy.
    Orphan(Box<OrphanCandidate>, OrphanReason),
}

/// An object that is to be deleted once every record was read again: a file may have been renamed while the tree was
/// walked, or imported since.
#[derive(Debug)]
pub(crate) struct OrphanCandidate {
    pub(super) archive_id: ArchiveId,
    pub(super) key: ObjectKey,
    found: ObjectInfo,
    identity: Identity,
}

impl OrphanCandidate {
    /// The file that it says that it is the copy of.
    pub(super) const fn fid(&self) -> Fid {
        self.identity.owner.fid
    }
}

/// Why an object is no file's copy.
pub(crate) struct OrphanReason {
    pub(crate) text: String,
    /// It is ours to delete.
    pub(crate) certain: bool,
}

/// Whether the record of a file could be put right.
pub(super) fn is_put_right(
    transfer: Transfer<'_>,
    fs: &dyn FileSystem,
    fid: Fid,
    seen: Option<&[u8]>,
    copy: &Location,
) -> bool {
    let key = &copy.key;
    match mislaid::put_right(transfer, fs, fid, seen, copy) {
        Ok(PutRight::Done) => true,
        Ok(PutRight::Changed) => {
            tracing::warn!(%fid, %key, "another one wrote the file's record while its copy was looked for; it stays");
            false
        }
        Ok(PutRight::Doomed) => {
            tracing::warn!(%fid, %key, "somebody is deleting the object, or has, that may be the file's copy; its record stays");
            false
        }
        Err(error) => {
            tracing::warn!(%fid, %key, %error, "the file's record can't be put right");
            false
        }
    }
}

impl Grounds<'_> {
    /// `is_old`: it has been there for long enough, as is asked only of what seems to be nobody's.
    pub(crate) fn judge(
        &self,
        lane: &Lane,
        at: KeyAt<'_>,
        found: ObjectInfo,
        is_old: impl FnOnce(&ObjectInfo) -> bool,
    ) -> Judgment {
        let KeyAt { archive_id, key } = at;
        // Somebody's copy of an object of ours within the bucket carries our metadata along, and names another key.
        let identity = match Origin::of(&found, key) {
            Origin::Written(identity) if identity.owner.fs == self.fs.name() => identity,
            _ => return Judgment::Foreign,
        };
        match self.why(archive_id, key, &identity) {
            Ok(Some(_)) => {}
            Ok(None) => return Judgment::Copy,
            Err(words) => return Judgment::Unknown(words),
        }
        // A multipart upload's object is as old as the beginning of the upload. While its action runs, its file's record
        // may be about to be written; when the coordinator no longer knows the action, the record says all.
        if !is_old(&found) || self.may_be_running(&identity) {
            return Judgment::Young;
        }
        match self.why(archive_id, key, &identity) {
            Ok(None) => Judgment::Copy,
            Err(words) => Judgment::Unknown(words),
            Ok(Some(_)) if self.may_be_beside_copy(lane, at, &identity.owner) => Judgment::Copy,
            Ok(Some(why)) => {
                let mut is_mislaid = self.is_mislaid(lane, at, &identity.owner, &found);
                let mut found = found;
                if !is_mislaid {
                    match self.covered(lane, at, &identity.owner, &found) {
                        Ok(None) => {}
                        Ok(Some(copy)) => (found, is_mislaid) = (copy, true),
                        Err(error) => return Judgment::Unknown(error.to_string()),
                    }
                }
                let key = key.clone();
                let suspect = Box::new(OrphanCandidate {
                    archive_id,
                    key,
                    found,
                    identity,
                });
                match is_mislaid {
                    true => Judgment::Mislaid(suspect),
                    false => Judgment::Orphan(suspect, why),
                }
            }
        }
    }

    /// Why a suspect is no file's copy now, if that is sure.
    pub(crate) fn sure(&self, lane: &Lane, suspect: &OrphanCandidate) -> Option<OrphanReason> {
        let at = suspect.key.at(suspect.archive_id);
        let why = self.surely(suspect)?;
        let (owner, found) = (&suspect.identity.owner, &suspect.found);
        let may_be_copy = self.may_be_beside_copy(lane, at, owner)
            || self.is_mislaid(lane, at, owner, found)
            || !matches!(self.covered(lane, at, owner, found), Ok(None));
        (!may_be_copy).then_some(why)
    }

    /// The same by what files say, without a look at objects.
    fn surely(&self, suspect: &OrphanCandidate) -> Option<OrphanReason> {
        let why = self.why(suspect.archive_id, &suspect.key, &suspect.identity);
        why.ok().flatten().filter(|why| why.certain)
    }

    /// Whether an object is its file's copy though the file's record says otherwise: it has the bytes that were archived, and
    /// what the file says of its copy is not there, or has others. What can't be told counts as that.
    fn is_mislaid(&self, lane: &Lane, at: KeyAt<'_>, owner: &Owner, found: &ObjectInfo) -> bool {
        if !mislaid::has_its_bytes(self.fs, owner.fid, at, found) {
            return false;
        }
        let transfer = Transfer::new(lane, self.control);
        let (Ok(archived), Ok(record)) = (ArchivedData::of(self.fs, owner.fid), self.fs.map(owner.fid)) else {
            return true;
        };
        let said = match record.as_deref().map(Location::from_bytes) {
            Some(Ok(location)) => location,
            // It may mean any object.
            Some(Err(_)) => return true,
            None => match mapped::by_key(transfer, at.archive_id, owner) {
                Ok(ByKey {
                    location: Some(location),
                    ..
                }) if location.size == archived.size => location,
                Ok(_) | Err(_) => return true,
            },
        };
        let Ok(there) = transfer.head(said.at(), said.version.as_deref()) else {
            return true;
        };
        let is_there = said.is_written_as(&there) && (there.etag == said.etag || said.has_bytes_of(&there));
        let is_same = there.size == found.size && there.checksum.is_some() && there.checksum == found.checksum;
        let has_bytes = is_same
            || !said.is_in_doubt(archived.version)
            || archived
                .likeness(said.at(), &there)
                // Weaker proof is none against a stronger one.
                .is_some_and(|of_said| of_said >= Likeness::Time && Some(of_said) >= archived.likeness(at, found));
        !(is_there && has_bytes)
    }

    /// The version below an object that is its file's copy, though the file's record does not name it: what was found covers it.
    fn covered(
        &self,
        lane: &Lane,
        at: KeyAt<'_>,
        owner: &Owner,
        found: &ObjectInfo,
    ) -> Result<Option<ObjectInfo>, TransferError> {
        if found.version.is_none() || !self.fs.is_archived(owner.fid).unwrap_or(true) {
            return Ok(None);
        }
        // A file that is gone has no copy.
        let Ok(archived) = ArchivedData::of(self.fs, owner.fid) else {
            return Ok(None);
        };
        let record = self.fs.map(owner.fid).ok().flatten();
        let names_it =
            |record: &[u8]| Location::from_bytes(record).is_ok_and(|named| !named.is_in_doubt(archived.version));
        if record.as_deref().is_some_and(names_it) {
            return Ok(None);
        }
        mislaid::covered(Transfer::new(lane, self.control), &archived, at)
    }

    /// Whether a sidecar may be that of its file's copy, though the file's record does not name it: where the record does not name
    /// the copy it names another one's sidecar, or none. What can't be told counts as that.
    fn may_be_beside_copy(&self, lane: &Lane, at: KeyAt<'_>, owner: &Owner) -> bool {
        let fid = owner.fid;
        if !ObjectKey::is_sidecar(at.key.as_str().as_bytes())
            || !self.fs.is_archived(fid).unwrap_or_else(|error| !error.is_not_found())
        {
            return false;
        }
        let transfer = Transfer::new(lane, self.control);
        let (Ok(archived), Ok(record), Ok(store)) = (
            ArchivedData::of(self.fs, fid),
            self.fs.map(fid),
            lane.store(at.archive_id),
        ) else {
            return true;
        };
        let said = match record.as_deref().map(Location::from_bytes) {
            Some(Ok(location)) => Some(location),
            Some(Err(_)) => return true,
            None => match mapped::by_key(transfer, at.archive_id, owner) {
                Ok(told) => told.location,
                Err(_) => return true,
            },
        };
        let there = match &said {
            None => None,
            Some(said) => match transfer.head(said.at(), said.version.as_deref()) {
                Ok(there) => Some(there),
                Err(TransferError::Store(StoreError::NotFound { .. })) => None,
                Err(_) => return true,
            },
        };
        let there = there.as_ref().filter(|there| {
            let said = said.as_ref();
            said.is_some_and(|said| said.is_written_as(there) && (there.etag == said.etag || said.has_bytes_of(there)))
        });
        let before = said.as_ref().map(|location| SaidCopy {
            location,
            seen: there.map_or(Seen::Gone, Seen::There),
        });
        let natural = mislaid::natural(store.target(), fid, || self.fs.path_of(fid).ok());
        match mislaid::find(transfer, &archived, before, natural, Likeness::Time) {
            Ok(Some(copy)) => copy.location.sidecar.as_ref() == Some(at.key),
            // Is it what is said?
            Ok(None) => !before.zip(there).is_some_and(|(said, there)| {
                let said = said.location;
                !said.is_in_doubt(archived.version) || archived.likeness(said.at(), there) >= Some(Likeness::Time)
            }),
            Err(_) => true,
        }
    }

    /// Has the record of its file name it, if it is certain that it is the copy. `false`: it is not, or others are at the record,
    /// or at the object.
    pub(crate) fn put_right(&self, lane: &Lane, copy: &OrphanCandidate) -> bool {
        let (owner, at) = (&copy.identity.owner, copy.key.at(copy.archive_id));
        let Ok(seen) = self.fs.map(owner.fid) else {
            return false;
        };
        let is_copy = self.fs.is_archived(owner.fid).unwrap_or(false)
            && ArchivedData::of(self.fs, owner.fid)
                // What the record names may only be out of reach: nothing less than the archived version speaks against it.
                .is_ok_and(|archived| archived.likeness(at, &copy.found) == Some(Likeness::Version))
            && self.is_mislaid(lane, at, owner, &copy.found);
        let transfer = Transfer::new(lane, self.control);
        is_copy && is_put_right(transfer, self.fs, owner.fid, seen.as_deref(), &copy.found.at(at))
    }

    /// What a file says of its copy: while that is the same, so is whether an object is mislaid.
    fn said(&self, fid: Fid) -> (Option<Vec<u8>>, Option<u64>) {
        (self.fs.map(fid).ok().flatten(), self.fs.archived_version(fid))
    }

    /// Deletes just the one that was looked at. Its file's record and whether an action goes on are asked after one more
    /// look: it may have been archived again since, with equal bytes. `false`: it is another one now, or somebody's.
    ///
    /// # Errors
    /// The store's refusal.
    pub(crate) fn delete(&self, lane: &Lane, suspect: &OrphanCandidate) -> Result<bool, TransferError> {
        let OrphanCandidate {
            archive_id,
            key,
            found,
            identity,
        } = suspect;
        let fid = identity.owner.fid;
        let said = self.said(fid);
        if self.sure(lane, suspect).is_none() {
            return Ok(false);
        }
        let bearer = Bearer::File(self.fs, fid);
        let result = Transfer::new(lane, self.control).delete(bearer, &found.at(key.at(*archive_id)), |_, origin| {
            matches!(origin, Origin::Written(now) if now == identity)
                && !self.may_be_running(identity)
                && self.surely(suspect).is_some()
                && self.said(fid) == said
        });
        match result {
            Ok(()) => Ok(true),
            Err(TransferError::Store(StoreError::Precondition { .. })) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Why an object of this file system is no file's copy; `None`: it is one, or that can't be told.
    fn why(&self, archive_id: ArchiveId, key: &ObjectKey, identity: &Identity) -> Result<Option<OrphanReason>, String> {
        let owner = &identity.owner;
        let certain = |text| Ok(Some(OrphanReason { text, certain: true }));
        // Another file's: after an import elsewhere, by another archive id, or of a file system made anew.
        if self.known.may_have(key) {
            return Ok(None);
        }
        match self.fs.map(owner.fid) {
            Ok(Some(record)) => match Location::from_bytes(&record) {
                Ok(location)
                    if location.archive_id == archive_id
                        && (location.key == *key || location.sidecar.as_ref() == Some(key)) =>
                {
                    Ok(None)
                }
                Ok(location) => {
                    let text = format!("the copy of its file {} is '{}'", owner.fid, location.key);
                    // An older release's does not name its key: a copy that somebody made of it looks just so.
                    if identity.names_key || ObjectKey::is_sidecar(key.as_str().as_bytes()) {
                        return certain(text);
                    }
                    Ok(Some(OrphanReason {
                        text: format!("{text}, and this may be anybody's copy of it: it is left, delete it by hand"),
                        certain: false,
                    }))
                }
                // It may mean any object.
                Err(_) => Ok(None),
            },
            // Its key tells what a record would.
            Ok(None) if mapped::may_be_told(self.fs, owner.fid, key.at(archive_id)) => Ok(None),
            Ok(None) => certain(format!("its file {} has no record of a copy", owner.fid)),
            Err(error) if error.is_not_found() => certain(format!("its file {} is gone", owner.fid)),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Whether the action that wrote an object may still be under way.
    fn may_be_running(&self, identity: &Identity) -> bool {
        let cookie = identity.cookie.as_ref().and_then(|text| text.strip_prefix("0x"));
        let Some(cookie) = cookie.and_then(|digits| u64::from_str_radix(digits, 16).ok()) else {
            return false;
        };
        let key = ActionKey {
            cookie: Cookie(cookie),
            fid: identity.owner.fid,
        };
        !matches!(self.fs.progress(key, Extent::EMPTY), Err(error) if error.is_not_found())
    }
}
