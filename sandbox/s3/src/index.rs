//! What is in the buckets: keys with their versions, and the multipart uploads in progress.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use s3s::dto::{Metadata, StorageClass};
use s3s::{S3ErrorCode, S3Result};

use crate::blob::Blob;
use crate::checksum::{Kind, Shown};
use crate::condition::Condition;
use crate::sums::Sums;

/// Whether a frozen object is being made readable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Thaw {
    #[default]
    NotAsked,
    Ongoing,
    Done,
}

/// The headers that are kept with an object.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attributes {
    pub(crate) metadata: Option<Metadata>,
    pub(crate) storage_class: Option<StorageClass>,
    pub(crate) content_type: Option<String>,
    pub(crate) content_encoding: Option<String>,
    pub(crate) content_disposition: Option<String>,
    pub(crate) content_language: Option<String>,
    pub(crate) cache_control: Option<String>,
    /// Encryption, tags and ACL: what was asked for, and nothing done about.
    pub(crate) asked: Vec<(&'static str, String)>,
    /// Metadata whose values are no text, by the back door only.
    pub(crate) raw: Vec<(String, Vec<u8>)>,
    pub(crate) thaw: Thaw,
    /// The archive tier in which an object is that INTELLIGENT_TIERING moved, by the back door only.
    pub(crate) archive_status: Option<String>,
}

/// An object: it never changes once it is there. What becomes known of it later makes it another with the same bytes.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    pub(crate) size: u64,
    pub(crate) etag: String,
    pub(crate) modified: SystemTime,
    pub(crate) attributes: Attributes,
    pub(crate) checksum: Option<Shown>,
    pub(crate) blobs: Vec<Arc<Blob>>,
    /// What is known of the part of each blob. Empty when it was not uploaded in parts.
    pub(crate) parts: Vec<Sums>,
}

/// A version of a key: an object, or a delete marker.
#[derive(Debug)]
pub(crate) struct Version {
    /// `None` while versioning is off, which S3 calls the version `null`.
    pub(crate) id: Option<String>,
    pub(crate) object: Option<Arc<Object>>,
}

impl Version {
    fn has_id(&self, id: &str) -> bool {
        self.id.as_deref().unwrap_or("null") == id
    }
}

/// A part of an upload.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) blob: Arc<Blob>,
    pub(crate) sums: Sums,
    pub(crate) modified: SystemTime,
}

/// A multipart upload in progress.
#[derive(Debug)]
pub(crate) struct Upload {
    pub(crate) initiated: SystemTime,
    pub(crate) attributes: Attributes,
    /// The checksum that the object is to have, and whether it is that of the whole.
    pub(crate) checksum: Option<Kind>,
    pub(crate) whole: bool,
    pub(crate) parts: BTreeMap<i32, Part>,
}

/// What a delete did.
#[derive(Debug, Default)]
pub(crate) struct Deleted {
    /// A marker was made, or removed.
    pub(crate) marker: bool,
    pub(crate) version_id: Option<String>,
    /// What is gone; to be dropped when the index is no longer locked, since that removes files.
    pub(crate) displaced: Vec<Version>,
}

/// A bucket.
#[derive(Debug)]
pub(crate) struct Bucket {
    pub(crate) created: SystemTime,
    /// The versions of each key, the newest last. None is empty.
    pub(crate) keys: BTreeMap<String, Vec<Version>>,
    /// By key and upload id.
    pub(crate) uploads: BTreeMap<(String, String), Upload>,
}

impl Default for Bucket {
    fn default() -> Self {
        Self {
            created: SystemTime::now(),
            keys: BTreeMap::new(),
            uploads: BTreeMap::new(),
        }
    }
}

impl Bucket {
    /// The object that a key stands for now.
    pub(crate) fn current(&self, key: &str) -> Option<&Arc<Object>> {
        self.keys.get(key)?.last()?.object.as_ref()
    }

    /// The current objects with their keys, in the order of the keys.
    pub(crate) fn objects(&self) -> impl Iterator<Item = (&String, &Arc<Object>)> {
        self.keys
            .iter()
            .filter_map(|(key, versions)| Some((key, versions.last()?.object.as_ref()?)))
    }

