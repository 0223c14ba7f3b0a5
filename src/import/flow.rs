//! What the threads of an import share, and how it ends before its time.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::checkpoint::CheckpointError;
use super::inventory::InventoryError;
use super::maker::{Fatal, ImportContext};
use super::report::ImportCounts;
use crate::ranges::{Batch, Ranges};
use crate::transfer::{Stop, TransferError};

/// Entries that go to a maker at once.
pub(super) const BATCH: usize = 100;

/// Why an import ended before its time.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file system or the store.
    #[error(transparent)]
    Fatal(#[from] Fatal),
    /// The listing.
    #[error("can't list the bucket: {0}")]
    List(TransferError),
    /// The inventory.
    #[error(transparent)]
    Inventory(#[from] InventoryError),
    /// A data file of the inventory is not what its manifest says.
    #[error("the inventory's data file '{0}' is not what the manifest says: {1}")]
    DataFile(String, String),
    /// The checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A file of ours.
    #[error("can't {what} '{}': {source}", path.display())]
    Local {
        /// What was tried.
        what: &'static str,
        /// What it was tried with.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// By a signal; a checkpoint is kept.
    #[error("stopped; give the same command again to go on")]
    Stopped,
}

/// What all threads of a round share.
pub(super) struct ImportRun<'a> {
    pub(super) shared: &'a ImportContext,
    pub(super) ranges: Ranges,
    /// There are others to whom a part could be given.
    pub(super) may_cut: bool,
    pub(super) before: ImportCounts,
    /// Whoever lists from the first key on goes to the end.
    pub(super) first: bool,
    pub(super) batches: Mutex<Receiver<Batch>>,
    pub(super) failure: Mutex<Option<ImportError>>,
    /// How the listing is not in order.
    pub(super) disorder: Mutex<Option<String>>,
    /// What was listed in ranges is to be listed in one.
    pub(super) again: AtomicBool,
}

/// A thread that panicked ends the import by [`PanicGuard`]; what it held is whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ImportRun<'_> {
    pub(super) fn fail(&self, error: ImportError) {
        lock(&self.failure).get_or_insert(error);
        self.shared.control.stop(Stop::Shutdown);
        self.ranges.stop();
    }

    pub(super) fn stopped(&self) -> bool {
        self.shared.control.stopped().is_some()
    }

    /// The bucket can't be listed in ranges. `true`: nothing is cut yet, and the one listing that there is goes on to the
    /// end; else the round is over.
    pub(super) fn disordered(&self, why: &str) -> bool {
        // First of all: where a checkpoint finds the listing whole, it finds why as well.
        self.note_disorder(why);
        let whole = self.ranges.keep_whole();
        if !whole {
            self.begin_again();
        }
        whole
    }

    /// The same, seen by who lists nothing but a range: the round is over.
    pub(super) fn give_up_ranges(&self, why: &str) {
        self.note_disorder(why);
        self.begin_again();
    }

    fn note_disorder(&self, why: &str) {
        let mut disorder = lock(&self.disorder);
        if disorder.is_none() {
            self.shared.report.note_disorder(&self.shared.prefix, why);
            *disorder = Some(why.to_owned());
        }
    }

    fn begin_again(&self) {
        self.again.store(true, Ordering::Relaxed);
        self.ranges.stop();
    }
}

/// Ends the import when its thread panics: the others would wait for it.
pub(super) struct PanicGuard<'a>(pub(super) &'a ImportRun<'a>);

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.shared.control.stop(Stop::Shutdown);
            self.0.ranges.stop();
        }
    }
}
