//! The copy of a file whose record does not name it.
//!
//! A record is written behind a look, and nothing does both at once: the call of a mover that was cut off or paused between
//! the two arrives when it likes, also behind the end of an archive that another one has made since. Then the record names
//! what is gone, or what the file was before, or there is none. But an object says which file it was written for and which
//! data version it has the bytes of, and HSM keeps beside the file's state the data version that was archived
//! (`trusted.hsm`): where the two are the same, that object is the copy, whatever the record says. A restore gives the file a
//! new data version, and then size and time of the last change have to do.

use crate::action::{FileSystem, HsmError};
use crate::store::{
    KeyAt, Location, ObjectInfo, ObjectKey, Origin, Owner, ParsedAttributes, StoreError, data_version_of,
};
use crate::transfer::{Transfer, TransferError};
use crate::types::{ArchiveId, Fid, Timestamp};

/// Keys beside a key that are looked at: an archive goes there when the key is another one's.
const BESIDE: usize = 2;

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
/// it has just those bytes, and there is no record, or one of another data version and with other bytes. Asks no store.
#[must_use]
pub fn may_be_copy(
    fs: &dyn FileSystem,
    fid: Fid,
    record: Option<&Location>,
    at: KeyAt<'_>,
    found: &ObjectInfo,
) -> bool {
    let names_none = match record {
        Some(record) => !record.has_bytes_of(found) && record.is_in_doubt(fs.archived_version(fid)),
        // Where files go without records what is at the key of the FID tells, and nobody looks at that here.
        None => !is_beside_own(at.key, fid),
    };
    names_none && has_its_bytes(fs, fid, at, found)
}

/// Whether a key is the one beside that of the FID.
fn is_beside_own(key: &ObjectKey, fid: Fid) -> bool {
    let fid = fid.bare();
    let own = key.as_str().strip_suffix(&fid).and_then(|rest| rest.strip_suffix('~'));
    own.is_some_and(|own| own.ends_with(&fid))
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

/// A copy that was found.
#[derive(Debug)]
pub struct FoundCopy {
    /// Where it is.
    pub location: Location,
    /// By what it is taken for the copy.
    pub likeness: Likeness,
}

/// What a file's record, or the key of its FID, says of its copy, and how good that is.
#[derive(Clone, Copy, Debug)]
pub struct Said<'a> {
    /// Where the copy is, by that.
    pub location: &'a Location,
    /// It was tried to read the object, and it is not there, or another one is.
    pub is_gone: bool,
}

/// The object that is a file's copy, where what is `said` of it is in doubt, or nothing is: at the key that is said, at those that
/// an archive would use now (`natural`), and beside all of them. Of two that nothing tells apart neither is taken. `None`: there
/// is none, or it is the one that is said.
///
/// # Errors
/// The store did not tell.
pub fn find(
    transfer: Transfer<'_>,
    archived: &ArchivedData,
    said: Option<Said<'_>>,
    natural: Vec<(ArchiveId, ObjectKey)>,
    least: Likeness,
) -> Result<Option<FoundCopy>, TransferError> {
    if let Some(Said {
        location,
        is_gone: false,
    }) = said
    {
        let found = look(transfer, location.at(), location.version.as_deref())?;
        let said = found.filter(|found| is_said(location, found));
        match said.and_then(|found| archived.likeness(location.at(), &found)) {
            Some(Likeness::Version) => return Ok(None),
            // The file was restored since it was archived: that its object has the time of the file's last change will do, unless
            // another one proves better. That is looked for only where an archive would go now: this is on every such
            // restore's way.
            Some(Likeness::Time) => {
                for (archive_id, key) in natural {
                    let at = key.at(archive_id);
                    if location.at() != at
                        && let Some(found) = look(transfer, at, None)?
                        && archived.likeness(at, &found) == Some(Likeness::Version)
                    {
                        return Ok(Some(FoundCopy {
                            location: found.at(at),
                            likeness: Likeness::Version,
                        }));
                    }
                }
                return Ok(None);
            }
            Some(Likeness::Size) | None => {}
        }
    }
    let mut best: Option<FoundCopy> = None;
    let mut is_ambiguous = false;
    let said = said.map(|said| said.location);
    for (archive_id, key) in places(archived.owner.fid, said, natural) {
        let at = key.at(archive_id);
        let Some(found) = look(transfer, at, None)? else {
            continue;
        };
        let Some(likeness) = archived.likeness(at, &found).filter(|likeness| *likeness >= least) else {
            continue;
        };
        let mut location = found.at(at);
        if let Some(said) = said {
            if said.is_at(&location) {
                // Its bytes could not be had just now, and asking once more is not for here.
                if is_said(said, &found) {
                    continue;
                }
                location.pinned = said.pinned;
                location.layout.clone_from(&said.layout);
            }
            // Of the same data version the bytes are the same, whatever else an object says.
            if said.is_of_version(archived.version) && said.checksum.is_some() {
                if location.checksum.is_some() && location.checksum != said.checksum {
                    continue;
                }
                location.checksum = said.checksum;
            }
        }
        match &best {
            Some(than) if than.likeness > likeness => {}
            Some(than) if than.likeness == likeness => {
                let is_same = than.location.checksum.is_some() && than.location.checksum == location.checksum;
                is_ambiguous |= likeness != Likeness::Version && !is_same;
            }
            _ => {
                is_ambiguous = false;
                best = Some(FoundCopy { location, likeness });
            }
        }
    }
    if is_ambiguous {
        tracing::warn!(
            "the file's record does not name its copy, and of several objects nothing tells which it is; none is taken"
        );
        return Ok(None);
    }
    Ok(best)
}

/// Whether that is the very object.
fn is_said(said: &Location, found: &ObjectInfo) -> bool {
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

/// Where the copy may be, each place once.
fn places(fid: Fid, said: Option<&Location>, natural: Vec<(ArchiveId, ObjectKey)>) -> Vec<(ArchiveId, ObjectKey)> {
    let mut places: Vec<(ArchiveId, ObjectKey)> = Vec::new();
    let mut add = |place| {
        if !places.contains(&place) {
            places.push(place);
        }
    };
    let first: Vec<_> = said
        .map(|said| (said.archive_id, said.key.clone()))
        .into_iter()
        .chain(natural)
        .collect();
    first.iter().cloned().for_each(&mut add);
    for (archive_id, key) in first {
        let mut beside = key;
        for _ in 0..BESIDE {
            let Ok(next) = beside.beside(fid) else {
                break;
            };
            beside = next;
            add((archive_id, beside.clone()));
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::store::{name_key, note_data_version};

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
