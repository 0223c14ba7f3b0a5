//! Why an action was not done.

use crate::action::HsmError;
use crate::store::{InvalidKey, InvalidLocation};
use crate::transfer::TransferError;

/// One action's failure.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// Lustre.
    #[error(transparent)]
    Hsm(#[from] HsmError),
    /// The bytes or the store.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// The file's record of its copy.
    #[error(transparent)]
    Location(#[from] InvalidLocation),
    /// Attributes of the open file.
    #[error("can't read the file's attributes: {0}")]
    Attributes(std::io::Error),
    /// A directory, a device.
    #[error("not a regular file")]
    NotRegular,
    /// Archive id 0 on what needs one.
    #[error("the action names no archive id")]
    NoArchiveId,
    /// Only whole files are copied.
    #[error(
        "the action asks for a part of the file (offset {offset}, length {length}); only whole files can be copied"
    )]
    PartialExtent {
        /// As asked.
        offset: u64,
        /// As asked.
        length: u64,
    },
    /// A number that no verb has.
    #[error("action number {0} is not known")]
    UnknownAction(u32),
    /// No record and no object under the keys that the rules give.
    #[error("no copy of the file is known: it has no trusted.lhsm_s3 record, and there is no object {tried}")]
    NoCopy {
        /// The keys that were looked at.
        tried: String,
    },
    /// Neighbours kept taking the key.
    #[error("no free key was found beside '{0}'")]
    NoFreeKey(String),
    /// Another attempt's deletion.
    #[error(
        "a deletion of what another attempt to archive the file had put at '{0}' took this one's object away, or may"
    )]
    TakenAway(String),
    /// A descriptor of the restored file is still open here.
    #[error("the restored file is still open in this daemon; a late write would hang for ever")]
    StillOpen,
    /// Reading it would ask for a restore, and removing its copy would lose it.
    #[error("the file is released: its only copy is the archived one")]
    Released,
    /// Another mover's end of the same restore came first: the coordinator sends one to another mover after a restart of an MDT.
    #[error("another mover has restored the file, and the coordinator took its end")]
    RestoredElsewhere,
    /// The worker panicked.
    #[error("internal error: {0}")]
    Panic(String),
}

impl From<InvalidKey> for JobError {
    fn from(error: InvalidKey) -> Self {
        Self::Transfer(error.into())
    }
}
