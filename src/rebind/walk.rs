//! Regular files below some paths. What can't be read is told, and the walk goes on.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;

use super::{Line, Rebind};

/// Depth first; of a directory only the directories in it are held, its files are passed on as they are read.
pub(super) fn walk(rebind: &Rebind<'_>, paths: &[PathBuf], feed: &SyncSender<PathBuf>, to: &SyncSender<Line>) {
    let lustres_own = rebind.mount.path().join(".lustre");
    let mut waiting: Vec<_> = paths.iter().rev().cloned().collect();
    while let Some(path) = waiting.pop()
        && rebind.control.stopped().is_none()
    {
        if path == lustres_own {
            continue;
        }
        match visit(&path, feed, &mut waiting) {
            Ok(true) => {}
            Ok(false) => return,
            // Renamed or unlinked meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => rebind.unreadable(&path, &error, to),
        }
    }
}

/// `false`: nobody takes files any more.
fn visit(path: &Path, feed: &SyncSender<PathBuf>, waiting: &mut Vec<PathBuf>) -> std::io::Result<bool> {
    let stat = path.symlink_metadata()?;
    if stat.is_file() {
        return Ok(feed.send(path.to_owned()).is_ok());
    }
    if !stat.is_dir() {
        return Ok(true);
    }
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        // Where the directory does not tell it, it takes a look at what may be gone by then.
        let kind = match entry.file_type() {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            kind => kind?,
        };
        if kind.is_dir() {
            waiting.push(entry.path());
        } else if kind.is_file() && feed.send(entry.path()).is_err() {
            return Ok(false);
        }
    }
    Ok(true)
}
