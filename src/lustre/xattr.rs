//! Extended attributes by path, through libc: the sandbox serves `trusted.*` and `lustre.*` there.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use crate::action::HsmError;

/// The ceiling of both Linux and Lustre (with `ea_inode`).
const MAX: usize = 65536;

/// The value, `None` when the file has no such attribute. Follows no symlink.
pub(super) fn get(path: &Path, name: &CStr) -> Result<Option<Vec<u8>>, HsmError> {
    let path = c_path("lgetxattr", path)?;
    let mut value = vec![0u8; 512];
    loop {
        #[expect(unsafe_code, reason = "libc call")]
        // SAFETY: two NUL-terminated texts; writes at most `value.len()` bytes into `value`.
        let n = unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
        if let Ok(n) = usize::try_from(n) {
            value.truncate(n);
            return Ok(Some(value));
        }
        let error = std::io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::ENODATA) => return Ok(None),
            Some(libc::ERANGE) if value.len() < MAX => value.resize(MAX, 0),
            _ => return Err(HsmError::io("lgetxattr", &error)),
        }
    }
}

pub(super) fn set(path: &Path, name: &CStr, value: &[u8]) -> Result<(), HsmError> {
    let path = c_path("lsetxattr", path)?;
    #[expect(unsafe_code, reason = "libc call")]
    // SAFETY: two NUL-terminated texts; reads `value.len()` bytes of `value`.
    let rc = unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    result("lsetxattr", rc)
}

pub(super) fn set_fd(file: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> Result<(), HsmError> {
    #[expect(unsafe_code, reason = "libc call")]
    // SAFETY: an open descriptor, a NUL-terminated text; reads `value.len()` bytes of `value`.
    let rc = unsafe { libc::fsetxattr(file.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    result("fsetxattr", rc)
}

/// Removes the attribute; one that is not there is fine.
pub(super) fn remove(path: &Path, name: &CStr) -> Result<(), HsmError> {
    let path = c_path("lremovexattr", path)?;
    #[expect(unsafe_code, reason = "libc call")]
    // SAFETY: two NUL-terminated texts.
    let rc = unsafe { libc::lremovexattr(path.as_ptr(), name.as_ptr()) };
    match result("lremovexattr", rc) {
        Err(error) if error.errno == libc::ENODATA => Ok(()),
        other => other,
    }
}

fn result(call: &'static str, rc: i32) -> Result<(), HsmError> {
    if rc < 0 {
        Err(HsmError::io(call, &std::io::Error::last_os_error()))
    } else {
        Ok(())
    }
}

fn c_path(call: &'static str, path: &Path) -> Result<CString, HsmError> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| HsmError::new(call, libc::EINVAL))
}
