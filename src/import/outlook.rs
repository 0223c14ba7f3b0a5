//! How many rows an inventory has, before all of it was read.

use std::fs::File;
use std::io::Seek as _;
use std::sync::atomic::{AtomicU64, Ordering};

use super::flow::BATCH;
use super::inventory::{Format, Manifest};

/// How many rows all data files have, by the bytes that those so far took.
pub(super) struct RowEstimate<'a> {
    /// Rows and bytes, of all readers.
    read: &'a (AtomicU64, AtomicU64),
    /// Rows that are not among these yet.
    here: u64,
    /// Bytes of this file that are.
    told: u64,
    all: u64,
    size: u64,
    /// Moves with the reader's; Parquet is not read from front to back.
    file: Option<File>,
}

impl<'a> RowEstimate<'a> {
    /// For one of them, of `size` bytes.
    pub(super) fn new(read: &'a (AtomicU64, AtomicU64), manifest: &Manifest, file: &File, size: u64) -> Self {
        let csv = matches!(manifest.format, Format::Csv { .. });
        Self {
            read,
            here: 0,
            told: 0,
            all: manifest.files.iter().map(|file| file.size).sum(),
            size,
            file: if csv { file.try_clone().ok() } else { None },
        }
    }

    pub(super) fn after_row(&mut self) -> Option<u64> {
        self.here += 1;
        if !self.here.is_multiple_of(BATCH as u64) {
            return None;
        }
        let position = self.file.as_mut()?.stream_position().ok()?;
        self.tell(position.min(self.size))
    }

    /// At its end.
    pub(super) fn after_file(&mut self) -> Option<u64> {
        self.tell(self.size)
    }

    fn tell(&mut self, position: u64) -> Option<u64> {
        let rows = self.read.0.fetch_add(self.here, Ordering::Relaxed) + self.here;
        let more = position.saturating_sub(self.told);
        let bytes = self.read.1.fetch_add(more, Ordering::Relaxed) + more;
        (self.here, self.told) = (0, position.max(self.told));
        let expected = u128::from(rows) * u128::from(self.all) / u128::from(bytes).max(1);
        u64::try_from(expected).ok()
    }
}
