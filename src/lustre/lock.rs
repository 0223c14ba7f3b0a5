//! One copytool of ours for each mount.

use std::io::{self, Read as _};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, sockopt};

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
        let address = address(mount).map_err(AgentError::Lock)?;
        let socket = UnixListener::bind_addr(&address).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => AgentError::Occupied,
            _ => AgentError::Lock(error),
        })?;
        Ok(Self { _socket: socket })
    }
}

fn address(mount: &Mount) -> io::Result<SocketAddr> {
    use std::os::linux::net::SocketAddrExt as _;
    SocketAddr::from_abstract_name(format!("lhsmtool-s3/{}", mount.instance()?))
}

/// The process that has a mount's lock.
#[derive(Debug)]
pub struct LockHolder {
    /// Nobody takes the connection; the kernel ends it with the lock.
    connection: UnixStream,
    pid: i32,
}

impl LockHolder {
    /// Who serves that mount, by the kernel's own word; `None`: nobody does.
    ///
    /// # Errors
    /// That can't be told: the process is in another namespace, say.
    pub fn find(mount: &Mount) -> io::Result<Option<Self>> {
        let connection = match UnixStream::connect_addr(&address(mount)?) {
            Ok(connection) => connection,
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(None),
            Err(error) => return Err(error),
        };
        let pid = getsockopt(&connection, sockopt::PeerCredentials)?.pid();
        if pid <= 0 {
            return Err(io::Error::other(
                "the process that serves the mount is in a container of its own",
            ));
        }
        Ok(Some(Self { connection, pid }))
    }

    /// Its number.
    #[must_use]
    pub const fn pid(&self) -> i32 {
        self.pid
    }

    /// Waits until it lets go of the lock, which a process does with its end. `false`: it has not in that time.
    ///
    /// # Errors
    /// That can't be waited for.
    pub fn wait_gone(&mut self, limit: Duration) -> io::Result<bool> {
        self.connection.set_read_timeout(Some(limit))?;
        match self.connection.read(&mut [0]) {
            Ok(_) => Ok(true),
            Err(error) => match error.kind() {
                io::ErrorKind::ConnectionReset => Ok(true),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted => Ok(false),
                _ => Err(error),
            },
        }
    }
}
