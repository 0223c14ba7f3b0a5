//! Archive: begin > place > map > finish; on an objection of the coordinator, undo.

use std::sync::Arc;

use super::place::{Placed, may_be_shared, place, sweep};
use super::{Ended, JobError, Site};
use crate::action::{Debt, HsmError, Item, Verdict};
use crate::store::{Location, ObjectInfo, StoreError};
use crate::transfer::{Control, Helpers, Lane, TransferError, discard_sidecar, sweep_key};

pub(super) fn archive(
    site: &Site,
    lane: &Lane,
    helpers: &dyn Helpers,
    control: &Arc<Control>,
    mut debt: Box<dyn Debt>,
) -> Ended {
    let begun = debt.begin(None);
    if begun.is_err() && super::log::clean_up(site, lane, debt.item().key()) {
        site.journal.taken(debt.item().key());
    }
    let copied = begun.map_err(JobError::from).and_then(|file| {
        let file = Arc::new(file.ok_or(JobError::NotRegular)?);
        // Archived and released meanwhile, by another mover: a read would wait for a restore, here perhaps.
        if site.fs.is_released(debt.item().fid)? {
            return Err(JobError::Released);
        }
        // The file is closed before the action ends: while somebody has it open nobody can release it.
        place(site, lane, helpers, control, debt.item(), &file)
    });
    match copied {
        Ok(placed) => commit(site, lane, control, debt, &placed),
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
            let item = debt.item().clone();
            let ended = super::settle::refuse(control, debt, error);
            if stopped {
                sweep(site, lane, &item);
            }
            ended
        }
    }
}

fn commit(site: &Site, lane: &Lane, control: &Control, debt: Box<dyn Debt>, placed: &Placed) -> Ended {
    let item = debt.item().clone();
    let size = placed.location.size;
    // A cancel that came after the last byte still counts: the coordinator waits for ECANCELED.
    if let Some(stop) = control.stopped() {
        undo(site, lane, &item, placed);
        return super::settle::refuse(control, debt, TransferError::Stopped(stop).into());
    }
    if let Err(error) = site.fs.set_map(item.fid, &placed.location.to_bytes()) {
        undo(site, lane, &item, placed);
        return super::settle::refuse(control, debt, error.into());
    }
    let replaced = placed.previous.as_ref().filter(|_| !placed.in_place());
    if let Some(previous) = replaced {
        site.journal.replacing(item.key(), &placed.location, previous);
    }
    let finished = super::settle::finish(control, debt, Verdict::Done, size);
    if finished.is_err() && replaced.is_some() {
        // The copy before is not to go.
        site.journal.cleaned(item.key());
    }
    let ended = settle_copy(site, lane, &item, placed, replaced, finished);
    if replaced.is_some() {
        site.journal.cleaned(item.key());
    }
    ended
}

/// What the coordinator's answer means for the object and the one before it.
fn settle_copy(
    site: &Site,
    lane: &Lane,
    item: &Item,
    placed: &Placed,
    replaced: Option<&Location>,
    finished: Result<(), HsmError>,
) -> Ended {
    let size = placed.location.size;
    match finished {
        Ok(()) => {
            if site.fs.is_unlinked(item.fid).unwrap_or(false) {
                tracing::info!(key = %placed.location.key, "the file was unlinked meanwhile; deleting its object");
                discard(lane, &placed.location, None, |_| false);
            } else {
                site.journal.remember(item.fid, &placed.location);
            }
            match (&placed.previous, replaced) {
                (_, Some(previous)) => discard(lane, previous, Some(&placed.location), |found| {
                    may_be_shared(site, found)
                }),
                (Some(previous), None) => discard_sidecar_of(lane, previous, Some(&placed.location)),
                (None, None) => {}
            }
            Ended::done(size).about(&placed.location.key)
        }
        Err(error) => {
            // The MDT may have taken the copy all the same, and its answer got lost or says something else:
            // then a release may come any time, and this object is the file.
            match site.fs.is_archived(item.fid) {
                Ok(true) => {
                    tracing::warn!(%error, "the coordinator objected, but the file is archived; keeping its copy")
                }
                Err(unknown) if !unknown.is_not_found() => {
                    tracing::warn!(%error, %unknown, "the coordinator objected, and the file's state is unknown; keeping its copy");
                }
                Ok(false) | Err(_) => undo(site, lane, item, placed),
            }
            Ended::failed(error.into())
        }
    }
}

/// The coordinator does not take the copy: it is garbage, and the file's record is what it was.
fn undo(site: &Site, lane: &Lane, item: &Item, placed: &Placed) {
    let location = &placed.location;
    // The record first: it must never point at what is gone.
    let restored = match &placed.previous {
        // The former object is gone with the write. The new one is the file's only object now; it stays
        // and stays mapped, so that the next archive (the file is dirty) replaces just that.
        Some(previous) if placed.in_place() && location.version.is_none() => {
            discard_sidecar_of(lane, previous, Some(location));
            let mapped = site.fs.set_map(item.fid, &location.to_bytes());
            if mapped.as_ref().is_err_and(HsmError::is_not_found) {
                tracing::info!(key = %location.key, "the file was unlinked meanwhile; deleting its object");
                discard(lane, location, None, |_| false);
            } else {
                tracing::warn!(key = %location.key, "the previous copy was replaced in place and can't be brought back; \
                     the file's data is in Lustre and is archived again with the next request");
            }
            mapped
        }
        Some(previous) => {
            let restored = site.fs.set_map(item.fid, &previous.to_bytes());
            discard(lane, location, Some(previous), |_| false);
            restored
        }
        None => {
            let cleared = site.fs.clear_map(item.fid);
            discard(lane, location, None, |_| false);
            cleared
        }
    };
    match restored {
        Ok(()) => {}
        Err(error) if error.is_not_found() => {}
        Err(error) => tracing::warn!(%error, "the file's record of its copy could not be put back"),
    }
}

fn discard_sidecar_of(lane: &Lane, location: &Location, kept: Option<&Location>) {
    discard_sidecar(lane, location.archive_id, location.sidecar.as_ref(), kept);
}

/// Deletes exactly that object, unless it is `spared`, and its sidecar, unless that is the one of `kept`, too. One that
/// can't be deleted is an orphan in the log, not a failure.
fn discard(lane: &Lane, location: &Location, kept: Option<&Location>, spared: impl Fn(&ObjectInfo) -> bool) {
    discard_sidecar_of(lane, location, kept);
    // One short try: the file is blocked for other actions meanwhile.
    match sweep_key(
        lane,
        location.archive_id,
        &location.key,
        location.version.as_deref(),
        |found| found.etag == location.etag && found.size == location.size && !spared(found),
    ) {
        Ok(()) => {}
        Err(error) => {
            tracing::warn!(key = %location.key, %error, "an object that is no file's copy could not be deleted: an orphan");
        }
    }
}
