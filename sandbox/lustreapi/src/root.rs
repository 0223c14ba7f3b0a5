//! A root directory for each client. On Lustre each client mount has an inode of its own for it, so that a lock on it is this
//! mount's alone; here all clients have one directory.

use std::ffi::c_int;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use crate::client::{client_name, mount_of};
use crate::interpose::fail;

/// Below the mount point: for each client of another name than the mount's a directory that stands for its root.
const ROOTS: &str = ".lustre/roots";

/// The lock of a root directory.
///
/// # Safety
/// As of flock(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flock(fd: c_int, operation: c_int) -> c_int {
    if let Err(error) = own_root(fd) {
        return fail(error.raw_os_error().unwrap_or(libc::EIO));
    }
    // SAFETY: the caller's own call, passed on.
    let rc = unsafe { libc::syscall(libc::SYS_flock, fd, operation) };
    c_int::try_from(rc).unwrap_or(-1)
}

/// Opens a client's own root in place of the directory that all have, where `fd` is that.
fn own_root(fd: c_int) -> io::Result<()> {
    let path = fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default();
    let Some(mount) = mount_of(&path).filter(|mount| *mount == path) else {
        return Ok(());
    };
    let client = client_name(&mount);
    if Path::new(&client) == mount {
        return Ok(());
    }
    let root = mount.join(ROOTS).join(client.replace('/', "%"));
    fs::create_dir_all(&root)?;
    let root = File::open(root)?;
    // SAFETY: the caller's descriptor goes on under its number, as one that is closed at an exec.
    let rc = unsafe { libc::dup3(root.as_raw_fd(), fd, libc::O_CLOEXEC) };
    if rc < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
