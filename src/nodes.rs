//! What has no data as an object: directories and symlinks, as FSx writes them.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use crate::lustre::{Mount, is_acl};
use crate::store::{
    Condition, FileMetadata, InvalidKey, ObjectKey, ParsedAttributes, Quirk, StoreError, TargetOptions,
};
use crate::transfer::{Bearer, Transfer, TransferError};
use crate::types::{ArchiveId, ExtraMetadata};

/// What the group may do; where there is an ACL they are its mask, and without its entries the group's own rights.
pub const GROUP_BITS: u32 = 0o070;

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
/// A path that no key can mirror; such a directory or symlink goes by its FID, as a file does.
pub fn node_key(prefix: &str, below: &Path, is_dir: bool) -> Result<ObjectKey, InvalidKey> {
    of_kind(ObjectKey::from_path(prefix, below)?, is_dir)
}

fn of_kind(key: ObjectKey, is_dir: bool) -> Result<ObjectKey, InvalidKey> {
    if is_dir {
        ObjectKey::new(format!("{key}/"))
    } else {
        Ok(key)
    }
}

/// The key that a directory or symlink has, and whether it tells its path.
///
/// # Errors
/// Its FID can't be had.
pub fn node_key_at(prefix: &str, mount: &Mount, below: &Path, is_dir: bool) -> Result<(ObjectKey, bool), NodeError> {
    if let Ok(key) = node_key(prefix, below, is_dir) {
        return Ok((key, true));
    }
    let fid = mount.fid_at(&mount.path().join(below)).map_err(|error| this(&error))?;
    let key = ObjectKey::from_fid(prefix, fid).and_then(|key| of_kind(key, is_dir));
    Ok((key.map_err(|error| this(&error))?, false))
}

/// Writes the object of a directory or symlink; its key.
///
/// # Errors
/// Why not.
pub fn write_node(
    transfer: Transfer<'_>,
    target: &TargetOptions,
    mount: &Mount,
    path: &Path,
    stat: &Metadata,
) -> Result<ObjectKey, NodeError> {
    let below = path.strip_prefix(mount.path()).map_err(|error| this(&error))?;
    let (key, tells_path) = node_key_at(&target.prefix, mount, below, stat.is_dir())?;
    let (body, mut extras) = if stat.is_dir() {
        let directory = File::open(path).map_err(|error| this(&error))?;
        let extras = ExtraMetadata {
            xattrs: mount.xattrs_of(&directory).map_err(|error| this(&error))?,
            ..ExtraMetadata::default()
        };
        (Vec::new(), extras)
    } else {
        let target = std::fs::read_link(path).map_err(|error| this(&error))?;
        (target.as_os_str().as_bytes().to_vec(), ExtraMetadata::default())
    };
    let told_path = (!tells_path).then(|| below.as_os_str().as_bytes().to_vec());
    extras.path.clone_from(&told_path);
    let (metadata, left_out) = fitting(FileMetadata::new(None, stat, extras));
    if told_path.is_some() && ParsedAttributes::of(&metadata).path != told_path {
        return Err(this(
            &"its path is no object's key, and an object's metadata has no room for it",
        ));
    }
    if !left_out.is_empty() {
        tracing::warn!(path = %path.display(), ?left_out, "an object's metadata is 2 KiB at most");
    }
    put(transfer, target.archive_id, &key, &body, &metadata)?;
    Ok(key)
}

/// As user metadata, and what there was no room for: of the attributes the largest, ACLs last. Without its ACL the
/// group's bits, which are its mask, would be the group's own rights.
fn fitting(mut told: FileMetadata) -> (HashMap<String, String>, Vec<String>) {
    let xattrs = &mut told.more.xattrs;
    xattrs.sort_by_key(|(name, value)| (!is_acl(name), name.len() + value.len()));
    let mut left_out = Vec::new();
    loop {
        let (metadata, rest) = told.to_map();
        if rest.is_empty() {
            return (metadata, left_out);
        }
        let Some((name, _)) = told.more.xattrs.pop() else {
            left_out.extend(rest);
            return (metadata, left_out);
        };
        if is_acl(&name) {
            told.mode &= !GROUP_BITS;
        }
        left_out.push(String::from_utf8_lossy(&name).into_owned());
    }
}

