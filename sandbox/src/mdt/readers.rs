//! Restore on read: fanotify permission events hold whoever touches a released file until it is back.
//!
//! Needs root. With FAN_PRE_ACCESS (Linux 6.14) reads, writes and page faults wait, as on Lustre; before
//! that, opens and reads do.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use lhsm_sandbox_protocol::Fid;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::fanotify::{EventFFlags, Fanotify, FanotifyResponse, InitFlags, MarkFlags, MaskFlags, Response};

use super::{Shared, crew};

const FAN_PRE_ACCESS: MaskFlags = MaskFlags::from_bits_retain(0x0010_0000);

/// Who waits, and how they are told.
#[derive(Debug)]
pub(super) struct Readers {
    fanotify: Arc<Fanotify>,
    mask: MaskFlags,
    waiting: HashMap<Fid, Vec<OwnedFd>>,
    stop: Arc<EventFd>,
}

pub(super) fn start(shared: &Arc<Shared>) -> io::Result<JoinHandle<()>> {
    let (fanotify, mask) = group(&shared.mount)?;
    let fanotify = Arc::new(fanotify);
    let stop = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?);
    shared.lock().readers = Some(Readers {
        fanotify: Arc::clone(&fanotify),
        mask,
        waiting: HashMap::new(),
        stop: Arc::clone(&stop),
    });
    let shared = Arc::clone(shared);
    std::thread::Builder::new()
        .name("readers".into())
        .spawn(move || run(&shared, &fanotify, &stop))
}

/// The best that this kernel and file system have, tried on a directory of ours.
fn group(mount: &Path) -> io::Result<(Fanotify, MaskFlags)> {
    let open = |class| {
        Fanotify::init(
            class
                | InitFlags::FAN_CLOEXEC
                | InitFlags::FAN_NONBLOCK
                | InitFlags::FAN_UNLIMITED_MARKS
                | InitFlags::FAN_UNLIMITED_QUEUE
                | InitFlags::FAN_REPORT_TID,
            EventFFlags::O_RDONLY | EventFFlags::O_LARGEFILE | EventFFlags::O_CLOEXEC,
        )
    };
    let probe = tempfile::NamedTempFile::new_in(mount.join(".lustre/volatile"))?;
    let path = probe.path();
    let works = |fanotify: &Fanotify, mask| {
        fanotify.mark(MarkFlags::FAN_MARK_ADD, mask, nix::fcntl::AT_FDCWD, Some(path))?;
        fanotify.mark(MarkFlags::FAN_MARK_REMOVE, mask, nix::fcntl::AT_FDCWD, Some(path))
    };
    if let Ok(fanotify) = open(InitFlags::FAN_CLASS_PRE_CONTENT)
        && works(&fanotify, FAN_PRE_ACCESS).is_ok()
    {
        return Ok((fanotify, FAN_PRE_ACCESS));
    }
    let fanotify = open(InitFlags::FAN_CLASS_CONTENT)?;
    let mask = MaskFlags::FAN_OPEN_PERM | MaskFlags::FAN_ACCESS_PERM;
    works(&fanotify, mask)?;
    Ok((fanotify, mask))
}

fn run(shared: &Shared, fanotify: &Fanotify, stop: &EventFd) {
    loop {
        let mut fds = [
            PollFd::new(fanotify.as_fd(), PollFlags::POLLIN),
            PollFd::new(stop.as_fd(), PollFlags::POLLIN),
        ];
        match nix::poll::poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(_) => return,
        }
        if fds[1].any().unwrap_or(true) {
            return;
        }
        let Ok(events) = fanotify.read_events() else {
            continue;
        };
        for event in events {
            let is_own = crew::contains(event.pid());
            handle(shared, fanotify, event, is_own);
        }
    }
}

fn handle(shared: &Shared, fanotify: &Fanotify, event: nix::sys::fanotify::FanotifyEvent, own: bool) {
    let Some(fd) = event.fd() else {
        return;
    };
    let held = (!own)
        .then(|| nix::sys::stat::fstat(fd).ok())
        .flatten()
        .and_then(|stat| {
            let mut state = shared.lock();
            let fid = *state.by_inode.get(&(stat.st_dev, stat.st_ino))?;
            if !state.is_released(fid) {
                return None;
            }
            Some((fid, state.implicit_restore(fid)))
        });
    match held {
        None => respond(fanotify, fd, Response::FAN_ALLOW),
        Some((_, false)) => respond(fanotify, fd, Response::FAN_DENY),
        Some((fid, true)) => {
            let mut state = shared.lock();
            // It may have ended between the two locks.
            if !state.is_released(fid) {
                respond(fanotify, fd, Response::FAN_ALLOW);
                return;
            }
            if let Some(readers) = &mut state.readers {
                readers.hold(fid, event);
            }
            drop(state);
            shared.changed.notify_all();
        }
    }
}

fn respond(fanotify: &Fanotify, fd: std::os::fd::BorrowedFd<'_>, response: Response) {
    // A reader that was killed meanwhile needs no answer.
    let _gone = fanotify.write_response(FanotifyResponse::new(fd, response));
}

impl Readers {
    /// From now on access to the file is asked about.
    pub(super) fn watch(&self, path: &Path) -> io::Result<()> {
        Ok(self
            .fanotify
            .mark(MarkFlags::FAN_MARK_ADD, self.mask, nix::fcntl::AT_FDCWD, Some(path))?)
    }

    /// From now on it is not.
    pub(super) fn forget(&self, path: &Path) {
        // The mark goes with the inode in any case.
        let _gone = self
            .fanotify
            .mark(MarkFlags::FAN_MARK_REMOVE, self.mask, nix::fcntl::AT_FDCWD, Some(path));
    }

    fn hold(&mut self, fid: Fid, event: nix::sys::fanotify::FanotifyEvent) {
        // The event's descriptor is closed when the event is dropped; its number is the event's name.
        if let Some(fd) = event.fd() {
            use std::os::fd::{AsRawFd as _, FromRawFd as _};
            let number = fd.as_raw_fd();
            std::mem::forget(event);
            #[expect(unsafe_code, reason = "the descriptor's number must stay the same")]
            // SAFETY: the event that owned it was forgotten just now.
            let fd = unsafe { OwnedFd::from_raw_fd(number) };
            self.waiting.entry(fid).or_default().push(fd);
        }
    }

    /// Lets the readers of a file go on.
    pub(super) fn wake(&mut self, fid: Fid, restored: bool) {
        let response = if restored {
            Response::FAN_ALLOW
        } else {
            Response::FAN_DENY
        };
        for fd in self.waiting.remove(&fid).unwrap_or_default() {
            respond(&self.fanotify, fd.as_fd(), response);
        }
    }

    pub(super) fn waiting(&self) -> u64 {
        self.waiting.values().map(Vec::len).sum::<usize>() as u64
    }

    /// Lets everybody go: nobody would ever answer them.
    pub(super) fn close(mut self) {
        let fids: Vec<Fid> = self.waiting.keys().copied().collect();
        for fid in fids {
            self.wake(fid, false);
        }
        let _full = self.stop.write(1);
    }
}
