//! The target directory: nothing is made outside it, whoever plants links in it meanwhile.
//!
//! Directories are opened below the target with `openat2`, which follows no symlink and leaves no `..`; everything in
//! them is done by descriptor and last name. A directory that others can write in gets its files under a name that
//! nobody can guess, and they are renamed into place.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::fs::Permissions;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, RenameFlags, ResolveFlag};
use nix::sys::stat::{FileStat, Mode, UtimensatFlags};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags};

use serde::{Deserialize, Serialize};

use crate::lustre::EntryAt;
use crate::types::{ErrorClass, Timestamp};

/// Open directories that are kept; an entry is a descriptor.
const KEPT: usize = 256;

/// The target, open, and directories in it.
#[derive(Debug)]
pub struct Tree {
    root: Arc<Dir>,
    open: Mutex<HashMap<PathBuf, Arc<Dir>>>,
}

/// One open directory.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    /// Made by this process: what is in it, it made as well.
    fresh: bool,
    /// Nobody else can make names in it.
    safe: bool,
}

/// Attributes of whatever has a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Attributes {
    /// Permissions, with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last access.
    pub atime: Timestamp,
    /// Last change.
    pub mtime: Timestamp,
}

fn errno(error: Errno) -> io::Error {
    error.into()
}

fn spec(time: Timestamp) -> TimeSpec {
    TimeSpec::new(time.seconds, i64::from(time.nanos))
}

fn by_descriptor(fd: BorrowedFd<'_>) -> PathBuf {
    Path::new("/proc/self/fd").join(fd.as_raw_fd().to_string())
}

impl Tree {
    /// Opens the target directory, which must be there.
    ///
    /// # Errors
    /// It can't be opened, or is no directory.
    pub fn open(target: &Path) -> io::Result<Self> {
        let fd: OwnedFd = File::open(target)?.into();
        let stat = nix::sys::stat::fstat(&fd)?;
        if stat.st_mode & libc::S_IFMT != libc::S_IFDIR {
            return Err(ErrorClass::NoDirectory.into());
        }
        Ok(Self {
            root: Arc::new(Dir::new(fd, false)?),
            open: Mutex::default(),
        })
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<PathBuf, Arc<Dir>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A directory below the target. What is missing on the way is made, for root alone to write in.
    ///
    /// # Errors
    /// ENOTDIR where a file is in the way, ELOOP where a symlink is, and others of the system.
    pub fn dir(&self, path: &Path) -> io::Result<Arc<Dir>> {
        if path.as_os_str().is_empty() {
            return Ok(Arc::clone(&self.root));
        }
        if let Some(dir) = self.kept().get(path) {
            return Ok(Arc::clone(dir));
        }
        let (dir, made) = match self.open_beneath(path) {
            Ok(fd) => (fd, false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let parent = self.dir(path.parent().unwrap_or(Path::new("")))?;
                let made = parent.make_dir(path.file_name().unwrap_or_default())?;
                (self.open_beneath(path)?, made)
            }
            Err(error) => return Err(error),
        };
        let dir = Arc::new(Dir::new(dir, made)?);
        let mut kept = self.kept();
        if kept.len() >= KEPT {
            kept.clear();
        }
        // One that its maker put there knows more.
        Ok(Arc::clone(kept.entry(path.to_owned()).or_insert(dir)))
    }

    /// Opens a directory that must be there.
    ///
    /// # Errors
    /// As of openat2(2).
    pub fn open_beneath(&self, path: &Path) -> io::Result<OwnedFd> {
        let how = OpenHow::new()
            .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
            .resolve(
                ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS,
            );
        nix::fcntl::openat2(self.root.fd.as_fd(), path, how).map_err(errno)
    }
}

impl Dir {
    /// Opens one that must be there.
    ///
    /// # Errors
    /// As of openat2(2).
    pub fn existing(tree: &Tree, path: &Path) -> io::Result<Self> {
        Self::new(tree.open_beneath(path)?, false)
    }

    fn new(fd: OwnedFd, fresh: bool) -> io::Result<Self> {
        let stat = nix::sys::stat::fstat(&fd)?;
        let own = stat.st_uid == Uid::effective().as_raw();
        Ok(Self {
            fd,
            fresh,
            safe: own && stat.st_mode & 0o022 == 0,
        })
    }

    /// Whether everything in it is this process' work.
    #[must_use]
    pub const fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// Whether nobody else can make names in it.
    #[must_use]
    pub const fn is_safe(&self) -> bool {
        self.safe
    }

