//! A restore from its begin to its end, without a handle of the library's. `llapi_hsm_action_end` syncs the file and sets its
//! times itself; where that fails, for this client was evicted meanwhile, it tells the coordinator that the restore has failed,
//! its readers get an error, and its caller hears that all is well. Here the coordinator is told nothing before both have gone
//! well, and what fails is the caller's to know.
//!
//! The steps, and their order, are those of liblustreapi_hsm.c (2.17).

use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::fchown;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use super::ioctl::{Times, c_fid};
use super::{Mount, handles, ioctl};
use crate::action::{HsmError, Item};
use crate::types::{ErrorClass, Extent, Fid};

/// `LUSTRE_VOLATILE_HDR` (lustre_user.h): what a name begins with that no directory gets.
const VOLATILE: &str = ".\x0c\x13\x14\x12:VOLATILE";
/// Names that are taken before it is given up to find one that is not.
const MOST_NAMES: u32 = 16;

/// Why a restore did not end well.
#[derive(Debug)]
pub(super) enum EndError {
    /// The coordinator was told nothing: the file can't be known to be whole, or to be there.
    Untold(HsmError),
    /// The call by which it is told failed: its objection, or nobody heard it.
    Told(HsmError),
}

/// A restore that was begun, with the file that is to take the released one's place (volatile: it has no name, and goes with
/// its last descriptor). One that is dropped is answered EIO and logged as a defect.
#[derive(Debug)]
pub(super) struct Restoring {
    mount: Arc<Mount>,
    item: Item,
    file: File,
    /// The volatile file's FID.
    dfid: Fid,
    /// Those of the released file.
    times: Times,
    /// It was answered, or is somebody else's to answer.
    is_over: bool,
}

impl Restoring {
    /// Begins the restore `item`. `mdt_index` and `open_flags` are those of the volatile file; an index below 0 is any MDT.
    ///
    /// # Errors
    /// The failed call. Nothing was begun, and the coordinator still waits.
    pub(super) fn begin(mount: &Arc<Mount>, item: &Item, mdt_index: i32, open_flags: i32) -> Result<Self, HsmError> {
        let stat = ioctl::attributes(mount.by_fid_directory()?, item.fid)?;
        let source = open_by_fid(mount, item.dfid)?;
        let file = make_volatile(mount, item.fid, mdt_index, open_flags, &source)?;
        fchown(&file, Some(stat.st_uid), Some(stat.st_gid)).map_err(|error| HsmError::io("fchown", &error))?;
        // Not before: a client looks at it when an encrypted file gets its owner. Nor much later: whoever sees the restore's
        // end may release the file at once, which nobody may have open then.
        drop(source);
        let dfid = mount.library().fid_of(file.as_fd())?;
        let mut hai = handles::c_item(item);
        hai.hai_dfid = c_fid(dfid);
        ioctl::copy_start(mount.descriptor(), hai)?;
        let time = |seconds: i64, nanoseconds: i64| [seconds.cast_unsigned(), nanoseconds.cast_unsigned()];
        Ok(Self {
            mount: Arc::clone(mount),
            item: item.clone(),
            file,
            dfid,
            times: [
                time(stat.st_atime, stat.st_atime_nsec),
                time(stat.st_mtime, stat.st_mtime_nsec),
                time(stat.st_ctime, stat.st_ctime_nsec),
            ],
            is_over: false,
        })
    }

