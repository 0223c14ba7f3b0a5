//! One object becomes a released file, a directory or a symlink.
//!
//! The file's record of its copy is written last: a file that has it is complete, and an import that was killed goes
//! on with one that has none.

mod existing;
mod file;
mod link;
mod parent;
mod trouble;

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(super) use self::trouble::of_one;
use super::finish::Finishing;
use super::path::TreePath;
use super::report::{ImportCounts, Outcome, Report};
use super::tree::{Attributes, Tree};
use super::{Crowds, Filter, MetadataFrom, NewestObject, OnConflict, Paths};
use crate::lustre::{Mount, layout::is_portable_composite};
use crate::nodes::GROUP_BITS;
use crate::store::{Entry, Location, ObjectInfo, ObjectKey, ParsedAttributes, StoreError, sidecar_of};
use crate::transfer::{Control, Lane, Transfer, TransferError};
use crate::types::{ArchiveId, Timestamp};

/// Bytes; a component takes 80 and 24 for each of its stripes, and the record has to fit an attribute.
const MOST_LAYOUT: usize = 16 << 10;

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
pub struct ImportContext {
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
    /// The path of the one object that is meant, where it does not follow its key.
    pub named: Option<TreePath>,
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
    /// Where each object is reported and counted.
    pub report: Report,
    /// Directories' attributes, for the end.
    pub finishing: Finishing,
    /// Whether to stop.
    pub control: Arc<Control>,
    /// Whether a former run may have been killed in the middle of a file.
    pub resumed: bool,
    /// When its objects were written.
    pub seen: NewestObject,
    /// Files that made way for directories, by key; few.
    pub cleared: Mutex<HashSet<String>>,
    /// How full directories get.
    pub crowds: Mutex<Crowds>,
    /// When the first run of this import began, in seconds since 1970.
    pub began: i64,
    /// Objects for which the store was given up while it answered otherwise.
    pub given_up: AtomicU32,
}

impl ImportContext {
    /// What a transfer on that lane runs with.
    pub(super) fn transfer<'t>(&'t self, lane: &'t Lane) -> Transfer<'t> {
        Transfer::new(lane, &self.control)
    }
}

/// Why the whole import ends.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// Another file would fail the same way.
    #[error("can't make '{path}': {source}. Mend that and give the same command again: it goes on where it ended")]
    Tree {
        /// The path at which it happened.
        path: String,
        /// The system's error.
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
#[derive(Clone)]
struct SourceObject {
    path: TreePath,
    entry: Entry,
    key: ObjectKey,
    info: Option<ObjectInfo>,
    told: ParsedAttributes,
}

enum Kind {
    File,
    Directory,
    Link,
}

/// Makes what one thread is given.
#[derive(Debug)]
pub struct Maker<'a> {
    shared: &'a ImportContext,
    lane: Lane,
}

impl<'a> Maker<'a> {
    /// On one thread's lane.
    #[must_use]
    pub const fn new(shared: &'a ImportContext, lane: Lane) -> Self {
        Self { shared, lane }
    }

    /// The lane, for whoever is next.
    #[must_use]
    pub fn into_lane(self) -> Lane {
        self.lane
    }

    /// Makes what one object says.
    ///
    /// # Errors
    /// What ends the whole import; everything else is in the report.
    pub fn make(&self, entry: Entry) -> Result<(), Fatal> {
        let key = entry.key.clone();
        let (outcome, reason) = match self.try_make(entry) {
            Ok(()) => return Ok(()),
            Err(Trouble::Fatal(fatal)) => return Err(fatal),
            // It made way for a directory while it was looked at, and is counted.
            Err(_) if self.made_way(&key) => return Ok(()),
            Err(Trouble::Refused(reason)) => {
                self.count(|counts| counts.refused += 1);
                (Outcome::Refused, reason)
            }
            Err(Trouble::Conflict(reason)) => {
                self.count(|counts| counts.failed += 1);
                (Outcome::Conflict, reason)
            }
            Err(Trouble::Failed(reason)) => {
                self.count(|counts| counts.failed += 1);
                (Outcome::Failed, reason)
            }
        };
        self.shared.report.say(outcome, &key, &reason);
        Ok(())
    }

