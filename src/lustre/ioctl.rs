//! Raw ioctls for which liblustreapi has no call that does only that, on the mount's descriptor.

use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};

use super::bindings::{
    HUA_CANCEL, KUC_GRP_HSM, LK_FLG_DATANR, LK_FLG_STOP, LL_IOC_HSM_CT_START, LL_IOC_HSM_PROGRESS, hsm_action_item,
    hsm_extent, hsm_progress, hsm_user_item, hsm_user_request, lu_fid,
};
use crate::action::HsmError;
use crate::types::{ArchiveId, Cookie, Extent, Fid};

/// Reports progress of the action `cookie` of `fid`. Needs neither handle nor registration.
pub(super) fn progress(mount: BorrowedFd<'_>, fid: Fid, cookie: Cookie, extent: Extent) -> Result<(), HsmError> {
    let mut progress = hsm_progress {
        hp_fid: c_fid(fid),
        hp_cookie: cookie.0,
        hp_extent: c_extent(extent),
        hp_flags: 0,
        hp_errval: 0,
        padding: 0,
    };
    #[expect(unsafe_code, reason = "C ABI of the llite ioctl")]
    // SAFETY: llite copies one hsm_progress from the pointer (dir.c, LL_IOC_HSM_PROGRESS).
    let rc = unsafe {
        libc::ioctl(
            mount.as_raw_fd(),
            libc::c_ulong::from(LL_IOC_HSM_PROGRESS),
            &raw mut progress,
        )
    };
    errno_of("LL_IOC_HSM_PROGRESS", rc)
}

/// `_IOW('f', 214, struct hsm_copy *)`: the number has a pointer's size, and the struct is what the pointer is of.
pub(super) const LL_IOC_HSM_COPY_START: u32 = 0x4008_66d6;
/// `_IOW('f', 215, struct hsm_copy *)`
pub(super) const LL_IOC_HSM_COPY_END: u32 = 0x4008_66d7;

/// `struct hsm_copy`
#[repr(C)]
pub(super) struct HsmCopy {
    pub(super) hc_data_version: u64,
    pub(super) hc_flags: u16,
    /// Positive.
    pub(super) hc_errval: u16,
    pub(super) padding: u32,
    pub(super) hc_hai: hsm_action_item,
}
const _: () = assert!(size_of::<HsmCopy>() == 88);

/// Begins a restore: the coordinator hears that it goes on, by `hai_fid`. Needs neither handle nor registration.
pub(super) fn copy_start(mount: BorrowedFd<'_>, restore: hsm_action_item) -> Result<(), HsmError> {
    copy("LL_IOC_HSM_COPY_START", LL_IOC_HSM_COPY_START, mount, restore, 0)
}

/// Ends a restore, with 0 or a positive errno. `hai_fid` is the data's, whose version llite looks up and sends along where it
/// is a success.
pub(super) fn copy_end(mount: BorrowedFd<'_>, restore: hsm_action_item, errval: i32) -> Result<(), HsmError> {
    const CALL: &str = "LL_IOC_HSM_COPY_END";
    let errval = u16::try_from(errval).map_err(|_| HsmError::new(CALL, libc::EINVAL))?;
    copy(CALL, LL_IOC_HSM_COPY_END, mount, restore, errval)
}

fn copy(
    call: &'static str,
    request: u32,
    mount: BorrowedFd<'_>,
    hc_hai: hsm_action_item,
    hc_errval: u16,
) -> Result<(), HsmError> {
    let mut copy = HsmCopy {
        hc_data_version: 0,
        hc_flags: 0,
        hc_errval,
        padding: 0,
        hc_hai,
    };
    #[expect(unsafe_code, reason = "C ABI of the llite ioctl")]
    // SAFETY: for both requests llite copies one hsm_copy from the pointer, and one back (dir.c, LL_IOC_HSM_COPY_START and _END).
    let rc = unsafe { libc::ioctl(mount.as_raw_fd(), libc::c_ulong::from(request), &raw mut copy) };
    errno_of(call, rc)
}

/// Seconds and nanoseconds of atime, mtime and ctime: `struct ll_futimes_3`.
pub(super) type Times = [[u64; 2]; 3];
const _: () = assert!(size_of::<Times>() == 48);

