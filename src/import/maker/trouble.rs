//! Whose trouble an error is: one object's, which is a line in the report, or everybody's, which ends the import.

use std::io;
use std::sync::atomic::Ordering;

use super::{Fatal, ImportContext, Maker, Trouble};
use crate::action::HsmError;
use crate::import::path::TreePath;
use crate::store::{ListFrom, Location, Query, StoreError, Whose};
use crate::transfer::{Lane, TransferError};
use crate::types::{ErrorClass, io_error};

/// Objects for which a store is given up that answers otherwise. Each takes as long as `give_up_after`, so more of them
/// are a store that does not do its work.
const MOST_GIVEN_UP: u32 = 16;

/// In words what is the matter with one object.
///
/// # Errors
/// The next object would fail the same way.
pub(in crate::import) fn of_one(shared: &ImportContext, lane: &Lane, error: TransferError) -> Result<String, Fatal> {
    match error {
        TransferError::Store(StoreError::NotFound { .. }) => Ok("the object is gone".into()),
        TransferError::GaveUp { .. } => {
            let before = shared.given_up.fetch_add(1, Ordering::Relaxed);
            if before >= MOST_GIVEN_UP || !answers(shared, lane) {
                return Err(Fatal::Store(error));
            }
            Ok(error.to_string())
        }
        error => match error.whose() {
            Whose::OneObjects => Ok(error.to_string()),
            Whose::Doubtful if answers(shared, lane) => Ok(error.to_string()),
            Whose::Doubtful | Whose::Everybodys => Err(Fatal::Store(error)),
        },
    }
}

/// Whether the store works, but for one object.
fn answers(shared: &ImportContext, lane: &Lane) -> bool {
    let query = Query {
        limit: 1,
        ..Query::below(&shared.prefix, &ListFrom::Start)
    };
    shared.transfer(lane).list(shared.archive_id, query).is_ok()
}

impl Maker<'_> {
    /// What the store said of one object.
    pub(super) fn store_error(&self, error: TransferError) -> Trouble {
        match of_one(self.shared, &self.lane, error) {
            Ok(reason) => Trouble::Failed(reason),
            Err(fatal) => Trouble::Fatal(fatal),
        }
    }

    /// An object whose body is wanted and is in an archive class: it is asked for, for the next time.
    pub(super) fn frozen(&self, location: &Location) -> Trouble {
        let key = &location.key;
        let mut reason = format!("'{key}' is in an archive storage class and can't be read yet");
        if !self.shared.dry_run {
            match self.shared.transfer(&self.lane).thaw(location) {
                Ok(()) => reason.push_str("; its thaw was asked for: give the command again when it is thawed"),
                Err(TransferError::Stopped(stop)) => return Trouble::Fatal(Fatal::Store(TransferError::Stopped(stop))),
                Err(error) => {
                    reason.push_str("; a thaw of it was refused: ");
                    reason.push_str(&error.to_string());
                }
            }
        }
        Trouble::Failed(reason)
    }

    /// An error of the system: one file's trouble, or everybody's. A quota is that of one owner, and what may not be done
    /// (EPERM) is so for one directory, which is immutable, as often as for all.
    pub(super) fn error(&self, path: &TreePath, what: &str, error: io::Error) -> Trouble {
        match ErrorClass::of_io(&error) {
            ErrorClass::Full | ErrorClass::ReadOnly | ErrorClass::CutOff | ErrorClass::NoDescriptors => {
                Trouble::Fatal(Fatal::Tree {
                    path: path.as_path().display().to_string(),
                    source: error,
                })
            }
            _ => Trouble::Failed(format!("can't {what} it: {error}")),
        }
    }

    pub(super) fn hsm_error(&self, path: &TreePath, error: &HsmError) -> Trouble {
        match error.class() {
            ErrorClass::TooLarge => Trouble::Refused("the file would be larger than this file system takes".into()),
            _ => match self.error(path, "import", io_error(error.errno)) {
                Trouble::Failed(_) => Trouble::Failed(error.to_string()),
                fatal => fatal,
            },
        }
    }
}
