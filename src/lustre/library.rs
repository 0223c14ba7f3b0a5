//! liblustreapi, opened at run time: one binary runs beside every release from 2.10 on, and `--help`
//! needs no Lustre at all.

use std::ffi::CString;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::bindings::{
    LL_DV_RD_FLUSH, LustreApi, hsm_current_action, hsm_extent, hsm_request, hsm_user_item, hsm_user_request,
    hsm_user_state, lu_fid,
};
use super::ioctl::c_fid;
use super::states::HsmStates;
use crate::action::HsmError;
use crate::types::{ArchiveId, Fid};

/// Why the library could not be used.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// It could not be opened.
    #[error(
        "can't open the Lustre library '{}': {cause}. Install the Lustre client's user tools (package \
         lustre-client or lustre-client-utils), or set `library` in section [lustre] to the file's path",
        path.display()
    )]
    Open {
        /// `library` of `[lustre]`.
        path: PathBuf,
        /// What the loader said.
        cause: String,
    },
    /// It is too old, or another library.
    #[error(
        "the library '{}' lacks {}. A liblustreapi of Lustre 2.10 or newer is needed: \
         update the Lustre client's user tools", path.display(), symbols.join(", ")
    )]
    Symbols {
        /// `library` of `[lustre]`.
        path: PathBuf,
        /// All that are missing.
        symbols: Vec<&'static str>,
    },
}

/// The function table. Opened once and never closed: the library keeps state, and a thread may be in it.
#[derive(Clone)]
pub struct Library(Arc<LustreApi>);

impl std::fmt::Debug for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Library")
    }
}

impl Library {
    /// Opens the library and finds every function that is needed.
    ///
    /// # Errors
    /// One error that names the library, what is wrong with it and what to install.
    pub fn open(path: &Path) -> Result<Self, LibraryError> {
        #[expect(unsafe_code, reason = "dlopen")]
        // SAFETY: runs the library's constructors. liblustreapi has one, which only prepares its log
        // callbacks (liblustreapi.c); whatever else an administrator names here, runs as configured.
        let api = unsafe { LustreApi::new(path) }.map_err(|error| LibraryError::Open {
            path: path.to_owned(),
            cause: chain(&error),
        })?;
        let required = [
            ("llapi_hsm_copytool_register", api.llapi_hsm_copytool_register.is_ok()),
            (
                "llapi_hsm_copytool_unregister",
                api.llapi_hsm_copytool_unregister.is_ok(),
            ),
            ("llapi_hsm_copytool_get_fd", api.llapi_hsm_copytool_get_fd.is_ok()),
            ("llapi_hsm_action_begin", api.llapi_hsm_action_begin.is_ok()),
            ("llapi_hsm_action_end", api.llapi_hsm_action_end.is_ok()),
            ("llapi_hsm_action_get_fd", api.llapi_hsm_action_get_fd.is_ok()),
            ("llapi_search_fsname", api.llapi_search_fsname.is_ok()),
            ("llapi_fid2path", api.llapi_fid2path.is_ok()),
            ("llapi_fd2fid", api.llapi_fd2fid.is_ok()),
            ("llapi_hsm_state_get", api.llapi_hsm_state_get.is_ok()),
            ("llapi_hsm_state_set", api.llapi_hsm_state_set.is_ok()),
        ];
        let symbols: Vec<_> = required
            .into_iter()
            .filter_map(|(name, found)| (!found).then_some(name))
            .collect();
        if !symbols.is_empty() {
            return Err(LibraryError::Symbols {
                path: path.to_owned(),
                symbols,
            });
        }
        let library = Self(Arc::new(api));
        library.silence();
        Ok(library)
    }

    pub(super) fn api(&self) -> &LustreApi {
        &self.0
    }

    /// The library prints to stderr what it also returns; each return value is logged by us.
    fn silence(&self) {
        if self.0.llapi_msg_set_level.is_ok() {
            const LLAPI_MSG_OFF: i32 = 0;
            #[expect(unsafe_code, reason = "C ABI of liblustreapi")]
            // SAFETY: sets a global int that the library clamps to its range (liblustreapi.c).
            unsafe {
                self.0.llapi_msg_set_level(LLAPI_MSG_OFF);
            }
        }
    }

