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

mod intents;
mod owed;
mod record;
mod writer;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

pub use owed::Recorded;
pub use record::UploadRecord;

use self::intents::Intents;
use crate::action::{ActionKey, Item};
use crate::database::{self, Database, DatabaseError, ReadTransaction, ReadableTable as _, TableDefinition};
use crate::store::{Location, SentPart};
use crate::thread::{Supervisor, Thread};
use crate::types::{Cookie, Fid};

type FidKey = (u64, u32, u32);
type ActionId = (u64, u64, u32, u32);
type PartId = (u64, u64, u32, u32, u32);

const COPIES: TableDefinition<'_, FidKey, &[u8]> = TableDefinition::new("copies");
const ACTIONS: TableDefinition<'_, ActionId, &[u8]> = TableDefinition::new("actions");
const UPLOADS: TableDefinition<'_, ActionId, &[u8]> = TableDefinition::new("uploads");
const PARTS: TableDefinition<'_, PartId, &[u8]> = TableDefinition::new("parts");
/// Of copies that are not written yet, some hundred bytes each. When the disk takes none for so long, the copies of files
/// that are unlinked later are left to `scrub --delete-orphans`.
const MOST_COPIES: usize = 200_000;
/// What it takes to take away what an archive left: an upload, and up to three objects.
const LONGEST_SWEEP: Duration = Duration::from_secs(40);
/// For the last changes of one that is dropped unfinished.
const LAST_CHANGES: Duration = Duration::from_secs(30);

/// The open database, or none where there is no place for one.
#[derive(Debug)]
pub struct Journal {
    shared: Arc<Shared>,
    path: PathBuf,
    writer: Mutex<Writer>,
}

/// Who writes changes.
#[derive(Debug)]
enum Writer {
    Thread(Thread),
    /// There could be no thread: it is written at the end.
    Nobody,
    /// It was written to its end.
    Finished,
}

/// Opens the database, or makes it.
type Open = Box<dyn Fn() -> Result<Database, Failure> + Send + Sync>;
type Failure = Box<dyn std::error::Error>;

struct Shared {
    open: Open,
    /// There was a place for it at the start: else nothing is kept.
    is_used: bool,
    /// `None` while it can't be opened.
    database: RwLock<Option<Database>>,
    /// `None`: they can't be made.
    intents: Option<Intents>,
    state: Mutex<State>,
    changed: Condvar,
    /// The sweeper is done with an orphan.
    swept: Condvar,
}

#[derive(Debug, Default)]
struct State {
    pending: Batch,
    /// Being written now: not yet found in the database.
    writing: Option<Arc<Batch>>,
    /// Actions that may have an entry in `uploads`, on disk or pending; few.
    uploads: HashMap<ActionKey, Upload>,
    /// The file of the orphan that the sweeper is at.
    swept: Option<Fid>,
    /// Actions that may be on disk though they are pending as new.
    on_disk: HashSet<ActionKey>,
    /// The last try to write failed.
    broken: bool,
    /// Copies that found no room in memory meanwhile.
    unknown: u64,
    stopping: bool,
}

/// What an entry of `uploads` is to the daemon that runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Upload {
    /// Of an action that a former daemon took in; there may be none. It goes with its action's end.
    Live,
    /// A former daemon made it, and nobody has looked at it yet.
    Inherited,
    /// Its action is over since then, and something may be left of it.
    Orphan(Instant),
    /// The same; the sweeper is at it.
    Swept(Instant),
    /// An archive writes it. It outlives its action until it is known what became of it.
    Running,
}

/// Changes that go to disk together.
#[derive(Debug, Default)]
struct Batch {
    /// `None`: forgotten.
    copies: HashMap<Fid, Option<Vec<u8>>>,
    actions: HashMap<ActionKey, Change>,
    uploads: HashMap<ActionKey, Option<UploadRecord>>,
    parts: HashMap<(ActionKey, u32), SentPart>,
}

