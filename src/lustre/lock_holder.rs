//! The process that serves a mount, as the kernel tells it: by the socket that goes with the mount's lock.

use std::io::{self, Read as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt};

use super::lock::address;
use super::{AgentError, Mount, MountLock};

/// Who has a mount's lock.
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
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => match MountLock::take(mount) {
                Err(AgentError::Occupied(holder)) => return Err(io::Error::other(AgentError::Occupied(holder))),
                // It is free, or can't be told better.
                Ok(_) | Err(_) => return Ok(None),
            },
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
        match self.connection.read_exact(&mut [0]) {
            Ok(()) => Ok(true),
            Err(error) => match error.kind() {
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => Ok(true),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted => Ok(false),
                _ => Err(error),
            },
        }
    }
}
