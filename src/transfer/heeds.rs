//! Whether copies within a store keep what they demand of their key: tried before it is relied on, with an object of our
//! own. What writes demand is tried by the store's own room, for each daemon; copies are made by few commands.

use std::collections::HashMap;

use super::{Bearer, Transfer, TransferError};
use crate::store::{COOKIE, Condition, Location, ObjectKey, StoreError, WriterId};
use crate::types::{ArchiveId, Fid};

/// Versions that a trial can have made.
const MOST_MADE: usize = 3;

impl Transfer<'_> {
    /// Whether a store heeds what a copy demands of its key. One that does not could put an old copy over a new one.
    ///
    /// # Errors
    /// It can't be tried.
    pub fn copies_heed_conditions(self, archive_id: ArchiveId) -> Result<bool, TransferError> {
        let prefix = &self.store(archive_id)?.target().prefix;
        // Among the sidecars, where nobody imports it: what a killed process leaves goes when a daemon starts.
        let nobody = Fid { seq: 0, oid: 0, ver: 0 };
        let key = ObjectKey::sidecar(prefix, nobody, WriterId::random())?;
        let at = key.at(archive_id);
        let metadata = HashMap::from([(COOKIE.to_owned(), "probe".to_owned())]);
        self.put_bytes(at, Condition::None, b"probe", metadata.clone())?;
        let from = self.head(at, None)?.at(at);
        let copied = |from: &Location, condition| self.copy(from, &key, condition, &metadata);
        // Where the source's own ETag is refused (wanted without quotes, say), that tells nothing of the key's condition.
        let heeded = match copied(&from, &Condition::None) {
            Ok(now) => match copied(&now, &Condition::Absent) {
                Err(TransferError::Store(StoreError::Precondition { .. })) => Ok(true),
                Ok(_) | Err(TransferError::Store(StoreError::Unsupported { .. } | StoreError::Refused { .. })) => {
                    Ok(false)
                }
                Err(error) => Err(error),
            },
            Err(TransferError::Store(
                StoreError::Precondition { .. } | StoreError::Unsupported { .. } | StoreError::Refused { .. },
            )) => Ok(false),
            Err(error) => Err(error),
        };
        for _ in 0..MOST_MADE {
            self.lane.sweep_key(Bearer::Nobody, at, None, |_, _| true)?;
            if self.lane.glance(at, None)?.is_none() {
                break;
            }
        }
        heeded
    }
}
