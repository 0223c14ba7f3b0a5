//! How far an import is, on disk: after Ctrl-C or kill -9 the same command goes on from there.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::ranges::Open;
use super::report::Counts;

const FORMAT: u32 = 1;

/// What is on disk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    format: u32,
    /// What is imported, and how: another command must not go on with it.
    pub command: String,
    /// What is not done.
    pub open: Vec<Open>,
    /// What came of the rest.
    pub counts: Counts,
}

/// A checkpoint that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// No access.
    #[error("can't use the checkpoint '{}': {source}. Give another one with --checkpoint FILE", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not ours, or damaged.
    #[error("'{}' is no checkpoint of an import: {source}. Remove it to begin anew: what is imported is found and kept", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// Of another import.
    #[error("the checkpoint '{}' is of another import:\n  it has     {found}\n  this one is {wanted}\nGive the same command, another --checkpoint, or remove the file", path.display())]
    Other {
        /// The file.
        path: PathBuf,
        /// Its command.
        found: String,
        /// This one.
        wanted: String,
    },
}

impl Checkpoint {
    pub(super) fn new(command: &str, open: Vec<Open>, counts: Counts) -> Self {
        Self {
            format: FORMAT,
            command: command.to_owned(),
            open,
            counts,
        }
    }

    /// What a former run of `command` left; `None`: nothing.
    pub(super) fn read(path: &Path, command: &str) -> Result<Option<Self>, CheckpointError> {
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

    /// Replaces the file at once or not at all.
    pub(super) fn write(&self, path: &Path) -> Result<(), CheckpointError> {
        let failed = |source| CheckpointError::Io {
            path: path.to_owned(),
            source,
        };
        let bytes = serde_json::to_vec(self).map_err(|error| failed(error.into()))?;
        let directory = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
        io::Write::write_all(&mut file, &bytes).map_err(failed)?;
        file.as_file().sync_data().map_err(failed)?;
        file.persist(path).map_err(|error| failed(error.error))?;
        Ok(())
    }
}
