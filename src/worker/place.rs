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

use super::attempt::Attempt;
use super::log::AttemptLog;
use super::run::Run;
use super::{Context, JobError};
use crate::action::CopyState;
use crate::mapped;
use crate::store::{
    Checksum, Claim, Condition, KeyLayout, Location, ObjectInfo, ObjectKey, Origin, Owner, Quirk, StoreError,
    TargetOptions, name_key,
};
use crate::transfer::{ObjectDescription, Said, TransferError, Upload, UploadedObject};
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

    /// The previous copy, where its object is another one and stays until it is deleted.
    pub(super) fn replaced(&self) -> Option<&Location> {
        self.previous.as_ref().filter(|_| !self.in_place())
    }
}

impl<'a> Run<'a> {
    /// Where the target's rule has its file's copy: archive id and key.
    pub(super) fn natural_key(self) -> Result<(ArchiveId, ObjectKey), JobError> {
        let (archive_id, target) = self.target()?;
        let fid = self.item.fid;
        let key = match target.layout {
            KeyLayout::Fid => ObjectKey::from_fid(&target.prefix, fid)?,
            KeyLayout::Path => key_of(target, fid, &self.context.fs.path_of(fid)?)?.0,
        };
        Ok((archive_id, key))
    }

    /// The same, with the file's path where the key does not tell it.
    fn natural_key_and_path(self) -> Result<(ArchiveId, ObjectKey, Option<PathBuf>), JobError> {
        let (archive_id, target) = self.target()?;
        let fid = self.item.fid;
        let path = self.context.fs.path_of(fid);
        if target.layout == KeyLayout::Fid {
            // One without a name is archived all the same.
            return Ok((archive_id, ObjectKey::from_fid(&target.prefix, fid)?, path.ok()));
        }
        let path = path?;
        let (key, tells_path) = key_of(target, fid, &path)?;
        Ok((archive_id, key, (!tells_path).then_some(path)))
    }

    fn target(self) -> Result<(ArchiveId, &'a TargetOptions), JobError> {
        let archive_id = self.item.archive_id.ok_or(JobError::NoArchiveId)?;
        Ok((archive_id, self.transfer.store(archive_id)?.target()))
    }
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

impl Attempt<'_> {
    /// Stores a copy of the file, and sees to it that it stays.
    pub(super) fn place(self, file: &Arc<File>, state: CopyState) -> Result<StoredCopy, JobError> {
        let (run, owner) = (self.run, self.owner());
        let stat = file.metadata().map_err(JobError::Attributes)?;
        if !stat.is_file() {
            return Err(JobError::NotRegular);
        }
        let record = run.context.fs.map(run.item.fid)?;
        let previous = self.previous(record.as_deref(), state)?;
        let (archive_id, natural, path) = run.natural_key_and_path()?;
        self.announce(archive_id, &natural);
        let mut extras = run.context.fs.extras(run.item.fid, file)?;
        extras.path = path.map(|path| path.into_os_string().into_vec());
        let ObjectDescription { metadata, sidecar } =
            run.transfer.describe(archive_id, self.author, (&stat, extras))?;
        let mut to = Upload {
            archive_id,
            key: natural.clone(),
            condition: Condition::Absent,
            metadata,
            is_data: true,
            log: Arc::new(AttemptLog::new(self, file, stat.len())),
        };
        go_to(&mut to, natural);
        match self.write((file, stat.len()), to, previous.as_ref()) {
            Ok(written) => {
                let location = Location {
                    sidecar,
                    ..written.location
                };
                Ok(StoredCopy {
                    needs_record: record.is_some() || needs_record(run, state, &location, written.by_store),
                    location,
                    previous,
                    record,
                    over_another: written.over_another,
                    left: written.left,
                })
            }
            Err(error) => {
                run.transfer
                    .lane()
                    .discard_sidecar(archive_id, sidecar.as_ref(), owner, previous.as_ref());
                Err(error)
            }
        }
    }
}

