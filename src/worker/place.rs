//! Where a file's copy goes, and the rule that nobody's only copy is ever overwritten.
//!
//! Keys follow paths, and paths move: a new file can take the path of an old one whose data lives only
//! under that key. So a first archive demands that the key is free, and a re-archive that the key still
//! holds this file's own object. When the store objects, the object's metadata tells whose it is: ours
//! or a dead file's is replaced, anybody else's is left alone and the copy goes beside it. That nothing has a FID proves
//! a file's death only where FIDs stay: `lfs migrate -m` changes them, where MDTs let it have files with a copy, and the
//! file's record goes on naming the object. There a dead file's object is replaced only where there is one MDT, or where
//! the bucket keeps it as a version, by which the record names it. A record that was written for another file names nothing
//! that this one may replace: its archive is a first one.
//!
//! Where a file needs no record (`crate::mapped`), what it is archived as is seen by its state alone, and only when the end
//! of the archive has counted. So an attempt that finds the object of another one that is still under way at the file's key
//! leaves it to that one, and goes beside it with a record.

use std::fs::File;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::log::{AttemptLog, announce, is_over};
use super::{Context, JobError};
use crate::action::{CopyState, Item};
use crate::mapped;
use crate::store::{
    Checksum, Claim, Condition, KeyLayout, Location, ObjectInfo, ObjectKey, Origin, Owner, Quirk, StoreError,
    TargetOptions, WriteAttempt, name_key,
};
use crate::transfer::{
    Bearer, Control, IdleThreads, Lane, ObjectDescription, Said, TransferError, Upload, UploadedObject, describe,
    discard_sidecar, find, glance, head, sweep_key, try_conditions, upload, wait_for_deletions,
};
use crate::types::{ArchiveId, Fid};

/// Enough for any honest race; each round answers something that another writer just did.
const ROUNDS: usize = 8;
/// Names beside a key that can be others', too: file systems that share a bucket have equal FIDs.
const BESIDE: usize = 4;

/// A copy that is stored and verified, not yet the file's.
#[derive(Debug)]
pub(super) struct StoredCopy {
    pub(super) location: Location,
    /// The copy that it takes the place of: the file's own.
    pub(super) previous: Option<Location>,
    /// The file's record before, whatever it says: that is put back when the archive fails.
    pub(super) record: Option<Vec<u8>>,
    /// Its object took the place of one of this file that the record did not mean: another attempt's.
    pub(super) over_another: bool,
    /// What was written to other keys before, where a deletion of what is there may be under way.
    pub(super) left: Vec<Location>,
    /// The key does not tell all of it, or the file has a record already, which must not go on saying something else.
    pub(super) needs_record: bool,
}

impl StoredCopy {
    /// Whether the previous copy's object was replaced in place (and is gone, without versioning).
    pub(super) fn in_place(&self) -> bool {
        self.previous
            .as_ref()
            .is_some_and(|previous| previous.is_at(&self.location))
    }
}

/// The archive id of an item and the key that the target's rule gives its file.
pub(super) fn natural_key(context: &Context, lane: &Lane, item: &Item) -> Result<(ArchiveId, ObjectKey), JobError> {
    let (archive_id, target) = target_of(lane, item)?;
    let key = match target.layout {
        KeyLayout::Fid => ObjectKey::from_fid(&target.prefix, item.fid)?,
        KeyLayout::Path => key_of(target, item.fid, &context.fs.path_of(item.fid)?)?.0,
    };
    Ok((archive_id, key))
}

/// The same, with the file's path where the key does not tell it.
fn natural_key_and_path(
    context: &Context,
    lane: &Lane,
    item: &Item,
) -> Result<(ArchiveId, ObjectKey, Option<PathBuf>), JobError> {
    let (archive_id, target) = target_of(lane, item)?;
    let path = context.fs.path_of(item.fid);
    if target.layout == KeyLayout::Fid {
        // One without a name is archived all the same.
        return Ok((archive_id, ObjectKey::from_fid(&target.prefix, item.fid)?, path.ok()));
    }
    let path = path?;
    let (key, tells_path) = key_of(target, item.fid, &path)?;
    Ok((archive_id, key, (!tells_path).then_some(path)))
}

