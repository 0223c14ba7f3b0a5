//! One copytool of ours for each mount.

use std::os::unix::net::{SocketAddr, UnixListener};
use std::time::{Duration, Instant};

use super::{AgentError, Mount};

/// Until a lock that is held is another daemon's.
const FOR_A_MOMENT: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(50);

/// What keeps a second copytool of ours off a mount, for as long as any clone of it is there.
#[derive(Debug)]
pub struct MountLock {
    _socket: UnixListener,
}

impl MountLock {
    /// Takes it; waits for a moment, where it is held by whoever has a dead daemon forgotten.
    ///
    /// # Errors
    /// As for [`MountLock::take`].
    pub fn take_soon(mount: &Mount) -> Result<Self, AgentError> {
        let until = Instant::now() + FOR_A_MOMENT;
        loop {
            match Self::take(mount) {
                Err(AgentError::Occupied) if Instant::now() < until => std::thread::park_timeout(PAUSE),
                other => return other,
            }
        }
    }

    /// Takes it. An abstract socket name is freed by the kernel when we die, needs no directory that we may write,
    /// and is the same from each path to this mount.
    ///
    /// # Errors
    /// Another copytool of ours has it, or the system gives none.
    pub fn take(mount: &Mount) -> Result<Self, AgentError> {
        let name = format!("lhsmtool-s3/{}", mount.instance().map_err(AgentError::Lock)?);
        let address = {
            use std::os::linux::net::SocketAddrExt as _;
            SocketAddr::from_abstract_name(name).map_err(AgentError::Lock)?
        };
        let socket = UnixListener::bind_addr(&address).map_err(|error| match error.kind() {
            std::io::ErrorKind::AddrInUse => AgentError::Occupied,
            _ => AgentError::Lock(error),
        })?;
        Ok(Self { _socket: socket })
    }
}