    /// A name in it.
    #[must_use]
    pub fn at<'a>(&'a self, name: &'a OsStr) -> EntryAt<'a> {
        EntryAt {
            dir: self.fd.as_fd(),
            name,
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// What has the name; `None`: nothing. Follows no symlink.
    ///
    /// # Errors
    /// As of fstatat(2).
    pub fn stat(&self, name: &OsStr) -> io::Result<Option<FileStat>> {
        match nix::sys::stat::fstatat(self.fd(), name, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(errno) {
            Ok(stat) => Ok(Some(stat)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The names in it, without `.` and `..`; and without Lustre's own at a mount point.
    ///
    /// # Errors
    /// It can't be read.
    pub fn names(&self) -> io::Result<Vec<std::ffi::OsString>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(by_descriptor(self.fd()))? {
            let name = entry?.file_name();
            if name != ".lustre" {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Makes a directory that only its maker writes in until the end; `false`: one is there already.
    ///
    /// # Errors
    /// ENOTDIR when something else has the name, and others of the system.
    pub fn make_dir(&self, name: &OsStr) -> io::Result<bool> {
        match nix::sys::stat::mkdirat(self.fd(), name, Mode::from_bits_truncate(0o755)).map_err(errno) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match self.stat(name)? {
                Some(stat) if stat.st_mode & libc::S_IFMT == libc::S_IFDIR => Ok(false),
                Some(stat) if stat.st_mode & libc::S_IFMT == libc::S_IFLNK => Err(ErrorClass::Symlink.into()),
                _ => Err(ErrorClass::NoDirectory.into()),
            },
            Err(error) => Err(error),
        }
    }

    /// Makes a symlink.
    ///
    /// # Errors
    /// EEXIST and others of the system.
    pub fn make_link(&self, name: &OsStr, target: &OsStr) -> io::Result<()> {
        nix::unistd::symlinkat(target, self.fd(), name).map_err(errno)
    }

    /// The target of a symlink.
    ///
    /// # Errors
    /// EINVAL when it is none.
    pub fn read_link(&self, name: &OsStr) -> io::Result<std::ffi::OsString> {
        nix::fcntl::readlinkat(self.fd(), name).map_err(errno)
    }

    /// Gives a file one name more.
    ///
    /// # Errors
    /// EEXIST and others of the system.
    pub fn link(&self, name: &OsStr, to: &Self, new: &OsStr) -> io::Result<()> {
        nix::unistd::linkat(self.fd(), name, to.fd(), new, AtFlags::empty()).map_err(errno)
    }

    /// Renames within the directory; what has the new name is replaced if `over`.
    ///
    /// # Errors
    /// EEXIST and others of the system.
    pub fn rename(&self, name: &OsStr, new: &OsStr, over: bool) -> io::Result<()> {
        if over {
            return nix::fcntl::renameat(self.fd(), name, self.fd(), new).map_err(errno);
        }
        let renamed = nix::fcntl::renameat2(self.fd(), name, self.fd(), new, RenameFlags::RENAME_NOREPLACE);
        let Err(error) = renamed.map_err(errno) else {
            return Ok(());
        };
        match ErrorClass::of_io(&error) {
            // Not every release of Lustre knows the flag: a link and an unlink say EEXIST as well.
            ErrorClass::Invalid | ErrorClass::NotImplemented | ErrorClass::Unsupported => {
                self.link(name, self, new)?;
                self.remove(name)
            }
            _ => Err(error),
        }
    }

    /// Removes a name that is no directory's.
    ///
    /// # Errors
    /// As of unlinkat(2).
    pub fn remove(&self, name: &OsStr) -> io::Result<()> {
        nix::unistd::unlinkat(self.fd(), name, UnlinkatFlags::NoRemoveDir).map_err(errno)
    }

    /// Owner and times of a symlink, which has no permissions.
    ///
    /// # Errors
    /// The first that could not be set.
    pub fn set_link_attributes(&self, name: &OsStr, attributes: &Attributes) -> io::Result<()> {
        self.chown(name, attributes.uid, attributes.gid)?;
        self.set_times(name, attributes.atime, attributes.mtime)
    }

    /// The directory's own: owner, then permissions (a change of owner clears setuid), then times.
    ///
    /// # Errors
    /// The first that could not be set.
    pub fn set_own_attributes(&self, attributes: &Attributes) -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid));
        nix::unistd::fchown(self.fd(), Some(uid), Some(gid)).map_err(errno)?;
        let mode = Mode::from_bits_truncate(attributes.mode & 0o7777);
        nix::sys::stat::fchmod(self.fd(), mode).map_err(errno)?;
        nix::sys::stat::futimens(self.fd(), &spec(attributes.atime), &spec(attributes.mtime)).map_err(errno)
    }

    /// The directory itself, for calls that only know paths.
    #[must_use]
    pub fn own_path(&self) -> PathBuf {
        // The dot: the name in /proc is a symlink itself.
        by_descriptor(self.fd()).join(".")
    }

    /// Owner and group.
    ///
    /// # Errors
    /// As of fchownat(2).
    pub fn chown(&self, name: &OsStr, uid: u32, gid: u32) -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        nix::unistd::fchownat(self.fd(), name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW).map_err(errno)
    }

    /// Permissions of a file or directory, whatever else gets its name meanwhile.
    ///
    /// # Errors
    /// ELOOP when the name is a symlink's, and others of the system.
    pub fn chmod(&self, name: &OsStr, mode: u32) -> io::Result<()> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let found = nix::fcntl::openat(self.fd(), name, flags, Mode::empty()).map_err(errno)?;
        if nix::sys::stat::fstat(&found)?.st_mode & libc::S_IFMT == libc::S_IFLNK {
            return Err(ErrorClass::Symlink.into());
        }
        // The kernel changes nothing through such a descriptor, but by its name in /proc.
        std::fs::set_permissions(by_descriptor(found.as_fd()), Permissions::from_mode(mode & 0o7777))
    }

    /// Times, to the nanosecond.
    ///
    /// # Errors
    /// As of utimensat(2).
    pub fn set_times(&self, name: &OsStr, atime: Timestamp, mtime: Timestamp) -> io::Result<()> {
        let flags = UtimensatFlags::NoFollowSymlink;
        nix::sys::stat::utimensat(self.fd(), name, &spec(atime), &spec(mtime), flags).map_err(errno)
    }
}
