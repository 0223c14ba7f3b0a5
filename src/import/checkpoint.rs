//! How far an import is, on disk: after Ctrl-C or kill -9 the same command goes on from there.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::report::ImportCounts;
use crate::disk::replace;
use crate::ranges::OpenRange;

const FORMAT: u32 = 1;

/// What is on disk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Checkpoint {
    format: u32,
    /// What is imported, and how: another command must not go on with it.
    pub(super) command: String,
    /// When the first run began, in seconds since 1970.
    pub began: i64,
    /// What is not done.
    pub(super) open: Vec<OpenRange>,
    /// What came of the rest.
    pub(super) counts: ImportCounts,
    /// How the bucket's listing is not in order: it begins anew then, and the counts are of what was made so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) unordered: Option<String>,
}

/// A checkpoint that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// No access.
    #[error("can't use the checkpoint '{}': {source}. Give another one with --checkpoint FILE", path.display())]
    Io {
        /// The checkpoint's file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Not ours, or damaged.
    #[error("'{}' is no checkpoint of an import: {source}. Remove it to begin anew: what is imported is found and kept", path.display())]
    Syntax {
        /// The checkpoint's file.
        path: PathBuf,
        /// What in its JSON is wrong, and in which line.
        source: serde_json::Error,
    },
    /// Of another import.
    #[error("the checkpoint '{}' is of another import:\n  it has     {found}\n  this one is {wanted}\nGive the same command, another --checkpoint, or remove the file", path.display())]
    Other {
        /// The checkpoint's file.
        path: PathBuf,
        /// Its command.
        found: String,
        /// This one.
        wanted: String,
    },
}

impl Checkpoint {
    pub(super) fn new(
        command: &str,
        began: i64,
        open: Vec<OpenRange>,
        counts: ImportCounts,
        unordered: Option<String>,
    ) -> Self {
        Self {
            format: FORMAT,
            command: command.to_owned(),
            began,
            open,
            counts,
            unordered,
        }
    }

    /// What a former run of `command` left; `None`: nothing.
    ///
    /// # Errors
    /// It can't be used.
    pub fn read(path: &Path, command: &str) -> Result<Option<Self>, CheckpointError> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(CheckpointError::Io {
                    path: path.to_owned(),
                    source,
                });
            }
        };
        let found: Self = serde_json::from_slice(&bytes).map_err(|source| CheckpointError::Syntax {
            path: path.to_owned(),
            source,
        })?;
        if found.command != command || found.format != FORMAT {
            return Err(CheckpointError::Other {
                path: path.to_owned(),
                found: found.command,
                wanted: command.to_owned(),
            });
        }
        Ok(Some(found))
    }

    pub(super) fn write(&self, path: &Path) -> Result<(), CheckpointError> {
        let bytes = serde_json::to_vec(self).map_err(io::Error::from);
        bytes
            .and_then(|bytes| replace(path, &bytes))
            .map_err(|source| CheckpointError::Io {
                path: path.to_owned(),
                source,
            })
    }
}
