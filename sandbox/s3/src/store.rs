//! What the operations of a server share.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tempfile::TempDir;

use crate::checksum::Kind;
use crate::config::Config;
use crate::dialect::Dialect;
use crate::dialects::Dialects;
use crate::doors::Doors;
use crate::faults::Faults;
use crate::index::{Bucket, Index};
use crate::stats::Counters;

/// The state of a server.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) config: Config,
    pub(crate) faults: Faults,
    pub(crate) dialects: Dialects,
    pub(crate) doors: Doors,
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
            dialects: Dialects::default(),
            doors: Doors::default(),
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

    /// Whether it knows a checksum: computes it, compares it and returns it.
    pub(crate) fn knows(&self, kind: Kind) -> bool {
        let ignorant = self.dialects.any(&[Dialect::NoChecksums, Dialect::ChunkedKept]);
        !ignorant && (kind != Kind::Crc64Nvme || self.config.full_object_checksums)
    }

    /// Whether it does writes under a condition; when not, it refuses them.
    pub(crate) fn conditional_writes(&self) -> bool {
        self.config.conditional_writes && !self.dialects.has(Dialect::NoConditions501)
    }

    /// When an object is about to be removed by a rule, and by which, as S3 tells it.
    pub(crate) fn expiration(&self, bucket: &str, key: &str) -> Option<String> {
        let all = self.dialects.has(Dialect::Expires);
        let expires = self.doors.is_expiring(bucket, key, all);
        expires.then(|| "expiry-date=\"Fri, 21 Dec 2012 00:00:00 GMT\", rule-id=\"old\"".to_owned())
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