#[derive(Debug)]
enum Change {
    /// Not in the database yet.
    New(Box<Item>),
    Gone,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.copies.is_empty() && self.actions.is_empty() && self.uploads.is_empty() && self.parts.is_empty()
    }

    /// Actions of which something is to be there.
    fn living(&self) -> impl Iterator<Item = ActionKey> + '_ {
        let actions = self.actions.iter();
        let actions = actions.filter_map(|(key, change)| matches!(change, Change::New(_)).then_some(*key));
        let uploads = self.uploads.iter();
        actions.chain(uploads.filter_map(|(key, upload)| upload.is_some().then_some(*key)))
    }

    /// Puts what came later over what could not be written.
    fn overlay(&mut self, newer: Self) {
        // An upload that ended since then, or was begun anew, leaves none of its parts behind: nobody would ever remove
        // them, and they are no parts of another one.
        self.parts.retain(|(of, _), _| !newer.uploads.contains_key(of));
        self.copies.extend(newer.copies);
        self.actions.extend(newer.actions);
        self.uploads.extend(newer.uploads);
        self.parts.extend(newer.parts);
    }
}

impl State {
    /// An entry of `uploads` goes; `on_disk`: it may be there already.
    fn drop_upload(&mut self, key: ActionKey, on_disk: bool) {
        self.uploads.remove(&key);
        self.pending.parts.retain(|(of, _), _| *of != key);
        match self.pending.uploads.remove(&key) {
            Some(Some(_)) if !on_disk => {}
            _ => drop(self.pending.uploads.insert(key, None)),
        }
    }

