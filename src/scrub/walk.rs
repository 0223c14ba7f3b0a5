//! Regular files below some paths, in an order that a later run finds again.

use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, percent_encode};

use super::{Feed, Scrub, ScrubError};

/// Depth first, names in order: what comes later in the walk is greater, as paths compare.
pub(super) fn walk(scrub: &Scrub<'_>, paths: &[PathBuf], feed: &Feed<'_, PathBuf>) -> Result<(), ScrubError> {
    let after = feed.after.as_deref().map(decode);
    let mut paths = paths.to_vec();
    paths.sort();
    for path in paths {
        let mut waiting = vec![path];
        while let Some(path) = waiting.pop() {
            if scrub.control.stopped().is_some() {
                return Ok(());
            }
            let failed = |source| ScrubError::Walk {
                path: path.clone(),
                source,
            };
            let stat = match path.symlink_metadata() {
                Ok(stat) => stat,
                // Renamed or unlinked meanwhile.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(error)),
            };
            if stat.is_dir() {
                if path == scrub.mount.path().join(".lustre") {
                    continue;
                }
                // A directory whose last file was done long ago is not read again.
                if after
                    .as_ref()
                    .is_some_and(|after| path < *after && !after.starts_with(&path))
                {
                    continue;
                }
                let mut names = Vec::new();
                let entries = match std::fs::read_dir(&path) {
                    Ok(entries) => entries,
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(failed(error)),
                };
                for entry in entries {
                    names.push(entry.map_err(failed)?.path());
                }
                // The stack gives the last one first.
                names.sort_by(|a, b| b.cmp(a));
                waiting.extend(names);
            } else if stat.is_file() && after.as_ref().is_none_or(|after| path > *after) {
                let place = encode(&path);
                if !feed.push(path, place) {
                    return Ok(());
                }
            }
        }
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
