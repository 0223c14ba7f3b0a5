//! Directories' attributes wait for the end: making files in a directory changes its times, and until then nobody but
//! root may write in it. They wait in a file, for there may be many.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};

use super::path::TreePath;
use super::tree::{Attributes, Dir, Tree};
use crate::lustre::{Mount, is_acl, is_users_xattr};
use crate::nodes::GROUP_BITS;
use crate::types::{Xattr, io_error};

/// Who may do what; the other ACL of a directory is what new files get.
const ACCESS: &[u8] = b"system.posix_acl_access";

/// The directories of one import.
#[derive(Debug)]
pub struct Finishing {
    path: Option<PathBuf>,
    lines: Mutex<BufWriter<File>>,
}

#[derive(Serialize, Deserialize)]
struct Line {
    path: String,
    attributes: Attributes,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    xattrs: Vec<(String, String)>,
}

impl Finishing {
    /// Beside the checkpoint, going on with what a former run wrote; or in a file without a name.
    ///
    /// # Errors
    /// The file can't be made.
    pub fn new(path: Option<&Path>) -> io::Result<Self> {
        let file = match path {
            Some(path) => {
                let mut file = File::options().create(true).append(true).read(true).open(path)?;
                end_line(&mut file)?;
                file
            }
            None => tempfile::tempfile()?,
        };
        Ok(Self {
            path: path.map(Path::to_owned),
            lines: Mutex::new(BufWriter::new(file)),
        })
    }

    fn lock(&self) -> MutexGuard<'_, BufWriter<File>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, path: &TreePath, attributes: &Attributes, xattrs: &[Xattr]) -> io::Result<()> {
        let text = |bytes: &[u8]| BASE64_STANDARD.encode(bytes);
        let line = Line {
            path: text(path.as_path().as_os_str().as_bytes()),
            attributes: *attributes,
            xattrs: xattrs.iter().map(|(name, value)| (text(name), text(value))).collect(),
        };
        writeln!(self.lock(), "{}", serde_json::to_string(&line)?)
    }

    /// Brings the lines to the disk, before a checkpoint says that their objects are done.
    ///
    /// # Errors
    /// They can't be written.
    pub fn flush(&self) -> io::Result<()> {
        self.lock().flush()
    }

    /// Sets all of them; calls `failed` for each that can't be, and `without_acl` for each whose ACL can't be.
    ///
    /// # Errors
    /// The lines can't be read.
    pub fn finish(
        &self,
        tree: &Tree,
        mut failed: impl FnMut(&Path, &io::Error),
        mut without_acl: impl FnMut(&Path, &io::Error),
    ) -> io::Result<()> {
        use std::io::Seek as _;
        let mut file = {
            let mut lines = self.lock();
            lines.flush()?;
            lines.get_ref().try_clone()?
        };
        file.seek(io::SeekFrom::Start(0))?;
        for line in BufReader::new(file).lines() {
            // The last one may be torn by a former run's death: its object was not done.
            let Ok(line) = serde_json::from_str::<Line>(&line?) else {
                continue;
            };
            let path = BASE64_STANDARD.decode(&line.path).unwrap_or_default();
            let Ok(path) = TreePath::recorded(&path) else {
                continue;
            };
            match set(tree, &path, &line) {
                Ok(None) => {}
                Ok(Some(error)) => without_acl(path.as_path(), &error),
                Err(error) => failed(path.as_path(), &error),
            }
        }
        Ok(())
    }

    /// The lines are needed no more.
    pub fn remove(&self) {
        if let Some(path) = &self.path
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::warn!(path = %path.display(), %error, "can't remove the list of directories");
        }
    }
}

/// A line that a former run's death tore must not swallow the next one.
fn end_line(file: &mut File) -> io::Result<()> {
    let length = file.metadata()?.len();
    let mut last = [b'\n'];
    if length > 0 {
        std::os::unix::fs::FileExt::read_exact_at(file, &mut last, length - 1)?;
    }
    if last == [b'\n'] {
        return Ok(());
    }
    file.write_all(b"\n")
}

/// Why an ACL could not be set, if one could not: the group gets no access then, for its bits were the ACL's mask.
fn set(tree: &Tree, path: &TreePath, line: &Line) -> io::Result<Option<io::Error>> {
    let decode = |text: &String| BASE64_STANDARD.decode(text).map_err(io::Error::other);
    let mut xattrs = Vec::new();
    for (name, value) in &line.xattrs {
        let (name, value) = (decode(name)?, decode(value)?);
        // A bucket's word is not root's: only what users may set themselves.
        if is_users_xattr(&name)
            && let Ok(name) = CString::new(name)
        {
            xattrs.push((name, value));
        }
    }
    let has = |acl: fn(&[u8]) -> bool| xattrs.iter().any(|(name, _)| acl(name.to_bytes()));
    let has_acl = has(is_acl);
    // By its descriptor from here on, whatever gets its name.
    let dir = Dir::existing(tree, path.as_path())?;
    let mut guarded = line.attributes;
    if has_acl {
        guarded.mode &= !GROUP_BITS;
    }
    dir.set_own_attributes(&guarded)?;
    let (mut refused, mut failed) = (None, None);
    for (name, value) in &xattrs {
        let Err(error) = Mount::set_xattr_at(&dir.own_path(), name, value) else {
            continue;
        };
        let first = if is_acl(name.to_bytes()) {
            &mut refused
        } else {
            &mut failed
        };
        first.get_or_insert(io_error(error.errno));
    }
    if refused.is_some() {
        // The other one may be set, and has brought a mask along.
        dir.set_own_attributes(&guarded)?;
    } else if has_acl && !has(|name| name == ACCESS) {
        // New files' ACL says nothing of the directory's own group.
        dir.set_own_attributes(&line.attributes)?;
    }
    match (refused, failed) {
        (refused, None) => Ok(refused),
        (None, Some(error)) => Err(error),
        (Some(refused), Some(error)) => Err(io::Error::other(format!("{error}; and its ACL: {refused}"))),
    }
}
