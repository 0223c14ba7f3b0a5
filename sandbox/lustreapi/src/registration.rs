//! llapi_hsm_copytool_*, llapi_search_fsname, llapi_fid2path.

use std::ffi::{c_char, c_int};
use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _, IntoRawFd as _, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use lhsm_sandbox_protocol::{Fid, Reply, Request};
use nix::fcntl::OFlag;

use crate::abi::{path, put_text, rc};
use crate::action::of_open;
use crate::client::{ask, client_name, mount_of, tell};
use crate::police::{self, Watched};

/// `struct hsm_copytool_private`
pub struct Copytool {
    pub(crate) mount: PathBuf,
    /// Kept open as the real one keeps its own.
    _mount_dir: File,
    /// Closing that unregisters the mount.
    once: bool,
    mount_watch: Watched,
    pub(crate) pipe: RawFd,
    pipe_watch: Watched,
    uid: u32,
    pub(crate) archives: Vec<u32>,
    /// The last message that recv gave out.
    pub(crate) message: Vec<u64>,
}

impl Copytool {
    fn register(mount: &Path, archives: Vec<u32>, flags: c_int) -> Result<Self, i32> {
        let errno = |error: std::io::Error| error.raw_os_error().unwrap_or(libc::EIO);
        let mount_dir = File::open(mount).map_err(errno)?;
        File::open(mount.join(".lustre/fid")).map_err(errno)?;
        let (read, write) =
            nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::from_bits_truncate(flags)).map_err(|e| e as i32)?;
        nix::fcntl::fcntl(&write, nix::fcntl::FcntlArg::F_SETFL(OFlag::empty())).map_err(|e| e as i32)?;
        let uid = std::process::id();
        let once = start(mount, uid, archives.clone(), false, &write)?;
        let pipe = read.into_raw_fd();
        Ok(Self {
            mount: mount.to_owned(),
            mount_watch: Watched::new(mount_dir.as_raw_fd()),
            _mount_dir: mount_dir,
            once,
            pipe_watch: Watched::new(pipe),
            pipe,
            uid,
            archives,
            message: Vec::new(),
        })
    }

    pub(crate) fn check(&self) {
        self.mount_watch.check("the library's mount point");
    }
}

/// `LL_IOC_HSM_CT_START`; whether the descriptor that it was made on can't be used for another one, and unregisters the
/// mount when it is closed.
pub(crate) fn start(mount: &Path, uid: u32, archives: Vec<u32>, listed: bool, write: &OwnedFd) -> Result<bool, i32> {
    let request = Request::Register {
        uid,
        archives,
        listed,
        client: client_name(mount),
    };
    match ask(mount, &request, Some(write.as_fd())) {
        // 2.17 and before: the error path drops the pipe's file twice; "kernel BUG at fs/open.c".
        Err(libc::ENXIO) => police::violation(
            "it registered while the coordinator is stopped; a real client's kernel would have crashed (probe first)",
        ),
        other => other.map(|reply| matches!(reply, Reply::Ok(1))),
    }
}

/// Opens a registration.
///
/// # Safety
/// As in lustreapi.h: `mnt` NUL-terminated, `archives` has `archive_count` elements.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llapi_hsm_copytool_register(
    out: *mut *mut Copytool,
    mnt: *const c_char,
    archive_count: c_int,
    archives: *mut c_int,
    rfd_flags: c_int,
) -> c_int {
    // SAFETY: as the caller promises.
    let mount = unsafe { path(mnt) };
    let ids = match usize::try_from(archive_count) {
        Ok(0) => Vec::new(),
        // SAFETY: as the caller promises.
        Ok(n) if !archives.is_null() => unsafe { std::slice::from_raw_parts(archives, n) }.to_vec(),
        _ => return -libc::EINVAL,
    };
    let Ok(mut ids) = ids.into_iter().map(u32::try_from).collect::<Result<Vec<_>, _>>() else {
        return -libc::EINVAL;
    };
    if ids.contains(&0) {
        ids.clear();
    }
    let Some(mount) = mount.filter(|_| !out.is_null()) else {
        return -libc::EINVAL;
    };
    match Copytool::register(&mount, ids, rfd_flags) {
        Ok(copytool) => {
            // SAFETY: not NULL, and the caller's to write.
            unsafe { *out = Box::into_raw(Box::new(copytool)) };
            0
        }
        Err(errno) => -errno,
    }
}

