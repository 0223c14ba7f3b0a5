//! One mounted Lustre: its root, its by-FID directory, its xattrs.

use std::ffi::CStr;
use std::fs::{File, Metadata, OpenOptions};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use super::bindings::{HS_ARCHIVED, HS_DIRTY, HS_EXISTS, HS_LOST, HS_RELEASED};
use super::mdts::{Answers, Mdts};
use super::{Library, UserAction, ioctl, layout, xattr};
use crate::action::{ActionKey, CopyState, FileSystem, HsmError};
use crate::thread::Supervisor;
use crate::types::{ArchiveId, Domain, Extent, Extras, Fid, Mdt, Sequences, Timestamp};

/// The record of where a file's copy is. `trusted`: users can't point root at another object.
pub const MAP_XATTR: &CStr = c"trusted.lhsm_s3";
/// On the root directory: what tells a file system from a later one of the same name, whose FIDs begin anew.
const INCARNATION_XATTR: &CStr = c"trusted.lhsm_s3_fs";
/// On the root directory: [`FileSystem::imported_until`].
const IMPORTED_XATTR: &CStr = c"trusted.lhsm_s3_imported";
/// The same while imports run, and after one that was killed.
const IMPORTING_XATTR: &CStr = c"trusted.lhsm_s3_importing";
/// When a file was restored last, in seconds since 1970: [`FileSystem::note_restored`].
const RESTORED_XATTR: &CStr = c"trusted.lhsm_s3_restored";
const LAYOUT_XATTR: &CStr = c"lustre.lov";
/// More would not fit into an object's metadata.
const MOST_LINKS: usize = 64;

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
    identity: String,
    by_fid: PathBuf,
    root: Arc<File>,
    mdts: Mdts,
    /// Attributes that look like users' and are the system's.
    left_out: Vec<String>,
    /// Whether MDTs are said to let files with a copy go to other MDTs.
    migrates: bool,
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
        self.place() == Place::Same && std::fs::metadata(&self.by_fid).is_ok()
    }

    fn attributes(&self, fid: Fid) -> Result<Metadata, HsmError> {
        let stat = std::fs::symlink_metadata(self.by_fid(fid));
        stat.map_err(|error| self.unless_unmounted(HsmError::io("lstat", &error)))
    }

    fn states(&self, fid: Fid) -> Result<u32, HsmError> {
        let states = self.library.hsm_states(&self.by_fid(fid));
        states.map_err(|error| self.unless_unmounted(error))
    }

    /// A file that is not found below what is not the file system any more may well be there.
    fn unless_unmounted(&self, error: HsmError) -> HsmError {
        if error.is_not_found() && !self.is_there() {
            return HsmError::new(error.call, libc::ENODEV);
        }
        error
    }

    /// Whether the mount point still is what was opened: not unmounted, and not mounted anew.
    pub(super) fn place(&self) -> Place {
        let now = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY)
            .open(&self.path)
            .and_then(|root| identity(&root));
        match (now, identity(&self.root)) {
            (Ok(now), Ok(then)) if now == then => Place::Same,
            (now, then) => match self.library.fsname(&self.path) {
                Ok(name) if name == self.fsname && now.is_ok() && then.is_ok() => Place::MountedAnew,
                // Mounted, and the look at it failed: an evicted client's calls do, until it is back.
                Ok(name) if name == self.fsname => Place::Same,
                _ => Place::Gone,
            },
        }
    }

    /// Asks each MDT that can be reached whether its coordinator runs.
    pub(super) fn ask_mdts(&self, patience: Duration) -> Answers {
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
        let path = Path::new("/sys/fs/lustre/llite").join(instance).join("uuid");
        Some(std::fs::read_to_string(path).ok()?.trim().to_owned())
    }

    /// While an import runs, objects that were last written before `until` (seconds since 1970) may be those of imported
    /// files.
    ///
    /// # Errors
    /// The failed call.
    pub fn import_begins(&self, until: i64) -> Result<Importing, HsmError> {
        let before = self.time_of_import(IMPORTING_XATTR)?;
        let until = before.unwrap_or(until).max(until);
        xattr::set(&self.path, IMPORTING_XATTR, until.to_string().as_bytes())?;
        Ok(Importing { before, until })
    }

    /// It is over: what it has made files of was last written by `latest`, which for good may be those of imported files.
    ///
    /// # Errors
    /// The failed call.
    pub fn import_ended(&self, importing: &Importing, latest: Option<i64>) -> Result<(), HsmError> {
        let settled = self.time_of_import(IMPORTED_XATTR)?;
        if latest > settled {
            let latest = latest.unwrap_or_default().to_string();
            xattr::set(&self.path, IMPORTED_XATTR, latest.as_bytes())?;
        }
        // Another one that began later ends it.
        if self.time_of_import(IMPORTING_XATTR)? != Some(importing.until) {
            return Ok(());
        }
        match importing.before.filter(|before| *before > Timestamp::now().seconds) {
            Some(before) => xattr::set(&self.path, IMPORTING_XATTR, before.to_string().as_bytes()),
            None => xattr::remove(&self.path, IMPORTING_XATTR),
        }
    }

    fn time_of_import(&self, name: &CStr) -> Result<Option<i64>, HsmError> {
        let Some(value) = xattr::get(&self.path, name)? else {
            return Ok(None);
        };
        let text = String::from_utf8_lossy(&value);
        text.trim()
            .parse()
            .map(Some)
            .map_err(|_| HsmError::new("lgetxattr", libc::EINVAL))
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

/// An import under way, as [`Mount::import_begins`] noted it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Importing {
    /// What another one noted that may run still.
    before: Option<i64>,
    until: i64,
}

