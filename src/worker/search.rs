//! Looks for a file's copy where its record does not name it (`crate::mislaid`), and has the record name it again.

use std::sync::Arc;

use super::JobError;
use super::run::Run;
use crate::mislaid::{self, ArchivedData, FoundCopy, Likeness, PutRight, PutRightError, SaidCopy, Seen};
use crate::store::Location;
use crate::transfer::{Control, Transfer};

/// [`mislaid::find`] of an action's file.
pub(super) fn find(run: Run<'_>, said: Option<SaidCopy<'_>>, least: Likeness) -> Result<Option<FoundCopy>, JobError> {
    let (fs, fid) = (run.context.fs.as_ref(), run.item.fid);
    let archived = ArchivedData::of(fs, fid)?;
    let store = run.item.archive_id.and_then(|id| run.transfer.store(id).ok());
    let natural = store.map(|store| mislaid::natural(store.target(), fid, || fs.path_of(fid).ok()));
    Ok(mislaid::find(
        run.transfer,
        &archived,
        said,
        natural.unwrap_or_default(),
        least,
    )?)
}

/// Says what is taken.
pub(super) fn tell(said: Option<&Location>, found: &FoundCopy) {
    let FoundCopy { location, likeness } = found;
    let recorded = said.map(|said| said.key.as_str());
    let version = location.version.as_deref();
    let by = match likeness {
        Likeness::Version => "it has the data version that was archived",
        Likeness::Time => "it has the file's size and the time of its last change",
        Likeness::Size => "it has the file's size, and nothing tells more: compare the file if you can",
    };
    tracing::warn!(key = %location.key, version, recorded, by, "the file's record does not name its copy: another mover's call came \
        late, or the record was changed by hand; the object that says that it is this file's is taken");
}

/// Has the file's record name that copy, if it still is the one that was seen. Whoever may be cut off himself writes nothing
/// that the next restore would not find out.
pub(super) fn put_right(run: Run<'_>, seen: Option<&[u8]>, location: &Location) {
    let key = &location.key;
    match mislaid::put_right(run.transfer, run.context.fs.as_ref(), run.item.fid, seen, location) {
        Ok(PutRight::Done) => tracing::info!(%key, "the file's record names its copy again"),
        Ok(PutRight::Changed) => tracing::info!(%key, "another one wrote the file's record meanwhile; it stays"),
        Ok(PutRight::Doomed) => {
            tracing::info!(%key, "somebody is deleting the object, or has; the file's record stays as it was");
        }
        Err(PutRightError::Hsm(error)) if error.is_not_found() => {}
        Err(error) => {
            tracing::warn!(%key, %error, "the file's record could not be put right: 'scrub --repair' does it, and so does the next \
                restore");
        }
    }
}

/// After an archive whose end did not count though the file is archived: its own record, if that came behind another one's, is put
/// right at once. `false`: it means another version of the file than was archived, and what counts is not found.
pub(super) fn give_way(run: Run<'_>, own: &Location) -> bool {
    let (fs, fid) = (run.context.fs.as_ref(), run.item.fid);
    let bytes = own.to_bytes();
    if !own.is_in_doubt(fs.archived_version(fid)) || !fs.map(fid).is_ok_and(|now| now.as_ref() == Some(&bytes)) {
        return true;
    }
    // The answer is given: nobody stops this.
    let control = Arc::new(Control::default());
    let transfer = Transfer::new(run.transfer.lane(), &control);
    let run = Run { transfer, ..run };
    let said = SaidCopy {
        location: own,
        seen: Seen::Gone,
    };
    match find(run, Some(said), Likeness::Version) {
        Ok(Some(found)) => {
            tell(Some(own), &found);
            put_right(run, Some(&bytes), &found.location);
            true
        }
        Ok(None) => false,
        Err(error) => {
            tracing::debug!(%error, "the copy that counts could not be looked for");
            false
        }
    }
}