/// `_IOWR('f', 176, struct ll_futimes_3)`
const LL_IOC_FUTIMES_3: u32 = 0xc030_66b0;

/// Sets all three times of an open file, at its MDT and where its objects are.
pub(super) fn set_times(file: BorrowedFd<'_>, times: &Times) -> Result<(), HsmError> {
    #[expect(unsafe_code, reason = "C ABI of the llite ioctl")]
    // SAFETY: llite copies one ll_futimes_3, six u64, from the pointer and writes nothing (file.c, LL_IOC_FUTIMES_3).
    let rc = unsafe {
        libc::ioctl(
            file.as_raw_fd(),
            libc::c_ulong::from(LL_IOC_FUTIMES_3),
            std::ptr::from_ref(times),
        )
    };
    errno_of("LL_IOC_FUTIMES_3", rc)
}

/// `_IOWR('i', 22, struct lov_user_mds_data_v1 *)`: the number has a pointer's size. All releases have this form of it.
const IOC_MDC_GETFILEINFO: u32 = 0xc008_6916;
/// What a layout may have (`XATTR_SIZE_MAX`), which comes behind the attributes.
const LARGEST_LAYOUT: usize = 65536;

/// A file's attributes as its MDT has them, by its FID; `by_fid` is the directory `.lustre/fid`. It needs no layout, for which
/// stat(2) may wait until the file's restore is over.
pub(super) fn attributes(by_fid: BorrowedFd<'_>, fid: Fid) -> Result<libc::stat, HsmError> {
    let name = fid.to_string();
    let mut buffer = vec![0u8; size_of::<libc::stat>() + LARGEST_LAYOUT];
    // The NUL behind it is there.
    for (to, byte) in buffer.iter_mut().zip(name.bytes()) {
        *to = byte;
    }
    #[expect(unsafe_code, reason = "C ABI of the llite ioctl")]
    // SAFETY: llite reads a NUL-terminated name from the pointer, and writes a lov_user_mds_data_v1 there, which is packed: a
    // struct stat and a layout of at most XATTR_SIZE_MAX bytes (dir.c, IOC_MDC_GETFILEINFO).
    let rc = unsafe {
        libc::ioctl(
            by_fid.as_raw_fd(),
            libc::c_ulong::from(IOC_MDC_GETFILEINFO),
            buffer.as_mut_ptr(),
        )
    };
    errno_of("IOC_MDC_GETFILEINFO", rc)?;
    #[expect(unsafe_code, reason = "a C struct of numbers in a buffer")]
    // SAFETY: the buffer begins with a whole struct stat, for which any bytes will do.
    let stat = unsafe { buffer.as_ptr().cast::<libc::stat>().read_unaligned() };
    Ok(stat)
}

/// `_IOW('f', 217, struct hsm_user_request)`, which is a header of 24 bytes here.
const LL_IOC_HSM_REQUEST: u32 = 0x4018_66d9;
const _: () = assert!(size_of::<hsm_user_request>() == 24);
const _: () = assert!(size_of::<hsm_user_item>() == 32);

/// Asks for the cancel of whatever goes on with `fid`: of nothing, where it is no file's or a directory's. The coordinator
/// that has the FID answers EAGAIN when it is stopped.
pub(super) fn cancel_nothing(mount: BorrowedFd<'_>, fid: Fid) -> Result<(), HsmError> {
    const ITEMS: u32 = 1;
    let low = |word: u64| u32::try_from(word & 0xffff_ffff).unwrap_or_default();
    let high = |word: u64| u32::try_from(word >> 32).unwrap_or_default();
    // hr_action, hr_archive_id, hr_flags (two), hr_itemcount, hr_data_len; hui_fid, hui_extent: the whole file.
    let mut words: [u32; 14] = [
        HUA_CANCEL,
        0,
        0,
        0,
        ITEMS,
        0,
        low(fid.seq),
        high(fid.seq),
        fid.oid,
        fid.ver,
        0,
        0,
        u32::MAX,
        u32::MAX,
    ];
    #[expect(unsafe_code, reason = "C ABI of the llite ioctl")]
    // SAFETY: llite copies a hsm_user_request, hr_itemcount hsm_user_items behind it and hr_data_len bytes (dir.c): a
    // header and one item, which the words are.
    let rc = unsafe {
        libc::ioctl(
            mount.as_raw_fd(),
            libc::c_ulong::from(LL_IOC_HSM_REQUEST),
            words.as_mut_ptr(),
        )
    };
    errno_of("LL_IOC_HSM_REQUEST", rc)
}

