//! Restore: find the copy > begin > receive and prove > finish.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::run::Run;
use super::search;
use super::thaw::{FrozenObject, ask, pause, still_thaws};
use super::{Ended, JobError, Outcome};
use crate::action::{ActionHandle, EndFailure, HsmError};
use crate::mapped::{self, ByKey};
use crate::mislaid::{FoundCopy, Likeness, SaidCopy, Seen};
use crate::queue::{Deferrals, PutOff};
use crate::store::{KeyAt, KeyLayout, Location, ObjectInfo, ObjectKey, Origin, Owner, StoreError, Thawing};
use crate::transfer::{Stop, TransferError};
use crate::types::Extent;

/// Before a restore is begun anew whose end was not heard, doubled with each time: an MDT that was restarted sends it again
/// meanwhile.
const UNHEARD_PAUSE: Duration = Duration::from_millis(500);
const MOST_DOUBLED: u32 = 6;
/// So often a restore is begun anew that the coordinator did not know when it was begun, and knows.
const MOST_UNKNOWN: u32 = 6;

/// What came of one round.
enum Received {
    /// All bytes of the object under that key. Whether the key alone told it: such a file is left without a record.
    Whole(u64, ObjectKey, bool),
    Frozen(Box<FrozenObject>),
}

/// `deferrals`: how often it was put off before.
pub(super) fn restore(run: Run<'_>, mut handle: Box<dyn ActionHandle>, deferrals: Deferrals) -> Outcome {
    let rounds = deferrals.frozen;
    let received = match receive(run, handle.as_mut(), rounds) {
        Ok(Received::Whole(size, key, is_told)) => Ok(Some((size, key, is_told))),
        Ok(Received::Frozen(frozen)) => ask(run, *frozen, rounds).map(|()| None),
        Err(error) => Err(error),
    };
    // After the last byte a cancel is still owed its ECANCELED.
    let is_whole = matches!(received, Ok(Some(_)));
    match (received, run.transfer.control().end_unless_stopped(is_whole)) {
        (_, Some(Stop::SentAgain)) => {
            tracing::info!("the coordinator sent the restore again; it begins anew");
            handle.renew();
            Outcome::Later(handle, Instant::now(), PutOff::Other)
        }
        (Ok(_) | Err(JobError::Transfer(TransferError::Stopped(_))), Some(stop)) => {
            run.refuse(handle, TransferError::Stopped(stop).into()).into()
        }
        (Ok(Some((size, key, is_told))), None) => {
            match handle.complete(size) {
                Ok(()) => {
                    // It would change the ctime, which such a file keeps.
                    if !is_told {
                        note(run);
                    }
                    Ended::done(size).about(&key).into()
                }
                Err(EndFailure::Said(error)) => Ended::failed(objection(run, error)).about(&key).into(),
                Err(EndFailure::Unheard(handle, error)) => {
                    tracing::warn!(%error, "the end of the restore did not reach the coordinator, and its data went with \
                        it; it is begun anew");
                    Outcome::Later(handle, after_pause(deferrals.others), PutOff::Other)
                }
            }
        }
        (Ok(None), None) => Outcome::Later(
            handle,
            Instant::now() + pause(run.transfer.options().thaw_poll, rounds),
            PutOff::Frozen,
        ),
        (Err(error), stop) => match run.again_after(&error, stop, 0) {
            // A reader may get the data from another mover, unless this one ends it.
            Some(until) => {
                tracing::warn!(%error, "the restore failed, and another mover may have taken it over: it is tried again");
                Outcome::Later(handle, until, PutOff::Other)
            }
            None => match run.again_in_reach(&error, stop, deferrals.cut_off) {
                Some(until) => {
                    tracing::warn!(%error, "the restore failed for where this mover is, and is tried again; another mover, if \
                        there is one, may do it");
                    // What it has begun may have gone with its client's eviction.
                    handle.renew();
                    Outcome::Later(handle, until, PutOff::CutOff)
                }
                None if stop.is_none() && is_unknown(&error) => let_go_of_unknown(run, handle, error, deferrals.others),
                None => run.refuse(handle, error).into(),
            },
        },
    }
}

