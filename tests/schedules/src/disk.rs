//! A disk in memory that can be full, and a journal on it.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::database::{Database, StorageBackend};
use crate::journal::Journal;
use crate::journal::tables::with_tables;
use crate::thread::Supervisor;

/// Its bytes stay when a database on it is closed. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct Disk(Arc<Inside>);

/// Of `std`: nobody runs between two steps in here.
#[derive(Debug, Default)]
struct Inside {
    bytes: Mutex<Vec<u8>>,
    full: AtomicBool,
}

impl Disk {
    /// From now on it takes nothing, or everything again.
    pub fn set_full(&self, full: bool) {
        self.0.full.store(full, Ordering::SeqCst);
    }

    /// A journal on it, with its own thread.
    #[must_use]
    pub fn journal(&self, supervisor: &Supervisor) -> Journal {
        let disk = self.clone();
        let open = move || Ok(with_tables(Database::create_on(disk.clone())?)?);
        Journal::start(supervisor, PathBuf::new(), Box::new(open))
    }

    fn room(&self) -> io::Result<()> {
        if self.0.full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn with<T>(&self, work: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        work(&mut self.0.bytes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Where `length` bytes from `offset` lie.
fn range(offset: u64, length: usize) -> io::Result<std::ops::Range<usize>> {
    let outside = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let start = usize::try_from(offset).map_err(|_| outside())?;
    let end = start.checked_add(length).ok_or_else(outside)?;
    Ok(start..end)
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.with(|bytes| bytes.len() as u64))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let range = range(offset, out.len())?;
        self.with(|bytes| match bytes.get(range) {
            Some(bytes) => {
                out.copy_from_slice(bytes);
                Ok(())
            }
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.room()?;
        let end = range(len, 0)?.start;
        self.with(|bytes| bytes.resize(end, 0));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.room()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.room()?;
        let range = range(offset, data.len())?;
        self.with(|bytes| match bytes.get_mut(range) {
            Some(bytes) => {
                bytes.copy_from_slice(data);
                Ok(())
            }
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        })
    }
}
