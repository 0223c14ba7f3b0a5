//! Released files.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::existing::{Existing, FileSnapshot};
use super::{Made, Maker, SourceObject, Trouble, lock, spare_name};
use crate::action::{FileSystem as _, HsmError};
use crate::import::path::TreePath;
use crate::import::report::Outcome;
use crate::import::tree::Dir;
use crate::lustre::{Imported, Mount, is_acl, is_users_xattr, layout};
use crate::nodes::GROUP_BITS;
use crate::store::{Location, Owner};
use crate::types::{ErrorClass, Fid};

/// One file's attributes are limited: 4 KiB without `ea_inode`, which the MDT says with ENOSPC.
const fn is_too_much(error: &HsmError) -> bool {
    matches!(error.class(), ErrorClass::Full | ErrorClass::TooMuch)
}

/// What this file system does not take as an ACL, whatever is tried.
const fn is_no_acl(error: &HsmError) -> bool {
    is_too_much(error)
        || matches!(
            error.class(),
            ErrorClass::Unsupported
                | ErrorClass::NotImplemented
                | ErrorClass::Invalid
                | ErrorClass::OutOfRange
                | ErrorClass::Refused
                | ErrorClass::Denied
        )
}

/// Permissions of a file until its ACL is set, which brings the group's own along.
fn before_acl(known: &SourceObject, mode: u32) -> u32 {
    let has_acl = known.told.xattrs.iter().any(|(name, _)| is_acl(name));
    if has_acl { mode & !GROUP_BITS } else { mode }
}

/// Why a file is not made.
enum Importing {
    Exists,
    Trouble(Trouble),
}

/// Where a file is made.
enum Onto<'a> {
    /// On a name that is free.
    Free,
    /// On one that is another's, which was looked at.
    Over(&'a FileSnapshot),
}

