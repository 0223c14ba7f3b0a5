//! One FID is looked at: what is it, what is in the bucket for it, what has to be done?

use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crc_fast::{CrcAlgorithm, checksum};

use super::book::{Book, BookError, Known};
use super::pending::Name;
use super::{Counts, Follow};
use crate::action::{FileSystem as _, HsmError};
use crate::lustre::Mount;
use crate::namespace::{NodeError, node_key, remove_node, write_node};
use crate::store::{KeyLayout, Location, ObjectKey, Owner, Store, StoreError};
use crate::transfer::{Lane, TransferError, delete, head};
use crate::types::{Extras, Fid};

/// What came of it.
pub(super) enum Handled {
    /// Nothing more is to be done. `known`: what is in the bucket now, if that changed.
    #[expect(clippy::option_option, reason = "a change of an entry, which may be its end")]
    Done {
        known: Option<Option<Known>>,
        counts: Counts,
    },
    /// A directory has another path: everything below it, too.
    Moved {
        known: Known,
        counts: Counts,
        path: PathBuf,
    },
    /// A file has to be archived.
    Archive { known: Known, path: PathBuf },
    /// Something is in the way for the moment.
    Again(String),
}

/// One FID's trouble, or everybody's.
#[derive(Debug, thiserror::Error)]
pub(super) enum LookError {
    /// Another one may be fine.
    #[error("{0}")]
    This(String),
    /// The book.
    #[error(transparent)]
    Book(#[from] BookError),
    /// The store is given up.
    #[error(transparent)]
    Store(TransferError),
}

impl From<HsmError> for LookError {
    fn from(error: HsmError) -> Self {
        Self::This(error.to_string())
    }
}

impl From<TransferError> for LookError {
    fn from(error: TransferError) -> Self {
        match error {
            TransferError::Store(
                StoreError::NotFound { .. }
                | StoreError::Precondition { .. }
                | StoreError::Refused { .. }
                | StoreError::Unsupported { .. },
            )
            | TransferError::TooLarge(_)
            | TransferError::Checksum { .. }
            | TransferError::Key(_) => Self::This(error.to_string()),
            other => Self::Store(other),
        }
    }
}

/// Looks on one thread.
pub(super) struct Looker<'a> {
    pub(super) follow: &'a Follow<'a>,
    pub(super) lane: &'a Lane,
    pub(super) book: &'a Book,
    /// What the book does not have may be in the bucket.
    pub(super) catching_up: bool,
}

/// A file as it is now.
pub(super) struct Seen {
    pub(super) fid: Fid,
    /// Below the mount point.
    pub(super) path: PathBuf,
    pub(super) stat: Metadata,
    pub(super) extras: Extras,
}

impl Seen {
    /// Of what an object's metadata tells.
    pub(super) fn print(&self) -> u64 {
        print_of(&self.stat, &self.extras)
    }
}

fn print_of(stat: &Metadata, extras: &Extras) -> u64 {
    let told = format!(
        "{:o} {} {} {} {} {:?} {:?}",
        stat.mode(),
        stat.uid(),
        stat.gid(),
        stat.mtime(),
        stat.mtime_nsec(),
        extras.xattrs,
        extras.links,
    );
    checksum(CrcAlgorithm::Crc64Nvme, told.as_bytes())
}

fn done(known: Option<Known>, counts: Counts) -> Handled {
    Handled::Done {
        known: Some(known),
        counts,
    }
}

fn nothing() -> Handled {
    Handled::Done {
        known: None,
        counts: Counts::default(),
    }
}

