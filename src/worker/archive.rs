//! Archive: begin > place > map > finish; on an objection of the coordinator, undo.

use std::fs::File;
use std::sync::Arc;

use super::log::{Trail, author, sweep_overwritten};
use super::place::{Standing, StoredCopy, is_mapped, look_after, may_be_shared, place, standing, sweep};
use super::readback::read_back;
use super::{Context, Ended, JobError};
use crate::action::{ActionHandle, HsmError, Item, Verdict};
use crate::journal::UploadRecord;
use crate::store::{Location, ObjectInfo, ObjectKey, Origin, Owner, StoreError, WriteAttempt};
use crate::transfer::{Bearer, Control, IdleThreads, Lane, Stop, TransferError, discard_sidecar, glance, sweep_key};
use crate::types::{ErrorClass, Extent};

pub(super) fn archive(
    context: &Context,
    lane: &Lane,
    idle_threads: &dyn IdleThreads,
    control: &Arc<Control>,
    handle: Box<dyn ActionHandle>,
) -> Ended {
    let trail = Trail::new(context, handle.item().key());
    let ended = carry_out(context, lane, idle_threads, control, handle);
    trail.end(&ended);
    ended
}

fn carry_out(
    context: &Context,
    lane: &Lane,
    idle_threads: &dyn IdleThreads,
    control: &Arc<Control>,
    mut handle: Box<dyn ActionHandle>,
) -> Ended {
    let author = author(context, lane, handle.item());
    let begun = handle.begin(None);
    if begun.is_err() && super::log::clean_up(context, lane, handle.item().key()) {
        context.journal.taken(handle.item().key());
    }
    let copied = begun.map_err(JobError::from).and_then(|file| {
        let file = Arc::new(file.ok_or(JobError::NotRegular)?);
        // Archived and released meanwhile, by another mover: a read would wait for a restore, here perhaps.
        let state = context
            .fs
            .prepare_archive(handle.item().fid, handle.item().archive_id)?;
        if state.released {
            return Err(JobError::Released);
        }
        let placed = place(
            context,
            lane,
            idle_threads,
            control,
            handle.item(),
            (&author, &file, state),
        )?;
        Ok((placed, file))
    });
    match copied {
        Ok((placed, file)) => commit(context, lane, control, handle, (&author, &placed), file),
        Err(error) => {
            // What a request made whose answer was not waited for, or not believed.
            let stopped = matches!(
                error,
                JobError::Transfer(
                    TransferError::Stopped(_)
                        | TransferError::Checksum { .. }
                        | TransferError::Store(StoreError::Corrupt { .. })
                )
            );
            let item = handle.item().clone();
            let ended = super::responder::refuse(control, handle, error);
            if stopped && !ended.is_handed_on() {
                sweep(context, lane, &item, &author);
            }
            ended
        }
    }
}

fn commit(
    context: &Context,
    lane: &Lane,
    control: &Control,
    handle: Box<dyn ActionHandle>,
    (author, placed): (&WriteAttempt, &StoredCopy),
    file: Arc<File>,
) -> Ended {
    let item = handle.item().clone();
    let ended = map_and_finish(context, lane, control, handle, (author, placed), file);
    // Once more: while the record of before meant their key, they stayed.
    placed
        .left
        .iter()
        .for_each(|left| discard_left(context, lane, &item, author, left));
    ended
}

/// What an attempt has written to a key that it went away from.
pub(super) fn discard_left(context: &Context, lane: &Lane, item: &Item, author: &WriteAttempt, left: &Location) {
    discard(context, lane, left, &author.owner, None, |found, origin| {
        origin.is_by(author) && !is_mapped(context, item.fid, (left.archive_id, &left.key), found)
    });
}

