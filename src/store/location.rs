//! The record on each archived file of where its copy is: the value of `trusted.lhsm_s3`.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};

use super::{KeyAt, ObjectInfo, ObjectKey, Owner, WriterId, etag};
use crate::types::{ArchiveId, Cookie};

const FORMAT: u32 = 1;

/// A CRC-64/NVME of a whole object.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Checksum(pub u64);

impl Checksum {
    /// S3's text form.
    #[must_use]
    pub fn to_base64(self) -> String {
        BASE64_STANDARD.encode(self.0.to_be_bytes())
    }

    /// From S3's text form; `None` for anything else.
    #[must_use]
    pub fn from_base64(text: &str) -> Option<Self> {
        let bytes: [u8; 8] = BASE64_STANDARD.decode(text).ok()?.try_into().ok()?;
        Some(Self(u64::from_be_bytes(bytes)))
    }
}

/// Which object is a file's copy, exactly.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Location {
    /// The archive that holds it.
    pub archive_id: ArchiveId,
    /// The object's key, prefix included.
    pub key: ObjectKey,
    /// Bytes of the object, which are those of the file.
    pub size: u64,
    /// As the store gave it, quotes included.
    pub etag: String,
    /// In a versioned bucket.
    pub version: Option<String>,
    /// Of the whole object; `None` for one that we did not write.
    pub checksum: Option<Checksum>,
    /// The key comes from an import, not from the file's path: the file keeps it.
    pub pinned: bool,
    /// Of an imported file: the composite layout that its first restore gives it, as an import can't.
    pub layout: Option<Vec<u8>>,
    /// The object with what the copy's own metadata has no room for.
    pub sidecar: Option<ObjectKey>,
    /// The file that this was written for: a record is copied along with a file's content. `None`: by an older release.
    pub written_for: Option<Owner>,
    /// The attempt that wrote the object; `None` for one that we did not write, or of an older release.
    pub writer: Option<WriterId>,
    /// That attempt's action; `None` also for one of release 0.2.
    pub cookie: Option<Cookie>,
    /// The data version of the file that it has the bytes of, as HSM keeps that of the archived one; `None` where that was not
    /// told, and by an older release.
    pub data_version: Option<u64>,
}

/// A record that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidLocation {
    /// Not ours, or damaged.
    #[error("the file's trusted.lhsm_s3 record can't be read: {0}")]
    Syntax(#[from] serde_json::Error),
    /// From a later release.
    #[error("the file's trusted.lhsm_s3 record has format {0}; this release knows {FORMAT}")]
    Format(u32),
    /// A field is impossible.
    #[error("the file's trusted.lhsm_s3 record has an impossible {0}")]
    Field(&'static str),
}

/// As written; short names because it lies in the inode.
#[derive(Serialize, Deserialize)]
struct Record<'a> {
    v: u32,
    archive: u32,
    #[serde(borrow)]
    key: std::borrow::Cow<'a, str>,
    size: u64,
    #[serde(borrow)]
    etag: std::borrow::Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crc64nvme: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pinned: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    layout: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sidecar: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fs: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    writer: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cookie: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dv: Option<String>,
}