    fn count(&self, change: impl FnOnce(&mut ImportCounts)) {
        self.shared.report.count(change);
    }

    /// Something about it is left out, and it is made all the same.
    fn warn(&self, known: &SourceObject, reason: &str) {
        self.count(|counts| counts.warnings += 1);
        self.shared.report.say(Outcome::Warning, &known.entry.key, reason);
    }

    fn try_make(&self, entry: Entry) -> Made {
        let shared = self.shared;
        if !shared.filter.is_in_shard(&entry.key) {
            self.count(|counts| counts.filtered += 1);
            return Ok(());
        }
        // The object that stands for the target itself, and what belongs to another object.
        if entry.key == shared.prefix.as_bytes() || ObjectKey::is_sidecar(&entry.key) {
            self.count(|counts| counts.filtered += 1);
            return Ok(());
        }
        let refused = |reason: &dyn std::fmt::Display| Trouble::Refused(reason.to_string());
        let path = match &shared.named {
            Some(named) => Ok(named.clone()),
            None => TreePath::of_key(&entry.key, &shared.prefix),
        };
        let text = std::str::from_utf8(&entry.key).map_err(|error| refused(&error))?;
        let path = match (shared.paths, path) {
            (Paths::Keys, path) => path.map_err(|refusal| refused(&refusal))?,
            // The key need not be a path where the object tells one.
            (Paths::Recorded, path) => path.unwrap_or_else(|_| TreePath::untold()),
        };
        let key = ObjectKey::new(text).map_err(|error| refused(&error))?;
        if !shared.filter.wants(&entry, &path) {
            self.count(|counts| counts.filtered += 1);
            return Ok(());
        }
        let mut known = self.look(path, entry, key)?;
        if shared.paths == Paths::Recorded && !self.take_recorded_path(&mut known)? {
            self.count(|counts| counts.filtered += 1);
            return Ok(());
        }
        if known.path.is_dir() {
            known.told.is_of_directory();
        }
        for bad in &known.told.bad {
            self.warn(&known, &format!("metadata is left out that can't be true: {bad}"));
        }
        match self.kind(&known)? {
            Kind::Directory => self.make_directory(&known),
            Kind::Link => self.make_link(&known),
            Kind::File => self.make_file(&known),
        }
    }

    /// Asks the object, where that is wanted or a listing has not told enough.
    fn look(&self, path: TreePath, mut entry: Entry, key: ObjectKey) -> Result<SourceObject, Trouble> {
        let shared = self.shared;
        let (mut info, mut told) = (None, ParsedAttributes::default());
        let untold = entry.etag.is_none() && !path.is_dir();
        if shared.metadata == MetadataFrom::Head || untold {
            match shared.transfer(&self.lane).head(key.at(shared.archive_id), None) {
                Ok(mut found) => {
                    let missing = self.add_sidecar(&key, &mut found)?;
                    told = ParsedAttributes::of(&found.metadata);
                    // An ACL comes with the extended attributes, and no copy has them in two places.
                    told.partial |= missing.is_some() && told.xattrs.is_empty();
                    let partial = told.partial;
                    told.bad.extend(missing.map(|why| match partial {
                        true => format!("{why}; an ACL may be part of it: its group gets no access"),
                        false => why,
                    }));
                    entry.size = found.size;
                    entry.modified = entry.modified.or(found.modified);
                    info = Some(found);
                }
                Err(error) => return Err(self.store_error(error)),
            }
        }
        // Before anything is made of it.
        shared.seen.note(entry.modified);
        Ok(SourceObject {
            path,
            entry,
            key,
            info,
            told,
        })
    }

