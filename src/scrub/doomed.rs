//! Copies that are there and will not stay: a lifecycle rule has set their day, or they are no longer the version that
//! their key stands for, and the rule for noncurrent versions takes them.

use super::files::{self, FileSnapshot, Repair};
use super::{FindingKind, Scrub, ScrubError};
use crate::action::FileSystem as _;
use crate::store::{Condition, Location, ObjectInfo, ObjectKey, Owner, Store, StoreError};
use crate::transfer::{Lane, TransferError};
use crate::types::Fid;
use crate::walk::Named;

/// What is to become of a copy that is as it should be.
pub(super) enum CopyFate {
    Stays,
    Doomed(Box<DoomReason>),
    Unknown(String),
}

/// Why it will not stay.
pub(super) struct DoomReason {
    pub(super) what: FindingKind,
    /// The same for a person, with the day or the version.
    pub(super) how: String,
    /// The copy.
    found: ObjectInfo,
    /// What its key stands for now; `None`: nothing.
    now: Option<ObjectInfo>,
}

/// `found` is the object that the record names. A record with a version costs one more HEAD.
pub(super) fn fate(
    scrub: &Scrub<'_>,
    lane: &Lane,
    location: &Location,
    found: ObjectInfo,
) -> Result<CopyFate, ScrubError> {
    let key = &location.key;
    let now = match &location.version {
        None => Some(found.clone()),
        Some(_) => match scrub.transfer(lane).find(key.at(location.archive_id)) {
            Ok(now) => now,
            // Some stores say so of a delete marker.
            Err(TransferError::Store(StoreError::Refused { status: 405, .. })) => None,
            Err(error) => {
                let why = scrub.of_one(lane, location.archive_id, error)?;
                return Ok(CopyFate::Unknown(format!(
                    "'{key}' is there; whether it is the current version can't be told: {why}"
                )));
            }
        },
    };
    let is_current = now.as_ref().is_some_and(|now| now.version == location.version);
    let (what, how) = if is_current {
        let expiry = now.as_ref().and_then(|now| now.expires.as_ref());
        let Some(expiry) = found.expires.as_ref().or(expiry) else {
            return Ok(CopyFate::Stays);
        };
        (FindingKind::Expiring, format!("'{key}' {expiry}"))
    } else {
        let version = location.version.as_deref().unwrap_or("null");
        let where_it_is = match &now {
            None => "lies below a delete marker".to_owned(),
            Some(now) => format!(
                "is not the current one, which is {}",
                now.version.as_deref().unwrap_or("null")
            ),
        };
        let how =
            format!("version {version} of '{key}' {where_it_is}: a lifecycle rule for noncurrent versions takes it");
        (FindingKind::Noncurrent, how)
    };
    Ok(CopyFate::Doomed(Box::new(DoomReason { what, how, found, now })))
}

/// Why a copy was not made.
enum Refusal {
    Said(String),
    Store(TransferError),
}

impl From<String> for Refusal {
    fn from(why: String) -> Self {
        Self::Said(why)
    }
}

impl From<&str> for Refusal {
    fn from(why: &str) -> Self {
        Self::Said(why.into())
    }
}

impl From<TransferError> for Refusal {
    fn from(error: TransferError) -> Self {
        Self::Store(error)
    }
}

/// The copy of a released file becomes a current object again, and then what the file's record names. The inner `Err`:
/// why not.
pub(super) fn revive(
    scrub: &Scrub<'_>,
    lane: &Lane,
    file: &Named,
    seen: &FileSnapshot,
    location: &Location,
    doom: &DoomReason,
) -> Result<Result<ObjectKey, String>, ScrubError> {
    match copy_back(scrub, lane, file, seen, location, doom) {
        Ok(key) => Ok(Ok(key)),
        Err(Refusal::Said(why)) => Ok(Err(why)),
        Err(Refusal::Store(error)) => Ok(Err(scrub.of_one(lane, location.archive_id, error)?)),
    }
}

