//! Takes away what is nobody's copy: what an attempt to archive a file has left, and the copy before one that counts. No
//! object that a file's record means goes, and none that may be another file's.

use std::cell::Cell;

use super::Context;
use crate::action::ActionKey;
use crate::mapped;
use crate::store::{KeyAt, Location, ObjectInfo, ObjectKey, Origin, Owner, StoreError, WriteAttempt, WriterId};
use crate::transfer::{Bearer, Lane, TransferError};
use crate::types::{Cookie, Extent, Fid};

/// What that is done with, by a running action or by nobody's thread.
#[derive(Clone, Copy, Debug)]
pub(super) struct CleanUp<'a> {
    pub(super) context: &'a Context,
    pub(super) lane: &'a Lane,
}

impl CleanUp<'_> {
    /// Deletes exactly that object if it `may_go`, and with it its sidecar, unless that is the one of `kept`, too. One that can't be
    /// deleted is no failure: it is in the log, and `false` is returned. Nothing is deleted where another mover may have taken
    /// over what is in hand.
    pub(super) fn discard(
        self,
        location: &Location,
        owner: &Owner,
        kept: Option<&Location>,
        may_go: impl Fn(&ObjectInfo, &Origin) -> bool,
    ) -> bool {
        if !self.context.may_destroy() {
            tracing::info!(key = %location.key, "an object that is no file's copy is left until other movers are known to have \
                 nothing of this one's");
            return false;
        }
        let stays = Cell::new(false);
        // One short try: the file is blocked for other actions meanwhile.
        match self.lane.sweep_key(
            self.context.bearer(owner.fid),
            location.at(),
            location.version.as_deref(),
            |found, origin| {
                let is_it = found.etag == location.etag && found.size == location.size;
                let goes = is_it && may_go(found, origin);
                stays.set(is_it && !goes && location.is_written_as(found));
                goes
            },
        ) {
            // An object that is somebody's copy has a sidecar that is, too.
            Ok(()) if stays.get() => true,
            Ok(()) => {
                self.discard_sidecar(location, owner, kept);
                true
            }
            Err(error) => {
                tracing::warn!(key = %location.key, %error, "an object that is no file's copy could not be deleted now");
                false
            }
        }
    }

    /// Deletes the sidecar of a copy of `owner` that is no more, unless it is that of `kept`, too.
    pub(super) fn discard_sidecar(self, location: &Location, owner: &Owner, kept: Option<&Location>) {
        if !self.context.may_destroy() {
            return;
        }
        self.lane
            .discard_sidecar(location.archive_id, location.sidecar.as_ref(), owner, kept);
    }

    /// After an object of a file may have been taken away. Without versions equal bytes have equal ETags: it may have been the
    /// one that another attempt had put in its place that moment. Where that one's end counts by now, nobody may release the
    /// file before it is archived again; where it counts later, that attempt sees to it (`super::readback`).
    pub(super) fn look_after(self, fid: Fid, at: KeyAt<'_>) {
        let fs = self.context.fs.as_ref();
        if !fs.is_archived(fid).unwrap_or(false) {
            return;
        }
        let means = match fs.map(fid) {
            Ok(None) => mapped::may_be_told(fs, fid, at),
            Ok(Some(record)) => {
                Location::from_bytes(&record).is_ok_and(|location| location.at() == at && location.version.is_none())
            }
            Err(_) => false,
        };
        if !means || !matches!(self.lane.glance(at, None), Ok(None)) {
            return;
        }
        match fs.revoke(fid) {
            Ok(()) => {
                tracing::warn!(%fid, key = %at.key, "what another attempt to archive the file has written was taken away with what \
                 this one had: the file counts as not archived, and the next archive makes its copy anew")
            }
            Err(error) => {
                tracing::error!(%fid, key = %at.key, %error, "the file's object is not there, and it can't be marked as not \
                 archived: look whether it can be restored")
            }
        }
    }

    /// What an archive has written that was not brought to its end, by a former daemon mostly: its upload goes, and its
    /// object and that one's sidecar, unless they are the file's copy, or may have become another file's. `false`: not now.
    pub(super) fn after(self, action: ActionKey) -> bool {
        let context = self.context;
        let Some((record, _)) = context.journal.upload_of(action) else {
            return true;
        };
        // What another mover wrote, which may live, is not for this one to take away.
        if record.is_anothers() {
            return true;
        }
        // Nor is what another one may go on with.
        if !context.may_destroy() {
            return false;
        }
        let Some((archive_id, key)) = record.target() else {
            return true;
        };
        let (fid, at) = (action.fid, key.at(archive_id));
        if let Some(upload) = record.upload()
            && let Err(error) = self.lane.abort_upload(at, upload)
        {
            tracing::warn!(%key, %error, "an upload of a former daemon could not be aborted");
            return false;
        }
        match context.fs.map(fid) {
            // It may mean any object: all stay.
            Ok(Some(bytes)) if Location::from_bytes(&bytes).is_err() => return true,
            // Whether it is the file's copy can't be told: it stays.
            Err(error) if !error.is_not_found() => return false,
            _ => {}
        }
        let author = WriteAttempt {
            owner: context.owner(fid),
            cookie: action.cookie,
            // An older release's objects name none, and are told by their action.
            writer: record.writer().unwrap_or_else(WriterId::random),
        };
        let bearer = context.bearer(fid);
        let mut done = self.swept(bearer, at, |found, origin| {
            origin.is_by(&author) && !context.may_be_shared(found) && !context.is_mapped(fid, at, found)
        });
        self.look_after(fid, at);
        if done
            && record.writer().is_some()
            && let Ok(store) = self.lane.store(archive_id)
            && let Ok(key) = ObjectKey::sidecar(&store.target().prefix, fid, author.writer)
        {
            // An attempt's own: no other one writes there.
            done &= self.swept(Bearer::Nobody, key.at(archive_id), |found, origin| {
                origin.is_by(&author) && !context.may_be_shared(found) && !context.may_mean_sidecar(fid, &key)
            });
        }
        if let Some((archive_id, key, etag)) = record.previous() {
            done &= self.swept(bearer, key.at(archive_id), |found, origin| {
                origin.is_of(&author.owner)
                    && (found.etag == etag || context.is_over(origin))
                    && !context.may_be_shared(found)
                    && !context.is_mapped(fid, key.at(archive_id), found)
            });
        }
        done
    }

    /// What lies where a file's copy was, if it is another than that: an attempt of the file's that wrote over it and was
    /// killed, the same bytes perhaps. `is_kept` tells, after the look, whether it is the file's copy all the same. To be
    /// called when the file's record means something else: whoever cleans up after that attempt leaves what the record means,
    /// and forgets it. `false`: not now.
    pub(super) fn overwritten(self, owner: &Owner, former: &Location, is_kept: impl Fn(&ObjectInfo) -> bool) -> bool {
        if !self.context.may_destroy() {
            return false;
        }
        let bearer = self.context.bearer(owner.fid);
        self.swept(bearer, former.at(), |found, origin| {
            (found.etag != former.etag || !former.is_written_as(found))
                && origin.is_of(owner)
                && !self.context.may_be_shared(found)
                && self.context.is_over(origin)
                && !is_kept(found)
        })
    }

    fn swept(self, bearer: Bearer<'_>, at: KeyAt<'_>, is_garbage: impl Fn(&ObjectInfo, &Origin) -> bool) -> bool {
        match self.lane.sweep_key(bearer, at, None, is_garbage) {
            Ok(()) => true,
            // Without s3:ListBucket a key with no object is "denied".
            Err(TransferError::Store(StoreError::Denied {
                operation: "HeadObject",
                ..
            })) => true,
            Err(error) => {
                tracing::warn!(key = %at.key, %error, "what an archive left could not be taken away now");
                false
            }
        }
    }
}

