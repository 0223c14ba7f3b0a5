//! llapi_hsm_action_*

use std::collections::HashMap;
use std::ffi::c_int;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, IntoRawFd as _, RawFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lhsm_sandbox_protocol::{Action, Fid, Item, Reply, Request};

use crate::abi::{HsmActionItem, HsmExtent, LuFid, rc};
use crate::client::{ask, tell};
use crate::police::{self, Watched};
use crate::registration::Copytool;

const O_LOV_DELAY_CREATE: c_int = libc::O_NOCTTY | libc::O_ASYNC;

/// `struct hsm_copyaction_private`
pub struct CopyAction {
    copytool: *const Copytool,
    item: Item,
    data_version: u64,
    source: Option<(File, Watched)>,
    data: Option<(File, Watched)>,
}

/// A volatile file that still needs a layout, or has been given one.
#[derive(Clone, Debug)]
pub(crate) enum Layout {
    /// Opened with `O_LOV_DELAY_CREATE`: there are no objects to write to.
    Missing,
    Default,
    Set(Vec<u8>),
}

#[derive(Debug)]
struct Volatile {
    fid: Fid,
    layout: Layout,
}

/// Volatile files by inode: a layout is set through a descriptor.
static VOLATILES: Mutex<Option<HashMap<(u64, u64), Volatile>>> = Mutex::new(None);
/// Files that are or were read by inode: they have a name more than a user sees.
static SOURCES: Mutex<Option<HashMap<(u64, u64), ()>>> = Mutex::new(None);

fn volatiles() -> MutexGuard<'static, Option<HashMap<(u64, u64), Volatile>>> {
    VOLATILES.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn is_source(inode: (u64, u64)) -> bool {
    let sources = SOURCES.lock().unwrap_or_else(PoisonError::into_inner);
    sources.as_ref().is_some_and(|sources| sources.contains_key(&inode))
}

fn inode(file: &File) -> Result<(u64, u64), i32> {
    let stat = file.metadata().map_err(|error| errno(&error))?;
    Ok((stat.dev(), stat.ino()))
}

fn errno(error: &std::io::Error) -> i32 {
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
                let Reply::Ok(mdt) = ask(&ct.mount, &Request::MdtOf(action.item.fid), None)? else {
                    return Err(libc::EPROTO);
                };
                let mdt = u32::try_from(mdt).unwrap_or(0);
                // -1: in the directory of the file, and so beside it.
                if restore_mdt >= 0 && restore_mdt.cast_unsigned() != mdt {
                    police::violation(&format!(
                        "it restores {} of MDT {mdt} by a volatile file on MDT {restore_mdt}; layouts are swapped within one",
                        action.item.fid
                    ));
                }
                let Reply::Fid(dfid) = ask(&ct.mount, &Request::NewVolatile(mdt), None)? else {
                    return Err(libc::EPROTO);
                };
                let file = volatile(&ct.mount, dfid, open_flags)?;
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
            let volatile = volatiles().get_or_insert_default().remove(&inode(file)?);
            match volatile.map(|volatile| volatile.layout) {
                Some(Layout::Missing) => no_layout = true,
                Some(Layout::Set(bytes)) => layout = Some(bytes),
                Some(Layout::Default) | None => {}
            }
            if errval == 0
                && let Err(error) = self.sync(&ct.mount, file)
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
        let told = tell(&ct.mount, &request, self.data.as_ref().map(|(file, _)| file.as_fd()));
        // What a call that failed leaves of itself in C.
        nix::errno::Errno::set_raw(if errval == asked { 0 } else { errval });
        told
    }

    /// fsync of a restore's file, which the MDT's faults can make fail.
    fn sync(&self, mount: &Path, file: &File) -> Result<(), i32> {
        tell(mount, &Request::SyncAtEnd(self.item.clone()), None)?;
        nix::unistd::fsync(file).map_err(|error| error as i32)
    }
}

pub(crate) fn is_volatile(inode: (u64, u64)) -> bool {
    volatiles().get_or_insert_default().contains_key(&inode)
}

