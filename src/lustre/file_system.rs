//! The file system as workers see it: [`FileSystem`] over a mount.

use std::ffi::{CStr, CString};
use std::fs::{File, Metadata};
use std::os::fd::AsFd as _;
use std::path::PathBuf;

use super::bindings::{HS_ARCHIVED, HS_DIRTY, HS_EXISTS, HS_LOST, HS_RELEASED};
use super::mount::{LAYOUT_XATTR, MAP_XATTR};
use super::{Mount, UserAction, ioctl, xattr};
use crate::action::{ActionKey, CopyState, Deletions, FileSystem, HsmError};
use crate::types::{ArchiveId, Domain, Extent, ExtraMetadata, Fid, Sequences, Timestamp};

/// When a file was restored last, in seconds since 1970: [`FileSystem::note_restored`].
const RESTORED_XATTR: &CStr = c"trusted.lhsm_s3_restored";
/// With the number of whoever is about to delete an object of the file behind it: [`FileSystem::announce_deletion`].
const DELETING_XATTRS: &str = "trusted.lhsm_s3_deleting.";
/// [`FileSystem::note_deletion`].
const DELETED_XATTR: &CStr = c"trusted.lhsm_s3_deleted";
/// HSM's own (`struct hsm_attrs`, little-endian): compat u32, flags u32, archive id u64, data version of the copy u64.
const HSM_XATTR: &CStr = c"trusted.hsm";
const DATA_VERSION_AT: usize = 16;
/// More would not fit into an object's metadata.
const MOST_LINKS: usize = 64;

impl FileSystem for Mount {
    fn name(&self) -> &str {
        &self.identity
    }

    fn path_of(&self, fid: Fid) -> Result<PathBuf, HsmError> {
        self.library().fid2path(self.path(), fid)
    }

    fn imported_until(&self) -> Result<Option<i64>, HsmError> {
        self.imports_until()
    }

    fn map(&self, fid: Fid) -> Result<Option<Vec<u8>>, HsmError> {
        xattr::get(&self.by_fid(fid), MAP_XATTR).map_err(|error| self.unless_unmounted(error))
    }

    fn set_map(&self, fid: Fid, record: &[u8]) -> Result<(), HsmError> {
        xattr::set(&self.by_fid(fid), MAP_XATTR, record).map_err(|error| self.unless_unmounted(error))
    }

    fn clear_map(&self, fid: Fid) -> Result<(), HsmError> {
        xattr::remove(&self.by_fid(fid), MAP_XATTR).map_err(|error| self.unless_unmounted(error))
    }

    fn announce_deletion(&self, fid: Fid, number: u64, words: &[u8]) -> Result<(), HsmError> {
        let said = xattr::set(&self.by_fid(fid), &deleting(number)?, words);
        said.map_err(|error| self.unless_unmounted(error))
    }

    fn withdraw_deletion(&self, fid: Fid, number: u64) -> Result<(), HsmError> {
        let removed = xattr::remove(&self.by_fid(fid), &deleting(number)?);
        removed.map_err(|error| self.unless_unmounted(error))
    }

    fn note_deletion(&self, fid: Fid, words: &[u8]) -> Result<(), HsmError> {
        xattr::set(&self.by_fid(fid), DELETED_XATTR, words).map_err(|error| self.unless_unmounted(error))
    }

    fn deletions(&self, fid: Fid) -> Result<Deletions, HsmError> {
        let path = self.by_fid(fid);
        let mut deletions = Deletions::default();
        let mut is_noted = false;
        for name in xattr::names(&path).map_err(|error| self.unless_unmounted(error))? {
            is_noted |= name == DELETED_XATTR.to_bytes();
            let number = std::str::from_utf8(&name)
                .ok()
                .and_then(|name| name.strip_prefix(DELETING_XATTRS))
                .and_then(|digits| u64::from_str_radix(digits, 16).ok());
            if let Some(number) = number {
                match xattr::get(&path, &deleting(number)?)? {
                    Some(words) => deletions.announced.push((number, words)),
                    // Taken back since, and noted before that if something was deleted.
                    None => is_noted = true,
                }
            }
        }
        if is_noted {
            deletions.done = xattr::get(&path, DELETED_XATTR)?;
        }
        Ok(deletions)
    }

    fn note_restored(&self, fid: Fid) -> Result<(), HsmError> {
        let now = Timestamp::now().seconds.to_string();
        xattr::set(&self.by_fid(fid), RESTORED_XATTR, now.as_bytes()).map_err(|error| self.unless_unmounted(error))
    }

    fn is_released(&self, fid: Fid) -> Result<bool, HsmError> {
        Ok(self.states(fid)? & HS_RELEASED != 0)
    }

    fn is_archived(&self, fid: Fid) -> Result<bool, HsmError> {
        let states = self.states(fid)?;
        Ok(states & HS_RELEASED != 0 || states & (HS_ARCHIVED | HS_DIRTY) == HS_ARCHIVED)
    }

    fn copy_state(&self, fid: Fid) -> Result<CopyState, HsmError> {
        let states = self.states_of(fid).map_err(|error| self.unless_gone(fid, error))?;
        Ok(states.copy())
    }

    fn has_archive(&self, fid: Fid) -> Result<bool, HsmError> {
        self.is_being_archived(fid)
            .map_err(|error| self.unless_gone(fid, error))
    }