/// What files and the coordinator tell of an object that is to go.
impl Context {
    /// On whose file a deletion of one of its objects is announced.
    pub(super) fn bearer(&self, fid: Fid) -> Bearer<'_> {
        Bearer::File(self.fs.as_ref(), fid)
    }

    /// Whether a file, as it is now, means what was found at a key. What can't be read may mean anything.
    pub(super) fn is_mapped(&self, fid: Fid, at: KeyAt<'_>, found: &ObjectInfo) -> bool {
        mapped::may_mean(self.fs.as_ref(), fid, at, found)
    }

    /// Whether a file, as it is now, may mean that sidecar: by its record, or because that does not tell which object is the file's
    /// copy (`crate::mislaid`). What can't be read may mean any.
    fn may_mean_sidecar(&self, fid: Fid, key: &ObjectKey) -> bool {
        let counts = || self.fs.is_archived(fid).unwrap_or_else(|error| !error.is_not_found());
        match self.fs.map(fid) {
            Ok(None) => counts(),
            Ok(Some(record)) => Location::from_bytes(&record).map_or(true, |location| {
                location.sidecar.as_ref() == Some(key)
                    || (location.is_in_doubt(self.fs.archived_version(fid)) && counts())
            }),
            Err(error) => !error.is_not_found(),
        }
    }

    /// Whether the attempt that wrote an object can't make it a file's copy any more: the coordinator does not know its
    /// action.
    pub(super) fn is_over(&self, origin: &Origin) -> bool {
        let Origin::Written(identity) = origin else {
            return false;
        };
        let Some(cookie) = identity.cookie.as_deref().and_then(Cookie::parse) else {
            return false;
        };
        let fid = identity.owner.fid;
        self.is_unknown(ActionKey { cookie, fid })
    }

    /// Whether the coordinator does not know an action, or any more.
    pub(super) fn is_unknown(&self, action: ActionKey) -> bool {
        self.fs
            .progress(action, Extent::EMPTY)
            .is_err_and(|error| error.is_not_found())
    }

    /// An object of a file of this file system that may be another one's copy, too.
    pub(super) fn may_be_shared(&self, found: &ObjectInfo) -> bool {
        Owner::of(&found.metadata).is_some() && self.may_be_imported(found)
    }

    /// An import makes files of whatever objects there are: the object of a dead file may have become another file's copy,
    /// whose present path nobody knows here.
    pub(super) fn may_be_imported(&self, found: &ObjectInfo) -> bool {
        match (self.fs.imported_until(), found.modified) {
            (Ok(None), _) => false,
            (Ok(Some(until)), Some(modified)) => modified <= until,
            (Err(_), _) | (_, None) => true,
        }
    }
}
