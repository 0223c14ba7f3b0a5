//! Listings of a bucket, a page at a time.

use aws_sdk_s3::types::EncodingType;

use super::client::exact_version;
use super::listing::OPERATION;
use super::page::{ObjectReply, Reply, decode};
use super::{ListFrom, ObjectKey, Page, Query, Store, StoreError};

/// Of one key: what is wanted of them was written last, but for a little.
const MOST_VERSIONS: i32 = 100;

/// A version of an object, as a listing tells it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListedVersion {
    /// Its name.
    pub version: String,
    /// Bytes of the object.
    pub size: u64,
}

impl Store {
    /// One page of a listing, held against what was asked.
    ///
    /// # Errors
    /// The store's refusal; [`StoreError::Corrupt`] for a page that can't be the answer: keys without the prefix, fewer
    /// than it says, a promise of more without a way there.
    pub async fn list(&self, query: Query<'_>) -> Result<Page, StoreError> {
        let (after, token) = match query.from {
            ListFrom::Start => (None, None),
            ListFrom::After(key) => (Some(key.clone()), None),
            ListFrom::Token(token) => (None, Some(token.clone())),
        };
        let answer = self
            .client()
            .list_objects_v2()
            .bucket(&self.target().bucket)
            .prefix(query.prefix)
            .set_delimiter(query.by_directory.then(|| "/".to_owned()))
            .set_start_after(after)
            .set_continuation_token(token)
            .max_keys(query.limit)
            // XML can't carry every character that a key can.
            .encoding_type(EncodingType::Url)
            .send()
            .await
            .map_err(|error| StoreError::from_sdk(OPERATION, &error))?;
        let objects = answer.contents.unwrap_or_default().into_iter();
        let reply = Reply {
            encoded: answer.encoding_type.is_some(),
            objects: objects
                .map(|object| ObjectReply {
                    key: object.key,
                    size: object.size,
                    etag: object.e_tag,
                    modified: object.last_modified.map(|time| time.secs()),
                    class: object.storage_class.map(|class| class.as_str().to_owned()),
                })
                .collect(),
            common: answer
                .common_prefixes
                .unwrap_or_default()
                .into_iter()
                .map(|common| common.prefix)
                .collect(),
            promised: answer.key_count,
            truncated: answer.is_truncated,
            token: answer.next_continuation_token,
        };
        reply.page(&query)
    }
    /// The last hundred versions of the object at a key, the newest first: neither delete markers nor what was written while the
    /// bucket kept no versions.
    ///
    /// # Errors
    /// The store's refusal.
    pub async fn versions(&self, key: &ObjectKey) -> Result<Vec<ListedVersion>, StoreError> {
        let answer = self
            .client()
            .list_object_versions()
            .bucket(&self.target().bucket)
            // Of all keys that begin so it is the first one.
            .prefix(key.as_str())
            .max_keys(MOST_VERSIONS)
            .encoding_type(EncodingType::Url)
            .send()
            .await
            .map_err(|error| StoreError::from_sdk("ListObjectVersions", &error))?;
        let encoded = answer.encoding_type.is_some();
        let listed = answer.versions.unwrap_or_default().into_iter();
        Ok(listed
            .filter(|version| {
                let named = version.key.clone().map(|named| decode(named, encoded));
                named.as_deref() == Some(key.as_str().as_bytes())
            })
            .filter_map(|version| {
                Some(ListedVersion {
                    version: exact_version(version.version_id)?,
                    size: u64::try_from(version.size?).ok()?,
                })
            })
            .collect())
    }
}