fn target_of<'a>(lane: &'a Lane, item: &Item) -> Result<(ArchiveId, &'a TargetOptions), JobError> {
    let archive_id = item.archive_id.ok_or(JobError::NoArchiveId)?;
    Ok((archive_id, lane.store(archive_id)?.target()))
}

/// A file's key by its path, and whether it tells the path.
fn key_of(target: &TargetOptions, fid: Fid, path: &Path) -> Result<(ObjectKey, bool), JobError> {
    match ObjectKey::of_file(&target.prefix, path, fid) {
        Ok(key) => Ok((key, true)),
        Err(reason) => {
            tracing::warn!(path = %path.display(), %reason, "the path can't be an object's key; the FID is");
            Ok((ObjectKey::from_fid(&target.prefix, fid)?, false))
        }
    }
}

pub(super) fn place(
    context: &Context,
    lane: &Lane,
    idle_threads: &dyn IdleThreads,
    control: &Arc<Control>,
    item: &Item,
    (author, file, state): (&WriteAttempt, &Arc<File>, CopyState),
) -> Result<StoredCopy, JobError> {
    let stat = file.metadata().map_err(JobError::Attributes)?;
    if !stat.is_file() {
        return Err(JobError::NotRegular);
    }
    let record = context.fs.map(item.fid)?;
    let previous = previous(lane, control, &author.owner, (record.as_deref(), state))?;
    let (archive_id, natural, path) = natural_key_and_path(context, lane, item)?;
    announce(context, item, (archive_id, &natural), author.writer);
    let mut extras = context.fs.extras(item.fid, file)?;
    extras.path = path.map(|path| path.into_os_string().into_vec());
    let ObjectDescription { metadata, sidecar } = describe(lane, control, archive_id, author, (&stat, extras))?;
    let mut to = Upload {
        archive_id,
        key: natural.clone(),
        condition: Condition::Absent,
        metadata,
        is_data: true,
        log: Arc::new(AttemptLog::new(context, lane, item, author.writer, file, stat.len())),
    };
    go_to(&mut to, natural);
    let stored = store(
        context,
        lane,
        idle_threads,
        control,
        (file, stat.len()),
        to,
        (item, author),
        previous.as_ref(),
    );
    match stored {
        Ok(written) => {
            let location = Location {
                sidecar,
                ..written.location
            };
            Ok(StoredCopy {
                needs_record: record.is_some() || needs_record(context, lane, state, &location, written.by_store),
                location,
                previous,
                record,
                over_another: written.over_another,
                left: written.left,
            })
        }
        Err(error) => {
            if !control.is_handed_on() {
                discard_sidecar(lane, archive_id, sidecar.as_ref(), &author.owner, previous.as_ref());
            }
            Err(error)
        }
    }
}

/// Whether a file that has no record needs one for that copy.
fn needs_record(
    context: &Context,
    lane: &Lane,
    state: CopyState,
    location: &Location,
    by_store: Option<Checksum>,
) -> bool {
    let is_told = |target: &TargetOptions| target.goes_without_records() && location.is_told(&target.prefix, by_store);
    !lane
        .store(location.archive_id)
        .is_ok_and(|store| is_told(store.target()))
        || state.archive_id != Some(location.archive_id)
        || !context.fs.keeps_fids()
}

/// What was written.
struct Written {
    location: Location,
    /// It replaced an object of this file that the file's record did not mean.
    over_another: bool,
    /// [`StoredCopy::left`]
    left: Vec<Location>,
    /// What the store keeps as the object's checksum.
    by_store: Option<Checksum>,
}

/// The key of an upload, which its object names.
fn go_to(to: &mut Upload, key: ObjectKey) {
    name_key(&mut to.metadata, &key);
    to.key = key;
}

