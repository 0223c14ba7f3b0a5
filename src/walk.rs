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

/// Who wants the regular files of a walk.
pub trait Visit {
    /// Why it ends early.
    type Error;

    /// Whether it is to end.
    fn is_over(&self) -> bool;

    /// Whether a directory is read.
    fn enters(&self, _: &Path) -> bool {
        true
    }

    /// Takes a file. `false`: no more are taken.
    ///
    /// # Errors
    /// What ends the walk.
    fn file(&mut self, file: Node) -> Result<bool, Self::Error>;

    /// Hears of what can't be read, also because it is gone by then.
    ///
    /// # Errors
    /// What ends the walk.
    fn unread(&mut self, path: &Path, error: &io::Error) -> Result<(), Self::Error>;
}

/// In which order files are found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// By their names, so that what comes later is greater, as paths compare. All that is in a directory is held.
    Names,
    /// As directories give them: of one only the directories in it are held.
    AsFound,
}

/// All regular files below some paths of a mount, depth first. What can't be read is told, and the walk goes on.
///
/// # Errors
/// What the visitor ends it with.
pub fn walk<V: Visit>(mount: &Path, paths: &[PathBuf], order: Order, visit: &mut V) -> Result<(), V::Error> {
    let lustres_own = mount.join(".lustre");
    for path in paths {
        let mut waiting = vec![Node::new(path.clone())];
        while let Some(node) = waiting.pop() {
            if visit.is_over() {
                return Ok(());
            }
            let stat = match node.stat() {
                Ok(stat) => stat,
                Err(error) => {
                    visit.unread(node.path(), &error)?;
                    continue;
                }
            };
            if stat.is_file() {
                if !visit.file(node)? {
                    return Ok(());
                }
                continue;
            }
            if !stat.is_dir() || node.path() == lustres_own || !visit.enters(node.path()) {
                continue;
            }
            let entries = match node.read() {
                Ok(entries) => entries,
                Err(error) => {
                    visit.unread(node.path(), &error)?;
                    continue;
                }
            };
            let mut found = Vec::new();
            for entry in entries {
                match (entry, order) {
                    (Err(error), _) => visit.unread(node.path(), &error)?,
                    (Ok((below, _)), Order::Names) => found.push(below),
                    // Where the directory does not tell it, this takes a look at what may be gone by then.
                    (Ok((below, entry)), Order::AsFound) => match entry.file_type() {
                        Ok(kind) if kind.is_dir() => found.push(below),
                        Ok(kind) if kind.is_file() => {
                            if !visit.file(below)? {
                                return Ok(());
                            }
                        }
                        Ok(_) => {}
                        Err(error) => visit.unread(below.path(), &error)?,
                    },
                }
            }
            if order == Order::Names {
                // The stack gives the last one first.
                found.sort_by(|a, b| b.path().cmp(a.path()));
            }
            waiting.extend(found);
        }
    }
    Ok(())
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

    struct Names {
        found: Vec<PathBuf>,
        unread: Vec<PathBuf>,
        left_out: PathBuf,
        most: usize,
    }

    impl Visit for Names {
        type Error = std::convert::Infallible;

        fn is_over(&self) -> bool {
            false
        }

        fn enters(&self, directory: &Path) -> bool {
            directory != self.left_out
        }

        fn file(&mut self, file: Node) -> Result<bool, Self::Error> {
            self.found.push(file.path().to_owned());
            Ok(self.found.len() < self.most)
        }

        fn unread(&mut self, path: &Path, _: &io::Error) -> Result<(), Self::Error> {
            self.unread.push(path.to_owned());
            Ok(())
        }
    }

    #[test]
    fn both_orders_find_the_same_files_and_pass_over_what_is_not_there() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        for (below, name) in [("b", "2"), ("a", "1"), ("out", "3"), (".lustre", "4"), ("a", "0")] {
            std::fs::create_dir_all(root.join(below)).unwrap();
            std::fs::write(root.join(below).join(name), b"").unwrap();
        }
        std::os::unix::fs::symlink("a", root.join("link")).unwrap();
        let walked = |order, most| {
            let mut names = Names {
                found: Vec::new(),
                unread: Vec::new(),
                left_out: root.join("out"),
                most,
            };
            let Ok(()) = walk(root, &[root.join("gone"), root.to_owned()], order, &mut names);
            assert_eq!(names.unread, [root.join("gone")]);
            names.found
        };
        let expected = ["a/0", "a/1", "b/2"].map(|name| root.join(name));
        assert_eq!(walked(Order::Names, 9), expected);
        let mut as_found = walked(Order::AsFound, 9);
        as_found.sort();
        assert_eq!(as_found, expected);
        assert_eq!(walked(Order::Names, 2), expected[..2]);
        assert_eq!(walked(Order::AsFound, 1).len(), 1);
    }
}
