//! One file: where its object is now, and the proof that it has the bytes that were archived.

use std::path::Path;

use super::places::{places, sidecar_at};
use super::{Rebind, RebindError};
use crate::action::{FileSystem as _, HsmError};
use crate::lustre::{HsmStates, Mount};
use crate::store::{Location, ObjectInfo, ObjectKey, Owner, Records, StoreError};
use crate::transfer::{Lane, TransferError};
use crate::types::{ArchiveId, Fid};

/// What became of it.
pub(super) enum Outcome {
    /// It is no more.
    Gone,
    Skipped,
    Same,
    Rebound {
        key: ObjectKey,
        detail: String,
    },
    Failed {
        key: Option<ObjectKey>,
        why: String,
    },
}

pub(super) struct Looked {
    pub(super) outcome: Outcome,
    /// The sidecar that is not there.
    pub(super) lacks: Option<ObjectKey>,
}

impl From<Outcome> for Looked {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, lacks: None }
    }
}

/// A file as it was judged.
#[derive(PartialEq, Eq)]
struct FileSnapshot {
    states: HsmStates,
    record: Option<Vec<u8>>,
}

impl FileSnapshot {
    fn of(mount: &Mount, path: &Path) -> Result<Self, HsmError> {
        Ok(Self {
            states: mount.states_at(path)?,
            record: Mount::map_at(path)?,
        })
    }
}

/// Where the copy is.
enum FoundCopy {
    /// Where its record says.
    Same,
    There(Box<Location>),
}

/// Why no object was taken.
enum Unproven {
    /// This one is not it.
    This(String),
    /// No other would fare better.
    All(RebindError),
}

impl From<TransferError> for Unproven {
    fn from(error: TransferError) -> Self {
        match error {
            TransferError::Stopped(_) => Self::All(RebindError::Stopped),
            TransferError::GaveUp { .. }
            | TransferError::Panic
            | TransferError::Store(StoreError::NoSuchBucket { .. }) => Self::All(RebindError::Store(error)),
            TransferError::Store(StoreError::NotFound { .. }) => Self::This("is not there".into()),
            error => Self::This(error.to_string()),
        }
    }
}

pub(super) fn rebind(rebind: &Rebind<'_>, lane: &Lane, path: &Path) -> Result<Looked, RebindError> {
    let failed = |key: Option<ObjectKey>, why: String| Ok(Outcome::Failed { key, why }.into());
    let seen = match FileSnapshot::of(rebind.mount, path) {
        Ok(seen) => seen,
        Err(error) if error.is_not_found() => return gone(rebind),
        Err(error) => return failed(None, error.to_string()),
    };
    if !seen.states.archived() {
        return Ok(Outcome::Skipped.into());
    }
    let old = match seen.record.as_deref().map(Location::from_bytes) {
        Some(Ok(old)) => old,
        Some(Err(error)) => return failed(None, error.to_string()),
        None => return unrecorded(rebind, lane, path, &seen),
    };
    let archive_id = old.archive_id;
    if rebind.options.archive_id.is_some_and(|wanted| wanted != archive_id) {
        return Ok(Outcome::Skipped.into());
    }
    if !seen.states.is_in(archive_id) {
        let why = format!("its record says archive {archive_id}, its HSM state another one: one of the two is wrong");
        return failed(Some(old.key), why);
    }
    let places = match places(rebind.options.prefixes.as_ref(), &old.key) {
        Ok(places) => places,
        Err(error) => return failed(Some(old.key), error.to_string()),
    };
    // Of several places the first one tells why.
    let mut first = None;
    for place in places {
        match find(rebind, lane, path, &old, &place) {
            Ok(FoundCopy::Same) => {
                let lacks = missing(rebind, lane, &old)?;
                return Ok(Looked {
                    outcome: Outcome::Same,
                    lacks,
                });
            }
            Ok(FoundCopy::There(new)) => return take(rebind, lane, path, &seen, &old, new.as_ref()),
            Err(Unproven::This(why)) => {
                first.get_or_insert((place, why));
            }
            Err(Unproven::All(error)) => {
                let why = of_one(rebind, lane, archive_id, error)?;
                first.get_or_insert((place, why));
            }
        }
    }
    match first {
        Some((place, why)) => failed(Some(place), why),
        None => failed(Some(old.key), "there is no place to look at".into()),
    }
}

