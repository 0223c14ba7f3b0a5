//! One file: is its copy there, and the one that was archived?

use std::path::Path;

use super::doomed::{CopyFate, fate, revive};
use super::lost::MissingCopy;
use super::{FindingKind, Scrub, ScrubError, orphan, shown};
use crate::action::{FileSystem as _, HsmError};
use crate::lustre::{HsmMark, HsmStates, Mount};
use crate::mapped::{self, ByKey};
use crate::mislaid::{self, ArchivedData, FoundCopy, Likeness, SaidCopy, Seen};
use crate::store::{InvalidLocation, KeyLayout, Location, ObjectInfo, ObjectKey, Origin, Owner, StoreError};
use crate::transfer::{Lane, TransferError};
use crate::types::ArchiveId;
use crate::walk::Named;

/// What became of a file's object.
enum CopyFound {
    Good(ObjectInfo),
    /// The bytes are the same, the object is not: copied within the store, perhaps.
    Moved(ObjectInfo),
    Missing,
    Other(String),
    Unknown(String),
}

/// A file as it was judged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct FileSnapshot {
    states: HsmStates,
    record: Option<Vec<u8>>,
}

pub(super) enum Repair<'a> {
    Mark(HsmMark),
    Record(&'a Location),
}

pub(super) fn check(scrub: &Scrub<'_>, lane: &Lane, file: &Named) -> Result<(), ScrubError> {
    scrub.count(|counts| counts.files += 1);
    let looked = scrub
        .mount
        .states_at(file.at())
        .and_then(|states| Ok((states, Mount::map_at(file.at())?)));
    let (states, record) = match looked {
        Ok(looked) => looked,
        // Gone meanwhile.
        Err(error) if error.is_not_found() => return Ok(()),
        Err(error) => {
            scrub.known.add_unreadable();
            scrub.find(FindingKind::Unknown, name(scrub, file), error.to_string(), false);
            return Ok(());
        }
    };
    let location = record.as_deref().map(Location::from_bytes);
    remember(scrub, location.as_ref());
    if !states.archived() {
        scrub.count(|counts| counts.unarchived += 1);
        return Ok(());
    }
    let seen = FileSnapshot { states, record };
    let (location, found) = match location {
        Some(Ok(location)) => (location, None),
        Some(Err(error)) => {
            unmapped(scrub, file, &seen, &error.to_string());
            return Ok(());
        }
        None => match told(scrub, lane, file, &seen)? {
            Some((location, found)) => (location, Some(found)),
            None => return Ok(()),
        },
    };
    if !states.exists() && !states.released() {
        let mended = damaged(scrub, file, &seen, false, FindingKind::Unwatched);
        let detail = "archived without EXISTS (a remove ran between): its changes go unnoticed; the next archive mends it \
            once it is dirty";
        scrub.find(FindingKind::Unwatched, name(scrub, file), detail.into(), mended);
        return Ok(());
    }
    if !states.is_in(location.archive_id) {
        let detail = format!(
            "its record says archive {}, its HSM state another one: one of the two is wrong",
            location.archive_id
        );
        scrub.find(FindingKind::Unknown, name(scrub, file), detail, false);
        return Ok(());
    }
    let copy = match found {
        Some(found) => judge(scrub, lane, &location, found)?,
        None => {
            scrub.lost.look();
            look(scrub, lane, &location)?
        }
    };
    if is_mislaid(scrub, lane, file, &seen, Some((&location, &copy)))? {
        return Ok(());
    }
    match copy {
        CopyFound::Good(_) if states.lost() => {
            let mended = scrub.options.repair && mend(scrub, file, &seen, Repair::Mark(HsmMark::Found));
            let detail = format!("marked LOST, and '{}' is there", location.key);
            scrub.find(FindingKind::Found, name(scrub, file), detail, mended);
        }
        CopyFound::Good(found) => good(scrub, lane, file, &seen, &location, found)?,
        CopyFound::Moved(found) => {
            let detail = format!("'{}' has the same bytes and another ETag", location.key);
            let record = Location {
                writer: Origin::writer_of(&found, &location.key),
                cookie: Origin::cookie_of(&found, &location.key),
                etag: found.etag,
                version: found.version,
                ..location
            };
            let mended = scrub.options.repair && mend(scrub, file, &seen, Repair::Record(&record));
            scrub.find(FindingKind::Changed, name(scrub, file), detail, mended);
        }
        CopyFound::Missing => missing(scrub, file, &seen, &location.key),
        CopyFound::Other(how) => {
            scrub.lost.miss();
            let mended = damaged(scrub, file, &seen, location.pinned, FindingKind::Changed);
            let detail = format!("'{}' {how}{}", location.key, consequence(states));
            scrub.find(FindingKind::Changed, name(scrub, file), detail, mended);
        }
        CopyFound::Unknown(why) => scrub.find(FindingKind::Unknown, name(scrub, file), why, false),
    }
    Ok(())
}

