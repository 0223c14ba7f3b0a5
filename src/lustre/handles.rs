//! liblustreapi's two handles as values. C frees each in one call, and whoever gives it the same one twice corrupts memory:
//! so [`Copytool::unregister`] and [`CopyAction::end`] consume theirs, neither is `Copy` or `Clone`, and their pointers are
//! in this file only. Code that ends one twice does not compile.
//!
//! That C keeps the registration's pointer in each action is told to the compiler, too: an action holds its registration.
//! Both types are this room's own. What others have of an action is a [`ActionHandle`](crate::action::ActionHandle), which is consumed as
//! well. This compiles:
//!
//! ```no_run
//! use lhsmtool_s3::action::{ActionHandle, Verdict};
//!
//! fn once(handle: Box<dyn ActionHandle>) -> bool {
//!     handle.finish(Verdict::Done, 0).is_ok()
//! }
//! ```
//!
//! And this does not:
//!
//! ```compile_fail,E0382
//! use lhsmtool_s3::action::{ActionHandle, Verdict};
//!
//! fn twice(handle: Box<dyn ActionHandle>) -> bool {
//!     handle.finish(Verdict::Done, 0).is_ok() && handle.finish(Verdict::Done, 0).is_ok()
//! }
//! ```

use std::os::fd::{AsFd, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;

use super::Library;
use super::bindings::{
    HP_FLAG_RETRY, HSMA_ARCHIVE, HSMA_CANCEL, HSMA_REMOVE, HSMA_RESTORE, hsm_action_item, hsm_copyaction_private,
    hsm_copytool_private,
};
use super::ioctl::{c_extent, c_fid};
use super::library::{c_path, check, negative_is_errno};
use crate::action::{HsmError, Item, Kind, Verb};
use crate::types::Extent;

const REGISTER: &str = "llapi_hsm_copytool_register";
const BEGIN: &str = "llapi_hsm_action_begin";

/// The library's registration of a mount.
#[derive(Debug)]
pub(super) struct Copytool {
    library: Library,
    handle: CopytoolPtr,
    /// The number of the library's own descriptor: the read end of its pipe.
    pipe: RawFd,
    /// C has freed the handle.
    is_over: bool,
}

#[derive(Debug)]
struct CopytoolPtr(NonNull<hsm_copytool_private>);

#[expect(unsafe_code, reason = "a C handle used from several threads")]
// SAFETY: liblustreapi ties nothing to a thread. After register the struct is only read: begin takes it
// const, end and progress use its mount descriptor; recv, which writes its buffer, is never called.
unsafe impl Send for CopytoolPtr {}
#[expect(unsafe_code, reason = "a C handle used from several threads")]
// SAFETY: as for Send; unregister, the one call that changes it, consumes the Copytool, which nobody else holds then.
unsafe impl Sync for CopytoolPtr {}

impl Copytool {
    /// Registers for these archives. Its pipe does not block.
    ///
    /// # Errors
    /// The library's.
    pub(super) fn register(library: &Library, mount: &Path, archives: &mut [i32]) -> Result<Self, HsmError> {
        let mount = c_path(mount)?;
        let mut handle = std::ptr::null_mut();
        let count = i32::try_from(archives.len()).map_err(|_| HsmError::new(REGISTER, libc::EINVAL))?;
        #[expect(unsafe_code, reason = "C ABI of liblustreapi")]
        // SAFETY: the path is copied (strdup), `count` ids are read from a slice of that length, and on
        // success `handle` gets a handle that only unregister frees (liblustreapi_hsm.c).
        let rc = unsafe {
            library.api().llapi_hsm_copytool_register(
                &raw mut handle,
                mount.as_ptr(),
                count,
                archives.as_mut_ptr(),
                libc::O_NONBLOCK,
            )
        };
        check(REGISTER, rc)?;
        let handle = NonNull::new(handle).ok_or(HsmError::new(REGISTER, libc::EFAULT))?;
        #[expect(unsafe_code, reason = "C ABI of liblustreapi")]
        // SAFETY: the handle that register has just given; only a field is read.
        let rc = unsafe { library.api().llapi_hsm_copytool_get_fd(handle.as_ptr()) };
        let copytool = Self {
            library: library.clone(),
            handle: CopytoolPtr(handle),
            pipe: rc,
            is_over: false,
        };
        if let Err(error) = check("llapi_hsm_copytool_get_fd", rc) {
            if let Err(error) = copytool.unregister() {
                tracing::warn!(%error, "could not unregister");
            }
            return Err(error);
        }
        Ok(copytool)
    }

    /// Unregisters, and closes the pipe. Comes back when all MDTs have answered.
    ///
    /// # Errors
    /// An MDT was not told. The handle is gone all the same.
    pub(super) fn unregister(mut self) -> Result<(), HsmError> {
        self.is_over = true;
        let mut handle = self.handle.0.as_ptr();
        #[expect(unsafe_code, reason = "C ABI of liblustreapi")]
        // SAFETY: a handle from register, which is consumed here; the library frees it, and no action has it any more,
        // for each holds this value.
        let rc = unsafe { self.library.api().llapi_hsm_copytool_unregister(&raw mut handle) };
        check("llapi_hsm_copytool_unregister", rc)
    }
}

/// The read end of the library's pipe.
impl AsFd for Copytool {
    fn as_fd(&self) -> BorrowedFd<'_> {
        #[expect(unsafe_code, reason = "the library lends its descriptor as a number")]
        // SAFETY: the library keeps it open until unregister (llapi_hsm_copytool_get_fd returns its own, not a dup), which
        // consumes the value that is borrowed here.
        unsafe {
            BorrowedFd::borrow_raw(self.pipe)
        }
    }
}

