//! An embedded database in one file: journal, ledgers and the book of `export --follow` are made of it.
//!
//! What is written in one piece is on disk in one piece or not at all, whoever is killed meanwhile. What is in the tables
//! is the owners' affair, and so is what they say when a database can't be used.

use std::path::Path;

use redb::{Builder, ReadableDatabase as _};

pub use redb::{Error, ReadTransaction, ReadableTable, StorageBackend, TableDefinition, WriteTransaction};

/// Bytes of a database that stay in memory.
const CACHE: usize = 8 << 20;

/// A database that is open: no other process has it meanwhile.
#[derive(Debug)]
pub struct Database(redb::Database);

/// A database that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// It is open already, by another process as a rule.
    #[error("it is in use by another process")]
    InUse,
    /// The disk, or what is on it.
    #[error(transparent)]
    Failed(Box<Error>),
}

impl From<Error> for DatabaseError {
    fn from(error: Error) -> Self {
        match error {
            Error::DatabaseAlreadyOpen => Self::InUse,
            other => Self::Failed(Box::new(other)),
        }
    }
}

impl DatabaseError {
    /// Whether what is in the file is at fault: a new one in its place would do. Not so of a disk that is full, of one
    /// that fails, or where the file may not be made.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::InUse => false,
            Self::Failed(error) => match error.as_ref() {
                Error::PreviousIo => false,
                // A file that is no database.
                Error::Io(error) => error.kind() == std::io::ErrorKind::InvalidData,
                _ => true,
            },
        }
    }

    /// Whether a table was looked for that nobody has made yet.
    #[must_use]
    pub fn lacks_table(&self) -> bool {
        matches!(self, Self::Failed(error) if matches!(error.as_ref(), Error::TableDoesNotExist(_)))
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE);
    builder
}

impl Database {
    /// Opens the database in this file, or makes it. Its directory is there.
    ///
    /// # Errors
    /// It is in use, damaged, or can't be made.
    pub fn create(path: &Path) -> Result<Self, DatabaseError> {
        Ok(Self(builder().create(path).map_err(Error::from)?))
    }

    /// Opens the database in this file.
    ///
    /// # Errors
    /// It is in use, damaged, or not there.
    pub fn open(path: &Path) -> Result<Self, DatabaseError> {
        Ok(Self(builder().open(path).map_err(Error::from)?))
    }

    /// Opens a database on what stands for a file, or makes it: a disk that is full when a test says so.
    ///
    /// # Errors
    /// It is damaged, or can't be made.
    pub fn create_on(disk: impl StorageBackend) -> Result<Self, DatabaseError> {
        Ok(Self(builder().create_with_backend(disk).map_err(Error::from)?))
    }

    /// Reads tables as they are at this moment, whatever is written meanwhile.
    ///
    /// # Errors
    /// The disk, or the first of `work`.
    pub fn read<T>(&self, work: impl FnOnce(&ReadTransaction) -> Result<T, Error>) -> Result<T, DatabaseError> {
        let read = || -> Result<T, Error> { work(&self.0.begin_read()?) };
        Ok(read()?)
    }

    /// Changes tables. All of it is on disk when this returns; none of it after an error.
    ///
    /// # Errors
    /// The disk, or the first of `work`.
    pub fn write<T>(&self, work: impl FnOnce(&WriteTransaction) -> Result<T, Error>) -> Result<T, DatabaseError> {
        let write = || -> Result<T, Error> {
            let transaction = self.0.begin_write()?;
            let result = work(&transaction)?;
            transaction.commit()?;
            Ok(result)
        };
        Ok(write()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: TableDefinition<'_, u32, u32> = TableDefinition::new("table");

    fn put(database: &Database, value: u32) -> Result<(), DatabaseError> {
        database.write(|transaction| {
            transaction.open_table(TABLE)?.insert(1, value)?;
            Ok(())
        })
    }

    fn get(database: &Database) -> Result<Option<u32>, DatabaseError> {
        database.read(|transaction| Ok(transaction.open_table(TABLE)?.get(1)?.map(|value| value.value())))
    }

    #[test]
    fn what_is_written_is_there_for_the_next_one_and_nothing_of_what_failed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.redb");
        let database = Database::create(&path).unwrap();
        assert!(get(&database).unwrap_err().lacks_table());
        put(&database, 1).unwrap();
        let failed = database.write(|transaction| {
            transaction.open_table(TABLE)?.insert(1, 2)?;
            Err::<(), _>(Error::ValueTooLarge(0))
        });
        assert!(failed.is_err());
        drop(database);
        assert_eq!(get(&Database::open(&path).unwrap()).unwrap(), Some(1));
    }

    #[test]
    fn a_database_in_use_is_not_damaged_and_a_file_that_is_none_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.redb");
        assert!(!Database::open(&path).unwrap_err().is_damage(), "there is none");
        let _open = Database::create(&path).unwrap();
        let again = Database::create(&path).unwrap_err();
        assert!(matches!(again, DatabaseError::InUse) && !again.is_damage());
        let other = dir.path().join("b.redb");
        std::fs::write(&other, vec![0xee; 100_000]).unwrap();
        assert!(Database::create(&other).unwrap_err().is_damage());
        assert!(!Database::create(&dir.path().join("no/c.redb")).unwrap_err().is_damage());
    }
}
