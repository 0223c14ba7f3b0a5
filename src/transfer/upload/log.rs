//! What an upload is to whoever asks for it, and to whoever keeps how far it is.

use std::collections::HashMap;
use std::sync::Arc;

use crate::store::{Checksum, Condition, KeyAt, ObjectKey, SentPart, StoredObject, UploadId};
use crate::types::ArchiveId;

/// An object that the store confirmed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UploadedObject {
    /// The store's words.
    pub stored: StoredObject,
    /// Ours, over the bytes that were read.
    pub checksum: Checksum,
}

/// What is kept of an upload for whoever goes on with it after a crash.
pub trait UploadLog: Send + Sync + std::fmt::Debug {
    /// One that a former daemon began for the same action and did not finish. Given once.
    fn unfinished(&self) -> Option<Unfinished>;
    /// The object will be written by a single request.
    fn single(&self, to: &Upload);
    /// An upload in parts was begun.
    fn begun(&self, to: &Upload, upload: &UploadId, size: u64, part_size: u64);
    /// The store confirmed a part.
    fn sent(&self, index: u32, part: &SentPart);
    /// Whether an upload that failed, or can't be gone on with, may be thrown away: nobody else goes on with it.
    fn may_abort(&self) -> bool {
        true
    }
}

/// For transfers that nobody goes on with.
#[derive(Clone, Copy, Debug)]
pub struct NoLog;

impl UploadLog for NoLog {
    fn unfinished(&self) -> Option<Unfinished> {
        None
    }
    fn single(&self, _: &Upload) {}
    fn begun(&self, _: &Upload, _: &UploadId, _: u64, _: u64) {}
    fn sent(&self, _: u32, _: &SentPart) {}
}

/// An upload that can be gone on with, or thrown away.
#[derive(Clone, Debug)]
pub struct Unfinished {
    /// Where its object was to be.
    pub key: ObjectKey,
    /// The store's id of the multipart upload.
    pub upload: UploadId,
    /// Of the file then.
    pub size: u64,
    /// Of each part but the last.
    pub part_size: u64,
    /// Whether the file has the same bytes now.
    pub same_data: bool,
    /// What was confirmed, by index.
    pub parts: HashMap<u32, SentPart>,
    /// Another mover began it, which may live: only the store knows its parts, and it is not thrown away.
    pub is_anothers: bool,
}

/// One file on its way.
#[derive(Clone, Debug)]
pub struct Upload {
    /// Which bucket.
    pub archive_id: ArchiveId,
    /// The key of the object that is written.
    pub key: ObjectKey,
    /// What is expected to be there.
    pub condition: Condition,
    /// User metadata of the object.
    pub metadata: HashMap<String, String>,
    /// Whether it is a file's data, which alone goes into the archive's storage class.
    pub is_data: bool,
    /// Who is told how far it is.
    pub log: Arc<dyn UploadLog>,
}

impl Upload {
    /// Where the object goes.
    #[must_use]
    pub const fn at(&self) -> KeyAt<'_> {
        self.key.at(self.archive_id)
    }
}
