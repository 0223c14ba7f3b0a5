//! What is asked of an object and what is known of one.

use std::collections::HashMap;

use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;

use super::{Checksum, Location, ObjectKey, StoreError, sidecar_of};
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
    /// When a lifecycle rule is going to take it away.
    pub expires: Option<Expiry>,
    /// User metadata.
    pub metadata: HashMap<String, String>,
}

/// The end of an object by a lifecycle rule, as a HEAD tells it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Expiry {
    /// The day, as the store writes it.
    pub date: String,
    /// The rule; empty where it has no name.
    pub rule: String,
}

impl Expiry {
    /// From `x-amz-expiration`; `None` for anything else than a date and a rule.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let value = |name: &str| {
            let (_, rest) = text.split_once(name)?;
            Some(rest.strip_prefix("=\"")?.split_once('"')?.0)
        };
        let rule = value("rule-id").unwrap_or_default();
        Some(Self {
            date: value("expiry-date")?.to_owned(),
            rule: percent_encoding::percent_decode_str(rule)
                .decode_utf8_lossy()
                .into_owned(),
        })
    }
}

impl std::fmt::Display for Expiry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "expires on {} by lifecycle rule '{}'", self.date, self.rule)
    }
}

impl ObjectInfo {
    /// As the place of a copy.
    #[must_use]
    pub fn at(&self, archive_id: ArchiveId, key: &ObjectKey) -> Location {
        Location {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_is_read_in_any_order_and_nothing_else_is_one() {
        let expected = Some(Expiry {
            date: "Fri, 21 Dec 2012 00:00:00 GMT".into(),
            rule: "after a year".into(),
        });
        for text in [
            r#"expiry-date="Fri, 21 Dec 2012 00:00:00 GMT", rule-id="after%20a%20year""#,
            r#"rule-id="after%20a%20year", expiry-date="Fri, 21 Dec 2012 00:00:00 GMT""#,
        ] {
            assert_eq!(Expiry::parse(text), expected);
        }
        for text in ["", "NotImplemented", "expiry-date=", "expiry-date=\"x"] {
            assert_eq!(Expiry::parse(text), None, "{text}");
        }
    }
}
