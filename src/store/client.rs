//! S3's operations, one request each: no retries here, no policy.

use std::collections::HashMap;
use std::sync::Arc;

use aws_sdk_s3::Client;
use aws_sdk_s3::error::ProvideErrorMetadata as _;
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumMode, ChecksumType, ServerSideEncryption};
use bytes::Bytes;

use super::choices::ThawRequest;
use super::{
    Algorithm, Checksum, ChecksumKind, Condition, Download, Evidence, Expiry, Limits, Location, ObjectInfo, ObjectKey,
    Payload, Quirk, Quirks, StoreError, StoredObject, TargetOptions, Thawing,
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
    quirks: Arc<Quirks>,
    limits: Arc<Limits>,
}

impl Store {
    pub(super) const fn new(
        client: Client,
        target: Arc<TargetOptions>,
        quirks: Arc<Quirks>,
        limits: Arc<Limits>,
    ) -> Self {
        Self {
            client,
            target,
            quirks,
            limits,
        }
    }

    /// What the store does otherwise than S3, as far as it is known.
    #[must_use]
    pub fn quirks(&self) -> &Quirks {
        &self.quirks
    }

    /// How fast it may be used.
    #[must_use]
    pub const fn limits(&self) -> &Arc<Limits> {
        &self.limits
    }

    /// Whether writes can demand something of the key. `false` once the store has said that it can't.
    #[must_use]
    pub fn has_conditions(&self) -> bool {
        !self.quirks.has(Quirk::NoConditions)
    }

    /// Remembers, for all threads, that the store knows no conditional writes.
    pub fn lacks_conditions(&self) {
        if self.quirks.learn(Quirk::NoConditions) {
            tracing::warn!(
                bucket = self.target.bucket,
                "the store knows no conditional writes: keys are looked at before they are written, which leaves a \
                 moment in which another writer is not seen"
            );
        }
    }

    /// The same for what is no file's data: it stays in the bucket's own class, for it is read at once when it is
    /// wanted, and is too small to be worth another.
    #[must_use]
    pub fn without_class(&self) -> Self {
        let mut target = TargetOptions::clone(&self.target);
        target.choices.storage_class = None;
        Self {
            target: Arc::new(target),
            ..self.clone()
        }
    }

    /// The same for what is removed at once.
    pub(super) fn without_extras(&self) -> Self {
        let mut target = TargetOptions::clone(&self.target);
        target.choices.storage_class = None;
        target.choices.tags.clear();
        target.choices.acl = None;
        Self {
            target: Arc::new(target),
            ..self.clone()
        }
    }

    pub(super) const fn client(&self) -> &Client {
        &self.client
    }

