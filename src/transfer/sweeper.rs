//! Uploads that nobody will finish: a daemon died before it could write down or abort them.

use std::collections::HashSet;
use std::time::Duration;

use super::{Transfer, TransferError};
use crate::store::{CycleDetector, ListedUpload, hash};
use crate::types::{ArchiveId, Timestamp};

/// Uploads that can't be aborted, before the rest is left for the next time: each may take 20 s.
const MOST_FAILED: usize = 16;

/// How a sweep came out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SweptUploads {
    /// Uploads that were thrown away.
    pub aborted: usize,
    /// All were looked at.
    pub is_whole: bool,
}

impl Transfer<'_> {
    /// The uploads below an archive's prefix that are older than `age`.
    ///
    /// # Errors
    /// The store does not list its uploads.
    pub fn uploads(self, archive_id: ArchiveId, age: Duration) -> Result<Vec<ListedUpload>, TransferError> {
        let mut old = Vec::new();
        self.each_lot(archive_id, age, |lot| {
            old.extend(lot);
            Ok(true)
        })?;
        Ok(old)
    }

    /// Aborts the uploads below an archive's prefix that are older than `age` and not `live`, which is asked of some at a time:
    /// those of these ids that somebody goes on with, or `None` where that can't be told now. Then the rest stays.
    ///
    /// # Errors
    /// The store does not list its uploads.
    pub fn sweep_uploads(
        self,
        archive_id: ArchiveId,
        age: Duration,
        mut live: impl FnMut(&[&str]) -> Option<HashSet<String>>,
    ) -> Result<SweptUploads, TransferError> {
        let (mut aborted, mut failed) = (0, 0);
        let is_whole = self.each_lot(archive_id, age, |lot| {
            let ids: Vec<_> = lot.iter().map(|upload| upload.id.as_str()).collect();
            let Some(live) = live(&ids) else {
                return Ok(false);
            };
            for upload in lot.iter().filter(|upload| !live.contains(upload.id.as_str())) {
                if let Some(stop) = self.control.stopped() {
                    return Err(TransferError::Stopped(stop));
                }
                tracing::info!(key = %upload.key, "aborting an upload that nobody goes on with");
                match self.lane.abort_upload(upload.key.at(archive_id), &upload.id) {
                    Ok(()) => aborted += 1,
                    // One that can't go keeps no other from going.
                    Err(error) => {
                        failed += 1;
                        if failed >= MOST_FAILED {
                            return Err(error);
                        }
                        tracing::warn!(key = %upload.key, %error, "it can't be aborted");
                    }
                }
            }
            Ok(true)
        })?;
        Ok(SweptUploads { aborted, is_whole })
    }

    /// Old uploads, as the store lists some at a time, as long as `each` says `true`; whether it did to the end.
    fn each_lot(
        self,
        archive_id: ArchiveId,
        age: Duration,
        mut each: impl FnMut(Vec<ListedUpload>) -> Result<bool, TransferError>,
    ) -> Result<bool, TransferError> {
        let store = self.store(archive_id)?;
        let age = i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
        let before = Timestamp::now().seconds.saturating_sub(age);
        let mut from = None;
        let mut places = CycleDetector::default();
        loop {
            let (mut uploads, next) = self.ask(store, async |_| Ok(store.list_uploads(from.clone()).await?))?;
            uploads.retain(|upload| upload.initiated <= before);
            if !uploads.is_empty() && !each(uploads)? {
                return Ok(false);
            }
            match next {
                // It would go on for ever.
                Some(next) if places.closes(hash(&next)) => {
                    tracing::warn!(
                        key = next.0,
                        "the store's list of uploads leads back to itself; the rest is not seen"
                    );
                    return Ok(true);
                }
                Some(next) => from = Some(next),
                None => return Ok(true),
            }
        }
    }
}
