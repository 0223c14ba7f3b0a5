//! What is in the bucket for a file that is gone, or has moved, goes; never what may be another file's.

use super::FollowCounts;
use super::copy_index::IndexEntry;
use super::look::{FileLooker, LookError, LookOutcome, done, read};
use super::pending::Name;
use crate::action::FileSystem as _;
use crate::mapped;
use crate::nodes::{node_key, remove_node};
use crate::store::{Location, ObjectInfo, ObjectKey, Origin, Owner, StoreError};
use crate::transfer::{Bearer, TransferError};
use crate::types::{ErrorClass, Fid};

impl FileLooker<'_> {
    /// Not where another directory or symlink has the key by now: its own look has written it.
    pub(super) fn remove_node_of(&self, key: &ObjectKey) -> Result<(), LookError> {
        let follow = self.follow;
        let target = self.lane.store(follow.archive_id)?.target();
        let below = key.as_str().strip_prefix(&target.prefix).unwrap_or(key.as_str());
        let there = follow.mount.path().join(below.trim_end_matches('/')).symlink_metadata();
        if there.is_ok_and(|stat| stat.is_symlink() || (stat.is_dir() && key.as_str().ends_with('/'))) {
            return Ok(());
        }
        Ok(remove_node(self.transfer(), follow.archive_id, key)?)
    }

    /// A file as objects and records name it.
    pub(super) fn owner(&self, fid: Fid) -> Owner {
        Owner {
            fs: self.follow.mount.name().to_owned(),
            fid,
        }
    }

    /// `false`: not now.
    pub(super) fn delete_former(&self, fid: Fid, former: &Location) -> Result<bool, LookError> {
        if self.follow.mount.has_action(fid)? {
            return Ok(false);
        }
        self.delete_copy(fid, former)?;
        Ok(true)
    }

    /// Its object goes, if no other file has it: what was there was seen before.
    pub(super) fn end(&self, fid: Fid, names: &[Name]) -> Result<LookOutcome, LookError> {
        if !self.is_dead(fid)? {
            return Ok(LookOutcome::Again("it is there again, or still open".into()));
        }
        let known = self.copy_index.get(fid)?;
        let mut counts = FollowCounts::default();
        if self.follow.propagate.delete {
            match &known {
                Some(IndexEntry::File {
                    location: Some(location),
                    ..
                }) => {
                    counts.deleted = u64::from(self.delete_copy(fid, location)?);
                }
                Some(IndexEntry::Node { key, .. }) => {
                    self.remove_node_of(key)?;
                    counts.deleted = 1;
                }
                Some(IndexEntry::File { location: None, .. }) | None => {}
            }
            // It was archived, and gone before that was written down.
            if self.catching_up || matches!(known, Some(IndexEntry::File { location: None, .. })) {
                counts.deleted |= u64::from(self.delete_under(fid, names, None)?);
            }
        }
        Ok(done(None, counts))
    }

    /// No name is left, nobody has it open, and the mount point still is the file system.
    pub(super) fn is_dead(&self, fid: Fid) -> Result<bool, LookError> {
        let mount = self.follow.mount;
        match mount.path_of(fid) {
            Ok(_) => return Ok(false),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
        match mount.size_of(fid) {
            Ok(_) => return Ok(false),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
        if !mount.is_there() {
            return Err(LookError::Passing("the mount point is not there".into()));
        }
        Ok(true)
    }

    /// By a file's record; `None`: it has none that can be read, or there is no such file.
    pub(super) fn copy_of(&self, fid: Fid) -> Result<Option<Location>, LookError> {
        match self.follow.mount.map(fid) {
            Ok(record) => Ok(read(record)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether an object is the copy of another file than that, by the book and by what has its path.
    pub(super) fn is_anothers(&self, fid: Fid, location: &Location) -> Result<bool, LookError> {
        let mount = self.follow.mount;
        let is_copy_of = |other: Fid| -> Result<bool, LookError> {
            let by_record = self.copy_of(other)?.is_some_and(|now| now.is_at(location));
            Ok(by_record || mapped::is_told(mount, other, location.at())?)
        };
        if let Some(other) = self.copy_index.file_of(&location.key)?.filter(|other| *other != fid)
            && is_copy_of(other)?
        {
            return Ok(true);
        }
        let prefix = &self.lane.store(location.archive_id)?.target().prefix;
        let below = location
            .key
            .as_str()
            .strip_prefix(prefix)
            .unwrap_or(location.key.as_str());
        let path = mount.path().join(below);
        match mount.fid_at(&path) {
            Ok(there) if there != fid => is_copy_of(there),
            Ok(_) => Ok(false),
            Err(error)
                if matches!(
                    error.class(),
                    ErrorClass::Gone | ErrorClass::NoDirectory | ErrorClass::NameTooLong
                ) =>
            {
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What is left of a FID under names that it had; `but` is its copy.
    pub(super) fn delete_under(&self, fid: Fid, names: &[Name], but: Option<&Location>) -> Result<bool, LookError> {
        let follow = self.follow;
        let prefix = &self.lane.store(follow.archive_id)?.target().prefix;
        let mut deleted = false;
        for (parent, name) in names {
            let Ok(directory) = follow.mount.path_of(*parent) else {
                continue;
            };
            let below = directory.join(name);
            let Ok(key) = ObjectKey::from_path(prefix, &below) else {
                continue;
            };
            for key in [Ok(key.clone()), key.beside(fid)].into_iter().flatten() {
                if but.is_some_and(|but| but.key == key) {
                    continue;
                }
                let Some(found) = self.transfer().find(key.at(follow.archive_id))? else {
                    continue;
                };
                if Origin::of(&found, &key).is_of(&self.owner(fid)) {
                    deleted |= self.delete_copy(fid, &found.at(key.at(follow.archive_id)))?;
                }
            }
            if but.is_none() {
                for key in [false, true]
                    .into_iter()
                    .flat_map(|is_dir| node_key(prefix, &below, is_dir))
                {
                    self.remove_node_of(&key)?;
                }
            }
        }
        Ok(deleted)
    }

    /// Only the object that is this file's, and no longer its copy. `false`: it stays.
    pub(super) fn delete_copy(&self, fid: Fid, location: &Location) -> Result<bool, LookError> {
        let follow = self.follow;
        if self.lane.store(location.archive_id).is_err() {
            return Ok(false);
        }
        let now = self.copy_of(fid)?;
        let at = location.at();
        let is_copy = now.as_ref().is_some_and(|now| now.is_at(location)) || mapped::is_told(follow.mount, fid, at)?;
        if is_copy || self.is_anothers(fid, location)? {
            return Ok(false);
        }
        let owner = self.owner(fid);
        // The file may have been archived to this key since: it is asked after the look at the object.
        let is_ours = |found: &ObjectInfo, origin: &Origin| {
            origin.yields_to(&owner, location) && !mapped::may_mean(follow.mount, fid, at, found)
        };
        let bearer = Bearer::File(follow.mount, fid);
        match self.transfer().delete(bearer, location, is_ours) {
            Ok(()) => {}
            Err(TransferError::Store(StoreError::Precondition { .. })) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        self.lane
            .discard_sidecar(location.archive_id, location.sidecar.as_ref(), &owner, now.as_ref());
        Ok(true)
    }
}