/// Writes the object to its key, or to the one beside it.
#[expect(clippy::too_many_arguments, reason = "one step of place()")]
fn store(
    context: &Context,
    lane: &Lane,
    idle_threads: &dyn IdleThreads,
    control: &Arc<Control>,
    (file, size): (&Arc<File>, u64),
    mut to: Upload,
    (item, author): (&Item, &WriteAttempt),
    previous: Option<&Location>,
) -> Result<Written, JobError> {
    let (archive_id, natural) = (to.archive_id, to.key.clone());
    let owner = &author.owner;
    let beside = natural.beside(owner.fid);
    let mut pinned = false;
    let mut unproven = false;
    // The ETag of this file's object that is to be replaced, as far as one was seen.
    let mut over = None;
    if let Some(previous) = previous.filter(|previous| {
        previous.archive_id == archive_id
            && (previous.pinned
                || previous.key == natural
                || beside.as_ref().is_ok_and(|beside| *beside == previous.key))
    }) {
        pinned = previous.pinned;
        go_to(&mut to, previous.key.clone());
        to.condition = Condition::Match(previous.etag.clone());
        // An import knows where an object is, and not whose it is, too.
        unproven = previous.writer.is_none();
    }
    let store = lane.store(archive_id)?;
    // What nobody has seen to be heeded is not relied on alone.
    let untried = !try_conditions(lane, control, archive_id)?;
    // Before the data of a large file is sent in vain; the condition still guards the moment itself.
    let large = size > lane.options().plan.threshold;
    if unproven || untried || (large && to.condition == Condition::Absent) || !store.has_conditions() {
        match look(context, lane, control, (author, previous), &mut to) {
            // Without s3:ListBucket a key with no object is "denied", too; the condition decides.
            Err(JobError::Transfer(TransferError::Store(StoreError::Denied { .. }))) if store.has_conditions() => {
                // What can't be looked at is not replaced.
                if unproven {
                    to.condition = Condition::Absent;
                }
            }
            looked => over = looked?,
        }
    }
    let mut unconditional = false;
    let mut left = Vec::new();
    for _ in 0..ROUNDS {
        let error = match upload(lane, idle_threads, control, file, size, &to) {
            Ok(uploaded) => {
                if unconditional {
                    store.lacks_conditions();
                }
                match standing(
                    context,
                    lane,
                    control,
                    author,
                    (archive_id, &to.key, uploaded.stored.version.as_deref()),
                )? {
                    Standing::Sure => {}
                    Standing::Gone => {
                        tracing::info!(key = %to.key, "a deletion of the file's former object took this one away; it is written \
                             again");
                        over = None;
                        to.condition = Condition::Absent;
                        if !store.has_conditions() {
                            over = look(context, lane, control, (author, previous), &mut to)?;
                        }
                        continue;
                    }
                    Standing::InDoubt => {
                        let own = located(&to, uploaded, (size, pinned), author);
                        super::archive::discard_left(context, lane, item, author, &own);
                        left.push(own);
                        let why = "a deletion at the key goes on and on, or its mover is dead: what is there may go";
                        over = go_beside(context, lane, control, owner, &mut to, why)?;
                        if !store.has_conditions() {
                            to.condition = Condition::None;
                        }
                        continue;
                    }
                }
                let is_mapped =
                    |etag: &String| previous.is_some_and(|previous| previous.key == to.key && previous.etag == *etag);
                let over_another = over.as_ref().is_some_and(|etag| !is_mapped(etag));
                return Ok(Written {
                    over_another,
                    left,
                    by_store: uploaded.stored.checksum,
                    location: located(&to, uploaded, (size, pinned), author),
                });
            }
            Err(error) => error,
        };
        match error {
            TransferError::Store(StoreError::Precondition { .. }) => {
                over = look(context, lane, control, (author, previous), &mut to)?;
            }
            // Some stores say 404 where the object to be matched is gone.
            TransferError::Store(StoreError::NotFound { .. }) if matches!(to.condition, Condition::Match(_)) => {
                to.condition = Condition::Absent;
                over = None;
            }
            // Where conditions were seen to work, it is something else that the store does not know.
            TransferError::Store(StoreError::Unsupported { .. })
                if to.condition != Condition::None && !store.quirks().has(Quirk::Conditions) =>
            {
                // Second best, and all that such a store offers: look first, then write. That it was the condition
                // which it does not know is certain when it takes the same without.
                over = look(context, lane, control, (author, previous), &mut to)?;
                to.condition = Condition::None;
                unconditional = true;
            }
            error => return Err(error.into()),
        }
    }
    Err(JobError::NoFreeKey(natural.to_string()))
}

