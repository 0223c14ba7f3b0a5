//! Archive: begin > place > map > finish; on an objection of the coordinator, undo.

use std::fs::File;
use std::sync::Arc;

use super::attempt::Attempt;
use super::log::Trail;
use super::place::StoredCopy;
use super::run::Run;
use super::search;
use super::standing::Standing;
use super::{Ended, JobError, Outcome};
use crate::action::{ActionHandle, HsmError, Verdict};
use crate::journal::UploadRecord;
use crate::queue::PutOff;
use crate::store::{Location, ObjectInfo, ObjectKey, StoreError};
use crate::transfer::{Control, Stop, Transfer, TransferError};
use crate::types::{ErrorClass, Extent};

/// `rounds`: how often it was put off before, because it failed and was not to be answered.
pub(super) fn archive(run: Run<'_>, handle: Box<dyn ActionHandle>, rounds: u32) -> Outcome {
    let trail = Trail::new(run.context, run.item.key());
    let outcome = carry_out(run, handle, rounds);
    match &outcome {
        Outcome::Ended(ended) => trail.end(ended),
        Outcome::Later(..) => trail.put_off(),
    }
    outcome
}

fn carry_out(run: Run<'_>, mut handle: Box<dyn ActionHandle>, rounds: u32) -> Outcome {
    let author = run.author();
    let begun = handle.begin(None);
    if begun.is_err() && !run.transfer.control().is_handed_on() && run.clean_up().after(run.item.key()) {
        run.context.journal.taken(run.item.key());
    }
    let author = match &begun {
        Ok(Some(file)) => run.author_of(author, file),
        Ok(None) | Err(_) => author,
    };
    let attempt = Attempt { run, author: &author };
    let copied = begun.map_err(JobError::from).and_then(|file| {
        let file = Arc::new(file.ok_or(JobError::NotRegular)?);
        // Archived and released meanwhile, by another mover: a read would wait for a restore, here perhaps.
        let state = run.context.fs.prepare_archive(run.item.fid, run.item.archive_id)?;
        if state.released {
            return Err(JobError::Released);
        }
        let placed = attempt.place(&file, state)?;
        Ok((placed, file))
    });
    match copied {
        Ok((placed, file)) => attempt.commit(handle, &placed, file, rounds),
        Err(error) => {
            let handle = match run.put_off(handle, &error, rounds) {
                Ok(later) => return later,
                Err(handle) => handle,
            };
            // What a request made whose answer was not waited for, or not believed.
            let stopped = matches!(
                error,
                JobError::Transfer(
                    TransferError::Stopped(_)
                        | TransferError::Checksum { .. }
                        | TransferError::Store(StoreError::Corrupt { .. })
                )
            );
            let ended = run.refuse(handle, error);
            if stopped && !ended.is_handed_on() {
                attempt.sweep();
            }
            ended.into()
        }
    }
}

impl Run<'_> {
    /// Has an archive that failed begun anew later, as a successor would, where another mover may do it by now: an answer would
    /// end it there, too. What was written stays meanwhile.
    ///
    /// # Errors
    /// It is to be answered.
    fn put_off(
        self,
        handle: Box<dyn ActionHandle>,
        error: &JobError,
        rounds: u32,
    ) -> Result<Outcome, Box<dyn ActionHandle>> {
        let Some(until) = self.again_after(error, self.transfer.control().stopped(), rounds) else {
            return Err(handle);
        };
        tracing::warn!(%error, "the archive failed, and another mover may have taken it over: it is tried again");
        Ok(Outcome::Later(handle, until, PutOff::Other))
    }
}

