//! What must outlive a file or the daemon, in an embedded database in the state directory.
//!
//! Today it is one table, `copies`: FID (seq, oid, ver) to the file's location record, the same bytes as in
//! `trusted.lhsm_s3`. A file that was unlinked has no xattr left, and under `layout = "path"` no key that
//! could be computed; its remove finds the object here. A lost entry costs an orphan object, never data, so
//! entries are committed to disk once a second and not one by one.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redb::{Database, ReadableDatabase as _, TableDefinition};

use crate::store::Location;
use crate::types::Fid;

const COPIES: TableDefinition<'_, (u64, u32, u32), &[u8]> = TableDefinition::new("copies");
const COMMIT_EVERY: Duration = Duration::from_secs(1);
/// Of changes in memory: some ten MiB.
const LARGEST_BATCH: usize = 50_000;

/// The open database, or none where there is no place for one.
#[derive(Debug)]
pub struct Journal {
    database: Option<Database>,
    pending: Mutex<Pending>,
}

/// Changes that are not in the database yet; `None`: forgotten.
#[derive(Debug)]
struct Pending {
    changes: HashMap<Fid, Option<Vec<u8>>>,
    since: Instant,
}

impl Journal {
    /// Opens the journal of the file system `name` mounted at `mount`. What can't be read is set aside,
    /// what can't be made is done without; both are said, and the daemon serves.
    #[must_use]
    pub fn open(state_dir: &Path, name: &str, mount: &Path) -> Self {
        let database = match open(state_dir, name, mount) {
            Ok(database) => Some(database),
            Err(error) => {
                tracing::error!(
                    state_dir = %state_dir.display(), %error,
                    "no journal: the copies of files that are unlinked will stay in the bucket; set `state_dir` in section [lustre]"
                );
                None
            }
        };
        Self {
            database,
            pending: Mutex::new(Pending {
                changes: HashMap::new(),
                since: Instant::now(),
            }),
        }
    }

    /// Remembers a file's copy.
    pub fn remember(&self, fid: Fid, location: &Location) {
        self.change(fid, Some(location.to_bytes()));
    }

    /// Forgets it.
    pub fn forget(&self, fid: Fid) {
        self.change(fid, None);
    }

    /// A file's copy, if it is known here.
    #[must_use]
    pub fn find(&self, fid: Fid) -> Option<Location> {
        let pending = self.lock().changes.get(&fid).cloned();
        let found = match pending {
            Some(change) => change?,
            None => self.read(fid)?,
        };
        Location::from_bytes(&found)
            .inspect_err(|error| tracing::error!(%fid, %error, "the journal has a bad record"))
            .ok()
    }

