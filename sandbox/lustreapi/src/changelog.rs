//! Changelogs: records are asked for in lots, and given out one by one.

use std::collections::VecDeque;
use std::ffi::{CStr, c_char, c_int, c_longlong, c_void};
use std::path::PathBuf;

use lhsm_sandbox_protocol::{ChangeRecord, Fid, Reply, Request};

use crate::client::{ask, last_mount, tell};

const FORMAT: u16 = 0x1000 | 0x2000;

struct Reader {
    mount: PathBuf,
    mdt: u32,
    next: u64,
    here: VecDeque<ChangeRecord>,
}

/// The index at the end of an MDT's name.
fn index(name: &CStr) -> Option<u32> {
    let (_, index) = name.to_str().ok()?.rsplit_once("-MDT")?;
    u32::from_str_radix(index, 16).ok()
}

/// Opens an MDT's changelog.
///
/// # Safety
/// `handle` the caller's to write; `mdt` NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llapi_changelog_start(
    handle: *mut *mut c_void,
    _flags: c_int,
    mdt: *const c_char,
    from: c_longlong,
) -> c_int {
    // SAFETY: as the caller promises.
    let (Some(mdt), Some(mount)) = (index(unsafe { CStr::from_ptr(mdt) }), last_mount()) else {
        return -libc::ENOENT;
    };
    let reader = Box::new(Reader {
        mount,
        mdt,
        next: u64::try_from(from).unwrap_or(0),
        here: VecDeque::new(),
    });
    // SAFETY: as the caller promises.
    unsafe { handle.write(Box::into_raw(reader).cast()) };
    0
}

/// The next record; 1 at the end.
///
/// # Safety
/// `handle` from start; `out` the caller's to write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llapi_changelog_recv(handle: *mut c_void, out: *mut *mut c_void) -> c_int {
    // SAFETY: from start, and nobody else's.
    let reader = unsafe { &mut *handle.cast::<Reader>() };
    if reader.here.is_empty() {
        match ask(&reader.mount, &Request::ChangelogRead(reader.mdt, reader.next), None) {
            Ok(Reply::Changes(records)) => reader.here = records.into(),
            Ok(_) => return -libc::EPROTO,
            Err(errno) => return -errno,
        }
    }
    let Some(record) = reader.here.pop_front() else {
        return 1;
    };
    reader.next = record.index + 1;
    let bytes = encode(&record);
    // SAFETY: malloc as the real one; freed by llapi_changelog_free.
    let at = unsafe { libc::malloc(bytes.len()) };
    if at.is_null() {
        return -libc::ENOMEM;
    }
    // SAFETY: as long as that, and new.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), at.cast(), bytes.len()) };
    // SAFETY: as the caller promises.
    unsafe { out.write(at) };
    0
}

/// Frees a record.
///
/// # Safety
/// From recv, once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llapi_changelog_free(record: *mut *mut c_void) -> c_int {
    // SAFETY: the caller's to read.
    let at = unsafe { record.read() };
    // SAFETY: from malloc.
    unsafe { libc::free(at) };
    // SAFETY: the caller's.
    unsafe { record.write(std::ptr::null_mut()) };
    0
}

/// Closes it.
///
/// # Safety
/// From start, once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llapi_changelog_fini(handle: *mut *mut c_void) -> c_int {
    // SAFETY: the caller's to read.
    let reader = unsafe { handle.read() };
    // SAFETY: from start.
    drop(unsafe { Box::from_raw(reader.cast::<Reader>()) });
    // SAFETY: the caller's.
    unsafe { handle.write(std::ptr::null_mut()) };
    0
}

/// Lets records go.
///
/// # Safety
/// Two NUL-terminated texts.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llapi_changelog_clear(mdt: *const c_char, user: *const c_char, up_to: c_longlong) -> c_int {
    // SAFETY: as the caller promises.
    let mdt = unsafe { CStr::from_ptr(mdt) };
    // SAFETY: as the caller promises.
    let user = unsafe { CStr::from_ptr(user) };
    let (Some(mdt), Some(mount), Ok(up_to)) = (index(mdt), last_mount(), u64::try_from(up_to)) else {
        return -libc::EINVAL;
    };
    let user = user.to_string_lossy().into_owned();
    tell(&mount, &Request::ChangelogClear(mdt, user, up_to), None).map_or_else(|errno| -errno, |()| 0)
}

fn encode(record: &ChangeRecord) -> Vec<u8> {
    let mut name = record.name.clone();
    if record.source.is_some() {
        name.push(0);
        name.extend(&record.old_name);
    }
    let mut bytes = Vec::new();
    bytes.extend(u16::try_from(name.len()).unwrap_or(0).to_le_bytes());
    bytes.extend((FORMAT | record.flags).to_le_bytes());
    bytes.extend(record.kind.to_le_bytes());
    for word in [record.index, 0, 0] {
        bytes.extend(word.to_le_bytes());
    }
    let mut put = |fid: Option<Fid>| {
        let fid = fid.unwrap_or(Fid { seq: 0, oid: 0, ver: 0 });
        bytes.extend(fid.seq.to_le_bytes());
        bytes.extend(fid.oid.to_le_bytes());
        bytes.extend(fid.ver.to_le_bytes());
    };
    put(record.target);
    put(record.parent);
    put(record.source.map(|(moved, _)| moved));
    put(record.source.map(|(_, parent)| parent));
    bytes.extend(name);
    bytes
}
