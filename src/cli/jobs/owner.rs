//! Which rows of the ledger are jobs of this node: by the random numbers of the processes that were at a job, in a file beside its
//! database.

use std::io;
use std::path::{Path, PathBuf};

use crate::disk::replace;

/// Processes that are remembered: those after the last one that the ledger may not have heard of.
const KNOWN: usize = 8;

/// The processes that were at one job on this node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct JobOwners {
    pid: u32,
    /// The newest first.
    numbers: Vec<i64>,
}

impl JobOwners {
    /// As they are written down; `None`: no process of this node told the ledger of that job.
    pub(super) fn read(directory: &Path, id: &str) -> Option<Self> {
        let text = std::fs::read_to_string(path(directory, id)).ok()?;
        let mut words = text.split_whitespace();
        Some(Self {
            pid: words.next()?.parse().ok()?,
            numbers: words.filter_map(|word| word.parse().ok()).collect(),
        })
    }

    /// This process is at it from now on: its number, and those before it.
    pub(super) fn add(directory: &Path, id: &str) -> io::Result<(i64, Vec<i64>)> {
        let former = Self::read(directory, id)
            .map(|owners| owners.numbers)
            .unwrap_or_default();
        let number = fastrand::i64(..);
        let mut text = format!("{} {number}", std::process::id());
        for former in former.iter().take(KNOWN - 1) {
            text.push_str(&format!(" {former}"));
        }
        replace(&path(directory, id), text.as_bytes())?;
        Ok((number, former))
    }

    /// It did not come to it.
    pub(super) fn forget(directory: &Path, id: &str) {
        // What is left says no more than that a number is this node's.
        let _left = std::fs::remove_file(path(directory, id));
    }

    /// Whether the process is or was one of this node's.
    pub(super) fn has(&self, owner: i64) -> bool {
        self.numbers.contains(&owner)
    }

    /// The last of them is gone.
    pub(super) fn are_over(&self) -> bool {
        !Path::new("/proc").join(self.pid.to_string()).exists()
    }
}

fn path(directory: &Path, id: &str) -> PathBuf {
    directory.join(format!("{id}.owner"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_knows_the_processes_that_it_had_and_whether_the_last_one_lives() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(JobOwners::read(dir.path(), "archive-1"), None);
        let mut numbers = Vec::new();
        for _ in 0..2 * KNOWN {
            let (number, former) = JobOwners::add(dir.path(), "archive-1").unwrap();
            assert_eq!(former.first(), numbers.last());
            numbers.push(number);
        }
        let owners = JobOwners::read(dir.path(), "archive-1").unwrap();
        assert!(!owners.are_over());
        let known = numbers.iter().filter(|number| owners.has(**number)).count();
        assert_eq!((known, owners.has(numbers[2 * KNOWN - 1])), (KNOWN, true));
        std::fs::write(path(dir.path(), "archive-1"), "4194305 7").unwrap();
        let owners = JobOwners::read(dir.path(), "archive-1").unwrap();
        assert!(owners.are_over() && owners.has(7), "no process has such a number");
        JobOwners::forget(dir.path(), "archive-1");
        assert_eq!(JobOwners::read(dir.path(), "archive-1"), None);
    }
}
