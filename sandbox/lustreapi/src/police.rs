//! What no copytool may do. A real client would leak, hang, crash or corrupt; this one says so and dies.

use std::collections::HashMap;
use std::os::fd::{AsRawFd as _, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Ends the process.
pub(crate) fn violation(what: &str) -> ! {
    eprintln!("SANDBOX: the copytool broke a rule: {what}");
    std::process::abort()
}

/// Handles by address: live ones, and ended ones so that a second end is recognised.
#[derive(Default)]
struct Ledger {
    live: HashMap<usize, u64>,
    ended: HashMap<usize, u64>,
}

static LEDGER: Mutex<Option<Ledger>> = Mutex::new(None);

fn ledger() -> MutexGuard<'static, Option<Ledger>> {
    LEDGER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A handle was given out.
pub(crate) fn opened(handle: usize, cookie: u64) {
    let mut ledger = ledger();
    let ledger = ledger.get_or_insert_default();
    ledger.ended.remove(&handle);
    ledger.live.insert(handle, cookie);
}

/// A handle is used.
pub(crate) fn used(handle: usize, call: &str) {
    let mut ledger = ledger();
    let ledger = ledger.get_or_insert_default();
    if ledger.live.contains_key(&handle) {
        return;
    }
    match ledger.ended.get(&handle) {
        Some(cookie) => violation(&format!(
            "{call} with the handle of action {cookie:#x}, which has ended (end frees it, whatever it returns)"
        )),
        None => violation(&format!("{call} with something that is no handle")),
    }
}

/// A handle ends.
pub(crate) fn closed(handle: usize) {
    used(handle, "llapi_hsm_action_end");
    let mut ledger = ledger();
    let ledger = ledger.get_or_insert_default();
    if let Some(cookie) = ledger.live.remove(&handle) {
        ledger.ended.insert(handle, cookie);
    }
}

/// Actions that were begun and not ended.
pub(crate) fn open_actions() -> usize {
    ledger().get_or_insert_default().live.len()
}

/// A descriptor of the library's that must still be what it was.
#[derive(Debug)]
pub(crate) struct Watched {
    fd: RawFd,
    inode: (u64, u64),
}

impl Watched {
    pub(crate) fn new(fd: RawFd) -> Self {
        Self {
            fd,
            inode: inode(fd).unwrap_or_default(),
        }
    }

    pub(crate) fn check(&self, what: &str) {
        if inode(self.fd) != Some(self.inode) {
            violation(&format!(
                "{what} (descriptor {}) was closed behind the library's back",
                self.fd
            ));
        }
    }
}

/// Descriptors of this process on the same file as `fd`, besides `fd` itself.
pub(crate) fn others_on(fd: RawFd) -> usize {
    let Some(wanted) = inode(fd) else {
        return 0;
    };
    let Ok(dir) = std::fs::File::open("/proc/self/fd") else {
        return 0;
    };
    let own = dir.as_raw_fd();
    std::fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<RawFd>().ok())
        .filter(|other| *other != fd && *other != own && inode(*other) == Some(wanted))
        .count()
}

fn inode(fd: RawFd) -> Option<(u64, u64)> {
    let mut stat = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: fstat writes a whole stat on success.
    let rc = unsafe { libc::fstat(fd, stat.as_mut_ptr()) };
    if rc != 0 {
        return None;
    }
    // SAFETY: it succeeded.
    let stat = unsafe { stat.assume_init() };
    Some((stat.st_dev, stat.st_ino))
}