fn after_pause(tried: u32) -> Instant {
    Instant::now() + UNHEARD_PAUSE * 2u32.pow(tried.min(MOST_DOUBLED))
}

/// What the coordinator said to the end, and why.
fn objection(run: Run<'_>, error: HsmError) -> JobError {
    let is_restored = || run.context.fs.is_released(run.item.fid).is_ok_and(|released| !released);
    match error.is_not_found() && is_restored() {
        true => JobError::RestoredElsewhere,
        false => error.into(),
    }
}

/// Whether the coordinator did not know the action, or the file is gone.
const fn is_unknown(error: &JobError) -> bool {
    matches!(error, JobError::Hsm(error) if error.is_not_found())
}

/// A restore that the coordinator did not know when it was begun. With a restart of the MDT it forgets it and sends it again, to
/// this mover or to another one; which may have happened since, and then no answer may end it.
fn let_go_of_unknown(run: Run<'_>, handle: Box<dyn ActionHandle>, error: JobError, tried: u32) -> Outcome {
    let Run { context, item, .. } = run;
    // Where that can't be told it is the file that is gone.
    let Ok(is_released) = context.fs.is_released(item.fid) else {
        return run.refuse(handle, error).into();
    };
    match context.fs.progress(item.key(), Extent::EMPTY) {
        Err(objection) if objection.is_not_found() => {
            handle.forgotten();
            let error = match is_released {
                true => error,
                false => JobError::RestoredElsewhere,
            };
            Ended::failed(error).into()
        }
        Ok(()) if tried < MOST_UNKNOWN => {
            tracing::info!("the coordinator did not know the restore, and knows it by now; it is begun anew");
            Outcome::Later(handle, after_pause(tried), PutOff::Other)
        }
        _ => run.refuse(handle, error).into(),
    }
}

/// After the answer, for which readers wait. llapi's end puts atime, mtime and ctime back to those of before.
fn note(run: Run<'_>) {
    let fid = run.item.fid;
    match run.context.fs.note_restored(fid) {
        Ok(()) => {}
        Err(error) if error.is_not_found() => {}
        Err(error) => tracing::warn!(%fid, %error, "the time of the restore could not be noted: release --unread-for \
            goes by the file's other times"),
    }
}