impl Looker<'_> {
    pub(super) fn look(&self, fid: Fid, names: &[Name]) -> Result<Handled, LookError> {
        let mount = self.follow.mount;
        let below = match mount.path_of(fid) {
            Ok(path) => path,
            Err(error) if error.is_not_found() => return self.gone(fid, names),
            Err(error) => return Err(error.into()),
        };
        // The root, and what Lustre has for itself (a restore's volatile file).
        if below.as_os_str().is_empty() || below.starts_with(".lustre") {
            return Ok(nothing());
        }
        let path = mount.path().join(&below);
        let stat = match path.symlink_metadata() {
            Ok(stat) => stat,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Handled::Again("it was moved while it was looked at".into()));
            }
            Err(error) => return Err(LookError::This(error.to_string())),
        };
        if stat.is_dir() || stat.is_symlink() {
            return self.node(fid, &below, &path, &stat);
        }
        if !stat.is_file() {
            return Ok(nothing());
        }
        self.file(fid, below, names)
    }

    fn node(&self, fid: Fid, below: &Path, path: &Path, stat: &Metadata) -> Result<Handled, LookError> {
        let follow = self.follow;
        let target = self.lane.store(follow.archive_id)?.target();
        let mut extras = Extras::default();
        if stat.is_dir() {
            let directory = File::open(path).map_err(|error| LookError::This(error.to_string()))?;
            extras.xattrs = Mount::xattrs_of(&directory)?;
        }
        let print = print_of(stat, &extras);
        let Ok(key) = node_key(&target.prefix, below, stat.is_dir()) else {
            return Ok(nothing());
        };
        let before = match self.book.get(fid)? {
            Some(Known::Node { key, print }) => Some((key, print)),
            _ => None,
        };
        if before.as_ref().is_some_and(|(was, of)| *was == key && *of == print) {
            return Ok(nothing());
        }
        let written = write_node(self.lane, follow.control, target, follow.mount.path(), path, stat);
        match written {
            Ok(_) => {}
            Err(NodeError::This(why)) => return Err(LookError::This(why)),
            Err(NodeError::All(error)) => return Err(error.into()),
        }
        let mut counts = Counts {
            nodes: 1,
            ..Counts::default()
        };
        let known = Known::Node {
            key: key.clone(),
            print,
        };
        match before {
            Some((was, _)) if was != key && follow.propagate.rename => {
                self.remove_node_of(&was)?;
                counts.moved = 1;
                let path = path.to_owned();
                Ok(if stat.is_dir() {
                    Handled::Moved { known, counts, path }
                } else {
                    done(Some(known), counts)
                })
            }
            _ => Ok(done(Some(known), counts)),
        }
    }

    /// Not where another directory or symlink has the key by now: its own look has written it.
    fn remove_node_of(&self, key: &ObjectKey) -> Result<(), LookError> {
        let follow = self.follow;
        let target = self.lane.store(follow.archive_id)?.target();
        let below = key.as_str().strip_prefix(&target.prefix).unwrap_or(key.as_str());
        let there = follow.mount.path().join(below.trim_end_matches('/')).symlink_metadata();
        if there.is_ok_and(|stat| stat.is_symlink() || (stat.is_dir() && key.as_str().ends_with('/'))) {
            return Ok(());
        }
        Ok(remove_node(self.lane, follow.control, follow.archive_id, key)?)
    }

    fn file(&self, fid: Fid, below: PathBuf, names: &[Name]) -> Result<Handled, LookError> {
        let (follow, mount) = (self.follow, self.follow.mount);
        let (file, by_fid) = mount.pinned(&mount.path().join(&below))?;
        if !by_fid.ends_with(fid.to_string()) {
            return Ok(Handled::Again("it was moved while it was looked at".into()));
        }
        let stat = file.metadata().map_err(|error| LookError::This(error.to_string()))?;
        let extras = mount.extras(fid, &file)?;
        drop(file);
        let states = mount.states_at(&by_fid)?;
        let seen = Seen {
            fid,
            path: below,
            stat,
            extras,
        };
        let known = self.book.get(fid)?;
        let (had, print) = match known.clone() {
            Some(Known::File { location, print }) => (location, Some(print)),
            _ => (None, None),
        };
        if !states.is_clean() {
            return Ok(Handled::Archive {
                known: Known::File {
                    location: had,
                    print: seen.print(),
                },
                path: mount.path().join(&seen.path),
            });
        }
        let Some(record) = mount.map(fid)? else {
            // Another copytool's.
            return Ok(nothing());
        };
        let location = Location::from_bytes(&record).map_err(|error| LookError::This(error.to_string()))?;
        let Ok(store) = self.lane.store(location.archive_id) else {
            return Ok(nothing());
        };
        if location.archive_id != follow.archive_id {
            return Ok(nothing());
        }
        let target = store.target();
        let natural = match target.layout {
            KeyLayout::Path if follow.propagate.rename && !location.pinned => {
                ObjectKey::from_path(&target.prefix, &seen.path).ok()
            }
            _ => None,
        };
        let copies = location.size <= Store::LARGEST_COPY;
        let to = natural.filter(|natural| *natural != location.key && copies);
        if !copies {
            tracing::debug!(key = %location.key, "an object over 5 GiB keeps its key and metadata until it is archived anew");
        }
        let told_otherwise = copies && follow.propagate.attributes && print.is_some_and(|print| print != seen.print());
        let mut counts = Counts::default();
        let location = match to {
            None if !told_otherwise => location,
            to => {
                let to_key = to.as_ref().unwrap_or(&location.key);
                match self.restate(&seen, &record, &location, to_key)? {
                    Ok(location) => {
                        counts.moved = u64::from(to.is_some());
                        counts.restated = u64::from(to.is_none());
                        location
                    }
                    Err(why) => return Ok(Handled::Again(why)),
                }
            }
        };
        // What a process that was killed has left under a former key.
        if let Some(had) = had.filter(|had| had.key != location.key && follow.propagate.rename) {
            self.delete_copy(fid, &had)?;
        }
        if follow.propagate.rename && self.catching_up {
            self.delete_under(fid, names, Some(&location))?;
        }
        let now = Known::File {
            location: Some(location),
            print: seen.print(),
        };
        Ok(if known.as_ref() == Some(&now) {
            nothing()
        } else {
            done(Some(now), counts)
        })
    }

    fn gone(&self, fid: Fid, names: &[Name]) -> Result<Handled, LookError> {
        let known = self.book.get(fid)?;
        if known.is_none() && !self.catching_up {
            return Ok(nothing());
        }
        let mut counts = Counts::default();
        if self.follow.propagate.delete {
            match &known {
                Some(Known::File {
                    location: Some(location),
                    ..
                }) => {
                    self.delete_copy(fid, location)?;
                    counts.deleted = 1;
                }
                Some(Known::Node { key, .. }) => {
                    self.remove_node_of(key)?;
                    counts.deleted = 1;
                }
                Some(Known::File { location: None, .. }) | None => {}
            }
            // It was archived, and gone before that was written down.
            if self.catching_up || matches!(known, Some(Known::File { location: None, .. })) {
                counts.deleted |= u64::from(self.delete_under(fid, names, None)?);
            }
        }
        Ok(done(None, counts))
    }

    /// What is left of a FID under names that it had; `but` is its copy.
    fn delete_under(&self, fid: Fid, names: &[Name], but: Option<&Location>) -> Result<bool, LookError> {
        let follow = self.follow;
        let prefix = &self.lane.store(follow.archive_id)?.target().prefix;
        let mut deleted = false;
        for (parent, name) in names {
            let Ok(directory) = follow.mount.path_of(*parent) else {
                continue;
            };
            let below = directory.join(name);
            let Ok(key) = ObjectKey::from_path(prefix, &below) else {
                continue;
            };
            for key in [Ok(key.clone()), key.beside(fid)].into_iter().flatten() {
                if but.is_some_and(|but| but.key == key) {
                    continue;
                }
                let found = match head(self.lane, follow.control, follow.archive_id, &key, None) {
                    Ok(found) => found,
                    Err(TransferError::Store(StoreError::NotFound { .. })) => continue,
                    Err(error) => return Err(error.into()),
                };
                let owner = Owner::of(&found.metadata);
                if owner.is_some_and(|owner| owner.fs == follow.mount.name() && owner.fid == fid) {
                    self.delete_copy(fid, &found.at(follow.archive_id, &key))?;
                    deleted = true;
                }
            }
            if but.is_none() {
                for key in [false, true]
                    .into_iter()
                    .flat_map(|is_dir| node_key(prefix, &below, is_dir))
                {
                    self.remove_node_of(&key)?;
                }
            }
        }
        Ok(deleted)
    }

    /// Only the object that is this file's.
    pub(super) fn delete_copy(&self, fid: Fid, location: &Location) -> Result<(), LookError> {
        let follow = self.follow;
        if self.lane.store(location.archive_id).is_err() {
            return Ok(());
        }
        let is_ours = |found: &crate::store::ObjectInfo| {
            // An imported one says nothing of a file.
            Owner::of(&found.metadata).map_or(location.pinned, |owner| {
                owner.fs == follow.mount.name() && owner.fid == fid
            })
        };
        match delete(self.lane, follow.control, location, is_ours) {
            Ok(()) | Err(TransferError::Store(StoreError::Precondition { .. })) => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(sidecar) = &location.sidecar {
            let swept = crate::transfer::sweep_key(self.lane, location.archive_id, sidecar, None, |_| true);
            if let Err(error) = swept {
                tracing::warn!(%sidecar, %error, "metadata of no object could not be deleted: an orphan");
            }
        }
        Ok(())
    }
}
