//! Frames: a length, a JSON value, at most one descriptor.

use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Below the mount point.
pub const SOCKET: &str = ".lustre/sandbox.sock";
/// Below the mount point: one byte, not 0 while reads or writes of a copytool may have to fail or to wait: only then it asks.
pub const IO_FAULTS: &str = ".lustre/io-faults";
const MAX_FRAME: usize = 64 << 20;

/// One end of a conversation.
#[derive(Debug)]
pub struct Connection(UnixStream);

/// Opens the socket of the sandbox mounted at `mount`.
///
/// # Errors
/// There is no sandbox, or its coordinator does not run.
pub fn connect(mount: &Path) -> io::Result<Connection> {
    via_descriptor(mount, |path| UnixStream::connect(path)).map(Connection)
}

/// Makes that socket.
///
/// # Errors
/// The directory can't be written.
pub fn listen(mount: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(mount.join(SOCKET)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    via_descriptor(mount, |path| UnixListener::bind(path))
}

/// A socket's path has 108 bytes at most; through a descriptor any directory's does.
fn via_descriptor<T>(mount: &Path, f: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let socket = mount.join(SOCKET);
    let (Some(dir), Some(name)) = (socket.parent(), socket.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let dir = std::fs::File::open(dir)?;
    f(&Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name))
}

impl Connection {
    /// From an accepted stream.
    #[must_use]
    pub const fn new(stream: UnixStream) -> Self {
        Self(stream)
    }

    /// The process at the other end.
    ///
    /// # Errors
    /// It is gone.
    pub fn peer(&self) -> io::Result<i32> {
        let peer = nix::sys::socket::getsockopt(&self.0, nix::sys::socket::sockopt::PeerCredentials)?;
        Ok(peer.pid())
    }

    /// Sends a value, and a descriptor with it.
    ///
    /// # Errors
    /// The other end is gone.
    pub fn send(&mut self, value: &impl Serialize, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let body = serde_json::to_vec(value)?;
        let length = u32::try_from(body.len()).map_err(io::Error::other)?.to_le_bytes();
        let fds: Vec<RawFd> = fd.iter().map(|fd| fd.as_raw_fd()).collect();
        let rights = [ControlMessage::ScmRights(&fds)];
        let control: &[ControlMessage<'_>] = if fds.is_empty() { &[] } else { &rights };
        let iov = [IoSlice::new(&length)];
        let sent = sendmsg::<()>(self.0.as_raw_fd(), &iov, control, MsgFlags::MSG_NOSIGNAL, None)?;
        self.0.write_all(length.get(sent..).unwrap_or_default())?;
        self.0.write_all(&body)
    }

    /// Receives a value, and the descriptor that came with it. `None` at the end.
    ///
    /// # Errors
    /// The other end broke off or spoke nonsense.
    pub fn receive<T: DeserializeOwned>(&mut self) -> io::Result<Option<(T, Option<OwnedFd>)>> {
        let mut length = [0u8; 4];
        let (got, fd) = self.receive_start(&mut length)?;
        if got == 0 {
            return Ok(None);
        }
        self.0.read_exact(length.get_mut(got..).unwrap_or_default())?;
        let length = usize::try_from(u32::from_le_bytes(length)).map_err(io::Error::other)?;
        if length > MAX_FRAME {
            return Err(io::Error::other("frame too large"));
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        Ok(Some((serde_json::from_slice(&body)?, fd)))
    }

    fn receive_start(&self, bytes: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
        let mut space = nix::cmsg_space!(RawFd);
        let mut iov = [IoSliceMut::new(bytes)];
        loop {
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            let message = match recvmsg::<()>(self.0.as_raw_fd(), &mut iov, Some(&mut space), flags) {
                Err(nix::errno::Errno::EINTR) => continue,
                other => other?,
            };
            let mut fd = None;
            for control in message.cmsgs()? {
                if let ControlMessageOwned::ScmRights(fds) = control {
                    for raw in fds {
                        #[expect(unsafe_code, reason = "descriptors come as numbers")]
                        // SAFETY: the kernel has just made this descriptor for us (SCM_RIGHTS).
                        let owned = unsafe { OwnedFd::from_raw_fd(raw) };
                        fd = Some(owned);
                    }
                }
            }
            return Ok((message.bytes, fd));
        }
    }
}
