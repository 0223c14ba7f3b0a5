//! Of the store: its limits, and what it can say.

#[path = "../../../src/store/limits.rs"]
mod limits;

pub(crate) use limits::{Bandwidth, Limits};

/// As `store::StoreError` has it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("{operation}: damaged ({what})")]
    Corrupt { operation: &'static str, what: String },
    #[error("{operation}: throttled ({code})")]
    Throttled { operation: &'static str, code: String },
    #[error("{operation}: unavailable ({what})")]
    Unavailable { operation: &'static str, what: String },
    #[error("no byte moved for {seconds} s")]
    Stalled { seconds: u64 },
    #[error("{operation}: {what}")]
    Learned { operation: &'static str, what: String },
    #[error("refused")]
    Refused,
}

impl StoreError {
    pub(crate) const fn is_transient(&self) -> bool {
        !matches!(self, Self::Refused)
    }
}