fn map_and_finish(
    context: &Context,
    lane: &Lane,
    control: &Control,
    handle: Box<dyn ActionHandle>,
    (author, placed): (&WriteAttempt, &StoredCopy),
    file: Arc<File>,
) -> Ended {
    let item = handle.item().clone();
    let size = placed.location.size;
    if let Some(error) = over(context, control, &item, placed) {
        drop(file);
        undo(context, lane, &item, author, placed);
        return super::responder::refuse(control, handle, error);
    }
    // Said before the record changes: who goes on after a kill in between finds the copy before only here.
    let replaced = placed.previous.as_ref().filter(|_| !placed.in_place());
    if let Some(previous) = replaced {
        context.journal.replacing(item.key(), &placed.location, previous);
    }
    let mapped = if placed.needs_record {
        context.fs.set_map(item.fid, &placed.location.to_bytes())
    } else {
        Ok(())
    };
    // It is closed before the action ends: while somebody has it open nobody can release it.
    drop(file);
    let hindrance = match mapped {
        Ok(()) => taken_away(context, lane, control, author, placed),
        Err(error) => Some(error.into()),
    };
    if let Some(error) = hindrance {
        if control.is_handed_on() {
            // As a kill at this moment would: whoever goes on finds the record, the object, and what the journal says.
            return super::responder::refuse(control, handle, error);
        }
        keep_previous(context, &item, author, placed, replaced);
        undo(context, lane, &item, author, placed);
        return super::responder::refuse(control, handle, error);
    }
    let finished = super::responder::finish(control, handle, Verdict::Done, size);
    if finished.is_err() {
        keep_previous(context, &item, author, placed, replaced);
    }
    settle_copy(context, lane, &item, (author, placed), replaced, finished)
}

/// The end did not count: the copy before is not to go.
fn keep_previous(
    context: &Context,
    item: &Item,
    author: &WriteAttempt,
    placed: &StoredCopy,
    replaced: Option<&Location>,
) {
    if replaced.is_some() {
        let Location { archive_id, key, .. } = &placed.location;
        let own = UploadRecord::single(*archive_id, key, author.writer);
        context.journal.uploading(item.key(), &own);
    }
}

/// Why an archive is over before its record is written. A cancel that came after the last byte still counts: the
/// coordinator waits for ECANCELED. And only who is alive says where a file's copy is: after a time-out or a purge another
/// mover may have archived the file, and this one's object goes. Without a record only the end says it.
fn over(context: &Context, control: &Control, item: &Item, placed: &StoredCopy) -> Option<JobError> {
    // The object is there: all that is left to do is to say so, and a successor would write it once more.
    if let Some(stop) = control.stopped().filter(|stop| *stop != Stop::HandOn) {
        return Some(TransferError::Stopped(stop).into());
    }
    if !placed.needs_record {
        return None;
    }
    match context.fs.progress(item.key(), Extent::EMPTY) {
        Err(error) if error.is_not_found() || error.is_cancelled() => Some(error.into()),
        // Whatever else it is, the end will tell.
        Ok(()) | Err(_) => None,
    }
}

/// Whether the object is not there any more, or may go, that the file's record means by now. Until then another attempt may
/// have written over it, which has no right to the key any more and took its own away: whoever announces a deletion from
/// here on finds the record. Without one the end is what they find (`super::readback`).
fn taken_away(
    context: &Context,
    lane: &Lane,
    control: &Control,
    author: &WriteAttempt,
    placed: &StoredCopy,
) -> Option<JobError> {
    if !placed.needs_record {
        return None;
    }
    let Location {
        archive_id,
        key,
        version,
        ..
    } = &placed.location;
    // The same holds here; it gives up by itself.
    let patient = Control::default();
    let control = if control.is_handed_on() { &patient } else { control };
    match standing(context, lane, control, author, (*archive_id, key, version.as_deref())) {
        Ok(Standing::Sure) => None,
        Ok(Standing::Gone | Standing::InDoubt) => Some(JobError::TakenAway(key.to_string())),
        Err(error) => Some(error.into()),
    }
}

