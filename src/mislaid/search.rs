//! The search for a file's copy: at the keys where it may be, and among the versions that are kept there.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;

use super::{ArchivedData, Likeness, is_said, look};
use crate::store::{KeyAt, KeyLayout, Location, ObjectInfo, ObjectKey, StoreError, TargetOptions};
use crate::transfer::{Transfer, TransferError};
use crate::types::{ArchiveId, Fid};

/// Keys beside a key that are looked at: an archive goes there when the key is another one's.
const BESIDE: usize = 2;
/// Versions of one object that are looked at, of those that have the file's size: what counts was written last, but for what
/// came late.
const VERSIONS: usize = 8;

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