    fn read(&self, fid: Fid) -> Option<Vec<u8>> {
        let database = self.database.as_ref()?;
        let read = || -> Result<Option<Vec<u8>>, redb::Error> {
            let table = database.begin_read()?.open_table(COPIES)?;
            Ok(table.get(key(fid))?.map(|bytes| bytes.value().to_vec()))
        };
        read().unwrap_or_else(|error| {
            tracing::error!(%fid, %error, "the journal can't be read");
            None
        })
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A transaction for each change would cost as much as a small object's request: they go together.
    fn change(&self, fid: Fid, record: Option<Vec<u8>>) {
        let mut pending = self.lock();
        if self.database.is_none() {
            return;
        }
        pending.changes.insert(fid, record);
        if pending.since.elapsed() >= COMMIT_EVERY || pending.changes.len() >= LARGEST_BATCH {
            self.commit(&mut pending);
        }
    }

    /// With the lock held: a change must not be looked for in the database before it is there.
    fn commit(&self, pending: &mut Pending) {
        let Some(database) = self.database.as_ref().filter(|_| !pending.changes.is_empty()) else {
            return;
        };
        let write = || -> Result<(), redb::Error> {
            let transaction = database.begin_write()?;
            {
                let mut table = transaction.open_table(COPIES)?;
                for (fid, change) in &pending.changes {
                    match change {
                        Some(record) => drop(table.insert(key(*fid), record.as_slice())?),
                        None => drop(table.remove(key(*fid))?),
                    }
                }
            }
            transaction.commit()?;
            Ok(())
        };
        match write() {
            Ok(()) => pending.changes.clear(),
            Err(error) => {
                tracing::error!(%error, "the journal can't be written; keeping what it lacks in memory");
                // Not more than a moment's worth.
                if pending.changes.len() > LARGEST_BATCH {
                    pending.changes.clear();
                }
            }
        }
        pending.since = Instant::now();
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        let mut pending = self.lock();
        self.commit(&mut pending);
    }
}

const fn key(fid: Fid) -> (u64, u32, u32) {
    (fid.seq, fid.oid, fid.ver)
}

fn open(state_dir: &Path, name: &str, mount: &Path) -> Result<Database, Box<dyn std::error::Error>> {
    std::fs::create_dir_all(state_dir)?;
    let path = state_dir.join(file_name(name, mount));
    let error = match create(&path) {
        Ok(database) => return Ok(database),
        Err(error) => error,
    };
    match &error {
        redb::Error::DatabaseAlreadyOpen => return Err(error.into()),
        // No place, no permission, no space; a file that is no database is InvalidData.
        redb::Error::Io(io) if io.kind() != std::io::ErrorKind::InvalidData => return Err(error.into()),
        _ => {}
    }
    let aside = aside(&path);
    tracing::error!(path = %path.display(), aside = %aside.display(), %error, "the journal is damaged; it is set aside and a new one begun");
    std::fs::rename(&path, aside)?;
    Ok(create(&path)?)
}

fn create(path: &Path) -> Result<Database, redb::Error> {
    let database = Database::create(path)?;
    let transaction = database.begin_write()?;
    transaction.open_table(COPIES)?;
    transaction.commit()?;
    Ok(database)
}

/// One file for each mount: two daemons of one node may share the directory.
fn file_name(name: &str, mount: &Path) -> String {
    let mount: String = mount
        .to_string_lossy()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    format!("{name}{mount}.redb")
}

fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".damaged-{}", std::process::id()));
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::ObjectKey;
    use crate::types::ArchiveId;

    const FID: Fid = Fid {
        seq: 0x2_0000_0401,
        oid: 9,
        ver: 0,
    };

    fn location() -> Location {
        Location {
            archive_id: ArchiveId::new(1).unwrap(),
            key: ObjectKey::new("a/b").unwrap(),
            size: 7,
            etag: "\"e\"".into(),
            version: None,
            checksum: None,
        }
    }

    fn open_in(dir: &Path) -> Journal {
        Journal::open(dir, "lustre", Path::new("/mnt/lustre"))
    }

    #[test]
    fn a_copy_is_remembered_across_restarts_and_forgotten_when_told() {
        let dir = tempfile::tempdir().unwrap();
        open_in(dir.path()).remember(FID, &location());
        let journal = open_in(dir.path());
        assert_eq!(journal.find(FID), Some(location()));
        journal.forget(FID);
        assert_eq!(journal.find(FID), None);
    }

    #[test]
    fn a_damaged_journal_is_set_aside_and_the_daemon_serves() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(file_name("lustre", Path::new("/mnt/lustre")));
        std::fs::write(&path, vec![0xee; 100_000]).unwrap();
        let journal = open_in(dir.path());
        journal.remember(FID, &location());
        assert_eq!(journal.find(FID), Some(location()));
        assert_eq!(std::fs::read(aside(&path)).unwrap(), vec![0xee; 100_000]);
    }

    #[test]
    fn no_place_for_a_journal_is_no_reason_not_to_serve() {
        let journal = open_in(Path::new("/proc/nonexistent"));
        journal.remember(FID, &location());
        assert_eq!(journal.find(FID), None);
    }
}