/// Whether a file that has no record needs one for that copy.
fn needs_record(run: Run<'_>, state: CopyState, location: &Location, by_store: Option<Checksum>) -> bool {
    let is_told = |target: &TargetOptions| target.goes_without_records() && location.is_told(&target.prefix, by_store);
    !run.transfer
        .store(location.archive_id)
        .is_ok_and(|store| is_told(store.target()))
        || state.archive_id != Some(location.archive_id)
        || !run.context.fs.keeps_fids()
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

impl Attempt<'_> {
    /// Writes the object to its key, or to the one beside it.
    fn write(
        self,
        (file, size): (&Arc<File>, u64),
        mut to: Upload,
        previous: Option<&Location>,
    ) -> Result<Written, JobError> {
        let (archive_id, natural) = (to.archive_id, to.key.clone());
        let (run, owner) = (self.run, self.owner());
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
        let store = run.transfer.store(archive_id)?;
        // What nobody has seen to be heeded is not relied on alone.
        let untried = !run.transfer.try_conditions(archive_id)?;
        // Before the data of a large file is sent in vain; the condition still guards the moment itself.
        let large = size > run.transfer.options().plan.threshold;
        if unproven || untried || (large && to.condition == Condition::Absent) || !store.has_conditions() {
            match self.look(previous, &mut to) {
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
            let error = match run.transfer.upload(file, size, &to) {
                Ok(uploaded) => {
                    if unconditional {
                        store.lacks_conditions();
                    }
                    match self.standing(archive_id, &to.key, uploaded.stored.version.as_deref())? {
                        Standing::Sure => {}
                        Standing::Gone => {
                            tracing::info!(key = %to.key, "a deletion of the file's former object took this one away; it is written \
                             again");
                            over = None;
                            to.condition = Condition::Absent;
                            if !store.has_conditions() {
                                over = self.look(previous, &mut to)?;
                            }
                            continue;
                        }
                        Standing::InDoubt => {
                            let own = self.located(&to, uploaded, (size, pinned));
                            self.discard(&own, None);
                            left.push(own);
                            let why =
                                "a deletion at the key goes on and on, or its mover is dead: what is there may go";
                            over = self.go_beside(&mut to, why)?;
                            if !store.has_conditions() {
                                to.condition = Condition::None;
                            }
                            continue;
                        }
                    }
                    let is_mapped = |etag: &String| {
                        previous.is_some_and(|previous| previous.key == to.key && previous.etag == *etag)
                    };
                    let over_another = over.as_ref().is_some_and(|etag| !is_mapped(etag));
                    return Ok(Written {
                        over_another,
                        left,
                        by_store: uploaded.stored.checksum,
                        location: self.located(&to, uploaded, (size, pinned)),
                    });
                }
                Err(error) => error,
            };
            match error {
                TransferError::Store(StoreError::Precondition { .. }) => {
                    over = self.look(previous, &mut to)?;
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
                    over = self.look(previous, &mut to)?;
                    to.condition = Condition::None;
                    unconditional = true;
                }
                error => return Err(error.into()),
            }
        }
        Err(JobError::NoFreeKey(natural.to_string()))
    }

    /// What was uploaded, without its sidecar.
    fn located(self, to: &Upload, uploaded: UploadedObject, (size, pinned): (u64, bool)) -> Location {
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
            written_for: Some(self.owner().clone()),
            writer: Some(self.author.writer),
        }
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

impl Attempt<'_> {
    /// Looks at what is said on the file of deletions (`crate::transfer::announce`), which is one call where nothing is; of a
    /// version none is needed.
    pub(super) fn standing(
        self,
        archive_id: ArchiveId,
        key: &ObjectKey,
        version: Option<&str>,
    ) -> Result<Standing, TransferError> {
        if version.is_some() {
            return Ok(Standing::Sure);
        }
        let run = self.run;
        let file = (run.context.fs.as_ref(), run.item.fid);
        match run.transfer.wait_for_deletions(file, (archive_id, key))? {
            Said::Nothing => return Ok(Standing::Sure),
            Said::UnderWay => return Ok(Standing::InDoubt),
            Said::Over => {}
        }
        match run.transfer.find(archive_id, key) {
            Ok(found) => Ok(match found {
                Some(found) if Origin::of(&found, key).is_by(self.author) => Standing::Sure,
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
    pub(super) fn sweep(self) {
        let run = self.run;
        let Ok((archive_id, key)) = run.natural_key() else {
            return;
        };
        let at = (archive_id, &key);
        let is_garbage = |found: &ObjectInfo, origin: &Origin| origin.is_by(self.author) && !run.is_mapped(at, found);
        let bearer = run.context.bearer(run.item.fid);
        match run
            .transfer
            .lane()
            .sweep_key(bearer, archive_id, &key, None, is_garbage)
        {
            Ok(()) => run.look_after(at),
            Err(error) => tracing::debug!(%key, %error, "could not look for what a stopped archive left"),
        }
    }
}

impl Attempt<'_> {
    /// The file's own copy by its record, or without one by its key, if it has one that can be told to be its own.
    fn previous(self, record: Option<&[u8]>, state: CopyState) -> Result<Option<Location>, JobError> {
        let location = match record.map(Location::from_bytes) {
            None => return self.told(state),
            Some(Ok(location)) => location,
            Some(Err(error)) => {
                // The copy it meant can't be found, and the file is here: it gets a new copy and a new record.
                tracing::warn!(%error, "archiving anew");
                return Ok(None);
            }
        };
        let key = &location.key;
        let own = match location.claim(self.owner()) {
            Claim::Own => true,
            Claim::Unsaid => self.says_so(&location)?,
            Claim::Anothers => false,
        };
        if !own {
            tracing::info!(%key, "the file's record was not written for it, or nothing tells that it was: what it names stays, and \
                 this is a first copy");
        }
        Ok(own.then_some(location))
    }

    /// That of a file without a record. One that was never archived costs no look.
    fn told(self, state: CopyState) -> Result<Option<Location>, JobError> {
        let Some(archive_id) = state.archive_id.filter(|_| state.archived) else {
            return Ok(None);
        };
        match mapped::by_key(self.run.transfer, archive_id, self.owner()) {
            Ok(told) => Ok(told.location),
            Err(error) if tells_nothing(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether an object says that it is that file's copy, where the file's record says nothing of it.
    fn says_so(self, location: &Location) -> Result<bool, JobError> {
        let Location {
            archive_id,
            key,
            version,
            ..
        } = location;
        match self.run.transfer.head(*archive_id, key, version.as_deref()) {
            Ok(found) => Ok(Origin::of(&found, key).is_of(self.owner())),
            Err(error) if tells_nothing(&error) => Ok(false),
            Err(error) => Err(error.into()),
        }
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

impl Attempt<'_> {
    /// Looks at what holds the key and sets key and condition for the next try. The ETag of what is there, if it is this
    /// file's.
    fn look(self, previous: Option<&Location>, to: &mut Upload) -> Result<Option<String>, JobError> {
        let own = self.look_at_key(previous, to)?;
        if !self.run.transfer.store(to.archive_id)?.has_conditions() {
            to.condition = Condition::None;
        }
        Ok(own)
    }

    fn look_at_key(self, previous: Option<&Location>, to: &mut Upload) -> Result<Option<String>, JobError> {
        let (run, owner) = (self.run, self.owner());
        let Some(found) = run.transfer.find(to.archive_id, &to.key)? else {
            to.condition = Condition::Absent;
            return Ok(None);
        };
        match Origin::of(&found, &to.key) {
            // An imported one that nobody changed: the condition is that of the file's own record.
            Origin::Strangers if to.condition == Condition::Match(found.etag.clone()) => return Ok(None),
            origin if self.is_in_use(previous, to, &found, &origin) => {
                tracing::info!(key = %to.key, "another attempt to archive the file is under way, and this is its object");
            }
            origin if run.context.may_replace(owner, &origin, &found) => {
                to.condition = Condition::Match(found.etag.clone());
                return Ok(origin.is_of(owner).then_some(found.etag));
            }
            _ => {}
        }
        self.go_beside(to, "the key holds what may be another file's only copy")
    }

    /// To the next name beside the key that is nobody else's. The ETag of what is there, if it is this file's.
    fn go_beside(self, to: &mut Upload, why: &str) -> Result<Option<String>, JobError> {
        let (run, owner) = (self.run, self.owner());
        let taken = to.key.clone();
        let mut beside = taken.clone();
        let prefix = &run.transfer.store(to.archive_id)?.target().prefix;
        for _ in 0..BESIDE {
            // An imported file's key may leave no room beside it.
            beside = match beside.beside(owner.fid) {
                Ok(beside) => beside,
                Err(_) => ObjectKey::from_fid(prefix, owner.fid)?,
            };
            let own = match run.transfer.find(to.archive_id, &beside)? {
                None => None,
                Some(found) if Origin::of(&found, &beside).is_of(owner) => Some(found.etag),
                Some(_) => continue,
            };
            run.context.tally.count_conflict();
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
    fn is_in_use(self, previous: Option<&Location>, to: &Upload, found: &ObjectInfo, origin: &Origin) -> bool {
        let (run, author) = (self.run, self.author);
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
            && run
                .transfer
                .store(to.archive_id)
                .is_ok_and(|store| store.target().goes_without_records())
            && !run.context.is_over(origin)
    }
}

impl Context {
    /// An object of this file, or one of a file of this file system that exists no more, and that nothing can name.
    fn may_replace(&self, owner: &Owner, origin: &Origin, found: &ObjectInfo) -> bool {
        let Some(former) = origin.owner() else {
            return false;
        };
        if former == owner {
            return true;
        }
        if former.fs != owner.fs || !self.fs.path_of(former.fid).is_err_and(|error| error.is_not_found()) {
            return false;
        }
        let former = former.fid;
        if self.may_be_imported(found) {
            tracing::info!(%former, "the key's former file is gone, but an import may have made another file of its object: it is \
                no younger than what the last one saw, or one runs (trusted.lhsm_s3_imported and trusted.lhsm_s3_importing of the \
                root)");
            return false;
        }
        // What a record names by its version is not lost below a new one.
        if found.version.is_none() && self.fs.may_change_fids() {
            tracing::info!(%former, "the key's former file is gone, or has got another FID and another name since (lfs migrate -m): \
                migrate_hsm_allowed is set, and the bucket keeps no versions. Its object stays; where no file means it, 'scrub' finds it \
                an orphan");
            return false;
        }
        tracing::info!(%former, "the key's former file is gone; replacing its object");
        true
    }
}
