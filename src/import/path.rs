//! Keys of strangers become paths below a directory, or are refused: nothing that a bucket says leads out.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// Linux: of one name, and of a path without its NUL.
const NAME_MAX: usize = 255;
const PATH_MAX: usize = 4095;
/// Deeper trees are made by nobody, and each level is a request to the MDT.
const DEPTH_MAX: usize = 512;

/// Why a key can't be a path.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Refusal {
    /// Nothing is left of it behind the prefix.
    #[error("nothing is left of the key behind the prefix")]
    Empty,
    /// A `.` or `..` between slashes.
    #[error("the key has a '.' or '..' as a path component")]
    Dots,
    /// `//`, or a slash at the beginning.
    #[error("the key has an empty path component ('//' or a leading '/')")]
    EmptyName,
    /// NUL, newline and their like.
    #[error("the key has a control character")]
    Control,
    /// Not text.
    #[error("the key is not valid UTF-8")]
    NotText,
    /// Over 255 bytes between two slashes.
    #[error("a path component has more than {NAME_MAX} bytes")]
    NameTooLong,
    /// Over 4095 bytes, or too many levels.
    #[error("the path has more than {PATH_MAX} bytes or {DEPTH_MAX} levels")]
    PathTooLong,
    /// Names that the copytool or Lustre uses.
    #[error("the name is reserved (.lustre)")]
    Reserved,
}

/// A path below the target directory, each component of it a plain name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TreePath {
    path: PathBuf,
    is_dir: bool,
}

impl TreePath {
    /// The path of a key below `prefix`. A key that ends in `/` is a directory.
    ///
    /// # Errors
    /// Why it can't be one.
    pub fn of_key(key: &[u8], prefix: &str) -> Result<Self, Refusal> {
        let rest = key.strip_prefix(prefix.as_bytes()).ok_or(Refusal::Empty)?;
        Self::new(rest)
    }

    /// A path given as text.
    ///
    /// # Errors
    /// Why it can't be one.
    pub fn new(text: &[u8]) -> Result<Self, Refusal> {
        let names = text.strip_suffix(b"/").unwrap_or(text);
        let checked = std::str::from_utf8(names).map_err(|_| Refusal::NotText)?;
        if checked.chars().any(char::is_control) {
            return Err(Refusal::Control);
        }
        Self::recorded(text)
    }

    /// A path that was one: the system takes any bytes but NUL and `/` in a name.
    ///
    /// # Errors
    /// Why it can't be one.
    pub fn recorded(text: &[u8]) -> Result<Self, Refusal> {
        let (names, is_dir) = match text.strip_suffix(b"/") {
            Some(names) => (names, true),
            None => (text, false),
        };
        if names.is_empty() {
            return Err(if is_dir { Refusal::EmptyName } else { Refusal::Empty });
        }
        if names.contains(&0) {
            return Err(Refusal::Control);
        }
        if names.len() > PATH_MAX {
            return Err(Refusal::PathTooLong);
        }
        let mut depth = 0;
        for name in names.split(|byte| *byte == b'/') {
            depth += 1;
            match name {
                b"" => return Err(Refusal::EmptyName),
                b"." | b".." => return Err(Refusal::Dots),
                b".lustre" if depth == 1 => return Err(Refusal::Reserved),
                name if name.len() > NAME_MAX => return Err(Refusal::NameTooLong),
                _ => {}
            }
        }
        if depth > DEPTH_MAX {
            return Err(Refusal::PathTooLong);
        }
        Ok(Self {
            path: PathBuf::from(OsStr::from_bytes(names)),
            is_dir,
        })
    }

    /// Stands for a path that is not known yet.
    #[must_use]
    pub fn untold() -> Self {
        Self {
            path: PathBuf::from("?"),
            is_dir: false,
        }
    }

    /// Whether the key ended in `/`.
    #[must_use]
    pub const fn is_dir(&self) -> bool {
        self.is_dir
    }

    /// The path, relative.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        &self.path
    }

    /// The directory that it is in; empty for the target itself.
    #[must_use]
    pub fn parent(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    /// Its last name.
    #[must_use]
    pub fn name(&self) -> &OsStr {
        self.path.file_name().unwrap_or_default()
    }
}

/// Whether a symlink at `at` with this target stays below the target directory, as text: `..` counts.
#[must_use]
pub fn stays_inside(at: &TreePath, target: &[u8]) -> bool {
    if target.starts_with(b"/") {
        return false;
    }
    let mut depth = i64::try_from(at.parent().components().count()).unwrap_or(0);
    for name in target.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => depth -= 1,
            _ => depth += 1,
        }
        if depth < 0 {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_become_paths() {
        let path = |key: &str, prefix| TreePath::of_key(key.as_bytes(), prefix).unwrap();
        assert_eq!(path("lab/a/b", "lab/").as_path(), Path::new("a/b"));
        assert_eq!(path("a", "").as_path(), Path::new("a"));
        assert!(path("lab/a/", "lab/").is_dir());
        assert_eq!(path("lab/a/b", "lab/").parent(), Path::new("a"));
        assert_eq!(path("lab/x..y/...", "lab/").name(), "...");
    }

    #[test]
    fn links_are_followed_as_text() {
        let at = TreePath::new(b"a/b/link").unwrap();
        for inside in ["c", "../c", "../../c", "./x/../y", "../../a/b/c"] {
            assert!(stays_inside(&at, inside.as_bytes()), "{inside}");
        }
        for outside in ["/etc/passwd", "../../../c", "x/../../../../c", "../../../a"] {
            assert!(!stays_inside(&at, outside.as_bytes()), "{outside}");
        }
    }

    proptest! {
        #[test]
        fn what_is_accepted_has_plain_names_only(key in prop::collection::vec(
            prop_oneof![Just(b'/'), Just(b'.'), Just(b'a'), any::<u8>()], 0..40)
        ) {
            if let Ok(path) = TreePath::new(&key) {
                for component in path.as_path().components() {
                    prop_assert!(matches!(component, std::path::Component::Normal(_)), "{path:?}");
                }
                prop_assert_eq!(path.as_path().components().count(),
                    path.as_path().as_os_str().as_bytes().split(|b| *b == b'/').count());
            }
        }
    }
}
