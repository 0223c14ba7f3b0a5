//! An MDT's changelog: what was changed, in order, until it is cleared.
//!
//! The records of 2.10 and later: a fixed head, extensions in the order of their flags, then the name, of a rename
//! both names with a NUL between (lustre_user.h). The reader is `/dev/changelog-MDT` (mode 0600, facts of 2.17).

use std::ffi::{CString, OsString, c_void};
use std::os::unix::ffi::OsStringExt as _;
use std::ptr::NonNull;

use super::bindings::{CLF_EXTRA_FLAGS, CLF_JOBID, CLF_RENAME, changelog_rec, lu_fid};
use super::{Library, Mount};
use crate::action::HsmError;
use crate::types::{Fid, Mdt};

const RENAME: usize = 32;
const JOBID: usize = 32;
const EXTRA_FLAGS: usize = 8;
/// Sizes of further extensions, by the bits of the extra flags: owner, node, open mode, attribute name.
const EXTRAS: [(u64, usize); 4] = [(1, 16), (2, 16), (4, 4), (8, 256)];

/// What was done; the numbers are `CL_*` of lustre_user.h.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// A file, directory, link or device was made, or a file got one more name.
    Made,
    /// A name is gone; `last`: the file with it.
    Unlinked {
        /// No name is left.
        last: bool,
    },
    /// A directory is gone.
    DirectoryRemoved,
    /// A name was changed. If something had the new one, it is the record's target.
    Renamed,
    /// A file that was open for writing was closed, or data or times were changed.
    Data,
    /// Owner, permissions, extended attributes.
    Attributes,
    /// An archived file was changed for the first time since.
    Dirtied,
    /// Something else of HSM: requests, ends of actions.
    Hsm,
    /// Anything else: opens, reads, layouts, migrations, marks.
    Other(u32),
}

/// One record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChangeRecord {
    /// Counts up; gaps mean records that nobody will see any more.
    pub index: u64,
    /// What was done.
    pub change: Change,
    /// The file, of a rename what was replaced.
    pub target: Option<Fid>,
    /// The directory.
    pub parent: Option<Fid>,
    /// The name, of a rename the new one.
    pub name: OsString,
    /// Of a rename: what was moved.
    pub source: Option<Fid>,
    /// Of a rename: the directory and the name before.
    pub before: Option<(Fid, OsString)>,
}

/// A changelog that is being read.
pub struct Changelog {
    library: Library,
    handle: NonNull<c_void>,
}

impl std::fmt::Debug for Changelog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Changelog")
    }
}

impl Mount {
    /// The MDTs that can be reached, by index, with their names.
    ///
    /// # Errors
    /// An MDT is there and can't be asked.
    pub fn mdt_names(&self) -> Result<Vec<(u32, String)>, HsmError> {
        let named = |mdt: Mdt| (mdt.0, format!("{}-MDT{:04x}", self.file_system_name(), mdt.0));
        Ok(self.mdts()?.into_iter().map(named).collect())
    }

    /// Reads an MDT's changelog from that record on.
    ///
    /// # Errors
    /// EACCES, or no such MDT; EOPNOTSUPP: the library has no changelogs.
    pub fn changelog(&self, mdt: &str, from: u64) -> Result<Changelog, HsmError> {
        const CALL: &str = "llapi_changelog_start";
        let api = self.library().api();
        let whole = api.llapi_changelog_start.is_ok()
            && api.llapi_changelog_recv.is_ok()
            && api.llapi_changelog_free.is_ok()
            && api.llapi_changelog_fini.is_ok();
        if !whole {
            return Err(HsmError::new(CALL, libc::EOPNOTSUPP));
        }
        let name = CString::new(mdt).map_err(|_| HsmError::new(CALL, libc::EINVAL))?;
        let from = i64::try_from(from).map_err(|_| HsmError::new(CALL, libc::EINVAL))?;
        let mut handle = std::ptr::null_mut();
        #[expect(unsafe_code, reason = "C ABI of liblustreapi")]
        // SAFETY: reads a NUL-terminated name, writes the handle, which llapi_changelog_fini frees; no flags: at the
        // last record a read ends (liblustreapi_chlg.c).
        let rc = unsafe { api.llapi_changelog_start(&raw mut handle, 0, name.as_ptr(), from) };
        super::library::check(CALL, rc)?;
        Ok(Changelog {
            library: self.library().clone(),
            handle: NonNull::new(handle).ok_or(HsmError::new(CALL, libc::EFAULT))?,
        })
    }

