//! Symlinks: the object's body is the target.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;

use super::{Made, Maker, SourceObject, Trouble, spare_name};
use crate::import::path::stays_inside;
use crate::store::StoreError;
use crate::transfer::TransferError;

/// The longest target that the kernel takes.
const LONGEST: u64 = 4095;

impl Maker<'_> {
    pub(super) fn make_link(&self, known: &SourceObject) -> Made {
        let shared = self.shared;
        let path = &known.path;
        if known.entry.size == 0 || known.entry.size > LONGEST {
            return Err(Trouble::Refused("a symlink's target has 1 to 4095 bytes".into()));
        }
        let location = self.location(known);
        let target = match shared.transfer(&self.lane).read_small(&location) {
            Ok(target) => target,
            Err(TransferError::Store(StoreError::Frozen { .. })) => return Err(self.frozen(&location)),
            Err(error) => return Err(self.store_error(error)),
        };
        if target.contains(&0) {
            return Err(Trouble::Refused("the symlink's target has a NUL".into()));
        }
        if !shared.outside_links && !stays_inside(path, &target) {
            return Err(Trouble::Refused(
                "the symlink leads out of the target directory (--outside-links takes it)".into(),
            ));
        }
        if shared.dry_run {
            self.count(|counts| counts.links += 1);
            return Ok(());
        }
        let dir = self.parent(path)?;
        let target = OsStr::from_bytes(&target);
        match dir.make_link(path.name(), target) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if dir.read_link(path.name()).is_ok_and(|found| found == target) {
                    self.count(|counts| counts.same += 1);
                    return Ok(());
                }
                if !self.may_replace(&dir, known)? {
                    return Ok(());
                }
                let spare = spare_name();
                let replaced = dir
                    .make_link(&spare, target)
                    .and_then(|()| dir.rename(&spare, path.name(), true));
                replaced.map_err(|error| self.error(path, "replace", error))?;
            }
            Err(error) => return Err(self.error(path, "make", error)),
        }
        let attributes = self.attributes(known, libc::S_IFLNK | 0o777);
        dir.set_link_attributes(path.name(), &attributes)
            .map_err(|error| self.error(path, "set the attributes of", error))?;
        self.count(|counts| counts.links += 1);
        Ok(())
    }
}
