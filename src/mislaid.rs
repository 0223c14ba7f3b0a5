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

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;

use crate::action::{FileSystem, HsmError};
use crate::store::{
    KeyAt, KeyLayout, Location, ObjectInfo, ObjectKey, Origin, Owner, ParsedAttributes, StoreError, TargetOptions,
    data_version_of,
};
use crate::transfer::{Said, Transfer, TransferError};
use crate::types::{ArchiveId, Fid, Timestamp};

/// Keys beside a key that are looked at: an archive goes there when the key is another one's.
const BESIDE: usize = 2;
/// Versions of one object that are looked at, of those that have the file's size: what counts was written last, but for what
/// came late.
const VERSIONS: usize = 8;

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

/// A copy that was found.
#[derive(Debug)]
pub struct FoundCopy {
    /// Where it is.
    pub location: Location,
    /// By what it is taken for the copy.
    pub likeness: Likeness,
}

/// What is known of the object that is said to be a file's copy.
#[derive(Clone, Copy, Debug)]
pub enum Seen<'a> {
    /// Nothing: it is to be looked at.
    Not,
    /// It is there.
    There(&'a ObjectInfo),
    /// It was tried to read it, and it is not there, or another one is.
    Gone,
}

/// What a file's record, or the key of its FID, says of its copy.
#[derive(Clone, Copy, Debug)]
pub struct SaidCopy<'a> {
    /// Where the copy is, by that.
    pub location: &'a Location,
    /// What is there.
    pub seen: Seen<'a>,
}

/// Keys that an archive of a file would use now. `path` is asked for where keys follow it: the file's, below the mount point.
#[must_use]
pub fn natural(
    target: &TargetOptions,
    fid: Fid,
    path: impl FnOnce() -> Option<PathBuf>,
) -> Vec<(ArchiveId, ObjectKey)> {
    let by_path = match target.layout {
        KeyLayout::Path => path().and_then(|path| ObjectKey::of_file(&target.prefix, &path, fid).ok()),
        KeyLayout::Fid => None,
    };
    let by_fid = ObjectKey::from_fid(&target.prefix, fid).ok();
    let keys = by_path.into_iter().chain(by_fid);
    keys.map(|key| (target.archive_id, key)).collect()
}

/// The object that is a file's copy, where what is `said` of it is in doubt, or nothing is: at the key that is said, at those that
/// an archive would use now (`natural`), and beside all of them; then among the versions that are kept there. Of two that nothing
/// tells apart neither is taken. `None`: there is none, or it is the one that is said.
///
/// # Errors
/// The store did not tell.
pub fn find(
    transfer: Transfer<'_>,
    archived: &ArchivedData,
    said: Option<SaidCopy<'_>>,
    natural: Vec<(ArchiveId, ObjectKey)>,
    least: Likeness,
) -> Result<Option<FoundCopy>, TransferError> {
    let location = said.map(|said| said.location);
    let proof = match said {
        Some(SaidCopy {
            location,
            seen: Seen::Not,
        }) => look(transfer, location.at(), location.version.as_deref())?
            .filter(|found| is_said(location, found))
            .and_then(|found| archived.likeness(location.at(), &found)),
        Some(SaidCopy {
            location,
            seen: Seen::There(found),
        }) => archived.likeness(location.at(), found),
        Some(SaidCopy { seen: Seen::Gone, .. }) | None => None,
    };
    let mut search = Search::new(transfer, archived, location, least);
    let (places, covering) = match proof {
        Some(Likeness::Version) => return Ok(None),
        // The file was restored since it was archived: that its object has the time of the file's last change will do, unless
        // another one proves better; within a second two changes may have the same. That is looked for only where an archive
        // would go now, and among the versions of the same object: this is on every such restore's way.
        Some(Likeness::Time) => {
            search.least = Likeness::Version;
            let is_said = |at: KeyAt<'_>| location.is_some_and(|location| location.at() == at);
            let mut places = natural;
            places.retain(|(archive_id, key)| !is_said(key.at(*archive_id)));
            let same = location.map(|location| (location.archive_id, location.key.clone()));
            (places, same)
        }
        Some(Likeness::Size) | None => (places(archived.owner.fid, location, natural), None),
    };
    for (archive_id, key) in &places {
        search.look_at(key.at(*archive_id))?;
    }
    if search.best.is_some() {
        search.least = Likeness::Version;
    }
    for (archive_id, key) in covering.iter().chain(&places) {
        search.look_below(key.at(*archive_id))?;
    }
    Ok(search.end(proof.is_some()))
}

