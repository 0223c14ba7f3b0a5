//! One file: is its copy there, and the one that was archived?

use std::path::Path;

use super::{Scrub, ScrubError, What, shown};
use crate::action::HsmError;
use crate::lustre::{HsmStates, Mark, Mount};
use crate::store::{Location, ObjectInfo, StoreError};
use crate::transfer::{Lane, TransferError, head, verify};

/// What became of a file's object.
enum Copy {
    Good,
    /// The bytes are the same, the object is not: copied within the store, perhaps.
    Moved(ObjectInfo),
    Missing,
    Other(String),
}

pub(super) fn check(scrub: &Scrub<'_>, lane: &Lane, path: &Path) -> Result<(), ScrubError> {
    scrub.count(|counts| counts.files += 1);
    let looked = scrub
        .mount
        .states_at(path)
        .and_then(|states| Ok((states, Mount::map_at(path)?)));
    let (states, record) = match looked {
        Ok(looked) => looked,
        // Gone meanwhile.
        Err(error) if error.is_not_found() => return Ok(()),
        Err(error) => {
            scrub.find(What::Unknown, name(scrub, path), error.to_string(), false);
            return Ok(());
        }
    };
    if !states.archived() {
        scrub.count(|counts| counts.unarchived += 1);
        return Ok(());
    }
    let location = match record.as_deref().map(Location::from_bytes) {
        Some(Ok(location)) => location,
        Some(Err(error)) => {
            unmapped(scrub, path, states, &error.to_string());
            return Ok(());
        }
        None => {
            unmapped(scrub, path, states, "it has no record of its copy");
            return Ok(());
        }
    };
    match look(scrub, lane, &location)? {
        Copy::Good => {
            if states.lost() {
                let mended = scrub.options.repair && mark(scrub, path, Mark::Found);
                let detail = format!("marked LOST, and '{}' is there", location.key);
                scrub.find(What::Found, name(scrub, path), detail, mended);
            } else {
                scrub.count(|counts| counts.good += 1);
            }
        }
        Copy::Moved(found) => {
            let detail = format!("'{}' has the same bytes and another ETag", location.key);
            let record = Location {
                etag: found.etag,
                version: found.version,
                ..location
            };
            let mended = scrub.options.repair && done(path, Mount::set_map_at(path, &record.to_bytes()));
            scrub.find(What::Changed, name(scrub, path), detail, mended);
        }
        Copy::Missing => {
            let mended = damaged(scrub, path, states, false);
            let detail = format!("'{}' is not there{}", location.key, consequence(states));
            scrub.find(What::Missing, name(scrub, path), detail, mended);
        }
        Copy::Other(how) => {
            let mended = damaged(scrub, path, states, location.pinned);
            let detail = format!("'{}' {how}{}", location.key, consequence(states));
            scrub.find(What::Changed, name(scrub, path), detail, mended);
        }
    }
    Ok(())
}

fn name(scrub: &Scrub<'_>, path: &Path) -> String {
    shown(path.strip_prefix(scrub.mount.path()).unwrap_or(path))
}

const fn consequence(states: HsmStates) -> &'static str {
    if states.released() {
        ": the file's data is nowhere else"
    } else if states.dirty() {
        "; the file is here and changed, the next archive mends it"
    } else {
        "; the file is here"
    }
}

fn unmapped(scrub: &Scrub<'_>, path: &Path, states: HsmStates, why: &str) {
    let mended = !states.released() && damaged(scrub, path, states, false);
    let detail = format!("{why}{}", consequence(states));
    scrub.find(What::Unmapped, name(scrub, path), detail, mended);
}

/// A file that is here gets archived again; one that is nowhere else is marked, unless its object is another's work
/// and a new import can take it.
fn damaged(scrub: &Scrub<'_>, path: &Path, states: HsmStates, pinned: bool) -> bool {
    if !scrub.options.repair || (states.released() && pinned) {
        return false;
    }
    if states.released() {
        states.lost() || mark(scrub, path, Mark::Lost)
    } else {
        states.dirty() || mark(scrub, path, Mark::Dirty)
    }
}

fn mark(scrub: &Scrub<'_>, path: &Path, mark: Mark) -> bool {
    done(path, scrub.mount.mark(path, mark))
}

fn done(path: &Path, result: Result<(), HsmError>) -> bool {
    result
        .inspect_err(|error| tracing::warn!(path = %path.display(), %error, "can't be mended"))
        .is_ok()
}

fn look(scrub: &Scrub<'_>, lane: &Lane, location: &Location) -> Result<Copy, ScrubError> {
    let found = head(
        lane,
        &scrub.control,
        location.archive_id,
        &location.key,
        location.version.as_deref(),
    );
    let found = match found {
        Ok(found) => found,
        Err(TransferError::Store(StoreError::NotFound { .. })) => return Ok(Copy::Missing),
        Err(TransferError::NoTarget(id)) => {
            return Ok(Copy::Other(format!(
                "is in archive {id}, which the configuration does not have"
            )));
        }
        // 403 and 5xx say nothing of the object.
        Err(error) => return Err(error.into()),
    };
    let same_bytes = found.size == location.size && found.checksum.is_some() && found.checksum == location.checksum;
    if found.etag != location.etag && !same_bytes {
        return Ok(Copy::Other(format!(
            "is another object: ETag {} and {} bytes, not {} and {}",
            found.etag, found.size, location.etag, location.size
        )));
    }
    if found.size != location.size {
        return Ok(Copy::Other(format!("has {} bytes, not {}", found.size, location.size)));
    }
    if scrub.options.deep {
        let from = Location {
            etag: found.etag.clone(),
            ..location.clone()
        };
        scrub
            .bytes
            .fetch_add(location.size, std::sync::atomic::Ordering::Relaxed);
        match verify(lane, &scrub.control, &from) {
            Ok(()) => {}
            Err(TransferError::Checksum { what }) => return Ok(Copy::Other(what)),
            Err(TransferError::Store(StoreError::Frozen { .. })) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(if found.etag == location.etag {
        Copy::Good
    } else {
        Copy::Moved(found)
    })
}
