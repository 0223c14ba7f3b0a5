//! Writes a file's copy to its key (`super::key`), as often as it takes until it stays there (`super::standing`).

use std::fs::File;
use std::os::unix::ffi::OsStringExt as _;
use std::sync::Arc;

use super::JobError;
use super::attempt::Attempt;
use super::key::go_to;
use super::log::AttemptLog;
use super::run::Run;
use super::standing::Standing;
use crate::action::CopyState;
use crate::store::{Checksum, Condition, Location, Quirk, StoreError, TargetOptions, note_data_version};
use crate::transfer::{ObjectDescription, TransferError, Upload, UploadedObject};

/// Enough for any honest race; each round answers something that another writer just did.
const ROUNDS: usize = 8;

/// A copy that is stored and verified, not yet the file's.
#[derive(Debug)]
pub(super) struct StoredCopy {
    pub(super) location: Location,
    /// The copy that it takes the place of: the file's own.
    pub(super) previous: Option<Location>,
    /// The file's record before, whatever it says: that is put back when the archive fails.
    pub(super) record: Option<Vec<u8>>,
    /// Its object took the place of one of this file that the record did not mean: another attempt's.
    pub(super) over_another: bool,
    /// What was written to other keys before, where a deletion of what is there may be under way.
    pub(super) left: Vec<Location>,
    /// The key does not tell all of it, or the file has a record already, which must not go on saying something else.
    pub(super) needs_record: bool,
}

impl StoredCopy {
    /// Whether the previous copy's object was replaced in place (and is gone, without versioning).
    pub(super) fn in_place(&self) -> bool {
        self.previous
            .as_ref()
            .is_some_and(|previous| previous.is_at(&self.location))
    }

    /// The previous copy, where its object is another one and stays until it is deleted.
    pub(super) fn replaced(&self) -> Option<&Location> {
        self.previous.as_ref().filter(|_| !self.in_place())
    }
}

impl Attempt<'_> {
    /// Stores a copy of the file, and sees to it that it stays.
    pub(super) fn place(self, file: &Arc<File>, state: CopyState) -> Result<StoredCopy, JobError> {
        let (run, owner) = (self.run, self.owner());
        let stat = file.metadata().map_err(JobError::Attributes)?;
        if !stat.is_file() {
            return Err(JobError::NotRegular);
        }
        let record = run.context.fs.map(run.item.fid)?;
        let previous = self.previous(record.as_deref(), state)?;
        let (archive_id, natural, path) = run.natural_key_and_path()?;
        self.announce(natural.at(archive_id));
        let mut extras = run.context.fs.extras(run.item.fid, file)?;
        extras.path = path.map(|path| path.into_os_string().into_vec());
        let ObjectDescription { mut metadata, sidecar } =
            run.transfer.describe(archive_id, self.author, &stat, extras)?;
        // HSM keeps it for the archived one, if the end counts: then nobody has written to the file in between.
        let data_version = run.context.fs.data_version(file);
        note_data_version(&mut metadata, data_version);
        let mut to = Upload {
            archive_id,
            key: natural.clone(),
            condition: Condition::Absent,
            metadata,
            is_data: true,
            log: Arc::new(AttemptLog::new(self, data_version, stat.len())),
        };
        go_to(&mut to, natural);
        match self.write(file, stat.len(), to, previous.as_ref()) {
            Ok(written) => {
                let location = Location {
                    sidecar,
                    data_version,
                    ..written.location
                };
                Ok(StoredCopy {
                    needs_record: record.is_some() || needs_record(run, state, &location, written.by_store),
                    location,
                    previous,
                    record,
                    over_another: written.over_another,
                    left: written.left,
                })
            }
            Err(error) => {
                if !run.transfer.control().is_handed_on() && run.context.may_destroy() {
                    let lane = run.transfer.lane();
                    lane.discard_sidecar(archive_id, sidecar.as_ref(), owner, previous.as_ref());
                }
                Err(error)
            }
        }
    }
}

/// Whether a file that has no record needs one for that copy.
fn needs_record(run: Run<'_>, state: CopyState, location: &Location, by_store: Option<Checksum>) -> bool {
    let is_told = |target: &TargetOptions| target.goes_without_records() && location.is_told(&target.prefix, by_store);
    !run.transfer
        .store(location.archive_id)
        .is_ok_and(|store| is_told(store.target()))
        || state.archive_id != Some(location.archive_id)
        || !run.context.fs.keeps_fids()
}

