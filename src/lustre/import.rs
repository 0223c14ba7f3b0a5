//! Released files out of nothing: `llapi_hsm_import`, and files by their paths.

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::path::{Path, PathBuf};

use super::bindings::{HS_DIRTY, HS_EXISTS, HS_LOST};
use super::mount::{Identify, MAP_XATTR};
use super::{HsmStates, Library, Mount, MountError, xattr};
use crate::action::HsmError;
use crate::types::{ArchiveId, Fid, Timestamp, Xattr};

/// What one plain stripe can hold on ldiskfs; larger files need more of them, or the MDT says EFBIG.
const STRIPE: u64 = 16 << 40;

/// A file in a directory that is open: its last name is all that the kernel looks up.
#[derive(Clone, Copy, Debug)]
pub struct EntryAt<'a> {
    /// The directory.
    pub dir: BorrowedFd<'a>,
    /// The name in it.
    pub name: &'a OsStr,
}

impl EntryAt<'_> {
    /// For calls that only know paths.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new("/proc/self/fd")
            .join(self.dir.as_raw_fd().to_string())
            .join(self.name)
    }
}

/// What a released file is made with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Imported {
    /// Whose copy it has.
    pub archive_id: ArchiveId,
    /// Permissions; only the lower nine bits are taken.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of the file's data, which is in its copy.
    pub size: u64,
    /// Last access; seconds are kept.
    pub atime: Timestamp,
    /// Last change; seconds are kept.
    pub mtime: Timestamp,
    /// Stripe size and count; `None`: the directory's default.
    pub stripes: Option<(u64, u16)>,
}

/// What can be said of a file's copy by hand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HsmMark {
    /// The copy is gone for good: nobody restores or releases.
    Lost,
    /// It is there again.
    Found,
    /// The data must be archived again before it can be released.
    Dirty,
}

impl Mount {
    /// Opens the Lustre that `path` is in.
    ///
    /// # Errors
    /// It is in none.
    pub fn around(library: Library, path: &Path, identify: Identify) -> Result<Self, MountError> {
        let start = path.canonicalize().map_err(|source| MountError::Open {
            path: path.to_owned(),
            source,
        })?;
        let root = start.ancestors().find(|dir| dir.join(".lustre/fid").is_dir());
        Self::open(library, root.unwrap_or(&start), identify)
    }

    /// Makes a released file.
    ///
    /// # Errors
    /// EEXIST (a file or link is there; untouched), ENOTTY (a directory is), EFBIG, and others of the system.
    pub fn import(&self, at: EntryAt<'_>, file: &Imported) -> Result<Fid, HsmError> {
        let invalid = || HsmError::new("llapi_hsm_import", libc::EINVAL);
        #[expect(unsafe_code, reason = "a C struct of numbers")]
        // SAFETY: all-zero bytes are a valid struct stat.
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        stat.st_mode = libc::S_IFREG | (file.mode & 0o777);
        stat.st_uid = file.uid;
        stat.st_gid = file.gid;
        stat.st_size = i64::try_from(file.size).map_err(|_| HsmError::new("llapi_hsm_import", libc::EFBIG))?;
        stat.st_atime = file.atime.seconds;
        stat.st_mtime = file.mtime.seconds;
        let (size, count) = file.stripes.unwrap_or((0, 0));
        let needed = u16::try_from(file.size.div_ceil(STRIPE)).map_err(|_| invalid())?;
        let count = if needed > 1 { count.max(needed) } else { count };
        self.library().import(&at.path(), file.archive_id, &stat, size, count)
    }

    /// A file by its descriptor, and a path that means it while that is open, whatever gets its name. Reads nothing.
    ///
    /// # Errors
    /// ENOENT, ELOOP for a symlink, and others of the system.
    pub fn pinned(&self, path: &Path) -> Result<(File, PathBuf), HsmError> {
        let (file, fid) = self.open_quietly(path)?;
        Ok((file, self.by_fid(fid)))
    }

    /// Neither restores a file nor changes its times.
    pub(super) fn open_quietly(&self, path: &Path) -> Result<(File, Fid), HsmError> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let open = |flags: i32| {
            let flags = flags | libc::O_NOFOLLOW | libc::O_NONBLOCK;
            File::options().read(true).custom_flags(flags).open(path)
        };
        let file = match open(libc::O_NOATIME) {
            // Others' files, without CAP_FOWNER.
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => open(0),
            opened => opened,
        };
        let file = file.map_err(|error| HsmError::io("open", &error))?;
        let fid = self.library().fid_of(file.as_fd())?;
        Ok((file, fid))
    }

    /// The FID of a file, directory or symlink.
    ///
    /// # Errors
    /// ENOENT when it is gone.
    pub fn fid_at(&self, path: &Path) -> Result<Fid, HsmError> {
        self.library().fid_at(path)
    }

    /// What HSM knows of a file.
    ///
    /// # Errors
    /// ENOENT when it is gone.
    pub fn states_at(&self, path: &Path) -> Result<HsmStates, HsmError> {
        self.library().hsm_state(path)
    }

    /// Changes what HSM knows of a file's copy.
    ///
    /// # Errors
    /// The failed call.
    pub fn mark(&self, path: &Path, mark: HsmMark) -> Result<(), HsmError> {
        let (set, clear) = match mark {
            HsmMark::Lost => (HS_LOST, 0),
            HsmMark::Found => (0, HS_LOST),
            HsmMark::Dirty => (HS_EXISTS | HS_DIRTY, 0),
        };
        self.library().change_hsm_states(path, set, clear)
    }

    /// The record of where a file's copy is.
    ///
    /// # Errors
    /// The failed call.
    pub fn map_at(path: &Path) -> Result<Option<Vec<u8>>, HsmError> {
        xattr::get(path, MAP_XATTR)
    }

    /// Writes that record.
    ///
    /// # Errors
    /// The failed call.
    pub fn set_map_at(path: &Path, record: &[u8]) -> Result<(), HsmError> {
        xattr::set(path, MAP_XATTR, record)
    }

    /// Sets an extended attribute, no symlink followed.
    ///
    /// # Errors
    /// The failed call.
    pub fn set_xattr_at(path: &Path, name: &CStr, value: &[u8]) -> Result<(), HsmError> {
        xattr::set(path, name, value)
    }

    /// The extended attributes of an open file or directory that go into its object.
    ///
    /// # Errors
    /// The failed call.
    pub fn xattrs_of(&self, file: &File) -> Result<Vec<Xattr>, HsmError> {
        xattr::all(file.as_fd(), |name| self.is_archived_xattr(name))
    }
}
