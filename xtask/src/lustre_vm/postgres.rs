//! A PostgreSQL on this machine, on a socket.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::beside::Beside;

/// Ends with this value.
#[derive(Debug)]
pub(super) struct Postgres {
    _program: Beside,
    pub(super) socket: PathBuf,
}

impl Postgres {
    pub(super) fn start(binaries: &Path, log: &Path) -> Result<Self, String> {
        let mut socket = PathBuf::new();
        let program = Beside::start(binaries, &[OsStr::new("postgres")], log, &mut |line| {
            let Some(path) = line.strip_prefix("PostgreSQL at ") else {
                return false;
            };
            socket = path.into();
            true
        })?;
        Ok(Self {
            _program: program,
            socket,
        })
    }
}
