//! Where running archives write to: said before they do, and kept until it is known what became of it.

use std::collections::{HashMap, HashSet};

use super::state::{MOST_COPIES, UploadEntry};
use super::{Journal, UploadRecord, tables};
use crate::action::ActionKey;
use crate::store::{Location, SentPart};
use crate::sync::Instant;

impl Journal {
    /// Where a running archive writes to: said before it does, and a daemon that is killed has said it.
    /// [`Journal::settled`] ends it, not the action's end.
    pub fn uploading(&self, key: ActionKey, upload: &UploadRecord) {
        let mut is_said = false;
        self.shared.change(|state| {
            let pending = state.pending.uploads.get(&key).and_then(Option::as_ref);
            is_said = pending == Some(upload) && state.uploads.get(&key) == Some(&UploadEntry::Running);
            if is_said {
                return;
            }
            if state.uploads.insert(key, UploadEntry::Running).is_some() {
                // The former record may be written already.
                state.on_disk.insert(key);
            }
            state.pending.uploads.insert(key, Some(upload.clone()));
            state.tell(|sink| sink.uploading(key, upload));
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
            let Some(upload @ UploadEntry::Running) = state.uploads.get_mut(&key) else {
                return;
            };
            if !nothing_left && is_room {
                *upload = UploadEntry::Orphan(Instant::now());
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
            .is_some_and(|upload| !matches!(upload, UploadEntry::Swept(_)))
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
        self.read("uploads", |transaction| {
            let Some(upload) = tables::upload(transaction, key)? else {
                return Ok(None);
            };
            Ok(Some((upload, tables::parts(transaction, key)?)))
        })?
    }

    /// A copy is about to be committed, and the one before it to be deleted then.
    pub fn replacing(&self, key: ActionKey, location: &Location, previous: &Location) {
        self.uploading(key, &UploadRecord::committed(location, previous));
    }

    /// Upload ids of archives that are not answered.
    #[must_use]
    pub fn live_uploads(&self) -> HashSet<String> {
        let mut ids = self.read("uploads", tables::upload_ids).unwrap_or_default();
        let state = self.shared.lock();
        let recent = state.writing.iter().map(AsRef::as_ref).chain([&state.pending]);
        for batch in recent {
            ids.extend(batch.uploads.values().flatten().filter_map(UploadRecord::upload_id));
        }
        ids
    }
}