/// What the coordinator's answer means for the object and the one before it.
fn settle_copy(
    context: &Context,
    lane: &Lane,
    item: &Item,
    (author, placed): (&WriteAttempt, &StoredCopy),
    replaced: Option<&Location>,
    finished: Result<(), HsmError>,
) -> Ended {
    let size = placed.location.size;
    let (location, owner) = (&placed.location, &author.owner);
    match finished {
        Ok(()) => {
            if context.fs.is_unlinked(item.fid).unwrap_or(false) {
                tracing::info!(key = %location.key, "the file was unlinked meanwhile; deleting its object");
                discard(context, lane, location, owner, None, |_, origin| origin.is_by(author));
            } else if let Some(copy) = read_back(context, lane, item, author, placed) {
                if placed.needs_record || copy != placed.location {
                    context.journal.remember(item.fid, &copy);
                } else {
                    // It is found without the file, by its key, and what was known of one before is not it.
                    context.journal.forget(item.fid);
                }
            }
            let all_gone = match (&placed.previous, replaced) {
                (_, Some(previous)) => {
                    let is_kept =
                        |found: &ObjectInfo| is_mapped(context, item.fid, (previous.archive_id, &previous.key), found);
                    let gone = discard(context, lane, previous, owner, Some(location), |found, origin| {
                        origin.is_of(owner)
                            && previous.is_written_as(found)
                            && !may_be_shared(context, found)
                            && !is_kept(found)
                    });
                    sweep_overwritten(context, lane, owner, previous, is_kept) && gone
                }
                (Some(previous), None) => {
                    discard_sidecar_of(lane, previous, owner, Some(location));
                    true
                }
                (None, None) => true,
            };
            Ended {
                left_something: !all_gone,
                ..Ended::done(size).about(&location.key)
            }
        }
        Err(error) => {
            // The MDT may have taken the copy all the same, and its answer got lost or says something else:
            // then a release may come any time, and this object is the file.
            match context.fs.is_archived(item.fid) {
                Ok(true) => {
                    tracing::warn!(%error, "the coordinator objected, but the file is archived; keeping its copy");
                    if let Some(previous) = replaced {
                        // It goes, unless the file's record means it by then.
                        context.journal.replacing(item.key(), location, previous);
                    }
                    // It may be another one's archive that counts, with other bytes.
                    revoke_if_over(context, item, placed);
                }
                Err(unknown) if !unknown.is_not_found() => {
                    tracing::warn!(%error, %unknown, "the coordinator objected, and the file's state is unknown; keeping its copy");
                }
                Ok(false) => {
                    undo(context, lane, item, author, placed);
                    revoke_if_counted(context, lane, item, author, placed);
                }
                Err(_) => undo(context, lane, item, author, placed),
            }
            Ended::failed(error.into())
        }
    }
}

/// The coordinator does not take the copy: it is garbage, and the file's record is what it was.
fn undo(context: &Context, lane: &Lane, item: &Item, author: &WriteAttempt, placed: &StoredCopy) {
    let (location, owner) = (&placed.location, &author.owner);
    let own = location.to_bytes();
    // Ours in the key: it goes, unless the file's record means it.
    let is_garbage = |found: &ObjectInfo, origin: &Origin| {
        origin.is_by(author) && !is_mapped(context, item.fid, (location.archive_id, &location.key), found)
    };
    revoke_if_over(context, item, placed);
    // Another mover may have archived the file since, who learned of the end of this one before we did.
    let is_anothers = |now: Option<Vec<u8>>| now != placed.record && now.as_ref() != Some(&own);
    if context.fs.map(item.fid).is_ok_and(is_anothers) {
        tracing::info!(key = %location.key, "the file was archived anew meanwhile; that record stays");
        discard(context, lane, location, owner, None, is_garbage);
        look_after(context, lane, item.fid, (location.archive_id, &location.key));
        return;
    }
    // The record first: it must never point at what is gone.
    let restored = match &placed.previous {
        // The former object is gone with the write. The new one is the file's only object now; it stays
        // and stays mapped, so that the next archive (the file is dirty) replaces just that.
        Some(previous) if placed.in_place() && location.version.is_none() => {
            // At once: what is written after the look at the record may be another mover's.
            let mapped = if placed.needs_record {
                context.fs.set_map(item.fid, &own)
            } else {
                is_there(context, item)
            };
            discard_sidecar_of(lane, previous, owner, Some(location));
            if mapped.as_ref().is_err_and(HsmError::is_not_found) {
                tracing::info!(key = %location.key, "the file was unlinked meanwhile; deleting its object");
                discard(context, lane, location, owner, None, is_garbage);
            } else {
                tracing::warn!(key = %location.key, "the previous copy was replaced in place and can't be brought back; \
                     the file's data is in Lustre and is archived again with the next request");
            }
            mapped
        }
        previous => {
            let restored = match &placed.record {
                Some(record) => context.fs.set_map(item.fid, record),
                None if placed.needs_record => context.fs.clear_map(item.fid),
                None => Ok(()),
            };
            revoke_if_over(context, item, placed);
            discard(context, lane, location, owner, previous.as_ref(), is_garbage);
            look_after(context, lane, item.fid, (location.archive_id, &location.key));
            restored
        }
    };
    match restored {
        Ok(()) => {}
        Err(error) if error.is_not_found() => {}
        Err(error) => tracing::warn!(%error, "the file's record of its copy could not be put back"),
    }
}