/// What was uploaded, without its sidecar.
fn located(to: &Upload, uploaded: UploadedObject, (size, pinned): (u64, bool), author: &WriteAttempt) -> Location {
    Location {
        archive_id: to.archive_id,
        key: to.key.clone(),
        size,
        etag: uploaded.stored.etag,
        version: uploaded.stored.version,
        checksum: Some(uploaded.checksum),
        pinned,
        layout: None,
        sidecar: None,
        written_for: Some(author.owner.clone()),
        writer: Some(author.writer),
    }
}

/// Whether an object that was written is there, and stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    /// Whoever deletes at its key from now on looks at it before, and finds who wrote it.
    Sure,
    /// It is not there: a deletion has taken it for the one before.
    Gone,
    /// It may go at any moment.
    InDoubt,
}

/// Looks at what is said on the file of deletions (`crate::transfer::announce`), which is one call where nothing is; of a
/// version none is needed.
pub(super) fn standing(
    context: &Context,
    lane: &Lane,
    control: &Control,
    author: &WriteAttempt,
    (archive_id, key, version): (ArchiveId, &ObjectKey, Option<&str>),
) -> Result<Standing, TransferError> {
    if version.is_some() {
        return Ok(Standing::Sure);
    }
    let bearer = (context.fs.as_ref(), author.owner.fid);
    match wait_for_deletions(lane, control, bearer, (archive_id, key))? {
        Said::Nothing => return Ok(Standing::Sure),
        Said::UnderWay => return Ok(Standing::InDoubt),
        Said::Over => {}
    }
    match find(lane, control, archive_id, key) {
        Ok(found) => Ok(match found {
            Some(found) if Origin::of(&found, key).is_by(author) => Standing::Sure,
            // Another attempt's that was written over it is met by the condition.
            Some(_) | None => Standing::Gone,
        }),
        // Without s3:ListBucket a key with no object is "denied", too; the condition decides.
        Err(TransferError::Store(StoreError::Denied { .. })) => Ok(Standing::Gone),
        Err(error) => Err(error),
    }
}

/// A request that was dropped when its action was stopped may have been complete at the store: what it made
/// is nobody's copy. One that arrives even later is found by the next archive of the file, which takes its
/// key. Called after the answer: nobody waits.
pub(super) fn sweep(context: &Context, lane: &Lane, item: &Item, author: &WriteAttempt) {
    let Ok((archive_id, key)) = natural_key(context, lane, item) else {
        return;
    };
    let is_garbage = |found: &ObjectInfo, origin: &Origin| {
        origin.is_by(author) && !is_mapped(context, item.fid, (archive_id, &key), found)
    };
    let bearer = Bearer::File(context.fs.as_ref(), item.fid);
    match sweep_key(lane, bearer, archive_id, &key, None, is_garbage) {
        Ok(()) => look_after(context, lane, item.fid, (archive_id, &key)),
        Err(error) => tracing::debug!(%key, %error, "could not look for what a stopped archive left"),
    }
}

/// After an object of a file may have been taken away. Without versions equal bytes have equal ETags: it may have been the
/// one that another attempt had put in its place that moment. Where that one's end counts by now, nobody may release the file
/// before it is archived again; where it counts later, that attempt sees to it (`super::readback`).
pub(super) fn look_after(context: &Context, lane: &Lane, fid: Fid, (archive_id, key): (ArchiveId, &ObjectKey)) {
    if !context.fs.is_archived(fid).unwrap_or(false) {
        return;
    }
    let means = match context.fs.map(fid) {
        Ok(None) => mapped::may_be_told(context.fs.as_ref(), fid, archive_id, key),
        Ok(Some(record)) => Location::from_bytes(&record).is_ok_and(|location| {
            location.archive_id == archive_id && location.key == *key && location.version.is_none()
        }),
        Err(_) => false,
    };
    if !means || !matches!(glance(lane, archive_id, key, None), Ok(None)) {
        return;
    }
    match context.fs.revoke(fid) {
        Ok(()) => {
            tracing::warn!(%fid, %key, "what another attempt to archive the file has written was taken away with what \
             this one had: the file counts as not archived, and the next archive makes its copy anew")
        }
        Err(error) => {
            tracing::error!(%fid, %key, %error, "the file's object is not there, and it can't be marked as not \
             archived: look whether it can be restored")
        }
    }
}