/// Among the objects that say of themselves whose they are.
struct Search<'a> {
    transfer: Transfer<'a>,
    archived: &'a ArchivedData,
    said: Option<&'a Location>,
    /// Nothing less is taken.
    least: Likeness,
    best: Option<FoundCopy>,
    is_ambiguous: bool,
    /// Whether an archive's bucket keeps versions, as far as that was seen.
    keeps_versions: BTreeMap<ArchiveId, bool>,
    /// Versions that were weighed, each of its key.
    weighed: Vec<(ObjectKey, String)>,
    /// A bucket keeps versions, and they can't be listed.
    is_unlisted: bool,
}

impl<'a> Search<'a> {
    fn new(transfer: Transfer<'a>, archived: &'a ArchivedData, said: Option<&'a Location>, least: Likeness) -> Self {
        let versioned = said.and_then(|said| Some((said, said.version.clone()?)));
        Self {
            transfer,
            archived,
            said,
            least,
            best: None,
            is_ambiguous: false,
            keeps_versions: versioned.iter().map(|(said, _)| (said.archive_id, true)).collect(),
            weighed: versioned
                .into_iter()
                .map(|(said, version)| (said.key.clone(), version))
                .collect(),
            is_unlisted: false,
        }
    }

    fn is_proved(&self) -> bool {
        self.best
            .as_ref()
            .is_some_and(|best| best.likeness == Likeness::Version)
    }

    /// At what a key stands for.
    fn look_at(&mut self, at: KeyAt<'_>) -> Result<(), TransferError> {
        let Some(found) = look(self.transfer, at, None)? else {
            return Ok(());
        };
        *self.keeps_versions.entry(at.archive_id).or_default() |= found.version.is_some();
        self.weighed
            .extend(found.version.iter().map(|version| (at.key.clone(), version.clone())));
        self.weigh(at, &found);
        Ok(())
    }