    /// A new descriptor of the volatile file.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn file(&self) -> Result<File, HsmError> {
        self.file.try_clone().map_err(|error| HsmError::io("dup", &error))
    }

    /// Tells the coordinator that the file is whole, of which `copied` bytes were moved. No other descriptor of it may be open.
    ///
    /// # Errors
    /// The coordinator's objection, or that it was not told. The volatile file is gone all the same.
    pub(super) fn end(mut self, copied: u64) -> Result<(), EndError> {
        self.is_over = true;
        // Both wait while a server does not answer, and fail where this client was evicted before: the first one by the
        // bytes that went with it, the second one by the file, which the MDT has deleted.
        self.file
            .sync_all()
            .map_err(|error| EndError::Untold(HsmError::io("fsync", &error)))?;
        ioctl::set_times(self.file.as_fd(), &self.times).map_err(EndError::Untold)?;
        // The file is open until the coordinator has it: else the MDT finds no data to swap in.
        self.tell(self.dfid, copied, 0).map_err(EndError::Told)
    }

    /// Tells the coordinator that it failed, with a positive errno.
    ///
    /// # Errors
    /// The coordinator's objection. The volatile file is gone all the same.
    pub(super) fn fail(mut self, copied: u64, errval: i32) -> Result<(), HsmError> {
        self.is_over = true;
        // By the file's own FID, which the MDT takes whatever data FID it has heard of.
        self.tell(self.item.fid, copied, errval)
    }

    /// Tells nobody, for the restore is begun anew or forgotten. The volatile file goes.
    pub(super) fn let_go(mut self) {
        self.is_over = true;
    }

    /// Tells nobody, and leaves the volatile file open until this process ends: to close it asks an MDT, which may not answer.
    pub(super) fn leave(self) {
        std::mem::forget(self);
    }

    /// `fid`: that of the data.
    fn tell(&self, fid: Fid, copied: u64, errval: i32) -> Result<(), HsmError> {
        let mut hai = handles::c_item(&self.item);
        hai.hai_fid = c_fid(fid);
        hai.hai_dfid = c_fid(self.dfid);
        hai.hai_extent = ioctl::c_extent(Extent {
            offset: 0,
            length: copied,
        });
        ioctl::copy_end(self.mount.descriptor(), hai, errval)
    }
}

impl Drop for Restoring {
    /// A reader may wait for it.
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        tracing::error!("a restore was begun and not ended; answering EIO. This is a defect: please report it");
        if let Err(error) = self.tell(self.item.fid, 0, libc::EIO) {
            tracing::error!(%error, "and the coordinator did not take it");
        }
    }
}

/// The released file, whose bytes are not asked for by that.
fn open_by_fid(mount: &Mount, fid: Fid) -> Result<File, HsmError> {
    let path = Path::new(".lustre/fid").join(fid.to_string());
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let open = |flags| openat(mount.descriptor(), &path, flags, Mode::empty());
    let opened = match open(flags | OFlag::O_NOATIME) {
        // Others' files, without CAP_FOWNER.
        Err(Errno::EPERM) => open(flags),
        opened => opened,
    };
    opened
        .map(File::from)
        .map_err(|error| HsmError::new("openat", error as i32))
}

/// In the file's directory, for what a file gets from there; where that is not found, in the root directory.
fn make_volatile(mount: &Mount, fid: Fid, mdt: i32, open_flags: i32, source: &File) -> Result<File, HsmError> {
    let path = mount.library().fid2path(mount.path(), fid);
    let dir = match &path {
        Ok(path) => path.parent().unwrap_or(Path::new("")),
        Err(error) => {
            tracing::debug!(%fid, %error, "the file's directory is not known; its data comes by way of the root directory");
            Path::new("")
        }
    };
    let is_root = dir.as_os_str().is_empty();
    match make_in(mount, dir, mdt, open_flags, source) {
        // Moved, or removed, in between; or its name is longer than a path can be.
        Err(error) if !is_root && is_lost(error.class()) => make_in(mount, Path::new(""), mdt, open_flags, source),
        made => made,
    }
}

const fn is_lost(class: ErrorClass) -> bool {
    matches!(
        class,
        ErrorClass::Gone | ErrorClass::NoDirectory | ErrorClass::NameTooLong | ErrorClass::Stale
    )
}

fn make_in(mount: &Mount, dir: &Path, mdt: i32, open_flags: i32, source: &File) -> Result<File, HsmError> {
    let mdt = u32::try_from(mdt).map_or_else(|_| String::new(), |index| format!("{index:04X}"));
    let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let flags = flags | OFlag::from_bits_retain(open_flags);
    for _ in 0..MOST_NAMES {
        // The MDT and any number; clients of 2.14 and later find by the descriptor what an encrypted file needs.
        let number = fastrand::u32(..);
        let name = format!("{VOLATILE}:{mdt}:{number:04X}:fd={:02}", source.as_raw_fd());
        let path: PathBuf = dir.join(name);
        match openat(mount.descriptor(), &path, flags, Mode::S_IRUSR | Mode::S_IWUSR) {
            Ok(file) => return Ok(file.into()),
            Err(Errno::EEXIST) => {}
            Err(error) => return Err(HsmError::new("openat", error as i32)),
        }
    }
    Err(HsmError::of("openat", ErrorClass::Taken))
}