/// The copy of a file that has no record, as the object at the key of its FID tells it; `None`: all is said.
fn told(
    scrub: &Scrub<'_>,
    lane: &Lane,
    file: &Named,
    seen: &FileSnapshot,
) -> Result<Option<(Location, ObjectInfo)>, ScrubError> {
    const NONE: &str = "it has no record of its copy";
    let unknown = |why: String| scrub.find(FindingKind::Unknown, name(scrub, file), why, false);
    let Some((archive_id, store)) = seen
        .states
        .archive_id()
        .and_then(|archive_id| Some((archive_id, lane.store(archive_id).ok()?)))
    else {
        unmapped(scrub, file, seen, NONE);
        return Ok(None);
    };
    let looked = scrub.mount.fid_at(file.at()).and_then(|fid| {
        let stat = file.at().symlink_metadata();
        Ok((fid, stat.map_err(|error| HsmError::io("lstat", &error))?.len()))
    });
    let (fid, size) = match looked {
        Ok(looked) => looked,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => {
            unknown(error.to_string());
            return Ok(None);
        }
    };
    let owner = Owner {
        fs: scrub.mount.name().to_owned(),
        fid,
    };
    scrub.lost.look();
    let ByKey { key, found, location } = match mapped::by_key(scrub.transfer(lane), archive_id, &owner) {
        Ok(looked) => looked,
        // 403 says nothing of the object: it may be there.
        Err(error) => {
            let why = scrub.of_one(lane, archive_id, error)?;
            unknown(format!(
                "{NONE}, and the object that its FID gives can't be looked at: {why}"
            ));
            return Ok(None);
        }
    };
    let is_there = location.as_ref().is_some_and(|location| location.size == size);
    if !is_there && is_mislaid(scrub, lane, file, seen, None)? {
        return Ok(None);
    }
    match (location, found) {
        (Some(location), Some(found)) if location.size == size || seen.states.dirty() => {
            return Ok(Some((location, found)));
        }
        (Some(location), _) => {
            scrub.lost.miss();
            let mended = damaged(scrub, file, seen, false, FindingKind::Changed);
            let detail = format!(
                "'{key}' has {} bytes, not {size}{}",
                location.size,
                consequence(seen.states)
            );
            scrub.find(FindingKind::Changed, name(scrub, file), detail, mended);
        }
        (None, Some(_)) => unmapped(
            scrub,
            file,
            seen,
            &format!("{NONE}, and '{key}' does not say that it is"),
        ),
        (None, None) if store.target().layout == KeyLayout::Fid => match gone(scrub, lane, archive_id, &key)? {
            CopyFound::Unknown(why) => unknown(why),
            _ => missing(scrub, file, seen, &key),
        },
        (None, None) => unmapped(scrub, file, seen, NONE),
    }
    Ok(None)
}

/// Whether the file has a copy that its record, or its key, does not name ([`mislaid`]); then all is said. `said`: what they name,
/// and what is there.
fn is_mislaid(
    scrub: &Scrub<'_>,
    lane: &Lane,
    file: &Named,
    seen: &FileSnapshot,
    said: Option<(&Location, &CopyFound)>,
) -> Result<bool, ScrubError> {
    if seen.states.dirty() || matches!(said, Some((_, CopyFound::Unknown(_)))) {
        return Ok(false);
    }
    let is_good = |found: &CopyFound| matches!(found, CopyFound::Good(_) | CopyFound::Moved(_));
    // What was not written of a data version can't be told to be of another one.
    if said.is_some_and(|(location, found)| location.data_version.is_none() && is_good(found)) {
        return Ok(false);
    }
    // What can't be told now is no finding.
    let archived = scrub
        .mount
        .fid_at(file.at())
        .and_then(|fid| ArchivedData::of(scrub.mount, fid));
    let (Ok(archived), Some(archive_id)) = (archived, seen.states.archive_id()) else {
        return Ok(false);
    };
    let before = match said {
        Some((location, CopyFound::Good(_) | CopyFound::Moved(_))) if !location.is_in_doubt(archived.version) => {
            return Ok(false);
        }
        Some((location, CopyFound::Good(found) | CopyFound::Moved(found))) => Some((location, Seen::There(found))),
        Some((location, _)) => Some((location, Seen::Gone)),
        None => None,
    };
    let Ok(store) = lane.store(archive_id) else {
        return Ok(false);
    };
    let below = file.path.strip_prefix(scrub.mount.path()).unwrap_or(&file.path);
    let natural = mislaid::natural(store.target(), archived.owner.fid, || Some(below.to_owned()));
    let before = before.map(|(location, seen)| SaidCopy { location, seen });
    let there = match mislaid::find(scrub.transfer(lane), &archived, before, natural, Likeness::Time) {
        Ok(Some(FoundCopy { location, .. })) => location,
        Ok(None) => return Ok(false),
        Err(error) => {
            let why = scrub.of_one(lane, archive_id, error)?;
            tracing::debug!(path = %file.path.display(), why, "another copy could not be looked for");
            return Ok(false);
        }
    };
    scrub.known.add(&there.key);
    there.sidecar.iter().for_each(|sidecar| scrub.known.add(sidecar));
    let mended = scrub.options.repair && put_right(scrub, lane, file, seen, &archived, &there);
    let named = match said {
        Some((location, _)) => format!("its record names '{}'", location.key),
        None => "it has no record of its copy".to_owned(),
    };
    let detail = format!(
        "{named}, and its copy is '{}', which has what was archived: a late write of a mover that was cut off; the next restore \
         takes it, too",
        there.key
    );
    scrub.find(FindingKind::Mislaid, name(scrub, file), detail, mended);
    Ok(true)
}

