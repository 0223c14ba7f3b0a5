//! What must outlive a file or the daemon, in an embedded database in the state directory.
//!
//! Four tables; keys are numbers, values JSON:
//!
//! | table | key | value |
//! |---|---|---|
//! | `copies` | FID (seq, oid, ver) | the file's location record, the same bytes as in `trusted.lhsm_s3` |
//! | `actions` | cookie and FID | an action that was taken in and is not answered |
//! | `uploads` | cookie and FID | where a running archive writes to: key, upload id, size, data version |
//! | `parts` | cookie, FID, index | a part of such an upload that the store confirmed |
//!
//! Changes are collected in memory and written by a thread of the journal's own, a few times a second: an action
//! that ends before that never reaches the disk. What a crash loses of the last moment costs an action that is
//! not resumed; never data, for "archived" is said by the file's own record and the coordinator alone.
//!
//! Where an archive writes to is said before it does, in plain files beside the database (`intents`): a daemon that is
//! killed between that and its next transaction leaves no object that its successor does not know of.
//!
//! A disk that is full, or fails, holds up nobody: changes wait in memory, the database is opened anew, and they are
//! written when that works. What waits is bounded by the actions that are alive, and for copies by `MOST_COPIES`.
//!
//! `state` is what is in memory and `tables` what is on disk; `writer` brings the one to the other. `uploads` is what is
//! told while an archive runs, `left` what a later daemon, or the sweeper, makes of it. `sink` is for whoever else is to
//! know of all this, and `handed` for what changes hands between movers.

mod handed;
mod intents;
mod left;
#[cfg(test)]
mod memory;
mod owed;
mod record;
mod sink;
mod state;
pub(crate) mod tables;
mod uploads;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

#[cfg(test)]
pub(crate) use memory::Held;
pub use owed::JournaledAction;
pub use record::UploadRecord;
pub use sink::{InHand, JournalSink};

use self::intents::Intents;
use self::state::{Change, JournalState, UploadEntry};
use crate::action::{ActionKey, Item};
use crate::database::{self, Database, ReadTransaction};
use crate::store::Location;
use crate::sync::{Condvar, Instant, Mutex, MutexGuard, RwLock};
use crate::thread::{Supervisor, Thread};
use crate::types::{ArchiveId, Fid};

/// For the last changes of one that is dropped unfinished.
const LAST_CHANGES: Duration = Duration::from_secs(30);

/// What one archive's actions wait for a successor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OwedActions {
    /// `None`: they name none.
    pub archive_id: Option<ArchiveId>,
    /// All of them.
    pub actions: u64,
    /// Of these, restores: somebody may wait for each.
    pub restores: u64,
}

/// The open database, or none where there is no place for one.
#[derive(Debug)]
pub struct Journal {
    shared: Arc<Shared>,
    path: PathBuf,
    writer: Mutex<JournalWriter>,
}

/// Who writes changes.
#[derive(Debug)]
enum JournalWriter {
    Thread(Thread),
    /// There could be no thread: it is written at the end.
    Nobody,
    /// It was written to its end.
    Finished,
}

/// Opens the database, or makes it.
type OpenDatabase = Box<dyn Fn() -> Result<Database, DiskError> + Send + Sync>;
type DiskError = Box<dyn std::error::Error>;

struct Shared {
    open: OpenDatabase,
    /// There was a place for it at the start: else nothing is kept.
    is_used: bool,
    /// `None` while it can't be opened.
    database: RwLock<Option<Database>>,
    /// `None`: they can't be made.
    intents: Option<Intents>,
    state: Mutex<JournalState>,
    changed: Condvar,
    /// The sweeper is done with an orphan.
    swept: Condvar,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, JournalState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut JournalState)) {
        if !self.is_used {
            return;
        }
        let mut state = self.lock();
        let idle = state.pending.is_empty();
        change(&mut state);
        drop(state);
        if idle {
            self.changed.notify_one();
        }
    }

    /// The writer ends when all is written.
    fn stop(&self) {
        self.lock().stopping = true;
        self.changed.notify_one();
    }

    fn with<T>(&self, work: impl FnOnce(&Database) -> T) -> Option<T> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        database.as_ref().map(work)
    }

    /// After an error of the disk a database takes nothing more. Who reads waits for this.
    fn reopen(&self) -> Result<(), DiskError> {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        // It has a lock on the file.
        *database = None;
        *database = Some((self.open)()?);
        Ok(())
    }
}

impl Journal {
    /// Opens the journal of the file system `name` mounted at `mount`. What can't be read is set aside,
    /// what can't be made is done without; both are said, and the daemon serves.
    #[must_use]
    pub fn open(supervisor: &Supervisor, state_dir: &Path, name: &str, mount: &Path) -> Self {
        let path = state_dir.join(tables::file_name(name, mount));
        let file = path.clone();
        Self::start(supervisor, path, Box::new(move || tables::open(&file)))
    }