impl Maker<'_> {
    pub(super) fn make_file(&self, known: &SourceObject) -> Made {
        let path = &known.path;
        if self.shared.dry_run {
            self.count_file(known);
            return Ok(());
        }
        if self.made_way(&known.entry.key) {
            return Ok(());
        }
        let dir = self.parent(path)?;
        let there = if dir.is_fresh() {
            None
        } else {
            dir.stat(path.name())
                .map_err(|error| self.error(path, "look at", error))?
        };
        if there.is_none() {
            match self.import(&dir, known, &Onto::Free) {
                Ok(()) if self.made_way(&known.entry.key) => {
                    return match dir.remove(path.name()) {
                        // The directory has its place already, or the other one took it away.
                        Err(error)
                            if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::IsADirectory) =>
                        {
                            Err(self.error(path, "remove", error))
                        }
                        _ => Ok(()),
                    };
                }
                Ok(()) => {
                    self.count_file(known);
                    return self.make_further_names(&dir, known);
                }
                Err(Importing::Exists) => {}
                Err(Importing::Trouble(trouble)) => return Err(trouble),
            }
        }
        match self.existing(&dir, known)? {
            Existing::Leave => Ok(()),
            Existing::Complete => {
                // A former run died between the two.
                let fid = self.shared.mount.fid_at(&dir.at(path.name()).path());
                let fid = fid.map_err(|error| self.hsm_error(path, &error))?;
                self.complete(&dir, path.name(), fid, known)?;
                self.count_file(known);
                self.make_further_names(&dir, known)
            }
            Existing::Half => {
                dir.remove(path.name())
                    .map_err(|error| self.error(path, "remove", error))?;
                self.make_file(known)
            }
            Existing::Replace(seen) => {
                if !self.is_current(known, &seen)? {
                    self.count(|counts| counts.same += 1);
                    return Ok(());
                }
                match self.import(&dir, known, &Onto::Over(&seen)) {
                    Ok(()) => {
                        self.count(|counts| {
                            counts.updated += 1;
                            counts.bytes += known.entry.size;
                        });
                        Ok(())
                    }
                    Err(Importing::Exists) => Err(Trouble::Conflict("something took its place meanwhile".into())),
                    Err(Importing::Trouble(trouble)) => Err(trouble),
                }
            }
            Existing::Beside(beside) => {
                let reason = format!("its path is another object's; it is '{}'", beside.as_path().display());
                self.shared.report.say(Outcome::Renamed, &known.entry.key, &reason);
                self.make_file(&SourceObject {
                    path: beside,
                    ..known.clone()
                })
            }
        }
    }

    fn count_file(&self, known: &SourceObject) {
        if lock(&self.shared.crowds).add(known.path.parent()) {
            let directory = known.path.parent().display();
            tracing::warn!(%directory, "a million files in one directory: Lustre is slow there");
            self.warn(
                known,
                &format!("'{directory}' has a million entries by now: Lustre is slow there"),
            );
        }
        self.count(|counts| {
            counts.imported += 1;
            counts.bytes += known.entry.size;
        });
    }

    /// Makes the file: in place where nobody else can make names, else under a name that nobody can guess.
    fn import(&self, dir: &Dir, known: &SourceObject, onto: &Onto<'_>) -> Result<(), Importing> {
        let path = &known.path;
        let over = matches!(onto, Onto::Over(_));
        let in_place = dir.is_safe() && !over;
        let name = if in_place { path.name().to_owned() } else { spare_name() };
        let attributes = self.attributes(known, self.shared.defaults.file_mode);
        let file = Imported {
            archive_id: self.shared.archive_id,
            mode: before_acl(known, attributes.mode),
            uid: attributes.uid,
            gid: attributes.gid,
            size: known.entry.size,
            atime: attributes.atime,
            mtime: attributes.mtime,
            stripes: known.told.layout.as_deref().and_then(layout::plain_stripes),
        };
        let fid = match self.shared.mount.import(dir.at(&name), &file) {
            Ok(fid) => fid,
            Err(error) if matches!(error.class(), ErrorClass::Taken | ErrorClass::WrongKind) => {
                return Err(Importing::Exists);
            }
            Err(error) => return Err(Importing::Trouble(self.hsm_error(path, &error))),
        };
        let completed = self.complete(dir, &name, fid, known).map_err(Importing::Trouble);
        let completed = completed.and_then(|()| {
            if in_place {
                return Ok(());
            }
            if let Onto::Over(seen) = onto {
                self.unchanged(dir, known, seen).map_err(Importing::Trouble)?;
            }
            dir.rename(&name, path.name(), over)
                .map_err(|error| match error.kind() {
                    io::ErrorKind::AlreadyExists | io::ErrorKind::IsADirectory => Importing::Exists,
                    _ => Importing::Trouble(self.error(path, "name", error)),
                })
        });
        if completed.is_err()
            && let Err(error) = dir.remove(&name)
        {
            tracing::warn!(name = %name.display(), %error, "a file that could not be completed is left");
        }
        completed
    }

    /// All that an import does not set, the record of the copy last.
    fn complete(&self, dir: &Dir, name: &OsStr, fid: Fid, known: &SourceObject) -> Made {
        let path = &known.path;
        let attributes = self.attributes(known, self.shared.defaults.file_mode);
        // Owner and nine bits are set; setuid went with the change of owner.
        if attributes.mode & 0o7000 != 0 {
            dir.chmod(name, before_acl(known, attributes.mode))
                .map_err(|error| self.error(path, "set the permissions of", error))?;
        }
        let at = dir.at(name).path();
        for (xattr, value) in &known.told.xattrs {
            // A bucket's word is not root's: only what users may set themselves.
            let c_name = std::ffi::CString::new(xattr.as_slice());
            match c_name.ok().filter(|name| is_users_xattr(name.to_bytes())) {
                Some(c_name) => match Mount::set_xattr_at(&at, &c_name, value) {
                    Err(error) if is_acl(xattr) && is_no_acl(&error) => {
                        dir.chmod(name, attributes.mode & !GROUP_BITS)
                            .map_err(|error| self.error(path, "set the permissions of", error))?;
                        let shown = String::from_utf8_lossy(xattr);
                        self.warn(
                            known,
                            &format!("its ACL '{shown}' can't be set ({error}): its group gets no access"),
                        );
                    }
                    // More than this file system keeps for one file.
                    Err(error) if is_too_much(&error) => {
                        let shown = String::from_utf8_lossy(xattr);
                        self.warn(known, &format!("its attribute '{shown}' is left out: {error}"));
                    }
                    set => set.map_err(|error| self.hsm_error(path, &error))?,
                },
                None => {
                    let shown = String::from_utf8_lossy(xattr);
                    self.warn(
                        known,
                        &format!("its attribute '{shown}' is not a user's and is left out"),
                    );
                }
            }
        }
        if attributes.atime.nanos != 0 || attributes.mtime.nanos != 0 {
            dir.set_times(name, attributes.atime, attributes.mtime)
                .map_err(|error| self.error(path, "set the times of", error))?;
        }
        let mut location = Location {
            written_for: Some(Owner {
                fs: self.shared.mount.name().to_owned(),
                fid,
            }),
            ..self.location(known)
        };
        let mut set = Mount::set_map_at(&at, &location.to_bytes());
        if location.layout.is_some() && set.as_ref().is_err_and(is_too_much) {
            self.warn(
                known,
                "its layout is left out: the file's attributes have no room for it",
            );
            location.layout = None;
            set = Mount::set_map_at(&at, &location.to_bytes());
        }
        match set {
            // A file system that is full takes no new file either, and says so of the next one.
            Err(error) if is_too_much(&error) => Err(Trouble::Failed(format!(
                "its attributes leave no room for the record of its copy: {error}"
            ))),
            set => set.map_err(|error| self.hsm_error(path, &error)),
        }
    }

    /// Hard links, as the object tells them; what can't be linked is said.
    fn make_further_names(&self, dir: &Dir, known: &SourceObject) -> Made {
        for link in &known.told.links {
            let below = Path::new(OsStr::from_bytes(link))
                .strip_prefix(&self.shared.target)
                .ok();
            let below = below.and_then(|below| TreePath::recorded(below.as_os_str().as_bytes()).ok());
            let Some(below) = below.filter(|below| below.as_path() != known.path.as_path()) else {
                continue;
            };
            let linked = self.parent(&below).and_then(|to| {
                dir.link(known.path.name(), &to, below.name())
                    .map_err(|error| self.error(&below, "link", error))
            });
            match linked {
                Ok(()) => {}
                Err(Trouble::Fatal(fatal)) => return Err(fatal.into()),
                Err(Trouble::Refused(reason) | Trouble::Conflict(reason) | Trouble::Failed(reason)) => {
                    let name = below.as_path().display();
                    self.warn(known, &format!("its further name '{name}': {reason}"));
                }
            }
        }
        Ok(())
    }
}
