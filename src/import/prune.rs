//! Files whose objects are gone from the bucket go as well: the other half of an incremental import.
//!
//! Directory by directory, the names that the bucket has against the names that are here; a file that was never this
//! bucket's, or that has data of its own, stays.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use super::maker::{Fatal, ImportContext, location_at, of_one};
use super::path::TreePath;
use super::report::Outcome;
use crate::store::{ListFrom, Location, Query};
use crate::transfer::{Lane, TransferError};

/// Deletes what the bucket no longer has, below the target. What can't be looked at, of the bucket or of the tree, is left
/// as it is, a line in the report and a failure.
///
/// # Errors
/// Trouble that everything below has: the store is away.
pub fn prune(shared: &ImportContext, lane: &Lane) -> Result<(), Fatal> {
    let mut directories = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        let names = match names_in_bucket(shared, lane, &directory) {
            Ok(names) => names,
            Err(error) => {
                let reason = of_one(shared, lane, error)?;
                fail(
                    shared,
                    &directory,
                    &format!("what is below it in the bucket can't be listed: {reason}"),
                );
                continue;
            }
        };
        if let Err(error) = prune_directory(shared, lane, &directory, &names, &mut directories)? {
            fail(shared, &directory, &format!("it can't be looked through: {error}"));
        }
    }
    Ok(())
}

fn fail(shared: &ImportContext, path: &Path, reason: &str) {
    shared.report.count(|counts| counts.failed += 1);
    let key = [shared.prefix.as_bytes(), path.as_os_str().as_bytes()].concat();
    shared.report.say(Outcome::Failed, &key, reason);
}

/// One directory; those in it are added to `directories`. Inside: what was not looked at, and why.
fn prune_directory(
    shared: &ImportContext,
    lane: &Lane,
    directory: &Path,
    names: &HashSet<OsString>,
    directories: &mut Vec<PathBuf>,
) -> Result<io::Result<()>, Fatal> {
    let (dir, entries) = match shared.tree.dir(directory).and_then(|dir| Ok((dir.names()?, dir))) {
        Ok((entries, dir)) => (dir, entries),
        Err(error) => return Ok(Err(error)),
    };
    let mut trouble = Ok(());
    for entry in entries {
        let path = directory.join(&entry);
        let Ok(path) = TreePath::recorded(path.as_os_str().as_bytes()) else {
            continue;
        };
        let stat = match dir.stat(&entry) {
            Ok(Some(stat)) => stat,
            Ok(None) => continue,
            Err(error) => {
                trouble = Err(error);
                continue;
            }
        };
        match stat.st_mode & libc::S_IFMT {
            libc::S_IFDIR => directories.push(path.as_path().to_owned()),
            libc::S_IFREG if !names.contains(&entry) => remove(shared, lane, &dir, &path)?,
            _ => {}
        }
    }
    Ok(trouble)
}

/// The names of files that the bucket has there. One that is missing here, for any reason, is looked at by itself.
fn names_in_bucket(shared: &ImportContext, lane: &Lane, directory: &Path) -> Result<HashSet<OsString>, TransferError> {
    let mut prefix = shared.prefix.clone();
    if !directory.as_os_str().is_empty() {
        prefix = format!("{prefix}{}/", directory.display());
    }
    let mut names = HashSet::new();
    let query = Query {
        by_directory: true,
        ..Query::below(&prefix, &ListFrom::Start)
    };
    shared.transfer(lane).pages(shared.archive_id, query, |page| {
        let found = page
            .entries
            .iter()
            .filter_map(|entry| entry.key.strip_prefix(prefix.as_bytes()))
            // A store that knows no delimiter lists all that is below.
            .filter(|name| !name.contains(&b'/'));
        names.extend(found.map(|name| OsString::from_vec(name.to_owned())));
        ControlFlow::Continue(())
    })?;
    Ok(names)
}

fn remove(shared: &ImportContext, lane: &Lane, dir: &super::Dir, path: &TreePath) -> Result<(), Fatal> {
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
    match shared.transfer(lane).find(location.key.at(shared.archive_id)) {
        Ok(None) => {}
        Ok(Some(_)) => return Ok(()),
        Err(error) => {
            let reason = of_one(shared, lane, error)?;
            fail(
                shared,
                path.as_path(),
                &format!("whether its object is gone can't be told: {reason}"),
            );
            return Ok(());
        }
    }
    let states = shared.mount.states_at(&at).unwrap_or_default();
    if !states.released() && !shared.force {
        report.count(|counts| counts.failed += 1);
        let reason = "its object is gone, and the file's data is here, the last of it (--force deletes it)";
        report.say(Outcome::Conflict, &key, reason);
        return Ok(());
    }
    if !shared.dry_run
        && let Err(error) = dir.remove(path.name())
    {
        fail(
            shared,
            path.as_path(),
            &format!("its object is gone, and the file can't be deleted: {error}"),
        );
        return Ok(());
    }
    report.count(|counts| counts.deleted += 1);
    report.say(Outcome::Deleted, &key, "its object is gone");
    Ok(())
}
