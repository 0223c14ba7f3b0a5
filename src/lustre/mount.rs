//! One mounted Lustre: its root, its by-FID directory, and what tells it from others.

use std::ffi::CStr;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use super::mdts::{Mdts, SurveyResult};
use super::{Library, layout, xattr};
use crate::action::HsmError;
use crate::thread::Supervisor;
use crate::types::{Fid, Mdt};

/// The record of where a file's copy is. `trusted`: users can't point root at another object.
pub const MAP_XATTR: &CStr = c"trusted.lhsm_s3";
/// On the root directory: what tells a file system from a later one of the same name, whose FIDs begin anew.
const INCARNATION_XATTR: &CStr = c"trusted.lhsm_s3_fs";
pub(super) const LAYOUT_XATTR: &CStr = c"lustre.lov";

/// Whether an extended attribute is the users' own, not the file system's or the copytool's.
#[must_use]
pub fn is_users_xattr(name: &[u8]) -> bool {
    name.starts_with(b"user.") || is_acl(name)
}

/// Whether an extended attribute is an ACL: who may do what, or what new files get in a directory.
#[must_use]
pub fn is_acl(name: &[u8]) -> bool {
    name.starts_with(b"system.posix_acl_")
}

/// A path that can't be used as the mount point.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// It can't be opened.
    #[error("can't open the mount point '{}': {source}. Mount the Lustre client there or correct `mount` in section [lustre]", path.display())]
    Open {
        /// The mount point, as configured.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// It is on some other file system.
    #[error("'{}' is not on a Lustre file system ({source}). Mount the Lustre client there (mount -t lustre MGSNODE:/FSNAME {0}) or correct `mount` in section [lustre]", path.display())]
    NotLustre {
        /// The mount point, as configured.
        path: PathBuf,
        /// What the library said.
        source: HsmError,
    },
    /// It is a directory inside a Lustre, not its root.
    #[error("'{}' is inside the Lustre file system but is not its mount point: '.lustre/fid' is not there ({source}). Give the mount point itself", path.display())]
    NotRoot {
        /// The mount point, as configured.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// What tells it from a later file system of its name is not known: by another name it would take its own objects
    /// for somebody else's.
    #[error("the file system at '{}' can't be told from a later one of its name: its root's attribute {} can't be read \
        or set ({source}). An MDT that does not answer, or a missing CAP_SYS_ADMIN; then try again", path.display(),
        INCARNATION_XATTR.to_string_lossy())]
    Identity {
        /// The mount point, as configured.
        path: PathBuf,
        /// The call that failed.
        source: HsmError,
    },
}

/// How a file system is told from a later one of its name, by an attribute of its root.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Identify {
    /// Objects or records are written that name it: where it has no such attribute it gets one.
    Make,
    /// It is only looked at. Where it has none, or this user may not read it, nothing is known to be this file system's.
    Find,
}

/// The mount point, open.
#[derive(Debug)]
pub struct Mount {
    library: Library,
    path: PathBuf,
    fsname: String,
    /// The name with the incarnation.
    pub(super) identity: String,
    by_fid: PathBuf,
    /// That directory, once it is open.
    by_fid_directory: OnceLock<OwnedFd>,
    root: Arc<File>,
    pub(super) mdts: Mdts,
    /// Attributes that look like users' and are the system's.
    left_out: Vec<String>,
    /// Whether MDTs are said to let files with a copy go to other MDTs.
    pub(super) migrates: bool,
    /// Of the daemon, where it is one's.
    supervisor: OnceLock<Supervisor>,
}

