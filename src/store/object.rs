//! What is asked of an object and what is known of one.

use std::collections::HashMap;

use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;

use super::{Checksum, Evidence, KeyAt, Location, Origin, Owner, StoreError, data_version_of, sidecar_of};

/// What a write demands of the key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Condition {
    /// The write is made whatever is at the key.
    None,
    /// No object is there.
    Absent,
    /// This object is there.
    Match(String),
}

/// An object as the store confirmed it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredObject {
    /// Quotes included.
    pub etag: String,
    /// In a versioned bucket.
    pub version: Option<String>,
    /// What the store computed over the whole object, where it does.
    pub checksum: Option<Checksum>,
}

/// What a HEAD tells.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ObjectInfo {
    /// Bytes of the object.
    pub size: u64,
    /// Quotes included.
    pub etag: String,
    /// In a versioned bucket.
    pub version: Option<String>,
    /// Of the whole object, where the store has one.
    pub checksum: Option<Checksum>,
    /// All that the store says of its bytes, the best first.
    pub evidence: Vec<Evidence>,
    /// Last write, seconds since 1970.
    pub modified: Option<i64>,
    /// Storage class; not told of the standard one.
    pub class: Option<String>,
    /// The archive tier of INTELLIGENT_TIERING that it was moved to.
    pub archive_tier: Option<String>,
    /// Whether it can be read, as far as that is told.
    pub thawing: Thawing,
    /// When a lifecycle rule is going to take it away.
    pub expires: Option<Expiry>,
    /// User metadata.
    pub metadata: HashMap<String, String>,
}

/// What a HEAD tells of an object in an archive class.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Thawing {
    /// Nothing: it is in no such class, or the store does not say so.
    #[default]
    Untold,
    /// It can't be read, and nobody has asked for it.
    Frozen,
    /// It was asked for and can't be read yet.
    Asked,
    /// It can be read for some days.
    Thawed,
}

impl Thawing {
    /// By the storage class, the archive tier and what `x-amz-restore` says, where they are told.
    pub(super) fn of(class: Option<&str>, tier: Option<&str>, restore: Option<&str>) -> Self {
        match (restore.and_then(is_ongoing), tier, class) {
            (Some(true), ..) => Self::Asked,
            // One that has come back is in no archive tier any more.
            (_, Some(_), _) => Self::Frozen,
            (Some(false), ..) => Self::Thawed,
            (None, None, Some("GLACIER" | "DEEP_ARCHIVE")) => Self::Frozen,
            (None, None, _) => Self::Untold,
        }
    }
}

/// As in `ongoing-request="false", expiry-date="Fri, 21 Dec 2012 00:00:00 GMT"`.
fn is_ongoing(restore: &str) -> Option<bool> {
    let (_, value) = restore
        .split(',')
        .filter_map(|part| part.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("ongoing-request"))?;
    match value.trim().trim_matches('"') {
        value if value.eq_ignore_ascii_case("true") => Some(true),
        value if value.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
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
    pub fn at(&self, KeyAt { archive_id, key }: KeyAt<'_>) -> Location {
        Location {
            written_for: Owner::of(&self.metadata),
            writer: Origin::writer_of(self, key),
            cookie: Origin::cookie_of(self, key),
            archive_id,
            key: key.clone(),
            size: self.size,
            etag: self.etag.clone(),
            version: self.version.clone(),
            checksum: self.checksum,
            pinned: false,
            layout: None,
            sidecar: sidecar_of(&self.metadata),
            data_version: data_version_of(&self.metadata),
        }
    }

    /// As the answer to its write would have told it.
    #[must_use]
    pub fn into_stored(self) -> StoredObject {
        StoredObject {
            etag: self.etag,
            version: self.version,
            checksum: self.checksum,
        }
    }
}

impl Location {
    /// The record that the object at a file's key tells by itself: it names that file, its file system and the key.
    #[must_use]
    pub fn told_by(found: &ObjectInfo, at: KeyAt<'_>, file: &Owner) -> Option<Self> {
        match Origin::of(found, at.key) {
            Origin::Written(identity) if identity.names_key && identity.owner == *file => Some(found.at(at)),
            _ => None,
        }
    }
}

/// A body being received.
#[derive(Debug)]
pub struct Download {
    body: ByteStream,
    /// As the answer has it, where there is one.
    encoding: Option<String>,
}

impl Download {
    pub(super) const fn new(body: ByteStream, encoding: Option<String>) -> Self {
        Self { body, encoding }
    }

    /// The error for a body that is longer or shorter than it must be.
    #[must_use]
    pub fn other_length(&self, found: &str, expected: u64) -> StoreError {
        let remedy = match &self.encoding {
            Some(encoding) => format!(
                "the object has Content-Encoding {encoding}, and the store or something before it unpacks it: turn \
                 that off there, or store the object without Content-Encoding"
            ),
            None => "something between here and the store changes bodies (an object with Content-Encoding that is \
                     unpacked on the way, a proxy): turn that off there"
                .into(),
        };
        StoreError::Corrupt {
            operation: "GetObject",
            what: format!("{found} came where {expected} were asked for; {remedy}"),
        }
    }

    /// The next bytes, `None` at the end.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn next(&mut self) -> Option<Result<Bytes, StoreError>> {
        let chunk = self.body.next().await?;
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
    fn a_head_tells_whether_an_object_can_be_read() {
        let asked = Some("ongoing-request=\"true\"");
        let done = Some("ongoing-request=\"false\", expiry-date=\"Fri, 21 Dec 2012 00:00:00 GMT\"");
        let (glacier, tiering) = (Some("GLACIER"), Some("INTELLIGENT_TIERING"));
        for (class, tier, restore, expected) in [
            (None, None, None, Thawing::Untold),
            (Some("STANDARD_IA"), None, None, Thawing::Untold),
            (Some("GLACIER_IR"), None, None, Thawing::Untold),
            (tiering, None, None, Thawing::Untold),
            (glacier, None, None, Thawing::Frozen),
            (Some("DEEP_ARCHIVE"), None, None, Thawing::Frozen),
            (tiering, Some("ARCHIVE_ACCESS"), None, Thawing::Frozen),
            (glacier, None, asked, Thawing::Asked),
            (tiering, Some("DEEP_ARCHIVE_ACCESS"), asked, Thawing::Asked),
            (glacier, None, done, Thawing::Thawed),
            (tiering, None, done, Thawing::Thawed),
            // Other stores' classes and ways to write it.
            (Some("COLD"), None, Some("Ongoing-Request = TRUE"), Thawing::Asked),
            (glacier, None, Some("ongoing-request=false"), Thawing::Thawed),
            (glacier, None, Some("nonsense"), Thawing::Frozen),
        ] {
            assert_eq!(
                Thawing::of(class, tier, restore),
                expected,
                "{class:?} {tier:?} {restore:?}"
            );
        }
    }

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
