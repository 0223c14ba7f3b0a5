//! System calls of the copytool that Lustre's client would serve. Everything else goes through as it is.

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_uint, c_ulong, c_void};
use std::os::fd::{FromRawFd as _, IntoRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use lhsm_sandbox_protocol::{Fid, Reply, Request, ctime, links};

use crate::abi::{HsmCopy, HsmProgress, path};
use crate::client::{ask, client_name, mount_of, tell};
use crate::{action, registration, user, volatile};

const CT_START: c_ulong = 0x4018_66d5;
const COPY_START: c_ulong = 0x4008_66d6;
const COPY_END: c_ulong = 0x4008_66d7;
const PROGRESS: c_ulong = 0x4018_66d8;
const GETFILEINFO: c_ulong = 0xc008_6916;
const FUTIMES_3: c_ulong = 0xc030_66b0;
const REQUEST: c_ulong = 0x4018_66d9;
const LK_FLG_STOP: u32 = 1;
const LK_FLG_DATANR: u32 = 2;

pub(crate) fn fail(errno: i32) -> c_int {
    // SAFETY: this thread's errno.
    let location = unsafe { libc::__errno_location() };
    // SAFETY: always valid.
    unsafe { *location = errno };
    -1
}

fn answer(result: Result<(), i32>) -> c_int {
    match result {
        Ok(()) => 0,
        Err(errno) => fail(errno),
    }
}

/// Descriptors that registered where each can do it once, with their mounts.
static REGISTERED: Mutex<Option<HashMap<RawFd, PathBuf>>> = Mutex::new(None);
/// Whether there ever was one. Else closing a descriptor costs one look at this more.
static ONCE: AtomicBool = AtomicBool::new(false);

fn registered<T>(look: impl FnOnce(&mut HashMap<RawFd, PathBuf>) -> T) -> T {
    let mut registered = REGISTERED.lock().unwrap_or_else(PoisonError::into_inner);
    look(registered.get_or_insert_default())
}

/// Closing a descriptor that registered unregisters its mount, on clients where each registers once.
///
/// # Safety
/// As of close(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn close(fd: c_int) -> c_int {
    let mount = ONCE
        .load(Ordering::Relaxed)
        .then(|| registered(|registered| registered.remove(&fd)))
        .flatten();
    if let Some(mount) = mount {
        // As on Lustre, where nobody hears of it either.
        let _result = tell(&mount, &registration::unregister_all(&mount), None);
    }
    // SAFETY: the caller's own call, passed on.
    let rc = unsafe { libc::syscall(libc::SYS_close, fd) };
    c_int::try_from(rc).unwrap_or(-1)
}

const fn is_served(request: c_ulong) -> bool {
    matches!(
        request,
        CT_START | COPY_START | COPY_END | PROGRESS | GETFILEINFO | REQUEST | FUTIMES_3
    )
}

/// What the MDT has of a file in `.lustre/fid`; without its layout, which nobody asks for here.
fn attributes(mount: &Path, name: &Path) -> Result<libc::stat, i32> {
    let fid = name.to_str().and_then(|name| name.parse::<Fid>().ok());
    let fid = fid.ok_or(libc::ENOENT)?;
    tell(mount, &Request::State(fid), None)?;
    let link = mount.join(action::BY_FID).join(fid.to_string());
    let stat = std::fs::symlink_metadata(link).map_err(|error| action::errno(&error))?;
    // SAFETY: all-zero bytes are a valid struct stat.
    let mut told: libc::stat = unsafe { std::mem::zeroed() };
    told.st_mode = stat.mode();
    told.st_uid = stat.uid();
    told.st_gid = stat.gid();
    told.st_size = i64::try_from(stat.size()).map_err(|_| libc::EOVERFLOW)?;
    (told.st_atime, told.st_atime_nsec) = (stat.atime(), stat.atime_nsec());
    (told.st_mtime, told.st_mtime_nsec) = (stat.mtime(), stat.mtime_nsec());
    (told.st_ctime, told.st_ctime_nsec) = (stat.ctime(), stat.ctime_nsec());
    Ok(told)
}