    /// The name of the Lustre file system that a path is on.
    ///
    /// # Errors
    /// ENODEV and others for a path that is on no Lustre.
    pub fn fsname(&self, path: &Path) -> Result<String, HsmError> {
        let path = c_path(path)?;
        // LUSTRE_MAXFSNAME is 8; the library copies with a limit of its own of PATH_MAX at most.
        let mut name = vec![0u8; 4096 + 1];
        #[expect(unsafe_code, reason = "C ABI of liblustreapi")]
        // SAFETY: reads a NUL-terminated path, writes a NUL-terminated name of at most PATH_MAX bytes
        // into the buffer (liblustreapi.c get_root_path); neither is kept.
        let rc = unsafe { self.0.llapi_search_fsname(path.as_ptr(), name.as_mut_ptr().cast()) };
        check("llapi_search_fsname", rc)?;
        Ok(until_nul(&name))
    }

    /// One path of a file, relative to the mount point.
    ///
    /// # Errors
    /// ENOENT when the file has no name left.
    pub fn fid2path(&self, mount: &Path, fid: Fid) -> Result<PathBuf, HsmError> {
        self.name_of(mount, fid, 0).map(|(path, _)| path)
    }

    /// The path by the n-th of a file's names, and the number of the next name if there is one.
    pub(super) fn name_of(&self, mount: &Path, fid: Fid, link: i32) -> Result<(PathBuf, Option<i32>), HsmError> {
        let mount = c_path(mount)?;
        let text = CString::new(fid.to_string()).map_err(|_| HsmError::new("llapi_fid2path", libc::EINVAL))?;
        let mut path = vec![0u8; 4096 + 1];
        let (mut recno, mut linkno) = (-1i64, link);
        #[expect(unsafe_code, reason = "C ABI of liblustreapi")]
        // SAFETY: reads two NUL-terminated texts; writes at most `pathlen` bytes, NUL included, and the
        // two counters; keeps nothing (liblustreapi.c llapi_fid2path).
        let rc = unsafe {
            self.0.llapi_fid2path(
                mount.as_ptr(),
                text.as_ptr(),
                path.as_mut_ptr().cast(),
                4096,
                &raw mut recno,
                &raw mut linkno,
            )
        };
        check("llapi_fid2path", rc)?;
        use std::os::unix::ffi::OsStringExt as _;
        let end = path.iter().position(|b| *b == 0).unwrap_or(path.len());
        path.truncate(end);
        let start = path.iter().position(|b| *b != b'/').unwrap_or(path.len());
        let path = std::ffi::OsString::from_vec(path.split_off(start)).into();
        Ok((path, (linkno > link).then_some(linkno)))
    }

    /// `HS_*` of a file.
    pub(super) fn hsm_states(&self, path: &Path) -> Result<u32, HsmError> {
        self.hsm_state(path).map(|state| state.bits)
    }

    /// What HSM knows of a file.
    pub(super) fn hsm_state(&self, path: &Path) -> Result<HsmStates, HsmError> {
        let path = c_path(path)?;
        let mut state = hsm_user_state::default();
        #[expect(unsafe_code, reason = "C ABI of liblustreapi")]
        // SAFETY: reads a NUL-terminated path, fills in the struct's fixed part (LL_IOC_HSM_STATE_GET).
        let rc = unsafe { self.0.llapi_hsm_state_get(path.as_ptr(), &raw mut state) };
        check("llapi_hsm_state_get", rc)?;
        Ok(HsmStates {
            bits: state.hus_states,
            archive_id: state.hus_archive_id,
        })
    }

    /// Sets and clears `HS_*` of a file.
    pub(super) fn change_hsm_states(&self, path: &Path, set: u32, clear: u32) -> Result<(), HsmError> {
        self.change_hsm_states_in(path, set, clear, 0)
    }

