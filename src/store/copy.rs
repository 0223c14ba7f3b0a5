//! An object under another key or with other metadata, without its bytes leaving the store.

use std::collections::HashMap;

use aws_sdk_s3::types::MetadataDirective;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::client::{exact_version, with_choices, with_customer_key};
use super::{Checksum, Condition, Location, ObjectKey, Store, StoreError, StoredObject};

/// In a copy's source, which is a header.
const IN_SOURCE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

impl Store {
    /// The largest object that one request copies.
    pub const LARGEST_COPY: u64 = 5 << 30;

    /// Copies an object of this bucket, if it still is the one at `from`, to a key that meets `condition`; its
    /// metadata is replaced.
    ///
    /// # Errors
    /// [`StoreError::Precondition`]: the source is another object, or `condition` does not hold.
    pub async fn copy(
        &self,
        from: &Location,
        to: &ObjectKey,
        condition: &Condition,
        metadata: HashMap<String, String>,
    ) -> Result<StoredObject, StoreError> {
        const OPERATION: &str = "CopyObject";
        let target = self.target();
        let mut source = format!(
            "{}/{}",
            target.bucket,
            utf8_percent_encode(from.key.as_str(), IN_SOURCE)
        );
        if let Some(version) = &from.version {
            source.push_str("?versionId=");
            source.extend(utf8_percent_encode(version, IN_SOURCE));
        }
        let (if_match, if_none_match) = self.demands(condition);
        let (algorithm, key, md5) = target.choices.customer();
        let request = self
            .client()
            .copy_object()
            .bucket(&target.bucket)
            .key(to.as_str())
            .copy_source(source)
            .copy_source_if_match(self.spelled(&from.etag))
            .set_copy_source_sse_customer_algorithm(algorithm)
            .set_copy_source_sse_customer_key(key)
            .set_copy_source_sse_customer_key_md5(md5)
            .set_if_match(if_match)
            .set_if_none_match(if_none_match)
            .set_checksum_algorithm(self.algorithm())
            .metadata_directive(MetadataDirective::Replace)
            .set_metadata(Some(metadata));
        let answer = with_choices!(request, target.choices)
            .send()
            .await
            .map_err(|error| StoreError::from_sdk(OPERATION, &error))?;
        let result = answer
            .copy_object_result
            .unwrap_or_else(|| aws_sdk_s3::types::CopyObjectResult::builder().build());
        Ok(StoredObject {
            etag: self.etag(OPERATION, result.e_tag)?,
            version: exact_version(answer.version_id),
            checksum: result.checksum_crc64_nvme.as_deref().and_then(Checksum::from_base64),
        })
    }
}