/// The ioctls that a copytool makes itself.
///
/// # Safety
/// As of ioctl(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ioctl(fd: c_int, request: c_ulong, argument: *mut c_void) -> c_int {
    let at = is_served(request)
        .then(|| std::fs::read_link(format!("/proc/self/fd/{fd}")).ok())
        .flatten();
    let served = at.as_deref().and_then(mount_of);
    let Some(mount) = served else {
        // SAFETY: the caller's own call, passed on.
        let rc = unsafe { libc::syscall(libc::SYS_ioctl, fd, request, argument) };
        return c_int::try_from(rc).unwrap_or(-1);
    };
    if request == FUTIMES_3 {
        // SAFETY: LL_IOC_FUTIMES_3 has a struct ll_futimes_3, six u64: seconds and nanoseconds of atime, mtime, ctime.
        let [atime, mtime, ctime] = unsafe { argument.cast::<[[i64; 2]; 3]>().read_unaligned() };
        if let Some((mount, fid)) = volatile::volatile_at(fd) {
            return answer(volatile::set_times(&mount, fd, fid, atime.into(), mtime.into()));
        }
        let found = at.as_deref().and_then(file_at);
        return answer(found.map_or(Err(libc::ENOTTY), |(mount, fid)| {
            let set = Request::SetTimes {
                fid: fid?,
                atime: atime.into(),
                mtime: mtime.into(),
                ctime: ctime.into(),
            };
            tell(&mount, &set, None)
        }));
    }
    if request == GETFILEINFO {
        // SAFETY: IOC_MDC_GETFILEINFO has a NUL-terminated name.
        let name = unsafe { path(argument.cast()) };
        return match attributes(&mount, &name.unwrap_or_default()) {
            Ok(stat) => {
                // SAFETY: the same is a struct lov_user_mds_data_v1, which begins with a struct stat.
                unsafe { argument.cast::<libc::stat>().write_unaligned(stat) };
                0
            }
            Err(errno) => fail(errno),
        };
    }
    if matches!(request, COPY_START | COPY_END) {
        let copy = argument.cast::<HsmCopy>();
        // SAFETY: LL_IOC_HSM_COPY_START and _END have a struct hsm_copy.
        let mut said = unsafe { copy.read_unaligned() };
        if request == COPY_END {
            return answer(volatile::end_copy(&mount, &said));
        }
        return match ask(&mount, &Request::CopyStart(said.item.into()), None) {
            Ok(Reply::Ok(version)) => {
                said.data_version = version;
                // SAFETY: the same, and the caller's to be written.
                unsafe { copy.write_unaligned(said) };
                0
            }
            Ok(_) => fail(libc::EPROTO),
            Err(errno) => fail(errno),
        };
    }
    if request == PROGRESS {
        // SAFETY: LL_IOC_HSM_PROGRESS has a struct hsm_progress.
        let progress = unsafe { argument.cast::<HsmProgress>().read_unaligned() };
        let (fid, cookie, extent) = (progress.fid, progress.cookie, progress.extent);
        return answer(tell(
            &mount,
            &Request::Progress {
                fid: fid.into(),
                cookie,
                offset: extent.offset,
                length: extent.length,
            },
            None,
        ));
    }
    if request == REQUEST {
        // SAFETY: LL_IOC_HSM_REQUEST has a struct hsm_user_request with its items.
        return answer(unsafe { user::request(&mount, argument.cast()) });
    }
    // SAFETY: LL_IOC_HSM_CT_START has a struct lustre_kernelcomm, six u32.
    let words = unsafe { argument.cast::<[u32; 6]>().read_unaligned() };
    let [wfd, _, uid, _, count, flags] = words;
    if flags & LK_FLG_STOP != 0 {
        let client = client_name(&mount);
        return answer(tell(&mount, &Request::Unregister { uid, client }, None));
    }
    let listed = flags & LK_FLG_DATANR != 0;
    let ids = if listed {
        (0..count as usize)
            .map(|n| {
                let id = argument.cast::<u32>().wrapping_add(6 + n);
                // SAFETY: lk_data_count ids follow the six fields.
                unsafe { id.read_unaligned() }
            })
            .collect()
    } else {
        (1..=32).filter(|id| count & (1 << (id - 1)) != 0).collect()
    };
    let Ok(write) = dup(wfd) else {
        return fail(libc::EBADF);
    };
    // The MDT is not asked.
    if ONCE.load(Ordering::Relaxed) && registered(|registered| registered.contains_key(&fd)) {
        return fail(libc::EEXIST);
    }
    let started = registration::start(&mount, uid, ids, listed, &write);
    if started == Ok(true) {
        ONCE.store(true, Ordering::Relaxed);
        registered(|registered| registered.insert(fd, mount));
    }
    answer(started.map(drop))
}

