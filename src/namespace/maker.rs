//! One object becomes a released file, a directory or a symlink.
//!
//! The file's record of its copy is written last: a file that has it is complete, and an import that was killed goes
//! on with one that has none.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::entry::Entry;
use super::finish::Finishing;
use super::path::{TreePath, stays_inside};
use super::report::{Outcome, Report};
use super::tree::{Attributes, Dir, Tree};
use super::{Filter, MetadataFrom, OnConflict, Paths};
use crate::action::HsmError;
use crate::lustre::{Imported, Mount, layout};
use crate::store::{Location, ObjectInfo, ObjectKey, StoreError, Told};
use crate::transfer::{Control, Lane, TransferError, head, read_small};
use crate::types::{ArchiveId, Timestamp};

/// Of a file that is in a directory's way, while another thread may be making it.
const TRIES: u32 = 400;
const BETWEEN_TRIES: Duration = Duration::from_millis(5);

/// What files get that objects don't tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Defaults {
    /// Of files.
    pub file_mode: u32,
    /// Of directories.
    pub dir_mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// What all makers share.
#[derive(Debug)]
pub struct Shared {
    /// The file system.
    pub mount: Mount,
    /// The target directory.
    pub tree: Tree,
    /// Below the mount point, for recorded paths and links.
    pub target: PathBuf,
    /// Whose objects they are.
    pub archive_id: ArchiveId,
    /// Before each key.
    pub prefix: String,
    /// Which are wanted.
    pub filter: Filter,
    /// What files get that objects don't tell.
    pub defaults: Defaults,
    /// Whether each object is asked for its metadata.
    pub metadata: MetadataFrom,
    /// Where paths come from.
    pub paths: Paths,
    /// What happens where something is.
    pub on_conflict: OnConflict,
    /// Local data that is in no archive may go, too.
    pub force: bool,
    /// setuid, setgid and sticky bits are taken.
    pub allow_setid: bool,
    /// Symlinks may lead out of the target.
    pub outside_links: bool,
    /// Nothing is made.
    pub dry_run: bool,
    /// What came of it.
    pub report: Report,
    /// Directories' attributes, for the end.
    pub finishing: Finishing,
    /// Whether to stop.
    pub control: Arc<Control>,
    /// Whether a former run may have been killed in the middle of a file.
    pub resumed: bool,
    /// Files that made way for directories, by key; few.
    pub cleared: Mutex<HashSet<String>>,
    /// When the import began, in seconds since 1970.
    pub began: i64,
}