    /// The archive section that this store is of.
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
    ) -> Result<StoredObject, StoreError>
    where
        B: http_body::Body<Data = Bytes, Error = std::io::Error> + Send + Sync + Unpin + 'static,
    {
        let (if_match, if_none_match) = self.demands(condition);
        let manner = self.manner(&payload);
        let request = self
            .client
            .put_object()
            .bucket(&self.target.bucket)
            .key(key.as_str())
            .set_if_match(if_match)
            .set_if_none_match(if_none_match)
            .set_metadata(Some(metadata));
        let request = with_choices!(request, self.target.choices);
        let answer = match send_payload!(self, request, payload) {
            Ok(answer) => answer,
            Err(error) => {
                let error = StoreError::from_sdk("PutObject", &error);
                return Err(self.objection(error, manner, key, condition).await);
            }
        };
        self.took(manner);
        Ok(StoredObject {
            etag: self.etag("PutObject", answer.e_tag)?,
            version: exact_version(answer.version_id),
            checksum: answer.checksum_crc64_nvme.as_deref().and_then(Checksum::from_base64),
        })
    }

    /// Reads `length` bytes from `offset` of exactly that object.
    ///
    /// # Errors
    /// [`StoreError::Precondition`] when it is another object now, [`StoreError::RangeIgnored`] where the store sends
    /// nothing but whole objects.
    pub async fn get(&self, from: &Location, offset: u64, length: u64) -> Result<Download, StoreError> {
        const OPERATION: &str = "GetObject";
        // A store that knows no ranges can be asked for this one.
        let whole = offset == 0 && length == from.size;
        if !whole && self.quirks.has(Quirk::RangesIgnored) {
            return Err(StoreError::RangeIgnored { operation: OPERATION });
        }
        let mut asked_twice = false;
        let last = offset + length.saturating_sub(1);
        let mut respelled = false;
        let answer = loop {
            let bare = self.spells_bare();
            let request = self
                .client
                .get_object()
                .bucket(&self.target.bucket)
                .key(from.key.as_str())
                .set_version_id(from.version.clone())
                .if_match(self.spelled(&from.etag))
                .set_range((!whole).then(|| format!("bytes={offset}-{last}")));
            let answer = with_customer_key!(request, self.target.choices).send().await;
            match answer.map_err(|error| StoreError::from_sdk(OPERATION, &error)) {
                Ok(answer) => break answer,
                Err(StoreError::Precondition { .. })
                    if !respelled && self.respell(&from.key, from.version.as_deref(), &from.etag, bare).await =>
                {
                    respelled = true;
                }
                // One such answer may be of a cache on the way, and what is learned holds for all objects.
                Err(StoreError::RangeIgnored { .. }) if !asked_twice => asked_twice = true,
                Err(error @ StoreError::RangeIgnored { .. }) => {
                    if self.quirks.learn(Quirk::RangesIgnored) {
                        tracing::warn!(
                            bucket = self.target.bucket,
                            "the store ignores Range: objects are read whole, from their beginning, each on one connection"
                        );
                    }
                    return Err(error);
                }
                Err(error) => return Err(error),
            }
        };
        if self.etag(OPERATION, answer.e_tag)? != from.etag {
            // If-Match was ignored, or the answer's own ETag is wrong: what is there now tells.
            return match self.head(&from.key, from.version.as_deref()).await? {
                found if found.etag == from.etag => Err(StoreError::NotS3 {
                    operation: OPERATION,
                    what: "its ETag is not the object's".into(),
                }),
                _ => Err(StoreError::Precondition { operation: OPERATION }),
            };
        }
        let encoding = answer.content_encoding.filter(|encoding| encoding != "identity");
        let body = Download::new(answer.body, encoding);
        match answer.content_length.map(u64::try_from) {
            Some(Ok(sent)) if sent != length => Err(body.other_length(&format!("{sent} bytes"), length)),
            _ => Ok(body),
        }
    }

    /// What is at the key (or that version of it), without its body.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when nothing is.
    pub async fn head(&self, key: &ObjectKey, version: Option<&str>) -> Result<ObjectInfo, StoreError> {
        let answer = self.head_part(key, version, None).await?;
        let evidence = evidence(&answer);
        let class = answer.storage_class.as_ref().map(|class| class.as_str().to_owned());
        let archive_tier = answer.archive_status.as_ref().map(|tier| tier.as_str().to_owned());
        Ok(ObjectInfo {
            size: length_of(&answer)?,
            etag: self.etag("HeadObject", answer.e_tag)?,
            version: exact_version(answer.version_id),
            checksum: evidence.iter().find_map(Evidence::as_checksum),
            evidence,
            modified: answer.last_modified.map(|time| time.secs()),
            expires: answer.expiration.as_deref().and_then(Expiry::parse),
            thawing: Thawing::of(class.as_deref(), archive_tier.as_deref(), answer.restore.as_deref()),
            class,
            archive_tier,
            metadata: answer.metadata.unwrap_or_default(),
        })
    }

    /// Bytes of the first of the parts that an object was uploaded in. `None`: the store does not tell.
    ///
    /// # Errors
    /// The store's refusal.
    pub async fn part_size(&self, from: &Location) -> Result<Option<u64>, StoreError> {
        let answer = self.head_part(&from.key, from.version.as_deref(), Some(1)).await?;
        // One that does not know the question tells of the whole.
        let size = length_of(&answer)?;
        Ok((size < from.size || answer.parts_count == Some(1)).then_some(size))
    }

    /// Bytes of one of the parts that an object was uploaded in, counted from 1.
    ///
    /// # Errors
    /// The store's refusal.
    pub async fn size_of_part(&self, from: &Location, number: i32) -> Result<u64, StoreError> {
        length_of(&self.head_part(&from.key, from.version.as_deref(), Some(number)).await?)
    }

    pub(super) async fn head_part(
        &self,
        key: &ObjectKey,
        version: Option<&str>,
        part: Option<i32>,
    ) -> Result<HeadObjectOutput, StoreError> {
        // Stores without checksums refuse the question, too.
        let mode = (self.target.checksum != ChecksumKind::None).then_some(ChecksumMode::Enabled);
        let request = self
            .client
            .head_object()
            .bucket(&self.target.bucket)
            .key(key.as_str())
            .set_version_id(version.map(str::to_owned))
            .set_part_number(part)
            .set_checksum_mode(mode);
        match with_customer_key!(request, self.target.choices).send().await {
            Ok(answer) => Ok(answer),
            Err(error) => {
                let refusal = StoreError::from_sdk("HeadObject", &error);
                Err(Box::pin(self.explained(refusal)).await)
            }
        }
    }

    /// Asks for a readable copy of an object in an archive class, in the way that the class of what was `found` there
    /// wants it. One that is asked for already is fine.
    ///
    /// # Errors
    /// The store's refusal.
    pub async fn thaw(&self, key: &ObjectKey, version: Option<&str>, found: &ObjectInfo) -> Result<(), StoreError> {
        let mut ask = ThawRequest::new(self.target.choices.thaw, found);
        loop {
            let result = self
                .client
                .restore_object()
                .bucket(&self.target.bucket)
                .key(key.as_str())
                .set_version_id(version.map(str::to_owned))
                .restore_request(ask.request())
                .send()
                .await;
            match result {
                Ok(_) => return Ok(()),
                Err(error) if error.code() == Some("RestoreAlreadyInProgress") => return Ok(()),
                Err(error) => match ask.instead(error.code().unwrap_or_default()) {
                    Some(other) => ask = other,
                    None => return Err(StoreError::from_sdk("RestoreObject", &error)),
                },
            }
        }
    }

    /// Deletes an object: that very version in a versioned bucket, else only while it still is the one
    /// with `etag`. One that is gone is fine.
    ///
    /// # Errors
    /// [`StoreError::Precondition`] when another object has taken the key.
    pub async fn delete(&self, key: &ObjectKey, version: Option<&str>, etag: Option<&str>) -> Result<(), StoreError> {
        self.delete_told(key, version, etag).await.map(drop)
    }

    /// The same; tells the version of the delete marker that was made, if one was.
    pub(super) async fn delete_told(
        &self,
        key: &ObjectKey,
        version: Option<&str>,
        etag: Option<&str>,
    ) -> Result<Option<String>, StoreError> {
        let mut respelled = false;
        loop {
            let etag = etag.filter(|_| version.is_none());
            let bare = self.spells_bare();
            let result = self
                .client
                .delete_object()
                .bucket(&self.target.bucket)
                .key(key.as_str())
                .set_version_id(version.map(str::to_owned))
                .set_if_match(etag.map(|etag| self.spelled(etag)))
                .send()
                .await
                .map_err(|error| StoreError::from_sdk("DeleteObject", &error));
            return match (result, etag) {
                (Ok(answer), _) => {
                    let is_marked = version.is_none() && answer.delete_marker == Some(true);
                    Ok(exact_version(answer.version_id).filter(|_| is_marked))
                }
                (Err(StoreError::NotFound { .. }), _) => Ok(None),
                (Err(StoreError::Precondition { .. }), Some(etag))
                    if !respelled && self.respell(key, None, etag, bare).await =>
                {
                    respelled = true;
                    continue;
                }
                (Err(error), _) => Err(error),
            };
        }
    }
}