fn dup(fd: u32) -> Result<OwnedFd, i32> {
    let fd = RawFd::try_from(fd).map_err(|_| libc::EBADF)?;
    // SAFETY: only duplicates a number.
    let new = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0) };
    if new < 0 {
        return Err(libc::EBADF);
    }
    // SAFETY: just made.
    Ok(unsafe { OwnedFd::from_raw_fd(new) })
}

/// Attributes that only Lustre (or root on it) has.
fn is_ours(name: &CStr) -> bool {
    let name = name.to_bytes();
    name.starts_with(b"trusted.") || name.starts_with(b"lustre.")
}

/// The file that a path means, if it is in a sandbox: by its FID below `.lustre/fid`, else by its inode.
pub(crate) fn file_at(path: &Path) -> Option<(PathBuf, Result<Fid, i32>)> {
    let path = &by_name(path);
    let mount = mount_of(path)?;
    let by_fid = path
        .strip_prefix(mount.join(".lustre/fid"))
        .ok()
        .and_then(|name| name.to_str()?.parse().ok());
    if let Some(fid) = by_fid {
        return Some((mount, Ok(fid)));
    }
    let fid = std::fs::symlink_metadata(path)
        .map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))
        .and_then(|stat| {
            let (dev, ino) = (stat.dev(), stat.ino());
            match ask(&mount, &Request::FidOfInode { dev, ino }, None)? {
                Reply::Fid(fid) => Ok(fid),
                _ => Err(libc::EPROTO),
            }
        });
    Some((mount, fid))
}

/// With the directory's own name where it is given by its descriptor (`/proc/self/fd/N/name`).
fn by_name(path: &Path) -> PathBuf {
    let parent = path.parent().filter(|parent| parent.starts_with("/proc/self/fd"));
    match (parent.map(std::fs::read_link), path.file_name()) {
        (Some(Ok(parent)), Some(name)) => parent.join(name),
        _ => path.to_owned(),
    }
}

/// The same for a write, which gives a file its FID if it has none.
pub(crate) fn file_to_change(path: &Path) -> Option<(PathBuf, Result<Fid, i32>)> {
    let (mount, found) = file_at(path)?;
    if found != Err(libc::ENODATA) {
        return Some((mount, found));
    }
    let name = by_name(path);
    let relative = name.strip_prefix(&mount).ok()?.to_str()?.to_owned();
    let made = ask(&mount, &Request::FidOf(relative), None).and_then(|reply| match reply {
        Reply::Fid(fid) => Ok(fid),
        _ => Err(libc::EPROTO),
    });
    Some((mount, made))
}

/// As getxattr(2) and listxattr(2) give what they found: a size of 0 only asks how much it is.
///
/// # Safety
/// `to` has `size` bytes.
unsafe fn given(bytes: &[u8], to: *mut u8, size: usize) -> isize {
    if size > 0 {
        if bytes.len() > size {
            return fail(libc::ERANGE) as isize;
        }
        // SAFETY: `size` bytes, and these are no more.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
    }
    isize::try_from(bytes.len()).unwrap_or(-1)
}

/// # Safety
/// As of lgetxattr(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lgetxattr(at: *const c_char, name: *const c_char, value: *mut c_void, size: usize) -> isize {
    // SAFETY: NUL-terminated.
    let attribute = unsafe { CStr::from_ptr(name) };
    // SAFETY: NUL-terminated.
    let found = unsafe { path(at) }
        .filter(|_| is_ours(attribute))
        .and_then(|path| file_at(&path));
    // A file that HSM has not had to do with may have come with the record of another one.
    let is_unknown =
        |fid: &Result<Fid, i32>| *fid == Err(libc::ENODATA) && attribute.to_bytes().starts_with(b"trusted.");
    let Some((mount, fid)) = found.filter(|(_, fid)| !is_unknown(fid)) else {
        // SAFETY: the caller's own call, passed on.
        let rc = unsafe { libc::syscall(libc::SYS_lgetxattr, at, name, value, size) };
        return isize::try_from(rc).unwrap_or(-1);
    };
    let text = attribute.to_string_lossy().into_owned();
    let bytes = match fid.and_then(|fid| ask(&mount, &Request::GetXattr(fid, text), None)) {
        Ok(Reply::Bytes(bytes)) => bytes,
        Ok(_) => return fail(libc::EPROTO) as isize,
        Err(errno) => return fail(errno) as isize,
    };
    // SAFETY: `size` bytes of the caller's.
    unsafe { given(&bytes, value.cast(), size) }
}

