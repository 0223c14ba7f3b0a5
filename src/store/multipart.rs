//! Multipart uploads: their parts, and S3's operations on them.

use std::collections::HashMap;

use aws_sdk_s3::types::{ChecksumType, CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::client::{exact_version, missing, send_payload, with_choices, with_customer_key};
use super::wire_form::WireForm;
use super::{Checksum, ChecksumKind, Condition, ObjectKey, Payload, Proof, Store, StoreError, StoredObject};

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
    /// One that a store gave somebody.
    #[must_use]
    pub const fn new(text: String) -> Self {
        Self(text)
    }

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
    /// CRC-64/NVME of the bytes that we read and sent.
    pub checksum: Checksum,
}

/// A part that the store lists.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListedPart {
    /// From 1.
    pub number: i32,
    /// Quotes included.
    pub etag: String,
    /// Its bytes.
    pub size: u64,
    /// The CRC-64/NVME by which the store took it, where it keeps that.
    pub checksum: Option<Checksum>,
}

impl ListedPart {
    /// The part as whoever sent it has it; `None`: its bytes can't be told, or the store wants more to make an object of it.
    #[must_use]
    pub fn sent(&self, kind: ChecksumKind) -> Option<SentPart> {
        let checksum = self.checksum.filter(|_| kind == ChecksumKind::Crc64Nvme)?;
        Some(SentPart {
            stored: StoredPart {
                number: self.number,
                etag: self.etag.clone(),
                checksum: Some(checksum),
                proof: Some(Proof {
                    kind,
                    value: checksum.to_base64(),
                }),
            },
            checksum,
        })
    }
}

/// A multipart upload that the store keeps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListedUpload {
    /// The key that it would become.
    pub key: ObjectKey,
    /// What the store calls it.
    pub id: UploadId,
    /// When it was begun, in seconds since 1970.
    pub initiated: i64,
}

impl Store {
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
            .client()
            .create_multipart_upload()
            .bucket(&self.target().bucket)
            .key(key.as_str())
            .set_checksum_algorithm(self.algorithm())
            .set_checksum_type((self.target().checksum == ChecksumKind::Crc64Nvme).then_some(ChecksumType::FullObject))
            .set_metadata(Some(metadata));
        let answer = with_choices!(request, self.target().choices)
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
            .client()
            .upload_part()
            .bucket(&self.target().bucket)
            .key(key.as_str())
            .upload_id(&upload.0)
            .part_number(number);
        let request = with_customer_key!(request, self.target().choices);
        let manner = self.manner(&payload);
        let answer = match send_payload!(self, request, payload) {
            Ok(answer) => answer,
            Err(error) => {
                let error = StoreError::from_sdk("UploadPart", &error);
                return Err(self.objection(error, manner, key, &Condition::None).await);
            }
        };
        self.took(manner);
        Ok(StoredPart {
            number,
            etag: self.etag("UploadPart", answer.e_tag)?,
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
    ) -> Result<StoredObject, StoreError> {
        let bare = self.spells_bare();
        let (if_match, if_none_match) = self.demands(condition);
        let full_object = self.target().checksum == ChecksumKind::Crc64Nvme;
        let parts = parts
            .iter()
            .map(|part| {
                CompletedPart::builder()
                    .part_number(part.number)
                    .e_tag(self.spelled_in_body(&part.etag))
                    .set_checksum_crc64_nvme(part.proof_of(ChecksumKind::Crc64Nvme))
                    .set_checksum_crc32_c(part.proof_of(ChecksumKind::Crc32c))
                    .set_checksum_sha256(part.proof_of(ChecksumKind::Sha256))
                    .build()
            })
            .collect();
        let request = self
            .client()
            .complete_multipart_upload()
            .bucket(&self.target().bucket)
            .key(key.as_str())
            .upload_id(&upload.0)
            .set_checksum_crc64_nvme(full_object.then(|| whole.to_base64()))
            .set_checksum_type(full_object.then_some(ChecksumType::FullObject))
            .set_mpu_object_size(i64::try_from(size).ok())
            .set_if_match(if_match)
            .set_if_none_match(if_none_match)
            .multipart_upload(CompletedMultipartUpload::builder().set_parts(Some(parts)).build());
        let answer = match with_customer_key!(request, self.target().choices).send().await {
            Ok(answer) => answer,
            Err(error) => {
                let error = StoreError::from_sdk("CompleteMultipartUpload", &error);
                return Err(self.objection(error, WireForm::bodiless(bare), key, condition).await);
            }
        };
        Ok(StoredObject {
            etag: self.etag("CompleteMultipartUpload", answer.e_tag)?,
            version: exact_version(answer.version_id),
            // A checksum of checksums ("…-3") is not one of the object's bytes: from_base64 refuses it.
            checksum: answer.checksum_crc64_nvme.as_deref().and_then(Checksum::from_base64),
        })
    }

    /// The parts of an upload that the store has: number, ETag, bytes.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the upload is gone.
    pub async fn list_parts(&self, key: &ObjectKey, upload: &UploadId) -> Result<Vec<ListedPart>, StoreError> {
        let mut parts = Vec::new();
        let mut marker = None;
        loop {
            let request = self
                .client()
                .list_parts()
                .bucket(&self.target().bucket)
                .key(key.as_str())
                .upload_id(&upload.0)
                .set_part_number_marker(marker.clone());
            let answer = with_customer_key!(request, self.target().choices)
                .send()
                .await
                .map_err(|error| StoreError::from_sdk("ListParts", &error))?;
            for part in answer.parts() {
                if let (Some(number), Some(etag), Some(size)) = (part.part_number(), part.e_tag(), part.size()) {
                    let etag = self.etag("ListParts", Some(etag.to_owned()))?;
                    parts.push(ListedPart {
                        number,
                        etag,
                        size: u64::try_from(size).unwrap_or(0),
                        checksum: part.checksum_crc64_nvme().and_then(Checksum::from_base64),
                    });
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
        let (key_marker, id_marker) = after.unzip();
        let id_marker = id_marker.filter(|marker| !marker.is_empty());
        let answer = self
            .client()
            .list_multipart_uploads()
            .bucket(&self.target().bucket)
            .prefix(&self.target().prefix)
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
        if answer.is_truncated() != Some(true) {
            return Ok((uploads, None));
        }
        // A key alone leads on as well.
        let next = answer.next_key_marker().filter(|key| !key.is_empty()).map(|key| {
            let id = answer.next_upload_id_marker().unwrap_or_default();
            (key.to_owned(), id.to_owned())
        });
        let next = next.ok_or_else(|| StoreError::Corrupt {
            operation: "ListMultipartUploads",
            what: "the list of uploads says that there is more and does not say where".into(),
        })?;
        Ok((uploads, Some(next)))
    }

    /// Throws an upload and its parts away; one that is gone is fine.
    ///
    /// # Errors
    /// The store's refusal.
    pub async fn abort_upload(&self, key: &ObjectKey, upload: &UploadId) -> Result<(), StoreError> {
        let result = self
            .client()
            .abort_multipart_upload()
            .bucket(&self.target().bucket)
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
}
