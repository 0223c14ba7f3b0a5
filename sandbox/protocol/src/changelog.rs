//! What users do, and what is recorded of it.

use serde::{Deserialize, Serialize};

use crate::Fid;

/// What a user does. Paths are relative.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum UserChange {
    /// Makes a file or writes it anew.
    Write(Vec<u8>, Vec<u8>),
    /// Makes a directory.
    Mkdir(Vec<u8>),
    /// Makes a symlink with that target.
    Symlink(Vec<u8>, Vec<u8>),
    /// A second name for the first.
    Link(Vec<u8>, Vec<u8>),
    /// Sets permissions.
    Chmod(Vec<u8>, u32),
    /// Removes a name.
    Unlink(Vec<u8>),
    /// Removes a directory.
    Rmdir(Vec<u8>),
    /// From, to.
    Rename(Vec<u8>, Vec<u8>),
}

/// A line of the changelog.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChangeRecord {
    /// Counts up.
    pub index: u64,
    /// `CL_*`
    pub kind: u32,
    /// The lower bits of `cr_flags`.
    pub flags: u16,
    /// The file; of a rename what was replaced.
    pub target: Option<Fid>,
    /// The directory.
    pub parent: Option<Fid>,
    /// The name.
    pub name: Vec<u8>,
    /// Of a rename: what was moved, and from which directory.
    pub source: Option<(Fid, Fid)>,
    /// Of a rename: the name before.
    pub old_name: Vec<u8>,
}