/// Closes it: the pipe first, then the ioctl (LU-7992).
///
/// # Safety
/// A handle from register, not given here before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llapi_hsm_copytool_unregister(out: *mut *mut Copytool) -> c_int {
    if out.is_null() {
        return -libc::EINVAL;
    }
    // SAFETY: not NULL.
    let pointer = unsafe { *out };
    if pointer.is_null() {
        return -libc::EINVAL;
    }
    let open = police::open_actions();
    if open > 0 {
        police::violation(&format!("it unregistered with {open} actions begun and not ended"));
    }
    // SAFETY: a Box from register, given up by the caller.
    let copytool = unsafe { Box::from_raw(pointer) };
    // SAFETY: the caller's variable.
    unsafe { *out = std::ptr::null_mut() };
    copytool.check();
    copytool.pipe_watch.check("the message pipe");
    if let Err(error) = nix::unistd::close(copytool.pipe) {
        police::violation(&format!("the message pipe can't be closed: {error}"));
    }
    let stop = Request::Unregister {
        uid: copytool.uid,
        client: client_name(&copytool.mount),
    };
    // As the real one, which ignores the ioctl's result.
    let _result = tell(&copytool.mount, &stop, None);
    if copytool.once {
        let _result = tell(&copytool.mount, &unregister_all(&copytool.mount), None);
    }
    0
}

/// What the closing of a descriptor does that registered where each registers once.
pub(crate) fn unregister_all(mount: &Path) -> Request {
    Request::Unregister {
        uid: 0,
        client: client_name(mount),
    }
}

/// The pipe's read end, the library's own.
///
/// # Safety
/// A live handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llapi_hsm_copytool_get_fd(copytool: *mut Copytool) -> c_int {
    // SAFETY: as the caller promises.
    match unsafe { copytool.as_ref() } {
        Some(copytool) => copytool.pipe,
        None => -libc::EINVAL,
    }
}

/// Which Lustre a path is on.
///
/// # Safety
/// `pathname` NUL-terminated, `fsname` with room for PATH_MAX.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llapi_search_fsname(pathname: *const c_char, fsname: *mut c_char) -> c_int {
    // SAFETY: as the caller promises.
    let mount = unsafe { path(pathname) }.and_then(|path| mount_of(&path));
    let Some(mount) = mount else {
        return -libc::ENODEV;
    };
    match ask(&mount, &Request::FsName, None) {
        Ok(Reply::Text(name)) => {
            // SAFETY: as the caller promises.
            unsafe { put_text(fsname, name.as_bytes()) };
            0
        }
        Ok(_) => -libc::EPROTO,
        Err(errno) => -errno,
    }
}

/// A path of a file below the mount.
///
/// # Safety
/// Texts NUL-terminated, `out` with room for `pathlen`, `linkno` NULL or the caller's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llapi_fid2path(
    device: *const c_char,
    fidstr: *const c_char,
    out: *mut c_char,
    pathlen: c_int,
    _recno: *mut i64,
    linkno: *mut c_int,
) -> c_int {
    // SAFETY: as the caller promises.
    let mount = unsafe { path(device) }.and_then(|path| mount_of(&path));
    // SAFETY: as the caller promises.
    let fid = unsafe { path(fidstr) }.and_then(|text| text.to_str()?.parse().ok());
    let (Some(mount), Some(fid)) = (mount, fid) else {
        return -libc::EINVAL;
    };
    // SAFETY: as the caller promises.
    unsafe { put_path(&mount, fid, out, pathlen, linkno) }
}

