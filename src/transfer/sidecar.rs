//! What an object tells of its file, so that a file system made anew can have the file as it was; what has no room in
//! its metadata is an object of its own, the sidecar.

use std::collections::HashMap;
use std::fs::Metadata;
use std::sync::Arc;

use super::{Control, Lane, TransferError, put_bytes, sweep_key};
use crate::store::{COOKIE, Condition, FileMetadata, Location, ObjectInfo, ObjectKey, Owner};
use crate::types::{ArchiveId, Cookie, Extras};

/// An object's metadata, and where the rest of it is.
#[derive(Debug)]
pub struct Described {
    /// With the cookie.
    pub metadata: HashMap<String, String>,
    /// It is stored.
    pub sidecar: Option<ObjectKey>,
}

/// Everything, and which action wrote the object: one that is cleaned up must be that action's, not a later one's of
/// the same file. The sidecar is stored before the object that names it.
///
/// # Errors
/// The sidecar can't be stored.
pub fn describe(
    lane: &Lane,
    control: &Arc<Control>,
    archive_id: ArchiveId,
    (owner, cookie): (&Owner, Cookie),
    (stat, extras): (&Metadata, Extras),
) -> Result<Described, TransferError> {
    let key = ObjectKey::sidecar(&lane.store(archive_id)?.target().prefix, owner.fid, cookie)?;
    let (mut metadata, rest) = FileMetadata::new(Some(owner.clone()), stat, extras).to_maps(&key);
    metadata.insert(COOKIE.to_owned(), cookie.to_string());
    if rest.is_empty() {
        return Ok(Described {
            metadata,
            sidecar: None,
        });
    }
    let body = serde_json::to_vec(&rest).map_err(|error| TransferError::Write(error.into()))?;
    let mut of_sidecar = owner.to_map();
    of_sidecar.insert(COOKIE.to_owned(), cookie.to_string());
    put_bytes(lane, control, archive_id, (&key, Condition::None), &body, of_sidecar)?;
    Ok(Described {
        metadata,
        sidecar: Some(key),
    })
}

/// Deletes the sidecar of a copy that is no more, unless it is that of `kept`, too: an action that another daemon went
/// on with has named both alike. One that can't be deleted is found by a scrub.
pub fn discard_sidecar(lane: &Lane, archive_id: ArchiveId, sidecar: Option<&ObjectKey>, kept: Option<&Location>) {
    let is_kept = |key: &ObjectKey| kept.is_some_and(|kept| kept.sidecar.as_ref() == Some(key));
    let Some(key) = sidecar.filter(|key| !is_kept(key)) else {
        return;
    };
    let is_ours = |found: &ObjectInfo| found.metadata.contains_key(COOKIE);
    if let Err(error) = sweep_key(lane, archive_id, key, None, is_ours) {
        tracing::warn!(%key, %error, "metadata of no object could not be deleted: an orphan");
    }
}
