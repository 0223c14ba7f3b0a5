//! S3's operations, one request each: no retries here, no policy.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_sdk_s3::Client;
use aws_sdk_s3::error::ProvideErrorMetadata as _;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumMode, GlacierJobParameters, RestoreRequest};
use bytes::Bytes;

use super::{
    Checksum, ChecksumKind, Condition, Download, Expiry, Limits, ObjectInfo, ObjectKey, Payload, StoreError, Stored,
    TargetOptions, Thaw,
};

// The SDK's request builders have the same setters and no trait in common.

/// With the headers of a customer's encryption key, where there is one.
macro_rules! with_customer_key {
    ($request:expr, $choices:expr) => {{
        let (algorithm, key, md5) = $choices.customer();
        $request
            .set_sse_customer_algorithm(algorithm)
            .set_sse_customer_key(key)
            .set_sse_customer_key_md5(md5)
    }};
}

/// With all that is asked for a new object.
macro_rules! with_choices {
    ($request:expr, $choices:expr) => {
        with_customer_key!($request, $choices)
            .set_server_side_encryption($choices.server_side())
            .set_ssekms_key_id($choices.kms_key())
            .set_storage_class($choices.class())
            .set_tagging($choices.tagging())
            .set_acl($choices.canned_acl())
    };
}

/// Sends a request with its payload, which the SDK signs or we seal.
macro_rules! send_payload {
    ($store:expr, $request:expr, $payload:expr) => {
        if $store.target().sign_payload {
            let request = $request.set_checksum_algorithm($store.algorithm());
            request.body($payload.bare()).send().await
        } else {
            let (body, seal) = $payload.sealed($store.target().checksum);
            $request.body(body).customize().interceptor(seal).send().await
        }
    };
}

pub(super) use {send_payload, with_choices, with_customer_key};

/// One archive's bucket over one thread's connections.
#[derive(Clone, Debug)]
pub struct Store {
    client: Client,
    target: Arc<TargetOptions>,
    unconditional: Arc<AtomicBool>,
    limits: Arc<Limits>,
}

impl Store {
    pub(super) const fn new(
        client: Client,
        target: Arc<TargetOptions>,
        unconditional: Arc<AtomicBool>,
        limits: Arc<Limits>,
    ) -> Self {
        Self {
            client,
            target,
            unconditional,
            limits,
        }
    }

    /// How fast it may be used.
    #[must_use]
    pub const fn limits(&self) -> &Arc<Limits> {
        &self.limits
    }

    /// Whether writes can demand something of the key. `false` once the store has said that it can't.
    #[must_use]
    pub fn has_conditions(&self) -> bool {
        !self.unconditional.load(Ordering::Relaxed)
    }

