//! Reads and writes of an action's files, which the MDT's faults can make fail, and which wait while the node is cut off.

use std::ffi::{c_int, c_void};
use std::fs::File;
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicPtr, AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};

use lhsm_sandbox_protocol::{IO_FAULTS, Request};

use crate::action;
use crate::client::{mount_of, tell};
use crate::interpose::fail;
use crate::volatile::is_volatile;

/// The coordinator's byte, not 0 while it is to be asked. Else a read or write costs one look at this more.
static MARK: AtomicPtr<AtomicU8> = AtomicPtr::new(std::ptr::null_mut());
/// The mount that it is of.
static MARKED: Mutex<Option<PathBuf>> = Mutex::new(None);

/// From now on the byte of this mount counts. Called when an action begins.
pub(crate) fn look(mount: &Path) {
    let mut marked = MARKED.lock().unwrap_or_else(PoisonError::into_inner);
    if marked.as_deref() == Some(mount) {
        return;
    }
    if let Ok(file) = File::open(mount.join(IO_FAULTS)) {
        // SAFETY: a new mapping, which nothing else is told of; it is never unmapped.
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                1,
                libc::PROT_READ,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if page != libc::MAP_FAILED {
            MARK.store(page.cast(), Ordering::Release);
            *marked = Some(mount.to_owned());
        }
    }
}

fn is_marked() -> bool {
    let mark = MARK.load(Ordering::Acquire);
    // SAFETY: NULL, or the first byte of a page that stays; the coordinator keeps its file.
    unsafe { mark.as_ref() }.is_some_and(|mark| mark.load(Ordering::Relaxed) != 0)
}

/// The fault of a call on one of our files, if there is one.
fn fault(fd: RawFd, is_ours: fn((u64, u64)) -> bool, request: fn(u64, u64) -> Request) -> Result<(), i32> {
    if !is_marked() {
        return Ok(());
    }
    let link = format!("/proc/self/fd/{fd}");
    let file = std::fs::metadata(&link).map(|stat| (stat.dev(), stat.ino()));
    let Some((dev, ino)) = file.ok().filter(|file| is_ours(*file)) else {
        return Ok(());
    };
    match std::fs::read_link(link).ok().and_then(|path| mount_of(&path)) {
        Some(mount) => tell(&mount, &request(dev, ino), None),
        None => Ok(()),
    }
}

/// # Safety
/// As of pread(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pread64(fd: c_int, buffer: *mut c_void, count: usize, offset: i64) -> isize {
    if let Err(errno) = fault(fd, action::is_source, Request::Read) {
        return fail(errno) as isize;
    }
    // SAFETY: the caller's own call, passed on.
    let rc = unsafe { libc::syscall(libc::SYS_pread64, fd, buffer, count, offset) };
    isize::try_from(rc).unwrap_or(-1)
}

/// # Safety
/// As of pwrite(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pwrite64(fd: c_int, buffer: *const c_void, count: usize, offset: i64) -> isize {
    if let Err(errno) = fault(fd, is_volatile, Request::Write) {
        return fail(errno) as isize;
    }
    // SAFETY: the caller's own call, passed on.
    let rc = unsafe { libc::syscall(libc::SYS_pwrite64, fd, buffer, count, offset) };
    isize::try_from(rc).unwrap_or(-1)
}