    fn prepare_archive(&self, fid: Fid, id: Option<ArchiveId>) -> Result<CopyState, HsmError> {
        let states = self.states_of(fid).map_err(|error| self.unless_gone(fid, error))?;
        let mut copy = states.copy();
        // The coordinator sets EXISTS when it sends an archive; the end of a remove that was sent before takes it away.
        if !states.exists() && !states.released() {
            tracing::info!(%fid, "a remove came between; EXISTS is set again");
            copy.archive_id = id.or(copy.archive_id);
            let id = id.map_or(0, ArchiveId::get);
            self.library()
                .change_hsm_states_in(&self.by_fid(fid), HS_EXISTS, 0, id)
                .map_err(|error| self.unless_gone(fid, error))?;
        }
        Ok(copy)
    }

    fn ask_again(&self, fid: Fid, id: Option<ArchiveId>) -> Result<bool, HsmError> {
        // One that was stopped or restarted leaves the archive STARTED in its log; a cancel, a purge and a time-out of its
        // own do not.
        if !self.is_being_archived(fid)? || self.is_archived(fid)? {
            return Ok(false);
        }
        self.request(UserAction::Archive, id, &[fid])?;
        Ok(true)
    }

    fn extras(&self, fid: Fid, file: &File) -> Result<ExtraMetadata, HsmError> {
        use std::os::unix::ffi::OsStringExt as _;
        use std::os::unix::fs::MetadataExt as _;
        let path = self.by_fid(fid);
        let mut extras = ExtraMetadata {
            xattrs: xattr::all(file.as_fd(), |name| self.is_archived_xattr(name))?,
            layout: xattr::get(&path, LAYOUT_XATTR).unwrap_or_default(),
            ..ExtraMetadata::default()
        };
        let links = file.metadata().map_err(|error| HsmError::io("fstat", &error))?.nlink();
        let mut next = (links > 1).then_some(0);
        while let Some(link) = next
            && extras.links.len() < MOST_LINKS
        {
            let (path, following) = self.library().name_of(self.path(), fid, link)?;
            extras.links.push(path.into_os_string().into_vec());
            next = following;
        }
        Ok(extras)
    }

    fn size_of(&self, fid: Fid) -> Result<u64, HsmError> {
        Ok(self.attributes(fid)?.len())
    }

    fn is_unlinked(&self, fid: Fid) -> Result<bool, HsmError> {
        use std::os::unix::fs::MetadataExt as _;
        match self.attributes(fid) {
            Ok(stat) => Ok(stat.nlink() == 0),
            Err(error) if matches!(error.errno, libc::ENOENT | libc::ESTALE) => Ok(true),
            Err(error) => Err(error),
        }
    }

    fn data_version(&self, file: &File) -> Option<u64> {
        self.library().data_version(file.as_fd())
    }

    fn archived_version(&self, fid: Fid) -> Option<u64> {
        let attributes = xattr::get(&self.by_fid(fid), HSM_XATTR).ok().flatten()?;
        let (bytes, _) = attributes.get(DATA_VERSION_AT..)?.split_first_chunk()?;
        // 0: by `lfs hsm_set`, or an import.
        Some(u64::from_le_bytes(*bytes)).filter(|version| *version != 0)
    }

    fn mtime_of(&self, fid: Fid) -> Option<Timestamp> {
        use std::os::unix::fs::MetadataExt as _;
        let stat = self.attributes(fid).ok()?;
        Some(Timestamp {
            seconds: stat.mtime(),
            nanos: u32::try_from(stat.mtime_nsec()).ok()?,
        })
    }

    fn revoke(&self, fid: Fid) -> Result<(), HsmError> {
        self.library()
            .change_hsm_states(&self.by_fid(fid), 0, HS_ARCHIVED | HS_LOST)
            .map_err(|error| self.unless_gone(fid, error))
    }

    fn may_change_fids(&self) -> bool {
        self.migrates && self.mdts.may_be_several()
    }

    fn keeps_fids(&self) -> bool {
        !self.migrates
    }

    fn sequences(&self) -> Sequences {
        self.mdts.sequences().clone()
    }

    fn find_mdt(&self, fid: Fid) -> Domain {
        self.mdts.find(fid)
    }

    fn progress(&self, key: ActionKey, extent: Extent) -> Result<(), HsmError> {
        ioctl::progress(self.descriptor(), key.fid, key.cookie, extent)?;
        self.mdts.prove(key.fid);
        Ok(())
    }
}

fn deleting(number: u64) -> Result<CString, HsmError> {
    let name = format!("{DELETING_XATTRS}{number:016x}");
    CString::new(name).map_err(|_| HsmError::new("lsetxattr", libc::EINVAL))
}

impl Mount {
    fn attributes(&self, fid: Fid) -> Result<Metadata, HsmError> {
        let stat = std::fs::symlink_metadata(self.by_fid(fid));
        stat.map_err(|error| self.unless_unmounted(HsmError::io("lstat", &error)))
    }

    fn states(&self, fid: Fid) -> Result<u32, HsmError> {
        let states = self.library().hsm_states(&self.by_fid(fid));
        states.map_err(|error| self.unless_gone(fid, error))
    }

    /// A file that is not found below what is not the file system any more may well be there.
    /// An open by FID of a file that is gone is ENOENT, or EFAULT where that was on another MDT than `.lustre/fid` (2.17:
    /// mdt_cross_open, which says the same when it can't tell where the file is). A look tells.
    fn unless_gone(&self, fid: Fid, error: HsmError) -> HsmError {
        if error.errno == libc::EFAULT && self.is_unlinked(fid).unwrap_or(false) {
            return HsmError::new(error.call, libc::ENOENT);
        }
        self.unless_unmounted(error)
    }

    fn unless_unmounted(&self, error: HsmError) -> HsmError {
        if error.is_not_found() && !self.is_there() {
            return HsmError::new(error.call, libc::ENODEV);
        }
        error
    }
}