/// Whether a file, as it is now, means what was found at a key. What can't be read may mean anything.
pub(super) fn is_mapped(context: &Context, fid: Fid, at: (ArchiveId, &ObjectKey), found: &ObjectInfo) -> bool {
    mapped::may_mean(context.fs.as_ref(), fid, at, found)
}

/// The file's own copy by its record, or without one by its key, if it has one that can be told to be its own.
fn previous(
    lane: &Lane,
    control: &Control,
    owner: &Owner,
    (record, state): (Option<&[u8]>, CopyState),
) -> Result<Option<Location>, JobError> {
    let location = match record.map(Location::from_bytes) {
        None => return told(lane, control, owner, state),
        Some(Ok(location)) => location,
        Some(Err(error)) => {
            // The copy it meant can't be found, and the file is here: it gets a new copy and a new record.
            tracing::warn!(%error, "archiving anew");
            return Ok(None);
        }
    };
    let key = &location.key;
    let own = match location.claim(owner) {
        Claim::Own => true,
        Claim::Unsaid => says_so(lane, control, owner, &location)?,
        Claim::Anothers => false,
    };
    if !own {
        tracing::info!(%key, "the file's record was not written for it, or nothing tells that it was: what it names stays, and \
             this is a first copy");
    }
    Ok(own.then_some(location))
}