impl Mount {
    /// Opens the mount point and makes sure that it is one.
    ///
    /// # Errors
    /// What is wrong with the path, and what to do.
    pub fn open(library: Library, path: &Path, identify: Identify) -> Result<Self, MountError> {
        // The library compares the path with the mount table letter by letter.
        let path = &path.canonicalize().map_err(|source| MountError::Open {
            path: path.to_owned(),
            source,
        })?;
        let root = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY)
            .open(path)
            .map_err(|source| MountError::Open {
                path: path.to_owned(),
                source,
            })?;
        let fsname = library.fsname(path).map_err(|source| MountError::NotLustre {
            path: path.to_owned(),
            source,
        })?;
        let by_fid = path.join(".lustre/fid");
        std::fs::metadata(&by_fid).map_err(|source| MountError::NotRoot {
            path: path.to_owned(),
            source,
        })?;
        let incarnation = incarnation(path, identify).map_err(|source| MountError::Identity {
            path: path.to_owned(),
            source,
        })?;
        // Without one it is the file system that no object or record names.
        let identity = format!("{fsname}:{}", incarnation.unwrap_or_default());
        let root = Arc::new(root);
        Ok(Self {
            mdts: Mdts::new(library.clone(), path.to_owned(), Arc::clone(&root)),
            library,
            path: path.to_owned(),
            fsname,
            identity,
            by_fid,
            by_fid_directory: OnceLock::new(),
            root,
            left_out: Vec::new(),
            migrates: false,
            supervisor: OnceLock::new(),
        })
    }

    /// With names of extended attributes that the system sets by itself, such as 2.17's `user.job`: objects don't get them.
    #[must_use]
    pub fn leaving_out(mut self, names: &[String]) -> Self {
        self.left_out = names.to_vec();
        self
    }

    /// Where `allowed`, the MDTs let files with a copy go to other MDTs (`migrate_hsm_allowed`), and their FIDs change.
    #[must_use]
    pub fn migrating(mut self, allowed: bool) -> Self {
        self.migrates = allowed;
        self
    }

    /// Whether an extended attribute goes into objects.
    pub(super) fn is_archived_xattr(&self, name: &[u8]) -> bool {
        is_users_xattr(name) && !self.left_out.iter().any(|left_out| left_out.as_bytes() == name)
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) const fn library(&self) -> &Library {
        &self.library
    }

    /// The file system's name without its incarnation.
    pub(super) fn file_system_name(&self) -> &str {
        &self.fsname
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Another descriptor of the root directory.
    pub(super) fn reopen(&self) -> Result<OwnedFd, HsmError> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        nix::fcntl::openat(self.descriptor(), ".", flags, Mode::empty())
            .map_err(|error| HsmError::new("openat", error as i32))
    }

    /// The directory in which files are found by their FIDs; only root may open it.
    pub(super) fn by_fid_directory(&self) -> Result<BorrowedFd<'_>, HsmError> {
        if let Some(open) = self.by_fid_directory.get() {
            return Ok(open.as_fd());
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let opened = nix::fcntl::openat(self.descriptor(), ".lustre/fid", flags, Mode::empty())
            .map_err(|error| HsmError::new("openat", error as i32))?;
        Ok(self.by_fid_directory.get_or_init(|| opened).as_fd())
    }

    pub(super) fn by_fid(&self, fid: Fid) -> PathBuf {
        self.by_fid.join(fid.to_string())
    }

    /// The layout that a released file had, ready to be set on the volatile file that replaces it.
    pub(super) fn restore_layout(&self, fid: Fid) -> Result<layout::RestoreLayout, HsmError> {
        match xattr::get(&self.by_fid(fid), LAYOUT_XATTR) {
            Ok(Some(released)) => Ok(layout::for_restore(released)),
            Ok(None) => Ok(layout::RestoreLayout::Default("the file has no layout of its own")),
            Err(error) if error.errno == libc::EOPNOTSUPP => {
                Ok(layout::RestoreLayout::Default("this client serves no lustre.lov"))
            }
            Err(error) => Err(error),
        }
    }

    /// Whether the mount point still is what was opened: what is "not there" below another one says nothing.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.place() == MountState::Same && std::fs::metadata(&self.by_fid).is_ok()
    }

    /// Whether the mount point still is what was opened: not unmounted, and not mounted anew.
    pub(super) fn place(&self) -> MountState {
        let now = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY)
            .open(&self.path)
            .and_then(|root| identity(&root));
        match (now, identity(&self.root)) {
            (Ok(now), Ok(then)) if now == then => MountState::Same,
            (now, then) => match self.library.fsname(&self.path) {
                Ok(name) if name == self.fsname && now.is_ok() && then.is_ok() => MountState::MountedAnew,
                // Mounted, and the look at it failed: an evicted client's calls do, until it is back.
                Ok(name) if name == self.fsname => MountState::Same,
                _ => MountState::Gone,
            },
        }
    }

    /// Asks each MDT that can be reached whether its coordinator runs.
    pub(super) fn ask_mdts(&self, patience: Duration) -> SurveyResult {
        self.mdts.ask(&self.supervisor(), patience)
    }

    /// The MDTs that can be reached, for those who may wait for them.
    pub(super) fn mdts(&self) -> Result<Vec<Mdt>, HsmError> {
        self.mdts.all()
    }

    /// Who makes the threads for calls that may not come back.
    pub(super) fn supervisor(&self) -> Supervisor {
        self.supervisor.get().cloned().unwrap_or_default()
    }

    /// Whether every MDT took a report of an action lately.
    pub(super) fn are_mdts_proved(&self, within: Duration) -> bool {
        self.mdts.are_proved(within)
    }

    /// It is a daemon's: threads for calls that may not come back are made by `supervisor`, and by what each MDT can be
    /// asked is kept in `state_dir`, so that nothing is made on it at the next start.
    pub fn serve(&self, supervisor: &Supervisor, state_dir: &Path) {
        self.supervisor.get_or_init(|| supervisor.clone());
        self.mdts
            .remember(state_dir.join(format!("mdts-{}", self.fsname)), &self.identity);
    }

    /// The MDT of a file, -1 for any.
    pub(super) fn mdt_index(&self, fid: Fid) -> i32 {
        let known = self.mdts.sequences().domain(fid).or_else(|| self.mdts.find(fid));
        known.and_then(|mdt| i32::try_from(mdt.0).ok()).unwrap_or(-1)
    }

    /// What tells this mount from every other of the node, also from another mount of the same file system.
    pub(super) fn instance(&self) -> std::io::Result<String> {
        use std::os::unix::fs::MetadataExt as _;
        if let Some(instance) = self.library.instance(&self.path) {
            return Ok(instance);
        }
        let root = self.root.metadata()?;
        Ok(format!("{:x}/{:x}", root.dev(), root.ino()))
    }

    /// What servers know this mount by, where this client tells it.
    #[must_use]
    pub fn client_uuid(&self) -> Option<String> {
        let instance = self.library.instance(&self.path)?;
        // The stand-in's clients are named by absolute paths, and each has the file there.
        let path = Path::new("/sys/fs/lustre/llite").join(instance).join("uuid");
        Some(std::fs::read_to_string(path).ok()?.trim().to_owned())
    }

    /// Sets a layout on a volatile file that was opened without one.
    pub(super) fn set_layout(file: &File, layout: &[u8]) -> Result<(), HsmError> {
        xattr::set_fd(file.as_fd(), LAYOUT_XATTR, layout)
    }
}

