//! What is in the bucket for which FID, and how far each changelog was dealt with. On disk: a file that is gone has
//! nobody else to tell where its copy is.
//!
//! | table | key | value |
//! |---|---|---|
//! | `known` | FID | a [`IndexEntry`], JSON |
//! | `keys` | key | the FID whose copy it is, as far as that is known |
//! | `places` | MDT index | the last record that was dealt with; 0: none yet |
//! | `readers` | MDT | the reader that the command line named, and the one that is registered |
//! | `owed` | FID | tried in vain; tried again at the next start |
//! | `marks` | `scan` | a look at everything is owed |

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::database::{
    self, Database, DatabaseError, ReadTransaction, ReadableTable as _, TableDefinition, WriteTransaction,
};
use crate::store::{Location, ObjectKey};
use crate::types::Fid;

type FidKey = (u64, u32, u32);

const KNOWN: TableDefinition<'_, FidKey, &[u8]> = TableDefinition::new("known");
const KEYS: TableDefinition<'_, &str, FidKey> = TableDefinition::new("keys");
const PLACES: TableDefinition<'_, u32, u64> = TableDefinition::new("places");
const READERS: TableDefinition<'_, &str, (&str, &str)> = TableDefinition::new("readers");
const OWED: TableDefinition<'_, FidKey, ()> = TableDefinition::new("owed");
const MARKS: TableDefinition<'_, &str, ()> = TableDefinition::new("marks");
const SCAN: &str = "scan";

/// What is in the bucket for a FID.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(clippy::large_enum_variant, reason = "one at a time, and nearly all are files")]
pub(super) enum IndexEntry {
    /// A file; without a copy while its archive is awaited.
    File {
        location: Option<Location>,
        /// Of its attributes as the copy has them, or an earlier one.
        print: u64,
    },
    /// A directory or a symlink.
    Node { key: ObjectKey, print: u64 },
}

#[derive(Serialize, Deserialize)]
struct Value {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    location: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    print: u64,
}

impl IndexEntry {
    /// The key of a file's copy.
    fn copy(&self) -> Option<&str> {
        match self {
            Self::File { location, .. } => location.as_ref().map(|location| location.key.as_str()),
            Self::Node { .. } => None,
        }
    }

    fn to_bytes(&self) -> Vec<u8> {
        let value = match self {
            Self::File { location, print } => Value {
                location: location
                    .as_ref()
                    .map(|location| String::from_utf8_lossy(&location.to_bytes()).into_owned()),
                node: None,
                print: *print,
            },
            Self::Node { key, print } => Value {
                location: None,
                node: Some(key.as_str().to_owned()),
                print: *print,
            },
        };
        serde_json::to_vec(&value).unwrap_or_default()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(bytes).ok()?;
        Some(match value.node {
            Some(key) => Self::Node {
                key: ObjectKey::new(key).ok()?,
                print: value.print,
            },
            None => Self::File {
                location: match value.location {
                    Some(text) => Some(Location::from_bytes(text.as_bytes()).ok()?),
                    None => None,
                },
                print: value.print,
            },
        })
    }
}