    /// A journal of the database that `open` opens, at the start and after each error of the disk.
    pub(crate) fn start(supervisor: &Supervisor, path: PathBuf, open: OpenDatabase) -> Self {
        let database = match open() {
            Ok(database) => Some(database),
            Err(error) => {
                tracing::error!(
                    path = %path.display(), %error,
                    "no journal: after a crash actions are left to the coordinator's time-out, and the copies of files \
                     that are unlinked stay in the bucket; set `state_dir` in section [lustre]"
                );
                None
            }
        };
        let mut state = JournalState::default();
        let intents = database
            .as_ref()
            .and_then(|database| left::intents(&path, database, &mut state));
        let shared = Arc::new(Shared {
            open,
            is_used: database.is_some(),
            database: RwLock::new(database),
            intents,
            state: Mutex::new(state),
            changed: Condvar::new(),
            swept: Condvar::new(),
        });
        let (writing, stopping) = (Arc::clone(&shared), Arc::clone(&shared));
        let writer = supervisor
            .serve("journal", move || stopping.stop(), move || writer::run(&writing))
            .inspect_err(|error| tracing::error!(%error, "the journal has no thread: it is written at the end only"))
            .map_or(JournalWriter::Nobody, JournalWriter::Thread);
        Self {
            shared,
            path,
            writer: Mutex::new(writer),
        }
    }

    /// Its file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of its file; 0 without one.
    #[must_use]
    pub fn size(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |file| file.len())
    }

    /// Remembers a file's copy.
    pub fn remember(&self, fid: Fid, location: &Location) {
        self.shared
            .change(|state| state.set_copy(fid, Some(location.to_bytes())));
    }

    /// Forgets it.
    pub fn forget(&self, fid: Fid) {
        self.shared.change(|state| state.set_copy(fid, None));
    }

    /// A file's copy, if it is known here.
    #[must_use]
    pub fn find(&self, fid: Fid) -> Option<Location> {
        let recent = {
            let state = self.shared.lock();
            let writing = state.writing.as_ref().and_then(|batch| batch.copies.get(&fid));
            state.pending.copies.get(&fid).or(writing).cloned()
        };
        let found = match recent {
            Some(change) => change?,
            None => self.read("copies", |transaction| tables::copy(transaction, fid))??,
        };
        Location::from_bytes(&found)
            .inspect_err(|error| tracing::error!(%fid, %error, "the journal has a bad record"))
            .ok()
    }

    /// An action was taken in.
    pub fn admitted(&self, item: &Item) {
        self.shared.change(|state| {
            let change = Change::New(Box::new(item.clone()));
            state.lost.remove(&item.key());
            state.pending.actions.insert(item.key(), change);
            state.tell(|sink| sink.admitted(item));
            // Sent again under its cookie: what a former run left is its own again.
            if let Some(upload @ UploadEntry::Orphan(_)) = state.uploads.get_mut(&item.key()) {
                *upload = UploadEntry::Inherited;
                state.on_disk.insert(item.key());
            }
        });
    }

    /// It was sent twice; the first one's entry may be on disk.
    pub fn known(&self, key: ActionKey) {
        self.shared.change(|state| state.on_disk.extend([key]));
    }

    /// It was answered.
    pub fn ended(&self, key: ActionKey) {
        self.shared.change(|state| {
            state.tell(|sink| sink.ended(key));
            // What is pending as new, and nowhere else, never reaches the disk.
            let known = if state.uploads.get(&key) == Some(&UploadEntry::Running) {
                state.on_disk.contains(&key)
            } else {
                state.on_disk.remove(&key)
            };
            let on_disk = known || state.writing.is_some();
            match state.pending.actions.remove(&key) {
                Some(Change::New(_)) if !on_disk => {}
                _ => drop(state.pending.actions.insert(key, Change::Gone)),
            }
            match state.uploads.get_mut(&key) {
                None | Some(UploadEntry::Orphan(_) | UploadEntry::Swept(_) | UploadEntry::Running) => {}
                Some(upload @ UploadEntry::Inherited) => *upload = UploadEntry::Orphan(Instant::now()),
                Some(UploadEntry::Live) => state.drop_upload(key, on_disk),
            }
        });
    }

    /// Whether the disk does not take changes: a crash now would leave what is in hand to the coordinator's time-out.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.shared.lock().broken
    }

    /// Whether what is in hand can be left to a successor: it is on disk, or soon is.
    #[must_use]
    pub fn keeps(&self) -> bool {
        self.shared.is_used && !self.is_broken()
    }

    /// What is left to a successor, by archive. Ask after [`Journal::finish`]: it is what the disk has.
    #[must_use]
    pub fn owed(&self) -> Vec<OwedActions> {
        self.read("actions", tables::owed).unwrap_or_default()
    }

    /// Changes that are not on disk yet.
    #[must_use]
    pub fn unwritten(&self) -> usize {
        let state = self.shared.lock();
        let batches = state.writing.iter().map(AsRef::as_ref).chain([&state.pending]);
        batches
            .map(|batch| batch.copies.len() + batch.actions.len() + batch.uploads.len() + batch.parts.len())
            .sum()
    }

    /// Has all changes so far written. Whoever still has this journal then, a thread that hangs say, changes nothing on
    /// disk any more: what it has in hand is there as it was. Not all may be written when the deadline comes first.
    pub fn finish(&self, deadline: Instant) {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *writer, JournalWriter::Finished) {
            JournalWriter::Thread(mut thread) => {
                if !thread.join(deadline) {
                    tracing::error!(path = %self.path.display(), "the disk of the journal does not answer");
                }
            }
            JournalWriter::Nobody => {
                self.shared.stop();
                writer::run(&self.shared);
            }
            JournalWriter::Finished => {}
        }
    }

    fn read<T>(&self, what: &str, read: impl FnOnce(&ReadTransaction) -> Result<T, database::Error>) -> Option<T> {
        self.shared
            .with(|database| database.read(read))?
            .inspect_err(|error| tracing::error!(what, %error, "the journal can't be read"))
            .ok()
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.finish(Instant::now() + LAST_CHANGES);
    }
}

#[cfg(test)]
mod tests;