impl Drop for Copytool {
    /// Nothing is unregistered here: that waits for MDTs without an end, which no destructor may.
    fn drop(&mut self) {
        if !self.is_over {
            tracing::error!("a registration was given up without being ended; the next start takes it from the MDTs");
        }
    }
}

/// An action that was begun. It must be ended, by [`CopyAction::end`]; one that is dropped is answered EIO and logged as a
/// defect.
#[derive(Debug)]
pub(super) struct CopyAction {
    handle: CopyActionPtr,
    /// C has freed the handle, or it is left where it is.
    is_over: bool,
    /// The C struct has its pointer.
    copytool: Arc<Copytool>,
}

#[derive(Debug)]
struct CopyActionPtr(NonNull<hsm_copyaction_private>);

#[expect(unsafe_code, reason = "a C handle that moves between threads")]
// SAFETY: liblustreapi ties no handle to a thread; it is owned here, and used by one thread at a time.
unsafe impl Send for CopyActionPtr {}

impl CopyAction {
    /// Begins `item`, which is no restore: a [`Restoring`](super::restoring::Restoring) begins one. `is_error`: there is only a
    /// failure to report, whatever it is.
    ///
    /// # Errors
    /// The library's. Nothing was begun, and the coordinator still waits.
    pub(super) fn begin(copytool: &Arc<Copytool>, item: &Item, is_error: bool) -> Result<Self, HsmError> {
        // Both are of a restore's volatile file.
        const ANY_MDT: i32 = -1;
        const OPEN_FLAGS: i32 = 0;
        let hai = c_item(item);
        let mut handle = std::ptr::null_mut();
        #[expect(unsafe_code, reason = "C ABI of liblustreapi")]
        // SAFETY: the item is copied by its fixed part (hai_data is not read); the new handle keeps the
        // pointer of the copytool, which is held beside it (liblustreapi_hsm.c).
        let rc = unsafe {
            copytool.library.api().llapi_hsm_action_begin(
                &raw mut handle,
                copytool.handle.0.as_ptr(),
                &raw const hai,
                ANY_MDT,
                OPEN_FLAGS,
                is_error,
            )
        };
        check(BEGIN, rc)?;
        Ok(Self {
            handle: CopyActionPtr(NonNull::new(handle).ok_or(HsmError::new(BEGIN, libc::EFAULT))?),
            is_over: false,
            copytool: Arc::clone(copytool),
        })
    }