    /// Remembers, for all threads, that the store knows no conditional writes.
    pub fn lacks_conditions(&self) {
        if !self.unconditional.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                bucket = self.target.bucket,
                "the store knows no conditional writes: keys are looked at before they are written, which leaves a \
                 moment in which another writer is not seen"
            );
        }
    }

    pub(super) const fn client(&self) -> &Client {
        &self.client
    }

    /// As configured.
    #[must_use]
    pub fn target(&self) -> &TargetOptions {
        &self.target
    }

    pub(super) fn algorithm(&self) -> Option<ChecksumAlgorithm> {
        match self.target.checksum {
            ChecksumKind::Crc64Nvme => Some(ChecksumAlgorithm::Crc64Nvme),
            ChecksumKind::Crc32c => Some(ChecksumAlgorithm::Crc32C),
            ChecksumKind::Sha256 => Some(ChecksumAlgorithm::Sha256),
            ChecksumKind::None => None,
        }
    }

    /// Writes a whole object in one request.
    ///
    /// # Errors
    /// [`StoreError::Precondition`] when `condition` does not hold.
    pub async fn put<B>(
        &self,
        key: &ObjectKey,
        payload: Payload<B>,
        condition: &Condition,
        metadata: HashMap<String, String>,
    ) -> Result<Stored, StoreError>
    where
        B: http_body::Body<Data = Bytes, Error = std::io::Error> + Send + Sync + Unpin + 'static,
    {
        let (if_match, if_none_match) = condition.headers();
        let request = self
            .client
            .put_object()
            .bucket(&self.target.bucket)
            .key(key.as_str())
            .set_if_match(if_match)
            .set_if_none_match(if_none_match)
            .set_metadata(Some(metadata));
        let request = with_choices!(request, self.target.choices);
        let answer =
            send_payload!(self, request, payload).map_err(|error| StoreError::from_sdk("PutObject", &error))?;
        Ok(Stored {
            etag: etag("PutObject", answer.e_tag)?,
            version: exact_version(answer.version_id),
            checksum: answer.checksum_crc64_nvme.as_deref().and_then(Checksum::from_base64),
        })
    }

    /// Reads `length` bytes from `offset` of exactly the object with `etag`.
    ///
    /// # Errors
    /// [`StoreError::Precondition`] when it is another object now.
    pub async fn get(
        &self,
        key: &ObjectKey,
        version: Option<&str>,
        etag: &str,
        offset: u64,
        length: u64,
    ) -> Result<Download, StoreError> {
        let last = offset + length.saturating_sub(1);
        let request = self
            .client
            .get_object()
            .bucket(&self.target.bucket)
            .key(key.as_str())
            .set_version_id(version.map(str::to_owned))
            .if_match(etag)
            .range(format!("bytes={offset}-{last}"));
        let answer = with_customer_key!(request, self.target.choices)
            .send()
            .await
            .map_err(|error| StoreError::from_sdk("GetObject", &error))?;
        Ok(Download::new(answer.body))
    }

    /// What is at the key (or that version of it), without its body.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when nothing is.
    pub async fn head(&self, key: &ObjectKey, version: Option<&str>) -> Result<ObjectInfo, StoreError> {
        let request = self
            .client
            .head_object()
            .bucket(&self.target.bucket)
            .key(key.as_str())
            .set_version_id(version.map(str::to_owned))
            .checksum_mode(ChecksumMode::Enabled);
        let answer = with_customer_key!(request, self.target.choices)
            .send()
            .await
            .map_err(|error| StoreError::from_sdk("HeadObject", &error))?;
        Ok(ObjectInfo {
            size: answer
                .content_length
                .and_then(|n| u64::try_from(n).ok())
                .ok_or_else(|| missing("HeadObject", "a length"))?,
            etag: etag("HeadObject", answer.e_tag)?,
            version: exact_version(answer.version_id),
            checksum: answer.checksum_crc64_nvme.as_deref().and_then(Checksum::from_base64),
            modified: answer.last_modified.map(|time| time.secs()),
            expires: answer.expiration.as_deref().and_then(Expiry::parse),
            metadata: answer.metadata.unwrap_or_default(),
        })
    }

    /// Asks for a readable copy of an object in an archive class. One that is asked for already is fine.
    ///
    /// # Errors
    /// The store's refusal.
    pub async fn thaw(&self, key: &ObjectKey, version: Option<&str>) -> Result<(), StoreError> {
        let Thaw { tier, days } = self.target.choices.thaw;
        let job = GlacierJobParameters::builder().tier(tier.sdk()).build();
        let request = RestoreRequest::builder()
            .days(i32::try_from(days).unwrap_or(i32::MAX))
            .set_glacier_job_parameters(job.ok())
            .build();
        let result = self
            .client
            .restore_object()
            .bucket(&self.target.bucket)
            .key(key.as_str())
            .set_version_id(version.map(str::to_owned))
            .restore_request(request)
            .send()
            .await;
        match result {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some("RestoreAlreadyInProgress") => Ok(()),
            Err(error) => Err(StoreError::from_sdk("RestoreObject", &error)),
        }
    }

    /// Deletes an object: that very version in a versioned bucket, else only while it still is the one
    /// with `etag`. One that is gone is fine.
    ///
    /// # Errors
    /// [`StoreError::Precondition`] when another object has taken the key.
    pub async fn delete(&self, key: &ObjectKey, version: Option<&str>, etag: Option<&str>) -> Result<(), StoreError> {
        let result = self
            .client
            .delete_object()
            .bucket(&self.target.bucket)
            .key(key.as_str())
            .set_version_id(version.map(str::to_owned))
            .set_if_match(if version.is_some() {
                None
            } else {
                etag.map(str::to_owned)
            })
            .send()
            .await
            .map_err(|error| StoreError::from_sdk("DeleteObject", &error));
        match result {
            Ok(_) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// "null" is whatever is there while versioning is suspended: no name for one version.
pub(super) fn exact_version(id: Option<String>) -> Option<String> {
    id.filter(|id| id != "null")
}

pub(super) fn etag(operation: &'static str, etag: Option<String>) -> Result<String, StoreError> {
    etag.ok_or_else(|| missing(operation, "an ETag"))
}

pub(super) fn missing(operation: &'static str, what: &str) -> StoreError {
    StoreError::Corrupt {
        operation,
        what: format!("the store's answer lacks {what}"),
    }
}
