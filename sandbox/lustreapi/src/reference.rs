//! What lhsmtool_posix, the reference copytool, needs beside the calls of ours.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use lhsm_sandbox_protocol::Fid;

use crate::abi::LuFid;
use crate::client::mount_of;
use crate::registration::{Copytool, put_path};

const HEADER: usize = 8;

impl Copytool {
    /// The next message for our archive ids, kept until the next call.
    fn receive(&mut self) -> Result<(*mut u8, usize), i32> {
        loop {
            let mut header = [0u8; HEADER];
            self.read(&mut header)?;
            let length = usize::from(u16::from_le_bytes([header[6], header[7]]));
            let rest = length.checked_sub(HEADER).ok_or(libc::EPROTO)?;
            // Aligned to 8, as the real one's buffer: the caller casts it.
            let mut words = vec![0u64; rest.div_ceil(8)];
            let mut body = vec![0u8; rest];
            self.read(&mut body)?;
            for (word, bytes) in words.iter_mut().zip(body.chunks(8)) {
                let mut eight = [0; 8];
                if let Some(slot) = eight.get_mut(..bytes.len()) {
                    slot.copy_from_slice(bytes);
                }
                *word = u64::from_le_bytes(eight);
            }
            self.message = words;
            let id = self.message.get(3).map_or(0, |word| word & 0xffff_ffff);
            if self.archives.is_empty() || self.archives.iter().any(|ours| u64::from(*ours) == id) {
                return Ok((self.message.as_mut_ptr().cast(), rest));
            }
        }
    }

    fn read(&self, mut bytes: &mut [u8]) -> Result<(), i32> {
        // SAFETY: the pipe is open until unregister.
        let pipe = unsafe { BorrowedFd::borrow_raw(self.pipe) };
        while !bytes.is_empty() {
            match nix::unistd::read(pipe, bytes) {
                Ok(0) => return Err(libc::ESHUTDOWN),
                Ok(n) => bytes = bytes.get_mut(n..).unwrap_or_default(),
                Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error as i32),
            }
        }
        Ok(())
    }
}

/// Waits for a message.
///
/// # Safety
/// A live handle, used by one thread; the two results are the caller's to write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llapi_hsm_copytool_recv(ct: *mut Copytool, hal: *mut *mut u8, size: *mut c_int) -> c_int {
    // SAFETY: as the caller promises.
    let Some(copytool) = (unsafe { ct.as_mut() }) else {
        return -libc::EINVAL;
    };
    match copytool.receive() {
        Ok((message, length)) => {
            // SAFETY: the caller's to write.
            unsafe { hal.write(message) };
            // SAFETY: the caller's to write.
            unsafe { size.write(c_int::try_from(length).unwrap_or(c_int::MAX)) };
            0
        }
        Err(errno) => -errno,
    }
}

/// Variadic in C; what follows the format is not looked at, and the format is printed as it is.
///
/// # Safety
/// `format` NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llapi_error(level: c_int, errno: c_int, format: *const c_char) {
    const LLAPI_MSG_ERROR: c_int = 2;
    if level & 0xf <= LLAPI_MSG_ERROR && !format.is_null() {
        // SAFETY: as the caller promises.
        let format = unsafe { CStr::from_ptr(format) };
        eprintln!("error {errno}: {}", format.to_string_lossy());
    }
}

/// No callback is kept: nobody would be told anything.
#[unsafe(no_mangle)]
pub extern "C" fn llapi_error_callback_set(_callback: *const c_void) -> *const c_void {
    std::ptr::null()
}

/// The callback that the reference tool would set.
#[unsafe(no_mangle)]
pub extern "C" fn llapi_hsm_log_error(_level: c_int, _errno: c_int, _format: *const c_char, _arguments: *const c_void) {
}

/// Not modelled.
#[unsafe(no_mangle)]
pub extern "C" fn llapi_hsm_register_event_fifo(_path: *const c_char) -> c_int {
    -libc::EOPNOTSUPP
}

/// Not modelled.
#[unsafe(no_mangle)]
pub extern "C" fn llapi_hsm_unregister_event_fifo(_path: *const c_char) -> c_int {
    -libc::EOPNOTSUPP
}

/// A FID's text, with or without brackets.
///
/// # Safety
/// `text` NUL-terminated, `fid` the caller's to write, `end` NULL or the caller's to write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llapi_fid_parse(text: *const c_char, fid: *mut LuFid, end: *mut *mut c_char) -> c_int {
    // SAFETY: as the caller promises.
    let bytes = unsafe { CStr::from_ptr(text) }.to_bytes();
    let stop = bytes
        .iter()
        .position(|byte| !(byte.is_ascii_hexdigit() || matches!(byte, b'[' | b']' | b':' | b'x')))
        .unwrap_or(bytes.len());
    let parsed = bytes
        .get(..stop)
        .and_then(|part| std::str::from_utf8(part).ok())
        .and_then(|part| part.parse::<Fid>().ok());
    let Some(parsed) = parsed else {
        return -libc::EINVAL;
    };
    // SAFETY: the caller's to write; packed.
    unsafe { fid.write_unaligned(parsed.into()) };
    if !end.is_null() {
        // SAFETY: within the text.
        let rest = unsafe { text.add(stop) };
        // SAFETY: not NULL, the caller's to write.
        unsafe { end.write(rest.cast_mut()) };
    }
    0
}

/// A path of a file below the mount that a descriptor is of.
///
/// # Safety
/// `fid` readable, `out` with room for `pathlen`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llapi_fid2path_at(
    mount_fd: c_int,
    fid: *const LuFid,
    out: *mut c_char,
    pathlen: c_int,
    _recno: *mut i64,
    linkno: *mut c_int,
) -> c_int {
    // SAFETY: as the caller promises; packed.
    let fid = unsafe { fid.read_unaligned() }.into();
    let mount = std::fs::read_link(format!("/proc/self/fd/{mount_fd}")).ok();
    let Some(mount) = mount.and_then(|path: PathBuf| mount_of(&path)) else {
        return -libc::ENODEV;
    };
    // SAFETY: as the caller promises.
    unsafe { put_path(&mount, fid, out, pathlen, linkno) }
}

/// A size such as `4M`.
///
/// # Safety
/// `text` NUL-terminated; `size` and `unit` the caller's, `unit` also to read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llapi_parse_size(text: *const c_char, size: *mut u64, unit: *mut u64, _bytes: c_int) -> c_int {
    // SAFETY: as the caller promises.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match text.get(digits.len()..).and_then(|suffix| suffix.chars().next()) {
        None => 0,
        Some('b' | 'B') => 9,
        Some('k' | 'K') => 10,
        Some('m' | 'M') => 20,
        Some('g' | 'G') => 30,
        Some('t' | 'T') => 40,
        Some(_) => return -libc::EINVAL,
    };
    let Ok(number) = digits.parse::<u64>() else {
        return -libc::EINVAL;
    };
    // SAFETY: as the caller promises.
    let default = unsafe { unit.read() };
    let factor = if shift == 0 && default > 0 { default } else { 1 << shift };
    let Some(bytes) = number.checked_mul(factor) else {
        return -libc::EINVAL;
    };
    // SAFETY: as the caller promises.
    unsafe { size.write(bytes) };
    // SAFETY: as the caller promises.
    unsafe { unit.write(factor) };
    0
}