    /// The same, and the archive that the file's copy is in; 0 leaves it.
    pub(super) fn change_hsm_states_in(&self, path: &Path, set: u32, clear: u32, id: u32) -> Result<(), HsmError> {
        let path = c_path(path)?;
        #[expect(unsafe_code, reason = "C ABI of liblustreapi")]
        // SAFETY: reads a NUL-terminated path; the rest are numbers, an archive id of 0 leaves it.
        let rc = unsafe {
            self.0
                .llapi_hsm_state_set(path.as_ptr(), u64::from(set), u64::from(clear), id)
        };
        check("llapi_hsm_state_set", rc)
    }

    /// Asks the coordinator for an action, or the client for a release.
    pub(super) fn request(&self, mount: &Path, action: u32, archive_id: u32, fids: &[Fid]) -> Result<(), HsmError> {
        const CALL: &str = "llapi_hsm_request";
        if self.0.llapi_hsm_request.is_err() {
            return Err(HsmError::new(CALL, libc::EOPNOTSUPP));
        }
        let path = c_path(mount)?;
        let header = size_of::<hsm_user_request>();
        let item = size_of::<hsm_user_item>();
        // Words: struct hsm_request has 64-bit fields.
        let mut words = vec![0u64; (header + item * fids.len()).div_ceil(size_of::<u64>())];
        let request = words.as_mut_ptr().cast::<hsm_user_request>();
        let count = u32::try_from(fids.len()).map_err(|_| HsmError::new(CALL, libc::E2BIG))?;
        #[expect(unsafe_code, reason = "a C struct with items behind it")]
        // SAFETY: the buffer has the header's size at least and its alignment.
        unsafe {
            (*request).hur_request = hsm_request {
                hr_action: action,
                hr_archive_id: archive_id,
                hr_flags: 0,
                hr_itemcount: count,
                hr_data_len: 0,
            };
        }
        for (n, fid) in fids.iter().enumerate() {
            let whole = hsm_user_item {
                hui_fid: c_fid(*fid),
                hui_extent: hsm_extent {
                    offset: 0,
                    length: u64::MAX,
                },
            };
            let at = words.as_mut_ptr().cast::<u8>().wrapping_add(header + item * n);
            #[expect(unsafe_code, reason = "a C struct with items behind it")]
            // SAFETY: inside the buffer, which has room for all items; a packed struct needs no alignment.
            unsafe {
                at.cast::<hsm_user_item>().write_unaligned(whole);
            }
        }
        #[expect(unsafe_code, reason = "C ABI of liblustreapi")]
        // SAFETY: reads a NUL-terminated path, and the request with `hr_itemcount` items and no data
        // (liblustreapi_hsm.c, LL_IOC_HSM_REQUEST).
        let rc = unsafe { self.0.llapi_hsm_request(path.as_ptr(), words.as_ptr().cast()) };
        check(CALL, rc)
    }

    /// `HUA_*` of what goes on with a file.
    pub(super) fn current_action(&self, path: &Path) -> Result<u32, HsmError> {
        const CALL: &str = "llapi_hsm_current_action";
        if self.0.llapi_hsm_current_action.is_err() {
            return Err(HsmError::new(CALL, libc::EOPNOTSUPP));
        }
        let path = c_path(path)?;
        let mut current = hsm_current_action::default();
        #[expect(unsafe_code, reason = "C ABI of liblustreapi")]
        // SAFETY: reads a NUL-terminated path, fills in the struct (LL_IOC_HSM_ACTION).
        let rc = unsafe { self.0.llapi_hsm_current_action(path.as_ptr(), &raw mut current) };
        check(CALL, rc)?;
        Ok(current.hca_action)
    }

