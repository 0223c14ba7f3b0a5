//! llapi_hsm_action_*

use std::collections::HashMap;
use std::ffi::c_int;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, IntoRawFd as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use lhsm_sandbox_protocol::{Action, Fid, Item, Reply, Request};

use crate::abi::{HsmActionItem, HsmExtent, LuFid, rc};
use crate::client::{ask, tell};
use crate::police::{self, Watched};
use crate::registration::Copytool;
use crate::volatile::{check_mdt, given_up, new_volatile, set_times, sync};

/// Below which files are found by their FIDs.
pub(crate) const BY_FID: &str = ".lustre/fid";

/// Seconds and nanoseconds.
pub(crate) type Time = (i64, i64);

/// `struct hsm_copyaction_private`
pub struct CopyAction {
    copytool: *const Copytool,
    item: Item,
    data_version: u64,
    source: Option<(File, Watched)>,
    data: Option<(File, Watched)>,
    /// A restore's: when the file was used and changed last.
    times: (Time, Time),
}

/// Files that are or were read by inode: they have a name more than a user sees.
static SOURCES: Mutex<Option<HashMap<(u64, u64), ()>>> = Mutex::new(None);

pub(crate) fn is_source(inode: (u64, u64)) -> bool {
    let sources = SOURCES.lock().unwrap_or_else(PoisonError::into_inner);
    sources.as_ref().is_some_and(|sources| sources.contains_key(&inode))
}

pub(crate) fn inode(file: &File) -> Result<(u64, u64), i32> {
    let stat = file.metadata().map_err(|error| errno(&error))?;
    Ok((stat.dev(), stat.ino()))
}

pub(crate) fn errno(error: &std::io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

/// What an open by FID fails with. Below `.lustre/fid`, which is on the first MDT, one of a file that is gone from another MDT
/// is EFAULT (2.17: mdt_cross_open, seen live).
pub(crate) fn of_open(mount: &Path, fid: Fid, error: i32) -> i32 {
    match (error, ask(mount, &Request::MdtOf(fid), None)) {
        (libc::ENOENT, Ok(Reply::Ok(mdt))) if mdt > 0 => libc::EFAULT,
        (error, _) => error,
    }
}

impl CopyAction {
    fn begin(
        copytool: *const Copytool,
        ct: &Copytool,
        item: Item,
        restore_mdt: c_int,
        open_flags: c_int,
        is_error: bool,
    ) -> Result<Self, i32> {
        ct.check();
        let mut action = Self {
            copytool,
            item,
            data_version: 0,
            source: None,
            data: None,
            times: ((0, 0), (0, 0)),
        };
        if is_error {
            return Ok(action);
        }
        crate::io::look(&ct.mount);
        match action.item.action {
            Action::Archive => {
                let file = open_by_fid(&ct.mount, action.item.dfid)
                    .map_err(|error| of_open(&ct.mount, action.item.dfid, error))?;
                // Before the lock: the look at the inode comes back here (statx).
                let inode = inode(&file)?;
                SOURCES
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .get_or_insert_default()
                    .insert(inode, ());
                action.source = Some(watched(file));
            }
            Action::Restore => {
                // As the real one: the file must be there, and its path tells where the volatile goes.
                tell(&ct.mount, &Request::State(action.item.fid), None)?;
                let link = ct.mount.join(BY_FID).join(action.item.fid.to_string());
                let stat = std::fs::symlink_metadata(link).map_err(|error| errno(&error))?;
                action.times = ((stat.atime(), stat.atime_nsec()), (stat.mtime(), stat.mtime_nsec()));
                let Reply::Ok(mdt) = ask(&ct.mount, &Request::MdtOf(action.item.fid), None)? else {
                    return Err(libc::EPROTO);
                };
                let mdt = u32::try_from(mdt).unwrap_or(0);
                check_mdt(action.item.fid, mdt, u32::try_from(restore_mdt).ok());
                let (file, dfid) = new_volatile(&ct.mount, mdt, open_flags)?;
                action.item.dfid = dfid;
                action.data = Some(watched(file));
            }
            // Atomic: no COPY_START. The file is opened and closed, for the sake of cached copies (PCC), and may be gone (RAoLU).
            Action::Remove => match tell(&ct.mount, &Request::State(action.item.fid), None) {
                Err(libc::ENOENT) if of_open(&ct.mount, action.item.fid, libc::ENOENT) != libc::ENOENT => {
                    return Err(libc::EFAULT);
                }
                _ => return Ok(action),
            },
            Action::Cancel | Action::Other(_) => {}
        }
        match ask(&ct.mount, &Request::CopyStart(action.item.clone()), None)? {
            Reply::Ok(version) => action.data_version = version,
            _ => return Err(libc::EPROTO),
        }
        Ok(action)
    }

    fn end(&mut self, ct: &Copytool, flags: u16, errval: i32) -> Result<(), i32> {
        ct.check();
        let asked = errval;
        let mut errval = errval;
        let (mut no_layout, mut layout) = (false, None);
        if let Some((file, watch)) = &self.data {
            watch.check("a restore's volatile file");
            if police::others_on(file.as_raw_fd()) > 0 {
                police::violation(&format!(
                    "it ended the restore of {} with another descriptor of its volatile file open; a late write hangs for ever",
                    self.item.fid
                ));
            }
            (no_layout, layout) = given_up(inode(file)?);
            let (atime, mtime) = self.times;
            if errval == 0
                && let Err(error) = sync(&ct.mount, file, self.item.dfid)
                    .and_then(|()| set_times(&ct.mount, file.as_raw_fd(), self.item.dfid, atime, mtime))
            {
                // As the real one: the MDT hears of it, the caller does not.
                errval = error;
            }
        }
        if let Some((_, watch)) = &self.source {
            watch.check("an archive's source file");
        }
        let mut item = self.item.clone();
        if matches!(item.action, Action::Archive) {
            item.fid = item.dfid;
        }
        let request = Request::CopyEnd {
            item,
            flags,
            errval: errval.abs(),
            asked: asked.abs(),
            data_version: self.data_version,
            no_layout,
            layout,
        };
        tell(&ct.mount, &request, self.data.as_ref().map(|(file, _)| file.as_fd()))
    }
}

fn watched(file: File) -> (File, Watched) {
    let watch = Watched::new(file.as_raw_fd());
    (file, watch)
}

fn open_by_fid(mount: &Path, fid: Fid) -> Result<File, i32> {
    tell(mount, &Request::State(fid), None)?;
    let path = mount.join(BY_FID).join(fid.to_string());
    let open = |flags| OpenOptions::new().read(true).custom_flags(flags).open(&path);
    let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW;
    match open(flags | libc::O_NOATIME) {
        // Not the owner.
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => open(flags),
        other => other,
    }
    .map_err(|error| errno(&error))
}

/// Starts an action, or only opens a handle for reporting an error.
///
/// # Safety
/// As in lustreapi.h; `ct` outlives the handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llapi_hsm_action_begin(
    out: *mut *mut CopyAction,
    ct: *const Copytool,
    hai: *const HsmActionItem,
    restore_mdt_index: c_int,
    restore_open_flags: c_int,
    is_error: bool,
) -> c_int {
    if out.is_null() || hai.is_null() {
        return -libc::EINVAL;
    }
    // SAFETY: as the caller promises.
    let Some(copytool) = (unsafe { ct.as_ref() }) else {
        return -libc::EINVAL;
    };
    // SAFETY: not NULL; packed, so any alignment will do.
    let item = unsafe { hai.read_unaligned() };
    match CopyAction::begin(
        ct,
        copytool,
        item.into(),
        restore_mdt_index,
        restore_open_flags,
        is_error,
    ) {
        Ok(action) => {
            let cookie = action.item.cookie;
            let handle = Box::into_raw(Box::new(action));
            police::opened(handle as usize, cookie);
            // SAFETY: not NULL, and the caller's to write.
            unsafe { *out = handle };
            0
        }
        Err(errno) => -errno,
    }
}