impl Importing {
    /// Objects that were written before then may be imported by it.
    #[must_use]
    pub const fn until(&self) -> i64 {
        self.until
    }
}

/// What is at the mount point.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
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

impl FileSystem for Mount {
    fn name(&self) -> &str {
        &self.identity
    }

    fn path_of(&self, fid: Fid) -> Result<PathBuf, HsmError> {
        self.library.fid2path(&self.path, fid)
    }

    fn imported_until(&self) -> Result<Option<i64>, HsmError> {
        // In this order: an import that ends meanwhile sets the one before it takes the other away.
        let importing = self.time_of_import(IMPORTING_XATTR)?;
        Ok(importing.max(self.time_of_import(IMPORTED_XATTR)?))
    }

    fn map(&self, fid: Fid) -> Result<Option<Vec<u8>>, HsmError> {
        xattr::get(&self.by_fid(fid), MAP_XATTR).map_err(|error| self.unless_unmounted(error))
    }

    fn set_map(&self, fid: Fid, record: &[u8]) -> Result<(), HsmError> {
        xattr::set(&self.by_fid(fid), MAP_XATTR, record).map_err(|error| self.unless_unmounted(error))
    }

    fn clear_map(&self, fid: Fid) -> Result<(), HsmError> {
        xattr::remove(&self.by_fid(fid), MAP_XATTR).map_err(|error| self.unless_unmounted(error))
    }

    fn note_restored(&self, fid: Fid) -> Result<(), HsmError> {
        let now = Timestamp::now().seconds.to_string();
        xattr::set(&self.by_fid(fid), RESTORED_XATTR, now.as_bytes()).map_err(|error| self.unless_unmounted(error))
    }

    fn is_released(&self, fid: Fid) -> Result<bool, HsmError> {
        Ok(self.states(fid)? & HS_RELEASED != 0)
    }

    fn is_archived(&self, fid: Fid) -> Result<bool, HsmError> {
        let states = self.states(fid)?;
        Ok(states & HS_RELEASED != 0 || states & (HS_ARCHIVED | HS_DIRTY) == HS_ARCHIVED)
    }

