//! What is left over: of a former daemon, and of archives that did not end well. Somebody goes on with it, or it is taken
//! away.

use std::path::Path;
use std::time::Duration;

use super::intents::Intents;
use super::state::{JournalState, MOST_COPIES, UploadEntry};
use super::{Journal, UploadRecord, tables};
use crate::action::{ActionKey, Item};
use crate::database::Database;
use crate::sync::Instant;
use crate::types::Fid;

/// What it takes to take away what an archive left: an upload, and up to three objects.
const LONGEST_SWEEP: Duration = Duration::from_secs(40);

impl Journal {
    /// Actions that a former daemon took in and did not answer. Ask before anything new is admitted.
    #[must_use]
    pub fn unfinished(&self) -> Vec<Item> {
        let items = self.read("actions", tables::actions).unwrap_or_default();
        // Before those on disk: what is written meanwhile is found there.
        let recent: Vec<ActionKey> = {
            let state = self.shared.lock();
            let batches = state.writing.iter().map(AsRef::as_ref).chain([&state.pending]);
            batches.flat_map(|batch| batch.uploads.keys().copied()).collect()
        };
        let uploads = self.read("uploads", tables::uploading);
        let mut state = self.shared.lock();
        state
            .uploads
            .extend(items.iter().map(|item| (item.key(), UploadEntry::Live)));
        for key in uploads.unwrap_or_default().into_iter().chain(recent) {
            // One that was looked at before is what it was found to be.
            let action = !matches!(state.uploads.get(&key), None | Some(UploadEntry::Orphan(_)));
            let upload = if action {
                UploadEntry::Inherited
            } else {
                UploadEntry::Orphan(Instant::now())
            };
            state.uploads.insert(key, upload);
        }
        state.on_disk.extend(items.iter().map(Item::key));
        drop(state);
        items
    }

    /// Somebody goes on with what a former daemon left of an action, or cleans it up.
    pub fn taken(&self, key: ActionKey) {
        let mut state = self.shared.lock();
        if let Some(upload @ UploadEntry::Inherited) = state.uploads.get_mut(&key) {
            *upload = UploadEntry::Running;
            state.on_disk.insert(key);
        }
    }

    /// An archive that is not answered is begun anew later: what it has written so far is gone on with then, or looked for once
    /// its action is over.
    pub fn put_off(&self, key: ActionKey) {
        let mut state = self.shared.lock();
        if let Some(upload @ UploadEntry::Running) = state.uploads.get_mut(&key) {
            *upload = UploadEntry::Inherited;
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
        let UploadEntry::Orphan(since) = *upload else {
            return false;
        };
        *upload = UploadEntry::Swept(since);
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
            && let UploadEntry::Swept(since) = *upload
        {
            *upload = UploadEntry::Orphan(since);
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
        let is_old = |upload: &UploadEntry| matches!(upload, UploadEntry::Orphan(since) if since.elapsed() >= age);
        let orphans = state.uploads.iter().filter(|(_, upload)| is_old(upload));
        orphans.map(|(key, _)| *key).collect()
    }

    /// Nothing is left of an orphan. One that was sent again meanwhile stays.
    pub fn cleaned(&self, key: ActionKey) {
        self.shared.change(|state| {
            state.swept = None;
            if let Some(UploadEntry::Live | UploadEntry::Inherited | UploadEntry::Running) = state.uploads.get(&key) {
                return;
            }
            state.uploads.remove(&key);
            state.on_disk.remove(&key);
            state.tell(|sink| sink.settled(key));
            // Where the disk takes nothing for long: a successor finds by itself that nothing is left of it.
            let uploads = &mut state.pending.uploads;
            if uploads.len() < MOST_COPIES || uploads.contains_key(&key) {
                uploads.insert(key, None);
            }
        });
        self.shared.swept.notify_all();
    }
}

/// Opens the lines beside the database. What they have and the database lacks, for a daemon was killed before its next
/// transaction, goes there with the first one.
pub(super) fn intents(path: &Path, database: &Database, state: &mut JournalState) -> Option<Intents> {
    match Intents::open(path) {
        Ok((intents, left)) => {
            for (key, upload) in left {
                if is_news(database, key, &upload) {
                    // An older one of the action may be.
                    state.on_disk.insert(key);
                    state.pending.uploads.insert(key, Some(upload));
                }
            }
            Some(intents)
        }
        Err(error) => {
            tracing::warn!(
                path = %path.display(), %error,
                "what is about to be written can't be written down beside the journal: after a crash an object may be \
                 left over that is no file's copy"
            );
            None
        }
    }
}

/// Whether the database lacks what an archive was about to write. Lines go with the database's commits, the oldest first:
/// the last one of an action that is there is never older than what the database has of it.
fn is_news(database: &Database, action: ActionKey, upload: &UploadRecord) -> bool {
    match database.read(|transaction| tables::upload(transaction, action)) {
        Ok(known) => known.as_ref() != Some(upload),
        Err(_) => true,
    }
}