    /// At the versions of it, unless there is better proof already.
    fn look_below(&mut self, at: KeyAt<'_>) -> Result<(), TransferError> {
        if self.is_proved() || self.keeps_versions.get(&at.archive_id) != Some(&true) {
            return Ok(());
        }
        let (size, weighed) = (self.archived.size, std::mem::take(&mut self.weighed));
        let is_known = |version: &str| weighed.iter().any(|(key, known)| key == at.key && known == version);
        let is_listed = each_version(self.transfer, at, size, is_known, |found| {
            // Of what was replaced the size tells nothing.
            if self.archived.likeness(at, found) >= Some(Likeness::Time) {
                self.weigh(at, found);
            }
            match self.is_proved() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        self.weighed = weighed;
        self.is_unlisted |= !is_listed?;
        Ok(())
    }

    fn weigh(&mut self, at: KeyAt<'_>, found: &ObjectInfo) {
        let Some(likeness) = self
            .archived
            .likeness(at, found)
            .filter(|likeness| *likeness >= self.least)
        else {
            return;
        };
        let mut location = found.at(at);
        if let Some(said) = self.said {
            if said.is_at(&location) {
                // Its bytes could not be had just now, and asking once more is not for here.
                if is_said(said, found) {
                    return;
                }
                location.pinned = said.pinned;
                location.layout.clone_from(&said.layout);
            }
            // Of the same data version the bytes are the same, whatever else an object says.
            if said.is_of_version(self.archived.version) && said.checksum.is_some() {
                if location.checksum.is_some() && location.checksum != said.checksum {
                    return;
                }
                location.checksum = said.checksum;
            }
        }
        match &self.best {
            Some(than) if than.likeness > likeness => {}
            Some(than) if than.likeness == likeness => {
                let is_same = than.location.checksum.is_some() && than.location.checksum == location.checksum;
                self.is_ambiguous |= likeness != Likeness::Version && !is_same;
            }
            _ => {
                self.is_ambiguous = false;
                self.best = Some(FoundCopy { location, likeness });
            }
        }
    }

    /// `may_be_said`: what is said will do.
    fn end(self, may_be_said: bool) -> Option<FoundCopy> {
        if self.is_ambiguous {
            tracing::warn!(
                "the file's record does not name its copy, and of several objects nothing tells which it is; none is taken"
            );
            return None;
        }
        if self.is_unlisted && self.best.is_none() && !may_be_said {
            tracing::warn!(
                "the file's record does not name its copy, and the bucket's versions can't be listed (s3:ListBucketVersions): one \
                 that a late write covers is not found"
            );
        }
        self.best
    }
}

/// The version of an object that is a file's copy, where another one covers it.
///
/// # Errors
/// The store did not tell.
pub fn covered(
    transfer: Transfer<'_>,
    archived: &ArchivedData,
    at: KeyAt<'_>,
) -> Result<Option<ObjectInfo>, TransferError> {
    let mut copy = None;
    each_version(
        transfer,
        at,
        archived.size,
        |_| false,
        |found| {
            if archived.likeness(at, found) != Some(Likeness::Version) {
                return ControlFlow::Continue(());
            }
            copy = Some(found.clone());
            ControlFlow::Break(())
        },
    )?;
    Ok(copy)
}

/// Looks at versions of an object that have so many bytes, the newest first, but for those that are known. `false`: they can't be
/// listed.
fn each_version(
    transfer: Transfer<'_>,
    at: KeyAt<'_>,
    size: u64,
    is_known: impl Fn(&str) -> bool,
    mut each: impl FnMut(&ObjectInfo) -> ControlFlow<()>,
) -> Result<bool, TransferError> {
    let listed = match transfer.versions(at) {
        Ok(listed) => listed,
        Err(TransferError::Store(
            error @ (StoreError::NotFound { .. }
            | StoreError::Denied { .. }
            | StoreError::Refused { .. }
            | StoreError::Unsupported { .. }),
        )) => {
            tracing::debug!(key = %at.key, %error, "the versions of an object can't be listed");
            return Ok(false);
        }
        Err(error) => return Err(error),
    };
    let wanted = listed
        .into_iter()
        .filter(|listed| listed.size == size && !is_known(&listed.version));
    for listed in wanted.take(VERSIONS) {
        if let Some(found) = look(transfer, at, Some(&listed.version))?
            && found.version.is_some()
            && each(&found).is_break()
        {
            break;
        }
    }
    Ok(true)
}

/// What came of putting a record right.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PutRight {
    /// It names the copy.
    Done,
    /// Another one wrote it meanwhile: it stays as it is.
    Changed,
    /// Somebody has announced to delete the object, and may have looked at the record before: it is what it was.
    Doomed,
}

/// Why a record could not be put right.
#[derive(Debug, thiserror::Error)]
pub enum PutRightError {
    /// The file.
    #[error(transparent)]
    Hsm(#[from] HsmError),
    /// What is said on it of deletions, or the store.
    #[error(transparent)]
    Transfer(#[from] TransferError),
}

/// Has the record of a file name its copy, if it still is what was `seen`. Whoever deletes the object has announced that on the
/// file before he looked whether anybody means it (`crate::transfer::announce`): an announcement that is found behind the new
/// record may be of one who has not seen it.
///
/// # Errors
/// The file can't be asked, or its record can't be written.
pub fn put_right(
    transfer: Transfer<'_>,
    fs: &dyn FileSystem,
    fid: Fid,
    seen: Option<&[u8]>,
    copy: &Location,
) -> Result<PutRight, PutRightError> {
    // A version is deleted by its name, by who has looked at just that one.
    let is_shared = copy.version.is_none();
    if is_shared && transfer.wait_for_deletions(fs, fid, copy.at())? == Said::UnderWay {
        return Ok(PutRight::Doomed);
    }
    if fs.map(fid)?.as_deref() != seen {
        return Ok(PutRight::Changed);
    }
    let record = copy.to_bytes();
    fs.set_map(fid, &record)?;
    if !is_shared {
        return Ok(PutRight::Done);
    }
    let stays = match transfer.wait_for_deletions(fs, fid, copy.at()) {
        Ok(Said::Nothing) => return Ok(PutRight::Done),
        Ok(Said::Over) => look(transfer, copy.at(), None).map(|found| found.is_some_and(|found| is_said(copy, &found))),
        Ok(Said::UnderWay) => Ok(false),
        Err(error) => Err(error),
    };
    if matches!(stays, Ok(true)) {
        return Ok(PutRight::Done);
    }
    if fs.map(fid)?.as_ref() == Some(&record) {
        match seen {
            Some(seen) => fs.set_map(fid, seen)?,
            None => fs.clear_map(fid)?,
        }
    }
    stays?;
    Ok(PutRight::Doomed)
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
