//! A file's copy gets another key, or other metadata, or both: the store copies it, the record follows, the former
//! object goes last. At each step either the old or the new object is the file's.

use super::look::{LookError, Looker, Seen};
use crate::action::FileSystem as _;
use crate::store::{COOKIE, Condition, FileMetadata, Location, ObjectInfo, ObjectKey, Owner, StoreError};
use crate::transfer::{TransferError, copy, head, put_bytes, sweep_key};
use crate::types::{Cookie, Fid};

/// A key that a copy is to have.
enum Key {
    /// The condition under which it can have it.
    Free(Condition),
    /// It holds the copy of a file that is to get another key.
    Waiting(Fid),
    /// It is another's.
    Taken(String),
}

impl Looker<'_> {
    /// Where the copy is then; or why it can't be done for the moment.
    pub(super) fn restate(
        &self,
        seen: &Seen,
        record: &[u8],
        from: &Location,
        to: &ObjectKey,
    ) -> Result<Result<Location, String>, LookError> {
        let (mount, control) = (self.follow.mount, self.follow.control);
        let fid = seen.fid;
        // An action would move the object under our hands.
        if mount.has_action(fid)? {
            return Ok(Err("an action goes on with it".into()));
        }
        let found = head(self.lane, control, from.archive_id, &from.key, from.version.as_deref())?;
        if found.etag != from.etag && !from.has_bytes_of(&found) {
            return Ok(Err(format!("'{}' is not the object of its record", from.key)));
        }
        let source = Location {
            etag: found.etag.clone(),
            ..from.clone()
        };
        let in_place = *to == from.key;
        let condition = if in_place {
            Condition::Match(found.etag.clone())
        } else {
            match self.occupied(seen, from, to)? {
                Key::Free(condition) => condition,
                Key::Taken(why) => return Ok(Err(why)),
                Key::Waiting(by) => return self.make_way(seen, record, from, to, by),
            }
        };
        let store = self.lane.store(from.archive_id)?;
        let condition = if store.has_conditions() {
            condition
        } else {
            Condition::None
        };
        let (metadata, sidecar) = self.metadata(seen, from, &found)?;
        let copied = copy(self.lane, control, &source, (to, &condition), &metadata);
        let mut made = match copied {
            Err(TransferError::Store(StoreError::Precondition { .. })) => {
                return Ok(Err(format!("another writer is at '{to}'")));
            }
            // Looked at just before: the second best, and all that such a store offers.
            Err(TransferError::Store(StoreError::Unsupported { .. })) if condition != Condition::None => {
                store.lacks_conditions();
                copy(self.lane, control, &source, (to, &Condition::None), &metadata)?
            }
            copied => copied?,
        };
        made.sidecar = sidecar;
        // The file's record still means what was copied?
        let unchanged = mount.map(fid)?.as_deref() == Some(record) && mount.states_of(fid)?.is_clean();
        if !unchanged {
            if !in_place {
                self.undo(&made);
            }
            return Ok(Err("it was archived anew meanwhile".into()));
        }
        mount.set_map(fid, &made.to_bytes())?;
        if !in_place {
            self.delete_copy(
                fid,
                &Location {
                    sidecar: None,
                    ..source
                },
            )?;
        }
        Ok(Ok(made))
    }

    fn occupied(&self, seen: &Seen, from: &Location, to: &ObjectKey) -> Result<Key, LookError> {
        let mount = self.follow.mount;
        let found = match head(self.lane, self.follow.control, from.archive_id, to, None) {
            Ok(found) => found,
            Err(TransferError::Store(StoreError::NotFound { .. })) => return Ok(Key::Free(Condition::Absent)),
            Err(error) => return Err(error.into()),
        };
        let Some(owner) = Owner::of(&found.metadata).filter(|owner| owner.fs == mount.name()) else {
            return Ok(Key::Taken(format!("'{to}' holds what may be another file's only copy")));
        };
        if owner.fid == seen.fid {
            return Ok(Key::Free(Condition::Match(found.etag)));
        }
        let prefix = &self.lane.store(from.archive_id)?.target().prefix;
        match mount.path_of(owner.fid) {
            Err(error) if error.is_not_found() => Ok(Key::Free(Condition::Match(found.etag))),
            Ok(path) if ObjectKey::from_path(prefix, &path).is_ok_and(|key| key != *to) => Ok(Key::Waiting(owner.fid)),
            _ => Ok(Key::Taken(format!("'{to}' is the copy of {}", owner.fid))),
        }
    }

    /// The key's file has to move as well, perhaps to this one's: beside it, this one is in nobody's way.
    fn make_way(
        &self,
        seen: &Seen,
        record: &[u8],
        from: &Location,
        to: &ObjectKey,
        by: Fid,
    ) -> Result<Result<Location, String>, LookError> {
        let beside = to.beside(seen.fid).map_err(TransferError::from)?;
        if from.key != beside {
            match self.restate(seen, record, from, &beside)? {
                Ok(_) => {}
                Err(why) => return Ok(Err(why)),
            }
        }
        Ok(Err(format!(
            "'{to}' is still the copy of {by}, which is to go elsewhere"
        )))
    }

    fn metadata(
        &self,
        seen: &Seen,
        from: &Location,
        found: &ObjectInfo,
    ) -> Result<(std::collections::HashMap<String, String>, Option<ObjectKey>), LookError> {
        let follow = self.follow;
        let owner = Owner {
            fs: follow.mount.name().to_owned(),
            fid: seen.fid,
        };
        let prefix = &self.lane.store(from.archive_id)?.target().prefix;
        let cookie = found.metadata.get(COOKIE);
        let number = cookie.and_then(|text| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok());
        let sidecar = ObjectKey::sidecar(prefix, seen.fid, Cookie(number.unwrap_or(0)));
        let sidecar = sidecar.map_err(TransferError::from)?;
        let described = FileMetadata::new(Some(owner.clone()), &seen.stat, seen.extras.clone());
        let (mut metadata, rest) = described.to_maps(&sidecar);
        let mark = cookie.cloned().unwrap_or_else(|| Cookie(0).to_string());
        metadata.insert(COOKIE.to_owned(), mark.clone());
        if rest.is_empty() {
            return Ok((metadata, from.sidecar.clone()));
        }
        let body = serde_json::to_vec(&rest).map_err(|error| LookError::This(error.to_string()))?;
        let mut of_sidecar = owner.to_map();
        of_sidecar.insert(COOKIE.to_owned(), mark);
        let to = (&sidecar, Condition::None);
        put_bytes(self.lane, follow.control, from.archive_id, to, &body, of_sidecar)?;
        Ok((metadata, Some(sidecar)))
    }

    fn undo(&self, made: &Location) {
        let is_made = |found: &ObjectInfo| found.etag == made.etag;
        let swept = sweep_key(self.lane, made.archive_id, &made.key, made.version.as_deref(), is_made);
        if let Err(error) = swept {
            tracing::warn!(key = %made.key, %error, "an object that is no file's copy could not be deleted: an orphan");
        }
    }
}
