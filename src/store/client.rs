//! S3's operations, one request each: no retries here, no policy.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_sdk_s3::Client;
use aws_sdk_s3::error::ProvideErrorMetadata as _;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    ChecksumAlgorithm, ChecksumMode, ChecksumType, CompletedMultipartUpload, CompletedPart, GlacierJobParameters,
    RestoreRequest,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    Checksum, ChecksumKind, Limits, Location, ObjectKey, Payload, Proof, StoreError, TargetOptions, Thaw, sidecar_of,
};
use crate::types::ArchiveId;

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

pub(super) use {with_choices, with_customer_key};

/// Sends a request with its payload, which the SDK signs or we seal.
macro_rules! send_payload {
    ($store:expr, $request:expr, $payload:expr) => {
        if $store.target.sign_payload {
            let request = $request.set_checksum_algorithm($store.algorithm());
            request.body($payload.bare()).send().await
        } else {
            let (body, seal) = $payload.sealed($store.target.checksum);
            $request.body(body).customize().interceptor(seal).send().await
        }
    };
}

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

/// One part as the store confirmed it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StoredPart {
    /// From 1.
    pub number: i32,
    /// Quotes included.
    pub etag: String,
    /// What the store computed, where it does.
    pub checksum: Option<Checksum>,
    /// What was sent with it; needed again when the upload is completed.
    proof: Option<Proof>,
}

impl StoredPart {
    /// With the checksum that was sent: the store wants it once more when the upload is completed.
    #[must_use]
    pub fn proven(self, proof: Option<Proof>) -> Self {
        Self { proof, ..self }
    }

    fn proof_of(&self, kind: ChecksumKind) -> Option<String> {
        let proof = self.proof.as_ref().filter(|proof| proof.kind == kind)?;
        Some(proof.value.clone())
    }
}

/// A multipart upload in progress: the store keeps (and bills) its parts until it is completed or
/// aborted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct UploadId(String);

impl UploadId {
    /// As the store gave it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A part that was sent, with our checksum of its bytes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SentPart {
    /// The store's words.
    pub stored: StoredPart,
    /// Ours.
    pub checksum: Checksum,
}

