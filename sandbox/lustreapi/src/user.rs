//! What a person asks for, by the calls behind `lfs hsm_archive` and its kin.

use std::ffi::{c_char, c_int};
use std::path::Path;

use lhsm_sandbox_protocol::{Action, ActionState, Fid, Reply, Request};

use crate::abi::{LuFid, path, rc};
use crate::action::of_open;
use crate::client::{ask, mount_of, tell};
use crate::registration::file;

/// What a person asks for. A release is the client's own work, and ends at the first file that can't be.
///
/// # Safety
/// `at` NUL-terminated; `request` a struct hsm_user_request with its items, which may be unaligned.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llapi_hsm_request(at: *const c_char, request: *const u8) -> c_int {
    // SAFETY: as the caller promises.
    let Some(mount) = unsafe { path(at) }.and_then(|path| mount_of(&path)) else {
        return -libc::ENOTTY;
    };
    // SAFETY: as the caller promises.
    rc(unsafe { crate::user::request(&mount, request) })
}

/// The same by `LL_IOC_HSM_REQUEST`, on a mount's descriptor.
///
/// # Safety
/// `request` a struct hsm_user_request with its items, which may be unaligned.
pub(crate) unsafe fn request(mount: &Path, request: *const u8) -> Result<(), i32> {
    const RELEASE: u32 = 12;
    // SAFETY: struct hsm_request, six u32 (hr_flags is two).
    let [code, archive_id, flags, _, count, length] = unsafe { request.cast::<[u32; 6]>().read_unaligned() };
    let items: Vec<Fid> = (0..count as usize)
        .map(|n| {
            let item = request.wrapping_add(24 + 32 * n);
            // SAFETY: hr_itemcount items of 32 bytes follow, a lu_fid first.
            Fid::from(unsafe { item.cast::<LuFid>().read_unaligned() })
        })
        .collect();
    let data = request.wrapping_add(24 + 32 * items.len());
    // SAFETY: hr_data_len bytes follow the items.
    let data = unsafe { std::slice::from_raw_parts(data, length as usize) }.to_vec();
    let action = match code {
        10 => Action::Archive,
        11 => Action::Restore,
        RELEASE => {
            return items
                .iter()
                .try_for_each(|fid| tell(mount, &Request::Release(*fid), None));
        }
        13 => Action::Remove,
        14 => Action::Cancel,
        _ => return Err(libc::EINVAL),
    };
    let request = Request::Hsm {
        action,
        archive_id,
        flags: u64::from(flags),
        fids: items,
        data,
    };
    tell(mount, &request, None)
}

/// What goes on with a file.
///
/// # Safety
/// `at` NUL-terminated; `out` has room for struct hsm_current_action, six u32.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llapi_hsm_current_action(at: *const c_char, out: *mut [u32; 6]) -> c_int {
    const NONE: u32 = 1;
    // SAFETY: as the caller promises.
    let state = unsafe { file(at) }
        .and_then(|(mount, fid)| ask(&mount, &Request::State(fid), None).map_err(|error| of_open(&mount, fid, error)));
    let action = match state {
        Ok(Reply::State(state)) => state.action,
        Ok(_) => return -libc::EPROTO,
        Err(libc::ENODATA) => None,
        Err(errno) => return -errno,
    };
    let code = match action.map(|(action, _)| action) {
        None | Some(Action::Other(_)) => NONE,
        Some(Action::Archive) => 10,
        Some(Action::Restore) => 11,
        Some(Action::Remove) => 13,
        Some(Action::Cancel) => 14,
    };
    let state = match action.map(|(_, state)| state) {
        None => 0,
        Some(ActionState::Waiting) => 1,
        Some(_) => 2,
    };
    // SAFETY: as the caller promises.
    unsafe { out.write_unaligned([state, code, 0, 0, 0, 0]) };
    0
}
