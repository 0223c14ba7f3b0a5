//! A bucket that follows its file system: the changelogs tell what was changed, and what was quiet for a while is
//! archived, and moved or removed in the bucket where that is asked for.
//!
//! The records only say where to look. What is done follows from how the file is when it is looked at, so a record
//! that comes twice, or late, does no harm. `changelogs` reads them, each MDT's as a `feed` with troubles of its own,
//! `pending` holds FIDs until they are quiet, `state` has it dealt with by `look`, `copy_index` is what must survive, `scan` goes through everything when records were lost.

mod changelogs;
mod copy_index;
mod feed;
mod look;
mod pending;
mod remove;
mod restate;
mod scan;
mod state;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use self::copy_index::CopyIndex;
pub use self::copy_index::CopyIndexError;
pub use self::feed::is_reader;
use self::state::FollowState;
use crate::action::{FileSystem as _, HsmError};
use crate::fleet::Fleet;
use crate::jobs::{self, LedgerError};
use crate::lustre::Mount;
use crate::transfer::{Control, Lane, Transfer, TransferError};
use crate::types::ArchiveId;

/// What the bucket follows beside data.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Propagate {
    /// Objects of files that are gone are deleted.
    pub delete: bool,
    /// Objects of renamed files get the new key.
    pub rename: bool,
    /// Objects of files whose owner, permissions, times or attributes changed get new metadata.
    pub attributes: bool,
}

/// Readers of changelogs, by MDT.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Users {
    /// Of MDTs that have none of their own here.
    pub all: Option<String>,
    /// By an MDT's name.
    pub each: HashMap<String, String>,
}

impl Users {
    fn of(&self, mdt: &str) -> Option<&str> {
        self.each.get(mdt).or(self.all.as_ref()).map(String::as_str)
    }
}

/// How to follow.
#[derive(Debug)]
pub struct FollowOptions<'a> {
    /// The file system.
    pub mount: &'a Mount,
    /// Readers' names that `lctl changelog_register` gave.
    pub users: &'a Users,
    /// A shell command that registers a reader for the MDT that `$MDT` names and prints its name; `None`: `lctl`, which
    /// can where the MDT is mounted.
    pub register: Option<&'a str>,
    /// A reader without news acknowledges what it has read at least so often.
    pub acknowledge: Duration,
    /// Whose bucket.
    pub archive_id: ArchiveId,
    /// Ways to the store, one for each thread.
    pub lanes: &'a [Lane],
    /// Where the book is.
    pub state_dir: &'a Path,
    /// Nothing happened to a file for so long before it is dealt with.
    pub quiet: Duration,
    /// What is followed beside data.
    pub propagate: Propagate,
    /// At most so many files are asked for and not archived.
    pub window: usize,
    /// Ends when everything that had happened was dealt with.
    pub once: bool,
    /// Movers that know why something failed.
    pub fleet: &'a Fleet,
    /// Whether to stop.
    pub control: &'a Arc<Control>,
}

/// What was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct FollowCounts {
    /// Records read.
    pub records: u64,
    /// Files archived.
    pub archived: u64,
    /// Directories and symlinks written.
    pub nodes: u64,
    /// Objects that got another key.
    pub moved: u64,
    /// Objects that got other metadata.
    pub restated: u64,
    /// Objects deleted.
    pub deleted: u64,
    /// Given up after several tries.
    pub failed: u64,
    /// Times that everything was looked through.
    pub scans: u64,
    /// Not dealt with yet.
    pub pending: u64,
    /// MDTs whose changelogs can't be read, or have no reader any more.
    pub unread: u64,
}

/// Why following ended.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The book.
    #[error(transparent)]
    Book(#[from] CopyIndexError),
    /// A changelog.
    #[error(
        "changelog of {mdt}: {source}. It is read as root, and its reader is registered on the MDS: \
         lctl --device {mdt} changelog_register (--changelog-user is the name that it prints)"
    )]
    Changelog {
        /// Which.
        mdt: String,
        /// Why.
        source: HsmError,
    },
    /// The MDTs.
    #[error("can't tell the MDTs: {0}")]
    Mdts(HsmError),
    /// The store is given up.
    #[error("{0}. Start it again when that is mended: it goes on where it ended")]
    Store(#[from] TransferError),
    /// A changelog without a reader.
    #[error(
        "no reader is named for {0}: register one on its MDS (lctl --device {0} changelog_register) and add \
         {0}=NAME to --changelog-user"
    )]
    NoUser(String),
    /// No changelog has a reader any more.
    #[error(
        "{mdt} does not know the reader '{reader}' of its changelog, and none could be registered from here: register one \
         on its MDS (lctl --device {mdt} changelog_register) and name it with --changelog-user, or give \
         --register-reader a command that does so"
    )]
    NoReader {
        /// The first of them.
        mdt: String,
        /// Its reader.
        reader: String,
    },
    /// Archives could not be asked for.
    #[error(transparent)]
    Job(#[from] jobs::JobError),
    /// Their list.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A directory of the file system, or a local file.
    #[error("'{}': {source}", path.display())]
    Local {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl FollowOptions<'_> {
    /// Follows until it is stopped, or once. `tick` is called now and then.
    ///
    /// # Errors
    /// What ended it; single files' trouble is logged and counted.
    pub fn run(&self, tick: &mut dyn FnMut(&FollowCounts)) -> Result<FollowCounts, FollowError> {
        let copy_index = CopyIndex::open(self.state_dir, self.mount.name())?;
        let mut propagate = self.propagate;
        if propagate.rename || propagate.attributes {
            let lane = self
                .lanes
                .first()
                .ok_or(TransferError::NoTarget(self.archive_id.get()))?;
            if !Transfer::new(lane, self.control).copies_heed_conditions(self.archive_id)? {
                tracing::warn!(
                    "the store does not heed conditions of CopyObject: a copy could put old data over new; renames and \
                     attributes are not followed"
                );
                (propagate.rename, propagate.attributes) = (false, false);
            }
        }
        let follow = FollowOptions { propagate, ..*self };
        let mut state = FollowState::new(&follow, copy_index);
        state.run(tick)?;
        Ok(state.counts)
    }

    fn stopped(&self) -> bool {
        self.control.stopped().is_some()
    }
}