/// Has the record name a copy that was there before: somebody may be about to delete it. The looks took a while: a file that has
/// another state or record by now is left alone.
fn put_right(
    scrub: &Scrub<'_>,
    lane: &Lane,
    file: &Named,
    seen: &FileSnapshot,
    archived: &ArchivedData,
    copy: &Location,
) -> bool {
    let fid = archived.owner.fid;
    scrub
        .mount
        .states_at(file.at())
        .is_ok_and(|states| states == seen.states)
        && orphan::is_put_right(scrub.transfer(lane), scrub.mount, fid, seen.record.as_deref(), copy)
}

fn missing(scrub: &Scrub<'_>, file: &Named, seen: &FileSnapshot, key: &ObjectKey) {
    scrub.lost.miss();
    let mended = damaged(scrub, file, seen, false, FindingKind::Missing);
    let detail = format!("'{key}' is not there{}", consequence(seen.states));
    scrub.find(FindingKind::Missing, name(scrub, file), detail, mended);
}

/// The copy is there. Will it stay?
fn good(
    scrub: &Scrub<'_>,
    lane: &Lane,
    file: &Named,
    seen: &FileSnapshot,
    location: &Location,
    found: ObjectInfo,
) -> Result<(), ScrubError> {
    let doom = match fate(scrub, lane, location, found)? {
        CopyFate::Stays => {
            scrub.count(|counts| counts.good += 1);
            return Ok(());
        }
        CopyFate::Unknown(why) => {
            scrub.find(FindingKind::Unknown, name(scrub, file), why, false);
            return Ok(());
        }
        CopyFate::Doomed(doom) => doom,
    };
    let mut detail = format!("{}{}", doom.how, consequence(seen.states));
    let mended = if !scrub.options.repair || !seen.states.released() {
        damaged(scrub, file, seen, false, doom.what)
    } else {
        match revive(scrub, lane, file, seen, location, &doom)? {
            Ok(key) => {
                detail.push_str(&format!("; '{key}' was made of it and is the copy now"));
                true
            }
            Err(why) => {
                detail.push_str(&format!("; it could not be made current: {why}"));
                false
            }
        }
    };
    scrub.find(doom.what, name(scrub, file), detail, mended);
    Ok(())
}

