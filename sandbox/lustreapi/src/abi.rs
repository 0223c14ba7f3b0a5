//! The C structs that cross the border, packed as in Lustre's headers, and C's conventions.

use std::ffi::{CStr, OsStr, c_char, c_int};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use lhsm_sandbox_protocol::{Action, Fid, Item};

#[repr(C, packed)]
#[derive(Clone, Copy, Debug)]
pub struct LuFid {
    seq: u64,
    oid: u32,
    ver: u32,
}

#[repr(C, packed)]
#[derive(Clone, Copy)]
pub(crate) struct HsmExtent {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

#[repr(C, packed)]
#[derive(Clone, Copy)]
pub(crate) struct HsmActionItem {
    len: u32,
    action: u32,
    fid: LuFid,
    dfid: LuFid,
    extent: HsmExtent,
    cookie: u64,
    gid: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct HsmProgress {
    pub(crate) fid: LuFid,
    pub(crate) cookie: u64,
    pub(crate) extent: HsmExtent,
    flags: u16,
    errval: u16,
    padding: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct HsmCopy {
    pub(crate) data_version: u64,
    pub(crate) flags: u16,
    pub(crate) errval: u16,
    padding: u32,
    pub(crate) item: HsmActionItem,
}

const _: () = assert!(size_of::<LuFid>() == 16);
const _: () = assert!(size_of::<HsmCopy>() == 88);
const _: () = assert!(size_of::<HsmActionItem>() == 72);
const _: () = assert!(size_of::<HsmProgress>() == 48);

impl From<LuFid> for Fid {
    fn from(fid: LuFid) -> Self {
        Self {
            seq: fid.seq,
            oid: fid.oid,
            ver: fid.ver,
        }
    }
}

impl From<Fid> for LuFid {
    fn from(fid: Fid) -> Self {
        Self {
            seq: fid.seq,
            oid: fid.oid,
            ver: fid.ver,
        }
    }
}

impl From<HsmActionItem> for Item {
    fn from(hai: HsmActionItem) -> Self {
        Self {
            action: Action::from_number(hai.action),
            fid: hai.fid.into(),
            dfid: hai.dfid.into(),
            cookie: hai.cookie,
        }
    }
}

/// A path argument; `None` for NULL.
///
/// # Safety
/// NULL or NUL-terminated.
pub(crate) unsafe fn path(text: *const c_char) -> Option<PathBuf> {
    if text.is_null() {
        return None;
    }
    // SAFETY: as the caller promises.
    let text = unsafe { CStr::from_ptr(text) };
    Some(OsStr::from_bytes(text.to_bytes()).into())
}

/// Copies `bytes` and a NUL.
///
/// # Safety
/// `to` has room for them.
pub(crate) unsafe fn put_text(to: *mut c_char, bytes: &[u8]) {
    // SAFETY: as the caller promises.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr().cast(), to, bytes.len()) };
    // SAFETY: one more.
    let end = unsafe { to.add(bytes.len()) };
    // SAFETY: within the room that the caller promises.
    unsafe { end.write(0) };
}

/// This API's convention: 0 or -errno.
pub(crate) fn rc(result: Result<(), i32>) -> c_int {
    match result {
        Ok(()) => 0,
        Err(errno) => -errno,
    }
}