impl Attempt<'_> {
    fn commit(self, handle: Box<dyn ActionHandle>, placed: &StoredCopy, file: Arc<File>, rounds: u32) -> Outcome {
        let outcome = self.map_and_finish(handle, placed, file, rounds);
        // Once more: while the record of before meant their key, they stayed.
        for left in &placed.left {
            self.discard(left, None);
        }
        outcome
    }

    fn map_and_finish(
        self,
        handle: Box<dyn ActionHandle>,
        placed: &StoredCopy,
        file: Arc<File>,
        rounds: u32,
    ) -> Outcome {
        let run = self.run;
        if let Some(error) = self.over(placed) {
            drop(file);
            self.undo(placed);
            return run.refuse(handle, error).into();
        }
        // Said before the record changes: who goes on after a kill in between finds the copy before only here.
        self.note_previous(placed, Previous::Goes);
        let mapped = if placed.needs_record {
            run.context.fs.set_map(run.item.fid, &placed.location.to_bytes())
        } else {
            Ok(())
        };
        // It is closed before the action ends: while somebody has it open nobody can release it.
        drop(file);
        let hindrance = match mapped {
            Ok(()) => self.taken_away(placed),
            Err(error) => Some(error.into()),
        };
        if let Some(error) = hindrance {
            if matches!(error, JobError::Transfer(TransferError::Stopped(Stop::HandOn))) {
                // As a kill at this moment would: whoever goes on finds the record, the object, and what the journal says.
                return run.refuse(handle, error).into();
            }
            self.note_previous(placed, Previous::Stays);
            let handle = match run.put_off(handle, &error, rounds) {
                Ok(later) => return later,
                Err(handle) => handle,
            };
            self.undo(placed);
            return run.refuse(handle, error).into();
        }
        let finished = run.finish(handle, Verdict::Done, placed.location.size);
        if finished.is_err() {
            self.note_previous(placed, Previous::Stays);
        }
        self.settle_copy(placed, finished).into()
    }

    /// Has the journal know what becomes of the copy before, whoever goes on from here. What the end does not count for is
    /// not to take it away.
    fn note_previous(self, placed: &StoredCopy, what: Previous) {
        let (journal, action) = (&self.run.context.journal, self.run.item.key());
        match (placed.replaced(), what) {
            (None, _) => {}
            (Some(previous), Previous::Goes) => journal.replacing(action, &placed.location, previous),
            (Some(_), Previous::Stays) => {
                let Location { archive_id, key, .. } = &placed.location;
                journal.uploading(action, &UploadRecord::single(*archive_id, key, self.author.writer));
            }
        }
    }

    /// Why an archive is over before its record is written. A cancel that came after the last byte still counts: the
    /// coordinator waits for ECANCELED. And only who is alive says where a file's copy is: after a time-out or a purge another
    /// mover may have archived the file, and this one's object goes. Without a record only the end says it.
    fn over(self, placed: &StoredCopy) -> Option<JobError> {
        let run = self.run;
        // The object is there: all that is left to do is to say so, and a successor would write it once more.
        if let Some(stop) = run.transfer.control().stopped().filter(|stop| *stop != Stop::HandOn) {
            return Some(TransferError::Stopped(stop).into());
        }
        if !placed.needs_record {
            return None;
        }
        match run.context.fs.progress(run.item.key(), Extent::EMPTY) {
            Err(error) if error.is_not_found() || error.is_cancelled() => Some(error.into()),
            // Whatever else it is, the end will tell.
            Ok(()) | Err(_) => None,
        }
    }

    /// Whether the object is not there any more, or may go, that the file's record means by now. Until then another attempt
    /// may have written over it, which has no right to the key any more and took its own away: whoever announces a deletion
    /// from here on finds the record. Without one the end is what they find (`super::readback`).
    fn taken_away(self, placed: &StoredCopy) -> Option<JobError> {
        if !placed.needs_record {
            return None;
        }
        let (run, location) = (self.run, &placed.location);
        // The same holds here; it gives up by itself.
        let patient = Arc::new(Control::default());
        let transfer = match run.transfer.control().is_handed_on() {
            true => Transfer::new(run.transfer.lane(), &patient),
            false => run.transfer,
        };
        let attempt = Attempt {
            run: Run { transfer, ..run },
            author: self.author,
        };
        match attempt.standing(location.at(), location.version.as_deref()) {
            Ok(Standing::Sure) => None,
            Ok(Standing::Gone | Standing::InDoubt) => Some(JobError::TakenAway(location.key.to_string())),
            Err(error) => Some(error.into()),
        }
    }

    /// What the coordinator's answer means for the object and the one before it.
    fn settle_copy(self, placed: &StoredCopy, finished: Result<(), HsmError>) -> Ended {
        let run = self.run;
        match finished {
            Ok(()) => {
                let own = self.settle_own(placed);
                let previous = self.settle_previous(placed);
                Ended {
                    left_something: !(own && previous),
                    ..Ended::done(placed.location.size).about(&placed.location.key)
                }
            }
            Err(error) => {
                // The MDT may have taken the copy all the same, and its answer got lost or says something else:
                // then a release may come any time, and this object is the file.
                match run.context.fs.is_archived(run.item.fid) {
                    Ok(true) => {
                        tracing::warn!(%error, "the coordinator objected, but the file is archived; keeping its copy");
                        let is_settled = !placed.needs_record || search::give_way(run, &placed.location);
                        // It goes, unless the file's record means it by then.
                        self.note_previous(placed, Previous::Goes);
                        // It may be another one's archive that counts, with other bytes.
                        match is_settled {
                            true => self.revoke_where_it_replaced_another(placed),
                            false => self.revoke(placed),
                        }
                    }
                    Err(unknown) if !unknown.is_not_found() => {
                        tracing::warn!(%error, %unknown, "the coordinator objected, and the file's state is unknown; keeping its copy");
                    }
                    Ok(false) => {
                        self.undo(placed);
                        self.revoke_where_another_counted(placed);
                    }
                    Err(_) => self.undo(placed),
                }
                Ended::failed(error.into())
            }
        }
    }

    /// The object, after an end that counted. `false`: it is nobody's, and was left.
    fn settle_own(self, placed: &StoredCopy) -> bool {
        let (run, location) = (self.run, &placed.location);
        if run.context.fs.is_unlinked(run.item.fid).unwrap_or(false) {
            tracing::info!(key = %location.key, "the file was unlinked meanwhile; deleting its object");
            return run
                .clean_up()
                .discard(location, self.owner(), None, |_, origin| origin.is_by(self.author));
        }
        if let Some(copy) = self.read_back(placed) {
            if placed.needs_record || copy != placed.location {
                run.context.journal.remember(run.item.fid, &copy);
            } else {
                // It is found without the file, by its key, and what was known of one before is not it.
                run.context.journal.forget(run.item.fid);
            }
        }
        true
    }

    /// The copy before, after an end that counted. `false`: something of it is left.
    fn settle_previous(self, placed: &StoredCopy) -> bool {
        let (run, owner, location) = (self.run, self.owner(), &placed.location);
        match (&placed.previous, placed.replaced()) {
            (_, Some(previous)) => {
                let is_kept = |found: &ObjectInfo| run.is_mapped(previous.at(), found);
                let gone = run
                    .clean_up()
                    .discard(previous, owner, Some(location), |found, origin| {
                        origin.is_of(owner)
                            && previous.is_written_as(found)
                            && !run.context.may_be_shared(found)
                            && !is_kept(found)
                    });
                run.clean_up().overwritten(owner, previous, is_kept) && gone
            }
            (Some(previous), None) => {
                run.clean_up().discard_sidecar(previous, owner, Some(location));
                true
            }
            (None, None) => true,
        }
    }

    /// The coordinator does not take the copy: it is garbage, and the file's record is what it was.
    fn undo(self, placed: &StoredCopy) {
        let (run, owner, location) = (self.run, self.owner(), &placed.location);
        let own = location.to_bytes();
        self.revoke_where_it_replaced_another(placed);
        // Another mover may have archived the file since, who learned of the end of this one before we did.
        let is_anothers = |now: Option<Vec<u8>>| now != placed.record && now.as_ref() != Some(&own);
        if run.context.fs.map(run.item.fid).is_ok_and(is_anothers) {
            tracing::info!(key = %location.key, "the file was archived anew meanwhile; that record stays");
            self.discard(location, None);
            run.look_after(location.at());
            return;
        }
        // The record first: it must never point at what is gone.
        let restored = match &placed.previous {
            // The former object is gone with the write. The new one is the file's only object now; it stays
            // and stays mapped, so that the next archive (the file is dirty) replaces just that.
            Some(previous) if placed.in_place() && location.version.is_none() => {
                // At once: what is written after the look at the record may be another mover's.
                let mapped = if placed.needs_record {
                    run.context.fs.set_map(run.item.fid, &own)
                } else {
                    is_there(run)
                };
                run.clean_up().discard_sidecar(previous, owner, Some(location));
                if mapped.as_ref().is_err_and(HsmError::is_not_found) {
                    tracing::info!(key = %location.key, "the file was unlinked meanwhile; deleting its object");
                    self.discard(location, None);
                } else {
                    tracing::warn!(key = %location.key, "the previous copy was replaced in place and can't be brought back; \
                         the file's data is in Lustre and is archived again with the next request");
                }
                mapped
            }
            previous => {
                let restored = match &placed.record {
                    Some(record) => run.context.fs.set_map(run.item.fid, record),
                    None if placed.needs_record => run.context.fs.clear_map(run.item.fid),
                    None => Ok(()),
                };
                self.revoke_where_it_replaced_another(placed);
                self.discard(location, previous.as_ref());
                run.look_after(location.at());
                restored
            }
        };
        match restored {
            Ok(()) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) => tracing::warn!(%error, "the file's record of its copy could not be put back"),
        }
    }

    /// An object that took the place of another attempt's: where that one's end counts, the file has no copy of what was
    /// archived. From here on nobody can release it; for a file that is not archived nothing changes.
    fn revoke_where_it_replaced_another(self, placed: &StoredCopy) {
        if placed.over_another
            && self.run.context.fs.is_archived(self.run.item.fid).unwrap_or(true)
            && !self.is_named_below(placed)
        {
            self.revoke(placed);
        }
    }

    /// Whether what was replaced is kept as a version below, and the file's record names it as what was archived.
    fn is_named_below(self, placed: &StoredCopy) -> bool {
        let (fs, fid) = (self.run.context.fs.as_ref(), self.run.item.fid);
        let names_archived = |record: &[u8]| {
            Location::from_bytes(record).is_ok_and(|named| {
                named.version.is_some()
                    && named.version != placed.location.version
                    && named.is_of_version(fs.archived_version(fid))
            })
        };
        placed.location.version.is_some()
            && fs
                .map(fid)
                .is_ok_and(|record| record.as_deref().is_some_and(names_archived))
    }

    /// The file was not archived when this attempt was undone. Where it is by now, and its record is that of before, the end
    /// of another attempt counted meanwhile, whose record this one has put back. One that needs none has its object.
    fn revoke_where_another_counted(self, placed: &StoredCopy) {
        let run = self.run;
        let fid = run.item.fid;
        if !run.context.fs.is_archived(fid).unwrap_or(false)
            || !run.context.fs.map(fid).is_ok_and(|now| now == placed.record)
        {
            return;
        }
        let archive_id = placed.location.archive_id;
        if placed.record.is_none()
            && let Ok(store) = run.transfer.store(archive_id)
            && let Ok(key) = ObjectKey::from_fid(&store.target().prefix, fid)
            && let Ok(Some(found)) = run.transfer.lane().glance(key.at(archive_id), None)
            && Location::told_by(&found, key.at(archive_id), self.owner()).is_some()
        {
            return;
        }
        self.revoke(placed);
    }

    fn revoke(self, placed: &StoredCopy) {
        let key = &placed.location.key;
        match self.run.context.fs.revoke(self.run.item.fid) {
            Ok(()) => {
                tracing::warn!(%key, "another attempt to archive the file counts, and this one was in its way: the file counts \
                 as not archived, and the next archive makes its copy anew")
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => {
                tracing::error!(%key, %error, "another attempt to archive the file counts, this one was in its way, and the \
                 file can't be marked as not archived: look whether it can be restored")
            }
        }
    }
}

/// What becomes of the copy before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Previous {
    /// Unless the file's record means it then.
    Goes,
    Stays,
}

/// An error where the file has no name any more.
fn is_there(run: Run<'_>) -> Result<(), HsmError> {
    match run.context.fs.is_unlinked(run.item.fid) {
        Ok(true) => Err(HsmError::of("lstat", ErrorClass::Gone)),
        Ok(false) | Err(_) => Ok(()),
    }
}
