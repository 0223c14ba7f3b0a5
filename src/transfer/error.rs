//! Why a transfer did not happen.

use super::{PlanError, Stop};
use crate::store::{InvalidKey, StoreError};

/// One file's transfer failed.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// Lustre did not give the data.
    #[error("can't read the file: {0}")]
    Read(std::io::Error),
    /// Lustre did not take the data.
    #[error("can't write the restored file: {0}")]
    Write(std::io::Error),
    /// The file is shorter than it was at the start.
    #[error("the file changed while it was read")]
    Changed,
    /// No object can hold it.
    #[error(transparent)]
    TooLarge(#[from] PlanError),
    /// No key can name it.
    #[error(transparent)]
    Key(#[from] InvalidKey),
    /// The bytes are not those of the object's checksum.
    #[error("checksum mismatch: {what}")]
    Checksum {
        /// Which differ.
        what: String,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It did not recover in the time that is given to it.
    #[error("gave up after {seconds} s of trying: {last}")]
    GaveUp {
        /// How long it was tried.
        seconds: u64,
        /// What the last try said.
        last: StoreError,
    },
    /// From outside.
    #[error("stopped ({0:?})")]
    Stopped(Stop),
    /// A defect of ours.
    #[error("internal error in a part of the transfer (see the log)")]
    Panic,
    /// This daemon has no target for the archive id.
    #[error("no [[archive]] section has id {0}")]
    NoTarget(u32),
}

impl TransferError {
    /// Whether it says something of one object or file alone: with the next one all may be well. Not so of a store that
    /// is away, of a bucket that is not there, and of a stop.
    #[must_use]
    pub const fn is_of_one_object(&self) -> bool {
        match self {
            Self::GaveUp { .. } | Self::Stopped(_) | Self::Panic | Self::NoTarget(_) => false,
            Self::Store(error) => !matches!(
                error,
                StoreError::NoSuchBucket { .. }
                    | StoreError::Throttled { .. }
                    | StoreError::Unavailable { .. }
                    | StoreError::Stalled { .. }
            ),
            Self::Read(_)
            | Self::Write(_)
            | Self::Changed
            | Self::TooLarge(_)
            | Self::Key(_)
            | Self::Checksum { .. } => true,
        }
    }
}