/// Ends an action and frees its handle, whatever comes of it.
///
/// # Safety
/// A handle from begin, not given here before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llapi_hsm_action_end(
    out: *mut *mut CopyAction,
    he: *const HsmExtent,
    hp_flags: c_int,
    errval: c_int,
) -> c_int {
    if out.is_null() || he.is_null() {
        return -libc::EINVAL;
    }
    // SAFETY: not NULL.
    let handle = unsafe { *out };
    police::closed(handle as usize);
    // SAFETY: the ledger knows it as a live Box of ours.
    let mut action = unsafe { Box::from_raw(handle) };
    // SAFETY: the caller's variable.
    unsafe { *out = std::ptr::null_mut() };
    // SAFETY: the caller keeps the registration until the last action has ended.
    let Some(copytool) = (unsafe { action.copytool.as_ref() }) else {
        return -libc::EINVAL;
    };
    rc(action.end(copytool, u16::try_from(hp_flags).unwrap_or(0), errval))
}

/// Reports progress on the data's FID.
///
/// # Safety
/// A live handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llapi_hsm_action_progress(
    handle: *mut CopyAction,
    he: *const HsmExtent,
    _total: u64,
    _hp_flags: c_int,
) -> c_int {
    police::used(handle as usize, "llapi_hsm_action_progress");
    // SAFETY: the ledger knows it.
    let (Some(action), false) = (unsafe { handle.as_ref() }, he.is_null()) else {
        return -libc::EINVAL;
    };
    // SAFETY: not NULL; packed.
    let extent = unsafe { he.read_unaligned() };
    // SAFETY: the caller keeps the registration until the last action has ended.
    let Some(copytool) = (unsafe { action.copytool.as_ref() }) else {
        return -libc::EINVAL;
    };
    let request = Request::Progress {
        fid: action.item.dfid,
        cookie: action.item.cookie,
        offset: extent.offset,
        length: extent.length,
    };
    rc(tell(&copytool.mount, &request, None))
}

/// The FID of the file that holds the data.
///
/// # Safety
/// A live handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llapi_hsm_action_get_dfid(handle: *const CopyAction, out: *mut LuFid) -> c_int {
    police::used(handle as usize, "llapi_hsm_action_get_dfid");
    // SAFETY: the ledger knows it.
    let Some(action) = (unsafe { handle.as_ref() }) else {
        return -libc::EINVAL;
    };
    if !matches!(action.item.action, Action::Archive | Action::Restore) {
        return -libc::EINVAL;
    }
    // SAFETY: the caller's to write; packed.
    unsafe { out.write_unaligned(action.item.dfid.into()) };
    0
}

/// A new descriptor of the action's file.
///
/// # Safety
/// A live handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llapi_hsm_action_get_fd(handle: *const CopyAction) -> c_int {
    police::used(handle as usize, "llapi_hsm_action_get_fd");
    // SAFETY: the ledger knows it.
    let Some(action) = (unsafe { handle.as_ref() }) else {
        return -libc::EINVAL;
    };
    let file = match action.item.action {
        Action::Archive => &action.source,
        Action::Restore => &action.data,
        _ => return -libc::EINVAL,
    };
    let Some((file, _)) = file else {
        return -libc::EBADF;
    };
    duplicate(file.as_fd())
}

fn duplicate(fd: BorrowedFd<'_>) -> c_int {
    match fd.try_clone_to_owned() {
        Ok(fd) => fd.into_raw_fd(),
        Err(error) => -errno(&error),
    }
}