    /// Adds what the object's own metadata had no room for; tells what of it can't be had.
    fn add_sidecar(&self, key: &ObjectKey, found: &mut ObjectInfo) -> Result<Option<String>, Trouble> {
        let shared = self.shared;
        let Some(sidecar) = sidecar_of(&found.metadata) else {
            return Ok(None);
        };
        match shared.transfer(&self.lane).get_bytes(sidecar.at(shared.archive_id)) {
            Ok(body) => match serde_json::from_slice::<HashMap<String, String>>(&body) {
                Ok(rest) => {
                    for (name, value) in rest {
                        found.metadata.entry(name).or_insert(value);
                    }
                    Ok(None)
                }
                Err(error) => Ok(Some(format!("'{sidecar}' has no metadata: {error}"))),
            },
            Err(TransferError::Store(StoreError::NotFound { .. })) => {
                Ok(Some(format!("'{sidecar}', which has more of it, is gone")))
            }
            // Not made without what may come yet: a file that is there is not completed by the next import.
            Err(TransferError::Store(StoreError::Frozen { .. })) => {
                let location = Location {
                    key: sidecar,
                    version: None,
                    sidecar: None,
                    ..found.at(key.at(shared.archive_id))
                };
                Err(self.frozen(&location))
            }
            // Its file can be made all the same: more will never come.
            Err(error @ (TransferError::Checksum { .. } | TransferError::Store(StoreError::Corrupt { .. }))) => Ok(
                Some(format!("'{sidecar}', which has more of it, can't be read: {error}")),
            ),
            Err(error) => Err(match self.store_error(error) {
                Trouble::Failed(reason) => {
                    Trouble::Failed(format!("'{sidecar}', which has more of it, can't be read: {reason}"))
                }
                other => other,
            }),
        }
    }

    /// `false`: the object is no file's copy.
    fn take_recorded_path(&self, known: &mut SourceObject) -> Result<bool, Trouble> {
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

    fn kind(&self, known: &SourceObject) -> Result<Kind, Trouble> {
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

    fn attributes(&self, known: &SourceObject, mode: u32) -> Attributes {
        let (told, defaults) = (&known.told, &self.shared.defaults);
        let written = Timestamp {
            seconds: known.entry.modified.unwrap_or(0),
            nanos: 0,
        };
        let mtime = told.mtime.unwrap_or(written);
        let mut bits = if self.shared.allow_setid { 0o7777 } else { 0o777 };
        if told.partial {
            bits &= !GROUP_BITS;
        }
        let private = match mode & libc::S_IFMT {
            _ if !told.private => !0,
            libc::S_IFDIR => 0o700,
            _ => 0o600,
        };
        Attributes {
            mode: told.mode.unwrap_or(mode & private) & bits,
            uid: told.uid.unwrap_or(defaults.uid),
            gid: told.gid.unwrap_or(defaults.gid),
            atime: told.atime.unwrap_or(mtime),
            mtime,
        }
    }

    fn make_directory(&self, known: &SourceObject) -> Made {
        let shared = self.shared;
        let path = &known.path;
        if shared.dry_run {
            self.count(|counts| counts.directories += 1);
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
        self.count(|counts| counts.directories += 1);
        Ok(())
    }

    fn location(&self, known: &SourceObject) -> Location {
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
            layout: known
                .told
                .layout
                .clone()
                .filter(|layout| layout.len() <= MOST_LAYOUT && is_portable_composite(layout)),
            sidecar: info.and_then(|info| sidecar_of(&info.metadata)),
            // Known once the file is made.
            written_for: None,
            writer: None,
            cookie: None,
            data_version: None,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A file's record of its copy, if it has one that can be read.
#[must_use]
pub fn location_at(path: &Path) -> Option<Location> {
    let record = Mount::map_at(path).ok()??;
    Location::from_bytes(&record).ok()
}

/// Nobody can plant a link where nobody knows the name.
fn spare_name() -> OsString {
    OsString::from_vec(format!(".lhsm-import-{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..)).into_bytes())
}