/// A multipart upload that the store keeps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListedUpload {
    /// The key that it would become.
    pub key: ObjectKey,
    /// Its id.
    pub id: UploadId,
    /// When it was begun, in seconds since 1970.
    pub initiated: i64,
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
        let (if_match, if_none_match) = headers(condition);
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

    /// Starts a multipart upload.
    ///
    /// # Errors
    /// The store's refusal.
    pub async fn create_upload(
        &self,
        key: &ObjectKey,
        metadata: HashMap<String, String>,
    ) -> Result<UploadId, StoreError> {
        let request = self
            .client
            .create_multipart_upload()
            .bucket(&self.target.bucket)
            .key(key.as_str())
            .set_checksum_algorithm(self.algorithm())
            .set_checksum_type((self.target.checksum == ChecksumKind::Crc64Nvme).then_some(ChecksumType::FullObject))
            .set_metadata(Some(metadata));
        let answer = with_choices!(request, self.target.choices)
            .send()
            .await
            .map_err(|error| StoreError::from_sdk("CreateMultipartUpload", &error))?;
        answer
            .upload_id
            .map(UploadId)
            .ok_or_else(|| missing("CreateMultipartUpload", "an upload id"))
    }

    /// Sends one part.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the upload is gone.
    pub async fn upload_part<B>(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        number: i32,
        payload: Payload<B>,
    ) -> Result<StoredPart, StoreError>
    where
        B: http_body::Body<Data = Bytes, Error = std::io::Error> + Send + Sync + Unpin + 'static,
    {
        let request = self
            .client
            .upload_part()
            .bucket(&self.target.bucket)
            .key(key.as_str())
            .upload_id(&upload.0)
            .part_number(number);
        let request = with_customer_key!(request, self.target.choices);
        let answer =
            send_payload!(self, request, payload).map_err(|error| StoreError::from_sdk("UploadPart", &error))?;
        Ok(StoredPart {
            number,
            etag: etag("UploadPart", answer.e_tag)?,
            checksum: answer.checksum_crc64_nvme.as_deref().and_then(Checksum::from_base64),
            proof: None,
        })
    }

    /// Makes the parts an object. `whole` is what we computed over all of it.
    ///
    /// # Errors
    /// [`StoreError::Precondition`] when `condition` does not hold, [`StoreError::Corrupt`] when the
    /// store's checksum of the whole differs.
    pub async fn complete_upload(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        parts: &[StoredPart],
        size: u64,
        whole: Checksum,
        condition: &Condition,
    ) -> Result<Stored, StoreError> {
        let (if_match, if_none_match) = headers(condition);
        let full_object = self.target.checksum == ChecksumKind::Crc64Nvme;
        let parts = parts
            .iter()
            .map(|part| {
                CompletedPart::builder()
                    .part_number(part.number)
                    .e_tag(&part.etag)
                    .set_checksum_crc64_nvme(part.proof_of(ChecksumKind::Crc64Nvme))
                    .set_checksum_crc32_c(part.proof_of(ChecksumKind::Crc32c))
                    .set_checksum_sha256(part.proof_of(ChecksumKind::Sha256))
                    .build()
            })
            .collect();
        let request = self
            .client
            .complete_multipart_upload()
            .bucket(&self.target.bucket)
            .key(key.as_str())
            .upload_id(&upload.0)
            .set_checksum_crc64_nvme(full_object.then(|| whole.to_base64()))
            .set_checksum_type(full_object.then_some(ChecksumType::FullObject))
            .set_mpu_object_size(i64::try_from(size).ok())
            .set_if_match(if_match)
            .set_if_none_match(if_none_match)
            .multipart_upload(CompletedMultipartUpload::builder().set_parts(Some(parts)).build());
        let answer = with_customer_key!(request, self.target.choices)
            .send()
            .await
            .map_err(|error| StoreError::from_sdk("CompleteMultipartUpload", &error))?;
        Ok(Stored {
            etag: etag("CompleteMultipartUpload", answer.e_tag)?,
            version: exact_version(answer.version_id),
            // A checksum of checksums ("…-3") is not one of the object's bytes: from_base64 refuses it.
            checksum: answer.checksum_crc64_nvme.as_deref().and_then(Checksum::from_base64),
        })
    }

    /// The parts of an upload that the store has: number, ETag, bytes.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the upload is gone.
    pub async fn list_parts(&self, key: &ObjectKey, upload: &UploadId) -> Result<Vec<(i32, String, u64)>, StoreError> {
        let mut parts = Vec::new();
        let mut marker = None;
        loop {
            let request = self
                .client
                .list_parts()
                .bucket(&self.target.bucket)
                .key(key.as_str())
                .upload_id(&upload.0)
                .set_part_number_marker(marker.clone());
            let answer = with_customer_key!(request, self.target.choices)
                .send()
                .await
                .map_err(|error| StoreError::from_sdk("ListParts", &error))?;
            for part in answer.parts() {
                if let (Some(number), Some(etag), Some(size)) = (part.part_number(), part.e_tag(), part.size()) {
                    parts.push((number, etag.to_owned(), u64::try_from(size).unwrap_or(0)));
                }
            }
            let next = answer.next_part_number_marker().map(str::to_owned);
            // A list that repeats itself would go on for ever.
            if answer.is_truncated() != Some(true) || next.is_none() || next == marker || parts.len() > 10_000 {
                return Ok(parts);
            }
            marker = next;
        }
    }

    /// Uploads below the prefix, at most 1,000 from `after` on; and where to go on, if there are more.
    ///
    /// # Errors
    /// The store's refusal.
    pub async fn list_uploads(
        &self,
        after: Option<(String, String)>,
    ) -> Result<(Vec<ListedUpload>, Option<(String, String)>), StoreError> {
        let (key_marker, id_marker) = after.clone().unzip();
        let answer = self
            .client
            .list_multipart_uploads()
            .bucket(&self.target.bucket)
            .prefix(&self.target.prefix)
            .set_key_marker(key_marker)
            .set_upload_id_marker(id_marker)
            .send()
            .await
            .map_err(|error| StoreError::from_sdk("ListMultipartUploads", &error))?;
        let uploads = answer
            .uploads()
            .iter()
            .filter_map(|upload| {
                Some(ListedUpload {
                    key: ObjectKey::new(upload.key()?).ok()?,
                    id: UploadId(upload.upload_id()?.to_owned()),
                    initiated: upload.initiated()?.secs(),
                })
            })
            .collect();
        let next = answer.next_key_marker().zip(answer.next_upload_id_marker());
        let next = next.map(|(key, id)| (key.to_owned(), id.to_owned()));
        let more = answer.is_truncated() == Some(true) && next != after;
        Ok((uploads, next.filter(|_| more)))
    }

    /// Throws an upload and its parts away; one that is gone is fine.
    ///
    /// # Errors
    /// The store's refusal.
    pub async fn abort_upload(&self, key: &ObjectKey, upload: &UploadId) -> Result<(), StoreError> {
        let result = self
            .client
            .abort_multipart_upload()
            .bucket(&self.target.bucket)
            .key(key.as_str())
            .upload_id(&upload.0)
            .send()
            .await
            .map_err(|error| StoreError::from_sdk("AbortMultipartUpload", &error));
        match result {
            Ok(_) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
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
        Ok(Download(answer.body))
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

pub(super) fn headers(condition: &Condition) -> (Option<String>, Option<String>) {
    match condition {
        Condition::None => (None, None),
        Condition::Absent => (None, Some("*".to_owned())),
        Condition::Match(etag) => (Some(etag.clone()), None),
    }
}

/// "null" is whatever is there while versioning is suspended: no name for one version.
pub(super) fn exact_version(id: Option<String>) -> Option<String> {
    id.filter(|id| id != "null")
}

pub(super) fn etag(operation: &'static str, etag: Option<String>) -> Result<String, StoreError> {
    etag.ok_or_else(|| missing(operation, "an ETag"))
}

fn missing(operation: &'static str, what: &str) -> StoreError {
    StoreError::Corrupt {
        operation,
        what: format!("the store's answer lacks {what}"),
    }
}
