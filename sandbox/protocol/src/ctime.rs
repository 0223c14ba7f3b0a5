//! The ctime that a file of the sandbox shows. Nobody can set the one of the directory's own file system, which every link
//! and every attribute changes; on Lustre some of that leaves it, and a copytool can put it back.
//!
//! Kept as the target of a symlink for each inode: what is to be shown, and for which real ctime. One that has moved on is
//! somebody's change, and counts itself.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Below the mount point.
pub const CTIMES: &str = ".lustre/ctime";

/// Seconds and nanoseconds since 1970.
pub type Time = (i64, i64);

fn place(mount: &Path, inode: u64) -> PathBuf {
    mount.join(CTIMES).join(inode.to_string())
}

/// What an inode shows whose ctime is really `real`.
#[must_use]
pub fn shown(mount: &Path, inode: u64, real: Time) -> Time {
    // No stat: this is called from within one.
    let kept = std::fs::read_link(place(mount, inode)).ok();
    let kept = kept.as_ref().and_then(|kept| kept.to_str()).and_then(parse);
    kept.filter(|(of, _)| *of == real).map_or(real, |(_, shown)| shown)
}

/// Has the file at `path` show that from now on, until somebody changes it.
///
/// # Errors
/// Those of the directory's file system.
pub fn show(mount: &Path, path: &Path, shown: Time) -> io::Result<()> {
    let stat = std::fs::symlink_metadata(path)?;
    let place = place(mount, stat.ino());
    match std::fs::remove_file(&place) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let text = format!("{} {} {} {}", stat.ctime(), stat.ctime_nsec(), shown.0, shown.1);
    std::os::unix::fs::symlink(text, place)
}

fn parse(text: &str) -> Option<(Time, Time)> {
    let mut numbers = text.split(' ').map(str::parse);
    let mut next = || numbers.next()?.ok();
    Some(((next()?, next()?), (next()?, next()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_reads_back() {
        assert_eq!(parse("1 2 -3 4"), Some(((1, 2), (-3, 4))));
        assert_eq!(parse("1 2 3"), None);
    }
}