/// The database can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CopyIndexError {
    /// Another process follows the same file system.
    #[error("'{}' is in use: another `export --follow` runs for this file system", .0.display())]
    InUse(PathBuf),
    /// The disk, or what is on it.
    #[error(
        "'{}': {source}. If it is damaged, move it away: the next run looks through the whole file system once",
        path.display()
    )]
    Database {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: DatabaseError,
    },
    /// The state directory.
    #[error("can't make '{}': {source}", path.display())]
    Directory {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// The database.
#[derive(Debug)]
pub(super) struct CopyIndex {
    database: Database,
    path: PathBuf,
}

const fn fid_key(fid: Fid) -> FidKey {
    (fid.seq, fid.oid, fid.ver)
}

impl CopyIndex {
    pub(super) fn open(state_dir: &Path, file_system: &str) -> Result<Self, CopyIndexError> {
        std::fs::create_dir_all(state_dir).map_err(|source| CopyIndexError::Directory {
            path: state_dir.to_owned(),
            source,
        })?;
        let name: String = file_system
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .collect();
        let path = state_dir.join(format!("follow-{name}.redb"));
        let database = Database::create(&path).map_err(|error| match error {
            DatabaseError::InUse => CopyIndexError::InUse(path.clone()),
            source @ DatabaseError::Failed(_) => CopyIndexError::Database {
                path: path.clone(),
                source,
            },
        })?;
        let copy_index = Self { database, path };
        copy_index.write(|transaction| {
            transaction.open_table(KNOWN)?;
            transaction.open_table(PLACES)?;
            transaction.open_table(KEYS)?;
            transaction.open_table(READERS)?;
            transaction.open_table(OWED)?;
            transaction.open_table(MARKS)?;
            Ok(())
        })?;
        Ok(copy_index)
    }

    fn failed(&self, source: DatabaseError) -> CopyIndexError {
        CopyIndexError::Database {
            path: self.path.clone(),
            source,
        }
    }

    fn write<T>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<T, database::Error>,
    ) -> Result<T, CopyIndexError> {
        self.database.write(work).map_err(|error| self.failed(error))
    }

    fn read<T>(&self, work: impl FnOnce(&ReadTransaction) -> Result<T, database::Error>) -> Result<T, CopyIndexError> {
        self.database.read(work).map_err(|error| self.failed(error))
    }

    pub(super) fn get(&self, fid: Fid) -> Result<Option<IndexEntry>, CopyIndexError> {
        self.read(|transaction| {
            let table = transaction.open_table(KNOWN)?;
            Ok(table
                .get(fid_key(fid))?
                .and_then(|value| IndexEntry::from_bytes(value.value())))
        })
    }

    /// `None`: nothing is in the bucket any more.
    pub(super) fn put(&self, changes: &[(Fid, Option<IndexEntry>)]) -> Result<(), CopyIndexError> {
        if changes.is_empty() {
            return Ok(());
        }
        self.write(|transaction| {
            let mut known_by_fid = transaction.open_table(KNOWN)?;
            let mut fids_by_key = transaction.open_table(KEYS)?;
            for (fid, known) in changes {
                let fid = fid_key(*fid);
                let before = match known {
                    Some(known) => known_by_fid.insert(fid, known.to_bytes().as_slice())?,
                    None => known_by_fid.remove(fid)?,
                };
                let before = before.and_then(|before| IndexEntry::from_bytes(before.value()));
                if let Some(key) = before.as_ref().and_then(IndexEntry::copy)
                    && fids_by_key.get(key)?.is_some_and(|of| of.value() == fid)
                {
                    fids_by_key.remove(key)?;
                }
                if let Some(key) = known.as_ref().and_then(IndexEntry::copy) {
                    fids_by_key.insert(key, fid)?;
                }
            }
            Ok(())
        })
    }

    /// Whose copy a key is.
    pub(super) fn file_of(&self, key: &ObjectKey) -> Result<Option<Fid>, CopyIndexError> {
        self.read(|transaction| {
            let table = transaction.open_table(KEYS)?;
            let found = table.get(key.as_str())?.map(|fid| fid.value());
            Ok(found.map(|(seq, oid, ver)| Fid { seq, oid, ver }))
        })
    }

    /// Tried in vain.
    pub(super) fn owe(&self, fid: Fid) -> Result<(), CopyIndexError> {
        self.owe_all(&[fid])
    }

    /// Some of them.
    pub(super) fn owe_all(&self, fids: &[Fid]) -> Result<(), CopyIndexError> {
        if fids.is_empty() {
            return Ok(());
        }
        self.write(|transaction| {
            let mut table = transaction.open_table(OWED)?;
            for fid in fids {
                table.insert(fid_key(*fid), ())?;
            }
            Ok(())
        })
    }

    /// All that were tried in vain; they are no longer owed.
    pub(super) fn take_owed(&self) -> Result<Vec<Fid>, CopyIndexError> {
        self.write(|transaction| {
            let mut table = transaction.open_table(OWED)?;
            let mut owed = Vec::new();
            for entry in table.iter()? {
                let (seq, oid, ver) = entry?.0.value();
                owed.push(Fid { seq, oid, ver });
            }
            table.retain(|_, ()| false)?;
            Ok(owed)
        })
    }

    pub(super) fn is_scan_owed(&self) -> Result<bool, CopyIndexError> {
        self.read(|transaction| Ok(transaction.open_table(MARKS)?.get(SCAN)?.is_some()))
    }

    pub(super) fn owe_scan(&self, owed: bool) -> Result<(), CopyIndexError> {
        self.write(|transaction| {
            let mut table = transaction.open_table(MARKS)?;
            if owed {
                table.insert(SCAN, ())?;
            } else {
                table.remove(SCAN)?;
            }
            Ok(())
        })
    }

    /// FIDs after that one, some of them.
    pub(super) fn fids_after(&self, after: Option<Fid>, limit: usize) -> Result<Vec<Fid>, CopyIndexError> {
        self.read(|transaction| {
            let table = transaction.open_table(KNOWN)?;
            let from = after.map_or(std::ops::Bound::Unbounded, |fid| {
                std::ops::Bound::Excluded(fid_key(fid))
            });
            let mut fids = Vec::new();
            for entry in table.range::<FidKey>((from, std::ops::Bound::Unbounded))?.take(limit) {
                let (seq, oid, ver) = entry?.0.value();
                fids.push(Fid { seq, oid, ver });
            }
            Ok(fids)
        })
    }

    /// The reader of an MDT's changelog that was named when it was last followed, and the one that was registered.
    pub(super) fn reader(&self, mdt: &str) -> Result<Option<(String, String)>, CopyIndexError> {
        self.read(|transaction| {
            let table = transaction.open_table(READERS)?;
            let found = table.get(mdt)?;
            Ok(found.map(|readers| {
                let (given, registered) = readers.value();
                (given.to_owned(), registered.to_owned())
            }))
        })
    }

    pub(super) fn set_reader(&self, mdt: &str, given: &str, registered: &str) -> Result<(), CopyIndexError> {
        self.write(|transaction| {
            transaction.open_table(READERS)?.insert(mdt, (given, registered))?;
            Ok(())
        })
    }

    pub(super) fn place(&self, mdt: u32) -> Result<Option<u64>, CopyIndexError> {
        self.read(|transaction| {
            let table = transaction.open_table(PLACES)?;
            Ok(table.get(mdt)?.map(|place| place.value()))
        })
    }

    pub(super) fn set_place(&self, mdt: u32, place: u64) -> Result<(), CopyIndexError> {
        self.write(|transaction| {
            transaction.open_table(PLACES)?.insert(mdt, place)?;
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fid(oid: u32) -> Fid {
        Fid { seq: 1, oid, ver: 0 }
    }

    #[test]
    fn what_is_known_and_the_places_survive_and_nobody_else_may_have_the_book() {
        let dir = tempfile::tempdir().unwrap();
        let copy_index = CopyIndex::open(dir.path(), "fs:00ff").unwrap();
        let node = IndexEntry::Node {
            key: ObjectKey::new("a/").unwrap(),
            print: 7,
        };
        let awaited = IndexEntry::File {
            location: None,
            print: u64::MAX,
        };
        let changes: Vec<_> = (1..=5)
            .map(|oid| (fid(oid), Some(if oid == 2 { awaited.clone() } else { node.clone() })))
            .collect();
        copy_index.put(&changes).unwrap();
        copy_index.put(&[(fid(4), None)]).unwrap();
        copy_index.set_place(3, 99).unwrap();
        assert!(matches!(
            CopyIndex::open(dir.path(), "fs:00ff"),
            Err(CopyIndexError::InUse(_))
        ));
        drop(copy_index);
        let copy_index = CopyIndex::open(dir.path(), "fs:00ff").unwrap();
        assert_eq!(copy_index.get(fid(1)).unwrap(), Some(node));
        assert_eq!(copy_index.get(fid(2)).unwrap(), Some(awaited));
        assert_eq!(copy_index.get(fid(4)).unwrap(), None);
        let copy = |oid: u32, key: &str| {
            let record = format!(r#"{{"v":1,"archive":1,"key":"{key}","size":1,"etag":"e"}}"#);
            let location = Some(Location::from_bytes(record.as_bytes()).unwrap());
            (fid(oid), Some(IndexEntry::File { location, print: 0 }))
        };
        let key = |text: &str| ObjectKey::new(text).unwrap();
        copy_index.put(&[copy(8, "k"), copy(9, "l")]).unwrap();
        assert_eq!(copy_index.file_of(&key("k")).unwrap(), Some(fid(8)));
        // Another file's record names it now; the former one's end changes nothing.
        copy_index.put(&[copy(9, "k")]).unwrap();
        copy_index.put(&[(fid(8), None)]).unwrap();
        assert_eq!(copy_index.file_of(&key("k")).unwrap(), Some(fid(9)));
        assert_eq!(copy_index.file_of(&key("l")).unwrap(), None);
        copy_index.put(&[(fid(9), None)]).unwrap();
        assert_eq!(copy_index.file_of(&key("k")).unwrap(), None);
        copy_index.owe(fid(3)).unwrap();
        assert_eq!(copy_index.take_owed().unwrap(), [fid(3)]);
        assert_eq!(copy_index.take_owed().unwrap(), []);
        assert_eq!(
            (copy_index.place(3).unwrap(), copy_index.place(0).unwrap()),
            (Some(99), None)
        );
        assert_eq!(copy_index.reader("m").unwrap(), None);
        copy_index.set_reader("m", "cl1", "cl1").unwrap();
        copy_index.set_reader("m", "cl1", "cl4").unwrap();
        assert_eq!(copy_index.reader("m").unwrap(), Some(("cl1".into(), "cl4".into())));
        assert_eq!(copy_index.fids_after(Some(fid(1)), 2).unwrap(), [fid(2), fid(3)]);
        assert_eq!(copy_index.fids_after(Some(fid(3)), 9).unwrap(), [fid(5)]);
    }
}
