//! What came of each file, on disk: an embedded database for each job.
//!
//! | table | key | value |
//! |---|---|---|
//! | `job` | `spec` | the [`JobSpec`], JSON |
//! | `job` | `counts` | [`JobCounts`] of all rows, JSON; written with them |
//! | `files` | the path's bytes | a [`Row`], JSON |
//!
//! A row is written when a file is asked for and again when it has ended. What a killed job had asked for and not seen
//! the end of is looked at again, and asked for again only if nothing goes on with it.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::outcome::{JobCounts, Outcome};
use super::{JobSpec, is_name};
use crate::database::{
    self, Database, DatabaseError, ReadTransaction, ReadableTable as _, TableDefinition, WriteTransaction,
};
use crate::types::Fid;

const JOB: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("job");
const FILES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("files");

/// What came of one file.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Row {
    /// How far it is.
    pub outcome: Outcome,
    /// Its FID, where it was looked at.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub fid: String,
    /// Bytes of the file when it was looked at.
    pub size: u64,
    /// From the request to the end.
    #[serde(default)]
    pub seconds: f64,
    /// 0: none.
    #[serde(default)]
    pub errno: i32,
    /// Why it ended so, in words; empty where it is done.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

impl Row {
    /// A row that says no errno and no reason.
    pub(super) fn new(outcome: Outcome, fid: Option<Fid>, size: u64, took: Duration) -> Self {
        Self {
            outcome,
            fid: fid.map(|fid| fid.to_string()).unwrap_or_default(),
            size,
            seconds: took.as_secs_f64(),
            errno: 0,
            reason: String::new(),
        }
    }

    /// The same, and why.
    pub(super) fn because(self, errno: i32, reason: String) -> Self {
        Self { errno, reason, ..self }
    }
}

/// A ledger that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Another process has it.
    #[error("job '{0}' is running (lhsmtool-s3 status {0} shows how far it is)")]
    Running(String),
    /// There is none.
    #[error("no job '{id}' in '{}'; lhsmtool-s3 jobs list has all", directory.display())]
    None {
        /// Asked for.
        id: String,
        /// The directory that could hold no ledger.
        directory: PathBuf,
    },
    /// The database.
    #[error("the ledger '{}': {source}", path.display())]
    Database {
        /// The ledger's file.
        path: PathBuf,
        /// The database's error.
        source: DatabaseError,
    },
    /// What is in it.
    #[error("the ledger '{}' is damaged: {what}", path.display())]
    Damaged {
        /// The ledger's file.
        path: PathBuf,
        /// What is wrong with it, in words.
        what: String,
    },
    /// Its directory.
    #[error("can't make '{}': {source}. Set `state_dir` in section [lustre]", path.display())]
    Directory {
        /// The file that could not be read or written.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
}

/// One job's ledger, open.
#[derive(Debug)]
pub struct Ledger {
    database: Database,
    path: PathBuf,
}

impl Ledger {
    /// A new job's.
    ///
    /// # Errors
    /// The state directory takes no file.
    pub fn create(directory: &Path, spec: &JobSpec) -> Result<Self, LedgerError> {
        std::fs::create_dir_all(directory).map_err(|source| LedgerError::Directory {
            path: directory.to_owned(),
            source,
        })?;
        let ledger = Self::open_file(directory, &spec.id, true)?;
        let spec = serde_json::to_vec(spec).map_err(|error| ledger.damaged(&error))?;
        ledger.write(|transaction| {
            transaction.open_table(FILES)?;
            transaction.open_table(JOB)?.insert("spec", spec.as_slice())?;
            Ok(())
        })?;
        Ok(ledger)
    }

    /// A former job's.
    ///
    /// # Errors
    /// There is none, another process has it, or it is damaged.
    pub fn open(directory: &Path, id: &str) -> Result<(Self, JobSpec), LedgerError> {
        if !is_name(id) || !directory.join(format!("{id}.redb")).is_file() {
            return Err(LedgerError::None {
                id: id.to_owned(),
                directory: directory.to_owned(),
            });
        }
        let ledger = Self::open_file(directory, id, false)?;
        let spec = ledger.job("spec")?.ok_or_else(|| ledger.damaged(&"it has no job"))?;
        let spec = serde_json::from_slice(&spec).map_err(|error| ledger.damaged(&error))?;
        Ok((ledger, spec))
    }

