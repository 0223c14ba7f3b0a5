//! What is asked of an object and what is known of one.

use std::collections::HashMap;

use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;

use super::{Checksum, Location, ObjectKey, Origin, Owner, StoreError, sidecar_of};
use crate::types::ArchiveId;

/// What a write demands of the key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Condition {
    /// Nothing.
    None,
    /// No object is there.
    Absent,
    /// This object is there.
    Match(String),
}

impl Condition {
    /// As If-Match and If-None-Match.
    pub(super) fn headers(&self) -> (Option<String>, Option<String>) {
        match self {
            Self::None => (None, None),
            Self::Absent => (None, Some("*".to_owned())),
            Self::Match(etag) => (Some(etag.clone()), None),
        }
    }
}

/// An object as the store confirmed it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stored {
    /// Quotes included.
    pub etag: String,
    /// In a versioned bucket.
    pub version: Option<String>,
    /// What the store computed over the whole object, where it does.
    pub checksum: Option<Checksum>,
}

/// What a HEAD tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObjectInfo {
    /// Bytes.
    pub size: u64,
    /// Quotes included.
    pub etag: String,
    /// In a versioned bucket.
    pub version: Option<String>,
    /// Of the whole object, where the store has one.
    pub checksum: Option<Checksum>,
    /// Last write, seconds since 1970.
    pub modified: Option<i64>,
    /// User metadata.
    pub metadata: HashMap<String, String>,
}

impl ObjectInfo {
    /// As the place of a copy.
    #[must_use]
    pub fn at(&self, archive_id: ArchiveId, key: &ObjectKey) -> Location {
        Location {
            written_for: Owner::of(&self.metadata),
            writer: Origin::writer_of(self, key),
            archive_id,
            key: key.clone(),
            size: self.size,
            etag: self.etag.clone(),
            version: self.version.clone(),
            checksum: self.checksum,
            pinned: false,
            layout: None,
            sidecar: sidecar_of(&self.metadata),
        }
    }

    /// As the answer to its write would have told it.
    #[must_use]
    pub fn into_stored(self) -> Stored {
        Stored {
            etag: self.etag,
            version: self.version,
            checksum: self.checksum,
        }
    }
}

/// A body being received.
#[derive(Debug)]
pub struct Download(ByteStream);

impl Download {
    pub(super) const fn new(body: ByteStream) -> Self {
        Self(body)
    }

    /// The next bytes, `None` at the end.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn next(&mut self) -> Option<Result<Bytes, StoreError>> {
        let chunk = self.0.next().await?;
        Some(chunk.map_err(|error| StoreError::Unavailable {
            operation: "GetObject",
            what: super::error::chain(&error),
        }))
    }
}
