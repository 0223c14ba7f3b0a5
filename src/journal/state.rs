//! What the journal has in memory: changes that are not on disk yet, and what each entry of `uploads` is to this daemon.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{JournalSink, UploadRecord};
use crate::action::{ActionKey, Item};
use crate::store::SentPart;
use crate::sync::Instant;
use crate::types::Fid;

/// Of copies that are not written yet, some hundred bytes each. When the disk takes none for so long, the copies of files
/// that are unlinked later are left to `scrub --delete-orphans`.
pub(super) const MOST_COPIES: usize = 200_000;

#[derive(Debug, Default)]
pub(super) struct JournalState {
    pub(super) pending: Batch,
    /// Being written now: not yet found in the database.
    pub(super) writing: Option<Arc<Batch>>,
    /// Actions that may have an entry in `uploads`, on disk or pending; few.
    pub(super) uploads: HashMap<ActionKey, UploadEntry>,
    /// The file of the orphan that the sweeper is at.
    pub(super) swept: Option<Fid>,
    /// Actions that may be on disk though they are pending as new.
    pub(super) on_disk: HashSet<ActionKey>,
    /// Actions of former daemons that are another mover's by now, and on their way to the queue.
    pub(super) lost: HashSet<ActionKey>,
    /// The last try to write failed.
    pub(super) broken: bool,
    /// Copies that found no room in memory meanwhile.
    pub(super) unknown: u64,
    pub(super) stopping: bool,
    /// Who else is told of changes.
    pub(super) sink: Option<Arc<dyn JournalSink>>,
}

/// What an entry of `uploads` is to the daemon that runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum UploadEntry {
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
pub(super) struct Batch {
    /// `None`: forgotten.
    pub(super) copies: HashMap<Fid, Option<Vec<u8>>>,
    pub(super) actions: HashMap<ActionKey, Change>,
    pub(super) uploads: HashMap<ActionKey, Option<UploadRecord>>,
    pub(super) parts: HashMap<(ActionKey, u32), SentPart>,
}

#[derive(Debug)]
pub(super) enum Change {
    /// Not in the database yet.
    New(Box<Item>),
    Gone,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.copies.is_empty() && self.actions.is_empty() && self.uploads.is_empty() && self.parts.is_empty()
    }

    /// Actions of which something is to be there.
    pub(super) fn living(&self) -> impl Iterator<Item = ActionKey> + '_ {
        let actions = self.actions.iter();
        let actions = actions.filter_map(|(key, change)| matches!(change, Change::New(_)).then_some(*key));
        let uploads = self.uploads.iter();
        actions.chain(uploads.filter_map(|(key, upload)| upload.is_some().then_some(*key)))
    }

    /// Puts what came later over what could not be written.
    pub(super) fn overlay(&mut self, newer: Self) {
        // An upload that ended since then, or was begun anew, leaves none of its parts behind: nobody would ever remove
        // them, and they are no parts of another one.
        self.parts.retain(|(of, _), _| !newer.uploads.contains_key(of));
        self.copies.extend(newer.copies);
        self.actions.extend(newer.actions);
        self.uploads.extend(newer.uploads);
        self.parts.extend(newer.parts);
    }
}

impl JournalState {
    /// Tells whoever listens, if anybody does.
    pub(super) fn tell(&self, what: impl FnOnce(&dyn JournalSink)) {
        if let Some(sink) = &self.sink {
            what(sink.as_ref());
        }
    }

    /// An entry of `uploads` goes; `on_disk`: it may be there already.
    pub(super) fn drop_upload(&mut self, key: ActionKey, on_disk: bool) {
        self.tell(|sink| sink.settled(key));
        self.uploads.remove(&key);
        self.pending.parts.retain(|(of, _), _| *of != key);
        match self.pending.uploads.remove(&key) {
            Some(Some(_)) if !on_disk => {}
            _ => drop(self.pending.uploads.insert(key, None)),
        }
    }

    pub(super) fn set_copy(&mut self, fid: Fid, change: Option<Vec<u8>>) {
        self.tell(|sink| sink.copied(fid, change.as_deref()));
        let copies = &mut self.pending.copies;
        if copies.len() < MOST_COPIES || copies.contains_key(&fid) {
            copies.insert(fid, change);
        } else {
            self.unknown += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{ObjectKey, WriterId};
    use crate::types::{ArchiveId, Cookie};

    const FID: Fid = Fid {
        seq: 0x2_0000_0401,
        oid: 9,
        ver: 0,
    };

    #[test]
    fn a_batch_that_could_not_be_written_leaves_no_part_of_an_upload_that_ended_meanwhile() {
        let key = |oid| ActionKey {
            cookie: Cookie(7),
            fid: Fid { oid, ..FID },
        };
        let archive_id = ArchiveId::new(1).unwrap();
        let upload = |size| {
            let single = UploadRecord::single(archive_id, &ObjectKey::new("a/b").unwrap(), WriterId::random());
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
    fn copies_that_can_not_be_written_for_long_have_an_end() {
        let mut state = JournalState::default();
        for n in 0..MOST_COPIES as u64 + 5 {
            let fid = Fid { seq: n, ..FID };
            state.set_copy(fid, None);
        }
        state.set_copy(Fid { seq: 0, ..FID }, Some(Vec::new()));
        assert_eq!((state.pending.copies.len(), state.unknown), (MOST_COPIES, 5));
    }
}
