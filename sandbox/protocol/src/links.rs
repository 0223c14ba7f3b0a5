//! Which files have a link of the sandbox's own, below `.lustre/fid`: it is no name that a user gave them, and link counts
//! leave it out.
//!
//! Kept as a symlink for each inode, for whoever is asked from within a stat.

use std::io;
use std::path::{Path, PathBuf};

/// Below the mount point.
pub const LINKS: &str = ".lustre/linked";

fn place(mount: &Path, inode: u64) -> PathBuf {
    mount.join(LINKS).join(inode.to_string())
}

/// Whether one of an inode's links is the sandbox's.
#[must_use]
pub fn is_linked(mount: &Path, inode: u64) -> bool {
    // No stat: this is called from within one.
    std::fs::read_link(place(mount, inode)).is_ok()
}

/// From now on one of them is: it has to be there before.
///
/// # Errors
/// Those of the directory's file system.
pub fn add(mount: &Path, inode: u64) -> io::Result<()> {
    match std::os::unix::fs::symlink("fid", place(mount, inode)) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        added => added,
    }
}

/// From now on none of them is: another file may get the inode.
///
/// # Errors
/// Those of the directory's file system.
pub fn remove(mount: &Path, inode: u64) -> io::Result<()> {
    match std::fs::remove_file(place(mount, inode)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_counts_until_it_is_taken_away() {
        let mount = std::env::temp_dir().join(format!("lhsm-links-{}", std::process::id()));
        std::fs::create_dir_all(mount.join(LINKS)).unwrap();
        assert!(!is_linked(&mount, 7));
        add(&mount, 7).unwrap();
        add(&mount, 7).unwrap();
        assert!(is_linked(&mount, 7) && !is_linked(&mount, 8));
        remove(&mount, 7).unwrap();
        remove(&mount, 7).unwrap();
        assert!(!is_linked(&mount, 7));
        std::fs::remove_dir_all(mount).unwrap();
    }
}
