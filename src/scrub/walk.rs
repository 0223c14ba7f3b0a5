//! Regular files below some paths, in an order that a later run finds again.

use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, percent_encode};

use super::{BatchFeed, FindingKind, Scrub, ScrubError, shown};
use crate::walk::{self, Named, Node, Order, Visit};

/// In the order of names. What can't be read is passed over: no object may then be called an orphan. `tell`: it is a finding
/// as well, which one walk of several says.
pub(super) fn walk(
    scrub: &Scrub<'_>,
    paths: &[PathBuf],
    feed: &BatchFeed<'_, Named>,
    tell: bool,
) -> Result<(), ScrubError> {
    let mut paths = paths.to_vec();
    paths.sort();
    let mut feeding = Feeding {
        scrub,
        feed,
        after: feed.after.as_deref().map(decode),
        tell,
    };
    walk::walk(scrub.mount.path(), &paths, Order::Names, &mut feeding)
}

struct Feeding<'a> {
    scrub: &'a Scrub<'a>,
    feed: &'a BatchFeed<'a, Named>,
    /// The last file of a former run.
    after: Option<PathBuf>,
    tell: bool,
}

impl Visit for Feeding<'_> {
    type Error = ScrubError;

    fn is_over(&self) -> bool {
        self.scrub.control.stopped().is_some()
    }

    /// One whose last file was done long ago is not read again.
    fn enters(&self, directory: &Path) -> bool {
        let after = self.after.as_deref();
        after.is_none_or(|after| directory >= after || after.starts_with(directory))
    }

    fn file(&mut self, file: Node) -> Result<bool, ScrubError> {
        if self.after.as_ref().is_some_and(|after| file.path() <= after.as_path()) {
            return Ok(true);
        }
        let place = encode(file.path());
        let path = file.path().to_owned();
        match file.into_named(self.scrub.mount) {
            Ok(file) => return Ok(self.feed.push(file, place)),
            Err(error) if error.is_not_found() => {}
            Err(error) => unseen(self.scrub, &path, &error.to_string(), self.tell)?,
        }
        Ok(true)
    }

    fn unread(&mut self, path: &Path, error: &std::io::Error) -> Result<(), ScrubError> {
        pass_over(self.scrub, path, error, self.tell)
    }
}

fn pass_over(scrub: &Scrub<'_>, path: &Path, error: &std::io::Error, tell: bool) -> Result<(), ScrubError> {
    match error.kind() {
        // Renamed or unlinked meanwhile, unless all of it is gone.
        std::io::ErrorKind::NotFound if scrub.mount.is_there() => Ok(()),
        _ => unseen(scrub, path, &format!("can't be read: {error}"), tell),
    }
}

/// Whatever is there may have any object as its copy.
fn unseen(scrub: &Scrub<'_>, path: &Path, why: &str, tell: bool) -> Result<(), ScrubError> {
    if !scrub.mount.is_there() {
        return Err(ScrubError::Gone(scrub.mount.path().to_owned()));
    }
    scrub.known.add_unreadable();
    if tell {
        let below = path.strip_prefix(scrub.mount.path()).unwrap_or(path);
        scrub.find(FindingKind::Unknown, shown(below), why.to_owned(), false);
    }
    Ok(())
}

fn encode(path: &Path) -> String {
    percent_encode(path.as_os_str().as_bytes(), NON_ALPHANUMERIC).to_string()
}

fn decode(text: &str) -> PathBuf {
    let bytes: Vec<u8> = percent_decode_str(text).collect();
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}