impl Location {
    /// Where the object lies.
    #[must_use]
    pub const fn at(&self) -> KeyAt<'_> {
        self.key.at(self.archive_id)
    }

    /// Whether an object has the bytes of this one by the store's own checksum, whatever its ETag is.
    #[must_use]
    pub fn has_bytes_of(&self, found: &ObjectInfo) -> bool {
        self.checksum.is_some() && self.checksum == found.checksum && self.size == found.size
    }

    /// Whether both are at the same key of the same archive: one may have replaced the other there.
    #[must_use]
    pub fn is_at(&self, other: &Self) -> bool {
        self.at() == other.at()
    }

    /// The bytes for the xattr.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let record = Record {
            v: FORMAT,
            archive: self.archive_id.get(),
            key: self.key.as_str().into(),
            size: self.size,
            etag: self.etag.as_str().into(),
            version: self.version.clone(),
            crc64nvme: self.checksum.map(Checksum::to_base64),
            pinned: self.pinned,
            layout: self.layout.as_deref().map(|layout| BASE64_STANDARD.encode(layout)),
            sidecar: self.sidecar.as_ref().map(|key| key.as_str().to_owned()),
            fs: self.written_for.as_ref().map(|owner| owner.fs.clone()),
            fid: self.written_for.as_ref().map(|owner| owner.fid.bare()),
            writer: self.writer.map(|writer| writer.to_string()),
            cookie: self.cookie.map(|cookie| cookie.to_string()),
            dv: self.data_version.map(|version| format!("{version:x}")),
        };
        serde_json::to_vec(&record).unwrap_or_default()
    }

    /// From the xattr's bytes.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidLocation> {
        let record: Record<'_> = serde_json::from_slice(bytes)?;
        if record.v != FORMAT {
            return Err(InvalidLocation::Format(record.v));
        }
        let checksum = match record.crc64nvme {
            None => None,
            Some(text) => Some(Checksum::from_base64(&text).ok_or(InvalidLocation::Field("crc64nvme"))?),
        };
        let layout = record.layout.map(|text| BASE64_STANDARD.decode(text)).transpose();
        let sidecar = record.sidecar.map(ObjectKey::new).transpose();
        let written_for = match (record.fs, record.fid) {
            (Some(fs), Some(fid)) => Some(Owner {
                fs,
                fid: fid.parse().map_err(|_| InvalidLocation::Field("fid"))?,
            }),
            _ => None,
        };
        Ok(Self {
            archive_id: ArchiveId::new(record.archive).ok_or(InvalidLocation::Field("archive"))?,
            key: ObjectKey::new(record.key).map_err(|_| InvalidLocation::Field("key"))?,
            size: record.size,
            etag: etag::canonical(&record.etag),
            version: record.version,
            checksum,
            pinned: record.pinned,
            layout: layout.map_err(|_| InvalidLocation::Field("layout"))?,
            sidecar: sidecar.map_err(|_| InvalidLocation::Field("sidecar"))?,
            written_for,
            writer: record.writer.and_then(|text| WriterId::parse(&text)),
            cookie: record.cookie.and_then(|text| Cookie::parse(&text)),
            data_version: record.dv.and_then(|text| u64::from_str_radix(&text, 16).ok()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Fid;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_location_survives_its_bytes(
            id in 1u32.., key in "[^\\p{Cc}]{1,200}", size: u64, crc in any::<Option<u64>>(), version in any::<Option<String>>(),
            pinned: bool, layout in any::<Option<Vec<u8>>>(), sidecar in "[a-z]{0,9}",
            fid in any::<Option<(u64, u32, u32)>>(), writer in any::<Option<u64>>(), cookie in any::<Option<u64>>(),
            data_version in any::<Option<u64>>()
        ) {
            let location = Location {
                archive_id: ArchiveId::new(id).unwrap(),
                key: ObjectKey::new(key).unwrap(),
                size,
                etag: "\"abc-3\"".into(),
                version,
                checksum: crc.map(Checksum),
                pinned,
                layout,
                sidecar: ObjectKey::new(sidecar).ok(),
                written_for: fid.map(|(seq, oid, ver)| Owner { fs: "lustre:1".into(), fid: Fid { seq, oid, ver } }),
                writer: writer.map(WriterId),
                cookie: cookie.map(Cookie),
                data_version,
            };
            prop_assert_eq!(Location::from_bytes(&location.to_bytes()).unwrap(), location);
        }

        #[test]
        fn other_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert!(Location::from_bytes(&bytes).is_err());
        }
    }

    #[test]
    fn a_record_of_an_older_release_says_nothing_of_its_file() {
        let old =
            br#"{"v":1,"archive":1,"key":"a/b","size":7,"etag":"\"e\"","crc64nvme":"AAAAAAAAAAA=","pinned":true}"#;
        let location = Location::from_bytes(old).unwrap();
        assert_eq!((location.written_for.as_ref(), location.writer), (None, None));
        assert!(location.pinned);
        assert_eq!(location.to_bytes(), old);
    }
}