/// A file without a record: where the object at the key of its FID names the file and that key, it tells all. One that was
/// copied to where its key is another one is taken for it by the file that it names and its size, and the file gets a record;
/// so does each file where records are always written, or where FIDs may change.
fn unrecorded(rebind: &Rebind<'_>, lane: &Lane, path: &Path, seen: &FileSnapshot) -> Result<Looked, RebindError> {
    const NONE: &str = "it is archived and has no record of its copy";
    let failed = |key: Option<ObjectKey>, why: String| Ok(Outcome::Failed { key, why }.into());
    let Some((archive_id, store)) = seen
        .states
        .archive_id()
        .and_then(|archive_id| Some((archive_id, lane.store(archive_id).ok()?)))
    else {
        return failed(None, NONE.into());
    };
    if rebind.options.archive_id.is_some_and(|wanted| wanted != archive_id) {
        return Ok(Outcome::Skipped.into());
    }
    let looked = rebind.mount.fid_at(path).and_then(|fid| {
        let stat = path.symlink_metadata();
        Ok((fid, stat.map_err(|error| HsmError::io("lstat", &error))?.len()))
    });
    let (fid, size) = match looked {
        Ok(looked) => looked,
        Err(error) if error.is_not_found() => return gone(rebind),
        Err(error) => return failed(None, error.to_string()),
    };
    let owner = Owner {
        fs: rebind.mount.name().to_owned(),
        fid,
    };
    let natural = match ObjectKey::from_fid(&store.target().prefix, fid) {
        Ok(natural) => natural,
        Err(error) => return failed(None, error.to_string()),
    };
    let places = match places(rebind.options.prefixes.as_ref(), &natural) {
        Ok(places) => places,
        Err(error) => return failed(Some(natural), error.to_string()),
    };
    let mut first = None;
    for place in places {
        let why = match rebind
            .transfer(lane)
            .head(place.at(archive_id), None)
            .map_err(Unproven::from)
        {
            Ok(found) if Owner::of(&found.metadata).as_ref() != Some(&owner) => {
                format!("{NONE}, and '{place}' does not say that it is")
            }
            Ok(found) if found.size != size && !seen.states.dirty() => format!("has {} bytes, not {size}", found.size),
            Ok(found)
                if place == natural
                    && store.target().records == Records::WhenNeeded
                    && rebind.mount.keeps_fids()
                    && Location::told_by(&found, place.at(archive_id), &owner).is_some() =>
            {
                return Ok(Outcome::Same.into());
            }
            Ok(found) => {
                let new = found.at(place.at(archive_id));
                let old = Location {
                    key: natural,
                    ..new.clone()
                };
                return take(rebind, lane, path, seen, &old, &new);
            }
            Err(Unproven::This(why)) => format!("{NONE}, and '{place}' {why}"),
            Err(Unproven::All(error)) => of_one(rebind, lane, archive_id, error)?,
        };
        first.get_or_insert((place, why));
    }
    match first {
        Some((place, why)) => failed(Some(place), why),
        None => failed(Some(natural), "there is no place to look at".into()),
    }
}

/// In words, where the store is well but for this object.
fn of_one(rebind: &Rebind<'_>, lane: &Lane, archive_id: ArchiveId, error: RebindError) -> Result<String, RebindError> {
    match error {
        RebindError::Store(error) if rebind.transfer(lane).is_of_one(archive_id, &error) => Ok(error.to_string()),
        error => Err(error),
    }
}

/// What is not found below what is not the file system any more may well be there.
fn gone(rebind: &Rebind<'_>) -> Result<Looked, RebindError> {
    if rebind.mount.is_there() {
        Ok(Outcome::Gone.into())
    } else {
        Err(RebindError::Gone(rebind.mount.path().to_owned()))
    }
}

/// Writes what was proved into the record.
fn take(
    rebind: &Rebind<'_>,
    lane: &Lane,
    path: &Path,
    seen: &FileSnapshot,
    old: &Location,
    new: &Location,
) -> Result<Looked, RebindError> {
    let failed = |why: String| {
        let key = Some(new.key.clone());
        Ok(Outcome::Failed { key, why }.into())
    };
    if !rebind.options.dry_run {
        match write(rebind, path, seen, new) {
            Ok(true) => {}
            Ok(false) => {
                return failed("the file was changed or archived anew meanwhile; give the same command again".into());
            }
            Err(error) if error.is_not_found() => return gone(rebind),
            Err(error) => return failed(format!("its record can't be written: {error}")),
        }
    }
    let outcome = Outcome::Rebound {
        key: new.key.clone(),
        detail: changes(old, new),
    };
    let lacks = missing(rebind, lane, new)?;
    Ok(Looked { outcome, lacks })
}

fn changes(old: &Location, new: &Location) -> String {
    let mut changes = Vec::new();
    if old.key != new.key {
        changes.push(format!("was at '{}'", old.key));
    }
    if old.etag != new.etag {
        changes.push(format!("ETag {}, was {}", new.etag, old.etag));
    }
    if old.version != new.version {
        let named = |version: &Option<String>| version.clone().unwrap_or_else(|| "none".to_owned());
        changes.push(format!("version {}, was {}", named(&new.version), named(&old.version)));
    }
    if old.checksum != new.checksum {
        changes.push("with the store's checksum".to_owned());
    }
    if changes.is_empty() {
        changes.push("had no record".to_owned());
    }
    changes.join("; ")
}

