//! Single requests about one object, with the same patience as transfers.

use std::collections::HashMap;
use std::fs::File;
use std::io::Seek as _;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use super::{Lane, Transfer, TransferError};
use crate::store::{
    Condition, KeyAt, ListFrom, ListedVersion, Listing, Location, ObjectInfo, ObjectKey, Origin, Page, Query, Store,
    StoreError, Thawing, Whose,
};
use crate::types::ArchiveId;

/// The store answers a copy when it is made.
const LONGEST_COPY: Duration = Duration::from_secs(600);

impl Transfer<'_> {
    /// What is at a key.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when nothing is.
    pub fn head(self, at: KeyAt<'_>, version: Option<&str>) -> Result<ObjectInfo, TransferError> {
        let store = self.store(at.archive_id)?;
        self.ask(store, async |_| Ok(store.head(at.key, version).await?))
    }

    /// Whether it is known what the store does with conditions of writes; tried where it is not yet.
    ///
    /// # Errors
    /// [`StoreError::Unsupported`]: they are not kept, and must be.
    pub fn try_conditions(self, archive_id: ArchiveId) -> Result<bool, TransferError> {
        let store = self.store(archive_id)?;
        if store.claims_trial() {
            let tried = self.ask(store, async |_| Ok(Box::pin(store.try_conditions()).await?));
            match tried {
                Ok(_) => {}
                Err(error @ TransferError::Stopped(_)) => return Err(error),
                Err(error @ TransferError::Store(StoreError::Denied { .. })) => tracing::warn!(
                    archive = archive_id.get(), %error,
                    "whether the store heeds conditional writes can't be tried: each archive looks at its key first, which is one \
                     request more. 'check' says what to allow"
                ),
                Err(error) => tracing::warn!(
                    archive = archive_id.get(), %error,
                    "whether the store heeds conditional writes could not be tried; keys are looked at before they are written"
                ),
            }
        }
        store.may_write()?;
        Ok(store.conditions_are_known())
    }

    /// What is at a key, if anything is.
    ///
    /// # Errors
    /// The store's refusal.
    pub fn find(self, at: KeyAt<'_>) -> Result<Option<ObjectInfo>, TransferError> {
        match self.head(at, None) {
            Ok(found) => Ok(Some(found)),
            Err(TransferError::Store(StoreError::NotFound { .. })) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A whole object in a local file without a name, proven as a restore is.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], and what a restore fails with.
    pub fn fetch_file(self, at: KeyAt<'_>) -> Result<File, TransferError> {
        let from = self.head(at, None)?.at(at);
        let mut file = tempfile::tempfile().map_err(TransferError::Write)?;
        let written = Arc::new(file.try_clone().map_err(TransferError::Write)?);
        self.alone().download(&written, &from)?;
        file.rewind().map_err(TransferError::Write)?;
        Ok(file)
    }

    /// A listing page by page, until its end or until `each` has seen enough. Each page is held against those before it
    /// ([`Listing`]): `each` finds on it whether the order of the keys can be relied on so far.
    ///
    /// # Errors
    /// The store's refusal, or a listing that goes in a circle or never ends.
    pub fn pages(
        self,
        archive_id: ArchiveId,
        query: Query<'_>,
        mut each: impl FnMut(Page) -> ControlFlow<()>,
    ) -> Result<(), TransferError> {
        let mut from = query.from.clone();
        let mut listing = Listing::new(&query);
        loop {
            let mut page = self.list(archive_id, Query { from: &from, ..query })?;
            listing.take(&mut page)?;
            let next = page.next.clone();
            if each(page).is_break() {
                return Ok(());
            }
            match next {
                Some(token) => from = ListFrom::Token(token),
                None => return Ok(()),
            }
        }
    }

    /// One page of a listing.
    ///
    /// # Errors
    /// The store's refusal.
    pub fn list(self, archive_id: ArchiveId, query: Query<'_>) -> Result<Page, TransferError> {
        let store = self.store(archive_id)?;
        self.ask(store, async |_| Ok(store.list(query).await?))
    }

    /// The last versions of the object at a key that the bucket keeps, the newest first.
    ///
    /// # Errors
    /// The store's refusal.
    pub fn versions(self, at: KeyAt<'_>) -> Result<Vec<ListedVersion>, TransferError> {
        let store = self.store(at.archive_id)?;
        self.ask(store, async |_| Ok(Box::pin(store.versions(at.key)).await?))
    }

    /// Whether an error is of one object alone: also where its store was given up for it, and answers otherwise.
    #[must_use]
    pub fn is_of_one(self, archive_id: ArchiveId, error: &TransferError) -> bool {
        match error.whose() {
            Whose::OneObjects => return true,
            Whose::Everybodys => return false,
            Whose::Doubtful => {}
        }
        let Ok(store) = self.store(archive_id) else {
            return false;
        };
        let query = Query {
            limit: 1,
            ..Query::below(&store.target().prefix, &ListFrom::Start)
        };
        self.list(archive_id, query).is_ok() && self.control.stopped().is_none()
    }

    /// Asks for a readable copy of an object in an archive class, unless it was asked for already.
    ///
    /// # Errors
    /// The store's refusal.
    pub fn thaw(self, location: &Location) -> Result<(), TransferError> {
        let version = location.version.as_deref();
        let found = self.head(location.at(), version)?;
        match found.thawing {
            Thawing::Asked => Ok(()),
            _ => self.thaw_found(location, &found),
        }
    }

    /// The same for one whose HEAD is known; asks in any case.
    ///
    /// # Errors
    /// The store's refusal.
    pub fn thaw_found(self, location: &Location, found: &ObjectInfo) -> Result<(), TransferError> {
        let store = self.store(location.archive_id)?;
        self.ask(store, async |_| {
            Ok(store.thaw(&location.key, location.version.as_deref(), found).await?)
        })
    }

    /// Copies an object to another key, or onto itself with other metadata, and looks at what was made.
    ///
    /// # Errors
    /// [`StoreError::Precondition`]: the source is another object by now, or the key does not meet `condition`;
    /// [`StoreError::Unsupported`]: larger than what one request copies.
    pub fn copy(
        self,
        from: &Location,
        to: &ObjectKey,
        condition: &Condition,
        metadata: &HashMap<String, String>,
    ) -> Result<Location, TransferError> {
        if from.size > Store::LARGEST_COPY {
            let error = StoreError::Unsupported {
                operation: "CopyObject",
                code: "the object is larger than 5 GiB".into(),
            };
            return Err(error.into());
        }
        let store = self.store(from.archive_id)?;
        let stored = self.ask(store, async |activity| {
            let copied = store.copy(from, to, condition, metadata.clone());
            Ok(Box::pin(activity.busy(LONGEST_COPY, copied)).await?)
        })?;
        let found = self.head(to.at(from.archive_id), stored.version.as_deref())?;
        let same_bytes = found.checksum.is_none() || from.checksum.is_none() || found.checksum == from.checksum;
        if found.etag != stored.etag || found.size != from.size || !same_bytes {
            let what = format!("'{to}' is not what was copied from '{}'", from.key);
            return Err(TransferError::Checksum { what });
        }
        Ok(Location {
            key: to.clone(),
            etag: stored.etag,
            version: stored.version,
            // Another object than the one that it was copied from.
            writer: Origin::writer_of(&found, to),
            cookie: Origin::cookie_of(&found, to),
            ..from.clone()
        })
    }
}

impl Lane {
    /// What is at a key, if anything is. One try and a short time: for after an answer.
    ///
    /// # Errors
    /// The store did not tell.
    pub fn glance(&self, at: KeyAt<'_>, version: Option<&str>) -> Result<Option<ObjectInfo>, TransferError> {
        let store = self.store(at.archive_id)?;
        let look = async {
            match store.head(at.key, version).await {
                Ok(found) => Ok::<_, TransferError>(Some(found)),
                Err(StoreError::NotFound { .. }) => Ok(None),
                Err(error) => Err(error.into()),
            }
        };
        self.briefly(look)
    }

    /// With a limit for all of it.
    pub(super) fn briefly<T>(&self, work: impl Future<Output = Result<T, TransferError>>) -> Result<T, TransferError> {
        let limit = self.options().retry.afterwards;
        let stalled = StoreError::Stalled {
            seconds: limit.as_secs(),
        };
        self.block_on(async { tokio::time::timeout(limit, work).await })
            .unwrap_or_else(|_| Err(stalled.into()))
    }
}
