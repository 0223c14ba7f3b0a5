//! What stands at a key: the file's copy before, and whether what an attempt has written is there and stays.

use super::JobError;
use super::attempt::Attempt;
use crate::action::CopyState;
use crate::mapped;
use crate::store::{Claim, KeyAt, Location, ObjectInfo, Origin, StoreError};
use crate::transfer::{Said, TransferError};

/// Whether an object that was written is there, and stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    /// Whoever deletes at its key from now on looks at it before, and finds who wrote it.
    Sure,
    /// It is not there: a deletion has taken it for the one before.
    Gone,
    /// It may go at any moment.
    InDoubt,
}

impl Attempt<'_> {
    /// Looks at what is said on the file of deletions (`crate::transfer::announce`), which is one call where nothing is; of a
    /// version none is needed.
    pub(super) fn standing(self, at: KeyAt<'_>, version: Option<&str>) -> Result<Standing, TransferError> {
        if version.is_some() {
            return Ok(Standing::Sure);
        }
        let run = self.run;
        let (fs, fid) = (run.context.fs.as_ref(), run.item.fid);
        match run.transfer.wait_for_deletions(fs, fid, at)? {
            Said::Nothing => return Ok(Standing::Sure),
            Said::UnderWay => return Ok(Standing::InDoubt),
            Said::Over => {}
        }
        match run.transfer.find(at) {
            Ok(found) => Ok(match found {
                Some(found) if Origin::of(&found, at.key).is_by(self.author) => Standing::Sure,
                // Another attempt's that was written over it is met by the condition.
                Some(_) | None => Standing::Gone,
            }),
            // Without s3:ListBucket a key with no object is "denied", too; the condition decides.
            Err(TransferError::Store(StoreError::Denied { .. })) => Ok(Standing::Gone),
            Err(error) => Err(error),
        }
    }

    /// A request that was dropped when its action was stopped may have been complete at the store: what it made
    /// is nobody's copy. One that arrives even later is found by the next archive of the file, which takes its
    /// key. Called after the answer: nobody waits.
    pub(super) fn sweep(self) {
        let run = self.run;
        if !run.context.may_destroy() {
            return;
        }
        let Ok((archive_id, key)) = run.natural_key() else {
            return;
        };
        let at = key.at(archive_id);
        let is_garbage = |found: &ObjectInfo, origin: &Origin| origin.is_by(self.author) && !run.is_mapped(at, found);
        let bearer = run.context.bearer(run.item.fid);
        match run.transfer.lane().sweep_key(bearer, at, None, is_garbage) {
            Ok(()) => run.look_after(at),
            Err(error) => tracing::debug!(%key, %error, "could not look for what a stopped archive left"),
        }
    }

    /// The file's own copy by its record, or without one by its key, if it has one that can be told to be its own.
    pub(super) fn previous(self, record: Option<&[u8]>, state: CopyState) -> Result<Option<Location>, JobError> {
        let location = match record.map(Location::from_bytes) {
            None => return self.told(state),
            Some(Ok(location)) => location,
            Some(Err(error)) => {
                // The copy it meant can't be found, and the file is here: it gets a new copy and a new record.
                tracing::warn!(%error, "archiving anew");
                return Ok(None);
            }
        };
        let key = &location.key;
        let own = match location.claim(self.owner()) {
            Claim::Own => true,
            Claim::Unsaid => self.says_so(&location)?,
            Claim::Anothers => false,
        };
        if !own {
            tracing::info!(%key, "the file's record was not written for it, or nothing tells that it was: what it names stays, and \
                 this is a first copy");
        }
        Ok(own.then_some(location))
    }

    /// That of a file without a record. One that was never archived costs no look.
    fn told(self, state: CopyState) -> Result<Option<Location>, JobError> {
        let Some(archive_id) = state.archive_id.filter(|_| state.archived) else {
            return Ok(None);
        };
        match mapped::by_key(self.run.transfer, archive_id, self.owner()) {
            Ok(told) => Ok(told.location),
            Err(error) if tells_nothing(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether an object says that it is that file's copy, where the file's record says nothing of it.
    fn says_so(self, location: &Location) -> Result<bool, JobError> {
        match self.run.transfer.head(location.at(), location.version.as_deref()) {
            Ok(found) => Ok(Origin::of(&found, &location.key).is_of(self.owner())),
            Err(error) if tells_nothing(&error) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether a look ended with that there is nothing to be seen.
const fn tells_nothing(error: &TransferError) -> bool {
    matches!(
        error,
        TransferError::NoTarget(_)
            | TransferError::Store(
                StoreError::NotFound { .. } | StoreError::Denied { .. } | StoreError::Refused { .. }
            )
    )
}