fn receive(run: Run<'_>, handle: &mut dyn ActionHandle, rounds: u32) -> Result<Received, JobError> {
    let fid = run.item.fid;
    let mut record = run.context.fs.map(fid)?;
    let located = locate(run, record.as_deref());
    let archived = run.context.fs.archived_version(fid);
    // What a mover wrote that was cut off may have come behind the record of the archive that counts.
    let taken = match &located {
        Ok((location, _)) if location.is_in_doubt(archived) => {
            let said = SaidCopy {
                location,
                seen: Seen::Not,
            };
            search::find(run, Some(said), Likeness::Time)?
        }
        Err(error) if tells_of_none(error) => search::find(run, None, Likeness::Size)?,
        Ok(_) | Err(_) => None,
    };
    let mut is_mislaid = taken.is_some();
    let (mut from, mut is_told) = match taken {
        Some(taken) => {
            search::tell(located.as_ref().ok().map(|(said, _)| said), &taken);
            (taken.location, false)
        }
        None => {
            let (location, is_told) = located?;
            if location.is_in_doubt(archived) {
                tracing::debug!(key = %location.key, "the file was restored or touched since its copy was made, or the record came late; \
                    no other object is its copy by what they say");
            }
            (location, is_told)
        }
    };
    if let Some(frozen) = still_thaws(run, &from, rounds)? {
        return Ok(Received::Frozen(Box::new(frozen)));
    }
    let file = Arc::new(handle.begin(from.layout.as_deref())?.ok_or(JobError::NotRegular)?);
    let mut received = run.transfer.download(&file, &from);
    if matches!(received, Err(TransferError::Store(StoreError::Precondition { .. })))
        && let Some(etag) = etag_of_the_same(run, &from)
    {
        tracing::warn!(key = %from.key, "the object has another ETag than the file's record says, and its checksum");
        from.etag = etag;
        received = run.transfer.download(&file, &from);
    }
    // Its object may have been moved by then: the record says where to.
    if matches!(received, Err(TransferError::Store(StoreError::NotFound { .. })))
        && let Ok(Some(bytes)) = run.context.fs.map(fid)
        && let Ok(now) = Location::from_bytes(&bytes)
        && (&now.key, &now.version) != (&from.key, &from.version)
        && (!is_mislaid || record.as_ref() != Some(&bytes))
    {
        tracing::info!(key = %now.key, "the object was moved while it was read");
        from = now;
        record = Some(bytes);
        (is_told, is_mislaid) = (false, false);
        received = run.transfer.download(&file, &from);
    }
    let mut looked_at = None;
    if lacks_version(&received, &from)
        && let Some(found) = the_same_at_the_key(run, &from)
    {
        tracing::warn!(key = %from.key, recorded = ?from.version, taken = ?found.version, "the recorded version is not \
            there; the object at its key has the same checksum and is this file's: it is taken. 'lhsmtool-s3 rebind' \
            renews the record");
        from.etag.clone_from(&found.etag);
        from.version.clone_from(&found.version);
        received = match found.thawing {
            Thawing::Asked => Err(StoreError::Frozen {
                operation: "HeadObject",
            }
            .into()),
            _ => run.transfer.download(&file, &from),
        };
        looked_at = Some(found);
    }
    if is_missing(&received)
        && let Some(taken) = instead_of(run, &from)
    {
        search::tell(Some(&from), &taken);
        match run.transfer.download(&file, &taken.location) {
            // It has other bytes than it says: that what was archived is gone is the better answer.
            Err(TransferError::Checksum { what }) => tracing::warn!(what, "it is not what was archived"),
            result => {
                from = taken.location;
                (is_told, is_mislaid, looked_at) = (false, true, None);
                received = result;
            }
        }
    }
    // Every writer has stopped; that no descriptor is left is checked, for a late write hangs for ever.
    let file = Arc::try_unwrap(file).map_err(|_| JobError::StillOpen)?;
    drop(file);
    match received {
        Ok(()) => {
            // Of a file that was given to another name since nothing else tells where its copy is.
            let is_unnamed = record.is_none()
                && !is_told
                && from.is_of_version(archived)
                && from.written_for.as_ref() == Some(&run.owner());
            if is_mislaid || is_unnamed {
                search::put_right(run, record.as_deref(), &from);
            }
            Ok(Received::Whole(from.size, from.key, is_told))
        }
        Err(TransferError::Store(StoreError::Frozen { .. })) => Ok(Received::Frozen(Box::new(FrozenObject {
            at: from,
            found: looked_at,
        }))),
        Err(error) => Err(error.into()),
    }
}

/// Whether a look for a file's copy has ended with that there is none where it was looked for.
const fn tells_of_none(error: &JobError) -> bool {
    matches!(
        error,
        JobError::NoCopy { .. } | JobError::Transfer(TransferError::Checksum { .. })
    )
}

/// What is said to be the copy is not there, or another object is.
const fn is_missing(received: &Result<(), TransferError>) -> bool {
    matches!(
        received,
        Err(TransferError::Store(
            StoreError::NotFound { .. } | StoreError::Precondition { .. } | StoreError::Refused { status: 400, .. }
        ))
    )
}

/// The object that is the file's copy, where what was said to be it is gone.
fn instead_of(run: Run<'_>, from: &Location) -> Option<FoundCopy> {
    let said = SaidCopy {
        location: from,
        seen: Seen::Gone,
    };
    search::find(run, Some(said), Likeness::Size)
        .inspect_err(
            |error| tracing::debug!(%error, "another object that may be the file's copy could not be looked for"),
        )
        .ok()
        .flatten()
}

/// A version that is not there, or whose name is none to this store: the objects were copied from another one.
fn lacks_version(received: &Result<(), TransferError>, from: &Location) -> bool {
    from.version.is_some()
        && matches!(
            received,
            Err(TransferError::Store(
                StoreError::NotFound { .. } | StoreError::Refused { status: 400, .. }
            ))
        )
}