    fn open_file(directory: &Path, id: &str, create: bool) -> Result<Self, LedgerError> {
        let path = directory.join(format!("{id}.redb"));
        let opened = if create {
            Database::create(&path)
        } else {
            Database::open(&path)
        };
        match opened {
            Ok(database) => Ok(Self { database, path }),
            Err(DatabaseError::InUse) => Err(LedgerError::Running(id.to_owned())),
            Err(source) => Err(LedgerError::Database { path, source }),
        }
    }

    fn damaged(&self, what: &dyn std::fmt::Display) -> LedgerError {
        LedgerError::Damaged {
            path: self.path.clone(),
            what: what.to_string(),
        }
    }

    fn failed(&self, source: DatabaseError) -> LedgerError {
        LedgerError::Database {
            path: self.path.clone(),
            source,
        }
    }

    fn write(&self, work: impl FnOnce(&WriteTransaction) -> Result<(), database::Error>) -> Result<(), LedgerError> {
        self.database.write(work).map_err(|error| self.failed(error))
    }

    fn read<T>(&self, work: impl FnOnce(&ReadTransaction) -> Result<T, database::Error>) -> Result<T, LedgerError> {
        self.database.read(work).map_err(|error| self.failed(error))
    }

    fn job(&self, name: &str) -> Result<Option<Vec<u8>>, LedgerError> {
        self.read(|transaction| {
            let table = transaction.open_table(JOB)?;
            Ok(table.get(name)?.map(|value| value.value().to_vec()))
        })
    }

    /// The counters as of the last rows.
    ///
    /// # Errors
    /// The database's.
    pub fn counts(&self) -> Result<JobCounts, LedgerError> {
        let counts = self.job("counts")?;
        counts.map_or(Ok(JobCounts::default()), |counts| {
            serde_json::from_slice(&counts).map_err(|error| self.damaged(&error))
        })
    }

    /// Rows, all of them or none, with the counters after them.
    ///
    /// # Errors
    /// The database's.
    pub fn record(&self, rows: &[(PathBuf, Row)], counts: &JobCounts) -> Result<(), LedgerError> {
        let encode = |value: serde_json::Result<Vec<u8>>| value.map_err(|error| self.damaged(&error));
        let counts = encode(serde_json::to_vec(counts))?;
        let rows = rows
            .iter()
            .map(|(path, row)| Ok((path.as_os_str().as_bytes(), encode(serde_json::to_vec(row))?)))
            .collect::<Result<Vec<_>, LedgerError>>()?;
        self.write(|transaction| {
            let mut files = transaction.open_table(FILES)?;
            for (path, row) in &rows {
                files.insert(*path, row.as_slice())?;
            }
            transaction.open_table(JOB)?.insert("counts", counts.as_slice())?;
            Ok(())
        })
    }

    /// Forgets what has failed, so that the next run looks at it anew.
    ///
    /// # Errors
    /// The database's.
    pub fn forget_failed(&self) -> Result<(), LedgerError> {
        let counts = JobCounts {
            failed: 0,
            ..self.counts()?
        };
        let counts = serde_json::to_vec(&counts).map_err(|error| self.damaged(&error))?;
        self.write(|transaction| {
            let mut files = transaction.open_table(FILES)?;
            files
                .retain(|_, row| !serde_json::from_slice::<Row>(row).is_ok_and(|row| row.outcome == Outcome::Failed))?;
            transaction.open_table(JOB)?.insert("counts", counts.as_slice())?;
            Ok(())
        })
    }

    /// What came of a file so far.
    ///
    /// # Errors
    /// The database's.
    pub fn row(&self, path: &Path) -> Result<Option<Row>, LedgerError> {
        let row = self.read(|transaction| {
            let table = transaction.open_table(FILES)?;
            Ok(table
                .get(path.as_os_str().as_bytes())?
                .map(|value| value.value().to_vec()))
        })?;
        row.map(|row| serde_json::from_slice(&row).map_err(|error| self.damaged(&error)))
            .transpose()
    }

    /// Gives every row to `each`, by path.
    ///
    /// # Errors
    /// The database's, or the first of `each`.
    pub fn rows<E: From<LedgerError>>(&self, mut each: impl FnMut(&[u8], Row) -> Result<(), E>) -> Result<(), E> {
        self.read(|transaction| {
            for entry in transaction.open_table(FILES)?.iter()? {
                let (path, row) = entry?;
                let row = serde_json::from_slice(row.value()).map_err(|error| E::from(self.damaged(&error)));
                let taken = row.and_then(|row| each(path.value(), row));
                if taken.is_err() {
                    return Ok(taken);
                }
            }
            Ok(Ok(()))
        })?
    }
}
