//! Names of objects: where a file's copy goes.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::WriterId;
use super::attributes::plain;
use crate::types::{ArchiveId, Fid};

/// S3's limit, in bytes of UTF-8.
const MAX: usize = 1024;

/// Of a prefix in metadata, which S3 limits to 2 KiB in all.
const LONGEST_TOLD: usize = 1536;

/// When a file gets a record of its copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Records {
    /// Where its key does not tell all: a record changes the file's ctime.
    #[default]
    WhenNeeded,
    /// With each archive.
    Always,
}

/// An object's whole key, prefix included.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(String);

/// A key in the bucket of an archive id: where an object lies, whatever its version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyAt<'a> {
    /// Whose bucket.
    pub archive_id: ArchiveId,
    /// The key there.
    pub key: &'a ObjectKey,
}

/// A name that can't be a key.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InvalidKey {
    /// Nothing to name.
    #[error("an object key can't be empty")]
    Empty,
    /// Over S3's limit.
    #[error("the object key would be {0} bytes long; S3 takes {MAX}")]
    TooLong(usize),
    /// S3's keys are text.
    #[error("the path is not UTF-8, which an object key must be")]
    NotText,
    /// Would not come back from a listing as it went in.
    #[error("the path has a control character, which an object key should not have")]
    Control,
    /// Where metadata names a key, it is escaped.
    #[error("the prefix takes {0} bytes where metadata names a key, which has room for {LONGEST_TOLD}")]
    Untold(usize),
    /// A directory of our own in the bucket.
    #[error("the path goes through '{SIDECARS}', which is kept for metadata")]
    Reserved,
}

/// Below an archive's prefix, what files' own objects have no room for. No file is archived into a directory of this
/// name by its path, and none is imported from it.
const SIDECARS: &str = ".lhsm-s3-metadata";

/// How keys are made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum KeyLayout {
    /// The bucket mirrors the tree.
    #[default]
    Path,
    /// The FID, whatever the file is called.
    Fid,
}