/// fsync(2) of one of our volatile files, whose mount is told by its descriptor's path.
pub(crate) fn sync_fault(fd: RawFd) -> Result<(), i32> {
    let Ok(stat) = std::fs::metadata(format!("/proc/self/fd/{fd}")) else {
        return Ok(());
    };
    let inode = (stat.dev(), stat.ino());
    let Some(fid) = volatiles()
        .get_or_insert_default()
        .get(&inode)
        .map(|volatile| volatile.fid)
    else {
        return Ok(());
    };
    let mount = std::fs::read_link(format!("/proc/self/fd/{fd}"))
        .ok()
        .and_then(|path| crate::client::mount_of(&path));
    mount.map_or(Ok(()), |mount| tell(&mount, &Request::Sync(fid), None))
}

fn watched(file: File) -> (File, Watched) {
    let watch = Watched::new(file.as_raw_fd());
    (file, watch)
}

fn open_by_fid(mount: &Path, fid: Fid) -> Result<File, i32> {
    tell(mount, &Request::State(fid), None)?;
    let path = mount.join(".lustre/fid").join(fid.to_string());
    let open = |flags| OpenOptions::new().read(true).custom_flags(flags).open(&path);
    let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW;
    match open(flags | libc::O_NOATIME) {
        // Not the owner.
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => open(flags),
        other => other,
    }
    .map_err(|error| errno(&error))
}

/// A file that goes with its last descriptor. Without a layout it can't be written to (EBADF).
fn volatile(mount: &Path, fid: Fid, open_flags: c_int) -> Result<File, i32> {
    let dir = mount.join(".lustre/volatile");
    let name = format!("{}-{:?}", std::process::id(), std::thread::current().id());
    let path = dir.join(name);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .map_err(|error| errno(&error))?;
    std::fs::remove_file(&path).map_err(|error| errno(&error))?;
    let delayed = open_flags & O_LOV_DELAY_CREATE == O_LOV_DELAY_CREATE;
    let layout = if delayed { Layout::Missing } else { Layout::Default };
    let volatile = Volatile { fid, layout };
    volatiles().get_or_insert_default().insert(inode(&file)?, volatile);
    if delayed {
        File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).map_err(|error| errno(&error))
    } else {
        Ok(file)
    }
}

/// `fsetxattr(fd, "lustre.lov")`: the volatile gets its objects. `None`: not one of ours.
pub(crate) fn set_layout(fd: RawFd, inode: (u64, u64), layout: &[u8]) -> Option<Result<(), i32>> {
    let mut volatiles = volatiles();
    let entry = &mut volatiles.get_or_insert_default().get_mut(&inode)?.layout;
    if !matches!(entry, Layout::Missing) {
        return Some(Err(libc::EEXIST));
    }
    if !is_layout(layout) {
        return Some(Err(libc::EINVAL));
    }
    let reopened = OpenOptions::new()
        .read(true)
        .write(true)
        .open(format!("/proc/self/fd/{fd}"));
    let writable = match reopened {
        Ok(file) => file,
        Err(error) => return Some(Err(errno(&error))),
    };
    // Every descriptor of the file, the caller's and the library's, becomes one that can write.
    for number in descriptors_on(inode) {
        if number != writable.as_raw_fd() {
            // SAFETY: replaces a descriptor of a file of ours by one of the same file.
            let rc = unsafe { libc::dup3(writable.as_raw_fd(), number, libc::O_CLOEXEC) };
            if rc < 0 {
                return Some(Err(errno(&std::io::Error::last_os_error())));
            }
        }
    }
    *entry = Layout::Set(layout.to_vec());
    Some(Ok(()))
}

/// As far as the kernel looks at once: a known magic and room for what it stands for.
fn is_layout(bytes: &[u8]) -> bool {
    let magic = bytes.first_chunk().map(|magic| u32::from_le_bytes(*magic));
    match magic {
        Some(0x0bd1_0bd0 | 0x0bd6_0bd0) => bytes.len() >= 32,
        Some(0x0bd3_0bd0) => bytes.len() >= 48,
        _ => false,
    }
}

fn descriptors_on(wanted: (u64, u64)) -> Vec<RawFd> {
    std::fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::metadata(format!("/proc/self/fd/{number}")).ok()?;
            ((stat.dev(), stat.ino()) == wanted).then_some(number)
        })
        .collect()
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
