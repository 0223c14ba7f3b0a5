//! Restore: find the copy > begin > receive and prove > finish.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::place::natural_key;
use super::thaw::{Frozen, ask, pause, still_thaws};
use super::{Ended, JobError, Outcome, Site};
use crate::action::{Debt, Item, Objection};
use crate::store::{Location, ObjectInfo, ObjectKey, Owner, StoreError, Thawing};
use crate::transfer::{Control, Helpers, Lane, Stop, TransferError, download, head};
use crate::types::Fid;

/// Before a restore is begun anew whose end was not heard, doubled with each time: an MDT that was restarted sends it again
/// meanwhile.
const UNHEARD_PAUSE: Duration = Duration::from_millis(500);
const MOST_DOUBLED: u32 = 6;

/// What came of one round.
enum Received {
    /// All bytes of the object under that key.
    Whole(u64, ObjectKey),
    Frozen(Box<Frozen>),
}

/// `rounds`: how often it was put off before, because its object could not be read yet.
pub(super) fn restore(
    site: &Site,
    lane: &Lane,
    helpers: &dyn Helpers,
    control: &Arc<Control>,
    mut debt: Box<dyn Debt>,
    rounds: u32,
) -> Outcome {
    let received = match receive(site, lane, helpers, control, debt.as_mut(), rounds) {
        Ok(Received::Whole(size, key)) => Ok(Some((size, key))),
        Ok(Received::Frozen(frozen)) => ask(lane, control, *frozen, rounds).map(|()| None),
        Err(error) => Err(error),
    };
    // After the last byte a cancel is still owed its ECANCELED.
    match (received, control.end_unless_stopped()) {
        (_, Some(Stop::SentAgain)) => {
            tracing::info!("the coordinator sent the restore again; it begins anew");
            debt.renew();
            Outcome::Later(debt, Instant::now())
        }
        (Ok(_) | Err(JobError::Transfer(TransferError::Stopped(_))), Some(stop)) => {
            super::settle::refuse(control, debt, TransferError::Stopped(stop).into()).into()
        }
        (Ok(Some((size, key))), None) => {
            let fid = debt.item().fid;
            match debt.complete(size) {
                Ok(()) => {
                    note(site, fid);
                    Ended::done(size).about(&key).into()
                }
                Err(Objection::Said(error)) => Ended::failed(error.into()).about(&key).into(),
                Err(Objection::Unheard(debt, error)) => {
                    tracing::warn!(%error, "the end of the restore did not reach the coordinator, and its data went with \
                        it; it is begun anew");
                    Outcome::Later(
                        debt,
                        Instant::now() + UNHEARD_PAUSE * 2u32.pow(rounds.min(MOST_DOUBLED)),
                    )
                }
            }
        }
        (Ok(None), None) => Outcome::Later(debt, Instant::now() + pause(lane.options().thaw_poll, rounds)),
        (Err(error), _) => super::settle::refuse(control, debt, error).into(),
    }
}

/// After the answer, for which readers wait. llapi's end puts atime, mtime and ctime back to those of before.
fn note(site: &Site, fid: Fid) {
    match site.fs.note_restored(fid) {
        Ok(()) => {}
        Err(error) if error.is_not_found() => {}
        Err(error) => tracing::warn!(%fid, %error, "the time of the restore could not be noted: release --unread-for \
            goes by the file's other times"),
    }
}

