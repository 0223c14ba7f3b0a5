//! Remove: the copy's object goes, whether the file is still there or not. Where it is gone, with its record, the journal, the
//! FID's key and the ledger tell where the copy was.

use std::cell::Cell;

use super::run::Run;
use super::{Context, Ended, JobError};
use crate::action::{ActionHandle, ActionKey};
use crate::ledger::Told;
use crate::store::{Claim, Location, ObjectInfo, ObjectKey, Origin, StoreError};
use crate::transfer::{Stop, TransferError};
use crate::types::{ErrorClass, Fid};

pub(super) fn remove(run: Run<'_>, mut handle: Box<dyn ActionHandle>) -> Ended {
    let removed = handle.begin(None).map_err(JobError::from).and_then(|_| erase(run));
    match removed {
        Ok(None) => run.complete(handle, 0),
        Ok(Some(key)) => run.complete(handle, 0).about(&key),
        Err(error) => run.refuse(handle, error),
    }
}

fn erase(run: Run<'_>) -> Result<Option<ObjectKey>, JobError> {
    let Run { context, item, .. } = run;
    let owner = run.owner();
    let (before, is_gone) = match context.fs.map(item.fid) {
        Ok(record) => (record, false),
        // The last name is gone, and the file with it.
        Err(error) if error.is_not_found() => (None, true),
        Err(error) => return Err(error.into()),
    };
    let record = before.as_deref().map(Location::from_bytes).transpose()?;
    let (location, anothers) = match record {
        Some(record) if record.claim(&owner) == Claim::Anothers => (None, Some(record)),
        record => (record, None),
    };
    let location = match location {
        Some(location) => Some(location),
        None => match context.journal.find(item.fid) {
            Some(location) => Some(location),
            None => by_fid(run)?,
        },
    };
    // By whoever archived it last: here it may be unknown, or another one may have put it elsewhere since.
    let others = match is_gone {
        true => by_ledger(run, location.as_ref())?,
        false => None,
    };
    let (location, others) = match location {
        Some(location) => (Some(location), others),
        None => (others, None),
    };
    if location.is_none() && anothers.is_none() {
        // A remove with archive id 0 goes to every archive: most of them never had a copy.
        tracing::info!("no copy of the file is known; nothing to remove");
        return Ok(None);
    }
    // Then the end of the archive that wrote the record has counted. Each question whether an action is over leaves an error in
    // the MDS's log where it is.
    let counted = before.is_some() && context.fs.is_archived(item.fid).unwrap_or(false);
    // From here on nobody can release the file; one that is released already keeps its copy.
    match context.fs.revoke(item.fid) {
        Ok(()) => {}
        Err(error) if error.is_not_found() => {}
        Err(error) if error.class() == ErrorClass::Invalid || context.fs.is_released(item.fid)? => {
            tracing::warn!(%error, "the file is released; its copy stays");
            return Err(JobError::Released);
        }
        Err(error) => return Err(error.into()),
    }
    if let Some(Location {
        key,
        written_for: Some(of),
        ..
    }) = &anothers
    {
        tracing::warn!(%key, of = %of.fid, "the file's record was written for another file: that one's copy stays, and the \
             record is cleared");
    }
    if let Some(others) = &others {
        delete_of_gone(run, others)?;
    }
    let left = match &location {
        Some(location) => delete_copy(run, location, before.as_deref(), counted)?,
        None => Left::Nothing,
    };
    if left == Left::Copy {
        return Ok(location.map(|location| location.key));
    }
    context.journal.forget(item.fid);
    // Another mover may have archived the file since, when this remove ran into a time-out: that copy is not meant.
    if !is_as_before(context, item.fid, before.as_deref()) {
        tracing::warn!("the file was archived again meanwhile; its record stays");
        return Ok(location.map(|location| location.key));
    }
    let cleared = match before {
        Some(_) => context.fs.clear_map(item.fid),
        None => Ok(()),
    };
    match cleared {
        Ok(()) => {}
        Err(error) if error.is_not_found() => {}
        // The object is gone and the file is not archived: the record only misleads.
        Err(error) => tracing::warn!(%error, "the file's record of its copy could not be cleared"),
    }
    if left == Left::Another
        && let Some(location) = &location
    {
        // The record meant what was there before. Only now, without it: until then whoever cleans up after the attempt that
        // wrote it leaves it to the record.
        run.clean_up()
            .overwritten(&owner, location, |found| run.is_mapped(location.at(), found));
    }
    Ok(location.map(|location| location.key))
}