/// What was written.
struct Written {
    location: Location,
    /// It replaced an object of this file that the file's record did not mean.
    over_another: bool,
    /// [`StoredCopy::left`]
    left: Vec<Location>,
    /// What the store keeps as the object's checksum.
    by_store: Option<Checksum>,
}

impl Attempt<'_> {
    /// Writes the object to its key, or to the one beside it.
    fn write(
        self,
        file: &Arc<File>,
        size: u64,
        mut to: Upload,
        previous: Option<&Location>,
    ) -> Result<Written, JobError> {
        let (archive_id, natural) = (to.archive_id, to.key.clone());
        let (run, owner) = (self.run, self.owner());
        let beside = natural.beside(owner.fid);
        let mut pinned = false;
        let mut unproven = false;
        // The ETag of this file's object that is to be replaced, as far as one was seen.
        let mut over = None;
        if let Some(previous) = previous.filter(|previous| {
            previous.archive_id == archive_id
                && (previous.pinned
                    || previous.key == natural
                    || beside.as_ref().is_ok_and(|beside| *beside == previous.key))
        }) {
            pinned = previous.pinned;
            go_to(&mut to, previous.key.clone());
            to.condition = Condition::Match(previous.etag.clone());
            // An import knows where an object is, and not whose it is, too.
            unproven = previous.writer.is_none();
        }
        let store = run.transfer.store(archive_id)?;
        // What nobody has seen to be heeded is not relied on alone.
        let untried = !run.transfer.try_conditions(archive_id)?;
        // Before the data of a large file is sent in vain; the condition still guards the moment itself.
        let large = size > run.transfer.options().plan.threshold;
        if unproven || untried || (large && to.condition == Condition::Absent) || !store.has_conditions() {
            match self.look(previous, &mut to) {
                // Without s3:ListBucket a key with no object is "denied", too; the condition decides.
                Err(JobError::Transfer(TransferError::Store(StoreError::Denied { .. }))) if store.has_conditions() => {
                    // What can't be looked at is not replaced.
                    if unproven {
                        to.condition = Condition::Absent;
                    }
                }
                looked => over = looked?,
            }
        }
        let mut unconditional = false;
        let mut left = Vec::new();
        for _ in 0..ROUNDS {
            let error = match run.transfer.upload(file, size, &to) {
                Ok(uploaded) => {
                    if unconditional {
                        store.lacks_conditions();
                    }
                    match self.standing(to.at(), uploaded.stored.version.as_deref())? {
                        Standing::Sure => {}
                        Standing::Gone => {
                            tracing::info!(key = %to.key, "a deletion of the file's former object took this one away; it is written \
                             again");
                            over = None;
                            to.condition = Condition::Absent;
                            if !store.has_conditions() {
                                over = self.look(previous, &mut to)?;
                            }
                            continue;
                        }
                        Standing::InDoubt => {
                            let own = self.located(&to, uploaded, size, pinned);
                            self.discard(&own, None);
                            left.push(own);
                            let why =
                                "a deletion at the key goes on and on, or its mover is dead: what is there may go";
                            over = self.go_beside(&mut to, why)?;
                            if !store.has_conditions() {
                                to.condition = Condition::None;
                            }
                            continue;
                        }
                    }
                    let is_mapped = |etag: &String| {
                        previous.is_some_and(|previous| previous.key == to.key && previous.etag == *etag)
                    };
                    let over_another = over.as_ref().is_some_and(|etag| !is_mapped(etag));
                    return Ok(Written {
                        over_another,
                        left,
                        by_store: uploaded.stored.checksum,
                        location: self.located(&to, uploaded, size, pinned),
                    });
                }
                Err(error) => error,
            };
            match error {
                TransferError::Store(StoreError::Precondition { .. }) => {
                    over = self.look(previous, &mut to)?;
                }
                // Some stores say 404 where the object to be matched is gone.
                TransferError::Store(StoreError::NotFound { .. }) if matches!(to.condition, Condition::Match(_)) => {
                    to.condition = Condition::Absent;
                    over = None;
                }
                // Where conditions were seen to work, it is something else that the store does not know.
                TransferError::Store(StoreError::Unsupported { .. })
                    if to.condition != Condition::None && !store.quirks().has(Quirk::Conditions) =>
                {
                    // Second best, and all that such a store offers: look first, then write. That it was the condition
                    // which it does not know is certain when it takes the same without.
                    over = self.look(previous, &mut to)?;
                    to.condition = Condition::None;
                    unconditional = true;
                }
                error => return Err(error.into()),
            }
        }
        Err(JobError::NoFreeKey(natural.to_string()))
    }

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
