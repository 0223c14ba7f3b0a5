//! Volatile files: what a restore writes to, from where it is opened to where the MDT gets it. A copytool with a handle makes and
//! ends them by llapi_hsm_action_*, one without by system calls.

use std::collections::HashMap;
use std::ffi::c_int;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use lhsm_sandbox_protocol::{Action, Fid, Item, Reply, Request};
use nix::sys::time::TimeSpec;

use crate::abi::HsmCopy;
use crate::action::{BY_FID, Time, errno, inode, of_open};
use crate::client::{ask, mount_of, tell};
use crate::police;

const O_LOV_DELAY_CREATE: c_int = libc::O_NOCTTY | libc::O_ASYNC;
/// `LUSTRE_VOLATILE_HDR`
const VOLATILE_HDR: &[u8] = b".\x0c\x13\x14\x12:VOLATILE";
/// Where volatile files are made, below the mount point.
const VOLATILES_DIR: &str = ".lustre/volatile";

/// A volatile file that still needs a layout, or has been given one.
#[derive(Clone, Debug)]
enum Layout {
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

fn volatiles() -> MutexGuard<'static, Option<HashMap<(u64, u64), Volatile>>> {
    VOLATILES.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn is_volatile(inode: (u64, u64)) -> bool {
    volatiles().get_or_insert_default().contains_key(&inode)
}

pub(crate) fn new_volatile(mount: &Path, mdt: u32, open_flags: c_int) -> Result<(File, Fid), i32> {
    let Reply::Fid(dfid) = ask(mount, &Request::NewVolatile(mdt), None)? else {
        return Err(libc::EPROTO);
    };
    Ok((volatile(mount, dfid, open_flags)?, dfid))
}

/// A file that goes with its last descriptor. Without a layout it can't be written to (EBADF).
fn volatile(mount: &Path, fid: Fid, open_flags: c_int) -> Result<File, i32> {
    let dir = mount.join(VOLATILES_DIR);
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

/// -1, which is no index: in the directory of the file, and so beside it.
pub(crate) fn check_mdt(fid: Fid, mdt: u32, wanted: Option<u32>) {
    if let Some(wanted) = wanted.filter(|wanted| *wanted != mdt) {
        police::violation(&format!(
            "it restores {fid} of MDT {mdt} by a volatile file on MDT {wanted}; layouts are swapped within one"
        ));
    }
}

/// openat(2) of what a restore opens, by a path below the mount point. `None`: it is something else.
pub(crate) fn open_at(dirfd: RawFd, at: &Path, flags: c_int) -> Option<Result<File, i32>> {
    let name = at.file_name()?.as_bytes();
    let rest = name.strip_prefix(VOLATILE_HDR);
    let fid = at.strip_prefix(BY_FID).ok().and_then(|fid| fid.to_str()?.parse().ok());
    if rest.is_none() && fid.is_none() {
        return None;
    }
    let mount = mount_of(&std::fs::read_link(format!("/proc/self/fd/{dirfd}")).ok()?)?;
    match (rest, fid) {
        (Some(rest), _) => {
            crate::io::look(&mount);
            let dir = at.parent().map(|dir| mount.join(dir)).unwrap_or_default();
            Some(open_volatile(&mount, &dir, rest, flags))
        }
        (None, Some(fid)) => Some(open_released(&mount, fid)),
        (None, None) => None,
    }
}

/// `:[MDT]:NUMBER:fd=DESCRIPTOR`, where that is of the file to be restored.
fn open_volatile(mount: &Path, dir: &Path, rest: &[u8], flags: c_int) -> Result<File, i32> {
    let dir = std::fs::metadata(dir).map_err(|error| errno(&error))?;
    if !dir.is_dir() {
        return Err(libc::ENOTDIR);
    }
    let rest = std::str::from_utf8(rest).map_err(|_| libc::EINVAL)?;
    let mut fields = rest.split(':').skip(1);
    let wanted = fields.next().and_then(|mdt| u32::from_str_radix(mdt, 16).ok());
    let source = fields.nth(1).and_then(|field| field.strip_prefix("fd="));
    let source: RawFd = source.and_then(|fd| fd.parse().ok()).ok_or(libc::EINVAL)?;
    let stat = std::fs::metadata(format!("/proc/self/fd/{source}")).map_err(|error| errno(&error))?;
    let (dev, ino) = (stat.dev(), stat.ino());
    let Reply::Fid(fid) = ask(mount, &Request::FidOfInode { dev, ino }, None)? else {
        return Err(libc::EPROTO);
    };
    let Reply::Ok(mdt) = ask(mount, &Request::MdtOf(fid), None)? else {
        return Err(libc::EPROTO);
    };
    let mdt = u32::try_from(mdt).unwrap_or(0);
    check_mdt(fid, mdt, wanted);
    new_volatile(mount, mdt, flags).map(|(file, _)| file)
}

/// To be looked at: on some kernels an open that could read would wait for the restore.
fn open_released(mount: &Path, fid: Fid) -> Result<File, i32> {
    tell(mount, &Request::State(fid), None).map_err(|error| of_open(mount, fid, error))?;
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_NOFOLLOW)
        .open(mount.join(BY_FID).join(fid.to_string()))
        .map_err(|error| errno(&error))
}

/// One of our volatile files by a descriptor, whose path tells its mount.
pub(crate) fn volatile_at(fd: RawFd) -> Option<(PathBuf, Fid)> {
    let link = format!("/proc/self/fd/{fd}");
    let stat = std::fs::metadata(&link).ok()?;
    let fid = volatiles()
        .get_or_insert_default()
        .get(&(stat.dev(), stat.ino()))
        .map(|volatile| volatile.fid)?;
    let path = std::fs::read_link(link).ok()?;
    // The inode of one that went without an end may be another file's by now.
    let is_volatile = path.parent().is_some_and(|dir| dir.ends_with(VOLATILES_DIR));
    let mount = is_volatile.then(|| mount_of(&path)).flatten()?;
    Some((mount, fid))
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

/// fsync of a restore's file, which the MDT's faults can make fail.
pub(crate) fn sync(mount: &Path, file: &File, fid: Fid) -> Result<(), i32> {
    tell(mount, &Request::Sync(fid), None)?;
    nix::unistd::fsync(file).map_err(|error| error as i32)
}

/// fsync(2) of one of our volatile files.
pub(crate) fn sync_fault(fd: RawFd) -> Result<(), i32> {
    volatile_at(fd).map_or(Ok(()), |(mount, fid)| tell(&mount, &Request::Sync(fid), None))
}

/// `LL_IOC_FUTIMES_3` on a restore's file. The ctime is the MDT's to show.
pub(crate) fn set_times(mount: &Path, fd: RawFd, fid: Fid, atime: Time, mtime: Time) -> Result<(), i32> {
    tell(mount, &Request::VolatileTimes(fid), None)?;
    // SAFETY: open until the caller's call is over.
    let file = unsafe { BorrowedFd::borrow_raw(fd) };
    let (atime, mtime) = (TimeSpec::new(atime.0, atime.1), TimeSpec::new(mtime.0, mtime.1));
    nix::sys::stat::futimens(file, &atime, &mtime).map_err(|error| error as i32)
}

/// `LL_IOC_HSM_COPY_END` of a copytool that has no handle. A restore's success is told by the FID of its volatile file.
pub(crate) fn end_copy(mount: &Path, copy: &HsmCopy) -> Result<(), i32> {
    let mut item = Item::from(copy.item);
    item.dfid = item.fid;
    let errval = i32::from(copy.errval);
    let (mut no_layout, mut layout, mut data) = (false, None, None);
    if item.action == Action::Restore && errval == 0 {
        let (inode, number) = volatile_of(item.fid);
        (no_layout, layout) = given_up(inode);
        // SAFETY: open until the caller's call is over: it may not close it meanwhile.
        data = Some(unsafe { BorrowedFd::borrow_raw(number) });
    }
    let request = Request::CopyEnd {
        item,
        flags: copy.flags,
        errval,
        asked: errval,
        data_version: copy.data_version,
        no_layout,
        layout,
    };
    tell(mount, &request, data)
}

/// The one descriptor that a volatile file has at its end.
fn volatile_of(fid: Fid) -> ((u64, u64), RawFd) {
    let inode = volatiles()
        .get_or_insert_default()
        .iter()
        .find_map(|(inode, volatile)| (volatile.fid == fid).then_some(*inode));
    match inode.map(|inode| (inode, descriptors_on(inode))) {
        Some((inode, numbers)) if numbers.len() == 1 => (inode, numbers.first().copied().unwrap_or(-1)),
        Some((_, numbers)) if numbers.len() > 1 => police::violation(&format!(
            "it ended a restore with another descriptor of its volatile file {fid} open; a late write hangs for ever"
        )),
        _ => police::violation(&format!(
            "it ended a restore whose volatile file {fid} is closed: the MDT has no data to swap in"
        )),
    }
}

/// A volatile file's end: whether it has no layout, and the one that it was given.
pub(crate) fn given_up(inode: (u64, u64)) -> (bool, Option<Vec<u8>>) {
    let volatile = volatiles().get_or_insert_default().remove(&inode);
    match volatile.map(|volatile| volatile.layout) {
        Some(Layout::Missing) => (true, None),
        Some(Layout::Set(bytes)) => (false, Some(bytes)),
        Some(Layout::Default) | None => (false, None),
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
