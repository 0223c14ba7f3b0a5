//! Extended attributes by path, through libc: the sandbox serves `trusted.*` and `lustre.*` there.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use crate::action::HsmError;
use crate::types::Xattr;

/// The ceiling of both Linux and Lustre (with `ea_inode`).
const MAX: usize = 65536;

/// The value, `None` when the file has no such attribute. Follows no symlink.
pub(super) fn get(path: &Path, name: &CStr) -> Result<Option<Vec<u8>>, HsmError> {
    let path = c_path("lgetxattr", path)?;
    let value = fill("lgetxattr", |buffer| {
        #[expect(unsafe_code, reason = "libc call")]
        // SAFETY: two NUL-terminated texts; writes at most `len` bytes into the buffer.
        unsafe {
            libc::lgetxattr(path.as_ptr(), name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len())
        }
    });
    match value {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.errno == libc::ENODATA => Ok(None),
        Err(error) => Err(error),
    }
}

/// The names of all attributes. Follows no symlink.
pub(super) fn names(path: &Path) -> Result<Vec<Vec<u8>>, HsmError> {
    let path = c_path("llistxattr", path)?;
    let names = fill("llistxattr", |buffer| {
        #[expect(unsafe_code, reason = "libc call")]
        // SAFETY: a NUL-terminated text; writes at most `len` bytes into the buffer.
        unsafe {
            libc::llistxattr(path.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len())
        }
    })?;
    let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    Ok(names.map(<[u8]>::to_vec).collect())
}

/// All attributes of an open file whose names are wanted.
pub(super) fn all(file: BorrowedFd<'_>, wanted: impl Fn(&[u8]) -> bool) -> Result<Vec<Xattr>, HsmError> {
    let names = fill("flistxattr", |buffer| {
        #[expect(unsafe_code, reason = "libc call")]
        // SAFETY: an open descriptor; writes at most `len` bytes into the buffer.
        unsafe {
            libc::flistxattr(file.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len())
        }
    });
    let names = match names {
        Err(error) if error.errno == libc::EOPNOTSUPP => return Ok(Vec::new()),
        names => names?,
    };
    let mut found = Vec::new();
    for name in names
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty() && wanted(name))
    {
        let c_name = CString::new(name).map_err(|_| HsmError::new("fgetxattr", libc::EINVAL))?;
        let value = fill("fgetxattr", |buffer| {
            #[expect(unsafe_code, reason = "libc call")]
            // SAFETY: an open descriptor, a NUL-terminated text; writes at most `len` bytes into the buffer.
            unsafe {
                libc::fgetxattr(
                    file.as_raw_fd(),
                    c_name.as_ptr(),
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                )
            }
        });
        match value {
            Ok(value) => found.push((name.to_owned(), value)),
            // Removed meanwhile.
            Err(error) if error.errno == libc::ENODATA => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Calls until the buffer is large enough.
fn fill(call: &'static str, mut read: impl FnMut(&mut [u8]) -> isize) -> Result<Vec<u8>, HsmError> {
    let mut value = vec![0u8; 512];
    loop {
        if let Ok(n) = usize::try_from(read(&mut value)) {
            value.truncate(n);
            return Ok(value);
        }
        let error = std::io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ERANGE) || value.len() >= MAX {
            return Err(HsmError::io(call, &error));
        }
        value.resize(MAX, 0);
    }
}

pub(super) fn set(path: &Path, name: &CStr, value: &[u8]) -> Result<(), HsmError> {
    set_flagged(path, name, value, 0)
}

/// EEXIST when there is one already.
pub(super) fn create(path: &Path, name: &CStr, value: &[u8]) -> Result<(), HsmError> {
    set_flagged(path, name, value, libc::XATTR_CREATE)
}

fn set_flagged(path: &Path, name: &CStr, value: &[u8], flags: i32) -> Result<(), HsmError> {
    let path = c_path("lsetxattr", path)?;
    #[expect(unsafe_code, reason = "libc call")]
    // SAFETY: two NUL-terminated texts; reads `value.len()` bytes of `value`.
    let rc = unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), flags) };
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