/// Looks at the file again, by its descriptor: proofs take a while. `false`: it is another one now, or has another copy.
fn write(rebind: &Rebind<'_>, path: &Path, seen: &FileSnapshot, new: &Location) -> Result<bool, HsmError> {
    let (file, at) = rebind.mount.pinned(path)?;
    if FileSnapshot::of(rebind.mount, &at)? != *seen {
        return Ok(false);
    }
    Mount::set_map_at(&at, &new.to_bytes())?;
    drop(file);
    Ok(true)
}

/// What is at that key, if it is the copy.
fn find(rebind: &Rebind<'_>, lane: &Lane, path: &Path, old: &Location, key: &ObjectKey) -> Result<FoundCopy, Unproven> {
    let current = rebind
        .transfer(lane)
        .head(key.at(old.archive_id), None)
        .map_err(Unproven::from)
        .and_then(|found| judge(rebind, lane, path, old, key, found));
    match current {
        // Something else lies over the version that was recorded.
        Err(Unproven::This(_)) if *key == old.key && is_as_recorded(rebind, lane, old)? => Ok(FoundCopy::Same),
        current => current,
    }
}

fn is_as_recorded(rebind: &Rebind<'_>, lane: &Lane, old: &Location) -> Result<bool, Unproven> {
    let Some(version) = old.version.as_deref() else {
        return Ok(false);
    };
    match rebind.transfer(lane).head(old.at(), Some(version)) {
        Ok(found) => Ok(found.etag == old.etag && found.size == old.size),
        Err(error) => match Unproven::from(error) {
            Unproven::This(_) => Ok(false),
            all @ Unproven::All(_) => Err(all),
        },
    }
}

fn judge(
    rebind: &Rebind<'_>,
    lane: &Lane,
    path: &Path,
    old: &Location,
    key: &ObjectKey,
    found: ObjectInfo,
) -> Result<FoundCopy, Unproven> {
    let this = |why: String| Err(Unproven::This(why));
    if found.size != old.size {
        return this(format!("has {} bytes, not {}", found.size, old.size));
    }
    if let (Some(then), Some(now)) = (old.checksum, found.checksum)
        && then != now
    {
        let (then, now) = (then.to_base64(), now.to_base64());
        return this(format!("has other bytes: CRC64NVME {now}, not {then}"));
    }
    if let Some(other) = other_owner(rebind, path, old, &found) {
        return this(format!("says that it is the copy of another file, {other}"));
    }
    let is_same = *key == old.key && found.etag == old.etag && found.version == old.version;
    if is_same {
        return Ok(FoundCopy::Same);
    }
    let sidecar = old.sidecar.as_ref();
    let sidecar = sidecar.map(|sidecar| sidecar_at(rebind.options.prefixes.as_ref(), (&old.key, key), sidecar));
    let new = Location {
        key: key.clone(),
        etag: found.etag,
        version: found.version,
        checksum: old.checksum.or(found.checksum),
        sidecar: sidecar.transpose().map_err(|error| Unproven::This(error.to_string()))?,
        ..old.clone()
    };
    match (old.checksum, found.checksum) {
        (Some(_), Some(_)) => {}
        _ if old.size == 0 => {}
        // The store keeps none: the bytes themselves are the proof.
        (Some(_), None) => {
            rebind.count(|counts| counts.bytes += new.size);
            if !rebind.transfer(lane).verify(&new)? {
                return this("can't be proved: nothing tells what its bytes are".into());
            }
        }
        (None, _) if new.etag == old.etag => {}
        (None, _) => {
            return this(format!(
                "can't be proved: the record has no checksum (an import that read none), and the ETag is {}, not {}; \
                 'import --on-conflict refresh' takes the object as it is",
                new.etag, old.etag
            ));
        }
    }
    Ok(FoundCopy::There(Box::new(new)))
}

/// Whose copy the object is, where it says so and it is not this file. Imported files may have any object.
fn other_owner(rebind: &Rebind<'_>, path: &Path, old: &Location, found: &ObjectInfo) -> Option<Fid> {
    let owner = Owner::of(&found.metadata).filter(|owner| !old.pinned && owner.fs == rebind.mount.name())?;
    let fid = rebind.mount.fid_at(path).ok()?;
    (fid != owner.fid).then_some(owner.fid)
}

/// The sidecar of a copy, if there is to be one and there is none.
fn missing(rebind: &Rebind<'_>, lane: &Lane, copy: &Location) -> Result<Option<ObjectKey>, RebindError> {
    let Some(sidecar) = &copy.sidecar else {
        return Ok(None);
    };
    match rebind.transfer(lane).head(sidecar.at(copy.archive_id), None) {
        Ok(_) => Ok(None),
        Err(error) => match Unproven::from(error) {
            Unproven::This(_) => Ok(Some(sidecar.clone())),
            Unproven::All(error) => Err(error),
        },
    }
}
