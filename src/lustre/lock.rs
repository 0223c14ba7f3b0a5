//! One copytool of ours for each mount of a node.
//!
//! The lock is flock(2) on the mount's root directory. The mount options `flock`, `localflock` and `noflock` are for files:
//! in no release from 2.5 to 2.17 do directories have a lock operation of Lustre's (llite/dir.c), so the kernel keeps this
//! one with the inode that it has in memory. All network, pid and mount namespaces of the node see it, by each path to the
//! mount; no other node does, and another mount of the same file system has a root of its own. It needs no directory that
//! can be written, no MDT is asked for it (nor when the root is opened or closed), and the kernel takes it back when the
//! last descriptor goes, with the process at the latest.
//!
//! What would not do: no call tells whether somebody is registered, and the kernel takes any number of registrations; a
//! lock on a file is the whole cluster's, or none, by the mount's options; a container has a /run and a state directory of
//! its own, and each network namespace its own sysfs and its own abstract sockets.

use std::fs::{File, TryLockError};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, sockopt};
use nix::sys::stat::{major, minor};

use super::{AgentError, Mount, OtherTool};

/// Until a lock that is held is another daemon's.
const FOR_A_MOMENT: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(50);

/// What keeps a second copytool of ours off a mount, for as long as any clone of it is there.
#[derive(Debug)]
pub struct MountLock {
    /// Open for the lock alone: it goes with the last descriptor that was made from this one.
    _root: File,
    /// By which releases up to 0.2 know each other, within one network namespace: a daemon of theirs neither sees the lock
    /// on the root nor has it. Who connects learns whose it is ([`super::LockHolder`]).
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
                Err(AgentError::Occupied(_)) if Instant::now() < until => std::thread::park_timeout(PAUSE),
                other => return other,
            }
        }
    }

    /// Takes it.
    ///
    /// # Errors
    /// Another copytool of ours has it, or the system gives none.
    pub fn take(mount: &Mount) -> Result<Self, AgentError> {
        let root = File::from(mount.reopen()?);
        match root.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(AgentError::Occupied(holder(&root))),
            Err(TryLockError::Error(error)) if has_no_locks(&error) => {
                tracing::warn!(%error, "directories of this client can't be locked: a daemon for this mount in another \
                    network namespace is not seen; see yourself that there is none");
            }
            Err(TryLockError::Error(error)) => return Err(AgentError::Lock(error)),
        }
        let address = address(mount).map_err(AgentError::Lock)?;
        let socket = UnixListener::bind_addr(&address).map_err(|error| match error.kind() {
            // A release that knows the socket alone.
            std::io::ErrorKind::AddrInUse => AgentError::Occupied(connected(&address)),
            _ => AgentError::Lock(error),
        })?;
        Ok(Self {
            _root: root,
            _socket: socket,
        })
    }
}

/// Of the socket that goes with the lock.
pub(super) fn address(mount: &Mount) -> std::io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("lhsmtool-s3/{}", mount.instance()?))
}

/// Who has a socket.
fn connected(address: &SocketAddr) -> Option<OtherTool> {
    let connection = UnixStream::connect_addr(address).ok()?;
    let pid = getsockopt(&connection, sockopt::PeerCredentials).ok()?.pid();
    u32::try_from(pid).ok().filter(|pid| *pid > 0).map(OtherTool::of)
}

/// As files of a mount with `noflock` say it; what directories of a later release may do, too.
fn has_no_locks(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EOPNOTSUPP))
}

/// Who has locked what `root` is open on. `None`: nobody that is seen from this pid namespace.
fn holder(root: &File) -> Option<OtherTool> {
    let inode = Inode::of(root)?;
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let pids: Vec<u32> = locks.lines().filter_map(|line| inode.holder(line)).collect();
    match pids[..] {
        [] => None,
        [pid] => Some(OtherTool::of(pid)),
        // Another mount of the same file system has a root of the same numbers, and a daemon of its own. Containers and
        // units have mounts of their own, but these by the same path.
        _ => {
            let mut pids = pids.iter().copied();
            pids.find(|pid| inode.is_locked_by(*pid)).map(OtherTool::of)
        }
    }
}

/// An inode, as the kernel's lists name it.
struct Inode {
    /// Device and number, as in lists of locks.
    place: String,
    /// As descriptors name it.
    path: PathBuf,
}

impl Inode {
    fn of(file: &File) -> Option<Self> {
        use std::os::fd::AsRawFd as _;
        let stat = file.metadata().ok()?;
        Some(Self {
            place: format!("{:02x}:{:02x}:{}", major(stat.dev()), minor(stat.dev()), stat.ino()),
            path: std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?,
        })
    }

    /// The process that a line of a list says to have locked it by flock(2); not one that waits for that.
    fn holder(&self, line: &str) -> Option<u32> {
        let mut words = line.split_ascii_whitespace().skip(1);
        let is_flock = words.next() == Some("FLOCK");
        // Advisory, and for reading or writing.
        let mut words = words.skip(2);
        let pid = words.next()?;
        (is_flock && words.next() == Some(self.place.as_str()))
            .then(|| pid.parse().ok())
            .flatten()
    }

    /// Whether it is by this very path that a process has the lock.
    fn is_locked_by(&self, pid: u32) -> bool {
        let of = Path::new("/proc").join(pid.to_string());
        let entries = std::fs::read_dir(of.join("fdinfo")).into_iter().flatten();
        entries.flatten().any(|entry| {
            let info = std::fs::read_to_string(entry.path()).unwrap_or_default();
            let mut locks = info.lines().filter_map(|line| line.strip_prefix("lock:"));
            let target = std::fs::read_link(of.join("fd").join(entry.file_name()));
            locks.any(|lock| self.holder(lock).is_some()) && target.is_ok_and(|target| target == self.path)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_locks_names_who_holds_one_and_nobody_who_waits_or_holds_another() {
        let inode = Inode {
            place: "fe:00:1025".into(),
            path: "/mnt/lustre".into(),
        };
        assert_eq!(
            inode.holder("3: FLOCK  ADVISORY  WRITE 9744 fe:00:1025 0 EOF"),
            Some(9744)
        );
        assert_eq!(inode.holder("\t1: FLOCK  ADVISORY  READ 12 fe:00:1025 0 EOF"), Some(12));
        for other in [
            "3: -> FLOCK  ADVISORY  WRITE 9745 fe:00:1025 0 EOF",
            "4: FLOCK  ADVISORY  WRITE 9744 fe:00:10256 0 EOF",
            "5: FLOCK  ADVISORY  WRITE 9744 fe:01:1025 0 EOF",
            "6: POSIX  ADVISORY  WRITE 9744 fe:00:1025 0 EOF",
            "7: FLOCK  ADVISORY  WRITE -1 fe:00:1025 0 EOF",
            "",
        ] {
            assert_eq!(inode.holder(other), None, "{other}");
        }
    }

    #[test]
    fn who_has_locked_a_directory_is_found_until_the_lock_goes() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (File::open(dir.path()).unwrap(), File::open(dir.path()).unwrap());
        assert_eq!(holder(&second), None);
        first.try_lock().unwrap();
        assert!(matches!(second.try_lock(), Err(TryLockError::WouldBlock)));
        let found = holder(&second).unwrap();
        assert_eq!(found.pid, std::process::id());
        assert!(Inode::of(&second).unwrap().is_locked_by(found.pid));
        first.unlock().unwrap();
        assert_eq!(holder(&second), None);
    }
}
