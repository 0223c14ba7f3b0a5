//! The pipe through which the coordinator's messages come: the library's, or one that we made.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};

use super::handles::Copytool;

/// Slack for some 170 of the largest messages, on top of a reader that never stops.
const BYTES: i32 = 1 << 20;

/// Its read end.
#[derive(Debug)]
pub(super) enum Pipe {
    /// The library's, which closes it when it unregisters: not while this has the registration.
    Library(Arc<Copytool>),
    /// One that we made, for a registration by the raw ioctl.
    Own(OwnedFd),
}

impl Pipe {
    /// The pipe of the library's own registration.
    pub(super) fn library(copytool: &Arc<Copytool>) -> Self {
        Self::Library(Arc::clone(copytool))
    }

    /// A new one, and the end that is for the kernel.
    ///
    /// # Errors
    /// The system has no descriptor to give.
    pub(super) fn make() -> io::Result<(Self, OwnedFd)> {
        let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        blocking(&write)?;
        widen(&read);
        Ok((Self::Own(read), write))
    }
}

impl AsFd for Pipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Library(copytool) => copytool.as_fd(),
            Self::Own(fd) => fd.as_fd(),
        }
    }
}

/// Makes the library's pipe like one of ours.
pub(super) fn prepare(copytool: &Copytool) {
    widen(copytool);
    if let Err(error) = fcntl(copytool, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)) {
        tracing::debug!(%error, "children inherit the message pipe");
    }
}

/// A larger pipe is only slack; a node that allows none works too.
fn widen(pipe: &impl AsFd) {
    if let Err(error) = fcntl(pipe, FcntlArg::F_SETPIPE_SZ(BYTES)) {
        tracing::debug!(%error, "the message pipe keeps its default size");
    }
}

/// The kernel writes whole messages and waits for room: its end must not be O_NONBLOCK.
fn blocking(write: &OwnedFd) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(write, FcntlArg::F_GETFL)?);
    fcntl(write, FcntlArg::F_SETFL(flags - OFlag::O_NONBLOCK))?;
    Ok(())
}
