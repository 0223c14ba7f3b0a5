//! A file's attributes on its object, in the keys that AWS DataSync and FSx for Lustre use, so that
//! buckets can be exchanged; ours besides, with a prefix of their own.

use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::told::{ATIME, GID, LAYOUT, LINKS, MTIME, PATH, PERMISSIONS, UID, XATTRS, plain, xattrs_text};
use crate::types::{Extras, Fid, Timestamp};

/// The action that wrote an object, as metadata.
pub const COOKIE: &str = "lhsm-cookie";
const OWNER_FID: &str = "lhsm-fid";
const OWNER_FS: &str = "lhsm-fs";
/// S3's limit for all user metadata is 2 KiB, names included; an action's cookie is added later.
const ROOM: usize = 2048 - 64;

/// What an object remembers of its file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileMetadata {
    /// File type and permissions, as in `st_mode`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last access.
    pub atime: Timestamp,
    /// Last change of the data.
    pub mtime: Timestamp,
    /// Whose copy it is; `None` for what is no copy: a directory, a symlink.
    pub owner: Option<Owner>,
    /// What else there is to say.
    pub more: Extras,
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
    pub fn new(owner: Option<Owner>, stat: &Metadata, more: Extras) -> Self {
        let time = |seconds, nanos| Timestamp {
            seconds,
            nanos: u32::try_from(nanos).unwrap_or(0),
        };
        Self {
            mode: stat.mode(),
            uid: stat.uid(),
            gid: stat.gid(),
            atime: time(stat.atime(), stat.atime_nsec()),
            mtime: time(stat.mtime(), stat.mtime_nsec()),
            owner,
            more,
        }
    }

    /// As user metadata (`x-amz-meta-…`), and the names of what there was no room for.
    #[must_use]
    pub fn to_map(&self) -> (HashMap<String, String>, Vec<&'static str>) {
        let mut map = HashMap::from([
            (PERMISSIONS.into(), format!("0{:o}", self.mode)),
            (UID.into(), self.uid.to_string()),
            (GID.into(), self.gid.to_string()),
            (ATIME.into(), format!("{}ns", self.atime.as_nanos())),
            (MTIME.into(), format!("{}ns", self.mtime.as_nanos())),
        ]);
        if let Some(owner) = &self.owner {
            map.insert(OWNER_FID.into(), owner.fid.bare());
            map.insert(OWNER_FS.into(), owner.fs.clone());
        }
        let more = &self.more;
        let links: Vec<_> = more.links.iter().map(|path| plain(path)).collect();
        // In the order of what would be missed most.
        let optional = [
            (PATH, more.path.as_deref().map(plain)),
            (XATTRS, (!more.xattrs.is_empty()).then(|| xattrs_text(&more.xattrs))),
            (LINKS, (!links.is_empty()).then(|| links.join(","))),
            (
                LAYOUT,
                more.layout.as_deref().map(|layout| BASE64_STANDARD.encode(layout)),
            ),
        ];
        let mut room = ROOM.saturating_sub(
            map.iter()
                .map(|(name, value): (&String, &String)| name.len() + value.len())
                .sum(),
        );
        let mut left_out = Vec::new();
        for (name, value) in optional {
            let Some(value) = value else {
                continue;
            };
            match room.checked_sub(name.len() + value.len()) {
                Some(rest) => {
                    room = rest;
                    map.insert(name.to_owned(), value);
                }
                None => left_out.push(name),
            }
        }
        (map, left_out)
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
            atime: Timestamp {
                seconds: 1_595_002_920,
                nanos: 1,
            },
            mtime: Timestamp {
                seconds: -1,
                nanos: 999_999_999,
            },
            owner: Some(owner.clone()),
            more: Extras::default(),
        }
        .to_map()
        .0;
        assert_eq!(map["file-permissions"], "0100664");
        assert_eq!(map["file-owner"], "500");
        assert_eq!(map["file-group"], "501");
        assert_eq!(map["file-atime"], "1595002920000000001ns");
        assert_eq!(map["file-mtime"], "-1ns");
        assert_eq!(Owner::of(&map), Some(owner));
    }

    #[test]
    fn what_has_no_room_is_left_out_and_named() {
        let owner = Owner {
            fs: "lustre".into(),
            fid: Fid { seq: 1, oid: 2, ver: 0 },
        };
        let (map, left_out) = FileMetadata {
            mode: 0o100_664,
            uid: 0,
            gid: 0,
            atime: Timestamp::default(),
            mtime: Timestamp::default(),
            owner: Some(owner),
            more: Extras {
                xattrs: vec![(b"user.large".to_vec(), vec![0; 2000])],
                layout: Some(vec![0; 56]),
                path: Some(b"a b".to_vec()),
                links: Vec::new(),
            },
        }
        .to_map();
        assert_eq!(left_out, [XATTRS]);
        assert_eq!(map[PATH], "a%20b");
        assert!(map.contains_key(LAYOUT));
        assert!(map.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>() <= 2048);
    }
}
