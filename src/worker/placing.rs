//! Where the writing of a file's copy (`super::place`) goes: what may be replaced there, and what is done about what the store
//! says.

use super::JobError;
use super::attempt::Attempt;
use super::key::go_to;
use super::standing::Standing;
use crate::store::{Checksum, Condition, Location, Quirk, StoreError};
use crate::transfer::{TransferError, Upload, UploadedObject};

/// What was written.
pub(super) struct Written {
    pub(super) location: Location,
    /// It replaced an object of this file that the file's record did not mean.
    pub(super) over_another: bool,
    /// What was written to other keys before, where a deletion of what is there may be under way.
    pub(super) left: Vec<Location>,
    /// What the store keeps as the object's checksum.
    pub(super) by_store: Option<Checksum>,
}

/// The writing of a copy, while it is found out where it can go and what it may replace.
pub(super) struct Placing<'a> {
    attempt: Attempt<'a>,
    size: u64,
    pub(super) to: Upload,
    previous: Option<&'a Location>,
    /// [`Location::pinned`]
    pinned: bool,
    /// The ETag of this file's object that is to be replaced, as far as one was seen.
    over: Option<String>,
    /// It is tried without a condition, which the store did not seem to know.
    unconditional: bool,
    /// [`Written::left`]
    left: Vec<Location>,
}

impl<'a> Placing<'a> {
    /// To the key of the previous copy, where the file's own rule would have had it, else to the one that `to` has.
    pub(super) fn begin(
        attempt: Attempt<'a>,
        size: u64,
        to: Upload,
        previous: Option<&'a Location>,
    ) -> Result<Self, JobError> {
        let mut placing = Self {
            attempt,
            size,
            to,
            previous,
            pinned: false,
            over: None,
            unconditional: false,
            left: Vec::new(),
        };
        let beside = placing.to.key.beside(attempt.owner().fid);
        let mut unproven = false;
        if let Some(previous) = previous.filter(|previous| {
            previous.archive_id == placing.to.archive_id
                && (previous.pinned
                    || previous.key == placing.to.key
                    || beside.as_ref().is_ok_and(|beside| *beside == previous.key))
        }) {
            placing.pinned = previous.pinned;
            go_to(&mut placing.to, previous.key.clone());
            placing.to.condition = Condition::Match(previous.etag.clone());
            // An import knows where an object is, and not whose it is, too.
            unproven = previous.writer.is_none();
        }
        placing.look_first(unproven)?;
        Ok(placing)
    }

    /// Looks at what is at the key before anything is sent there, where that is not left to the condition alone. `unproven`:
    /// nobody has said that the previous copy is this file's.
    fn look_first(&mut self, unproven: bool) -> Result<(), JobError> {
        let run = self.attempt.run;
        let store = run.transfer.store(self.to.archive_id)?;
        // What nobody has seen to be heeded is not relied on alone.
        let untried = !run.transfer.try_conditions(self.to.archive_id)?;
        // Before the data of a large file is sent in vain; the condition still guards the moment itself.
        let large = self.size > run.transfer.options().plan.threshold;
        let is_left = store.has_conditions() && !(large && self.to.condition == Condition::Absent);
        if is_left && !unproven && !untried {
            return Ok(());
        }
        match self.look() {
            // Without s3:ListBucket a key with no object is "denied", too; the condition decides.
            Err(JobError::Transfer(TransferError::Store(StoreError::Denied { .. }))) if store.has_conditions() => {
                // What can't be looked at is not replaced.
                if unproven {
                    self.to.condition = Condition::Absent;
                }
                Ok(())
            }
            looked => looked,
        }
    }

    fn look(&mut self) -> Result<(), JobError> {
        self.over = self.attempt.look(self.previous, &mut self.to)?;
        Ok(())
    }

    /// The object is there. `None`: it does not stay, and is to be written again.
    pub(super) fn stored(&mut self, uploaded: UploadedObject) -> Result<Option<Written>, JobError> {
        let attempt = self.attempt;
        let store = attempt.run.transfer.store(self.to.archive_id)?;
        if self.unconditional {
            store.lacks_conditions();
        }
        match attempt.standing(self.to.at(), uploaded.stored.version.as_deref())? {
            Standing::Sure => {}
            Standing::Gone => {
                tracing::info!(key = %self.to.key, "a deletion of the file's former object took this one away; it is written \
                    again");
                self.over = None;
                self.to.condition = Condition::Absent;
                if !store.has_conditions() {
                    self.look()?;
                }
                return Ok(None);
            }
            Standing::InDoubt => {
                let own = attempt.located(&self.to, uploaded, self.size, self.pinned);
                attempt.discard(&own, None);
                self.left.push(own);
                let why = "a deletion at the key goes on and on, or its mover is dead: what is there may go";
                self.over = attempt.go_beside(&mut self.to, why)?;
                if !store.has_conditions() {
                    self.to.condition = Condition::None;
                }
                return Ok(None);
            }
        }
        let is_mapped = |etag: &String| {
            self.previous
                .is_some_and(|previous| previous.key == self.to.key && previous.etag == *etag)
        };
        let over_another = self.over.as_ref().is_some_and(|etag| !is_mapped(etag));
        Ok(Some(Written {
            over_another,
            left: std::mem::take(&mut self.left),
            by_store: uploaded.stored.checksum,
            location: attempt.located(&self.to, uploaded, self.size, self.pinned),
        }))
    }

    /// What to do otherwise where the store has refused it.
    ///
    /// # Errors
    /// Nothing can be: its error.
    pub(super) fn refused(&mut self, error: TransferError) -> Result<(), JobError> {
        match error {
            TransferError::Store(StoreError::Precondition { .. }) => self.look(),
            // Some stores say 404 where the object to be matched is gone.
            TransferError::Store(StoreError::NotFound { .. }) if matches!(self.to.condition, Condition::Match(_)) => {
                self.to.condition = Condition::Absent;
                self.over = None;
                Ok(())
            }
            // Where conditions were seen to work, it is something else that the store does not know.
            TransferError::Store(StoreError::Unsupported { .. }) if self.may_be_the_condition()? => {
                // Second best, and all that such a store offers: look first, then write. That it was the condition
                // which it does not know is certain when it takes the same without.
                self.look()?;
                self.to.condition = Condition::None;
                self.unconditional = true;
                Ok(())
            }
            error => Err(error.into()),
        }
    }

    fn may_be_the_condition(&self) -> Result<bool, JobError> {
        let store = self.attempt.run.transfer.store(self.to.archive_id)?;
        Ok(self.to.condition != Condition::None && !store.quirks().has(Quirk::Conditions))
    }
}

impl Attempt<'_> {
    /// What was uploaded, without its sidecar and data version.
    fn located(self, to: &Upload, uploaded: UploadedObject, size: u64, pinned: bool) -> Location {
        Location {
            archive_id: to.archive_id,
            key: to.key.clone(),
            size,
            etag: uploaded.stored.etag,
            version: uploaded.stored.version,
            checksum: Some(uploaded.checksum),
            pinned,
            layout: None,
            sidecar: None,
            written_for: Some(self.owner().clone()),
            writer: Some(self.author.writer),
            cookie: Some(self.author.cookie),
            data_version: None,
        }
    }
}