    fn set_copy(&mut self, fid: Fid, change: Option<Vec<u8>>) {
        let copies = &mut self.pending.copies;
        if copies.len() < MOST_COPIES || copies.contains_key(&fid) {
            copies.insert(fid, change);
        } else {
            self.unknown += 1;
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
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
    fn reopen(&self) -> Result<(), Failure> {
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
        let path = state_dir.join(file_name(name, mount));
        let file = path.clone();
        Self::start(supervisor, path, Box::new(move || open(&file)))
    }

    fn start(supervisor: &Supervisor, path: PathBuf, open: Open) -> Self {
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
        let mut state = State::default();
        let opened = database.as_ref().map(|database| (database, Intents::open(&path)));
        let intents = match opened {
            Some((database, Ok((intents, left)))) => {
                for (key, upload) in left {
                    if is_news(database, key, &upload) {
                        // An older one of the action may be.
                        state.on_disk.insert(key);
                        state.pending.uploads.insert(key, Some(upload));
                    }
                }
                Some(intents)
            }
            Some((_, Err(error))) => {
                tracing::warn!(
                    path = %path.display(), %error,
                    "what is about to be written can't be written down beside the journal: after a crash an object may be \
                     left over that is no file's copy"
                );
                None
            }
            None => None,
        };
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
            .map_or(Writer::Nobody, Writer::Thread);
        Self {
            shared,
            path,
            writer: Mutex::new(writer),
        }
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
            None => self.read("copies", |transaction| {
                let table = transaction.open_table(COPIES)?;
                Ok(table.get(fid_key(fid))?.map(|bytes| bytes.value().to_vec()))
            })??,
        };
        Location::from_bytes(&found)
            .inspect_err(|error| tracing::error!(%fid, %error, "the journal has a bad record"))
            .ok()
    }

    /// An action was taken in.
    pub fn admitted(&self, item: &Item) {
        self.shared.change(|state| {
            let change = Change::New(Box::new(item.clone()));
            state.pending.actions.insert(item.key(), change);
            // Sent again under its cookie: what a former run left is its own again.
            if let Some(upload @ Upload::Orphan(_)) = state.uploads.get_mut(&item.key()) {
                *upload = Upload::Inherited;
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
            // What is pending as new, and nowhere else, never reaches the disk.
            let known = if state.uploads.get(&key) == Some(&Upload::Running) {
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
                None | Some(Upload::Orphan(_) | Upload::Swept(_) | Upload::Running) => {}
                Some(upload @ Upload::Inherited) => *upload = Upload::Orphan(Instant::now()),
                Some(Upload::Live) => state.drop_upload(key, on_disk),
            }
        });
    }

    /// Where a running archive writes to: said before it does, and a daemon that is killed has said it.
    /// [`Journal::settled`] ends it, not the action's end.
    pub fn uploading(&self, key: ActionKey, upload: &UploadRecord) {
        let mut is_said = false;
        self.shared.change(|state| {
            let pending = state.pending.uploads.get(&key).and_then(Option::as_ref);
            is_said = pending == Some(upload) && state.uploads.get(&key) == Some(&Upload::Running);
            if is_said {
                return;
            }
            if state.uploads.insert(key, Upload::Running).is_some() {
                // The former record may be written already.
                state.on_disk.insert(key);
            }
            state.pending.uploads.insert(key, Some(upload.clone()));
        });
        if let Some(intents) = self.shared.intents.as_ref().filter(|_| !is_said) {
            intents.begin(key, upload);
        }
    }

    /// An archive was answered, and it is known what became of what it wrote. `nothing_left`: it is the file's copy, or was
    /// taken away; else it is looked for once more.
    pub fn settled(&self, key: ActionKey, nothing_left: bool) {
        let mut is_over = false;
        self.shared.change(|state| {
            let is_room = state.uploads.len() < MOST_COPIES;
            let Some(upload @ Upload::Running) = state.uploads.get_mut(&key) else {
                return;
            };
            if !nothing_left && is_room {
                *upload = Upload::Orphan(Instant::now());
                return;
            }
            is_over = true;
            let on_disk = state.on_disk.remove(&key) || state.writing.is_some();
            state.drop_upload(key, on_disk);
        });
        if let Some(intents) = self.shared.intents.as_ref().filter(|_| is_over) {
            intents.end(key);
        }
    }

    /// The store confirmed a part of it.
    pub fn sent(&self, key: ActionKey, index: u32, part: &SentPart) {
        self.shared
            .change(|state| drop(state.pending.parts.insert((key, index), part.clone())));
    }

    /// Whether an archive may go on with what [`Journal::upload_of`] knows of its action: costs no look at the disk. Not
    /// with what is being taken away at this moment.
    #[must_use]
    pub fn may_have_upload(&self, key: ActionKey) -> bool {
        let state = self.shared.lock();
        state
            .uploads
            .get(&key)
            .is_some_and(|upload| !matches!(upload, Upload::Swept(_)))
    }

    /// Where the archive that is `key` was writing to, and the parts that are there: of a former daemon, or before it was
    /// answered.
    #[must_use]
    pub fn upload_of(&self, key: ActionKey) -> Option<(UploadRecord, HashMap<u32, SentPart>)> {
        let recent = {
            let state = self.shared.lock();
            let writing = state.writing.as_ref().and_then(|batch| batch.uploads.get(&key));
            state.pending.uploads.get(&key).or(writing).cloned()
        };
        let Some(recent) = recent else {
            return self.written_upload_of(key);
        };
        let recent = recent?;
        // Its parts are those on disk, unless it was begun anew.
        let parts = self
            .written_upload_of(key)
            .filter(|(written, _)| written.upload() == recent.upload())
            .map(|(_, parts)| parts);
        Some((recent, parts.unwrap_or_default()))
    }

    fn written_upload_of(&self, key: ActionKey) -> Option<(UploadRecord, HashMap<u32, SentPart>)> {
        let id = action_id(key);
        let (upload, parts) = self.read("uploads", |transaction| {
            let Some(upload) = transaction
                .open_table(UPLOADS)?
                .get(id)?
                .map(|bytes| bytes.value().to_vec())
            else {
                return Ok(None);
            };
            let (a, b, c, d) = id;
            let mut parts = Vec::new();
            for entry in transaction
                .open_table(PARTS)?
                .range((a, b, c, d, 0)..=(a, b, c, d, u32::MAX))?
            {
                let (part, bytes) = entry?;
                parts.push((part.value().4, bytes.value().to_vec()));
            }
            Ok(Some((upload, parts)))
        })??;
        let upload = record::upload(&upload)?;
        let parts = parts
            .into_iter()
            .filter_map(|(index, bytes)| Some((index, record::part(&bytes)?)))
            .collect();
        Some((upload, parts))
    }

    /// A copy is about to be committed, and the one before it to be deleted then.
    pub fn replacing(&self, key: ActionKey, location: &Location, previous: &Location) {
        self.uploading(key, &UploadRecord::committed(location, previous));
    }

    /// Somebody goes on with what a former daemon left of an action, or cleans it up.
    pub fn taken(&self, key: ActionKey) {
        let mut state = self.shared.lock();
        if let Some(upload @ Upload::Inherited) = state.uploads.get_mut(&key) {
            *upload = Upload::Running;
            state.on_disk.insert(key);
        }
    }

    /// Has an orphan for whoever takes it away, if it still is one: an archive that comes under its key meanwhile does not
    /// go on with it, and those of its file wait. [`Journal::cleaned`] or [`Journal::left`] ends that; there is one at a
    /// time. Look for actions of the file after this.
    #[must_use]
    pub fn sweeping(&self, key: ActionKey) -> bool {
        let mut state = self.shared.lock();
        let Some(upload) = state.uploads.get_mut(&key) else {
            return false;
        };
        let Upload::Orphan(since) = *upload else {
            return false;
        };
        *upload = Upload::Swept(since);
        state.swept = Some(key.fid);
        true
    }

    /// Waits until nobody takes away what former archives of a file left. It may lie at the key of a new one, with equal
    /// bytes and so with an equal ETag: a delete would not tell them apart.
    pub fn wait_swept(&self, fid: Fid) {
        let shared = &self.shared;
        let waited = shared
            .swept
            .wait_timeout_while(shared.lock(), LONGEST_SWEEP, |state| state.swept == Some(fid));
        drop(waited);
    }

    /// It could not be taken away.
    pub fn left(&self, key: ActionKey) {
        let mut state = self.shared.lock();
        if let Some(upload) = state.uploads.get_mut(&key)
            && let Upload::Swept(since) = *upload
        {
            *upload = Upload::Orphan(since);
        }
        state.swept = None;
        drop(state);
        self.shared.swept.notify_all();
    }

    /// Uploads of actions that have been over for so long: [`Journal::upload_of`] tells what they are,
    /// [`Journal::cleaned`] ends them.
    #[must_use]
    pub fn orphans(&self, age: Duration) -> Vec<ActionKey> {
        let state = self.shared.lock();
        let is_old = |upload: &Upload| matches!(upload, Upload::Orphan(since) if since.elapsed() >= age);
        let orphans = state.uploads.iter().filter(|(_, upload)| is_old(upload));
        orphans.map(|(key, _)| *key).collect()
    }

    /// Nothing is left of an orphan. One that was sent again meanwhile stays.
    pub fn cleaned(&self, key: ActionKey) {
        self.shared.change(|state| {
            state.swept = None;
            if let Some(Upload::Live | Upload::Inherited | Upload::Running) = state.uploads.get(&key) {
                return;
            }
            state.uploads.remove(&key);
            state.on_disk.remove(&key);
            // Where the disk takes nothing for long: a successor finds by itself that nothing is left of it.
            let uploads = &mut state.pending.uploads;
            if uploads.len() < MOST_COPIES || uploads.contains_key(&key) {
                uploads.insert(key, None);
            }
        });
        self.shared.swept.notify_all();
    }

    /// Upload ids of archives that are not answered.
    #[must_use]
    pub fn live_uploads(&self) -> HashSet<String> {
        let mut ids: HashSet<String> = self
            .read("uploads", |transaction| {
                let mut ids = HashSet::new();
                for entry in transaction.open_table(UPLOADS)?.iter()? {
                    let (_, bytes) = entry?;
                    ids.extend(record::upload(bytes.value()).and_then(|upload| upload.upload_id()));
                }
                Ok(ids)
            })
            .unwrap_or_default();
        let state = self.shared.lock();
        let recent = state.writing.iter().map(AsRef::as_ref).chain([&state.pending]);
        for batch in recent {
            ids.extend(batch.uploads.values().flatten().filter_map(UploadRecord::upload_id));
        }
        ids
    }

    /// Whether the disk does not take changes: a crash now would leave what is in hand to the coordinator's time-out.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.shared.lock().broken
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

    /// Actions that a former daemon took in and did not answer. Ask before anything new is admitted.
    #[must_use]
    pub fn unfinished(&self) -> Vec<Item> {
        let items = self.read("actions", |transaction| {
            let mut items = Vec::new();
            for entry in transaction.open_table(ACTIONS)?.iter()? {
                let (id, bytes) = entry?;
                items.extend(record::item(id.value(), bytes.value()));
            }
            Ok(items)
        });
        let items: Vec<Item> = items.unwrap_or_default();
        // Before those on disk: what is written meanwhile is found there.
        let recent: Vec<ActionKey> = {
            let state = self.shared.lock();
            let batches = state.writing.iter().map(AsRef::as_ref).chain([&state.pending]);
            batches.flat_map(|batch| batch.uploads.keys().copied()).collect()
        };
        let uploads = self.read("uploads", |transaction| {
            let mut keys = Vec::new();
            for entry in transaction.open_table(UPLOADS)?.iter()? {
                keys.push(action_key(entry?.0.value()));
            }
            Ok(keys)
        });
        let mut state = self.shared.lock();
        state
            .uploads
            .extend(items.iter().map(|item| (item.key(), Upload::Live)));
        for key in uploads.unwrap_or_default().into_iter().chain(recent) {
            // One that was looked at before is what it was found to be.
            let action = !matches!(state.uploads.get(&key), None | Some(Upload::Orphan(_)));
            let upload = if action {
                Upload::Inherited
            } else {
                Upload::Orphan(Instant::now())
            };
            state.uploads.insert(key, upload);
        }
        state.on_disk.extend(items.iter().map(Item::key));
        drop(state);
        items
    }

    /// Has all changes so far written. Whoever still has this journal then, a thread that hangs say, changes nothing on
    /// disk any more: what it has in hand is there as it was. Not all may be written when the deadline comes first.
    pub fn finish(&self, deadline: Instant) {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *writer, Writer::Finished) {
            Writer::Thread(mut thread) => {
                if !thread.join(deadline) {
                    tracing::error!(path = %self.path.display(), "the disk of the journal does not answer");
                }
            }
            Writer::Nobody => {
                self.shared.stop();
                writer::run(&self.shared);
            }
            Writer::Finished => {}
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

const fn fid_key(fid: Fid) -> FidKey {
    (fid.seq, fid.oid, fid.ver)
}

const fn action_key((cookie, seq, oid, ver): ActionId) -> ActionKey {
    ActionKey {
        cookie: Cookie(cookie),
        fid: Fid { seq, oid, ver },
    }
}

const fn action_id(key: ActionKey) -> ActionId {
    (key.cookie.0, key.fid.seq, key.fid.oid, key.fid.ver)
}

/// Whether the database lacks what an archive was about to write. Lines go with the database's commits, the oldest first:
/// the last one of an action that is there is never older than what the database has of it.
fn is_news(database: &Database, action: ActionKey, upload: &UploadRecord) -> bool {
    match upload_in(database, action) {
        Ok(known) => known.as_ref() != Some(upload),
        Err(_) => true,
    }
}

fn upload_in(database: &Database, action: ActionKey) -> Result<Option<UploadRecord>, DatabaseError> {
    database.read(|transaction| {
        let table = transaction.open_table(UPLOADS)?;
        let bytes = table.get(action_id(action))?.map(|bytes| bytes.value().to_vec());
        Ok(bytes.and_then(|bytes| record::upload(&bytes)))
    })
}

fn open(path: &Path) -> Result<Database, Failure> {
    if let Some(state_dir) = path.parent() {
        std::fs::create_dir_all(state_dir)?;
    }
    let error = match create(path) {
        Ok(database) => return Ok(database),
        Err(error) => error,
    };
    // No place, no permission, no space, or another process.
    if !error.is_damage() {
        return Err(error.into());
    }
    let aside = aside(path);
    tracing::error!(path = %path.display(), aside = %aside.display(), %error, "the journal is damaged; it is set aside and a new one begun");
    std::fs::rename(path, aside)?;
    Ok(create(path)?)
}

fn create(path: &Path) -> Result<Database, DatabaseError> {
    with_tables(Database::create(path)?)
}

/// Makes the tables where there are none: one that has them can be read on a full disk, too.
fn with_tables(database: Database) -> Result<Database, DatabaseError> {
    match database.read(has_tables) {
        Ok(()) => return Ok(database),
        Err(error) if error.lacks_table() => {}
        Err(error) => return Err(error),
    }
    database.write(|transaction| {
        transaction.open_table(COPIES)?;
        transaction.open_table(ACTIONS)?;
        transaction.open_table(UPLOADS)?;
        transaction.open_table(PARTS)?;
        Ok(())
    })?;
    Ok(database)
}

fn has_tables(transaction: &ReadTransaction) -> Result<(), database::Error> {
    transaction.open_table(COPIES)?;
    transaction.open_table(ACTIONS)?;
    transaction.open_table(UPLOADS)?;
    transaction.open_table(PARTS)?;
    Ok(())
}

/// One file for each mount: two daemons of one node may share the directory.
fn file_name(name: &str, mount: &Path) -> String {
    let mount: String = mount
        .to_string_lossy()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    format!("{name}{mount}.redb")
}

fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".damaged-{}", std::process::id()));
    name.into()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::database::StorageBackend;
    use crate::store::ObjectKey;
    use crate::types::ArchiveId;

    const FID: Fid = Fid {
        seq: 0x2_0000_0401,
        oid: 9,
        ver: 0,
    };

    fn location() -> Location {
        Location {
            archive_id: ArchiveId::new(1).unwrap(),
            key: ObjectKey::new("a/b").unwrap(),
            size: 7,
            etag: "\"e\"".into(),
            version: None,
            checksum: None,
            pinned: false,
            layout: None,
            sidecar: None,
            written_for: None,
            writer: None,
        }
    }

    fn open_in(dir: &Path) -> Journal {
        Journal::open(&Supervisor::default(), dir, "lustre", Path::new("/mnt/lustre"))
    }

    #[test]
    fn a_copy_is_remembered_across_restarts_and_forgotten_when_told() {
        let dir = tempfile::tempdir().unwrap();
        open_in(dir.path()).remember(FID, &location());
        let journal = open_in(dir.path());
        assert_eq!(journal.find(FID), Some(location()));
        journal.forget(FID);
        assert_eq!(journal.find(FID), None);
    }

    #[test]
    fn a_damaged_journal_is_set_aside_and_the_daemon_serves() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(file_name("lustre", Path::new("/mnt/lustre")));
        std::fs::write(&path, vec![0xee; 100_000]).unwrap();
        let journal = open_in(dir.path());
        journal.remember(FID, &location());
        assert_eq!(journal.find(FID), Some(location()));
        assert_eq!(std::fs::read(aside(&path)).unwrap(), vec![0xee; 100_000]);
    }

