//! Who else is told of the journal's changes, and what the journal holds at this moment for whoever missed some.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::state::Change;
use super::{Journal, UploadRecord, tables};
use crate::action::{ActionKey, Item};
use crate::types::Fid;

/// Is told of each change, in the order in which the journal takes them, under its lock: nothing here may wait for
/// anything, or call the journal.
pub trait JournalSink: fmt::Debug + Send + Sync {
    /// An action was taken in, for the first time or again.
    fn admitted(&self, item: &Item);
    /// It was answered.
    fn ended(&self, key: ActionKey);
    /// Where its archive writes to.
    fn uploading(&self, key: ActionKey, upload: &UploadRecord);
    /// Nothing is left to be known of what its archive wrote.
    fn settled(&self, key: ActionKey);
    /// A file's copy, as the bytes of its record; `None`: it has none any more.
    fn copied(&self, fid: Fid, record: Option<&[u8]>);
}

/// What the journal holds of one action.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct InHand {
    /// The action; `None`: it was answered.
    pub item: Option<Item>,
    /// Where its archive writes to, or wrote to.
    pub upload: Option<UploadRecord>,
}

impl Journal {
    /// From now on `sink` is told of each change.
    pub fn tell(&self, sink: Arc<dyn JournalSink>) {
        self.shared.lock().sink = Some(sink);
    }

    /// All that it holds of actions and uploads, as it was at some moment of this call: of what changes meanwhile the
    /// sink is told. `None`: it can't be read now, or there is none.
    #[must_use]
    pub fn in_hand(&self) -> Option<HashMap<ActionKey, InHand>> {
        if !self.shared.is_used {
            return None;
        }
        // Before what is on disk: what is written meanwhile is found in both.
        let mut actions: HashMap<ActionKey, Option<Item>> = HashMap::new();
        let mut uploads: HashMap<ActionKey, Option<UploadRecord>> = HashMap::new();
        {
            let state = self.shared.lock();
            for batch in state.writing.iter().map(AsRef::as_ref).chain([&state.pending]) {
                actions.extend(batch.actions.iter().map(|(key, change)| match change {
                    Change::New(item) => (*key, Some(Item::clone(item))),
                    Change::Gone => (*key, None),
                }));
                uploads.extend(batch.uploads.iter().map(|(key, upload)| (*key, upload.clone())));
            }
        }
        let (items, records) = self.read("actions", |transaction| {
            Ok((tables::actions(transaction)?, tables::uploads(transaction)?))
        })?;
        let mut all: HashMap<ActionKey, InHand> = HashMap::with_capacity(items.len());
        for item in items {
            let key = item.key();
            all.entry(key).or_default().item = Some(item);
        }
        for (key, upload) in records {
            all.entry(key).or_default().upload = Some(upload);
        }
        for (key, item) in actions {
            all.entry(key).or_default().item = item;
        }
        for (key, upload) in uploads {
            all.entry(key).or_default().upload = upload;
        }
        all.retain(|_, held| held.item.is_some() || held.upload.is_some());
        Some(all)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Mutex;

    use super::*;
    use crate::action::Verb;
    use crate::store::{ObjectKey, WriterId};
    use crate::thread::Supervisor;
    use crate::types::ArchiveId;

    #[derive(Debug, Default)]
    struct Heard(Mutex<Vec<String>>);

    impl Heard {
        fn say(&self, words: String) {
            self.0.lock().unwrap().push(words);
        }
    }

    impl JournalSink for Heard {
        fn admitted(&self, item: &Item) {
            self.say(format!("admitted {}", item.cookie.0));
        }
        fn ended(&self, key: ActionKey) {
            self.say(format!("ended {}", key.cookie.0));
        }
        fn uploading(&self, key: ActionKey, _: &UploadRecord) {
            self.say(format!("uploading {}", key.cookie.0));
        }
        fn settled(&self, key: ActionKey) {
            self.say(format!("settled {}", key.cookie.0));
        }
        fn copied(&self, _: Fid, record: Option<&[u8]>) {
            self.say(format!("copied {}", record.is_some()));
        }
    }

    #[test]
    fn whoever_listens_hears_each_change_in_its_order_and_can_ask_for_what_is_in_hand() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(&Supervisor::default(), dir.path(), "lustre", Path::new("/mnt/lustre"));
        let heard = Arc::new(Heard::default());
        journal.tell(Arc::clone(&heard) as Arc<dyn JournalSink>);
        let (first, second) = (Item::of_test(1, Verb::Archive), Item::of_test(2, Verb::Archive));
        let upload = UploadRecord::single(
            ArchiveId::new(1).unwrap(),
            &ObjectKey::new("a").unwrap(),
            WriterId::random(),
        );
        journal.admitted(&first);
        journal.admitted(&second);
        journal.uploading(first.key(), &upload);
        journal.ended(first.key());
        let held = journal.in_hand().unwrap();
        assert_eq!(held.len(), 2);
        assert_eq!(
            held[&first.key()],
            InHand {
                item: None,
                upload: Some(upload)
            }
        );
        assert_eq!(held[&second.key()].item, Some(second.clone()));
        journal.settled(first.key(), true);
        journal.ended(second.key());
        journal.forget(first.fid);
        assert!(journal.in_hand().unwrap().is_empty());
        assert_eq!(
            *heard.0.lock().unwrap(),
            [
                "admitted 1",
                "admitted 2",
                "uploading 1",
                "ended 1",
                "settled 1",
                "ended 2",
                "copied false"
            ]
        );
    }
}