/// Whether the file has the record that it had when its remove was begun; one that is gone has none to protect.
fn is_as_before(context: &Context, fid: Fid, before: Option<&[u8]>) -> bool {
    match context.fs.map(fid) {
        Ok(now) => now.as_deref() == before,
        Err(error) => error.is_not_found(),
    }
}

/// Whether the object is that of no archive under way, and the file does not count as archived, by now. One that wrote its
/// record before this remove read it may end at any moment, and without a record nothing else would tell that it is to be
/// the copy. Nobody can release a file that is gone.
fn may_go(context: &Context, action: ActionKey, origin: &Origin, has_record: bool, counted: bool) -> bool {
    let cookie = match origin {
        Origin::Written(identity) => identity.cookie.as_ref(),
        Origin::Strangers | Origin::Carried(_) => None,
    };
    // Cookies repeat: with this remove's own it was written long ago. What an import has found tells none.
    let is_free = counted
        || match cookie {
            Some(cookie) => *cookie == action.cookie.to_string(),
            None => has_record,
        };
    match context.fs.copy_state(action.fid) {
        Err(error) => error.is_not_found(),
        // The state behind that: an archive that is over may have counted since the remove took the file's copy away.
        Ok(_) => (is_free || context.is_over(origin)) && has_no_copy(context, action.fid),
    }
}

fn has_no_copy(context: &Context, fid: Fid) -> bool {
    match context.fs.copy_state(fid) {
        Ok(state) => !state.archived && !state.released,
        Err(error) => error.is_not_found(),
    }
}

/// What is at the key when the copy was to be deleted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Left {
    /// Nothing of this file that matters.
    Nothing,
    /// Another object, at the file's own key.
    Another,
    /// The copy: an archive that wrote it is under way, or counted since.
    Copy,
}

/// The object that the file's own record means, or its key, if it still is the file's. `before`: the record, `counted`: the
/// file counted as archived by it, when the remove was begun.
fn delete_copy(run: Run<'_>, location: &Location, before: Option<&[u8]>, counted: bool) -> Result<Left, JobError> {
    let Run { context, item, .. } = run;
    let owner = &run.owner();
    let (shared, busy) = (Cell::new(false), Cell::new(false));
    let is_ours = |found: &ObjectInfo, origin: &Origin| {
        busy.set(false);
        shared.set(context.may_be_shared(found));
        let is_meant = !shared.get()
            && origin.yields_to(owner, location)
            && location.is_written_as(found)
            && is_as_before(context, item.fid, before);
        busy.set(is_meant && !may_go(context, item.key(), origin, before.is_some(), counted));
        is_meant && !busy.get()
    };
    let bearer = context.bearer(item.fid);
    match run.transfer.delete(bearer, location, is_ours) {
        Ok(()) => run.clean_up().discard_sidecar(location, owner, None),
        Err(TransferError::Store(StoreError::Precondition { .. })) if shared.get() => {
            tracing::warn!(key = %location.key, "an import may have made another file of this object; it is left, and \
                 'scrub --delete-orphans' tells whether anybody has it");
        }
        Err(TransferError::Store(StoreError::Precondition { .. })) if busy.get() => {
            tracing::warn!(key = %location.key, "the file is being archived, or was archived again meanwhile; its copy stays");
            return Ok(Left::Copy);
        }
        Err(TransferError::Store(StoreError::Precondition { .. })) => {
            tracing::warn!(key = %location.key, "the key holds another object than this file's copy; left alone, unless \
                 a killed archive of the file left it there");
            if location.claim(owner) == Claim::Own {
                return Ok(Left::Another);
            }
        }
        Err(error) => return Err(error.into()),
    }
    Ok(Left::Nothing)
}