/// That of a file without a record. One that was never archived costs no look.
fn told(lane: &Lane, control: &Control, owner: &Owner, state: CopyState) -> Result<Option<Location>, JobError> {
    let Some(archive_id) = state.archive_id.filter(|_| state.archived) else {
        return Ok(None);
    };
    match mapped::by_key(lane, control, archive_id, owner) {
        Ok(told) => Ok(told.location),
        Err(error) if tells_nothing(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether an object says that it is that file's copy, where the file's record says nothing of it.
fn says_so(lane: &Lane, control: &Control, owner: &Owner, location: &Location) -> Result<bool, JobError> {
    let version = location.version.as_deref();
    match head(lane, control, location.archive_id, &location.key, version) {
        Ok(found) => Ok(Origin::of(&found, &location.key).is_of(owner)),
        Err(error) if tells_nothing(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether a look ended with that there is nothing to be seen.
const fn tells_nothing(error: &TransferError) -> bool {
    matches!(
        error,
        TransferError::NoTarget(_)
            | TransferError::Store(
                StoreError::NotFound { .. } | StoreError::Denied { .. } | StoreError::Refused { .. }
            )
    )
}

/// Looks at what holds the key and sets key and condition for the next try. The ETag of what is there, if it is this file's.
fn look(
    context: &Context,
    lane: &Lane,
    control: &Control,
    by: (&WriteAttempt, Option<&Location>),
    to: &mut Upload,
) -> Result<Option<String>, JobError> {
    let own = look_at_key(context, lane, control, by, to)?;
    if !lane.store(to.archive_id)?.has_conditions() {
        to.condition = Condition::None;
    }
    Ok(own)
}

fn look_at_key(
    context: &Context,
    lane: &Lane,
    control: &Control,
    (author, previous): (&WriteAttempt, Option<&Location>),
    to: &mut Upload,
) -> Result<Option<String>, JobError> {
    let owner = &author.owner;
    let Some(found) = find(lane, control, to.archive_id, &to.key)? else {
        to.condition = Condition::Absent;
        return Ok(None);
    };
    match Origin::of(&found, &to.key) {
        // An imported one that nobody changed: the condition is that of the file's own record.
        Origin::Strangers if to.condition == Condition::Match(found.etag.clone()) => return Ok(None),
        origin if is_in_use(context, lane, (author, previous), to, (&found, &origin)) => {
            tracing::info!(key = %to.key, "another attempt to archive the file is under way, and this is its object");
        }
        origin if may_replace(context, owner, &origin, &found) => {
            to.condition = Condition::Match(found.etag.clone());
            return Ok(origin.is_of(owner).then_some(found.etag));
        }
        _ => {}
    }
    let why = "the key holds what may be another file's only copy";
    go_beside(context, lane, control, owner, to, why)
}

/// To the next name beside the key that is nobody else's. The ETag of what is there, if it is this file's.
fn go_beside(
    context: &Context,
    lane: &Lane,
    control: &Control,
    owner: &Owner,
    to: &mut Upload,
    why: &str,
) -> Result<Option<String>, JobError> {
    let taken = to.key.clone();
    let mut beside = taken.clone();
    let prefix = &lane.store(to.archive_id)?.target().prefix;
    for _ in 0..BESIDE {
        // An imported file's key may leave no room beside it.
        beside = match beside.beside(owner.fid) {
            Ok(beside) => beside,
            Err(_) => ObjectKey::from_fid(prefix, owner.fid)?,
        };
        let own = match find(lane, control, to.archive_id, &beside)? {
            None => None,
            Some(found) if Origin::of(&found, &beside).is_of(owner) => Some(found.etag),
            Some(_) => continue,
        };
        context.tally.count_conflict();
        tracing::warn!(%taken, key = %beside, "{why}; archiving beside it");
        go_to(to, beside);
        to.condition = own.clone().map_or(Condition::Absent, Condition::Match);
        return Ok(own);
    }
    Err(JobError::NoFreeKey(taken.to_string()))
}

/// Whether the object at a key is that of another attempt for the same file that may become its copy without a record, or
/// be taken away again: nothing would tell which of two that share a key. The copy that is to be replaced is none, whoever
/// wrote it: the file is read behind the look at it, and what replaces it is not taken away again.
fn is_in_use(
    context: &Context,
    lane: &Lane,
    (author, previous): (&WriteAttempt, Option<&Location>),
    to: &Upload,
    (found, origin): (&ObjectInfo, &Origin),
) -> bool {
    let Origin::Written(identity) = origin else {
        return false;
    };
    let is_previous = |previous: &Location| {
        previous.archive_id == to.archive_id
            && previous.key == to.key
            && previous.etag == found.etag
            && previous.writer == identity.writer
    };
    !previous.is_some_and(is_previous)
        && identity.owner == author.owner
        && identity.writer != Some(author.writer)
        && identity.cookie.as_ref() != Some(&author.cookie.to_string())
        && to.key.may_be_from(author.owner.fid)
        && lane
            .store(to.archive_id)
            .is_ok_and(|store| store.target().goes_without_records())
        && !is_over(context, origin)
}

/// An object of this file, or one of a file of this file system that exists no more, and that nothing can name.
fn may_replace(context: &Context, owner: &Owner, origin: &Origin, found: &ObjectInfo) -> bool {
    let Some(former) = origin.owner() else {
        return false;
    };
    if former == owner {
        return true;
    }
    if former.fs != owner.fs || !context.fs.path_of(former.fid).is_err_and(|error| error.is_not_found()) {
        return false;
    }
    let former = former.fid;
    if may_be_imported(context, found) {
        tracing::info!(%former, "the key's former file is gone, but an import may have made another file of its object: it is \
            no younger than what the last one saw, or one runs (trusted.lhsm_s3_imported and trusted.lhsm_s3_importing of the \
            root)");
        return false;
    }
    // What a record names by its version is not lost below a new one.
    if found.version.is_none() && context.fs.may_change_fids() {
        tracing::info!(%former, "the key's former file is gone, or has got another FID and another name since (lfs migrate -m): \
            migrate_hsm_allowed is set, and the bucket keeps no versions. Its object stays; where no file means it, 'scrub' finds it \
            an orphan");
        return false;
    }
    tracing::info!(%former, "the key's former file is gone; replacing its object");
    true
}

/// An object of a file of this file system that may be another one's copy, too.
pub(super) fn may_be_shared(context: &Context, found: &ObjectInfo) -> bool {
    Owner::of(&found.metadata).is_some() && may_be_imported(context, found)
}

/// An import makes files of whatever objects there are: the object of a dead file may have become another file's copy,
/// whose present path nobody knows here.
fn may_be_imported(context: &Context, found: &ObjectInfo) -> bool {
    match (context.fs.imported_until(), found.modified) {
        (Ok(None), _) => false,
        (Ok(Some(until)), Some(modified)) => modified <= until,
        (Err(_), _) | (_, None) => true,
    }
}