/// Removes the object of a directory or symlink that is no more. Anything else at the key stays.
///
/// # Errors
/// The store's refusal.
pub fn remove_node(transfer: Transfer<'_>, archive_id: ArchiveId, key: &ObjectKey) -> Result<(), TransferError> {
    let Some(found) = transfer.find(key.at(archive_id))? else {
        return Ok(());
    };
    let location = found.at(key.at(archive_id));
    match transfer.delete(Bearer::Nobody, &location, |found, _| {
        is_node(key, &found.metadata, found.size)
    }) {
        Err(TransferError::Store(StoreError::Precondition { .. })) => Ok(()),
        deleted => deleted,
    }
}

/// Whether an object stands for a directory or a symlink, and is no file's copy.
fn is_node(key: &ObjectKey, metadata: &HashMap<String, String>, size: u64) -> bool {
    let kind = ParsedAttributes::of(metadata)
        .mode
        .map_or(0, |mode| mode & libc::S_IFMT);
    let empty_directory = key.as_str().ends_with('/') && size == 0;
    empty_directory || matches!(kind, libc::S_IFDIR | libc::S_IFLNK)
}

/// What is no directory's or symlink's object is not replaced: it may be a file's only copy.
fn put(
    transfer: Transfer<'_>,
    archive_id: ArchiveId,
    key: &ObjectKey,
    body: &[u8],
    metadata: &HashMap<String, String>,
) -> Result<(), NodeError> {
    let store = transfer.store(archive_id).map_err(NodeError::All)?;
    // What nobody has seen to be heeded is not relied on alone.
    let mut condition = match transfer.try_conditions(archive_id)? && store.has_conditions() {
        true => Condition::Absent,
        false => demand(transfer, archive_id, key)?,
    };
    let mut unconditional = false;
    for _ in 0..3 {
        let error = match transfer.put_bytes(key.at(archive_id), condition.clone(), body, metadata.clone()) {
            Ok(()) => {
                // That it was the condition which it does not know is certain now.
                if unconditional {
                    store.lacks_conditions();
                }
                return Ok(());
            }
            Err(error) => error,
        };
        unconditional = match error {
            TransferError::Store(StoreError::Precondition { .. }) => false,
            // Where conditions were seen to work, it is something else that the store does not know.
            TransferError::Store(StoreError::Unsupported { .. })
                if condition != Condition::None && !store.quirks().has(Quirk::Conditions) =>
            {
                true
            }
            error => return Err(error.into()),
        };
        condition = demand(transfer, archive_id, key)?;
        if unconditional {
            condition = Condition::None;
        }
    }
    Err(NodeError::This("other writers are at its key".into()))
}

/// What a write has to demand of a key, by what is there now.
fn demand(transfer: Transfer<'_>, archive_id: ArchiveId, key: &ObjectKey) -> Result<Condition, NodeError> {
    let condition = match transfer.find(key.at(archive_id))? {
        Some(found) if is_node(key, &found.metadata, found.size) => Condition::Match(found.etag),
        Some(_) => return Err(NodeError::This(format!("'{key}' is another object"))),
        None => Condition::Absent,
    };
    match transfer.store(archive_id).map_err(NodeError::All)?.has_conditions() {
        true => Ok(condition),
        false => Ok(Condition::None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Timestamp;

    fn directory(xattrs: Vec<(Vec<u8>, Vec<u8>)>) -> FileMetadata {
        FileMetadata {
            mode: 0o042_770,
            uid: 0,
            gid: 0,
            atime: Timestamp::default(),
            mtime: Timestamp::default(),
            owner: None,
            more: ExtraMetadata {
                xattrs,
                ..ExtraMetadata::default()
            },
        }
    }

    #[test]
    fn a_directorys_acl_has_room_before_all_other_attributes_or_its_group_has_no_access() {
        let acl = |len| (b"system.posix_acl_access".to_vec(), vec![7; len]);
        let other = |len| (b"user.other".to_vec(), vec![8; len]);
        let (metadata, left_out) = fitting(directory(vec![other(1800), acl(600)]));
        assert_eq!(left_out, ["user.other"]);
        let told = ParsedAttributes::of(&metadata);
        assert_eq!((told.mode, told.xattrs), (Some(0o042_770), vec![acl(600)]));
        let (metadata, left_out) = fitting(directory(vec![acl(2000), other(9)]));
        assert_eq!(left_out, ["user.other", "system.posix_acl_access"]);
        assert_eq!(ParsedAttributes::of(&metadata).mode, Some(0o042_700));
    }
}
