//! Single requests about one object, with the same patience as transfers.

use std::time::Duration;

use super::retry::retry;
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
    lane.block_on(retry(&lane.options().retry, control, async |_| {
        Ok(store.head(key, version).await?)
    }))
}

/// Deletes exactly the object at a location, also where the store knows no conditional deletes.
///
/// # Errors
/// [`StoreError::Precondition`] when another object has taken the key.
pub fn delete(lane: &Lane, control: &Control, location: &Location) -> Result<(), TransferError> {
    let store = lane.store(location.archive_id)?;
    let (key, version) = (&location.key, location.version.as_deref());
    lane.block_on(retry(&lane.options().retry, control, async |_| {
        match store.delete(key, version, Some(&location.etag)).await {
            Err(StoreError::Unsupported { .. }) => {}
            result => return Ok(result?),
        }
        match store.head(key, None).await {
            Ok(found) if found.etag == location.etag => Ok(store.delete(key, None, None).await?),
            Ok(_) => Err(StoreError::Precondition {
                operation: "DeleteObject",
            }
            .into()),
            Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
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
    is_garbage: impl Fn(&ObjectInfo) -> bool,
) -> Result<(), TransferError> {
    let store = lane.store(archive_id)?;
    let sweep = async {
        match store.head(key, None).await {
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
