//! Of the store what the journal writes down: plain values, for it looks into none of them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::types::ArchiveId;

/// An object's name.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ObjectKey(String);

impl ObjectKey {
    /// Any text is one.
    ///
    /// # Errors
    /// None.
    pub fn new(key: &str) -> Result<Self, fmt::Error> {
        Ok(Self(key.to_owned()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The number of one attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WriterId(pub u64);

impl WriterId {
    /// `None` for what is no number.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        text.parse().ok().map(Self)
    }
}

impl fmt::Display for WriterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An upload in parts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct UploadId(String);

impl UploadId {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A part that was sent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SentPart(pub String);

/// Which object is a file's copy.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Location {
    /// The archive that holds it.
    pub archive_id: ArchiveId,
    /// Its key.
    pub key: ObjectKey,
    /// As the store gave it.
    pub etag: String,
    /// The attempt that wrote it.
    pub writer: Option<WriterId>,
}

impl Location {
    /// For the journal.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// From it.
    ///
    /// # Errors
    /// The bytes are no location's.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }
}