    /// The object of a key, of the version if one is named.
    pub(crate) fn find(&self, key: &str, version: Option<&str>) -> S3Result<(&Arc<Object>, Option<&String>)> {
        let versions = self.keys.get(key).map(Vec::as_slice).unwrap_or_default();
        let (found, absent) = match version {
            None => (versions.last(), S3ErrorCode::NoSuchKey),
            Some(id) => (
                versions.iter().find(|version| version.has_id(id)),
                S3ErrorCode::NoSuchVersion,
            ),
        };
        match found {
            Some(Version {
                id,
                object: Some(object),
            }) => Ok((object, id.as_ref())),
            Some(Version { object: None, .. }) if version.is_some() => Err(S3ErrorCode::MethodNotAllowed.into()),
            Some(_) | None => Err(absent.into()),
        }
    }

    /// Changes what is known of an object of a key, of the version if one is named. False when there is none.
    pub(crate) fn amend(&mut self, key: &str, version: Option<&str>, change: impl FnOnce(&mut Attributes)) -> bool {
        let versions = self.keys.get_mut(key);
        let found = versions.and_then(|versions| match version {
            None => versions.last_mut(),
            Some(id) => versions.iter_mut().find(|version| version.has_id(id)),
        });
        let Some(object) = found.and_then(|version| version.object.as_mut()) else {
            return false;
        };
        change(&mut Arc::make_mut(object).attributes);
        true
    }

    /// Makes an object the current one, if the condition holds. Without a version id it takes the place of whatever
    /// was there, which is returned as in [`Deleted::displaced`]; for the same reason the object stays the caller's.
    pub(crate) fn put(
        &mut self,
        key: &str,
        object: &Arc<Object>,
        version_id: Option<String>,
        condition: &Condition,
    ) -> S3Result<Vec<Version>> {
        condition.check_write(self.current(key).map(|object| &**object))?;
        Ok(self.push(
            key,
            Version {
                id: version_id,
                object: Some(Arc::clone(object)),
            },
        ))
    }

    fn push(&mut self, key: &str, version: Version) -> Vec<Version> {
        let versions = self.keys.entry(key.to_owned()).or_default();
        let displaced = if version.id.is_none() {
            std::mem::take(versions)
        } else {
            Vec::new()
        };
        versions.push(version);
        displaced
    }

    /// Deletes a key: exactly the version that is named; else by a marker when there is an id for it; else all of it.
    pub(crate) fn delete(&mut self, key: &str, version: Option<&str>, marker_id: Option<String>) -> Deleted {
        if let Some(id) = version {
            let Some(versions) = self.keys.get_mut(key) else {
                return Deleted::default();
            };
            let displaced: Vec<Version> = versions.extract_if(.., |version| version.has_id(id)).collect();
            if versions.is_empty() {
                self.keys.remove(key);
            }
            let marker = displaced.iter().any(|version| version.object.is_none());
            return Deleted {
                marker,
                version_id: Some(id.to_owned()),
                displaced,
            };
        }
        if let Some(id) = marker_id {
            let displaced = self.push(
                key,
                Version {
                    id: Some(id.clone()),
                    object: None,
                },
            );
            return Deleted {
                marker: true,
                version_id: Some(id),
                displaced,
            };
        }
        Deleted {
            displaced: self.keys.remove(key).unwrap_or_default(),
            ..Deleted::default()
        }
    }

    /// An upload in progress.
    pub(crate) fn upload(&mut self, key: &str, id: &str) -> S3Result<&mut Upload> {
        self.uploads
            .get_mut(&(key.to_owned(), id.to_owned()))
            .ok_or_else(|| S3ErrorCode::NoSuchUpload.into())
    }
}

/// All buckets.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) buckets: BTreeMap<String, Bucket>,
}

impl Index {
    pub(crate) fn bucket(&mut self, name: &str) -> S3Result<&mut Bucket> {
        self.buckets
            .get_mut(name)
            .ok_or_else(|| S3ErrorCode::NoSuchBucket.into())
    }
}