impl ObjectKey {
    /// In the bucket of an archive id.
    #[must_use]
    pub const fn at(&self, archive_id: ArchiveId) -> KeyAt<'_> {
        KeyAt { archive_id, key: self }
    }

    /// A key from its text.
    ///
    /// # Errors
    /// Why it can't be one.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidKey> {
        let text = text.into();
        if text.is_empty() {
            return Err(InvalidKey::Empty);
        }
        if text.len() > MAX {
            return Err(InvalidKey::TooLong(text.len()));
        }
        if text.chars().any(char::is_control) {
            return Err(InvalidKey::Control);
        }
        Ok(Self(text))
    }

    /// Whether a prefix leaves room for each key that is made of a FID.
    ///
    /// # Errors
    /// Why it can't be one.
    pub fn check_prefix(prefix: &str) -> Result<(), InvalidKey> {
        let fid = Fid {
            seq: u64::MAX,
            oid: u32::MAX,
            ver: u32::MAX,
        };
        Self::sidecar(prefix, fid, WriterId(u64::MAX))?;
        match plain(prefix.as_bytes()).len() {
            told if told > LONGEST_TOLD => Err(InvalidKey::Untold(told)),
            _ => Ok(()),
        }
    }

    /// The key of a file by its path below the mount point. There is room beside it: a copy whose key holds another's
    /// goes there.
    ///
    /// # Errors
    /// A path that no key can mirror; such a file goes by its FID.
    pub fn of_file(prefix: &str, path: &Path, fid: Fid) -> Result<Self, InvalidKey> {
        let key = Self::from_path(prefix, path)?;
        key.beside(fid).map(|_| key)
    }

    /// The key that mirrors a path below the mount point, whatever has it.
    ///
    /// # Errors
    /// A path that no key can mirror.
    pub fn from_path(prefix: &str, path: &Path) -> Result<Self, InvalidKey> {
        let path: &OsStr = path.as_os_str();
        let text = std::str::from_utf8(path.as_bytes()).map_err(|_| InvalidKey::NotText)?;
        if text.is_empty() {
            return Err(InvalidKey::Empty);
        }
        if text.split('/').any(|name| name == SIDECARS) {
            return Err(InvalidKey::Reserved);
        }
        Self::new(format!("{prefix}{text}"))
    }

    /// Where an attempt puts what its file's object has no room for: another's is never overwritten.
    ///
    /// # Errors
    /// The prefix leaves no room.
    pub fn sidecar(prefix: &str, fid: Fid, writer: WriterId) -> Result<Self, InvalidKey> {
        Self::new(format!("{prefix}{SIDECARS}/{}.{writer}", fid.bare()))
    }

    /// Whether a listed key is one of those.
    #[must_use]
    pub fn is_sidecar(key: &[u8]) -> bool {
        key.rsplit(|byte| *byte == b'/').nth(1) == Some(SIDECARS.as_bytes())
    }

    /// The key of a file by its FID.
    ///
    /// # Errors
    /// The prefix leaves no room.
    pub fn from_fid(prefix: &str, fid: Fid) -> Result<Self, InvalidKey> {
        Self::new(format!("{prefix}{}", fid.bare()))
    }

    /// Whether it may be the key that a FID gives, below whatever prefix; one beside another key is not.
    #[must_use]
    pub fn may_be_from(&self, fid: Fid) -> bool {
        self.0
            .strip_suffix(&fid.bare())
            .is_some_and(|rest| !rest.ends_with('~'))
    }

    /// Where a file's copy goes when `self` holds what may be another file's only one.
    ///
    /// # Errors
    /// The key leaves no room.
    pub fn beside(&self, fid: Fid) -> Result<Self, InvalidKey> {
        Self::new(format!("{}~{}", self.0, fid.bare()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FID: Fid = Fid {
        seq: 0x2_0000_0401,
        oid: 9,
        ver: 0,
    };

    #[test]
    fn the_bucket_mirrors_the_tree() {
        let key = ObjectKey::from_path("lab/", Path::new("a dir/Ünï.bin")).unwrap();
        assert_eq!(key.as_str(), "lab/a dir/Ünï.bin");
        assert_eq!(
            key.beside(FID).unwrap().as_str(),
            "lab/a dir/Ünï.bin~0x200000401:0x9:0x0"
        );
        assert_eq!(
            ObjectKey::from_fid("p/", FID).unwrap().as_str(),
            "p/0x200000401:0x9:0x0"
        );
        for prefix in ["", "p/", "p"] {
            let by_fid = ObjectKey::from_fid(prefix, FID).unwrap();
            assert!(by_fid.may_be_from(FID) && !by_fid.beside(FID).unwrap().may_be_from(FID));
        }
        assert!(!key.may_be_from(FID) && !key.beside(FID).unwrap().may_be_from(FID));
    }

    #[test]
    fn a_key_has_room_beside_it_or_the_file_goes_by_its_fid() {
        let beside = "~0x200000401:0x9:0x0".len();
        for len in 1000..=1030 {
            let path = "x".repeat(len - "lab/".len());
            let path = Path::new(&path);
            let key = ObjectKey::of_file("lab/", path, FID);
            if len + beside <= MAX {
                let key = key.unwrap();
                assert_eq!(key.as_str().len(), len);
                assert_eq!(key.beside(FID).unwrap().as_str().len(), len + beside);
            } else if len <= MAX {
                assert_eq!(key, Err(InvalidKey::TooLong(len + beside)));
                assert!(ObjectKey::from_path("lab/", path).is_ok());
            } else {
                assert_eq!(key, Err(InvalidKey::TooLong(len)));
            }
            assert!(ObjectKey::from_fid("lab/", FID).is_ok());
        }
    }

    #[test]
    fn a_prefix_leaves_room_for_the_longest_fid_and_its_metadata() {
        let longest = MAX - ".lhsm-s3-metadata/0xffffffffffffffff:0xffffffff:0xffffffff.ffffffffffffffff".len();
        for len in 900..=MAX {
            let prefix = "p".repeat(len);
            assert_eq!(ObjectKey::check_prefix(&prefix).is_ok(), len <= longest, "{len}");
            if len <= longest {
                let fid = Fid {
                    seq: u64::MAX,
                    oid: u32::MAX,
                    ver: u32::MAX,
                };
                assert!(ObjectKey::from_fid(&prefix, fid).is_ok());
                assert!(ObjectKey::sidecar(&prefix, fid, WriterId(u64::MAX)).is_ok());
            }
        }
        assert_eq!(ObjectKey::check_prefix(&"é".repeat(300)), Err(InvalidKey::Untold(1800)));
        assert_eq!(ObjectKey::check_prefix("a\nb"), Err(InvalidKey::Control));
        assert!(ObjectKey::check_prefix("").is_ok());
    }

    #[test]
    fn what_no_key_can_mirror_is_refused() {
        let path = |bytes: &[u8]| ObjectKey::from_path("", Path::new(OsStr::from_bytes(bytes)));
        assert_eq!(path(b""), Err(InvalidKey::Empty));
        assert_eq!(path(b"a\xff"), Err(InvalidKey::NotText));
        assert_eq!(path(b"a\nb"), Err(InvalidKey::Control));
        assert_eq!(path(&[b'x'; 1025]), Err(InvalidKey::TooLong(1025)));
        assert!(path(&[b'x'; 1024]).is_ok());
    }
}
