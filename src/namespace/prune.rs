//! Files whose objects are gone from the bucket go as well: the other half of an incremental import.
//!
//! Directory by directory, the names that the bucket has against the names that are here; a file that was never this
//! bucket's, or that has data of its own, stays.

use std::collections::HashSet;
use std::ffi::OsString;
use std::ops::ControlFlow;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use super::maker::{Fatal, Shared, location_at};
use super::path::TreePath;
use super::report::Outcome;
use crate::store::{ListFrom, Location, Query};
use crate::transfer::{Lane, find, pages};

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
                libc::S_IFREG if !names.contains(&entry) => remove(shared, lane, &dir, &path)?,
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
    let query = Query {
        by_directory: true,
        ..Query::below(&prefix, &ListFrom::Start)
    };
    pages(lane, &shared.control, shared.archive_id, query, |page| {
        let found = page
            .entries
            .iter()
            .filter_map(|entry| entry.key.strip_prefix(prefix.as_bytes()));
        names.extend(found.map(|name| OsString::from_vec(name.to_owned())));
        ControlFlow::Continue(())
    })?;
    Ok(names)
}

fn remove(shared: &Shared, lane: &Lane, dir: &super::Dir, path: &TreePath) -> Result<(), Fatal> {
    let report = &shared.report;
    let at = dir.at(path.name()).path();
    let key = [shared.prefix.as_bytes(), path.as_path().as_os_str().as_bytes()].concat();
    let is_ours =
        |location: &Location| location.archive_id == shared.archive_id && location.key.as_str().as_bytes() == key;
    let Some(location) = location_at(&at).filter(is_ours) else {
        return Ok(());
    };
    if !shared.filter.is_in_shard(&key) {
        return Ok(());
    }
    // A listing may leave out what is there; only the store's word on this very key counts.
    if find(lane, &shared.control, shared.archive_id, &location.key)?.is_some() {
        return Ok(());
    }
    let states = shared.mount.states_at(&at).unwrap_or_default();
    if !states.released() && !shared.force {
        report.count(|counts| counts.failed += 1);
        let reason = "its object is gone, and the file's data is here, the last of it (--force deletes it)";
        report.say(Outcome::Conflict, &key, reason);
        return Ok(());
    }
    if !shared.dry_run {
        dir.remove(path.name()).map_err(|source| Fatal::Tree {
            path: path.as_path().display().to_string(),
            source,
        })?;
    }
    report.count(|counts| counts.deleted += 1);
    report.say(Outcome::Deleted, &key, "its object is gone");
    Ok(())
}
