//! The copy of a file whose record does not name it.
//!
//! A record is written behind a look, and nothing does both at once: the call of a mover that was cut off or paused between
//! the two arrives when it likes, also behind the end of an archive that another one has made since. Then the record names
//! what is gone, or what the file was before, or there is none. But an object says which file it was written for and which
//! data version it has the bytes of, and HSM keeps beside the file's state the data version that was archived
//! (`trusted.hsm`): where the two are the same, that object is the copy, whatever the record says. A restore gives the file a
//! new data version, and then size and time of the last change have to do.
//!
//! Objects come late, too. Where a bucket keeps versions, one that was written behind the copy covers it, and what the key
//! stands for is not what was archived: the versions below are looked at as well.

mod record;
mod search;

pub use record::{PutRight, PutRightError, put_right};
pub use search::{FoundCopy, SaidCopy, Seen, covered, find, natural};

use crate::action::{FileSystem, HsmError};
use crate::store::{KeyAt, Location, ObjectInfo, Origin, Owner, ParsedAttributes, StoreError, data_version_of};
use crate::transfer::{Transfer, TransferError};
use crate::types::{Fid, Timestamp};

/// By what an object that names a file is taken for its copy; what proves more is greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Likeness {
    /// It has the file's size, and HSM does not tell the data version that was archived.
    Size,
    /// It has the file's size and the time of its last change.
    Time,
    /// It has the data version that was archived.
    Version,
}

/// What is known of the bytes that a file's copy must have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ArchivedData {
    /// The file.
    pub owner: Owner,
    /// Bytes.
    pub size: u64,
    /// Of the last change; `None` where it can't be told.
    pub mtime: Option<Timestamp>,
    /// As HSM has it; `None` where it can't be told.
    pub version: Option<u64>,
}

impl ArchivedData {
    /// Of a file as it is now, which means something only where HSM takes it for archived and not changed since.
    ///
    /// # Errors
    /// ENOENT when it is gone.
    pub fn of(fs: &dyn FileSystem, fid: Fid) -> Result<Self, HsmError> {
        Ok(Self {
            owner: Owner {
                fs: fs.name().to_owned(),
                fid,
            },
            size: fs.size_of(fid)?,
            mtime: fs.mtime_of(fid),
            version: fs.archived_version(fid),
        })
    }

    /// Whether an object may be the copy, and by what. It has to lie at the key that it names, and to name this file.
    #[must_use]
    pub fn likeness(&self, at: KeyAt<'_>, found: &ObjectInfo) -> Option<Likeness> {
        let is_of_file = match Origin::of(found, at.key) {
            Origin::Written(identity) => identity.names_key && identity.owner == self.owner,
            Origin::Strangers | Origin::Carried(_) => false,
        };
        if !is_of_file || found.size != self.size {
            return None;
        }
        let version = data_version_of(&found.metadata);
        if version.is_some() && version == self.version {
            return Some(Likeness::Version);
        }
        if self.mtime.is_some() && ParsedAttributes::of(&found.metadata).mtime == self.mtime {
            return Some(Likeness::Time);
        }
        self.version.is_none().then_some(Likeness::Size)
    }
}

impl Location {
    /// Whether it says that it was written of the data version that HSM has for the archived one.
    #[must_use]
    pub fn is_of_version(&self, archived: Option<u64>) -> bool {
        self.data_version.is_some() && self.data_version == archived
    }

    /// Whether it was written of another data version than HSM has for the archived one: of what the file was at another
    /// time, or the file was restored since.
    #[must_use]
    pub fn is_in_doubt(&self, archived: Option<u64>) -> bool {
        self.data_version.is_some() && archived.is_some() && self.data_version != archived
    }
}