/// Registers (again) for `archives` with `pipe` as where messages go. The kernel takes its own
/// reference to the pipe; the caller closes its end.
pub(super) fn start_copytool(
    mount: BorrowedFd<'_>,
    pipe: &OwnedFd,
    uid: u32,
    archives: &[ArchiveId],
) -> Result<(), HsmError> {
    let invalid = || HsmError::new("LL_IOC_HSM_CT_START", libc::EINVAL);
    let fd = u32::try_from(pipe.as_raw_fd()).map_err(|_| invalid())?;
    if let Some(mask) = bitmap(archives) {
        return ct_start(mount, &mut [fd, 0, uid, KUC_GRP_HSM, mask, 0]);
    }
    let count = u32::try_from(archives.len()).map_err(|_| invalid())?;
    let mut words = vec![fd, 0, uid, KUC_GRP_HSM, count, LK_FLG_DATANR];
    words.extend(archives.iter().map(|id| id.get()));
    ct_start(mount, &mut words)
}

/// Ids 1 to 32 as bits: the only form that a client of 2.10 knows, which would take the length of a list
/// for such bits; later clients turn it into a list (dir.c copy_and_ct_start).
fn bitmap(archives: &[ArchiveId]) -> Option<u32> {
    archives
        .iter()
        .try_fold(0, |mask, id| Some(mask | 1u32.checked_shl(id.get().checked_sub(1)?)?))
        .filter(|mask| *mask != 0)
}

/// Drops every pipe registered under `uid`, and the node's agent.
pub(super) fn stop_copytool(mount: BorrowedFd<'_>, uid: u32) -> Result<(), HsmError> {
    ct_start(mount, &mut [0, 0, uid, KUC_GRP_HSM, 0, LK_FLG_STOP])
}

/// `words`: the six fields of `lustre_kernelcomm`, then `lk_data_count` archive ids.
fn ct_start(mount: BorrowedFd<'_>, words: &mut [u32]) -> Result<(), HsmError> {
    #[expect(unsafe_code, reason = "C ABI of the llite ioctl")]
    // SAFETY: llite copies a lustre_kernelcomm (six u32, packed: a test asserts it) and lk_data_count
    // u32 behind it (dir.c copy_and_ct_start); both callers give just that many words.
    let rc = unsafe {
        libc::ioctl(
            mount.as_raw_fd(),
            libc::c_ulong::from(LL_IOC_HSM_CT_START),
            words.as_mut_ptr(),
        )
    };
    errno_of("LL_IOC_HSM_CT_START", rc)
}

fn errno_of(call: &'static str, rc: i32) -> Result<(), HsmError> {
    if rc < 0 {
        Err(HsmError::io(call, &std::io::Error::last_os_error()))
    } else {
        Ok(())
    }
}

pub(super) const fn c_fid(fid: Fid) -> lu_fid {
    lu_fid {
        f_seq: fid.seq,
        f_oid: fid.oid,
        f_ver: fid.ver,
    }
}

pub(super) const fn c_extent(extent: Extent) -> hsm_extent {
    hsm_extent {
        offset: extent.offset,
        length: extent.length,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_every_release_knows_go_as_bits_and_others_as_a_list() {
        let ids = |ids: &[u32]| {
            let ids: Vec<_> = ids.iter().map(|id| ArchiveId::new(*id).unwrap()).collect();
            bitmap(&ids)
        };
        assert_eq!(ids(&[1]), Some(1));
        assert_eq!(ids(&[1, 5, 32]), Some(0x8000_0011));
        assert_eq!(ids(&[1, 33]), None);
        // No bits would mean all archives.
        assert_eq!(ids(&[]), None);
    }
}
