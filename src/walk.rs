//! A tree, read directory by directory, however deep it is.
//!
//! The kernel takes no path of more than 4095 bytes, and users make such trees by changing into each directory. What
//! lies deep is reached through a descriptor of a directory above it (`/proc/self/fd/N/…`): one for some 3,000 bytes of
//! path, held as long as something that was found below waits. What is handed on to others goes by its FID, so that the
//! descriptors of a walk are few.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fs::{DirEntry, File, Metadata};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::action::HsmError;
use crate::lustre::Mount;

/// A name more (255 bytes) must fit into what calls take, and some of Lustre's library needs room of its own.
const LONGEST: usize = 3072;

/// Something in a tree that is walked.
#[derive(Clone, Debug)]
pub struct Node {
    path: PathBuf,
    /// An open directory above it, and where in the path what lies below that begins.
    above: Option<(Arc<File>, usize)>,
}

/// A file that a walk found.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Named {
    /// Its path, as people know it.
    pub path: PathBuf,
    /// By its FID, where the path is too long for calls.
    by_fid: Option<PathBuf>,
}

impl Named {
    /// One whose path calls take.
    #[must_use]
    pub const fn new(path: PathBuf) -> Self {
        Self { path, by_fid: None }
    }

    /// What calls take.
    #[must_use]
    pub fn at(&self) -> &Path {
        self.by_fid.as_deref().unwrap_or(&self.path)
    }
}

impl Node {
    /// Where a walk begins.
    #[must_use]
    pub const fn new(path: PathBuf) -> Self {
        Self { path, above: None }
    }

    /// Its whole path, which may be too long for calls.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path that calls take while the node is there.
    #[must_use]
    pub fn at(&self) -> Cow<'_, Path> {
        let Some((above, from)) = &self.above else {
            return Cow::Borrowed(&self.path);
        };
        let below = self.path.as_os_str().as_bytes().get(*from..).unwrap_or_default();
        let above = Path::new("/proc/self/fd").join(above.as_raw_fd().to_string());
        Cow::Owned(above.join(OsStr::from_bytes(below)))
    }

    /// Its attributes; of a symlink its own.
    ///
    /// # Errors
    /// As of lstat(2).
    pub fn stat(&self) -> io::Result<Metadata> {
        self.at().symlink_metadata()
    }

    /// What is in the directory, in no order. After an error nothing more comes.
    ///
    /// # Errors
    /// It can't be opened.
    pub fn read(&self) -> io::Result<impl Iterator<Item = io::Result<(Self, DirEntry)>> + use<>> {
        let within = self.within()?;
        let entries = std::fs::read_dir(within.at())?;
        Ok(entries.map(move |entry| {
            let entry = entry?;
            let found = Self {
                path: within.path.join(entry.file_name()),
                above: within.above.clone(),
            };
            Ok((found, entry))
        }))
    }

    /// The directory as what is in it begins with.
    fn within(&self) -> io::Result<Self> {
        let at = self.at();
        if at.as_os_str().len() <= LONGEST {
            return Ok(self.clone());
        }
        // Nothing is read through it: it only names the place.
        let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
        let open = File::options().read(true).custom_flags(flags).open(at)?;
        let below = self.path.as_os_str().len() + 1;
        Ok(Self {
            path: self.path.clone(),
            above: Some((Arc::new(open), below)),
        })
    }

    /// As a file that can be handed on.
    ///
    /// # Errors
    /// It lies deep, and its FID can't be told.
    pub fn into_named(self, mount: &Mount) -> Result<Named, HsmError> {
        if self.above.is_none() && self.path.as_os_str().len() <= LONGEST {
            return Ok(Named::new(self.path));
        }
        let (file, by_fid) = mount.pinned(&self.at())?;
        drop(file);
        Ok(Named {
            path: self.path,
            by_fid: Some(by_fid),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::{OFlag, openat};
    use nix::sys::stat::{Mode, mkdirat};

    #[test]
    fn a_tree_that_is_deeper_than_a_path_can_be_is_walked_with_few_descriptors() {
        let directory = tempfile::tempdir().unwrap();
        let mut at: std::os::fd::OwnedFd = File::open(directory.path()).unwrap().into();
        let name = "d".repeat(200);
        for _ in 0..40 {
            mkdirat(&at, name.as_str(), Mode::from_bits_truncate(0o755)).unwrap();
            at = openat(&at, name.as_str(), OFlag::O_DIRECTORY, Mode::empty()).unwrap();
        }
        let made = openat(
            &at,
            "file",
            OFlag::O_CREAT | OFlag::O_WRONLY,
            Mode::from_bits_truncate(0o644),
        );
        nix::unistd::write(made.unwrap(), b"deep").unwrap();
        let mut waiting = vec![Node::new(directory.path().to_owned())];
        let (mut found, mut held) = (Vec::new(), std::collections::BTreeSet::new());
        while let Some(node) = waiting.pop() {
            held.extend(node.above.iter().map(|(above, _)| above.as_raw_fd()));
            if node.stat().unwrap().is_dir() {
                waiting.extend(node.read().unwrap().map(|entry| entry.unwrap().0));
            } else {
                assert_eq!(std::fs::read(node.at()).unwrap(), b"deep");
                found.push(node.path().strip_prefix(directory.path()).unwrap().as_os_str().len());
            }
        }
        assert_eq!(found, [40 * 201 + 4]);
        assert!(held.len() <= 3, "{held:?}");
    }
}