    /// Makes a released file with the attributes of `stat`; a stripe size and count of 0 are the default.
    pub(super) fn import(
        &self,
        path: &Path,
        archive_id: ArchiveId,
        stat: &libc::stat,
        stripe_size: u64,
        stripe_count: u16,
    ) -> Result<Fid, HsmError> {
        const CALL: &str = "llapi_hsm_import";
        const ANY_OST: i32 = -1;
        const RAID0: i32 = 0;
        if self.0.llapi_hsm_import.is_err() {
            return Err(HsmError::new(CALL, libc::EOPNOTSUPP));
        }
        let path = c_path(path)?;
        let archive = i32::try_from(archive_id.get()).map_err(|_| HsmError::new(CALL, libc::EINVAL))?;
        let mut fid = NO_FID;
        #[expect(unsafe_code, reason = "C ABI of liblustreapi")]
        // SAFETY: reads a NUL-terminated path and the system's struct stat, writes the FID; no pool is named; it
        // keeps nothing (liblustreapi_hsm.c).
        let rc = unsafe {
            self.0.llapi_hsm_import(
                path.as_ptr(),
                archive,
                std::ptr::from_ref(stat).cast(),
                stripe_size,
                ANY_OST,
                i32::from(stripe_count),
                RAID0,
                std::ptr::null_mut(),
                &raw mut fid,
            )
        };
        check(CALL, rc)?;
        Ok(of_c(fid))
    }

    /// Which MDT a file is on, where the library can tell.
    pub(super) fn mdt_index(&self, mount: BorrowedFd<'_>, fid: Fid) -> Option<i32> {
        self.0.llapi_get_mdt_index_by_fid.as_ref().ok()?;
        let fid = c_fid(fid);
        let mut index = -1;
        #[expect(unsafe_code, reason = "C ABI of liblustreapi")]
        // SAFETY: an open descriptor; reads the FID, writes the index (LL_IOC_FID2MDTIDX).
        let rc = unsafe {
            self.0
                .llapi_get_mdt_index_by_fid(mount.as_raw_fd(), &raw const fid, &raw mut index)
        };
        (rc >= 0 && index >= 0).then_some(index)
    }

    /// Number of MDTs of the file system, where the library can tell.
    pub(super) fn mdt_count(&self, mount: &Path) -> Option<u32> {
        self.0.llapi_get_obd_count.as_ref().ok()?;
        let path = c_path(mount).ok()?.into_raw();
        let (mut count, is_mdt) = (0, 1);
        #[expect(unsafe_code, reason = "C ABI of liblustreapi")]
        // SAFETY: only reads the path, though it takes it as char * (LL_IOC_GETOBDCOUNT); writes the count.
        let rc = unsafe { self.0.llapi_get_obd_count(path, &raw mut count, is_mdt) };
        #[expect(unsafe_code, reason = "takes a CString back")]
        // SAFETY: from into_raw above; the library keeps nothing and has not changed its length.
        drop(unsafe { CString::from_raw(path) });
        (rc >= 0).then(|| u32::try_from(count).ok()).flatten()
    }

    /// The FID of a file that lives on that MDT: one without a name, gone when this returns. `None`: the
    /// library can't make any.
    ///
    /// # Errors
    /// No such MDT, or it can't be reached.
    pub(super) fn fid_on_mdt(&self, mount: &Path, mdt: u32) -> Option<Result<Fid, HsmError>> {
        self.0.llapi_create_volatile_idx.as_ref().ok()?;
        self.0.llapi_fd2fid.as_ref().ok()?;
        Some(self.make_on_mdt(mount, mdt))
    }

    fn make_on_mdt(&self, mount: &Path, mdt: u32) -> Result<Fid, HsmError> {
        let call = "llapi_create_volatile_idx";
        let path = c_path(mount)?;
        let index = i32::try_from(mdt).map_err(|_| HsmError::new(call, libc::EINVAL))?;
        #[expect(unsafe_code, reason = "C ABI of liblustreapi")]
        // SAFETY: reads a NUL-terminated path; the rest are numbers (liblustreapi_swap.c).
        let rc = unsafe { self.0.llapi_create_volatile_idx(path.as_ptr(), index, libc::O_RDWR) };
        let number = negative_is_errno(call, rc)?;
        #[expect(unsafe_code, reason = "a descriptor made by C")]
        // SAFETY: the library opened it for its caller; it is nobody else's.
        let file = unsafe { OwnedFd::from_raw_fd(number) };
        self.fid_of(std::os::fd::AsFd::as_fd(&file))
    }

