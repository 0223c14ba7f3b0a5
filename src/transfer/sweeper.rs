//! Uploads that nobody will finish: a daemon died before it could write down or abort them.

use std::collections::HashSet;
use std::time::Duration;

use super::{Transfer, TransferError};
use crate::store::{CycleDetector, ListedUpload, hash};
use crate::types::{ArchiveId, Timestamp};

/// Uploads that can't be aborted, before the rest is left for the next time: each may take 20 s.
const MOST_FAILED: usize = 16;

impl Transfer<'_> {
    /// The uploads below an archive's prefix that are older than `age`.
    ///
    /// # Errors
    /// The store does not list its uploads.
    pub fn uploads(self, archive_id: ArchiveId, age: Duration) -> Result<Vec<ListedUpload>, TransferError> {
        let mut old = Vec::new();
        self.each_old(archive_id, age, |upload| {
            old.push(upload);
            Ok(())
        })?;
        Ok(old)
    }

    /// Aborts the uploads below an archive's prefix that are older than `age` and not among `live`; how many.
    ///
    /// # Errors
    /// The store does not list its uploads.
    pub fn sweep_uploads(
        self,
        archive_id: ArchiveId,
        age: Duration,
        live: &HashSet<String>,
    ) -> Result<usize, TransferError> {
        let (mut aborted, mut failed) = (0, 0);
        self.each_old(archive_id, age, |upload| {
            if live.contains(upload.id.as_str()) {
                return Ok(());
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
            Ok(())
        })?;
        Ok(aborted)
    }

    fn each_old(
        self,
        archive_id: ArchiveId,
        age: Duration,
        mut each: impl FnMut(ListedUpload) -> Result<(), TransferError>,
    ) -> Result<(), TransferError> {
        let store = self.store(archive_id)?;
        let age = i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
        let before = Timestamp::now().seconds.saturating_sub(age);
        let mut from = None;
        let mut places = CycleDetector::default();
        loop {
            let (uploads, next) = self.ask(store, async |_| Ok(store.list_uploads(from.clone()).await?))?;
            for upload in uploads {
                if let Some(stop) = self.control.stopped() {
                    return Err(TransferError::Stopped(stop));
                }
                if upload.initiated <= before {
                    each(upload)?;
                }
            }
            match next {
                // It would go on for ever.
                Some(next) if places.closes(hash(&next)) => {
                    tracing::warn!(
                        key = next.0,
                        "the store's list of uploads leads back to itself; the rest is not seen"
                    );
                    return Ok(());
                }
                Some(next) => from = Some(next),
                None => return Ok(()),
            }
        }
    }
}