    /// A new descriptor of the action's file.
    ///
    /// # Errors
    /// EINVAL: it has none.
    pub(super) fn file(&self) -> Result<OwnedFd, HsmError> {
        #[expect(unsafe_code, reason = "C ABI of liblustreapi")]
        // SAFETY: a live handle from begin; the library dups its descriptor.
        let rc = unsafe {
            self.copytool
                .library
                .api()
                .llapi_hsm_action_get_fd(self.handle.0.as_ptr())
        };
        let fd = negative_is_errno("llapi_hsm_action_get_fd", rc)?;
        #[expect(unsafe_code, reason = "a descriptor made by C")]
        // SAFETY: llapi_hsm_action_get_fd dups: this number is new and nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(fd)
    }

    /// Tells the coordinator the end: 0 or the errno of a failure, whether that may be tried again, and what was moved.
    ///
    /// # Errors
    /// The coordinator's objection. The handle is gone all the same.
    pub(super) fn end(mut self, moved: Extent, may_retry: bool, errval: i32) -> Result<(), HsmError> {
        self.free(moved, may_retry, errval)
    }

    /// Ends nothing: the coordinator is not told, and what C has of the action stays until this process ends, with the
    /// registration that it points to. For an end that might not come back, and of an action that somebody else answers.
    pub(super) fn leave(mut self) {
        self.is_over = true;
        // One is never given back, so that nobody has the library free what the struct points to.
        std::mem::forget(Arc::clone(&self.copytool));
    }

    fn free(&mut self, moved: Extent, may_retry: bool, errval: i32) -> Result<(), HsmError> {
        self.is_over = true;
        let extent = c_extent(moved);
        let flags = if may_retry { HP_FLAG_RETRY.cast_signed() } else { 0 };
        let mut handle = self.handle.0.as_ptr();
        #[expect(unsafe_code, reason = "C ABI of liblustreapi")]
        // SAFETY: a handle from begin, given up here once: end frees it even when it fails. Of the two callers one
        // consumes this value, and the other drops it and has seen that the first did not.
        let rc = unsafe {
            self.copytool
                .library
                .api()
                .llapi_hsm_action_end(&raw mut handle, &raw const extent, flags, errval)
        };
        check("llapi_hsm_action_end", rc)
    }
}

impl Drop for CopyAction {
    /// C's part of it has a descriptor of the file, and a reader may wait for the action.
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        tracing::error!("an action was begun and not ended; answering EIO. This is a defect: please report it");
        if let Err(error) = self.free(Extent::EMPTY, false, libc::EIO) {
            tracing::error!(%error, "and the coordinator did not take it");
        }
    }
}

/// `sizeof`, as the struct carries it.
const ITEM_SIZE: u32 = 72;
const _: () = assert!(size_of::<hsm_action_item>() == ITEM_SIZE as usize);

/// The item's fixed part; begin reads no more of it.
pub(super) const fn c_item(item: &Item) -> hsm_action_item {
    hsm_action_item {
        hai_len: ITEM_SIZE,
        hai_action: match item.kind {
            Kind::Do(Verb::Archive) => HSMA_ARCHIVE,
            Kind::Do(Verb::Restore) => HSMA_RESTORE,
            Kind::Do(Verb::Remove) => HSMA_REMOVE,
            Kind::Cancel => HSMA_CANCEL,
            Kind::Unknown(number) => number,
        },
        hai_fid: c_fid(item.fid),
        hai_dfid: c_fid(item.dfid),
        hai_extent: c_extent(item.extent),
        hai_cookie: item.cookie.0,
        hai_gid: item.gid,
        hai_data: super::bindings::__IncompleteArrayField::new(),
    }
}