    /// The FID of an open file.
    pub(super) fn fid_of(&self, file: BorrowedFd<'_>) -> Result<Fid, HsmError> {
        if self.0.llapi_fd2fid.is_err() {
            return Err(HsmError::new("llapi_fd2fid", libc::EOPNOTSUPP));
        }
        let mut fid = NO_FID;
        #[expect(unsafe_code, reason = "C ABI of liblustreapi")]
        // SAFETY: an open descriptor; writes the FID (LL_IOC_PATH2FID).
        let rc = unsafe { self.0.llapi_fd2fid(file.as_raw_fd(), &raw mut fid) };
        check("llapi_fd2fid", rc)?;
        Ok(of_c(fid))
    }

    /// The FID of whatever has that name; a symlink is not followed.
    pub(super) fn fid_at(&self, path: &Path) -> Result<Fid, HsmError> {
        const CALL: &str = "llapi_path2fid";
        if self.0.llapi_path2fid.is_err() {
            return Err(HsmError::new(CALL, libc::EOPNOTSUPP));
        }
        let path = c_path(path)?;
        let mut fid = NO_FID;
        #[expect(unsafe_code, reason = "C ABI of liblustreapi")]
        // SAFETY: reads a NUL-terminated path; writes the FID (LL_IOC_PATH2FID).
        let rc = unsafe { self.0.llapi_path2fid(path.as_ptr(), &raw mut fid) };
        check(CALL, rc)?;
        Ok(of_c(fid))
    }

    /// The data version of an open file, its writers' caches flushed before.
    pub(super) fn data_version(&self, file: BorrowedFd<'_>) -> Option<u64> {
        self.0.llapi_get_data_version.as_ref().ok()?;
        let mut version = 0;
        #[expect(unsafe_code, reason = "C ABI of liblustreapi")]
        // SAFETY: an open descriptor; writes the version (LL_IOC_DATA_VERSION).
        let rc = unsafe {
            self.0
                .llapi_get_data_version(file.as_raw_fd(), &raw mut version, u64::from(LL_DV_RD_FLUSH))
        };
        (rc == 0 && version != 0).then_some(version)
    }

    /// The client's instance of a mount (`lustre-ffff…`), where the library can tell.
    pub(super) fn instance(&self, path: &Path) -> Option<String> {
        self.0.llapi_getname.as_ref().ok()?;
        let path = c_path(path).ok()?;
        let mut name = [0u8; 256];
        #[expect(unsafe_code, reason = "C ABI of liblustreapi")]
        // SAFETY: reads a NUL-terminated path, writes at most `size` bytes, NUL included.
        let rc = unsafe {
            self.0
                .llapi_getname(path.as_ptr(), name.as_mut_ptr().cast(), name.len() as _)
        };
        (rc == 0).then(|| until_nul(&name))
    }
}

const NO_FID: lu_fid = lu_fid {
    f_seq: 0,
    f_oid: 0,
    f_ver: 0,
};

const fn of_c(fid: lu_fid) -> Fid {
    Fid {
        seq: fid.f_seq,
        oid: fid.f_oid,
        ver: fid.f_ver,
    }
}

/// The convention of this API: 0 or more is success, a failure is -errno, `errno` itself is not set.
pub(super) fn negative_is_errno(call: &'static str, rc: i32) -> Result<i32, HsmError> {
    if rc < 0 {
        Err(HsmError::new(call, rc.saturating_neg()))
    } else {
        Ok(rc)
    }
}

pub(super) fn check(call: &'static str, rc: i32) -> Result<(), HsmError> {
    negative_is_errno(call, rc).map(drop)
}

pub(super) fn c_path(path: &Path) -> Result<CString, HsmError> {
    use std::os::unix::ffi::OsStrExt as _;
    CString::new(path.as_os_str().as_bytes()).map_err(|_| HsmError::new("path with NUL", libc::EINVAL))
}

fn until_nul(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}

/// The loader's own words are in the error's source, not in its text.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
