//! Looks for a file's copy where its record does not name it (`crate::mislaid`), and has the record name it again.

use super::JobError;
use super::run::Run;
use crate::mislaid::{self, ArchivedData, FoundCopy, Likeness, Said};
use crate::store::{Location, ObjectKey};

/// [`mislaid::find`] of an action's file.
pub(super) fn find(run: Run<'_>, said: Option<Said<'_>>, least: Likeness) -> Result<Option<FoundCopy>, JobError> {
    let archived = ArchivedData::of(run.context.fs.as_ref(), run.item.fid)?;
    let mut natural: Vec<_> = run.natural_key().into_iter().collect();
    if let Some(archive_id) = run.item.archive_id
        && let Ok(store) = run.transfer.store(archive_id)
        && let Ok(key) = ObjectKey::from_fid(&store.target().prefix, run.item.fid)
    {
        natural.push((archive_id, key));
    }
    Ok(mislaid::find(run.transfer, &archived, said, natural, least)?)
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
    let (fs, fid) = (run.context.fs.as_ref(), run.item.fid);
    let set = match fs.map(fid) {
        Ok(now) if now.as_deref() == seen => fs.set_map(fid, &location.to_bytes()),
        Ok(_) => {
            tracing::info!(key = %location.key, "another one wrote the file's record meanwhile; it stays");
            return;
        }
        Err(error) => Err(error),
    };
    match set {
        Ok(()) => tracing::info!(key = %location.key, "the file's record names its copy again"),
        Err(error) if error.is_not_found() => {}
        Err(error) => {
            tracing::warn!(key = %location.key, %error, "the file's record could not be put right: 'scrub --repair' does it, and so \
                does the next restore")
        }
    }
}

/// After an archive whose end did not count though the file is archived: its own record, if that came behind another one's, is put
/// right at once.
pub(super) fn give_way(run: Run<'_>, own: &Location) {
    let (fs, fid) = (run.context.fs.as_ref(), run.item.fid);
    let bytes = own.to_bytes();
    if !own.is_in_doubt(fs.archived_version(fid)) || !fs.map(fid).is_ok_and(|now| now.as_ref() == Some(&bytes)) {
        return;
    }
    let said = Said {
        location: own,
        is_gone: true,
    };
    match find(run, Some(said), Likeness::Version) {
        Ok(Some(found)) => {
            tell(Some(own), &found);
            put_right(run, Some(&bytes), &found.location);
        }
        Ok(None) => {}
        Err(error) => tracing::debug!(%error, "the copy that counts could not be looked for"),
    }
}
