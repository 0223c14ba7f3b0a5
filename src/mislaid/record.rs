//! Puts a record right, so that it names the copy again.

use super::{is_said, look};
use crate::action::{FileSystem, HsmError};
use crate::store::Location;
use crate::transfer::{Said, Transfer, TransferError};
use crate::types::Fid;

/// What came of putting a record right.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PutRight {
    /// It names the copy.
    Done,
    /// Another one wrote it meanwhile: it stays as it is.
    Changed,
    /// Somebody has announced to delete the object, and may have looked at the record before: it is what it was.
    Doomed,
}

/// Why a record could not be put right.
#[derive(Debug, thiserror::Error)]
pub enum PutRightError {
    /// The file.
    #[error(transparent)]
    Hsm(#[from] HsmError),
    /// What is said on it of deletions, or the store.
    #[error(transparent)]
    Transfer(#[from] TransferError),
}

/// Has the record of a file name its copy, if it still is what was `seen`. Whoever deletes the object has announced that on the
/// file before he looked whether anybody means it (`crate::transfer::announce`): an announcement that is found behind the new
/// record may be of one who has not seen it.
///
/// # Errors
/// The file can't be asked, or its record can't be written.
pub fn put_right(
    transfer: Transfer<'_>,
    fs: &dyn FileSystem,
    fid: Fid,
    seen: Option<&[u8]>,
    copy: &Location,
) -> Result<PutRight, PutRightError> {
    // A version is deleted by its name, by who has looked at just that one.
    let is_shared = copy.version.is_none();
    if is_shared && transfer.wait_for_deletions(fs, fid, copy.at())? == Said::UnderWay {
        return Ok(PutRight::Doomed);
    }
    if fs.map(fid)?.as_deref() != seen {
        return Ok(PutRight::Changed);
    }
    let record = copy.to_bytes();
    fs.set_map(fid, &record)?;
    if !is_shared {
        return Ok(PutRight::Done);
    }
    let stays = match transfer.wait_for_deletions(fs, fid, copy.at()) {
        Ok(Said::Nothing) => return Ok(PutRight::Done),
        Ok(Said::Over) => look(transfer, copy.at(), None).map(|found| found.is_some_and(|found| is_said(copy, &found))),
        Ok(Said::UnderWay) => Ok(false),
        Err(error) => Err(error),
    };
    if matches!(stays, Ok(true)) {
        return Ok(PutRight::Done);
    }
    if fs.map(fid)?.as_ref() == Some(&record) {
        match seen {
            Some(seen) => fs.set_map(fid, seen)?,
            None => fs.clear_map(fid)?,
        }
    }
    stays?;
    Ok(PutRight::Doomed)
}
