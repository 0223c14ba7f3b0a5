//! The key that a file's copy goes to, and the rule that nobody's only copy is ever overwritten.
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

use std::path::{Path, PathBuf};

use super::attempt::Attempt;
use super::run::Run;
use super::{Context, JobError};
use crate::store::{Condition, KeyLayout, Location, ObjectInfo, ObjectKey, Origin, Owner, TargetOptions, name_key};
use crate::transfer::Upload;
use crate::types::{ArchiveId, Extent, Fid};

/// Names beside a key that can be others', too: file systems that share a bucket have equal FIDs.
const BESIDE: usize = 4;

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
    pub(super) fn natural_key_and_path(self) -> Result<(ArchiveId, ObjectKey, Option<PathBuf>), JobError> {
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

/// The key of an upload, which its object names.
pub(super) fn go_to(to: &mut Upload, key: ObjectKey) {
    name_key(&mut to.metadata, &key);
    to.key = key;
}

impl Attempt<'_> {
    /// Looks at what holds the key and sets key and condition for the next try. The ETag of what is there, if it is this
    /// file's.
    pub(super) fn look(self, previous: Option<&Location>, to: &mut Upload) -> Result<Option<String>, JobError> {
        let own = self.look_at_key(previous, to)?;
        if !self.run.transfer.store(to.archive_id)?.has_conditions() {
            to.condition = Condition::None;
        }
        Ok(own)
    }

    fn look_at_key(self, previous: Option<&Location>, to: &mut Upload) -> Result<Option<String>, JobError> {
        let (run, owner) = (self.run, self.owner());
        let Some(found) = run.transfer.find(to.at())? else {
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
                if origin.is_of(owner) && !origin.is_by(self.author) {
                    self.must_be_alive()?;
                }
                to.condition = Condition::Match(found.etag.clone());
                return Ok(origin.is_of(owner).then_some(found.etag));
            }
            _ => {}
        }
        self.go_beside(to, "the key holds what may be another file's only copy")
    }

    /// Only whose action is alive replaces what another attempt has written: a mover that was paused for long, or cut off, may
    /// find there what has been the file's only copy since.
    fn must_be_alive(self) -> Result<(), JobError> {
        let run = self.run;
        match run.context.fs.progress(run.item.key(), Extent::EMPTY) {
            Err(error) if error.is_not_found() || error.is_cancelled() => Err(error.into()),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// To the next name beside the key that is nobody else's. The ETag of what is there, if it is this file's.
    pub(super) fn go_beside(self, to: &mut Upload, why: &str) -> Result<Option<String>, JobError> {
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
            let own = match run.transfer.find(beside.at(to.archive_id))? {
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
