//! Where the bytes of a body are: in memory when there are few, else in a file that goes with its last owner.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;

use bytes::Bytes;

/// Bodies up to this size stay in memory.
pub(crate) const IN_MEMORY: usize = 64 * 1024;

/// The bytes of one body, received once and never changed.
#[derive(Debug)]
pub(crate) enum Blob {
    Memory(Bytes),
    File(BlobFile),
}

impl Blob {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File(file) => file.len,
        }
    }

    /// All of it. Blocks on the disk.
    pub(crate) fn read(&self) -> io::Result<Bytes> {
        match self {
            Self::Memory(bytes) => Ok(bytes.clone()),
            Self::File(file) => fs::read(&file.path).map(Bytes::from),
        }
    }
}

/// A file of the data directory. Dropping it removes the file: readers hold the blob for as long as they stream.
#[derive(Debug)]
pub(crate) struct BlobFile {
    path: PathBuf,
    pub(crate) len: u64,
}

impl BlobFile {
    /// Takes charge of a file that is about to be written.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, len: 0 }
    }

    pub(crate) fn create(&self) -> io::Result<File> {
        File::create_new(&self.path)
    }

    pub(crate) fn open(&self) -> io::Result<File> {
        File::open(&self.path)
    }
}

impl Drop for BlobFile {
    fn drop(&mut self) {
        // It may be gone with its directory already, when the server ended first.
        drop(fs::remove_file(&self.path));
    }
}
