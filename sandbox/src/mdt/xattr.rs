//! `trusted.*` attributes: where the directory's file system takes them, they are real ones of the files, so that root's
//! `cp -a` and `rsync -X` see them and copy them along, as on Lustre. Else, and what does not fit, they are kept here.
//!
//! Directories' are always kept here: FIDs begin anew with each process, and so does the root's mark.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use lhsm_sandbox_protocol::Fid;

use super::namespace::errno;
use super::state::State;

/// Lustre's ceiling.
const MAX: usize = 65536;
/// `struct hsm_attrs`.
const HSM: &str = "trusted.hsm";
const PROBE: &str = "trusted.lhsm_sandbox";

/// Whether files below a directory can have them.
pub(super) fn are_kept(directory: &Path) -> bool {
    write(directory, PROBE, b"probe")
        .and_then(|()| remove(directory, PROBE))
        .is_ok()
}

impl State {
    /// ENODATA when there is none.
    pub(super) fn xattr(&self, fid: Fid, name: &str) -> Result<Vec<u8>, i32> {
        let is_file = self.stat(fid)?.is_file();
        if name == HSM {
            return self.hsm_attributes(fid).ok_or(libc::ENODATA);
        }
        let here = self.files.get(&fid).and_then(|file| file.xattrs.get(name));
        match here {
            Some(value) => Ok(value.clone()),
            None if is_file && self.keeps(name) => read(&self.link(fid), name).map_err(|error| errno(&error)),
            None => Err(libc::ENODATA),
        }
    }

    /// As root sees them on a client, where there is HSM state: 24 bytes, with the data version of the copy at their end.
    fn hsm_attributes(&self, fid: Fid) -> Option<Vec<u8>> {
        let file = self.files.get(&fid).filter(|file| file.states != 0)?;
        let mut bytes = vec![0; 4];
        bytes.extend(file.states.to_le_bytes());
        bytes.extend(u64::from(file.archive_id).to_le_bytes());
        bytes.extend(file.archived_version.to_le_bytes());
        Some(bytes)
    }

    /// Names of `trusted.*`, each with a NUL behind it.
    pub(super) fn xattr_names(&self, fid: Fid) -> Result<Vec<u8>, i32> {
        let is_file = self.stat(fid)?.is_file();
        let here = self.files.get(&fid).into_iter().flat_map(|file| file.xattrs.keys());
        let mut names: BTreeSet<Vec<u8>> = here.map(|name| name.as_bytes().to_vec()).collect();
        if is_file && self.keeps_trusted {
            let kept = list(&self.link(fid)).map_err(|error| errno(&error))?;
            names.extend(kept.split(|byte| *byte == 0).map(<[u8]>::to_vec));
        }
        let mut text = Vec::new();
        for name in names.iter().filter(|name| name.starts_with(b"trusted.")) {
            text.extend_from_slice(name);
            text.push(0);
        }
        Ok(text)
    }

    pub(super) fn set_xattr(&mut self, fid: Fid, name: String, value: Vec<u8>) -> Result<(), i32> {
        let is_file = self.stat(fid)?.is_file();
        // It says that it was set, and nothing is.
        if name == HSM {
            return Ok(());
        }
        self.refuse_xattr(&name)?;
        if value.len() > MAX {
            return Err(libc::E2BIG);
        }
        let kept = is_file && self.keeps(&name);
        let link = self.link(fid);
        let file = self.files.get_mut(&fid).ok_or(libc::ENOENT)?;
        if kept && write(&link, &name, &value).is_ok() {
            file.xattrs.remove(&name);
            return Ok(());
        }
        if kept {
            drop_former(&link, &name)?;
        }
        file.xattrs.insert(name, value);
        if is_file { self.touch_ctime(fid) } else { Ok(()) }
    }

    /// ENODATA when there is none.
    pub(super) fn remove_xattr(&mut self, fid: Fid, name: &str) -> Result<(), i32> {
        let is_file = self.stat(fid)?.is_file();
        self.refuse_xattr(name)?;
        let kept = is_file && self.keeps(name);
        let link = self.link(fid);
        let file = self.files.get_mut(&fid).ok_or(libc::ENOENT)?;
        match file.xattrs.remove(name) {
            Some(_) => Ok(()),
            None if kept => remove(&link, name).map_err(|error| errno(&error)),
            None => Err(libc::ENODATA),
        }
    }

    fn keeps(&self, name: &str) -> bool {
        self.keeps_trusted && name.starts_with("trusted.")
    }
}

/// One that the new value did not fit into the place of.
fn drop_former(path: &Path, name: &str) -> Result<(), i32> {
    match remove(path, name) {
        Err(error) if error.raw_os_error() != Some(libc::ENODATA) => Err(errno(&error)),
        _ => Ok(()),
    }
}

fn texts(path: &Path, name: &str) -> io::Result<(CString, CString)> {
    Ok((CString::new(path.as_os_str().as_bytes())?, CString::new(name)?))
}

fn read(path: &Path, name: &str) -> io::Result<Vec<u8>> {
    let (path, name) = texts(path, name)?;
    let mut value = vec![0u8; MAX];
    #[expect(unsafe_code, reason = "no wrapper for attributes")]
    // SAFETY: two NUL-terminated texts; writes at most `len` bytes into the buffer.
    let length = unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    let Ok(length) = usize::try_from(length) else {
        return Err(io::Error::last_os_error());
    };
    value.truncate(length);
    Ok(value)
}

fn list(path: &Path) -> io::Result<Vec<u8>> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut names = vec![0u8; MAX];
    #[expect(unsafe_code, reason = "no wrapper for attributes")]
    // SAFETY: a NUL-terminated text; writes at most `len` bytes into the buffer.
    let length = unsafe { libc::llistxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    let Ok(length) = usize::try_from(length) else {
        return Err(io::Error::last_os_error());
    };
    names.truncate(length);
    Ok(names)
}

fn write(path: &Path, name: &str, value: &[u8]) -> io::Result<()> {
    let (path, name) = texts(path, name)?;
    #[expect(unsafe_code, reason = "no wrapper for attributes")]
    // SAFETY: two NUL-terminated texts; reads `value.len()` bytes of `value`.
    let rc = unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    nix::errno::Errno::result(rc).map(drop).map_err(io::Error::from)
}

fn remove(path: &Path, name: &str) -> io::Result<()> {
    let (path, name) = texts(path, name)?;
    #[expect(unsafe_code, reason = "no wrapper for attributes")]
    // SAFETY: two NUL-terminated texts.
    let rc = unsafe { libc::lremovexattr(path.as_ptr(), name.as_ptr()) };
    nix::errno::Errno::result(rc).map(drop).map_err(io::Error::from)
}
