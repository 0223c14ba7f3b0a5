//! The retry loop, and the strings by which it is stopped.

#[path = "../../../../src/transfer/control.rs"]
mod control;
mod hours;
#[path = "../../../../src/transfer/retry.rs"]
mod retry;

pub(crate) use control::{Control, Stop};

use crate::store::StoreError;

/// As far as the loop makes and passes them.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum TransferError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("gave up after {seconds} s: {last}")]
    GaveUp { seconds: u64, last: StoreError },
    #[error("stopped ({0:?})")]
    Stopped(Stop),
}
