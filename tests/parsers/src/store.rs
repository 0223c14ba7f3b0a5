//! Of the store what reads: records, metadata, pages of listings.

#[path = "../../../src/store/attributes.rs"]
mod attributes;
#[path = "../../../src/store/etag.rs"]
mod etag;
#[path = "../../../src/store/identity.rs"]
mod identity;
#[path = "../../../src/store/key.rs"]
mod key;
#[path = "../../../src/store/listing.rs"]
mod listing;
#[path = "../../../src/store/location.rs"]
mod location;
#[path = "../../../src/store/metadata.rs"]
mod metadata;
#[path = "../../../src/store/page.rs"]
mod page;

use std::collections::HashMap;

pub use attributes::ParsedAttributes;
pub use identity::{
    COOKIE, Claim, Identity, Origin, Owner, WriteAttempt, WriterId, data_version_of, name_key, note_data_version,
};
pub use key::{InvalidKey, KeyAt, KeyLayout, ObjectKey, Records};
pub use listing::{CycleDetector, Listing, hash};
pub use location::{Checksum, InvalidLocation, Location};
pub use metadata::{FileMetadata, sidecar_of};
pub use page::{Entry, From as ListFrom, Page, Query};

use page::{ObjectReply, Reply};

/// What a HEAD tells, as far as these files look at it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ObjectInfo {
    /// Bytes.
    pub size: u64,
    /// Quotes included.
    pub etag: String,
    /// In a versioned bucket.
    pub version: Option<String>,
    /// Of the whole object.
    pub checksum: Option<Checksum>,
    /// User metadata.
    pub metadata: HashMap<String, String>,
}

/// A store's fault, as far as these files name one.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// An answer that can't be one.
    #[error("{operation}: {what}")]
    Corrupt {
        /// The request.
        operation: &'static str,
        /// What is wrong.
        what: String,
    },
}

/// A page as a corpus has it.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RawPage {
    encoded: bool,
    objects: Vec<RawObject>,
    common: Vec<Option<String>>,
    count: Option<i32>,
    truncated: Option<bool>,
    token: Option<String>,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawObject {
    key: Option<String>,
    size: Option<i64>,
    etag: Option<String>,
    modified: Option<i64>,
    class: Option<String>,
}

impl RawPage {
    /// What is believed of it.
    ///
    /// # Errors
    /// It can't be the answer.
    pub fn page(self, query: &Query<'_>) -> Result<Page, StoreError> {
        let objects = self.objects.into_iter().map(|object| ObjectReply {
            key: object.key,
            size: object.size,
            etag: object.etag,
            modified: object.modified,
            class: object.class,
        });
        let reply = Reply {
            encoded: self.encoded,
            objects: objects.collect(),
            common: self.common,
            promised: self.count,
            truncated: self.truncated,
            token: self.token,
        };
        reply.page(query)
    }
}
