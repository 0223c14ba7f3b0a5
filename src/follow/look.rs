//! One FID is looked at: what is it, what is in the bucket for it, what has to be done?

use std::collections::HashSet;
use std::fs::{File, Metadata};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crc_fast::{CrcAlgorithm, checksum};

use super::copy_index::{CopyIndex, CopyIndexError, IndexEntry};
use super::pending::Name;
use super::restate::CopyChange;
use super::{FollowCounts, FollowOptions};
use crate::action::{FileSystem as _, HsmError};
use crate::lustre::HsmStates;
use crate::mapped;
use crate::mislaid::{self, ArchivedData, Likeness, SaidCopy, Seen};
use crate::nodes::{NodeError, node_key_at, write_node};
use crate::store::{KeyLayout, Location, ObjectKey, Store, StoreError};
use crate::transfer::{Lane, Transfer, TransferError};
use crate::types::{ErrorClass, ExtraMetadata, Fid};
use crate::walk::Node;

/// What came of it.
pub(super) enum LookOutcome {
    /// Nothing more is to be done. `known`: what is in the bucket now, if that changed.
    #[expect(clippy::option_option, reason = "a change of an entry, which may be its end")]
    Done {
        known: Option<Option<IndexEntry>>,
        counts: FollowCounts,
    },
    /// A directory has another path: everything below it, too.
    Moved {
        known: IndexEntry,
        counts: FollowCounts,
        path: PathBuf,
    },
    /// A file has to be archived.
    Archive { known: IndexEntry, path: PathBuf },
    /// It is gone; its object's end waits until everything that happened before is known.
    Gone,
    /// Something is in the way that should not be there for long.
    Again(String),
    /// Something goes on that ends by itself, however long it takes. `known`: what to remember until then.
    Later { known: Option<IndexEntry>, why: String },
}

/// One FID's trouble, or everybody's.
#[derive(Debug, thiserror::Error)]
pub(super) enum LookError {
    /// Another one may be fine.
    #[error("{0}")]
    This(String),
    /// The book.
    #[error(transparent)]
    Book(#[from] CopyIndexError),
    /// The file system or this process is on its way out, or back.
    #[error("{0}")]
    Passing(String),
    /// The store is given up.
    #[error(transparent)]
    Store(TransferError),
}

impl From<HsmError> for LookError {
    fn from(error: HsmError) -> Self {
        if error.class().is_passing() {
            Self::Passing(error.to_string())
        } else {
            Self::This(error.to_string())
        }
    }
}

impl From<std::io::Error> for LookError {
    fn from(error: std::io::Error) -> Self {
        if ErrorClass::of_io(&error).is_passing() {
            Self::Passing(error.to_string())
        } else {
            Self::This(error.to_string())
        }
    }
}

impl From<TransferError> for LookError {
    fn from(error: TransferError) -> Self {
        match error {
            TransferError::Stopped(_) => Self::Passing(error.to_string()),
            // An object of an archive class, or one that is locked, is this file's alone.
            error if error.is_of_one_object() => Self::This(error.to_string()),
            other => Self::Store(other),
        }
    }
}

/// Looks on one thread.
pub(super) struct FileLooker<'a> {
    pub(super) follow: &'a FollowOptions<'a>,
    pub(super) lane: &'a Lane,
    pub(super) copy_index: &'a CopyIndex,
    /// Archives of these were asked for, and their ends were not seen.
    pub(super) asked: &'a HashSet<Fid>,
    /// What the book does not have may be in the bucket.
    pub(super) catching_up: bool,
}

/// A file as it is now.
pub(super) struct FileNow {
    pub(super) fid: Fid,
    /// Below the mount point.
    pub(super) path: PathBuf,
    pub(super) stat: Metadata,
    pub(super) extras: ExtraMetadata,
}

impl FileNow {
    /// Of what an object's metadata tells.
    pub(super) fn print(&self) -> u64 {
        print_of(&self.stat, &self.extras)
    }
}

fn print_of(stat: &Metadata, extras: &ExtraMetadata) -> u64 {
    let told = format!(
        "{:o} {} {} {} {} {:?} {:?} {:?}",
        stat.mode(),
        stat.uid(),
        stat.gid(),
        stat.mtime(),
        stat.mtime_nsec(),
        extras.xattrs,
        extras.links,
        extras.path,
    );
    checksum(CrcAlgorithm::Crc64Nvme, told.as_bytes())
}

