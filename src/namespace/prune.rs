//! Files whose objects are gone from the bucket go as well: the other half of an incremental import.
//!
//! Directory by directory, the names that the bucket has against the names that are here; a file that was never this
//! bucket's, or that has data of its own, stays.

use std::collections::HashSet;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use super::maker::{Fatal, Shared, location_at};
use super::path::TreePath;
use super::report::Outcome;
use crate::store::{ListFrom, Query};
use crate::transfer::{Lane, list};

/// Deletes what the bucket no longer has, below the target.
///
/// # Errors
/// The store, or a directory that can't be read.
pub fn prune(shared: &Shared, lane: &Lane) -> Result<(), Fatal> {
    let mut directories = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        let names = names_in_bucket(shared, lane, &directory)?;
        let tree_error = |source| Fatal::Tree {
            path: directory.display().to_string(),
            source,
        };
        let dir = shared.tree.dir(&directory).map_err(tree_error)?;
        for entry in dir.names().map_err(tree_error)? {
            let path = directory.join(&entry);
            let Ok(path) = TreePath::recorded(path.as_os_str().as_bytes()) else {
                continue;
            };
            let Some(stat) = dir.stat(&entry).map_err(tree_error)? else {
                continue;
            };
            match stat.st_mode & libc::S_IFMT {
                libc::S_IFDIR => directories.push(path.as_path().to_owned()),
                libc::S_IFREG if !names.contains(&entry) => remove(shared, &dir, &path)?,
                _ => {}
            }
        }
    }
    Ok(())
}

fn names_in_bucket(shared: &Shared, lane: &Lane, directory: &Path) -> Result<HashSet<OsString>, Fatal> {
    let mut prefix = shared.prefix.clone();
    if !directory.as_os_str().is_empty() {
        prefix = format!("{prefix}{}/", directory.display());
    }
    let mut names = HashSet::new();
    let mut from = ListFrom::Start;
    loop {
        let query = Query {
            prefix: &prefix,
            from: &from,
            by_directory: true,
            limit: 1000,
        };
        let page = list(lane, &shared.control, shared.archive_id, query)?;
        for entry in page.entries {
            if let Some(name) = entry.key.strip_prefix(prefix.as_bytes()) {
                names.insert(OsString::from_vec(name.to_owned()));
            }
        }
        match page.next {
            Some(token) => from = ListFrom::Token(token),
            None => return Ok(names),
        }
    }
}

fn remove(shared: &Shared, dir: &super::Dir, path: &TreePath) -> Result<(), Fatal> {
    let report = &shared.report;
    let at = dir.at(path.name()).path();
    let key = [shared.prefix.as_bytes(), path.as_path().as_os_str().as_bytes()].concat();
    let ours = location_at(&at)
        .is_some_and(|location| location.archive_id == shared.archive_id && location.key.as_str().as_bytes() == key);
    if !ours || !shared.filter.is_in_shard(&key) {
        return Ok(());
    }
    let clean = shared.mount.states_at(&at).is_ok_and(|states| states.is_clean());
    if !clean && !shared.force {
        report.tally.failed.fetch_add(1, Ordering::Relaxed);
        report.say(
            Outcome::Conflict,
            &key,
            "its object is gone, and the file has data that is in no archive (--force deletes it)",
        );
        return Ok(());
    }
    if !shared.dry_run {
        dir.remove(path.name()).map_err(|source| Fatal::Tree {
            path: path.as_path().display().to_string(),
            source,
        })?;
    }
    report.tally.deleted.fetch_add(1, Ordering::Relaxed);
    report.say(Outcome::Deleted, &key, "its object is gone");
    Ok(())
}
