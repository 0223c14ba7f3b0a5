//! llapi_hsm_import: a file without data, released from its first moment.

use std::ffi::{c_char, c_int};
use std::fs::OpenOptions;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use lhsm_sandbox_protocol::{Fid, Reply, Request};

use crate::abi::{LuFid, path};
use crate::client::{ask, mount_of};

/// What one plain stripe can hold (ldiskfs).
const STRIPE: i64 = 16 << 40;

fn errno(error: &std::io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

/// Makes a released file.
///
/// # Safety
/// As in lustreapi.h: `dst` NUL-terminated, `st` readable, `newfid` the caller's to write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llapi_hsm_import(
    dst: *const c_char,
    archive: c_int,
    st: *const libc::stat,
    _stripe_size: u64,
    _stripe_offset: c_int,
    stripe_count: c_int,
    _stripe_pattern: c_int,
    _pool_name: *mut c_char,
    newfid: *mut LuFid,
) -> c_int {
    // SAFETY: as the caller promises.
    let Some(path) = (unsafe { path(dst) }) else {
        return -libc::EINVAL;
    };
    // SAFETY: as the caller promises.
    let stat = unsafe { st.read() };
    match import(&path, archive, &stat, stripe_count) {
        Ok(fid) => {
            // SAFETY: the caller's to write; packed.
            unsafe { newfid.write_unaligned(fid.into()) };
            0
        }
        Err(errno) => -errno,
    }
}

/// The FID of a path.
///
/// # Safety
/// `at` NUL-terminated, `out` the caller's to write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llapi_path2fid(at: *const c_char, out: *mut LuFid) -> c_int {
    // SAFETY: as the caller promises.
    let found = unsafe { path(at) }.and_then(|path| crate::interpose::file_to_change(&path));
    match found {
        None => -libc::ENOTTY,
        Some((_, Err(errno))) => -errno,
        Some((_, Ok(fid))) => {
            // SAFETY: the caller's to write; packed.
            unsafe { out.write_unaligned(fid.into()) };
            0
        }
    }
}

/// A path of the kernel's view: a directory may be named by its descriptor (`/proc/self/fd/N`).
fn resolved(path: &Path) -> Result<PathBuf, i32> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(libc::EINVAL);
    };
    let parent = match std::fs::read_link(parent) {
        Ok(target) if parent.starts_with("/proc/self/fd") => target,
        _ => parent.canonicalize().map_err(|error| errno(&error))?,
    };
    Ok(parent.join(name))
}

fn import(path: &Path, archive: c_int, stat: &libc::stat, stripe_count: c_int) -> Result<Fid, i32> {
    let path = resolved(path)?;
    let mount = mount_of(&path).ok_or(libc::ENOTTY)?;
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(stat.st_mode & 0o777)
        .open(&path)
        .map_err(|error| match std::fs::symlink_metadata(&path) {
            // Opened as a directory, which no layout can be set on.
            Ok(found) if found.is_dir() => libc::ENOTTY,
            _ => errno(&error),
        })?;
    drop(file);
    let imported = || {
        let stripes = i64::from(stripe_count.clamp(1, 2000));
        if stat.st_size > STRIPE.saturating_mul(stripes) {
            return Err(libc::EFBIG);
        }
        let relative = path.strip_prefix(&mount).map_err(|_| libc::EINVAL)?;
        let request = Request::Import {
            path: relative.as_os_str().as_bytes().to_vec(),
            archive_id: u32::try_from(archive).map_err(|_| libc::EINVAL)?,
            mode: stat.st_mode,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: u64::try_from(stat.st_size).map_err(|_| libc::EINVAL)?,
            times: (stat.st_atime, stat.st_mtime),
        };
        match ask(&mount, &request, None)? {
            Reply::Fid(fid) => Ok(fid),
            _ => Err(libc::EPROTO),
        }
    };
    let made = imported();
    if made.is_err() {
        // As the real one; a file that can't be unlinked is found by the next import.
        let _left = std::fs::remove_file(&path);
    }
    made
}
