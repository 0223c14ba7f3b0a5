//! The back door of the dialects: what tests say of objects, tokens and the region beside what they ask for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use s3s::dto::StorageClass;

use crate::blob::Blob;
use crate::checksum::Kind;
use crate::complete::joined;
use crate::index::{Attributes, Part, Thaw};
use crate::server::Server;
use crate::sums::Hasher;

impl Server {
    /// Puts an object as [`put`](Self::put) does, with a `Content-Encoding`. The bytes are stored as they are given.
    pub fn put_encoded(
        &self,
        bucket: &str,
        key: &str,
        bytes: impl Into<Bytes>,
        metadata: BTreeMap<String, String>,
        encoding: &str,
    ) {
        let attributes = Attributes {
            metadata: Some(metadata.into_iter().collect()),
            content_encoding: Some(encoding.to_owned()),
            ..Attributes::default()
        };
        self.place(bucket, key, bytes.into(), attributes);
    }

    /// Puts an object as [`put`](Self::put) does, with metadata whose values are sent as these bytes.
    pub fn put_raw_metadata(&self, bucket: &str, key: &str, bytes: impl Into<Bytes>, metadata: &[(&str, &[u8])]) {
        let raw = metadata
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.to_vec()));
        let attributes = Attributes {
            raw: raw.collect(),
            ..Attributes::default()
        };
        self.place(bucket, key, bytes.into(), attributes);
    }

    /// Puts an object that somebody's program has uploaded in these parts: its `ETag` is that of parts. `algorithm`: the
    /// checksum that was asked for (`CRC32C`, `SHA256`), which is one of the parts' checksums then; without one, or with
    /// one that there is not, it is the CRC64NVME of the whole, unless a dialect has it otherwise.
    pub fn put_parts(&self, bucket: &str, key: &str, parts: &[&[u8]], algorithm: Option<&str>) {
        let kind = algorithm.and_then(Kind::from_name);
        let received = |bytes: &&[u8]| {
            let mut hasher = Hasher::new(kind);
            hasher.update(bytes);
            Part {
                blob: Arc::new(Blob::Memory(Bytes::copy_from_slice(bytes))),
                sums: hasher.finish(),
                modified: SystemTime::now(),
            }
        };
        let parts: Vec<Part> = parts.iter().map(received).collect();
        let parts: Vec<&Part> = parts.iter().collect();
        let object = joined(self.store(), kind, kind.is_none(), &parts, Attributes::default());
        self.add(bucket, key, object);
    }

    /// Changes the storage class of a current object. False when there is none.
    pub fn set_class(&self, bucket: &str, key: &str, class: &str) -> bool {
        self.amend(bucket, key, |attributes| {
            attributes.storage_class = Some(StorageClass::from(class.to_owned()));
            attributes.thaw = Thaw::NotAsked;
        })
    }

    /// Moves a current object to an archive tier (`ARCHIVE_ACCESS` or `DEEP_ARCHIVE_ACCESS`), where it can't be read
    /// until it is thawed, and makes its class `INTELLIGENT_TIERING`. False when there is none.
    pub fn set_archive_status(&self, bucket: &str, key: &str, status: &str) -> bool {
        self.amend(bucket, key, |attributes| {
            attributes.storage_class = Some(StorageClass::from_static(StorageClass::INTELLIGENT_TIERING));
            attributes.archive_status = Some(status.to_owned());
            attributes.thaw = Thaw::NotAsked;
        })
    }

    /// Ends the thaw of a current object, which can be read from now on. False when there is none.
    pub fn thaw(&self, bucket: &str, key: &str) -> bool {
        self.amend(bucket, key, |attributes| {
            // One that was in a tier is moved out of it; of a class there is a copy for some days.
            attributes.thaw = match attributes.archive_status.take() {
                Some(_) => Thaw::NotAsked,
                None => Thaw::Done,
            };
        })
    }

    /// Answers about this key have an `x-amz-expiration` from now on.
    pub fn set_expiration(&self, bucket: &str, key: &str) {
        self.store().doors.expire_object(bucket, key);
    }

    /// Each request for this key is 403 `AccessDenied` from now on.
    pub fn deny(&self, bucket: &str, key: &str) {
        self.store().doors.deny(bucket, key);
    }

    /// Ends what [`deny`](Self::deny) began.
    pub fn allow(&self, bucket: &str, key: &str) {
        self.store().doors.allow(bucket, key);
    }

    /// From now on this access key or session token has expired, for [`TokenExpired400`](crate::Dialect).
    pub fn expire_token(&self, token: &str) {
        self.store().doors.expire_token(token);
    }

    /// The one region that requests have to be signed for where a dialect looks at it; `eu-central-1` unless told.
    pub fn set_region(&self, region: &str) {
        self.store().doors.set_region(region);
    }

    fn amend(&self, bucket: &str, key: &str, change: impl FnOnce(&mut Attributes)) -> bool {
        let mut index = self.store().index();
        let bucket = index.buckets.get_mut(bucket);
        bucket.is_some_and(|bucket| bucket.amend(key, None, change))
    }
}