/// Writes one of a file's paths to `out`. The number of the next name, if there is one, goes to `linkno`.
///
/// # Safety
/// `out` has room for `pathlen`; `linkno` is NULL or the caller's.
pub(crate) unsafe fn put_path(mount: &Path, fid: Fid, out: *mut c_char, pathlen: c_int, linkno: *mut c_int) -> c_int {
    // SAFETY: as the caller promises.
    let linkno = unsafe { linkno.as_mut() };
    let link = linkno.as_ref().map_or(0, |link| u32::try_from(**link).unwrap_or(0));
    rc(
        ask(mount, &Request::PathOf(fid, link), None).and_then(|reply| match reply {
            Reply::Path(path, more) if path.len() < usize::try_from(pathlen).unwrap_or(0) => {
                // SAFETY: the path and its NUL fit.
                unsafe { put_text(out, &path) };
                if let Some(linkno) = linkno.filter(|_| more) {
                    *linkno += 1;
                }
                Ok(())
            }
            Reply::Path(..) => Err(libc::EOVERFLOW),
            _ => Err(libc::EPROTO),
        }),
    )
}

/// The name of a client's mount: what tells two mounts of one file system on a node from each other.
///
/// # Safety
/// `at` NUL-terminated, `out` with room for `size`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llapi_getname(at: *const c_char, out: *mut c_char, size: usize) -> c_int {
    // SAFETY: as the caller promises.
    let Some(mount) = unsafe { path(at) }.and_then(|path| mount_of(&path)) else {
        return -libc::ENOTTY;
    };
    let name = client_name(&mount);
    // The real name is short.
    let tail = name.len().saturating_sub(200);
    let name = name.as_bytes().get(tail..).unwrap_or_default();
    if name.len() >= size {
        return -libc::EOVERFLOW;
    }
    // SAFETY: the name and its NUL fit.
    unsafe { put_text(out, name) };
    0
}

/// The sandbox's library prints only what ends the process.
#[unsafe(no_mangle)]
pub extern "C" fn llapi_msg_set_level(_level: c_int) {}

/// The file that a path means, in a sandbox.
///
/// # Safety
/// NUL-terminated.
pub(crate) unsafe fn file(at: *const c_char) -> Result<(PathBuf, Fid), i32> {
    // SAFETY: as the caller promises.
    let path = unsafe { path(at) }.ok_or(libc::EINVAL)?;
    let (mount, fid) = crate::interpose::file_at(&path).ok_or(libc::ENOTTY)?;
    Ok((mount, fid?))
}

/// States of a file.
///
/// # Safety
/// `at` NUL-terminated; `out` has room for the fixed part of struct hsm_user_state, eight u32.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llapi_hsm_state_get(at: *const c_char, out: *mut [u32; 8]) -> c_int {
    // SAFETY: as the caller promises.
    let state = unsafe { file(at) }
        .and_then(|(mount, fid)| ask(&mount, &Request::State(fid), None).map_err(|error| of_open(&mount, fid, error)));
    match state {
        Ok(Reply::State(state)) => {
            // SAFETY: as the caller promises.
            unsafe { out.write_unaligned([state.states, state.archive_id, 0, 0, 0, 0, 0, 0]) };
            0
        }
        Ok(_) => -libc::EPROTO,
        // HSM never had to do with it.
        Err(libc::ENODATA) => {
            // SAFETY: as the caller promises.
            unsafe { out.write_unaligned([0; 8]) };
            0
        }
        Err(errno) => -errno,
    }
}

/// Sets and clears states of a file.
///
/// # Safety
/// `at` NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llapi_hsm_state_set(at: *const c_char, set: u64, clear: u64, archive_id: u32) -> c_int {
    let mask = |bits: u64| u32::try_from(bits).map_err(|_| libc::EINVAL);
    // SAFETY: as the caller promises.
    let result = unsafe { file(at) }.and_then(|(mount, fid)| {
        let request = Request::SetState {
            fid,
            set: mask(set)?,
            clear: mask(clear)?,
            archive_id: (archive_id != 0).then_some(archive_id),
        };
        tell(&mount, &request, None).map_err(|error| of_open(&mount, fid, error))
    });
    rc(result)
}
