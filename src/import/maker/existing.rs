//! What to do where something is in an object's place. What is there is somebody's until the opposite is known.

use std::os::unix::ffi::OsStrExt as _;

use super::{Maker, SourceObject, Trouble, location_at};
use crate::action::FileSystem as _;
use crate::import::path::TreePath;
use crate::import::tree::Dir;
use crate::import::{OnConflict, Paths};
use crate::lustre::HsmStates;
use crate::store::Location;

/// What to do with a name that is taken.
pub(super) enum Existing {
    Leave,
    /// A former run made the file and not yet its record.
    Complete,
    /// A former run made less than that.
    Half,
    Replace(Box<FileSnapshot>),
    /// Another name is free for it.
    Beside(TreePath),
}

/// A file as it was judged: one that is another when its turn comes is not replaced.
#[derive(PartialEq, Eq)]
pub(super) struct FileSnapshot {
    inode: u64,
    size: i64,
    mtime: (i64, i64),
    states: Option<HsmStates>,
    record: Option<Location>,
}

impl Maker<'_> {
    pub(super) fn existing(&self, dir: &Dir, known: &SourceObject) -> Result<Existing, Trouble> {
        let path = &known.path;
        let Some((stat, seen)) = self.see(dir, known)? else {
            return Err(Trouble::Failed(
                "something had its place and is gone; give the command again".into(),
            ));
        };
        let Some(states) = seen.states else {
            if stat.st_mode & libc::S_IFMT == libc::S_IFDIR {
                return Err(Trouble::Refused(
                    "a directory is in its place (the bucket has keys below it): the directory wins".into(),
                ));
            }
            return Ok(match self.may_replace(dir, known)? {
                true => Existing::Replace(Box::new(seen)),
                false => Existing::Leave,
            });
        };
        let wanted = self.location(known);
        let found = seen.record.as_ref();
        if found.is_some_and(|found| {
            found.archive_id == wanted.archive_id
                && found.key == wanted.key
                && found.etag == wanted.etag
                && found.size == wanted.size
        }) {
            self.count(|counts| counts.same += 1);
            return Ok(Existing::Leave);
        }
        if found.is_none() && self.is_told(dir, known, states, &wanted) {
            self.count(|counts| counts.same += 1);
            return Ok(Existing::Leave);
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        // Only what this import's own former run can have left, which was killed in the middle of a file.
        if self.shared.resumed && found.is_none() && stat.st_ctime >= self.shared.began {
            // Only where nobody else makes files are they made under their own names.
            if dir.is_safe() && states.is_none() && size == 0 {
                return Ok(Existing::Half);
            }
            if states.released() && states.is_in(wanted.archive_id) && size == wanted.size {
                return Ok(Existing::Complete);
            }
        }
        if self.shared.paths == Paths::Recorded && found.is_some_and(|found| found.key != wanted.key) {
            return self.beside(known, path);
        }
        match self.shared.on_conflict {
            OnConflict::Fail => Err(Trouble::Conflict("a file is in its place".into())),
            OnConflict::Skip => {
                self.count(|counts| counts.skipped += 1);
                Ok(Existing::Leave)
            }
            OnConflict::Refresh | OnConflict::Overwrite if !states.is_clean() && !self.shared.force => Err(
                Trouble::Conflict("the file in its place has data that is in no archive (--force replaces it)".into()),
            ),
            OnConflict::Refresh if found.is_none_or(|found| found.key != wanted.key) && !self.shared.force => {
                Err(Trouble::Conflict("the file in its place is not this object's".into()))
            }
            OnConflict::Refresh | OnConflict::Overwrite => Ok(Existing::Replace(Box::new(seen))),
        }
    }

    /// Whether the object is the copy of the file in its place, which has no record: it names the file, and lies at the key
    /// of its FID.
    fn is_told(&self, dir: &Dir, known: &SourceObject, states: HsmStates, wanted: &Location) -> bool {
        let Some(owner) = &known.told.owner else {
            return false;
        };
        let mount = &self.shared.mount;
        states.archived()
            && states.is_in(wanted.archive_id)
            && owner.fs == mount.name()
            && wanted.key.may_be_from(owner.fid)
            && mount
                .fid_at(&dir.at(known.path.name()).path())
                .is_ok_and(|fid| fid == owner.fid)
    }

    /// Two copies say that they have been here: one was renamed later. Nothing is lost.
    fn beside(&self, known: &SourceObject, path: &TreePath) -> Result<Existing, Trouble> {
        let refused = |refusal: crate::import::Refusal| Trouble::Refused(refusal.to_string());
        let own = TreePath::of_key(known.key.as_str().as_bytes(), &self.shared.prefix).map_err(refused)?;
        let mut name = own.as_path().as_os_str().to_owned();
        name.push(match &known.told.owner {
            Some(owner) => format!("~{}", owner.fid.bare()),
            None => "~".to_owned(),
        });
        let beside = TreePath::recorded(name.as_bytes()).map_err(refused)?;
        if *path == beside {
            return Err(Trouble::Conflict(
                "other files have all the names that it could get".into(),
            ));
        }
        Ok(Existing::Beside(if own == *path { beside } else { own }))
    }

    /// What has the name, and of a file what HSM says of it.
    fn see(
        &self,
        dir: &Dir,
        known: &SourceObject,
    ) -> Result<Option<(nix::sys::stat::FileStat, FileSnapshot)>, Trouble> {
        let path = &known.path;
        let stat = dir
            .stat(path.name())
            .map_err(|error| self.error(path, "look at", error))?;
        let Some(stat) = stat else {
            return Ok(None);
        };
        let at = dir.at(path.name()).path();
        let is_file = stat.st_mode & libc::S_IFMT == libc::S_IFREG;
        let states = is_file.then(|| self.shared.mount.states_at(&at)).transpose();
        let seen = FileSnapshot {
            inode: stat.st_ino,
            size: stat.st_size,
            mtime: (stat.st_mtime, stat.st_mtime_nsec),
            states: states.map_err(|error| self.hsm_error(path, &error))?,
            record: if is_file { location_at(&at) } else { None },
        };
        Ok(Some((stat, seen)))
    }

    /// Looks again, just before something is replaced.
    pub(super) fn unchanged(&self, dir: &Dir, known: &SourceObject, seen: &FileSnapshot) -> Result<(), Trouble> {
        match self.see(dir, known)? {
            Some((_, now)) if now == *seen => Ok(()),
            _ => Err(Trouble::Conflict(
                "the file in its place was changed meanwhile; give the command again".into(),
            )),
        }
    }

    /// Whether what was listed still is the object: a listing or an inventory may be old. `false`: the file was
    /// archived anew since, and its record is the newer one.
    pub(super) fn is_current(&self, known: &SourceObject, seen: &FileSnapshot) -> Result<bool, Trouble> {
        let shared = self.shared;
        let found = shared.transfer(&self.lane).find(known.key.at(shared.archive_id));
        let found = found.map_err(|error| self.store_error(error))?;
        let Some(found) = found else {
            return Err(Trouble::Conflict("its object is gone since it was listed".into()));
        };
        let wanted = self.location(known);
        if found.etag == wanted.etag && found.size == wanted.size {
            return Ok(true);
        }
        let is_files = |record: &Location| record.key == wanted.key && record.etag == found.etag;
        if seen.record.as_ref().is_some_and(is_files) {
            return Ok(false);
        }
        Err(Trouble::Conflict(
            "the object was changed since it was listed; give the command again".into(),
        ))
    }

    /// A symlink or a special file in the way, or a link where a link is wanted.
    pub(super) fn may_replace(&self, dir: &Dir, known: &SourceObject) -> Result<bool, Trouble> {
        let name = known.path.name();
        let stat = dir
            .stat(name)
            .map_err(|error| self.error(&known.path, "look at", error))?;
        let what = match stat.map(|stat| stat.st_mode & libc::S_IFMT) {
            Some(libc::S_IFDIR) => return Err(Trouble::Conflict("a directory is in its place".into())),
            Some(libc::S_IFLNK) => "a symlink",
            Some(libc::S_IFREG) => "a file",
            Some(_) => "a special file",
            None => return Ok(true),
        };
        match self.shared.on_conflict {
            OnConflict::Skip => {
                self.count(|counts| counts.skipped += 1);
                Ok(false)
            }
            OnConflict::Overwrite | OnConflict::Refresh if self.shared.force => Ok(true),
            OnConflict::Overwrite | OnConflict::Refresh if what == "a symlink" => Ok(true),
            _ => Err(Trouble::Conflict(format!("{what} is in its place"))),
        }
    }
}
