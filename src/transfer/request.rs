//! Single requests about one object, with the same patience as transfers.

use std::time::Duration;

use super::retry::{pace, retry};
use super::{Control, Lane, TransferError};
use crate::store::{Location, ObjectInfo, ObjectKey, StoreError};
use crate::types::ArchiveId;

const SWEEP: Duration = Duration::from_secs(5);

/// What is at a key.
///
/// # Errors
/// [`StoreError::NotFound`] when nothing is.
pub fn head(
    lane: &Lane,
    control: &Control,
    archive_id: ArchiveId,
    key: &ObjectKey,
    version: Option<&str>,
) -> Result<ObjectInfo, TransferError> {
    let store = lane.store(archive_id)?;
    lane.block_on(retry(&lane.options().retry, control, pace(store), async |_| {
        Ok(store.head(key, version).await?)
    }))
}

/// Asks for a readable copy of an object in an archive class.
///
/// # Errors
/// The store's refusal.
pub fn thaw(lane: &Lane, control: &Control, location: &Location) -> Result<(), TransferError> {
    let store = lane.store(location.archive_id)?;
    lane.block_on(retry(&lane.options().retry, control, pace(store), async |_| {
        Ok(store.thaw(&location.key, location.version.as_deref()).await?)
    }))
}

/// Deletes exactly the object at a location. It is looked at before: an ETag names bytes, not an object, and
/// not every store heeds the condition of a delete. `is_ours` tells whether it is the one that is meant.
///
/// # Errors
/// [`StoreError::Precondition`] when another object has taken the key.
pub fn delete(
    lane: &Lane,
    control: &Control,
    location: &Location,
    is_ours: impl Fn(&ObjectInfo) -> bool,
) -> Result<(), TransferError> {
    let store = lane.store(location.archive_id)?;
    let (key, version) = (&location.key, location.version.as_deref());
    let other = || StoreError::Precondition {
        operation: "DeleteObject",
    };
    lane.block_on(retry(&lane.options().retry, control, pace(store), async |_| {
        match store.head(key, version).await {
            Ok(found) if found.etag == location.etag && is_ours(&found) => {}
            Ok(_) => return Err(other().into()),
            Err(StoreError::NotFound { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        match store.delete(key, version, Some(&location.etag)).await {
            // A store without conditional deletes.
            Err(StoreError::Unsupported { .. }) => Ok(store.delete(key, None, None).await?),
            result => Ok(result?),
        }
    }))
}

/// Deletes what is at a key if `is_garbage` says so. One try and a short time: for after an answer.
///
/// # Errors
/// The store did not help; the object, if there is one, stays.
pub fn sweep_key(
    lane: &Lane,
    archive_id: ArchiveId,
    key: &ObjectKey,
    version: Option<&str>,
    is_garbage: impl Fn(&ObjectInfo) -> bool,
) -> Result<(), TransferError> {
    let store = lane.store(archive_id)?;
    let sweep = async {
        match store.head(key, version).await {
            Ok(found) if is_garbage(&found) => store.delete(key, found.version.as_deref(), Some(&found.etag)).await,
            Ok(_) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    };
    let stalled = StoreError::Stalled {
        seconds: SWEEP.as_secs(),
    };
    lane.block_on(async { tokio::time::timeout(SWEEP, sweep).await })
        .unwrap_or(Err(stalled))
        .map_err(TransferError::from)
}