    fn action(oid: u32) -> ActionKey {
        ActionKey {
            cookie: Cookie(7),
            fid: Fid { oid, ..FID },
        }
    }

    fn single() -> UploadRecord {
        UploadRecord::single(location().archive_id, &location().key, crate::store::Writer::random())
    }

    #[test]
    fn no_place_for_a_journal_is_no_reason_not_to_serve() {
        let journal = open_in(Path::new("/proc/nonexistent"));
        journal.remember(FID, &location());
        assert_eq!(journal.find(FID), None);
    }
    /// A disk that can be full.
    #[derive(Debug)]
    struct Disk {
        file: redb::backends::FileBackend,
        full: Arc<AtomicBool>,
    }

    impl Disk {
        fn room(&self) -> std::io::Result<()> {
            if self.full.load(Ordering::SeqCst) {
                return Err(std::io::Error::from_raw_os_error(libc::ENOSPC));
            }
            Ok(())
        }
    }

    impl StorageBackend for Disk {
        fn len(&self) -> std::io::Result<u64> {
            self.file.len()
        }
        fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
            self.file.read(offset, out)
        }
        fn set_len(&self, len: u64) -> std::io::Result<()> {
            self.room()?;
            self.file.set_len(len)
        }
        fn sync_data(&self) -> std::io::Result<()> {
            self.file.sync_data()
        }
        fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
            self.room()?;
            self.file.write(offset, data)
        }
        fn close(&self) -> std::io::Result<()> {
            self.file.close()
        }
    }

    /// On a disk that is full when it is said.
    fn open_on(path: PathBuf, full: &Arc<AtomicBool>) -> Journal {
        let (file, is_full) = (path.clone(), Arc::clone(full));
        let open = move || -> Result<Database, Failure> {
            let mut options = std::fs::File::options();
            let file = options
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&file)?;
            let file = redb::backends::FileBackend::new(file)?;
            let full = Arc::clone(&is_full);
            Ok(with_tables(Database::create_on(Disk { file, full })?)?)
        };
        Journal::start(&Supervisor::default(), path, Box::new(open))
    }

    fn until(mut is_so: impl FnMut() -> bool) {
        let start = Instant::now();
        while !is_so() {
            assert!(start.elapsed() < Duration::from_secs(60), "it did not come");
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_full_disk_loses_nothing_and_the_journal_is_written_once_there_is_room() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(file_name("lustre", Path::new("/mnt/lustre")));
        let full = Arc::new(AtomicBool::new(false));
        let journal = open_on(path, &full);
        journal.remember(FID, &location());
        until(|| journal.unwritten() == 0);
        full.store(true, Ordering::SeqCst);
        let other = Fid { oid: 10, ..FID };
        journal.remember(other, &location());
        until(|| journal.is_broken());
        // It waits in memory, for as long as that is.
        assert_eq!(journal.find(other), Some(location()));
        assert_eq!(journal.unwritten(), 1);
        full.store(false, Ordering::SeqCst);
        until(|| !journal.is_broken() && journal.unwritten() == 0);
        journal.forget(FID);
        drop(journal);
        let journal = open_in(dir.path());
        assert_eq!(journal.find(other), Some(location()));
        assert_eq!(journal.find(FID), None);
    }

    /// What a process leaves that is killed before the next transaction.
    fn killed(dir: &Path) -> (tempfile::TempDir, Journal) {
        let copy = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(dir).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|extension| extension != "redb") {
                std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
            }
        }
        let journal = open_in(copy.path());
        assert_eq!(journal.unfinished(), []);
        (copy, journal)
    }

    #[test]
    fn what_an_archive_is_about_to_write_is_known_to_a_successor_at_once_and_until_it_is_settled() {
        let dir = tempfile::tempdir().unwrap();
        let full = Arc::new(AtomicBool::new(false));
        let journal = open_on(dir.path().join(file_name("lustre", Path::new("/mnt/lustre"))), &full);
        // There is no next transaction.
        full.store(true, Ordering::SeqCst);
        let (first, second, upload) = (action(1), action(2), single());
        journal.uploading(first, &upload);
        let (_copy, successor) = killed(dir.path());
        assert_eq!(successor.orphans(Duration::ZERO), [first]);
        assert_eq!(successor.upload_of(first).unwrap().0, upload);
        // The answer alone settles nothing.
        journal.ended(first);
        assert_eq!(journal.upload_of(first).unwrap().0, upload);
        journal.settled(first, true);
        assert_eq!(journal.upload_of(first), None);
        journal.uploading(second, &upload);
        let (_copy, successor) = killed(dir.path());
        assert_eq!(successor.orphans(Duration::ZERO), [second]);
    }

    #[test]
    fn what_is_left_of_an_archive_is_taken_away_once_and_nobody_goes_on_with_it_meanwhile() {
        let dir = tempfile::tempdir().unwrap();
        let journal = open_in(dir.path());
        let key = action(1);
        journal.uploading(key, &single());
        journal.ended(key);
        journal.settled(key, false);
        assert_eq!(journal.orphans(Duration::ZERO), [key]);
        assert!(journal.sweeping(key) && !journal.sweeping(key));
        assert!(!journal.may_have_upload(key));
        journal.left(key);
        assert!(journal.may_have_upload(key) && journal.sweeping(key));
        // Begun anew under the same cookie.
        let anew = single();
        journal.uploading(key, &anew);
        journal.cleaned(key);
        assert_eq!(journal.upload_of(key).unwrap().0, anew);
        journal.ended(key);
        journal.settled(key, true);
        drop(journal);
        let journal = open_in(dir.path());
        assert_eq!(journal.unfinished(), []);
        assert_eq!(journal.orphans(Duration::ZERO), []);
    }

    #[test]
    fn a_batch_that_could_not_be_written_leaves_no_part_of_an_upload_that_ended_meanwhile() {
        let key = |oid| ActionKey {
            cookie: Cookie(7),
            fid: Fid { oid, ..FID },
        };
        let upload = |size| {
            let single = UploadRecord::single(location().archive_id, &location().key, crate::store::Writer::random());
            let id = serde_json::from_str("\"id\"").unwrap();
            single.multipart(&id, size, 1, None)
        };
        let part = || -> SentPart {
            serde_json::from_str(r#"{"stored":{"number":1,"etag":"e","checksum":null,"proof":null},"checksum":0}"#)
                .unwrap()
        };
        let (over, anew, goes_on) = (key(1), key(2), key(3));
        let mut failed = Batch::default();
        for key in [over, anew, goes_on] {
            failed.uploads.insert(key, Some(upload(2)));
            failed.parts.insert((key, 0), part());
        }
        let mut newer = Batch::default();
        newer.uploads.insert(over, None);
        newer.uploads.insert(anew, Some(upload(3)));
        newer.parts.insert((anew, 1), part());
        newer.parts.insert((goes_on, 1), part());
        failed.overlay(newer);
        let mut parts: Vec<_> = failed.parts.keys().map(|(key, index)| (key.fid.oid, *index)).collect();
        parts.sort_unstable();
        assert_eq!(parts, [(2, 1), (3, 0), (3, 1)]);
        assert_eq!(failed.uploads[&over], None);
        let mut living: Vec<_> = failed.living().map(|key| key.fid.oid).collect();
        living.sort_unstable();
        assert_eq!(living, [2, 3]);
    }

    #[test]
    fn what_is_finished_is_on_disk_whoever_still_has_the_journal() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Arc::new(open_in(dir.path()));
        let held = Arc::clone(&journal);
        journal.remember(FID, &location());
        journal.finish(Instant::now() + Duration::from_secs(60));
        assert_eq!(journal.unwritten(), 0);
        // Such as a thread that comes back when the daemon has ended: it neither waits nor fails.
        held.forget(FID);
        drop((journal, held));
        assert_eq!(open_in(dir.path()).find(FID), Some(location()));
    }

    #[test]
    fn copies_that_can_not_be_written_for_long_have_an_end() {
        let mut state = State::default();
        for n in 0..MOST_COPIES as u64 + 5 {
            let fid = Fid { seq: n, ..FID };
            state.set_copy(fid, None);
        }
        state.set_copy(Fid { seq: 0, ..FID }, Some(Vec::new()));
        assert_eq!((state.pending.copies.len(), state.unknown), (MOST_COPIES, 5));
    }
}
