//! Why a transfer did not happen.

use super::{PlanError, Stop};
use crate::action::HsmError;
use crate::store::{InvalidKey, StoreError, Whose};

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
    /// What is said on a file of its object's deletion can't be said, or not be read: nothing is deleted without it, and no
    /// copy counted on.
    #[error("can't tell of a deletion on the file: {0}")]
    Announcement(HsmError),
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
    /// Whom it concerns: the one table of that, for all that work on many objects.
    #[must_use]
    pub fn whose(&self) -> Whose {
        match self {
            Self::GaveUp { .. } => Whose::Doubtful,
            Self::Stopped(_) | Self::Panic | Self::NoTarget(_) => Whose::Everybodys,
            Self::Store(error) => error.whose(),
            Self::Read(_)
            | Self::Write(_)
            | Self::Changed
            | Self::TooLarge(_)
            | Self::Key(_)
            | Self::Announcement(_)
            | Self::Checksum { .. } => Whose::OneObjects,
        }
    }

    /// Whether it certainly says something of one object or file alone. Where that is in doubt,
    /// [`is_of_one`](super::Transfer::is_of_one) asks the store.
    #[must_use]
    pub fn is_of_one_object(&self) -> bool {
        self.whose() == Whose::OneObjects
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_concerns_all_objects_is_not_taken_for_one_objects_trouble() {
        let denied = |code: &str| {
            TransferError::Store(StoreError::Denied {
                operation: "GetObject",
                code: code.into(),
                message: String::new(),
            })
        };
        let table = [
            (denied("AccessDenied"), Whose::OneObjects),
            (denied("InvalidAccessKeyId"), Whose::Doubtful),
            (
                StoreError::NoSuchBucket {
                    operation: "HeadObject",
                }
                .into(),
                Whose::Doubtful,
            ),
            (
                TransferError::GaveUp {
                    seconds: 1,
                    last: StoreError::Stalled { seconds: 1 },
                },
                Whose::Doubtful,
            ),
            (TransferError::Changed, Whose::OneObjects),
            (TransferError::NoTarget(7), Whose::Everybodys),
            (TransferError::Stopped(Stop::Shutdown), Whose::Everybodys),
        ];
        for (error, whose) in table {
            assert_eq!(error.whose(), whose, "{error}");
            assert_eq!(error.is_of_one_object(), whose == Whose::OneObjects);
        }
    }
}
