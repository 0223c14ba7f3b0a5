//! What has no data as an object: directories and symlinks, as FSx writes them.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use crate::lustre::Mount;
use crate::store::{Condition, FileMetadata, InvalidKey, ObjectKey, StoreError, TargetOptions, Told};
use crate::transfer::{Control, Lane, TransferError, delete, find, put_bytes};
use crate::types::{ArchiveId, Extras};

/// One entry's trouble, or everybody's.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// This one can't be written.
    #[error("{0}")]
    This(String),
    /// Another one would fail the same way.
    #[error(transparent)]
    All(TransferError),
}

/// One object that is locked or denied says nothing of the next.
impl From<TransferError> for NodeError {
    fn from(error: TransferError) -> Self {
        if error.is_of_one_object() {
            Self::This(error.to_string())
        } else {
            Self::All(error)
        }
    }
}

fn this(error: &dyn std::fmt::Display) -> NodeError {
    NodeError::This(error.to_string())
}

/// The key of a directory or symlink by its path below the mount point.
///
/// # Errors
/// A path that no key can mirror.
pub fn node_key(prefix: &str, below: &Path, is_dir: bool) -> Result<ObjectKey, InvalidKey> {
    let key = ObjectKey::from_path(prefix, below)?;
    if is_dir {
        ObjectKey::new(format!("{key}/"))
    } else {
        Ok(key)
    }
}

/// Writes the object of a directory or symlink; its key.
///
/// # Errors
/// Why not.
pub fn write_node(
    lane: &Lane,
    control: &Arc<Control>,
    target: &TargetOptions,
    mount: &Path,
    path: &Path,
    stat: &Metadata,
) -> Result<ObjectKey, NodeError> {
    let below = path.strip_prefix(mount).map_err(|error| this(&error))?;
    let key = node_key(&target.prefix, below, stat.is_dir()).map_err(|error| this(&error))?;
    let (body, extras) = if stat.is_dir() {
        let directory = File::open(path).map_err(|error| this(&error))?;
        let extras = Extras {
            xattrs: Mount::xattrs_of(&directory).map_err(|error| this(&error))?,
            ..Extras::default()
        };
        (Vec::new(), extras)
    } else {
        let target = std::fs::read_link(path).map_err(|error| this(&error))?;
        (target.as_os_str().as_bytes().to_vec(), Extras::default())
    };
    let (metadata, left_out) = FileMetadata::new(None, stat, extras).to_map();
    if !left_out.is_empty() {
        tracing::warn!(path = %path.display(), ?left_out, "an object's metadata is 2 KiB at most");
    }
    put(lane, control, target.archive_id, &key, &body, &metadata)?;
    Ok(key)
}

/// Removes the object of a directory or symlink that is no more. Anything else at the key stays.
///
/// # Errors
/// The store's refusal.
pub fn remove_node(
    lane: &Lane,
    control: &Control,
    archive_id: ArchiveId,
    key: &ObjectKey,
) -> Result<(), TransferError> {
    let Some(found) = find(lane, control, archive_id, key)? else {
        return Ok(());
    };
    let location = found.at(archive_id, key);
    match delete(lane, control, &location, |found| {
        is_node(key, &found.metadata, found.size)
    }) {
        Err(TransferError::Store(StoreError::Precondition { .. })) => Ok(()),
        deleted => deleted,
    }
}

/// Whether an object stands for a directory or a symlink, and is no file's copy.
fn is_node(key: &ObjectKey, metadata: &HashMap<String, String>, size: u64) -> bool {
    let kind = Told::of(metadata).mode.map_or(0, |mode| mode & libc::S_IFMT);
    let empty_directory = key.as_str().ends_with('/') && size == 0;
    empty_directory || matches!(kind, libc::S_IFDIR | libc::S_IFLNK)
}

/// What is no directory's or symlink's object is not replaced: it may be a file's only copy.
fn put(
    lane: &Lane,
    control: &Arc<Control>,
    archive_id: ArchiveId,
    key: &ObjectKey,
    body: &[u8],
    metadata: &HashMap<String, String>,
) -> Result<(), NodeError> {
    let mut condition = Condition::Absent;
    for _ in 0..3 {
        let error = match put_bytes(
            lane,
            control,
            archive_id,
            (key, condition.clone()),
            body,
            metadata.clone(),
        ) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let look = matches!(
            error,
            TransferError::Store(StoreError::Precondition { .. } | StoreError::Unsupported { .. })
        );
        if !look {
            return Err(error.into());
        }
        condition = match find(lane, control, archive_id, key)? {
            Some(found) if is_node(key, &found.metadata, found.size) => Condition::Match(found.etag),
            Some(_) => return Err(NodeError::This(format!("'{key}' is another object"))),
            None => Condition::Absent,
        };
        let store = lane.store(archive_id).map_err(NodeError::All)?;
        if matches!(error, TransferError::Store(StoreError::Unsupported { .. })) {
            store.lacks_conditions();
        }
        if !store.has_conditions() {
            condition = Condition::None;
        }
    }
    Err(NodeError::This("other writers are at its key".into()))
}