    /// Lets an MDT forget the records up to that one, as far as this reader goes.
    ///
    /// # Errors
    /// ENOENT and EINVAL: no such reader is registered (`lctl changelog_register` on the MDS).
    pub fn clear_changelog(&self, mdt: &str, user: &str, up_to: u64) -> Result<(), HsmError> {
        const CALL: &str = "llapi_changelog_clear";
        let api = self.library().api();
        if api.llapi_changelog_clear.is_err() {
            return Err(HsmError::new(CALL, libc::EOPNOTSUPP));
        }
        let invalid = |_| HsmError::new(CALL, libc::EINVAL);
        let (name, user) = (
            CString::new(mdt).map_err(invalid)?,
            CString::new(user).map_err(invalid)?,
        );
        let up_to = i64::try_from(up_to).map_err(|_| HsmError::new(CALL, libc::EINVAL))?;
        #[expect(unsafe_code, reason = "C ABI of liblustreapi")]
        // SAFETY: reads two NUL-terminated texts and keeps nothing (liblustreapi_chlg.c).
        let rc = unsafe { api.llapi_changelog_clear(name.as_ptr(), user.as_ptr(), up_to) };
        super::library::check(CALL, rc)
    }
}

impl Changelog {
    /// The next record; `None` at the end of what there is now.
    ///
    /// # Errors
    /// The read failed, or gave what is no record.
    pub fn read(&mut self) -> Result<Option<ChangeRecord>, HsmError> {
        const CALL: &str = "llapi_changelog_recv";
        let api = self.library.api();
        let mut record: *mut changelog_rec = std::ptr::null_mut();
        #[expect(unsafe_code, reason = "C ABI of liblustreapi")]
        // SAFETY: a handle of llapi_changelog_start that is not finished; writes a record that it allocated
        // (liblustreapi_chlg.c).
        let rc = unsafe { api.llapi_changelog_recv(self.handle.as_ptr(), &raw mut record) };
        if rc == 1 {
            return Ok(None);
        }
        super::library::check(CALL, rc)?;
        let Some(at) = NonNull::new(record) else {
            return Err(HsmError::new(CALL, libc::EFAULT));
        };
        #[expect(unsafe_code, reason = "a record made by C")]
        // SAFETY: the library allocates each record with its extensions and its name (llapi_changelog_repack_rec).
        let parsed = unsafe { parse_at(at.as_ptr().cast()) };
        #[expect(unsafe_code, reason = "C ABI of liblustreapi")]
        // SAFETY: frees what llapi_changelog_recv allocated, once; nothing of it is kept.
        unsafe {
            api.llapi_changelog_free(&raw mut record);
        }
        parsed.map(Some).ok_or(HsmError::new(CALL, libc::EPROTO))
    }
}

impl Drop for Changelog {
    fn drop(&mut self) {
        let mut handle = self.handle.as_ptr();
        #[expect(unsafe_code, reason = "C ABI of liblustreapi")]
        // SAFETY: frees a handle of llapi_changelog_start, once.
        unsafe {
            self.library.api().llapi_changelog_fini(&raw mut handle);
        }
    }
}

/// # Safety
/// A whole record: its head, the extensions that its flags tell, its name.
#[expect(unsafe_code, reason = "a record made by C")]
unsafe fn parse_at(at: *const u8) -> Option<ChangeRecord> {
    const HEAD: usize = size_of::<changelog_rec>();
    // SAFETY: the head is there.
    let head = unsafe { std::slice::from_raw_parts(at, HEAD) };
    let flags = u32::from(u16_at(head, 2)?);
    let mut len = HEAD;
    for (flag, size) in [(CLF_RENAME, RENAME), (CLF_JOBID, JOBID)] {
        if flags & flag != 0 {
            len += size;
        }
    }
    if flags & CLF_EXTRA_FLAGS != 0 {
        // SAFETY: the flags say that there are extra flags, in their order.
        let extra = unsafe { std::slice::from_raw_parts(at.wrapping_add(len), EXTRA_FLAGS) };
        let extra = u64_at(extra, 0)?;
        let more = EXTRAS
            .iter()
            .filter(|(flag, _)| extra & flag != 0)
            .map(|(_, size)| size);
        len += EXTRA_FLAGS + more.sum::<usize>();
    }
    let name = usize::from(u16_at(head, 0)?);
    // SAFETY: extensions and name are there.
    parse(unsafe { std::slice::from_raw_parts(at, len + name) }, len)
}

/// `name`: where the name begins.
fn parse(record: &[u8], name: usize) -> Option<ChangeRecord> {
    let flags = u16_at(record, 2)?;
    let kind = u32::from_le_bytes(*record.get(4..)?.first_chunk()?);
    let names = record.get(name..)?;
    let mut parts = names.split(|byte| *byte == 0);
    let new = parts.next().unwrap_or_default();
    let old = parts.next().filter(|old| !old.is_empty());
    let renamed = u32::from(flags) & CLF_RENAME != 0;
    // A mark has its own flags where others have a FID.
    let target = if kind == 0 { None } else { fid_at(record, 32)? };
    Some(ChangeRecord {
        index: u64_at(record, 8)?,
        change: change(kind, flags),
        target,
        parent: fid_at(record, 48)?,
        name: OsString::from_vec(new.to_owned()),
        source: if renamed { fid_at(record, 64)? } else { None },
        before: match old {
            Some(old) if renamed => fid_at(record, 80)?.map(|parent| (parent, OsString::from_vec(old.to_owned()))),
            _ => None,
        },
    })
}