/// The one that is there, else a new one; two that make one at the same time agree.
fn incarnation(root: &Path, identify: Identify) -> Result<Option<String>, HsmError> {
    let text = |value: Vec<u8>| String::from_utf8_lossy(&value).into_owned();
    let found = match xattr::get(root, INCARNATION_XATTR) {
        Err(error) if identify == Identify::Find && matches!(error.errno, libc::EPERM | libc::EACCES) => {
            return Ok(None);
        }
        found => found?,
    };
    if found.is_some() || identify == Identify::Find {
        return Ok(found.map(text));
    }
    let made = format!("{:016x}", fastrand::u64(..));
    match xattr::create(root, INCARNATION_XATTR, made.as_bytes()) {
        Err(error) if error.errno == libc::EEXIST => {}
        made => made?,
    }
    let found = xattr::get(root, INCARNATION_XATTR)?;
    found
        .map(|found| Some(text(found)))
        .ok_or(HsmError::new("lgetxattr", libc::ENODATA))
}

/// What is at the mount point.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum MountState {
    Same,
    /// The same file system, mounted again: all that is open belongs to the former mount.
    MountedAnew,
    Gone,
}

/// The kernel's number of the mount, for a remounted Lustre may have the device and inode of before.
fn identity(dir: &File) -> std::io::Result<(String, u64, u64)> {
    use std::os::fd::AsRawFd as _;
    use std::os::unix::fs::MetadataExt as _;
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", dir.as_raw_fd()))?;
    let mount = info
        .lines()
        .find(|line| line.starts_with("mnt_id:"))
        .unwrap_or_default();
    let stat = dir.metadata()?;
    Ok((mount.to_owned(), stat.dev(), stat.ino()))
}
