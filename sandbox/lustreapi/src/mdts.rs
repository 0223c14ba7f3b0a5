//! What tells MDTs from each other.

use std::collections::HashMap;
use std::ffi::{c_char, c_int};
use std::fs::File;
use std::os::fd::{AsRawFd as _, IntoRawFd as _, RawFd};
use std::sync::{Mutex, PoisonError};

use lhsm_sandbox_protocol::{Fid, Reply, Request};

use crate::abi::{LuFid, path};
use crate::client::{ask, last_mount, mount_of};
use crate::interpose::file_to_change;
use crate::volatile::volatile_at;

/// Volatile files that were made here, by descriptor.
static MADE: Mutex<Option<HashMap<RawFd, Fid>>> = Mutex::new(None);

/// The MDT of a FID.
///
/// # Safety
/// `fid` and `out` are the caller's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llapi_get_mdt_index_by_fid(fd: c_int, fid: *const LuFid, out: *mut c_int) -> c_int {
    let mount = std::fs::read_link(format!("/proc/self/fd/{fd}"))
        .ok()
        .and_then(|path| mount_of(&path));
    let Some(mount) = mount else {
        return -libc::ENOTTY;
    };
    // SAFETY: as the caller promises; packed.
    let fid = unsafe { fid.read_unaligned() };
    match ask(&mount, &Request::MdtOf(fid.into()), None) {
        Ok(Reply::Ok(index)) => {
            // SAFETY: as the caller promises.
            unsafe { out.write(c_int::try_from(index).unwrap_or(-1)) };
            0
        }
        Ok(_) => -libc::EPROTO,
        Err(errno) => -errno,
    }
}

/// The data version of an open file.
///
/// # Safety
/// `out` is the caller's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llapi_get_data_version(fd: c_int, out: *mut u64, _flags: u64) -> c_int {
    let path = std::fs::read_link(format!("/proc/self/fd/{fd}"));
    let found = path.ok().and_then(|path| crate::interpose::file_at(&path));
    let Some((mount, fid)) = found else {
        return -libc::ENOTTY;
    };
    match fid.and_then(|fid| ask(&mount, &Request::DataVersion(fid), None)) {
        Ok(Reply::Ok(version)) => {
            // SAFETY: as the caller promises.
            unsafe { out.write(version) };
            0
        }
        Ok(_) => -libc::EPROTO,
        Err(errno) => -errno,
    }
}

/// Number of OSTs or MDTs.
///
/// # Safety
/// `mnt` NUL-terminated, `count` the caller's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llapi_get_obd_count(mnt: *mut c_char, count: *mut c_int, is_mdt: c_int) -> c_int {
    // SAFETY: as the caller promises.
    let Some(mount) = unsafe { path(mnt) }.and_then(|path| mount_of(&path)) else {
        return -libc::ENOTTY;
    };
    let mdts = match ask(&mount, &Request::MdtCount, None) {
        // Clients of 2.15 and later give the size of their table, which begins with 64.
        Ok(Reply::Ok(mdts)) => c_int::try_from(mdts.max(64)).unwrap_or(0),
        Ok(_) => return -libc::EPROTO,
        Err(errno) => return -errno,
    };
    // SAFETY: as the caller promises.
    unsafe { count.write(if is_mdt == 0 { 1 } else { mdts }) };
    0
}

/// A file without a name on one MDT.
///
/// # Safety
/// `directory` NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llapi_create_volatile_idx(
    directory: *const c_char,
    mdt_idx: c_int,
    _open_flags: c_int,
) -> c_int {
    // SAFETY: as the caller promises.
    let Some(mount) = unsafe { path(directory) }.and_then(|path| mount_of(&path)) else {
        return -libc::ENOTTY;
    };
    let fid = match ask(&mount, &Request::NewVolatile(u32::try_from(mdt_idx).unwrap_or(0)), None) {
        Ok(Reply::Fid(fid)) => fid,
        Ok(_) => return -libc::EPROTO,
        Err(errno) => return -errno,
    };
    let Ok(file) = File::open("/dev/null") else {
        return -libc::EMFILE;
    };
    MADE.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .get_or_insert_default()
        .insert(file.as_raw_fd(), fid);
    file.into_raw_fd()
}

/// The FID of a file that `llapi_create_volatile_idx` made.
///
/// # Safety
/// `out` is the caller's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llapi_fd2fid(fd: c_int, out: *mut LuFid) -> c_int {
    let made = MADE
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .get_or_insert_default()
        .remove(&fd);
    let named = || match std::fs::read_link(format!("/proc/self/fd/{fd}")) {
        Ok(path) => file_to_change(&path)?.1.ok(),
        // Deeper than a path can be: known if it had a FID before.
        Err(_) => known(fd),
    };
    let volatile = || volatile_at(fd).map(|(_, fid)| fid);
    let Some(fid) = made.or_else(volatile).or_else(named) else {
        return -libc::ENOTTY;
    };
    // SAFETY: as the caller promises; packed.
    unsafe { out.write_unaligned(fid.into()) };
    0
}

/// The FID that an open file's inode has.
fn known(fd: RawFd) -> Option<Fid> {
    use std::os::unix::fs::MetadataExt as _;
    let stat = std::fs::metadata(format!("/proc/self/fd/{fd}")).ok()?;
    let (dev, ino) = (stat.dev(), stat.ino());
    match ask(&last_mount()?, &Request::FidOfInode { dev, ino }, None) {
        Ok(Reply::Fid(fid)) => Some(fid),
        _ => None,
    }
}