fn copy_back(
    scrub: &Scrub<'_>,
    lane: &Lane,
    file: &Named,
    seen: &FileSnapshot,
    location: &Location,
    doom: &DoomReason,
) -> Result<ObjectKey, Refusal> {
    const ARCHIVE_AGAIN: &str = "restore the file and archive it again";
    let (mount, found) = (scrub.mount, &doom.found);
    if location.size > Store::LARGEST_COPY {
        return Err(format!("it is larger than the 5 GiB that one request copies: {ARCHIVE_AGAIN}").into());
    }
    // An ETag of parts is another one after a copy.
    if found.checksum.is_none() && found.etag.contains('-') {
        return Err(format!("the store keeps no checksum that would prove the copy: {ARCHIVE_AGAIN}").into());
    }
    // Where no versions are kept the copy replaces its source, and until the record follows only the bytes tell it.
    if location.version.is_none() && !location.has_bytes_of(found) {
        return Err(format!("the store keeps no CRC64NVME of it, and no versions: {ARCHIVE_AGAIN}").into());
    }
    let (fid, _) = mount.look(file.at()).map_err(|error| error.to_string())?;
    match mount.has_action(fid) {
        Ok(false) => {}
        Ok(true) => return Err("an action goes on with the file".into()),
        Err(error) => return Err(error.to_string().into()),
    }
    // It replaces its source: on a store that heeds no condition, also what a mover has written there since.
    if location.version.is_none() && !scrub.copies_are_guarded(lane, location.archive_id)? {
        return Err(format!(
            "the store does not keep what a copy demands of its key, and no versions: {ARCHIVE_AGAIN}"
        )
        .into());
    }
    let transfer = scrub.transfer(lane);
    let (to, condition) = place(scrub, lane, fid, location, doom)?;
    let from = Location {
        etag: found.etag.clone(),
        ..location.clone()
    };
    let made = match transfer.copy(&from, &to, &condition, &found.metadata) {
        // A store without conditions for copies. Where versions are kept, nothing is lost under a copy.
        Err(TransferError::Store(StoreError::Unsupported { .. })) if location.version.is_some() => {
            transfer.copy(&from, &to, &Condition::None, &found.metadata)?
        }
        made => made?,
    };
    let proof = transfer.head(made.at(), made.version.as_deref())?;
    let same_sum = found.checksum.is_some() && found.checksum == proof.checksum;
    let same_bytes = location.has_bytes_of(&proof) || same_sum || proof.etag == location.etag;
    if proof.size != location.size || !same_bytes {
        return Err(format!("the copy '{to}' can't be proved: {ARCHIVE_AGAIN}").into());
    }
    let record = Location {
        etag: proof.etag,
        version: proof.version,
        ..made
    };
    scrub.known.add(&record.key);
    if files::mend(scrub, file, seen, Repair::Record(&record)) {
        Ok(record.key)
    } else {
        Err("its record could not be rewritten".into())
    }
}

/// The key that a copy is made at: its own, unless another file's object has it by now.
fn place(
    scrub: &Scrub<'_>,
    lane: &Lane,
    fid: Fid,
    location: &Location,
    doom: &DoomReason,
) -> Result<(ObjectKey, Condition), Refusal> {
    let fs = scrub.mount.name();
    let is_ours =
        |found: &ObjectInfo| Owner::of(&found.metadata).is_some_and(|owner| owner.fs == fs && owner.fid == fid);
    match &doom.now {
        None => Ok((location.key.clone(), Condition::Absent)),
        Some(now) if now.version == location.version || is_ours(now) => {
            Ok((location.key.clone(), Condition::Match(now.etag.clone())))
        }
        // What comes from an import says nothing of a file: beside its key it would be nobody's one day.
        Some(_) if location.pinned => Err("another object is at its key: restore the file to keep its data".into()),
        Some(_) => {
            let beside = location.key.beside(fid).map_err(|error| error.to_string())?;
            match scrub.transfer(lane).find(beside.at(location.archive_id))? {
                None => Ok((beside, Condition::Absent)),
                Some(there) if is_ours(&there) => Ok((beside, Condition::Match(there.etag))),
                Some(_) => Err(format!("other objects are at its key and at '{beside}'").into()),
            }
        }
    }
}