/// Asked for with checksum mode.
fn length_of(answer: &HeadObjectOutput) -> Result<u64, StoreError> {
    let length = answer.content_length.and_then(|n| u64::try_from(n).ok());
    length.ok_or_else(|| missing("HeadObject", "a length"))
}

/// All that an answer says of the object's bytes, the best first: what costs nothing, what is of all bytes at once.
fn evidence(answer: &HeadObjectOutput) -> Vec<Evidence> {
    let composite = answer.checksum_type == Some(ChecksumType::Composite);
    let told = [
        (Algorithm::Crc64Nvme, &answer.checksum_crc64_nvme),
        (Algorithm::Crc32c, &answer.checksum_crc32_c),
        (Algorithm::Crc32, &answer.checksum_crc32),
        (Algorithm::Sha256, &answer.checksum_sha256),
        (Algorithm::Sha512, &answer.checksum_sha512),
        (Algorithm::Sha1, &answer.checksum_sha1),
        (Algorithm::Md5, &answer.checksum_md5),
    ];
    let sums = told.into_iter().filter_map(|(algorithm, text)| {
        let text = text.as_deref()?;
        Evidence::from_header(algorithm, text, composite)
    });
    let mut all: Vec<_> = sums.collect();
    // With a key of KMS or the customer's an ETag is no MD5.
    let sealed = answer.sse_customer_algorithm.is_some()
        || !matches!(answer.server_side_encryption, None | Some(ServerSideEncryption::Aes256));
    all.extend(
        answer
            .e_tag
            .as_deref()
            .filter(|_| !sealed)
            .and_then(Evidence::from_etag),
    );
    all.sort_by_key(|evidence| evidence.parts.is_some());
    all
}

/// "null" is whatever is there while versioning is suspended: no name for one version.
pub(super) fn exact_version(id: Option<String>) -> Option<String> {
    id.filter(|id| id != "null")
}

pub(super) fn missing(operation: &'static str, what: &str) -> StoreError {
    StoreError::NotS3 {
        operation,
        what: format!("it lacks {what}"),
    }
}