/// Of a close, `cr_flags` may have how the file was open: for writing, truncating, appending. An MDT that records opens
/// records each close.
const OPEN_FLAGS: u16 = 0xfff;
const WRITING: u16 = 0x2 | 0x200 | 0x400;

/// Of what is of HSM: the event, and whether the file is dirty (facts of 2.17).
const HSM_WHAT: u16 = 0x780;
/// A change of the states, to dirty.
const BECAME_DIRTY: u16 = 0x680;

const fn change(kind: u32, flags: u16) -> Change {
    match kind {
        11 if flags & OPEN_FLAGS != 0 && flags & WRITING == 0 => Change::Other(11),
        1..=5 => Change::Made,
        6 => Change::Unlinked { last: flags & 1 != 0 },
        7 => Change::DirectoryRemoved,
        // A directory or file that went to another MDT has another FID there.
        8 | 20 => Change::Renamed,
        11 | 13 | 17 => Change::Data,
        14 | 15 | 18 => Change::Attributes,
        16 if flags & HSM_WHAT == BECAME_DIRTY => Change::Dirtied,
        16 => Change::Hsm,
        other => Change::Other(other),
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// All zeros is none.
#[expect(clippy::option_option, reason = "none there, or no room for one")]
fn fid_at(bytes: &[u8], at: usize) -> Option<Option<Fid>> {
    const _: () = assert!(size_of::<lu_fid>() == 16);
    let fid = Fid {
        seq: u64_at(bytes, at)?,
        oid: u32::from_le_bytes(*bytes.get(at + 8..)?.first_chunk()?),
        ver: u32::from_le_bytes(*bytes.get(at + 12..)?.first_chunk()?),
    };
    Some((fid.seq != 0 || fid.oid != 0).then_some(fid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(kind: u32, flags: u16, extensions: &[u8], name: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(u16::try_from(name.len()).unwrap().to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        for word in [77u64, 76, 1] {
            bytes.extend(word.to_le_bytes());
        }
        for (seq, oid) in [(0x2_0000_0401u64, 9u32), (0x2_0000_0007, 1)] {
            bytes.extend(seq.to_le_bytes());
            bytes.extend(oid.to_le_bytes());
            bytes.extend(0u32.to_le_bytes());
        }
        bytes.extend(extensions);
        bytes.extend(name);
        bytes
    }

    fn read(bytes: &[u8]) -> ChangeRecord {
        #[expect(unsafe_code, reason = "a record as C makes it")]
        // SAFETY: whole records of the function above.
        unsafe { parse_at(bytes.as_ptr()) }.unwrap()
    }

    #[test]
    fn a_name_stands_behind_whatever_extensions_there_are() {
        let plain = read(&record(6, 0x1001, &[], b"gone"));
        assert_eq!((plain.index, plain.change), (77, Change::Unlinked { last: true }));
        assert_eq!((plain.target.unwrap().oid, plain.parent.unwrap().oid), (9, 1));
        assert_eq!((plain.name, plain.source), ("gone".into(), None));
        let mut extensions = vec![0; 32 + 32];
        extensions[..8].copy_from_slice(&0x2_0000_0401u64.to_le_bytes());
        extensions[8] = 42;
        extensions[24] = 43;
        extensions.extend(0b1001u64.to_le_bytes());
        extensions.extend([0; 16 + 256]);
        let renamed = read(&record(8, 0xf000, &extensions, b"new\0old"));
        assert_eq!((renamed.change, renamed.name), (Change::Renamed, "new".into()));
        assert_eq!(renamed.source.unwrap().oid, 42);
        let (parent, name) = renamed.before.unwrap();
        assert_eq!((parent.oid, name), (43, "old".into()));
    }

    #[test]
    fn a_close_after_reading_changes_nothing() {
        assert_eq!(read(&record(11, 0x1001, &[], b"")).change, Change::Other(11));
        assert_eq!(read(&record(11, 0x1003, &[], b"")).change, Change::Data);
        assert_eq!(read(&record(11, 0x1000, &[], b"")).change, Change::Data);
    }

    #[test]
    fn of_hsm_only_what_becomes_dirty_was_changed() {
        for (flags, change) in [
            (0x1680, Change::Dirtied),
            (0x1280, Change::Hsm),
            (0x1000, Change::Hsm),
            (0x1405, Change::Hsm),
            (0x1410, Change::Hsm),
            (0x1180, Change::Hsm),
        ] {
            assert_eq!(read(&record(16, flags, &[], b"")).change, change, "{flags:#x}");
        }
    }

    #[test]
    fn a_file_with_names_left_is_not_gone() {
        assert_eq!(
            read(&record(6, 0x1000, &[], b"x")).change,
            Change::Unlinked { last: false }
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_record_or_none(bytes in prop::collection::vec(any::<u8>(), 0..300), name in 0usize..400) {
            drop(parse(&bytes, name));
        }
    }
}
