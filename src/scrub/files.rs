//! One file: is its copy there, and the one that was archived?

use std::path::Path;

use super::{Scrub, ScrubError, What, shown};
use crate::lustre::{HsmStates, Mark, Mount};
use crate::store::{InvalidLocation, Location, ObjectInfo, StoreError};
use crate::transfer::{Lane, TransferError, head, verify};

/// What became of a file's object.
enum Copy {
    Good,
    /// The bytes are the same, the object is not: copied within the store, perhaps.
    Moved(ObjectInfo),
    Missing,
    Other(String),
    Unknown(String),
}

/// A file as it was judged.
#[derive(PartialEq, Eq)]
struct Seen {
    states: HsmStates,
    record: Option<Vec<u8>>,
}

enum Mend<'a> {
    Mark(Mark),
    Record(&'a Location),
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
            scrub.known.add_unreadable();
            scrub.find(What::Unknown, name(scrub, path), error.to_string(), false);
            return Ok(());
        }
    };
    let location = record.as_deref().map(Location::from_bytes);
    remember(scrub, location.as_ref());
    if !states.archived() {
        scrub.count(|counts| counts.unarchived += 1);
        return Ok(());
    }
    let seen = Seen { states, record };
    let location = match location {
        Some(Ok(location)) => location,
        Some(Err(error)) => {
            unmapped(scrub, path, &seen, &error.to_string());
            return Ok(());
        }
        None => {
            unmapped(scrub, path, &seen, "it has no record of its copy");
            return Ok(());
        }
    };
    if !states.is_in(location.archive_id) {
        let detail = format!(
            "its record says archive {}, its HSM state another one: one of the two is wrong",
            location.archive_id
        );
        scrub.find(What::Unknown, name(scrub, path), detail, false);
        return Ok(());
    }
    match look(scrub, lane, &location)? {
        Copy::Good => {
            if states.lost() {
                let mended = scrub.options.repair && mend(scrub, path, &seen, Mend::Mark(Mark::Found));
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
            let mended = scrub.options.repair && mend(scrub, path, &seen, Mend::Record(&record));
            scrub.find(What::Changed, name(scrub, path), detail, mended);
        }
        Copy::Missing => {
            let mended = damaged(scrub, path, &seen, false);
            let detail = format!("'{}' is not there{}", location.key, consequence(states));
            scrub.find(What::Missing, name(scrub, path), detail, mended);
        }
        Copy::Other(how) => {
            let mended = damaged(scrub, path, &seen, location.pinned);
            let detail = format!("'{}' {how}{}", location.key, consequence(states));
            scrub.find(What::Changed, name(scrub, path), detail, mended);
        }
        Copy::Unknown(why) => scrub.find(What::Unknown, name(scrub, path), why, false),
    }
    Ok(())
}

/// What its record points at, without a look at the store.
pub(super) fn note(scrub: &Scrub<'_>, path: &Path) {
    match Mount::map_at(path) {
        Ok(record) => remember(scrub, record.as_deref().map(Location::from_bytes).as_ref()),
        Err(error) if error.is_not_found() => {}
        Err(_) => scrub.known.add_unreadable(),
    }
}

fn remember(scrub: &Scrub<'_>, location: Option<&Result<Location, InvalidLocation>>) {
    match location {
        None => {}
        Some(Ok(location)) => {
            scrub.known.add(&location.key);
            if let Some(sidecar) = &location.sidecar {
                scrub.known.add(sidecar);
            }
        }
        Some(Err(_)) => scrub.known.add_unreadable(),
    }
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

fn unmapped(scrub: &Scrub<'_>, path: &Path, seen: &Seen, why: &str) {
    let mended = !seen.states.released() && damaged(scrub, path, seen, false);
    let detail = format!("{why}{}", consequence(seen.states));
    scrub.find(What::Unmapped, name(scrub, path), detail, mended);
}

/// A file that is here gets archived again; one that is nowhere else is marked, unless its object is another's work
/// and a new import can take it.
fn damaged(scrub: &Scrub<'_>, path: &Path, seen: &Seen, pinned: bool) -> bool {
    let states = seen.states;
    if !scrub.options.repair || (states.released() && pinned) {
        return false;
    }
    if states.released() {
        states.lost() || mend(scrub, path, seen, Mend::Mark(Mark::Lost))
    } else {
        states.dirty() || mend(scrub, path, seen, Mend::Mark(Mark::Dirty))
    }
}

/// Looks at the file again, for the look at its object took a while: one that is another now, or was archived anew,
/// is left alone.
fn mend(scrub: &Scrub<'_>, path: &Path, seen: &Seen, mend: Mend<'_>) -> bool {
    let mended = scrub.mount.pinned(path).and_then(|(file, at)| {
        let now = Seen {
            states: scrub.mount.states_at(&at)?,
            record: Mount::map_at(&at)?,
        };
        if now != *seen {
            return Ok(false);
        }
        match mend {
            Mend::Mark(mark) => scrub.mount.mark(&at, mark)?,
            Mend::Record(record) => Mount::set_map_at(&at, &record.to_bytes())?,
        }
        drop(file);
        Ok(true)
    });
    match mended {
        Ok(true) => true,
        Ok(false) => {
            tracing::warn!(path = %path.display(), "changed while its copy was looked at; left as it is");
            false
        }
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "can't be mended");
            false
        }
    }
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
        Err(TransferError::Store(StoreError::NotFound { .. })) => {
            // A bucket that is not there says 404 as well.
            super::objects::exists(scrub, lane, location.archive_id, location.key.as_str())?;
            return Ok(Copy::Missing);
        }
        Err(TransferError::NoTarget(id)) => {
            return Ok(Copy::Unknown(format!(
                "'{}' is in archive {id}, which the configuration does not have",
                location.key
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
            Ok(_) => {}
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
