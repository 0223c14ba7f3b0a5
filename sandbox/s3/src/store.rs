//! What the operations of a server share.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tempfile::TempDir;

use crate::config::Config;
use crate::faults::Faults;
use crate::index::{Bucket, Index};
use crate::stats::Counters;

/// The state of a server.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) config: Config,
    pub(crate) faults: Faults,
    pub(crate) stats: Counters,
    // Before the directory, so that the files go first.
    index: Mutex<Index>,
    dir: TempDir,
    /// Tells the ids of this server from those of one that ran before it.
    salt: u128,
    serial: AtomicU64,
}

impl Store {
    pub(crate) fn new(config: Config) -> io::Result<Self> {
        let mut prefix = tempfile::Builder::new();
        prefix.prefix("lhsm-sandbox-s3-");
        let dir = match &config.data_dir {
            None => prefix.tempdir()?,
            Some(path) => {
                fs::create_dir_all(path)?;
                prefix.tempdir_in(path)?
            }
        };
        let buckets = config
            .buckets
            .iter()
            .map(|name| (name.clone(), Bucket::default()))
            .collect();
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Ok(Self {
            config,
            faults: Faults::default(),
            stats: Counters::default(),
            index: Mutex::new(Index { buckets }),
            dir,
            salt: now.as_nanos(),
            serial: AtomicU64::new(1),
        })
    }

    /// The index. Held for look-ups and changes in memory only, never over an await or a file operation.
    pub(crate) fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> u64 {
        self.serial.fetch_add(1, Ordering::Relaxed)
    }

    /// A new id, of an upload or a version. Later ones sort after earlier ones.
    pub(crate) fn new_id(&self) -> String {
        format!("{:x}-{:08x}", self.salt, self.next())
    }

    /// The id of a new version, if there are versions.
    pub(crate) fn new_version(&self) -> Option<String> {
        self.config.versioning.then(|| self.new_id())
    }

    /// The path of a new file for a body.
    pub(crate) fn new_path(&self) -> PathBuf {
        self.dir.path().join(format!("body-{:08x}", self.next()))
    }
}
