//! Regular files below some paths, in an order that a later run finds again.

use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, percent_encode};

use super::{Feed, Scrub, ScrubError, What, shown};
use crate::walk::{Named, Node};

/// Depth first, names in order: what comes later in the walk is greater, as paths compare. What can't be read is passed
/// over: no object may then be called an orphan. `tell`: it is a finding as well, which one walk of several says.
pub(super) fn walk(scrub: &Scrub<'_>, paths: &[PathBuf], feed: &Feed<'_, Named>, tell: bool) -> Result<(), ScrubError> {
    let after = feed.after.as_deref().map(decode);
    let mut paths = paths.to_vec();
    paths.sort();
    for path in paths {
        let mut waiting = vec![Node::new(path)];
        while let Some(node) = waiting.pop() {
            if scrub.control.stopped().is_some() {
                return Ok(());
            }
            let stat = match node.stat() {
                Ok(stat) => stat,
                Err(error) => {
                    pass_over(scrub, node.path(), &error, tell)?;
                    continue;
                }
            };
            let path = node.path();
            if stat.is_dir() {
                if path == scrub.mount.path().join(".lustre") {
                    continue;
                }
                // A directory whose last file was done long ago is not read again.
                if after
                    .as_ref()
                    .is_some_and(|after| path < after.as_path() && !after.starts_with(path))
                {
                    continue;
                }
                let mut found = Vec::new();
                match node.read() {
                    Ok(entries) => {
                        for entry in entries {
                            match entry {
                                Ok((entry, _)) => found.push(entry),
                                Err(error) => pass_over(scrub, path, &error, tell)?,
                            }
                        }
                    }
                    Err(error) => pass_over(scrub, path, &error, tell)?,
                }
                // The stack gives the last one first.
                found.sort_by(|a, b| b.path().cmp(a.path()));
                waiting.extend(found);
            } else if stat.is_file() && after.as_ref().is_none_or(|after| path > after.as_path()) {
                let place = encode(path);
                let path = path.to_owned();
                match node.into_named(scrub.mount) {
                    Ok(file) => {
                        if !feed.push(file, place) {
                            return Ok(());
                        }
                    }
                    Err(error) if error.is_not_found() => {}
                    Err(error) => unseen(scrub, &path, &error.to_string(), tell)?,
                }
            }
        }
    }
    Ok(())
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
        scrub.find(What::Unknown, shown(below), why.to_owned(), false);
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