/// Of a file that is given by its FID, and that has none but `trusted.*` then.
///
/// # Safety
/// As of llistxattr(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llistxattr(at: *const c_char, names: *mut c_char, size: usize) -> isize {
    // SAFETY: NUL-terminated.
    let found = unsafe { path(at) }
        .filter(|path| path.parent().is_some_and(|parent| parent.ends_with(".lustre/fid")))
        .and_then(|path| file_at(&path));
    let Some((mount, fid)) = found else {
        // SAFETY: the caller's own call, passed on.
        let rc = unsafe { libc::syscall(libc::SYS_llistxattr, at, names, size) };
        return isize::try_from(rc).unwrap_or(-1);
    };
    let bytes = match fid.and_then(|fid| ask(&mount, &Request::ListXattr(fid), None)) {
        Ok(Reply::Bytes(bytes)) => bytes,
        Ok(_) => return fail(libc::EPROTO) as isize,
        Err(errno) => return fail(errno) as isize,
    };
    // SAFETY: `size` bytes of the caller's.
    unsafe { given(&bytes, names.cast(), size) }
}

/// # Safety
/// As of lsetxattr(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lsetxattr(
    at: *const c_char,
    name: *const c_char,
    value: *const c_void,
    size: usize,
    flags: c_int,
) -> c_int {
    // SAFETY: NUL-terminated.
    let attribute = unsafe { CStr::from_ptr(name) };
    // SAFETY: NUL-terminated.
    let found = unsafe { path(at) }
        .filter(|_| is_ours(attribute))
        .and_then(|path| file_to_change(&path));
    let Some((mount, fid)) = found else {
        // SAFETY: the caller's own call, passed on.
        let rc = unsafe { libc::syscall(libc::SYS_lsetxattr, at, name, value, size, flags) };
        return c_int::try_from(rc).unwrap_or(-1);
    };
    // SAFETY: `size` bytes.
    let bytes = unsafe { std::slice::from_raw_parts(value.cast::<u8>(), size) }.to_vec();
    let text = attribute.to_string_lossy().into_owned();
    if flags & libc::XATTR_CREATE != 0
        && let Ok(fid) = fid
        && ask(&mount, &Request::GetXattr(fid, text.clone()), None).is_ok()
    {
        return fail(libc::EEXIST);
    }
    answer(fid.and_then(|fid| tell(&mount, &Request::SetXattr(fid, text, bytes), None)))
}

/// # Safety
/// As of lremovexattr(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lremovexattr(at: *const c_char, name: *const c_char) -> c_int {
    // SAFETY: NUL-terminated.
    let attribute = unsafe { CStr::from_ptr(name) };
    // SAFETY: NUL-terminated.
    let found = unsafe { path(at) }
        .filter(|_| is_ours(attribute))
        .and_then(|path| file_at(&path));
    let Some((mount, fid)) = found else {
        // SAFETY: the caller's own call, passed on.
        let rc = unsafe { libc::syscall(libc::SYS_lremovexattr, at, name) };
        return c_int::try_from(rc).unwrap_or(-1);
    };
    let text = attribute.to_string_lossy().into_owned();
    answer(fid.and_then(|fid| tell(&mount, &Request::RemoveXattr(fid, text), None)))
}

