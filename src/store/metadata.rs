//! A file's attributes on its object, in the keys that AWS DataSync and FSx for Lustre use, so that
//! buckets can be exchanged; ours besides, with a prefix of their own.

use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;

use crate::types::Fid;

const OWNER_FID: &str = "lhsm-fid";
const OWNER_FS: &str = "lhsm-fs";

/// What an object remembers of its file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileMetadata {
    /// File type and permissions, as in `st_mode`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last access, nanoseconds since 1970.
    pub atime_ns: i128,
    /// Last change of the data, nanoseconds since 1970.
    pub mtime_ns: i128,
    /// Whose copy it is.
    pub owner: Owner,
}

/// The file that an object is the copy of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owner {
    /// Name of its file system.
    pub fs: String,
    /// Its FID there.
    pub fid: Fid,
}

impl Owner {
    /// As an object's metadata says; `None` for one that we did not write.
    #[must_use]
    pub fn of(metadata: &HashMap<String, String>) -> Option<Self> {
        Some(Self {
            fs: metadata.get(OWNER_FS)?.clone(),
            fid: metadata.get(OWNER_FID)?.parse().ok()?,
        })
    }
}

impl FileMetadata {
    /// From an open file's attributes.
    #[must_use]
    pub fn new(owner: Owner, stat: &Metadata) -> Self {
        let ns = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        Self {
            mode: stat.mode(),
            uid: stat.uid(),
            gid: stat.gid(),
            atime_ns: ns(stat.atime(), stat.atime_nsec()),
            mtime_ns: ns(stat.mtime(), stat.mtime_nsec()),
            owner,
        }
    }

    /// As user metadata (`x-amz-meta-…`).
    #[must_use]
    pub fn to_map(&self) -> HashMap<String, String> {
        HashMap::from([
            ("file-permissions".into(), format!("0{:o}", self.mode)),
            ("file-owner".into(), self.uid.to_string()),
            ("file-group".into(), self.gid.to_string()),
            ("file-atime".into(), format!("{}ns", self.atime_ns)),
            ("file-mtime".into(), format!("{}ns", self.mtime_ns)),
            (OWNER_FID.into(), self.owner.fid.bare()),
            (OWNER_FS.into(), self.owner.fs.clone()),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_written_as_datasync_reads_them() {
        let owner = Owner {
            fs: "lustre".into(),
            fid: Fid {
                seq: 0x2_0000_0401,
                oid: 9,
                ver: 0,
            },
        };
        let map = FileMetadata {
            mode: 0o100_664,
            uid: 500,
            gid: 501,
            atime_ns: 1_595_002_920_000_000_001,
            mtime_ns: -1,
            owner: owner.clone(),
        }
        .to_map();
        assert_eq!(map["file-permissions"], "0100664");
        assert_eq!(map["file-owner"], "500");
        assert_eq!(map["file-group"], "501");
        assert_eq!(map["file-atime"], "1595002920000000001ns");
        assert_eq!(map["file-mtime"], "-1ns");
        assert_eq!(Owner::of(&map), Some(owner));
    }
}
