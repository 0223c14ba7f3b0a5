//! A file's copy gets another key, or other metadata, or both: the store copies it, the record follows, the former
//! object goes last. At each step either the old or the new object is the file's.

use super::look::{FileLooker, FileNow, LookError, read};
use crate::action::FileSystem as _;
use crate::lustre::HsmStates;
use crate::store::{
    COOKIE, Condition, Location, ObjectInfo, ObjectKey, Origin, Store, StoreError, WriteAttempt, WriterId, name_key,
    note_data_version,
};
use crate::transfer::{Bearer, ObjectDescription, TransferError};
use crate::types::{Cookie, Fid};

/// What came of it.
#[expect(clippy::large_enum_variant, reason = "one at a time, and it is handed on at once")]
pub(super) enum CopyChange {
    /// The copy is there now.
    At(Location),
    /// Something is in the way that should not be there for long.
    Again(String),
    /// Something goes on that ends by itself.
    Later(String),
    /// It can't be done: the object stays as it is.
    Never(String),
}

/// A key that a copy is to have.
enum Key {
    /// The condition under which it can have it.
    Free(Condition),
    /// It holds the copy of a file that is to get another key.
    Waiting(Fid),
    /// It is another's.
    Taken(String),
}

impl FileLooker<'_> {
    /// Another key or other metadata for a file's copy. The former object stays: it is the caller's to delete. A file
    /// without a record stays without one where its key tells all of the new one, too.
    pub(super) fn restate(
        &self,
        seen: &FileNow,
        record: Option<&[u8]>,
        from: &Location,
        to: &ObjectKey,
    ) -> Result<CopyChange, LookError> {
        let mount = self.follow.mount;
        let fid = seen.fid;
        // An action would move the object under our hands.
        if mount.has_action(fid)? {
            return Ok(CopyChange::Later("an action goes on with it".into()));
        }
        let found = self.transfer().head(from.at(), from.version.as_deref())?;
        if found.etag != from.etag && !from.has_bytes_of(&found) {
            return Ok(CopyChange::Never(format!(
                "'{}' is not the object of its record",
                from.key
            )));
        }
        let owner = self.owner(fid);
        if !Origin::of(&found, &from.key).yields_to(&owner, from) {
            return Ok(CopyChange::Never(format!(
                "'{}' may be another file's copy, too, or the file's record was not written for it",
                from.key
            )));
        }
        let in_place = *to == from.key;
        let condition = if in_place {
            // Until the record follows, only its bytes tell the object: a copy may have another ETag.
            if !from.has_bytes_of(&found) {
                return Ok(CopyChange::Never("the store keeps no CRC64NVME of it".into()));
            }
            Condition::Match(found.etag.clone())
        } else {
            match self.occupied(seen, from, to)? {
                Key::Free(condition) => condition,
                Key::Taken(why) => return Ok(CopyChange::Never(why)),
                Key::Waiting(by) => return self.make_way(seen, record, from, to, by),
            }
        };
        let source = Location {
            etag: found.etag.clone(),
            ..from.clone()
        };
        let author = self.author(fid, &found);
        let ObjectDescription { mut metadata, sidecar } =
            self.transfer()
                .describe(from.archive_id, &author, &seen.stat, seen.extras.clone())?;
        name_key(&mut metadata, to);
        note_data_version(&mut metadata, from.data_version);
        let discard = |sidecar: Option<&ObjectKey>, kept: &Location| {
            self.lane.discard_sidecar(from.archive_id, sidecar, &owner, Some(kept));
        };
        let copied = self.transfer().copy(&source, to, &condition, &metadata);
        let copied = match copied {
            Err(TransferError::Store(StoreError::Precondition { .. })) => {
                discard(sidecar.as_ref(), from);
                return Ok(CopyChange::Again(format!("another writer is at '{to}'")));
            }
            copied => copied?,
        };
        let made = Location {
            sidecar,
            written_for: Some(owner.clone()),
            writer: Some(author.writer),
            cookie: Some(author.cookie),
            ..copied
        };
        // The file's record still means what was copied? Whatever can't be read has changed.
        let unchanged = mount.map(fid).is_ok_and(|now| now.as_deref() == record)
            && mount.states_of(fid).is_ok_and(HsmStates::is_clean);
        let prefix = &self.lane.store(from.archive_id)?.target().prefix;
        let set = if !unchanged {
            Err("it was archived anew meanwhile".into())
        } else if record.is_none() && made.is_told(prefix, made.checksum) {
            Ok(())
        } else {
            mount.set_map(fid, &made.to_bytes()).map_err(|error| error.to_string())
        };
        if let Err(why) = set {
            if !in_place {
                self.undo(fid, &made, &author);
            }
            return Ok(CopyChange::Again(why));
        }
        if in_place {
            discard(from.sidecar.as_ref(), &made);
        }
        Ok(CopyChange::At(made))
    }

    fn occupied(&self, seen: &FileNow, from: &Location, to: &ObjectKey) -> Result<Key, LookError> {
        let mount = self.follow.mount;
        let Some(found) = self.transfer().find(to.at(from.archive_id))? else {
            return Ok(Key::Free(Condition::Absent));
        };
        let taken = || Key::Taken(format!("'{to}' holds what may be another file's only copy"));
        let origin = Origin::of(&found, to);
        let Some(owner) = origin.owner().filter(|owner| owner.fs == mount.name()) else {
            return Ok(taken());
        };
        let there = found.at(to.at(from.archive_id));
        if owner.fid != seen.fid && !self.is_dead(owner.fid)? {
            return Ok(match self.goes_elsewhere(owner.fid, &there)? {
                true => Key::Waiting(owner.fid),
                false => taken(),
            });
        }
        if self.is_anothers(seen.fid, &there)? {
            return Ok(taken());
        }
        // As when a file is archived: its file may have got another FID and another name.
        if owner.fid != seen.fid && found.version.is_none() && mount.may_change_fids() {
            return Ok(taken());
        }
        Ok(Key::Free(Condition::Match(found.etag)))
    }

    /// Whether a file is to get another key than the one that its copy has.
    fn goes_elsewhere(&self, fid: Fid, there: &Location) -> Result<bool, LookError> {
        let mount = self.follow.mount;
        let Some(now) = read(mount.map(fid)?) else {
            return Ok(false);
        };
        let prefix = &self.lane.store(there.archive_id)?.target().prefix;
        let own = ObjectKey::of_file(prefix, &mount.path_of(fid)?, fid).ok();
        let stays = now.pinned || now.size > Store::LARGEST_COPY || own.is_none_or(|own| own == there.key);
        Ok(!stays)
    }

    /// The key's file has to move as well, perhaps to this one's: beside it, this one is in nobody's way.
    fn make_way(
        &self,
        seen: &FileNow,
        record: Option<&[u8]>,
        from: &Location,
        to: &ObjectKey,
        by: Fid,
    ) -> Result<CopyChange, LookError> {
        let beside = to.beside(seen.fid).map_err(TransferError::from)?;
        let why = format!("'{to}' is still the copy of {by}, which is to go elsewhere");
        if from.key == beside {
            return Ok(CopyChange::Again(why));
        }
        match self.restate(seen, record, from, &beside)? {
            CopyChange::At(_) => {
                // Unless an action reads it, and then it goes with the next look.
                self.delete_former(seen.fid, from)?;
                Ok(CopyChange::Again(why))
            }
            other => Ok(other),
        }
    }

    /// As whom a copy is made again: for the same action, in an attempt of its own.
    fn author(&self, fid: Fid, found: &ObjectInfo) -> WriteAttempt {
        let cookie = found.metadata.get(COOKIE);
        WriteAttempt {
            owner: self.owner(fid),
            cookie: cookie.and_then(|text| Cookie::parse(text)).unwrap_or(Cookie(0)),
            writer: WriterId::random(),
        }
    }

    /// The object that was made, if it is nobody's: neither another writer's, nor by now the file's copy.
    fn undo(&self, fid: Fid, made: &Location, author: &WriteAttempt) {
        let is_ours = |found: &ObjectInfo, origin: &Origin| {
            let named = self.copy_of(fid).map(|now| now.is_some_and(|now| now.is_at(made)));
            matches!(named, Ok(false)) && found.etag == made.etag && origin.is_by(author)
        };
        let swept = self.lane.sweep_key(
            Bearer::File(self.follow.mount, fid),
            made.at(),
            made.version.as_deref(),
            is_ours,
        );
        if let Err(error) = swept {
            tracing::warn!(key = %made.key, %error, "an object that is no file's copy could not be deleted: an orphan");
            return;
        }
        if self
            .copy_of(fid)
            .is_ok_and(|now| now.is_none_or(|now| now.sidecar != made.sidecar))
        {
            self.lane
                .discard_sidecar(made.archive_id, made.sidecar.as_ref(), &author.owner, None);
        }
    }
}