fn receive(
    site: &Site,
    lane: &Lane,
    helpers: &dyn Helpers,
    control: &Arc<Control>,
    debt: &mut dyn Debt,
    rounds: u32,
) -> Result<Received, JobError> {
    let mut from = locate(site, lane, control, debt.item())?;
    if let Some(frozen) = still_thaws(lane, control, &from, rounds)? {
        return Ok(Received::Frozen(Box::new(frozen)));
    }
    let file = Arc::new(debt.begin(from.layout.as_deref())?.ok_or(JobError::NotRegular)?);
    let mut received = download(lane, helpers, control, &file, &from);
    if matches!(received, Err(TransferError::Store(StoreError::Precondition { .. })))
        && let Some(etag) = etag_of_the_same(lane, control, &from)
    {
        tracing::warn!(key = %from.key, "the object has another ETag than the file's record says, and its checksum");
        from.etag = etag;
        received = download(lane, helpers, control, &file, &from);
    }
    // Its object may have been moved by then: the record says where to.
    if matches!(received, Err(TransferError::Store(StoreError::NotFound { .. })))
        && let Ok(Some(record)) = site.fs.map(debt.item().fid)
        && let Ok(now) = Location::from_bytes(&record)
        && (&now.key, &now.version) != (&from.key, &from.version)
    {
        tracing::info!(key = %now.key, "the object was moved while it was read");
        from = now;
        received = download(lane, helpers, control, &file, &from);
    }
    let mut looked_at = None;
    if lacks_version(&received, &from)
        && let Some(found) = the_same_at_the_key(site, lane, control, debt.item(), &from)
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
            _ => download(lane, helpers, control, &file, &from),
        };
        looked_at = Some(found);
    }
    // Every writer has stopped; that no descriptor is left is checked, for a late write hangs for ever.
    let file = Arc::try_unwrap(file).map_err(|_| JobError::StillOpen)?;
    drop(file);
    match received {
        Ok(()) => Ok(Received::Whole(from.size, from.key)),
        Err(TransferError::Store(StoreError::Frozen { .. })) => Ok(Received::Frozen(Box::new(Frozen {
            at: from,
            found: looked_at,
        }))),
        Err(error) => Err(error.into()),
    }
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
fn the_same_at_the_key(
    site: &Site,
    lane: &Lane,
    control: &Control,
    item: &Item,
    from: &Location,
) -> Option<ObjectInfo> {
    let found = head(lane, control, from.archive_id, &from.key, None).ok()?;
    let is_ours = Owner::of(&found.metadata).is_some_and(|owner| owner.fs == site.fs.name() && owner.fid == item.fid);
    (is_ours && from.has_bytes_of(&found)).then_some(found)
}

/// The ETag that an object has now whose bytes are still those that were archived.
fn etag_of_the_same(lane: &Lane, control: &Control, from: &Location) -> Option<String> {
    let found = head(lane, control, from.archive_id, &from.key, from.version.as_deref()).ok()?;
    (found.etag != from.etag && from.has_bytes_of(&found)).then_some(found.etag)
}

/// The copy of another file that is alive.
fn is_anothers(site: &Site, item: &Item, found: &ObjectInfo) -> bool {
    Owner::of(&found.metadata).is_some_and(|owner| {
        owner.fs == site.fs.name()
            && owner.fid != item.fid
            && !site.fs.path_of(owner.fid).is_err_and(|error| error.is_not_found())
    })
}

/// By the file's record, also by one that was written for another file: `lfs migrate -m` gives a file another FID. Else by
/// the keys that an archive would have used.
pub(super) fn locate(site: &Site, lane: &Lane, control: &Control, item: &Item) -> Result<Location, JobError> {
    if let Some(record) = site.fs.map(item.fid)? {
        return Ok(Location::from_bytes(&record)?);
    }
    let (archive_id, natural) = natural_key(site, lane, item)?;
    let by_fid = ObjectKey::from_fid(&lane.store(archive_id)?.target().prefix, item.fid)?;
    for key in [&natural, &by_fid] {
        match head(lane, control, archive_id, key, None) {
            Ok(found) if is_anothers(site, item, &found) => {
                tracing::warn!(%key, "the object that the file's name gives is another file's copy; not taken");
            }
            Ok(found) => {
                tracing::warn!(%key, "the file has no record of its copy; taking the object that its name gives");
                return Ok(found.at(archive_id, key));
            }
            Err(TransferError::Store(StoreError::NotFound { .. })) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(JobError::NoCopy {
        tried: format!("'{natural}' or '{by_fid}'"),
    })
}