/// Why the whole import ends.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// Another file would fail the same way.
    #[error("can't make '{path}': {source}. Mend that and give the same command again: it goes on where it ended")]
    Tree {
        /// Where.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The store refused, or was given up.
    #[error("{0}. Mend that and give the same command again: it goes on where it ended")]
    Store(#[from] TransferError),
}

/// What can't be done with one object.
enum Trouble {
    /// It can't be a file here.
    Refused(String),
    /// Something is in its place.
    Conflict(String),
    /// Something went wrong with this one.
    Failed(String),
    Fatal(Fatal),
}

impl From<Fatal> for Trouble {
    fn from(fatal: Fatal) -> Self {
        Self::Fatal(fatal)
    }
}

type Made = Result<(), Trouble>;

/// An object with all that is known of it.
struct Known {
    path: TreePath,
    entry: Entry,
    key: ObjectKey,
    info: Option<ObjectInfo>,
    told: Told,
}

enum Kind {
    File,
    Directory,
    Link,
}

/// Makes what one thread is given.
#[derive(Debug)]
pub struct Maker<'a> {
    shared: &'a Shared,
    lane: Lane,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl<'a> Maker<'a> {
    /// On one thread's lane.
    #[must_use]
    pub const fn new(shared: &'a Shared, lane: Lane) -> Self {
        Self { shared, lane }
    }

    /// Makes what one object says.
    ///
    /// # Errors
    /// What ends the whole import; everything else is in the report.
    pub fn make(&self, entry: Entry) -> Result<(), Fatal> {
        let report = &self.shared.report;
        let tally = &report.tally;
        let key = entry.key.clone();
        let (outcome, reason) = match self.try_make(entry) {
            Ok(()) => return Ok(()),
            Err(Trouble::Fatal(fatal)) => return Err(fatal),
            // It made way for a directory while it was looked at, and is counted.
            Err(_) if self.made_way(&key) => return Ok(()),
            Err(Trouble::Refused(reason)) => {
                count(&tally.refused);
                (Outcome::Refused, reason)
            }
            Err(Trouble::Conflict(reason)) => {
                count(&tally.failed);
                (Outcome::Conflict, reason)
            }
            Err(Trouble::Failed(reason)) => {
                count(&tally.failed);
                (Outcome::Failed, reason)
            }
        };
        report.say(outcome, &key, &reason);
        Ok(())
    }

    fn try_make(&self, entry: Entry) -> Made {
        let shared = self.shared;
        let tally = &shared.report.tally;
        if !shared.filter.is_in_shard(&entry.key) {
            count(&tally.filtered);
            return Ok(());
        }
        // The object that stands for the target itself.
        if entry.key == shared.prefix.as_bytes() {
            count(&tally.filtered);
            return Ok(());
        }
        let refused = |reason: &dyn std::fmt::Display| Trouble::Refused(reason.to_string());
        let path = TreePath::of_key(&entry.key, &shared.prefix);
        let text = std::str::from_utf8(&entry.key).map_err(|error| refused(&error))?;
        let path = match (shared.paths, path) {
            (Paths::Keys, path) => path.map_err(|refusal| refused(&refusal))?,
            // The key need not be a path where the object tells one.
            (Paths::Recorded, path) => path.unwrap_or_else(|_| TreePath::untold()),
        };
        let key = ObjectKey::new(text).map_err(|error| refused(&error))?;
        if !shared.filter.wants(&entry, &path) {
            count(&tally.filtered);
            return Ok(());
        }
        let mut known = self.look(path, entry, key)?;
        if shared.paths == Paths::Recorded && !self.take_recorded_path(&mut known)? {
            count(&tally.filtered);
            return Ok(());
        }
        for bad in &known.told.bad {
            count(&tally.warnings);
            let reason = format!("metadata is left out that can't be true: {bad}");
            shared.report.say(Outcome::Warning, &known.entry.key, &reason);
        }
        match self.kind(&known)? {
            Kind::Directory => self.make_directory(&known),
            Kind::Link => self.make_link(&known),
            Kind::File => self.make_file(&known),
        }
    }

    /// Asks the object, where that is wanted or a listing has not told enough.
    fn look(&self, path: TreePath, mut entry: Entry, key: ObjectKey) -> Result<Known, Trouble> {
        let shared = self.shared;
        let (mut info, mut told) = (None, Told::default());
        let untold = entry.etag.is_none() && !path.is_dir();
        if shared.metadata == MetadataFrom::Head || untold {
            match head(&self.lane, &shared.control, shared.archive_id, &key, None) {
                Ok(found) => {
                    told = Told::of(&found.metadata);
                    entry.size = found.size;
                    entry.modified = entry.modified.or(found.modified);
                    info = Some(found);
                }
                Err(TransferError::Store(StoreError::NotFound { .. })) => {
                    return Err(Trouble::Failed("the object is gone".into()));
                }
                Err(TransferError::Store(error @ StoreError::Refused { .. })) => {
                    return Err(Trouble::Failed(error.to_string()));
                }
                Err(error) => return Err(Fatal::Store(error).into()),
            }
        }
        Ok(Known {
            path,
            entry,
            key,
            info,
            told,
        })
    }

    /// `false`: the object is no file's copy.
    fn take_recorded_path(&self, known: &mut Known) -> Result<bool, Trouble> {
        let told = &known.told;
        let by_key = match (&told.path, &told.owner) {
            (Some(path), _) => TreePath::recorded(path),
            // A copy that was put beside its key, because that held another's.
            (None, Some(owner)) => {
                let text = known.key.as_str();
                let text = text.strip_suffix(&format!("~{}", owner.fid.bare())).unwrap_or(text);
                TreePath::of_key(text.as_bytes(), &self.shared.prefix)
            }
            // Directories and symlinks of an export, and what others put here.
            (None, None) if told.mode.is_some() => TreePath::of_key(&known.entry.key, &self.shared.prefix),
            (None, None) => return Ok(false),
        };
        known.path = by_key.map_err(|refusal| Trouble::Refused(refusal.to_string()))?;
        Ok(true)
    }

    fn kind(&self, known: &Known) -> Result<Kind, Trouble> {
        if known.path.is_dir() {
            return Ok(Kind::Directory);
        }
        match known.told.mode.map_or(0, |mode| mode & libc::S_IFMT) {
            0 | libc::S_IFREG => Ok(Kind::File),
            libc::S_IFDIR => Ok(Kind::Directory),
            libc::S_IFLNK => Ok(Kind::Link),
            other => Err(Trouble::Refused(format!(
                "it is the copy of a special file (type {:#o}), which an object can't be",
                other
            ))),
        }
    }

    fn attributes(&self, known: &Known, mode: u32) -> Attributes {
        let (told, defaults) = (&known.told, &self.shared.defaults);
        let written = Timestamp {
            seconds: known.entry.modified.unwrap_or(0),
            nanos: 0,
        };
        let mtime = told.mtime.unwrap_or(written);
        let bits = if self.shared.allow_setid { 0o7777 } else { 0o777 };
        Attributes {
            mode: told.mode.unwrap_or(mode) & bits,
            uid: told.uid.unwrap_or(defaults.uid),
            gid: told.gid.unwrap_or(defaults.gid),
            atime: told.atime.unwrap_or(mtime),
            mtime,
        }
    }

    /// The directory that an object goes into.
    fn parent(&self, path: &TreePath) -> Result<Arc<Dir>, Trouble> {
        let mut tries = 0;
        loop {
            tries += 1;
            let error = match self.shared.tree.dir(path.parent()) {
                Ok(dir) => return Ok(dir),
                Err(error) => error,
            };
            match error.raw_os_error() {
                // `a` came before `a/b`: the directory wins, whatever the order.
                Some(libc::ENOTDIR) if tries < TRIES && self.clear_way(path.parent())? => {}
                Some(libc::ENOTDIR) => {
                    return Err(Trouble::Conflict("a file is where its directory must be".into()));
                }
                Some(libc::ELOOP | libc::EXDEV) => {
                    return Err(Trouble::Refused("a symlink is where its directory must be".into()));
                }
                _ => return Err(self.error(path, "open the directory of", error)),
            }
        }
    }

    /// Whether a file made way for a directory of its name, and is counted as refused.
    fn made_way(&self, key: &[u8]) -> bool {
        let cleared = lock(&self.shared.cleared);
        !cleared.is_empty() && std::str::from_utf8(key).is_ok_and(|key| cleared.contains(key))
    }

    /// Takes a released file of this import away where a directory must be. `false`: it is none.
    fn clear_way(&self, dir: &Path) -> Result<bool, Trouble> {
        for ancestor in dir.ancestors().collect::<Vec<_>>().into_iter().rev() {
            let Ok(path) = TreePath::recorded(ancestor.as_os_str().as_bytes()) else {
                continue;
            };
            let parent = match self.shared.tree.dir(path.parent()) {
                Ok(parent) => parent,
                Err(error) => return Err(self.error(&path, "open the directory of", error)),
            };
            let stat = parent.stat(path.name()).ok().flatten();
            let Some(made) = stat
                .filter(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFREG)
                .map(|stat| stat.st_ctime)
            else {
                continue;
            };
            let at = parent.at(path.name()).path();
            let key = format!("{}{}", self.shared.prefix, path.as_path().display());
            let ours = self.shared.mount.states_at(&at).is_ok_and(|states| states.released())
                && location_at(&at).is_some_and(|location| location.key.as_str() == key);
            if !ours {
                // Its maker may be at it this moment, and takes it away itself then.
                let being_made = lock(&self.shared.cleared).contains(&key);
                if being_made {
                    std::thread::park_timeout(BETWEEN_TRIES);
                }
                return Ok(being_made);
            }
            // Said before it is done: whoever makes the file meanwhile finds it.
            let first = lock(&self.shared.cleared).insert(key.clone());
            match parent.remove(path.name()) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(self.error(&path, "remove", error)),
            }
            if first {
                let tally = &self.shared.report.tally;
                if made > self.shared.began {
                    // It was counted when it was made; one of the very first second may be a former run's.
                    let _counted = tally
                        .imported
                        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
                }
                count(&tally.refused);
                let reason = "the bucket has keys below it as well: the directory wins";
                self.shared.report.say(Outcome::Refused, key.as_bytes(), reason);
            }
            return Ok(true);
        }
        Ok(false)
    }

    /// An error of the system: one file's trouble, or everybody's.
    fn error(&self, path: &TreePath, what: &str, error: io::Error) -> Trouble {
        match error.raw_os_error() {
            Some(
                libc::ENOSPC
                | libc::EDQUOT
                | libc::EROFS
                | libc::ENOTCONN
                | libc::ESHUTDOWN
                | libc::EMFILE
                | libc::ENFILE
                | libc::EPERM,
            ) => Trouble::Fatal(Fatal::Tree {
                path: path.as_path().display().to_string(),
                source: error,
            }),
            _ => Trouble::Failed(format!("can't {what} it: {error}")),
        }
    }

    fn hsm_error(&self, path: &TreePath, error: &HsmError) -> Trouble {
        let io = io::Error::from_raw_os_error(error.errno);
        match error.errno {
            libc::EFBIG => Trouble::Refused("the file would be larger than this file system takes".into()),
            _ => match self.error(path, "import", io) {
                Trouble::Failed(_) => Trouble::Failed(error.to_string()),
                fatal => fatal,
            },
        }
    }

    fn make_directory(&self, known: &Known) -> Made {
        let shared = self.shared;
        let (path, tally) = (&known.path, &shared.report.tally);
        if shared.dry_run {
            count(&tally.directories);
            return Ok(());
        }
        // Made if it is missing, as any file's parent is.
        let below = TreePath::recorded(&[path.as_path().as_os_str().as_bytes(), b"/x"].concat());
        let below = below.map_err(|refusal| Trouble::Refused(refusal.to_string()))?;
        self.parent(&below)?;
        let attributes = self.attributes(known, libc::S_IFDIR | shared.defaults.dir_mode);
        shared
            .finishing
            .push(path, &attributes, &known.told.xattrs)
            .map_err(|error| self.error(path, "write down", error))?;
        count(&tally.directories);
        Ok(())
    }

    fn make_link(&self, known: &Known) -> Made {
        let shared = self.shared;
        let (path, tally) = (&known.path, &shared.report.tally);
        if known.entry.size == 0 || known.entry.size > 4095 {
            return Err(Trouble::Refused("a symlink's target has 1 to 4095 bytes".into()));
        }
        let target = match read_small(&self.lane, &shared.control, &self.location(known), 4095) {
            Ok(target) => target,
            Err(TransferError::Store(error @ (StoreError::NotFound { .. } | StoreError::Precondition { .. }))) => {
                return Err(Trouble::Failed(error.to_string()));
            }
            Err(error) => return Err(Fatal::Store(error).into()),
        };
        if target.contains(&0) {
            return Err(Trouble::Refused("the symlink's target has a NUL".into()));
        }
        if !shared.outside_links && !stays_inside(path, &target) {
            return Err(Trouble::Refused(
                "the symlink leads out of the target directory (--outside-links takes it)".into(),
            ));
        }
        if shared.dry_run {
            count(&tally.links);
            return Ok(());
        }
        let dir = self.parent(path)?;
        let target = OsStr::from_bytes(&target);
        match dir.make_link(path.name(), target) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if dir.read_link(path.name()).is_ok_and(|found| found == target) {
                    count(&tally.same);
                    return Ok(());
                }
                if !self.may_replace(&dir, known)? {
                    return Ok(());
                }
                let spare = spare_name();
                let replaced = dir
                    .make_link(&spare, target)
                    .and_then(|()| dir.rename(&spare, path.name(), true));
                replaced.map_err(|error| self.error(path, "replace", error))?;
            }
            Err(error) => return Err(self.error(path, "make", error)),
        }
        let attributes = self.attributes(known, libc::S_IFLNK | 0o777);
        dir.set_attributes(path.name(), &attributes, true)
            .map_err(|error| self.error(path, "set the attributes of", error))?;
        count(&tally.links);
        Ok(())
    }

    fn location(&self, known: &Known) -> Location {
        let info = known.info.as_ref();
        Location {
            archive_id: self.shared.archive_id,
            key: known.key.clone(),
            size: known.entry.size,
            etag: info.map_or_else(
                || known.entry.etag.clone().unwrap_or_default(),
                |info| info.etag.clone(),
            ),
            version: info.and_then(|info| info.version.clone()),
            checksum: info.and_then(|info| info.checksum),
            pinned: self.shared.paths == Paths::Keys,
        }
    }

    fn make_file(&self, known: &Known) -> Made {
        let shared = self.shared;
        let (path, tally) = (&known.path, &shared.report.tally);
        if shared.dry_run {
            count(&tally.imported);
            tally.bytes.fetch_add(known.entry.size, Ordering::Relaxed);
            return Ok(());
        }
        if self.made_way(&known.entry.key) {
            return Ok(());
        }
        let dir = self.parent(path)?;
        let there = if dir.is_fresh() {
            None
        } else {
            dir.stat(path.name())
                .map_err(|error| self.error(path, "look at", error))?
        };
        if there.is_none() {
            match self.import(&dir, known, false) {
                Ok(()) if self.made_way(&known.entry.key) => {
                    return match dir.remove(path.name()) {
                        // The directory has its place already, or the other one took it away.
                        Err(error) if !matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EISDIR)) => {
                            Err(self.error(path, "remove", error))
                        }
                        _ => Ok(()),
                    };
                }
                Ok(()) => {
                    count(&tally.imported);
                    tally.bytes.fetch_add(known.entry.size, Ordering::Relaxed);
                    return self.make_further_names(&dir, known);
                }
                Err(Importing::Exists) => {}
                Err(Importing::Trouble(trouble)) => return Err(trouble),
            }
        }
        match self.existing(&dir, known)? {
            Existing::Leave => return Ok(()),
            Existing::Complete => {
                // A former run died between the two.
                self.complete(&dir, path.name(), known)?;
                count(&tally.imported);
                tally.bytes.fetch_add(known.entry.size, Ordering::Relaxed);
                return self.make_further_names(&dir, known);
            }
            Existing::Half => {
                dir.remove(path.name())
                    .map_err(|error| self.error(path, "remove", error))?;
                return self.make_file(known);
            }
            Existing::Replace => {}
            Existing::Beside(beside) => {
                let renamed = Known {
                    path: beside,
                    entry: known.entry.clone(),
                    key: known.key.clone(),
                    info: known.info.clone(),
                    told: known.told.clone(),
                };
                shared.report.say(
                    Outcome::Renamed,
                    &known.entry.key,
                    &format!(
                        "its path is another object's; it is '{}'",
                        renamed.path.as_path().display()
                    ),
                );
                return self.make_file(&renamed);
            }
        }
        match self.import(&dir, known, true) {
            Ok(()) => {
                count(&tally.updated);
                tally.bytes.fetch_add(known.entry.size, Ordering::Relaxed);
                Ok(())
            }
            Err(Importing::Exists) => Err(Trouble::Conflict("something took its place meanwhile".into())),
            Err(Importing::Trouble(trouble)) => Err(trouble),
        }
    }

    /// Makes the file: in place where nobody else can make names, else under a name that nobody can guess.
    fn import(&self, dir: &Dir, known: &Known, over: bool) -> Result<(), Importing> {
        let path = &known.path;
        let in_place = dir.is_safe() && !over;
        let name = if in_place { path.name().to_owned() } else { spare_name() };
        let attributes = self.attributes(known, self.shared.defaults.file_mode);
        let file = Imported {
            archive_id: self.shared.archive_id,
            mode: attributes.mode,
            uid: attributes.uid,
            gid: attributes.gid,
            size: known.entry.size,
            atime: attributes.atime,
            mtime: attributes.mtime,
            stripes: known.told.layout.as_deref().and_then(layout::plain_stripes),
        };
        match self.shared.mount.import(dir.at(&name), &file) {
            Ok(_) => {}
            Err(error) if matches!(error.errno, libc::EEXIST | libc::ENOTTY | libc::EISDIR) => {
                return Err(Importing::Exists);
            }
            Err(error) => return Err(Importing::Trouble(self.hsm_error(path, &error))),
        }
        let completed = self.complete(dir, &name, known).map_err(Importing::Trouble);
        let completed = completed.and_then(|()| {
            if in_place {
                return Ok(());
            }
            dir.rename(&name, path.name(), over)
                .map_err(|error| match error.kind() {
                    io::ErrorKind::AlreadyExists | io::ErrorKind::IsADirectory => Importing::Exists,
                    _ => Importing::Trouble(self.error(path, "name", error)),
                })
        });
        if completed.is_err()
            && let Err(error) = dir.remove(&name)
        {
            tracing::warn!(name = %name.display(), %error, "a file that could not be completed is left");
        }
        completed
    }

    /// All that an import does not set, the record of the copy last.
    fn complete(&self, dir: &Dir, name: &OsStr, known: &Known) -> Made {
        let path = &known.path;
        let attributes = self.attributes(known, self.shared.defaults.file_mode);
        // Owner and nine bits are set; setuid went with the change of owner.
        if attributes.mode & 0o7000 != 0 {
            dir.chmod(name, attributes.mode)
                .map_err(|error| self.error(path, "set the permissions of", error))?;
        }
        let at = dir.at(name).path();
        for (xattr, value) in &known.told.xattrs {
            set_xattr(&at, xattr, value).map_err(|error| self.hsm_error(path, &error))?;
        }
        if attributes.atime.nanos != 0 || attributes.mtime.nanos != 0 {
            dir.set_times(name, attributes.atime, attributes.mtime)
                .map_err(|error| self.error(path, "set the times of", error))?;
        }
        let record = self.location(known).to_bytes();
        Mount::set_map_at(&at, &record).map_err(|error| self.hsm_error(path, &error))
    }

    /// Hard links, as the object tells them; what can't be linked is said.
    fn make_further_names(&self, dir: &Dir, known: &Known) -> Made {
        let shared = self.shared;
        for link in &known.told.links {
            let below = Path::new(OsStr::from_bytes(link)).strip_prefix(&shared.target).ok();
            let below = below.and_then(|below| TreePath::recorded(below.as_os_str().as_bytes()).ok());
            let Some(below) = below.filter(|below| below.as_path() != known.path.as_path()) else {
                continue;
            };
            let linked = self.parent(&below).and_then(|to| {
                dir.link(known.path.name(), &to, below.name())
                    .map_err(|error| self.error(&below, "link", error))
            });
            match linked {
                Ok(()) => {}
                Err(Trouble::Fatal(fatal)) => return Err(fatal.into()),
                Err(Trouble::Refused(reason) | Trouble::Conflict(reason) | Trouble::Failed(reason)) => {
                    count(&shared.report.tally.warnings);
                    let reason = format!("its further name '{}': {reason}", below.as_path().display());
                    shared.report.say(Outcome::Warning, &known.entry.key, &reason);
                }
            }
        }
        Ok(())
    }

    /// What to do where something is in a file's place.
    fn existing(&self, dir: &Dir, known: &Known) -> Result<Existing, Trouble> {
        let path = &known.path;
        let stat = dir
            .stat(path.name())
            .map_err(|error| self.error(path, "look at", error))?;
        let Some(stat) = stat else {
            return Err(Trouble::Failed(
                "something had its place and is gone; give the command again".into(),
            ));
        };
        match stat.st_mode & libc::S_IFMT {
            libc::S_IFDIR => {
                return Err(Trouble::Refused(
                    "a directory is in its place (the bucket has keys below it): the directory wins".into(),
                ));
            }
            libc::S_IFREG => {}
            _ => {
                return Ok(if self.may_replace(dir, known)? {
                    Existing::Replace
                } else {
                    Existing::Leave
                });
            }
        }
        let at = dir.at(path.name()).path();
        let states = self
            .shared
            .mount
            .states_at(&at)
            .map_err(|error| self.hsm_error(path, &error))?;
        let wanted = self.location(known);
        let found = location_at(&at);
        let tally = &self.shared.report.tally;
        if let Some(found) = &found
            && found.archive_id == wanted.archive_id
            && found.key == wanted.key
            && found.etag == wanted.etag
            && found.size == wanted.size
        {
            count(&tally.same);
            return Ok(Existing::Leave);
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        if self.shared.resumed && found.is_none() && states.is_none() && size == 0 {
            // Killed between a file's creation and its import: it has nothing that could be lost.
            return Ok(Existing::Half);
        }
        if found.is_none() && states.released() && states.is_in(wanted.archive_id) && size == wanted.size {
            return Ok(Existing::Complete);
        }
        if self.shared.paths == Paths::Recorded && found.as_ref().is_some_and(|found| found.key != wanted.key) {
            // Two copies say that they have been here: one was renamed later. Nothing is lost.
            let own = TreePath::of_key(known.key.as_str().as_bytes(), &self.shared.prefix);
            let own = own.map_err(|refusal| Trouble::Refused(refusal.to_string()))?;
            let mut name = own.as_path().as_os_str().to_owned();
            name.push(match &known.told.owner {
                Some(owner) => format!("~{}", owner.fid.bare()),
                None => "~".to_owned(),
            });
            let beside =
                TreePath::recorded(name.as_bytes()).map_err(|refusal| Trouble::Refused(refusal.to_string()))?;
            if *path == beside {
                return Err(Trouble::Conflict(
                    "other files have all the names that it could get".into(),
                ));
            }
            if own != *path {
                return Ok(Existing::Beside(own));
            }
            return Ok(Existing::Beside(beside));
        }
        match self.shared.on_conflict {
            OnConflict::Fail => Err(Trouble::Conflict("a file is in its place".into())),
            OnConflict::Skip => {
                count(&tally.skipped);
                Ok(Existing::Leave)
            }
            OnConflict::Refresh | OnConflict::Overwrite if !states.is_clean() && !self.shared.force => Err(
                Trouble::Conflict("the file in its place has data that is in no archive (--force replaces it)".into()),
            ),
            OnConflict::Refresh if found.is_none_or(|found| found.key != wanted.key) && !self.shared.force => {
                Err(Trouble::Conflict("the file in its place is not this object's".into()))
            }
            OnConflict::Refresh | OnConflict::Overwrite => Ok(Existing::Replace),
        }
    }

    /// A symlink or a special file in the way, or a link where a link is wanted.
    fn may_replace(&self, dir: &Dir, known: &Known) -> Result<bool, Trouble> {
        let name = known.path.name();
        let stat = dir
            .stat(name)
            .map_err(|error| self.error(&known.path, "look at", error))?;
        let what = match stat.map(|stat| stat.st_mode & libc::S_IFMT) {
            Some(libc::S_IFDIR) => return Err(Trouble::Conflict("a directory is in its place".into())),
            Some(libc::S_IFLNK) => "a symlink",
            Some(libc::S_IFREG) => "a file",
            Some(_) => "a special file",
            None => return Ok(true),
        };
        match self.shared.on_conflict {
            OnConflict::Skip => {
                count(&self.shared.report.tally.skipped);
                Ok(false)
            }
            OnConflict::Overwrite | OnConflict::Refresh if self.shared.force => Ok(true),
            OnConflict::Overwrite | OnConflict::Refresh if what == "a symlink" => Ok(true),
            _ => Err(Trouble::Conflict(format!("{what} is in its place"))),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

enum Existing {
    Leave,
    Complete,
    Half,
    Replace,
    Beside(TreePath),
}

enum Importing {
    Exists,
    Trouble(Trouble),
}

/// A file's record of its copy, if it has one that can be read.
pub(super) fn location_at(path: &Path) -> Option<Location> {
    let record = Mount::map_at(path).ok()??;
    Location::from_bytes(&record).ok()
}

fn set_xattr(path: &Path, name: &[u8], value: &[u8]) -> Result<(), HsmError> {
    let invalid = HsmError::new("lsetxattr", libc::EINVAL);
    // A bucket's word is not root's: only what users may set themselves.
    if !(name.starts_with(b"user.") || name.starts_with(b"system.posix_acl_")) {
        return Err(HsmError::new("lsetxattr", libc::EPERM));
    }
    let name = std::ffi::CString::new(name).map_err(|_| invalid)?;
    Mount::set_xattr_at(path, &name, value)
}

/// Nobody can plant a link where nobody knows the name.
fn spare_name() -> OsString {
    OsString::from_vec(format!(".lhsm-import-{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..)).into_bytes())
}