/// The object that is at the key now, if it has the bytes that were archived and says that it is this file's copy.
fn the_same_at_the_key(run: Run<'_>, from: &Location) -> Option<ObjectInfo> {
    let found = run.transfer.head(from.at(), None).ok()?;
    let is_ours = Owner::of(&found.metadata).is_some_and(|owner| owner == run.owner());
    (is_ours && from.has_bytes_of(&found)).then_some(found)
}

/// The ETag that an object has now whose bytes are still those that were archived.
fn etag_of_the_same(run: Run<'_>, from: &Location) -> Option<String> {
    let found = run.transfer.head(from.at(), from.version.as_deref()).ok()?;
    (found.etag != from.etag && from.has_bytes_of(&found)).then_some(found.etag)
}

/// The copy of another file that is alive.
fn is_anothers(run: Run<'_>, found: &ObjectInfo) -> bool {
    let Run { context, item, .. } = run;
    Owner::of(&found.metadata).is_some_and(|owner| {
        owner.fs == context.fs.name()
            && owner.fid != item.fid
            && !context.fs.path_of(owner.fid).is_err_and(|error| error.is_not_found())
    })
}

/// By the file's record, also by one that was written for another file: `lfs migrate -m` gives a file another FID. Without
/// one by the key of its FID, where that tells all, which the answer says, too. Else by the keys that an archive would have
/// used.
fn locate(run: Run<'_>, record: Option<&[u8]>) -> Result<(Location, bool), JobError> {
    let Run { context, item, .. } = run;
    if let Some(record) = record {
        return Ok((Location::from_bytes(record)?, false));
    }
    let archive_id = item.archive_id.ok_or(JobError::NoArchiveId)?;
    let target = run.transfer.store(archive_id)?.target();
    let by_fid = match mapped::by_key(run.transfer, archive_id, &run.owner()) {
        // Without s3:ListBucket a key with no object is "denied", too.
        Err(TransferError::Store(StoreError::Denied { .. })) if target.layout == KeyLayout::Path => ByKey {
            key: ObjectKey::from_fid(&target.prefix, item.fid)?,
            found: None,
            location: None,
        },
        looked => looked?,
    };
    if let Some(told) = by_fid.location {
        // What else a record would say of the object.
        let size = context.fs.size_of(item.fid)?;
        if told.size != size {
            let what = format!(
                "'{}' has {} bytes, and its file {size}: it is not what was archived",
                told.key, told.size
            );
            return Err(TransferError::Checksum { what }.into());
        }
        return Ok((told, true));
    }
    let (_, natural) = run.natural_key()?;
    if natural != by_fid.key {
        match run.transfer.head(natural.at(archive_id), None) {
            Ok(found) if is_anothers(run, &found) => {
                tracing::warn!(key = %natural, "the object that the file's name gives is another file's copy; not taken");
            }
            Ok(found) => return Ok((by_name(natural.at(archive_id), &found), false)),
            Err(TransferError::Store(StoreError::NotFound { .. })) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if let Some(found) = &by_fid.found {
        // Where files go without records, an object that does not name its file may have come there since.
        match Origin::of(found, &by_fid.key) {
            Origin::Written(identity) if identity.owner == run.owner() => {
                return Ok((by_name(by_fid.key.at(archive_id), found), false));
            }
            Origin::Strangers if target.layout == KeyLayout::Path => {
                return Ok((by_name(by_fid.key.at(archive_id), found), false));
            }
            _ => tracing::warn!(key = %by_fid.key, "the object does not say that it is this file's copy; not taken"),
        }
    }
    let tried = match natural == by_fid.key {
        true => format!("'{natural}' that says that it is its copy"),
        false => format!("'{natural}' or '{}'", by_fid.key),
    };
    Err(JobError::NoCopy { tried })
}

fn by_name(at: KeyAt<'_>, found: &ObjectInfo) -> Location {
    tracing::warn!(key = %at.key, "the file has no record of its copy; taking the object that its name gives");
    found.at(at)
}