/// A layout, set on a volatile file.
///
/// # Safety
/// As of fsetxattr(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fsetxattr(
    fd: c_int,
    name: *const c_char,
    value: *const c_void,
    size: usize,
    flags: c_int,
) -> c_int {
    // SAFETY: NUL-terminated.
    let attribute = unsafe { CStr::from_ptr(name) };
    if matches!(attribute.to_bytes(), b"lustre.lov" | b"trusted.lov")
        && let Ok(stat) = std::fs::metadata(format!("/proc/self/fd/{fd}"))
    {
        // SAFETY: `size` bytes.
        let bytes = unsafe { std::slice::from_raw_parts(value.cast::<u8>(), size) };
        if let Some(result) = volatile::set_layout(fd, (stat.dev(), stat.ino()), bytes) {
            return answer(result);
        }
    }
    // SAFETY: the caller's own call, passed on.
    let rc = unsafe { libc::syscall(libc::SYS_fsetxattr, fd, name, value, size, flags) };
    c_int::try_from(rc).unwrap_or(-1)
}

/// A restore's files: the released one by its FID, and the volatile one.
///
/// # Safety
/// As of openat(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn openat(dirfd: c_int, at: *const c_char, flags: c_int, mode: libc::mode_t) -> c_int {
    // SAFETY: NULL or NUL-terminated.
    let served = unsafe { path(at) }.and_then(|path| volatile::open_at(dirfd, &path, flags));
    match served {
        Some(Ok(file)) => file.into_raw_fd(),
        Some(Err(errno)) => fail(errno),
        None => {
            // SAFETY: the caller's own call, passed on.
            let rc = unsafe { libc::syscall(libc::SYS_openat, dirfd, at, flags, mode) };
            c_int::try_from(rc).unwrap_or(-1)
        }
    }
}

/// # Safety
/// As of fsync(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fsync(fd: c_int) -> c_int {
    if let Err(errno) = volatile::sync_fault(fd) {
        return fail(errno);
    }
    // SAFETY: the caller's own call, passed on.
    let rc = unsafe { libc::syscall(libc::SYS_fsync, fd) };
    c_int::try_from(rc).unwrap_or(-1)
}

/// The sandbox that a regular file is in. Looks at nothing but directories, a socket and links: each look comes back here.
///
/// # Safety
/// `at` is NULL or NUL-terminated.
unsafe fn mount_of_stat(dirfd: c_int, at: *const c_char) -> Option<PathBuf> {
    // SAFETY: as the caller promises.
    let at = unsafe { path(at) }.unwrap_or_default();
    if at.is_absolute() {
        return mount_of(&at);
    }
    let dir = match dirfd {
        libc::AT_FDCWD => std::env::current_dir().ok()?,
        fd => std::fs::read_link(format!("/proc/self/fd/{fd}")).ok()?,
    };
    mount_of(&dir.join(at))
}

/// The name below `.lustre/fid` is no link that a user made, and the ctime is what Lustre would show.
///
/// # Safety
/// As of statx(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn statx(
    dirfd: c_int,
    at: *const c_char,
    flags: c_int,
    mask: c_uint,
    out: *mut libc::statx,
) -> c_int {
    // SAFETY: the caller's own call, passed on.
    let rc = unsafe { libc::syscall(libc::SYS_statx, dirfd, at, flags, mask, out) };
    if rc != 0 {
        return c_int::try_from(rc).unwrap_or(-1);
    }
    // SAFETY: the caller's, and written by the kernel.
    if let Some(stat) = unsafe { out.as_mut() } {
        let inode = (libc::makedev(stat.stx_dev_major, stat.stx_dev_minor), stat.stx_ino);
        let is_file = u32::from(stat.stx_mode) & libc::S_IFMT == libc::S_IFREG;
        let mount = if is_file {
            // SAFETY: the caller's own path.
            unsafe { mount_of_stat(dirfd, at) }
        } else {
            None
        };
        let is_linked = mount.as_ref().is_some_and(|mount| links::is_linked(mount, inode.1));
        if is_linked || action::is_source(inode) {
            stat.stx_nlink = stat.stx_nlink.saturating_sub(1);
        }
        if let Some(mount) = mount {
            let real = (stat.stx_ctime.tv_sec, i64::from(stat.stx_ctime.tv_nsec));
            let (seconds, nanoseconds) = ctime::shown(&mount, stat.stx_ino, real);
            stat.stx_ctime.tv_sec = seconds;
            stat.stx_ctime.tv_nsec = u32::try_from(nanoseconds).unwrap_or(0);
        }
    }
    0
}