pub(super) fn done(known: Option<IndexEntry>, counts: FollowCounts) -> LookOutcome {
    LookOutcome::Done {
        known: Some(known),
        counts,
    }
}

fn nothing() -> LookOutcome {
    LookOutcome::Done {
        known: None,
        counts: FollowCounts::default(),
    }
}

/// A record, if it is one.
pub(super) fn read(record: Option<Vec<u8>>) -> Option<Location> {
    Location::from_bytes(&record?).ok()
}

impl FileLooker<'_> {
    /// What a transfer runs with.
    pub(super) fn transfer(&self) -> Transfer<'_> {
        Transfer::new(self.lane, self.follow.control)
    }

    pub(super) fn look(&self, fid: Fid, names: &[Name]) -> Result<LookOutcome, LookError> {
        let mount = self.follow.mount;
        let below = match mount.path_of(fid) {
            Ok(path) => path,
            Err(error) if error.is_not_found() => return self.gone(fid),
            Err(error) => return Err(error.into()),
        };
        self.look_below(fid, below, names)
    }

    /// One that a walk has just found, so that its path need not be asked for.
    pub(super) fn found(&self, fid: Fid, node: &Node, names: &[Name]) -> Result<LookOutcome, LookError> {
        let path = node.path();
        // Of several names Lustre tells the one that counts; and a path may be longer than a call takes.
        let is_its_path = path
            .symlink_metadata()
            .is_ok_and(|stat| stat.is_dir() || stat.nlink() == 1);
        match path.strip_prefix(self.follow.mount.path()) {
            Ok(below) if is_its_path => self.look_below(fid, below.to_owned(), names),
            _ => self.look(fid, names),
        }
    }

    /// Its archive has just ended, and what happened to it since it was looked at has a record of its own.
    /// `path`: where it was then.
    pub(super) fn archived(&self, fid: Fid, path: &Path, names: &[Name]) -> Result<LookOutcome, LookError> {
        let follow = self.follow;
        let target = self.lane.store(follow.archive_id)?.target();
        let below = path.strip_prefix(follow.mount.path()).unwrap_or(path);
        let natural = ObjectKey::of_file(&target.prefix, below, fid).ok();
        // Where another one's copy has its key, it went beside that, and may go there now.
        let may_move = |now: &Location| {
            follow.propagate.rename && target.layout == KeyLayout::Path && natural.as_ref() != Some(&now.key)
        };
        let is_plain = names.is_empty() || !self.catching_up;
        if is_plain
            && let Some(IndexEntry::File { location: had, print }) = self.copy_index.get(fid)?
            && let Some(now) = self.copy_of(fid)?
            && now.archive_id == follow.archive_id
            && !may_move(&now)
            && had.is_none_or(|had| had.key == now.key)
        {
            let known = IndexEntry::File {
                location: Some(now),
                print,
            };
            return Ok(done(Some(known), FollowCounts::default()));
        }
        self.look(fid, names)
    }

    /// What is not begun is not done any more.
    pub(super) fn unless_stopped(
        &self,
        work: impl FnOnce() -> Result<LookOutcome, LookError>,
    ) -> Result<LookOutcome, LookError> {
        if self.follow.stopped() {
            return Err(LookError::Passing("stopped".into()));
        }
        work()
    }

    fn look_below(&self, fid: Fid, below: PathBuf, names: &[Name]) -> Result<LookOutcome, LookError> {
        let mount = self.follow.mount;
        // The root, and what Lustre has for itself (a restore's volatile file).
        if below.as_os_str().is_empty() || below.starts_with(".lustre") {
            return Ok(nothing());
        }
        let path = mount.path().join(&below);
        let stat = match path.symlink_metadata() {
            Ok(stat) => stat,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(LookOutcome::Again("it was moved while it was looked at".into()));
            }
            Err(error) => return Err(error.into()),
        };
        if stat.is_dir() || stat.is_symlink() {
            return self.node(fid, &below, &path, &stat);
        }
        if !stat.is_file() {
            return Ok(nothing());
        }
        self.file(fid, below, names)
    }

    fn node(&self, fid: Fid, below: &Path, path: &Path, stat: &Metadata) -> Result<LookOutcome, LookError> {
        let follow = self.follow;
        let target = self.lane.store(follow.archive_id)?.target();
        let mut extras = ExtraMetadata::default();
        if stat.is_dir() {
            let directory = File::open(path)?;
            extras.xattrs = follow.mount.xattrs_of(&directory)?;
        }
        let (key, tells_path) = match node_key_at(&target.prefix, follow.mount, below, stat.is_dir()) {
            Ok(key) => key,
            Err(NodeError::This(why)) => return Err(LookError::This(why)),
            Err(NodeError::All(error)) => return Err(error.into()),
        };
        extras.path = (!tells_path).then(|| below.as_os_str().as_bytes().to_vec());
        let print = print_of(stat, &extras);
        let before = match self.copy_index.get(fid)? {
            Some(IndexEntry::Node { key, print }) => Some((key, print)),
            _ => None,
        };
        if before.as_ref().is_some_and(|(was, of)| *was == key && *of == print) {
            return Ok(nothing());
        }
        let written = write_node(self.transfer(), target, follow.mount, path, stat);
        match written {
            Ok(_) => {}
            Err(NodeError::This(why)) => return Err(LookError::This(why)),
            Err(NodeError::All(error)) => return Err(error.into()),
        }
        let mut counts = FollowCounts {
            nodes: 1,
            ..FollowCounts::default()
        };
        let known = IndexEntry::Node {
            key: key.clone(),
            print,
        };
        match before {
            Some((was, _)) if was != key && follow.propagate.rename => {
                self.remove_node_of(&was)?;
                counts.moved = 1;
                let path = path.to_owned();
                Ok(if stat.is_dir() {
                    LookOutcome::Moved { known, counts, path }
                } else {
                    done(Some(known), counts)
                })
            }
            _ => Ok(done(Some(known), counts)),
        }
    }

    fn file(&self, fid: Fid, below: PathBuf, names: &[Name]) -> Result<LookOutcome, LookError> {
        let (follow, mount) = (self.follow, self.follow.mount);
        // Most often that is all: an archive of a large file takes its time.
        if self.asked.contains(&fid) && !mount.states_of(fid)?.is_clean() && mount.has_action(fid).unwrap_or(true) {
            return Ok(LookOutcome::Later {
                known: None,
                why: "it is being archived".into(),
            });
        }
        let (file, by_fid) = mount.pinned(&mount.path().join(&below))?;
        if !by_fid.ends_with(fid.to_string()) {
            return Ok(LookOutcome::Again("it was moved while it was looked at".into()));
        }
        let stat = file.metadata()?;
        let mut extras = mount.extras(fid, &file)?;
        drop(file);
        // Where the key does not tell it.
        let target = self.lane.store(follow.archive_id)?.target();
        let told_by_key = target.layout == KeyLayout::Path && ObjectKey::of_file(&target.prefix, &below, fid).is_ok();
        extras.path = (!told_by_key).then(|| below.as_os_str().as_bytes().to_vec());
        let states = mount.states_at(&by_fid)?;
        let seen = FileNow {
            fid,
            path: below,
            stat,
            extras,
        };
        let known = self.copy_index.get(fid)?;
        let (had, print) = match known.clone() {
            Some(IndexEntry::File { location, print }) => (location, Some(print)),
            _ => (None, None),
        };
        if !states.is_clean() {
            let anothers = states.exists() && states.archive_id().is_some() && !states.is_in(follow.archive_id);
            if states.never_archived() || anothers {
                return Ok(nothing());
            }
            return Ok(LookOutcome::Archive {
                known: IndexEntry::File {
                    location: had,
                    print: seen.print(),
                },
                path: mount.path().join(&seen.path),
            });
        }
        let record = mount.map(fid)?;
        let location = match &record {
            Some(record) => Location::from_bytes(record).map_err(|error| LookError::This(error.to_string()))?,
            None => match self.told(fid, states)? {
                Some(location) => location,
                // Another copytool's.
                None => return Ok(nothing()),
            },
        };
        if location.archive_id != follow.archive_id {
            return Ok(nothing());
        }
        // A record that came late names an older attempt's object: what is told of the file would go there, and over its copy. A
        // restore or a scrub puts it right first.
        if location.is_in_doubt(mount.archived_version(fid)) && !self.is_likely(fid, &seen.path, &location)? {
            return Ok(nothing());
        }
        let natural = match target.layout {
            KeyLayout::Path if follow.propagate.rename && !location.pinned => {
                ObjectKey::of_file(&target.prefix, &seen.path, fid).ok()
            }
            _ => None,
        };
        let copies = location.size <= Store::LARGEST_COPY;
        let to = natural.filter(|natural| *natural != location.key && copies);
        if !copies {
            tracing::debug!(key = %location.key, "an object over 5 GiB keeps its key and metadata until it is archived anew");
        }
        let told_otherwise = copies && follow.propagate.attributes && print.is_some_and(|print| print != seen.print());
        let mut counts = FollowCounts::default();
        let mut kept_print = None;
        let mut former = had.filter(|had| had.key != location.key);
        let location = match to {
            None if !told_otherwise => location,
            to => {
                let to_key = to.as_ref().unwrap_or(&location.key);
                match self.restate(&seen, record.as_deref(), &location, to_key)? {
                    CopyChange::At(now) => {
                        counts.moved = u64::from(to.is_some());
                        counts.restated = u64::from(to.is_none());
                        former = former.or_else(|| to.is_some().then_some(location));
                        now
                    }
                    CopyChange::Again(why) => return Ok(LookOutcome::Again(why)),
                    CopyChange::Later(why) => return Ok(LookOutcome::Later { known: None, why }),
                    CopyChange::Never(why) => {
                        tracing::debug!(file = %seen.path.display(), why, "its object stays as it is");
                        kept_print = print;
                        location
                    }
                }
            }
        };
        if let Some(former) = former.filter(|_| follow.propagate.rename)
            && !self.delete_former(fid, &former)?
        {
            // A restore may be reading it. It is remembered until it is deleted.
            return Ok(LookOutcome::Later {
                known: Some(IndexEntry::File {
                    location: Some(former),
                    print: seen.print(),
                }),
                why: "an action goes on with it".into(),
            });
        }
        if follow.propagate.rename && self.catching_up {
            self.delete_under(fid, names, Some(&location))?;
        }
        let now = IndexEntry::File {
            location: Some(location),
            print: kept_print.unwrap_or_else(|| seen.print()),
        };
        Ok(if known.as_ref() == Some(&now) {
            nothing()
        } else {
            done(Some(now), counts)
        })
    }

    /// Whether the object that a record names, which is of another data version than was archived, is the copy all the same:
    /// the file was restored since, and no other one proves better. What can't be told is left to whoever asks for more.
    fn is_likely(&self, fid: Fid, below: &Path, location: &Location) -> Result<bool, LookError> {
        let Ok(archived) = ArchivedData::of(self.follow.mount, fid) else {
            return Ok(true);
        };
        let found = match self.transfer().head(location.at(), location.version.as_deref()) {
            Ok(found) if mislaid::is_said(location, &found) || location.has_bytes_of(&found) => found,
            Ok(_) | Err(TransferError::Store(StoreError::NotFound { .. })) => return Ok(false),
            Err(_) => return Ok(true),
        };
        if archived.likeness(location.at(), &found) < Some(Likeness::Time) {
            return Ok(false);
        }
        let target = self.lane.store(location.archive_id)?.target();
        let natural = mislaid::natural(target, fid, || Some(below.to_owned()));
        let said = SaidCopy {
            location,
            seen: Seen::There(&found),
        };
        let better = mislaid::find(self.transfer(), &archived, Some(said), natural, Likeness::Version)?;
        Ok(better.is_none())
    }

    /// The copy of a clean file that has no record.
    fn told(&self, fid: Fid, states: HsmStates) -> Result<Option<Location>, LookError> {
        let follow = self.follow;
        if !states.is_in(follow.archive_id) {
            return Ok(None);
        }
        Ok(mapped::by_key(self.transfer(), follow.archive_id, &self.owner(fid))?.location)
    }

    fn gone(&self, fid: Fid) -> Result<LookOutcome, LookError> {
        Ok(match self.copy_index.get(fid)? {
            None if !self.catching_up => nothing(),
            _ => LookOutcome::Gone,
        })
    }
}
