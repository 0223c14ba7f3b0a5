//! A file's attributes on its object, in the keys that AWS DataSync and FSx for Lustre use, so that
//! buckets can be exchanged; ours besides, with a prefix of their own.

use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use percent_encoding::percent_decode_str;

use super::attributes::{ATIME, GID, LAYOUT, LINKS, MTIME, PATH, PERMISSIONS, UID, XATTRS, plain, xattrs_text};
use super::{ObjectKey, Owner};
use crate::types::{ExtraMetadata, Timestamp};

/// The object that has the rest.
const SIDECAR: &str = "lhsm-sidecar";
/// S3's limit for all user metadata is 2 KiB, names included; action, attempt, key and data version are added later.
const ROOM: usize = 2048 - 128;

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
    pub more: ExtraMetadata,
}

impl FileMetadata {
    /// From an open file's attributes.
    #[must_use]
    pub fn new(owner: Option<Owner>, stat: &Metadata, more: ExtraMetadata) -> Self {
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

    /// As user metadata (`x-amz-meta-…`), and what there was no room for, which belongs into the sidecar.
    #[must_use]
    pub fn to_maps(&self, sidecar: &ObjectKey) -> (HashMap<String, String>, HashMap<String, String>) {
        let name = plain(sidecar.as_str().as_bytes());
        match self.within(ROOM) {
            (map, rest) if rest.is_empty() => (map, rest),
            _ => {
                let (mut map, rest) = self.within(ROOM.saturating_sub(SIDECAR.len() + name.len()));
                map.insert(SIDECAR.to_owned(), name);
                (map, rest)
            }
        }
    }

    /// As user metadata, and the names of what there was no room for.
    #[must_use]
    pub fn to_map(&self) -> (HashMap<String, String>, Vec<String>) {
        let (map, rest) = self.within(ROOM);
        (map, rest.into_keys().collect())
    }

    fn within(&self, room: usize) -> (HashMap<String, String>, HashMap<String, String>) {
        let mut map = HashMap::from([
            (PERMISSIONS.into(), format!("0{:o}", self.mode)),
            (UID.into(), self.uid.to_string()),
            (GID.into(), self.gid.to_string()),
            (ATIME.into(), format!("{}ns", self.atime.as_nanos())),
            (MTIME.into(), format!("{}ns", self.mtime.as_nanos())),
        ]);
        if let Some(owner) = &self.owner {
            map.extend(owner.to_map());
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
        let mut room = room.saturating_sub(
            map.iter()
                .map(|(name, value): (&String, &String)| name.len() + value.len())
                .sum(),
        );
        let mut left_out = HashMap::new();
        for (name, value) in optional {
            let Some(value) = value else {
                continue;
            };
            match room.checked_sub(name.len() + value.len()) {
                Some(rest) => {
                    room = rest;
                    map.insert(name.to_owned(), value);
                }
                None => {
                    left_out.insert(name.to_owned(), value);
                }
            }
        }
        (map, left_out)
    }
}

/// The object that has what an object's own metadata has no room for.
#[must_use]
pub fn sidecar_of(metadata: &HashMap<String, String>) -> Option<ObjectKey> {
    let name: Vec<u8> = percent_decode_str(metadata.get(SIDECAR)?).collect();
    // Never any other object: it will be deleted with the copy.
    let name = String::from_utf8(name)
        .ok()
        .filter(|name| ObjectKey::is_sidecar(name.as_bytes()));
    ObjectKey::new(name?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::WriterId;
    use crate::types::Fid;

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
            more: ExtraMetadata::default(),
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
    fn what_has_no_room_goes_beside_and_is_named() {
        let owner = Owner {
            fs: "lustre".into(),
            fid: Fid { seq: 1, oid: 2, ver: 0 },
        };
        let metadata = FileMetadata {
            mode: 0o100_664,
            uid: 0,
            gid: 0,
            atime: Timestamp::default(),
            mtime: Timestamp::default(),
            owner: Some(owner),
            more: ExtraMetadata {
                xattrs: vec![(b"user.large".to_vec(), vec![0; 2000])],
                layout: Some(vec![0; 56]),
                path: Some(b"a b".to_vec()),
                links: Vec::new(),
            },
        };
        let sidecar = ObjectKey::sidecar("fs/", Fid { seq: 1, oid: 2, ver: 0 }, WriterId(15)).unwrap();
        assert!(ObjectKey::is_sidecar(sidecar.as_str().as_bytes()));
        assert_eq!(metadata.to_map().1, [XATTRS]);
        let (map, rest) = metadata.to_maps(&sidecar);
        assert_eq!(rest.keys().collect::<Vec<_>>(), [XATTRS]);
        assert_eq!(sidecar_of(&map), Some(sidecar));
        assert_eq!(map[PATH], "a%20b");
        assert!(map.contains_key(LAYOUT));
        assert!(map.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>() <= 2048);
    }
}