/// Where keys are FIDs, and where a path could not be one, the object is found without the file and without a record.
fn by_fid(run: Run<'_>) -> Result<Option<Location>, JobError> {
    let fid = run.item.fid;
    let of_file = || run.context.fs.copy_state(fid).ok()?.archive_id;
    let Some(archive_id) = run.item.archive_id.or_else(of_file) else {
        return Ok(None);
    };
    let target = run.transfer.store(archive_id)?.target();
    let key = ObjectKey::from_fid(&target.prefix, fid)?;
    match run.transfer.find(key.at(archive_id))? {
        Some(found) if Origin::of(&found, &key).is_of(&run.owner()) => Ok(Some(found.at(key.at(archive_id)))),
        Some(_) => {
            tracing::warn!(%key, "the object does not say that it is this file's copy; left alone");
            Ok(None)
        }
        None => Ok(None),
    }
}

/// What the ledger knows of a file that is gone, if it is another object than the one that is `known` here.
fn by_ledger(run: Run<'_>, known: Option<&Location>) -> Result<Option<Location>, JobError> {
    let Run { context, item, .. } = run;
    let Some(copies) = &context.others_copies else {
        return Ok(None);
    };
    let control = run.transfer.control();
    let told = run.transfer.lane().block_on(async {
        tokio::select! {
            told = copies.ask(item.fid, item.archive_id, known.is_none()) => Ok(told),
            () = control.wait_stopped() => {
                Err(TransferError::Stopped(control.stopped().unwrap_or(Stop::Shutdown)))
            }
        }
    })?;
    match told {
        Told::Copy(record) => by_row(run, &record, known),
        Told::Nothing => Ok(None),
        Told::Unheard => {
            if known.is_none() {
                tracing::warn!(
                    "the ledger is away: a copy that another mover made is not found; scrub --delete-orphans finds it"
                );
            }
            Ok(None)
        }
    }
}

/// The copy of a file that is gone, by the record that some mover wrote in the ledger. Whoever can write that can write
/// anything: the object itself has to say whose it is. A row that names nothing of the file's goes. `known`: what needs no
/// look.
fn by_row(run: Run<'_>, record: &[u8], known: Option<&Location>) -> Result<Option<Location>, JobError> {
    let Run { context, item, .. } = run;
    let location = match Location::from_bytes(record) {
        Ok(location) => location,
        Err(error) => {
            tracing::warn!(%error, "that is what the ledger has of it: whatever it names is left alone");
            return Ok(None);
        }
    };
    let is_known = known.is_some_and(|known| known.is_at(&location) && known.version == location.version);
    // Whoever serves another archive gets a remove of its own.
    if is_known || run.transfer.store(location.archive_id).is_err() {
        return Ok(None);
    }
    match run.transfer.head(location.at(), location.version.as_deref()) {
        Ok(found) if Origin::of(&found, &location.key).is_of(&run.owner()) => return Ok(Some(location)),
        Ok(_) => {
            tracing::warn!(key = %location.key, "the ledger has this for the file's copy, and the object does not say that it is; \
                 left alone");
        }
        Err(TransferError::Store(StoreError::NotFound { .. })) => {}
        Err(error) => return Err(error.into()),
    }
    context.journal.forget(item.fid);
    Ok(None)
}

/// The copy that came to be known after the REMOVE of its file: by the record that whoever made it has written in the ledger.
pub(super) fn late(run: Run<'_>, record: &[u8]) -> Result<(), JobError> {
    let Run { context, item, .. } = run;
    match context.fs.map(item.fid) {
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error.into()),
        // No FID is used twice: whoever did not find it was mistaken.
        Ok(_) => return Ok(()),
    }
    if let Some(location) = by_row(run, record, None)? {
        tracing::info!(
            fid = %item.fid, key = %location.key,
            "the file was unlinked before its copy was known to whoever was to remove it; deleting its object"
        );
        delete_of_gone(run, &location)?;
        context.journal.forget(item.fid);
    }
    Ok(())
}

/// The object, and one that an attempt which was killed has put in its place.
fn delete_of_gone(run: Run<'_>, location: &Location) -> Result<(), JobError> {
    let owner = &run.owner();
    if delete_copy(run, location, None, false)? == Left::Another {
        run.clean_up()
            .overwritten(owner, location, |found| run.is_mapped(location.at(), found));
    }
    Ok(())
}