    fn copy_state(&self, fid: Fid) -> Result<CopyState, HsmError> {
        let states = self.states_of(fid).map_err(|error| self.unless_unmounted(error))?;
        Ok(states.copy())
    }

    fn prepare_archive(&self, fid: Fid, id: Option<ArchiveId>) -> Result<CopyState, HsmError> {
        let states = self.states_of(fid).map_err(|error| self.unless_unmounted(error))?;
        let mut copy = states.copy();
        // The coordinator sets EXISTS when it sends an archive; the end of a remove that was sent before takes it away.
        if !states.exists() && !states.released() {
            tracing::info!(%fid, "a remove came between; EXISTS is set again");
            copy.archive_id = id.or(copy.archive_id);
            let id = id.map_or(0, ArchiveId::get);
            self.library
                .change_hsm_states_in(&self.by_fid(fid), HS_EXISTS, 0, id)
                .map_err(|error| self.unless_unmounted(error))?;
        }
        Ok(copy)
    }

    fn ask_again(&self, fid: Fid, id: Option<ArchiveId>) -> Result<bool, HsmError> {
        // One that was stopped or restarted leaves the archive STARTED in its log; a cancel, a purge and a time-out of its
        // own do not.
        if !self.is_being_archived(fid)? || self.is_archived(fid)? {
            return Ok(false);
        }
        self.request(UserAction::Archive, id, &[fid])?;
        Ok(true)
    }

    fn extras(&self, fid: Fid, file: &File) -> Result<Extras, HsmError> {
        use std::os::unix::ffi::OsStringExt as _;
        use std::os::unix::fs::MetadataExt as _;
        let path = self.by_fid(fid);
        let mut extras = Extras {
            xattrs: xattr::all(file.as_fd(), |name| self.is_archived_xattr(name))?,
            layout: xattr::get(&path, LAYOUT_XATTR).unwrap_or_default(),
            ..Extras::default()
        };
        let links = file.metadata().map_err(|error| HsmError::io("fstat", &error))?.nlink();
        let mut next = (links > 1).then_some(0);
        while let Some(link) = next
            && extras.links.len() < MOST_LINKS
        {
            let (path, following) = self.library.name_of(&self.path, fid, link)?;
            extras.links.push(path.into_os_string().into_vec());
            next = following;
        }
        Ok(extras)
    }

    fn size_of(&self, fid: Fid) -> Result<u64, HsmError> {
        Ok(self.attributes(fid)?.len())
    }

    fn is_unlinked(&self, fid: Fid) -> Result<bool, HsmError> {
        use std::os::unix::fs::MetadataExt as _;
        match self.attributes(fid) {
            Ok(stat) => Ok(stat.nlink() == 0),
            Err(error) if matches!(error.errno, libc::ENOENT | libc::ESTALE) => Ok(true),
            Err(error) => Err(error),
        }
    }

    fn data_version(&self, file: &File) -> Option<u64> {
        self.library.data_version(file.as_fd())
    }

    fn revoke(&self, fid: Fid) -> Result<(), HsmError> {
        self.library
            .change_hsm_states(&self.by_fid(fid), 0, HS_ARCHIVED | HS_LOST)
    }

    fn may_change_fids(&self) -> bool {
        self.migrates && self.mdts.may_be_several()
    }

    fn keeps_fids(&self) -> bool {
        !self.migrates
    }

    fn sequences(&self) -> Sequences {
        self.mdts.sequences().clone()
    }

    fn find_mdt(&self, fid: Fid) -> Domain {
        self.mdts.find(fid)
    }

    fn progress(&self, key: ActionKey, extent: Extent) -> Result<(), HsmError> {
        ioctl::progress(self.descriptor(), key.fid, key.cookie, extent)?;
        self.mdts.prove(key.fid);
        Ok(())
    }
}
