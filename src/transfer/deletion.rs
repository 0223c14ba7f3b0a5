//! Deletes an object, and no other: look, announce, look, delete. An ETag names bytes, not an object, and not every store
//! heeds the condition of a delete.

use super::announce::Announcement;
use super::{Bearer, Lane, Transfer, TransferError};
use crate::store::{KeyAt, Location, ObjectInfo, ObjectKey, Origin, Owner, Store, StoreError};

impl Transfer<'_> {
    /// Deletes exactly the object at a location. `is_ours` tells, after the look, whether it is the one that is
    /// meant, and still nobody's copy. Where versions are kept, it gets a delete marker: to delete the version would bring
    /// the one before back. Where none are, it is announced before on the `bearer`, and looked once more.
    ///
    /// # Errors
    /// [`StoreError::Precondition`] when another object has taken the key; it can't be announced.
    pub fn delete(
        self,
        bearer: Bearer<'_>,
        location: &Location,
        is_ours: impl Fn(&ObjectInfo, &Origin) -> bool,
    ) -> Result<(), TransferError> {
        let store = self.store(location.archive_id)?;
        let version = location.version.as_deref();
        let is_meant = |found: &ObjectInfo, origin: &Origin| is_copy(location, found) && is_ours(found, origin);
        let deletion = Deletion::new(store, bearer, location.at());
        let deleted = self.ask(store, async |_| {
            if version.is_some() {
                let is_current = |found: &ObjectInfo, origin: &Origin| {
                    found.version.as_deref() == version && is_meant(found, origin)
                };
                // A marker over it: without it, the version before would be the object.
                if Box::pin(deletion.carry_out(None, Takes::Key, is_current)).await? {
                    return Ok(());
                }
            }
            let takes = version.map_or(Takes::Key, Takes::Version);
            match Box::pin(deletion.carry_out(version, takes, is_meant)).await? {
                true => Ok(()),
                false => Err(StoreError::Precondition {
                    operation: "DeleteObject",
                }
                .into()),
            }
        });
        deletion.announced.end();
        deleted
    }
}

impl Lane {
    /// Deletes what is at a key if `is_garbage` says so, which is asked after the look. One try and a short time: for after an
    /// answer. Where no versions are kept, it is announced before on the `bearer`, and looked once more.
    ///
    /// # Errors
    /// The store did not help, or it can't be announced; the object, if there is one, stays.
    pub fn sweep_key(
        &self,
        bearer: Bearer<'_>,
        at: KeyAt<'_>,
        version: Option<&str>,
        is_garbage: impl Fn(&ObjectInfo, &Origin) -> bool,
    ) -> Result<(), TransferError> {
        let store = self.store(at.archive_id)?;
        let deletion = Deletion::new(store, bearer, at);
        let swept = self.briefly(deletion.carry_out(version, Takes::FoundVersion, is_garbage));
        deletion.announced.end();
        swept.map(drop)
    }
}

/// By its ETag, or by its bytes where the object says whose it is: an answer may have named a wrong ETag.
fn is_copy(location: &Location, found: &ObjectInfo) -> bool {
    found.etag == location.etag || (location.has_bytes_of(found) && Owner::of(&found.metadata).is_some())
}

/// What a DELETE names.
#[derive(Clone, Copy, Debug)]
enum Takes<'a> {
    /// The key: where versions are kept this makes a marker, and nothing is lost below it.
    Key,
    /// That version.
    Version(&'a str),
    /// The version that the look has found, or else the key.
    FoundVersion,
}

/// Of what is at one key.
struct Deletion<'a> {
    store: &'a Store,
    key: &'a ObjectKey,
    announced: Announcement<'a>,
}

impl<'a> Deletion<'a> {
    fn new(store: &'a Store, bearer: Bearer<'a>, at: KeyAt<'a>) -> Self {
        Self {
            store,
            key: at.key,
            announced: Announcement::new(bearer, at),
        }
    }

    /// Deletes what a look finds, at that version if one is given, if it `is_meant`. `false`: it is another object. Where
    /// there is none, there is nothing to do.
    async fn carry_out(
        &self,
        version: Option<&str>,
        takes: Takes<'_>,
        is_meant: impl Fn(&ObjectInfo, &Origin) -> bool,
    ) -> Result<bool, TransferError> {
        let Self { store, key, announced } = self;
        loop {
            let found = match store.head(key, version).await {
                Ok(found) if is_meant(&found, &Origin::of(&found, key)) => found,
                Ok(_) => return Ok(false),
                Err(StoreError::NotFound { .. }) => return Ok(true),
                Err(error) => return Err(error.into()),
            };
            let taken = match takes {
                Takes::Key => None,
                Takes::Version(version) => Some(version),
                Takes::FoundVersion => found.version.as_deref(),
            };
            if taken.is_some() {
                store.delete(key, taken, None).await?;
                return Ok(true);
            }
            // What an archive has put there since is not lost below a marker.
            if found.version.is_some() || announced.covers_look()? {
                Box::pin(announced.send(self.delete_or_mark(&found.etag))).await?;
                return Ok(true);
            }
        }
    }

    /// If it still is the one with that ETag, where the store heeds that.
    async fn delete_or_mark(&self, etag: &str) -> Result<(), StoreError> {
        match self.store.delete(self.key, None, Some(etag)).await {
            // A store without conditional deletes.
            Err(StoreError::Unsupported { .. }) => self.store.delete(self.key, None, None).await,
            result => result,
        }
    }
}
