//! Writes a file's copy to its key (`super::key`), as often as it takes until it stays there (`super::standing`).

use std::fs::File;
use std::os::unix::ffi::OsStringExt as _;
use std::sync::Arc;

use super::JobError;
use super::attempt::Attempt;
use super::key::go_to;
use super::log::AttemptLog;
use super::placing::{Placing, Written};
use super::run::Run;
use crate::action::CopyState;
use crate::store::{Checksum, Condition, Location, TargetOptions, note_data_version};
use crate::transfer::{ObjectDescription, Upload};

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

impl Attempt<'_> {
    /// Writes the object to its key, or to the one beside it.
    fn write(self, file: &Arc<File>, size: u64, to: Upload, previous: Option<&Location>) -> Result<Written, JobError> {
        let natural = to.key.clone();
        let mut placing = Placing::begin(self, size, to, previous)?;
        for _ in 0..ROUNDS {
            match self.run.transfer.upload(file, size, &placing.to) {
                Ok(uploaded) => {
                    if let Some(written) = placing.stored(uploaded)? {
                        return Ok(written);
                    }
                }
                Err(error) => placing.refused(error)?,
            }
        }
        Err(JobError::NoFreeKey(natural.to_string()))
    }
}
