//! What an object tells of its file, so that a file system made anew can have the file as it was; what has no room in
//! its metadata is an object of its own, the sidecar.

use std::collections::HashMap;
use std::fs::Metadata;

use super::{Bearer, Lane, Transfer, TransferError};
use crate::store::{
    COOKIE, Condition, FileMetadata, Location, ObjectInfo, ObjectKey, Origin, Owner, WriteAttempt, name_key,
};
use crate::types::{ArchiveId, ExtraMetadata};

/// An object's metadata, and where the rest of it is.
#[derive(Debug)]
pub struct ObjectDescription {
    /// With who wrote it, and without its key ([`name_key`]).
    pub metadata: HashMap<String, String>,
    /// It is stored.
    pub sidecar: Option<ObjectKey>,
}

impl Transfer<'_> {
    /// Everything, and who wrote the object: one that is cleaned up must be that attempt's, not a later one's of the same
    /// file. The sidecar is stored before the object that names it.
    ///
    /// # Errors
    /// The sidecar can't be stored.
    pub fn describe(
        self,
        archive_id: ArchiveId,
        author: &WriteAttempt,
        stat: &Metadata,
        extras: ExtraMetadata,
    ) -> Result<ObjectDescription, TransferError> {
        let key = ObjectKey::sidecar(
            &self.store(archive_id)?.target().prefix,
            author.owner.fid,
            author.writer,
        )?;
        let (mut metadata, rest) = FileMetadata::new(Some(author.owner.clone()), stat, extras).to_maps(&key);
        author.sign(&mut metadata);
        if rest.is_empty() {
            return Ok(ObjectDescription {
                metadata,
                sidecar: None,
            });
        }
        let body = serde_json::to_vec(&rest).map_err(|error| TransferError::Write(error.into()))?;
        let mut of_sidecar = HashMap::new();
        author.sign(&mut of_sidecar);
        name_key(&mut of_sidecar, &key);
        self.put_bytes(key.at(archive_id), Condition::None, &body, of_sidecar)?;
        Ok(ObjectDescription {
            metadata,
            sidecar: Some(key),
        })
    }
}

impl Lane {
    /// Deletes the sidecar of a copy of `owner` that is no more, unless it is that of `kept`, too: an action that another
    /// daemon went on with has named both alike. One that can't be deleted is found by a scrub; another file's stays.
    pub fn discard_sidecar(
        &self,
        archive_id: ArchiveId,
        sidecar: Option<&ObjectKey>,
        owner: &Owner,
        kept: Option<&Location>,
    ) {
        let is_kept = |key: &ObjectKey| kept.is_some_and(|kept| kept.sidecar.as_ref() == Some(key));
        let Some(key) = sidecar.filter(|key| !is_kept(key)) else {
            return;
        };
        let is_ours = |found: &ObjectInfo, origin: &Origin| origin.is_of(owner) && found.metadata.contains_key(COOKIE);
        if let Err(error) = self.sweep_key(Bearer::Nobody, key.at(archive_id), None, is_ours) {
            tracing::warn!(%key, %error, "metadata of no object could not be deleted: an orphan");
        }
    }
}
