//! Reads and writes of an action's files, which the MDT's faults can make fail.

use std::ffi::{c_int, c_void};
use std::os::fd::RawFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use lhsm_sandbox_protocol::{IO_FAULTS, Request};

use crate::action;
use crate::client::{mount_of, tell};
use crate::interpose::fail;

/// Whether there may be faults. Else a read or write costs one look at this more.
static FAULTY: AtomicBool = AtomicBool::new(false);

/// Looks whether there may be faults from now on. Called when an action begins.
pub(crate) fn look(mount: &Path) {
    FAULTY.store(mount.join(IO_FAULTS).exists(), Ordering::Relaxed);
}

/// The fault of a call on one of our files, if there is one.
fn fault(fd: RawFd, is_ours: fn((u64, u64)) -> bool, request: &Request) -> Result<(), i32> {
    if !FAULTY.load(Ordering::Relaxed) {
        return Ok(());
    }
    let link = format!("/proc/self/fd/{fd}");
    let ours = std::fs::metadata(&link).is_ok_and(|stat| is_ours((stat.dev(), stat.ino())));
    let mount = std::fs::read_link(link).ok().filter(|_| ours);
    match mount.and_then(|path| mount_of(&path)) {
        Some(mount) => tell(&mount, request, None),
        None => Ok(()),
    }
}

/// # Safety
/// As of pread(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pread64(fd: c_int, buffer: *mut c_void, count: usize, offset: i64) -> isize {
    if let Err(errno) = fault(fd, action::is_source, &Request::Read) {
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
    if let Err(errno) = fault(fd, action::is_volatile, &Request::Write) {
        return fail(errno) as isize;
    }
    // SAFETY: the caller's own call, passed on.
    let rc = unsafe { libc::syscall(libc::SYS_pwrite64, fd, buffer, count, offset) };
    isize::try_from(rc).unwrap_or(-1)
}