/// Whether an object that a file does not mean may be its copy all the same: the file counts as archived, the object says that
/// it has just those bytes, and there is no record, or one of another data version. Asks no store: that what the record names is
/// there, or what is at the key of the FID, is for a scrub to find.
#[must_use]
pub fn may_be_copy(
    fs: &dyn FileSystem,
    fid: Fid,
    record: Option<&Location>,
    at: KeyAt<'_>,
    found: &ObjectInfo,
) -> bool {
    record.is_none_or(|record| record.is_in_doubt(fs.archived_version(fid))) && has_its_bytes(fs, fid, at, found)
}

/// Whether a file counts as archived, and an object says that it has just those bytes.
#[must_use]
pub fn has_its_bytes(fs: &dyn FileSystem, fid: Fid, at: KeyAt<'_>, found: &ObjectInfo) -> bool {
    if !fs.is_archived(fid).unwrap_or_else(|error| !error.is_not_found()) {
        return false;
    }
    match ArchivedData::of(fs, fid) {
        Ok(archived) => archived.likeness(at, found) >= Some(Likeness::Time),
        Err(error) => !error.is_not_found(),
    }
}

/// Whether what was found is the very object that is said to be the copy.
#[must_use]
pub fn is_said(said: &Location, found: &ObjectInfo) -> bool {
    found.etag == said.etag && said.is_written_as(found) && (said.version.is_none() || said.version == found.version)
}

/// What is at a key; without s3:ListBucket a key with no object is "denied", too.
fn look(transfer: Transfer<'_>, at: KeyAt<'_>, version: Option<&str>) -> Result<Option<ObjectInfo>, TransferError> {
    match transfer.head(at, version) {
        Ok(found) => Ok(Some(found)),
        Err(TransferError::Store(
            StoreError::NotFound { .. } | StoreError::Denied { .. } | StoreError::Refused { .. },
        )) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::store::{ObjectKey, name_key, note_data_version};
    use crate::types::ArchiveId;

    fn owner(oid: u32) -> Owner {
        Owner {
            fs: "lustre:1".into(),
            fid: Fid {
                seq: 0x2_0000_0401,
                oid,
                ver: 0,
            },
        }
    }

    fn archived() -> ArchivedData {
        ArchivedData {
            owner: owner(9),
            size: 7,
            mtime: Some(Timestamp { seconds: 5, nanos: 6 }),
            version: Some(3),
        }
    }

    fn object(of: &Owner, key: &ObjectKey, version: Option<u64>, mtime: &str) -> ObjectInfo {
        let mut metadata: HashMap<_, _> = of.to_map();
        name_key(&mut metadata, key);
        note_data_version(&mut metadata, version);
        metadata.insert("file-mtime".into(), mtime.into());
        ObjectInfo {
            size: 7,
            metadata,
            ..ObjectInfo::default()
        }
    }

    #[test]
    fn only_an_object_of_the_file_with_the_archived_bytes_is_taken_for_its_copy() {
        let (key, elsewhere) = (ObjectKey::new("a").unwrap(), ObjectKey::new("b").unwrap());
        let at = key.at(ArchiveId::new(1).unwrap());
        let (same, other) = ("5000000006ns", "5000000007ns");
        let archived = archived();
        let of = |object: &ObjectInfo| archived.likeness(at, object);
        assert_eq!(of(&object(&owner(9), &key, Some(3), other)), Some(Likeness::Version));
        assert_eq!(of(&object(&owner(9), &key, Some(2), same)), Some(Likeness::Time));
        assert_eq!(of(&object(&owner(9), &key, Some(2), other)), None);
        assert_eq!(of(&object(&owner(9), &key, None, other)), None);
        assert_eq!(of(&object(&owner(8), &key, Some(3), same)), None, "another file's");
        assert_eq!(of(&object(&owner(9), &elsewhere, Some(3), same)), None, "copied here");
        let mut shorter = object(&owner(9), &key, Some(3), same);
        shorter.size = 6;
        assert_eq!(of(&shorter), None);
        let untold = ArchivedData {
            version: None,
            ..archived.clone()
        };
        assert_eq!(
            untold.likeness(at, &object(&owner(9), &key, Some(3), other)),
            Some(Likeness::Size)
        );
    }
}
