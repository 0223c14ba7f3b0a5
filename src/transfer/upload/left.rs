//! Multipart uploads that are left at the store: gone on with, or thrown away.

use std::collections::HashMap;
use std::time::Duration;

use super::Sending;
use super::log::UploadedObject;
use crate::store::{Checksum, KeyAt, ObjectKey, SentPart, StoreError, UploadId};
use crate::transfer::{Lane, Plan, TransferError};

/// For requests that clean up after a failure: they must end, too.
const CLEAN_UP: Duration = Duration::from_secs(20);

/// What a former daemon left at the store.
pub(super) enum Leftover {
    Nothing,
    /// With the parts that need not be sent again.
    Upload(UploadId, HashMap<u32, SentPart>),
    /// It died while the store made the object.
    Object(UploadedObject),
}

impl Sending<'_> {
    /// Parts are good when the log and the store agree on them. An upload that can't be gone on with is thrown away.
    ///
    /// # Errors
    /// It was stopped, and somebody else goes on with it.
    pub(super) fn go_on(&self, plan: Plan) -> Result<Leftover, TransferError> {
        let Self { store, to, size, .. } = self;
        let Some(left) = to.log.unfinished() else {
            return Ok(Leftover::Nothing);
        };
        let fits = left.same_data && left.key == to.key && left.size == *size && left.part_size == plan.part(0).length;
        let listed = self
            .transfer
            .ask(store, async |_| Ok(store.list_parts(&left.key, &left.upload).await?));
        let listed = match listed {
            Ok(listed) if fits => listed,
            Err(error) if self.transfer.control.is_handed_on() => return Err(error),
            Err(TransferError::Store(StoreError::NotFound { .. })) if fits => {
                let made = self.made(plan, &left.parts);
                return Ok(made.map_or(Leftover::Nothing, Leftover::Object));
            }
            listed => {
                tracing::info!(
                    key = %left.key, same_data = left.same_data, fits, error = listed.err().map(tracing::field::display),
                    "the upload of a former daemon can't be gone on with"
                );
                if !left.is_anothers && to.log.may_abort() {
                    self.abort(&left.key, &left.upload);
                }
                return Ok(Leftover::Nothing);
            }
        };
        let mut parts = left.parts;
        if left.is_anothers {
            let kind = store.target().checksum;
            let told = listed.iter().filter_map(|part| {
                let index = u32::try_from(part.number).ok()?.checked_sub(1)?;
                Some((index, part.sent(kind)?))
            });
            parts.extend(told);
        }
        let has = |index: u32, part: &SentPart| {
            let length = plan.part(index as usize).length;
            listed.iter().any(|listed| {
                listed.number == part.stored.number && listed.etag == part.stored.etag && listed.size == length
            })
        };
        parts.retain(|index, part| has(*index, part));
        tracing::info!(key = %left.key, parts = parts.len(), of = plan.count(), "going on with the upload of a former daemon");
        Ok(Leftover::Upload(left.upload, parts))
    }

    /// The object that an upload has become, if it has just the bytes of our parts.
    fn made(&self, plan: Plan, parts: &HashMap<u32, SentPart>) -> Option<UploadedObject> {
        let Self { store, to, size, .. } = self;
        let indices = 0..u32::try_from(plan.count()).ok()?;
        let sums: Vec<Checksum> = indices
            .map(|index| parts.get(&index).map(|part| part.checksum))
            .collect::<Option<_>>()?;
        let whole = plan.combine(sums);
        let found = self.transfer.ask(store, async |_| Ok(store.head(&to.key, None).await?));
        let found = found
            .ok()
            .filter(|found| found.size == *size && found.checksum == Some(whole))?;
        if !is_same(&found.metadata, &to.metadata) {
            return None;
        }
        tracing::info!(key = %to.key, "a former daemon's upload was completed; taking its object");
        Some(UploadedObject {
            stored: found.into_stored(),
            checksum: whole,
        })
    }

    pub(super) fn abort(&self, key: &ObjectKey, upload: &UploadId) {
        if let Err(error) = self.transfer.lane.abort_upload(key.at(self.to.archive_id), upload) {
            tracing::warn!(%key, %error, "a multipart upload could not be aborted; its parts stay until a lifecycle rule removes them");
        }
    }
}

/// Whether an object was written by the same action: all that is ours agrees. Times may differ, a reader changes one.
pub(super) fn is_same(found: &HashMap<String, String>, wanted: &HashMap<String, String>) -> bool {
    wanted
        .iter()
        .filter(|(name, _)| name.starts_with("lhsm-"))
        .all(|(name, value)| found.get(name) == Some(value))
}

impl Lane {
    /// Throws an upload away that nobody goes on with.
    ///
    /// # Errors
    /// The store did not take it.
    pub fn abort_upload(&self, at: KeyAt<'_>, upload: &UploadId) -> Result<(), TransferError> {
        let store = self.store(at.archive_id)?;
        let aborted = self.block_on(async { tokio::time::timeout(CLEAN_UP, store.abort_upload(at.key, upload)).await });
        let seconds = CLEAN_UP.as_secs();
        Ok(aborted.unwrap_or(Err(StoreError::Stalled { seconds }))?)
    }
}
