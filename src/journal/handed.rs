//! Actions that change hands between movers: taken over from one that is dead, or found to be another's by now.

use super::state::{Change, UploadEntry};
use super::{Journal, UploadRecord};
use crate::action::{ActionKey, Item};
use crate::sync::Instant;

impl Journal {
    /// An action that another mover had is this one's from now on. `upload`: what it had begun to send and this one may go on
    /// with. Whoever else is told of changes knows: it is from there that it comes.
    pub fn taken_over(&self, item: &Item, upload: Option<&UploadRecord>) {
        let key = item.key();
        self.shared.change(|state| {
            state.lost.remove(&key);
            state.pending.actions.insert(key, Change::New(Box::new(item.clone())));
            // It may have been this one's before.
            state.on_disk.insert(key);
            if let Some(upload) = upload
                && !state.uploads.contains_key(&key)
            {
                state.uploads.insert(key, UploadEntry::Live);
                state.pending.uploads.insert(key, Some(upload.clone()));
            }
        });
    }

    /// Whether an action that was taken in is on disk, where it is to be.
    #[must_use]
    pub fn has_written(&self, key: ActionKey) -> bool {
        let state = self.shared.lock();
        let mut batches = state.writing.iter().map(AsRef::as_ref).chain([&state.pending]);
        !self.shared.is_used || !batches.any(|batch| batch.actions.contains_key(&key))
    }

    /// An action that this daemon did not hear of from the coordinator comes to its queue. `false`: it is another mover's by
    /// now, and nothing of it is to be done here.
    #[must_use]
    pub fn inherited(&self, item: &Item) -> bool {
        let key = item.key();
        let mut is_ours = true;
        self.shared.change(|state| {
            is_ours = !state.lost.remove(&key);
            if is_ours {
                state.pending.actions.insert(key, Change::New(Box::new(item.clone())));
                return;
            }
            state.pending.actions.insert(key, Change::Gone);
            if let Some(upload @ (UploadEntry::Live | UploadEntry::Inherited)) = state.uploads.get_mut(&key) {
                *upload = UploadEntry::Orphan(Instant::now());
            }
        });
        is_ours
    }

    /// An action is another mover's by now, which does it. An upload in parts is that one's, too, which goes on with it;
    /// whatever else this one wrote is looked for once nothing of the file is in hand here. `may_come`: it is on its way to
    /// the queue perhaps, where [`Journal::inherited`] stops it.
    pub fn lost(&self, key: ActionKey, may_come: bool) {
        let record = self.upload_of(key).map(|(record, _)| record);
        self.shared.change(|state| {
            if may_come {
                state.lost.insert(key);
            }
            state.on_disk.remove(&key);
            state.pending.actions.insert(key, Change::Gone);
            match (&record, state.uploads.get(&key)) {
                // The sweeper has it: it ended here before.
                (_, Some(UploadEntry::Swept(_))) => {}
                (Some(record), _) if record.upload().is_some() || record.is_anothers() => state.drop_upload(key, true),
                (Some(_), _) => drop(state.uploads.insert(key, UploadEntry::Orphan(Instant::now()))),
                (None, _) => drop(state.uploads.remove(&key)),
            }
        });
        if let Some(intents) = &self.shared.intents {
            intents.end(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::action::Verb;
    use crate::store::{ObjectKey, UploadId, WriterId};
    use crate::thread::Supervisor;
    use crate::types::ArchiveId;

    fn single() -> UploadRecord {
        UploadRecord::single(
            ArchiveId::new(1).unwrap(),
            &ObjectKey::new("a").unwrap(),
            WriterId::random(),
        )
    }

    fn in_parts() -> UploadRecord {
        single().multipart(&UploadId::new("id".into()), 9, 5, Some(3))
    }

    fn journal(path: &Path) -> Journal {
        Journal::open(&Supervisor::default(), path, "lustre", Path::new("/mnt/lustre"))
    }

    fn finish(journal: &Journal) {
        journal.finish(Instant::now() + Duration::from_secs(60));
    }

    #[test]
    fn what_was_taken_over_is_a_successors_with_its_upload_until_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let journal = journal(dir.path());
        let (item, upload) = (Item::of_test(1, Verb::Archive), in_parts().of_another(true));
        journal.taken_over(&item, Some(&upload));
        assert!(journal.inherited(&item) && journal.may_have_upload(item.key()));
        assert_eq!(
            journal.upload_of(item.key()).map(|(record, _)| record),
            Some(upload.clone())
        );
        finish(&journal);
        assert!(journal.has_written(item.key()));
        drop(journal);
        let journal = self::journal(dir.path());
        assert_eq!(journal.unfinished(), std::slice::from_ref(&item));
        assert_eq!(journal.upload_of(item.key()).map(|(record, _)| record), Some(upload));
        journal.ended(item.key());
        finish(&journal);
        drop(journal);
        assert_eq!(self::journal(dir.path()).unfinished(), []);
    }

    #[test]
    fn what_another_has_by_now_is_no_ones_here_and_its_upload_is_not_looked_for() {
        let dir = tempfile::tempdir().unwrap();
        let journal = journal(dir.path());
        let [small, large] = [Item::of_test(1, Verb::Archive), Item::of_test(2, Verb::Archive)];
        journal.admitted(&small);
        journal.uploading(small.key(), &single());
        journal.admitted(&large);
        journal.uploading(large.key(), &in_parts());
        for item in [&small, &large] {
            journal.lost(item.key(), false);
        }
        assert_eq!(journal.orphans(Duration::ZERO), [small.key()]);
        assert_eq!(journal.upload_of(large.key()), None);
        assert_eq!(journal.in_hand().unwrap().len(), 1, "what it wrote itself");
        finish(&journal);
        drop(journal);
        assert_eq!(self::journal(dir.path()).unfinished(), []);
    }

    #[test]
    fn what_is_on_its_way_to_the_queue_is_stopped_there_once() {
        let dir = tempfile::tempdir().unwrap();
        let journal = journal(dir.path());
        let item = Item::of_test(1, Verb::Archive);
        journal.admitted(&item);
        journal.lost(item.key(), true);
        assert!(!journal.inherited(&item));
        // The coordinator sends it again, to this one.
        journal.lost(item.key(), true);
        journal.admitted(&item);
        assert!(journal.inherited(&item));
        finish(&journal);
        drop(journal);
        assert_eq!(self::journal(dir.path()).unfinished(), [item]);
    }
}