/// Those that waited for it, unless there are too many.
pub(super) fn mark_lost(scrub: &Scrub<'_>) {
    match scrub.lost.decide(scrub.options.max_missing) {
        Ok(waiting) => {
            for MissingCopy { file, seen, what } in waiting {
                if scrub.control.stopped().is_some() {
                    return;
                }
                if mend(scrub, &file, &seen, Repair::Mark(HsmMark::Lost)) {
                    scrub.mended(what, name(scrub, &file), "marked LOST");
                }
            }
        }
        Err(why) => scrub.note(why),
    }
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

fn name(scrub: &Scrub<'_>, file: &Named) -> String {
    shown(file.path.strip_prefix(scrub.mount.path()).unwrap_or(&file.path))
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

fn unmapped(scrub: &Scrub<'_>, file: &Named, seen: &FileSnapshot, why: &str) {
    let mended = !seen.states.released() && damaged(scrub, file, seen, false, FindingKind::Unmapped);
    let detail = format!("{why}{}", consequence(seen.states));
    scrub.find(FindingKind::Unmapped, name(scrub, file), detail, mended);
}

/// A file that is here gets archived again; one that is nowhere else is marked, unless its object is another's work
/// and a new import can take it. The mark waits until it is known how many are missing.
fn damaged(scrub: &Scrub<'_>, file: &Named, seen: &FileSnapshot, pinned: bool, what: FindingKind) -> bool {
    let states = seen.states;
    if !scrub.options.repair || (states.released() && pinned) {
        return false;
    }
    if !states.released() {
        return states.dirty() || mend(scrub, file, seen, Repair::Mark(HsmMark::Dirty));
    }
    if states.lost() {
        return true;
    }
    if scrub.options.max_missing.is_all() {
        return mend(scrub, file, seen, Repair::Mark(HsmMark::Lost));
    }
    scrub.lost.wait(MissingCopy {
        file: file.clone(),
        seen: seen.clone(),
        what,
    });
    false
}

/// Looks at the file again, for the look at its object took a while: one that is another now, or was archived anew,
/// is left alone.
pub(super) fn mend(scrub: &Scrub<'_>, file: &Named, seen: &FileSnapshot, mend: Repair<'_>) -> bool {
    let path = &file.path;
    let mended = scrub.mount.pinned(file.at()).and_then(|(open, at)| {
        let now = FileSnapshot {
            states: scrub.mount.states_at(&at)?,
            record: Mount::map_at(&at)?,
        };
        if now != *seen {
            return Ok(false);
        }
        match mend {
            Repair::Mark(mark) => scrub.mount.mark(&at, mark)?,
            Repair::Record(record) => Mount::set_map_at(&at, &record.to_bytes())?,
        }
        drop(open);
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

fn look(scrub: &Scrub<'_>, lane: &Lane, location: &Location) -> Result<CopyFound, ScrubError> {
    let found = scrub.transfer(lane).head(location.at(), location.version.as_deref());
    let found = match found {
        Ok(found) => found,
        Err(TransferError::Store(StoreError::NotFound { .. })) => {
            return gone(scrub, lane, location.archive_id, &location.key);
        }
        Err(TransferError::NoTarget(id)) => {
            return Ok(CopyFound::Unknown(format!(
                "'{}' is in archive {id}, which the configuration does not have",
                location.key
            )));
        }
        // 403 says nothing of the object: it may be there.
        Err(error) => {
            let why = scrub.of_one(lane, location.archive_id, error)?;
            return Ok(CopyFound::Unknown(format!(
                "'{}' can't be looked at: {why}",
                location.key
            )));
        }
    };
    judge(scrub, lane, location, found)
}

/// A bucket that is not there says 404 as well.
fn gone(scrub: &Scrub<'_>, lane: &Lane, archive_id: ArchiveId, key: &ObjectKey) -> Result<CopyFound, ScrubError> {
    let Err(error) = super::objects::exists(scrub, lane, archive_id, key.as_str()) else {
        return Ok(CopyFound::Missing);
    };
    let why = scrub.of_one(lane, archive_id, error)?;
    Ok(CopyFound::Unknown(format!(
        "'{key}' seems not to be there, and its bucket can't be listed: {why}"
    )))
}

/// What is there, against what it should be.
fn judge(scrub: &Scrub<'_>, lane: &Lane, location: &Location, found: ObjectInfo) -> Result<CopyFound, ScrubError> {
    let same_bytes = found.size == location.size && found.checksum.is_some() && found.checksum == location.checksum;
    if found.etag != location.etag && !same_bytes {
        return Ok(CopyFound::Other(format!(
            "is another object: ETag {} and {} bytes, not {} and {}",
            found.etag, found.size, location.etag, location.size
        )));
    }
    if found.size != location.size {
        return Ok(CopyFound::Other(format!(
            "has {} bytes, not {}",
            found.size, location.size
        )));
    }
    if scrub.options.deep {
        let from = Location {
            etag: found.etag.clone(),
            ..location.clone()
        };
        scrub
            .bytes
            .fetch_add(location.size, std::sync::atomic::Ordering::Relaxed);
        match scrub.transfer(lane).verify(&from) {
            Ok(_) => {}
            Err(TransferError::Checksum { what }) => return Ok(CopyFound::Other(what)),
            Err(error) => {
                let why = scrub.of_one(lane, location.archive_id, error)?;
                return Ok(CopyFound::Unknown(format!(
                    "'{}' is there; its bytes can't be read: {why}",
                    location.key
                )));
            }
        }
    }
    Ok(if found.etag == location.etag {
        CopyFound::Good(found)
    } else {
        CopyFound::Moved(found)
    })
}
