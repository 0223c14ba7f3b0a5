//! What an object tells of its file, so that a file system made anew can have the file as it was.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use super::{JobError, Site};
use crate::action::Item;
use crate::store::{COOKIE, Condition, FileMetadata, Location, ObjectKey, Owner};
use crate::transfer::{Control, Lane, put_bytes, sweep_key};
use crate::types::ArchiveId;

/// An object's metadata, and where the rest of it is.
pub(super) struct Described {
    pub(super) metadata: HashMap<String, String>,
    pub(super) sidecar: Option<ObjectKey>,
}

impl Described {
    /// Everything, and which action wrote the object: one that is cleaned up must be that action's, not a later one's
    /// of the same file. What has no room is stored before the object that names it.
    pub(super) fn store(
        site: &Site,
        lane: &Lane,
        control: &Arc<Control>,
        item: &Item,
        archive_id: ArchiveId,
        (file, stat): (&File, &Metadata),
        path: Option<PathBuf>,
    ) -> Result<Self, JobError> {
        let owner = Owner {
            fs: site.fs.name().to_owned(),
            fid: item.fid,
        };
        let mut extras = site.fs.extras(item.fid, file)?;
        extras.path = path.map(|path| path.into_os_string().into_vec());
        let key = ObjectKey::sidecar(&lane.store(archive_id)?.target().prefix, item.fid, item.cookie)?;
        let (mut metadata, rest) = FileMetadata::new(Some(owner.clone()), stat, extras).to_maps(&key);
        metadata.insert(COOKIE.to_owned(), item.cookie.to_string());
        if rest.is_empty() {
            return Ok(Self {
                metadata,
                sidecar: None,
            });
        }
        let body = serde_json::to_vec(&rest).map_err(|error| JobError::Attributes(error.into()))?;
        let mut of_sidecar = owner.to_map();
        of_sidecar.insert(COOKIE.to_owned(), item.cookie.to_string());
        put_bytes(lane, control, archive_id, (&key, Condition::None), &body, of_sidecar)?;
        Ok(Self {
            metadata,
            sidecar: Some(key),
        })
    }
}

/// The same of a copy that was replaced. An action that was gone on with by another daemon has named both alike.
pub(super) fn discard_former_sidecar(lane: &Lane, former: &Location, now: &Location) {
    if former.sidecar != now.sidecar {
        discard_sidecar(lane, former);
    }
}

/// Deletes the sidecar of a copy that is no more. One that can't be deleted is found by a scrub.
pub(super) fn discard_sidecar(lane: &Lane, location: &Location) {
    if let Some(key) = &location.sidecar {
        discard(lane, location.archive_id, key);
    }
}

pub(super) fn discard(lane: &Lane, archive_id: ArchiveId, key: &ObjectKey) {
    let is_ours = |found: &crate::store::ObjectInfo| found.metadata.contains_key(COOKIE);
    if let Err(error) = sweep_key(lane, archive_id, key, None, is_ours) {
        tracing::warn!(%key, %error, "metadata of no object could not be deleted: an orphan");
    }
}