/// An error where the file has no name any more.
fn is_there(context: &Context, item: &Item) -> Result<(), HsmError> {
    match context.fs.is_unlinked(item.fid) {
        Ok(true) => Err(HsmError::of("lstat", ErrorClass::Gone)),
        Ok(false) | Err(_) => Ok(()),
    }
}

/// An object that took the place of another attempt's: where that one's end counts, the file has no copy of what was
/// archived. From here on nobody can release it; for a file that is not archived nothing changes.
fn revoke_if_over(context: &Context, item: &Item, placed: &StoredCopy) {
    if !placed.over_another || !context.fs.is_archived(item.fid).unwrap_or(true) {
        return;
    }
    revoke(context, item, placed);
}

/// The file was not archived when this attempt was undone. Where it is by now, and its record is that of before, the end of
/// another attempt counted meanwhile, whose record this one has put back. One that needs none has its object.
fn revoke_if_counted(context: &Context, lane: &Lane, item: &Item, author: &WriteAttempt, placed: &StoredCopy) {
    if !context.fs.is_archived(item.fid).unwrap_or(false)
        || !context.fs.map(item.fid).is_ok_and(|now| now == placed.record)
    {
        return;
    }
    let archive_id = placed.location.archive_id;
    if placed.record.is_none()
        && let Ok(store) = lane.store(archive_id)
        && let Ok(key) = ObjectKey::from_fid(&store.target().prefix, item.fid)
        && let Ok(Some(found)) = glance(lane, archive_id, &key, None)
        && Location::told_by(&found, (archive_id, &key), &author.owner).is_some()
    {
        return;
    }
    revoke(context, item, placed);
}

fn revoke(context: &Context, item: &Item, placed: &StoredCopy) {
    let key = &placed.location.key;
    match context.fs.revoke(item.fid) {
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

fn discard_sidecar_of(lane: &Lane, location: &Location, owner: &Owner, kept: Option<&Location>) {
    discard_sidecar(lane, location.archive_id, location.sidecar.as_ref(), owner, kept);
}

/// Deletes exactly that object if it `may_go`, and its sidecar, unless that is the one of `kept`, too. One that can't be
/// deleted is no failure: it is in the log, and `false` is returned.
pub(super) fn discard(
    context: &Context,
    lane: &Lane,
    location: &Location,
    owner: &Owner,
    kept: Option<&Location>,
    may_go: impl Fn(&ObjectInfo, &Origin) -> bool,
) -> bool {
    discard_sidecar_of(lane, location, owner, kept);
    // One short try: the file is blocked for other actions meanwhile.
    match sweep_key(
        lane,
        Bearer::File(context.fs.as_ref(), owner.fid),
        location.archive_id,
        &location.key,
        location.version.as_deref(),
        |found, origin| found.etag == location.etag && found.size == location.size && may_go(found, origin),
    ) {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(key = %location.key, %error, "an object that is no file's copy could not be deleted now");
            false
        }
    }
}
