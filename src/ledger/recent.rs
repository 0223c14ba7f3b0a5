//! Which files' copies changed in the last day, in plain files beside the journal: a replica that is promoted has lost the
//! last rows, and a server that is away for long gets none. What their copies are now the journal knows.
//!
//! A file for each hour, 24 bytes for each change. Nothing is synced: what a node that loses its power forgets here is left
//! to a scrub, as what it forgets in the journal.

use std::fs::File;
use std::io::{self, BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};

use super::LedgerError;
use super::rows::{fid_bytes, fid_of};
use crate::types::Fid;

const HOUR: i64 = 3_600_000;
/// Of files, while the ledger has all: a day, and the hour that has begun.
const KEPT: i64 = 25 * HOUR;
/// Bytes of all files: with more than 40 million changes while the ledger is away the oldest go.
const MOST: u64 = 1 << 30;
const RECORD: usize = 24;
const PREFIX: &str = "copies-";

/// A change of a file's copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Mark {
    pub(super) fid: Fid,
    /// When it was, in milliseconds of this node's clock.
    pub(super) stamp: i64,
    /// The file has no copy any more. On disk its time is negative then.
    pub(super) is_gone: bool,
}

/// The files, in a directory of their own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Recent {
    directory: PathBuf,
}

impl Recent {
    pub(super) const fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Writes changes down.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn add(&self, marks: &[Mark]) -> Result<(), LedgerError> {
        let Some(last) = marks.last() else {
            return Ok(());
        };
        let path = self.directory.join(format!("{PREFIX}{}", last.stamp.div_euclid(HOUR)));
        append(&path, marks).map_err(|source| LedgerError::OwnFile { path, source })
    }

    /// All of them, the oldest first, file by file.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let mut files = self.numbered();
        files.sort_unstable();
        files.into_iter().map(|(_, path)| path).collect()
    }

    /// What a file has; half a record at its end is none.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn read(path: &Path) -> Result<Vec<Mark>, LedgerError> {
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|mut file| file.read_to_end(&mut bytes));
        read.map_err(|source| LedgerError::OwnFile {
            path: path.to_owned(),
            source,
        })?;
        let marks = bytes.chunks_exact(RECORD).filter_map(|record| {
            let (fid, stamp) = record.split_at_checked(16)?;
            let stamp = i64::from_be_bytes(stamp.try_into().ok()?);
            Some(Mark {
                fid: fid_of(fid)?,
                stamp: stamp.saturating_abs(),
                is_gone: stamp < 0,
            })
        });
        Ok(marks.collect())
    }

    /// Takes away what is older than a day. `complete`: the ledger has all of it; else only what is too much.
    pub(super) fn trim(&self, now: i64, complete: bool) {
        let mut files = self.numbered();
        files.sort_unstable();
        let size = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
        let mut total: u64 = files.iter().map(|(_, path)| size(path)).sum();
        for (hour, path) in files {
            let is_old = complete && hour.saturating_mul(HOUR) < now.saturating_sub(KEPT);
            if !is_old && total <= MOST {
                continue;
            }
            total = total.saturating_sub(size(&path));
            if let Err(error) = std::fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "can't be removed");
            } else if !is_old {
                tracing::warn!(
                    path = %path.display(),
                    "the ledger has been away for so long that copies of unlinked files will be unknown to other movers"
                );
            }
        }
    }

    fn numbered(&self) -> Vec<(i64, PathBuf)> {
        let Ok(entries) = std::fs::read_dir(&self.directory) else {
            return Vec::new();
        };
        let numbered = entries.flatten().filter_map(|entry| {
            let name = entry.file_name();
            let hour = name.to_str()?.strip_prefix(PREFIX)?.parse().ok()?;
            Some((hour, entry.path()))
        });
        numbered.collect()
    }
}

fn append(path: &Path, marks: &[Mark]) -> io::Result<()> {
    let mut file = File::options().create(true).append(true).open(path)?;
    let length = file.metadata()?.len();
    let half = length % RECORD as u64;
    if half != 0 {
        // A daemon was killed, or the disk full, in the middle of one.
        file.set_len(length - half)?;
    }
    let mut out = BufWriter::new(&mut file);
    for mark in marks {
        out.write_all(&fid_bytes(mark.fid))?;
        let stamp = if mark.is_gone { -mark.stamp } else { mark.stamp };
        out.write_all(&stamp.to_be_bytes())?;
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn fid(oid: u32) -> Fid {
        Fid {
            seq: 0x2_0000_0401,
            oid,
            ver: 0,
        }
    }

    const fn mark(oid: u32, stamp: i64) -> Mark {
        Mark {
            fid: fid(oid),
            stamp,
            is_gone: oid.is_multiple_of(2),
        }
    }

    #[test]
    fn changes_of_the_last_day_are_found_again_also_behind_half_a_record() {
        let dir = tempfile::tempdir().unwrap();
        let recent = Recent::new(dir.path().to_owned());
        recent.add(&[mark(1, 5), mark(2, 6)]).unwrap();
        let path = recent.files().remove(0);
        let whole = std::fs::metadata(&path).unwrap().len();
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(whole - 3)
            .unwrap();
        recent.add(&[mark(3, 7)]).unwrap();
        recent.add(&[mark(4, HOUR + 1)]).unwrap();
        let files = recent.files();
        assert_eq!(files.len(), 2);
        assert_eq!(Recent::read(&files[0]).unwrap(), [mark(1, 5), mark(3, 7)]);
        assert_eq!(Recent::read(&files[1]).unwrap(), [mark(4, HOUR + 1)]);
    }

    #[test]
    fn what_is_older_than_a_day_goes_only_once_the_ledger_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let recent = Recent::new(dir.path().to_owned());
        recent.add(&[mark(1, 5)]).unwrap();
        recent.add(&[mark(2, 30 * HOUR)]).unwrap();
        recent.trim(30 * HOUR, false);
        assert_eq!(recent.files().len(), 2);
        recent.trim(30 * HOUR, true);
        assert_eq!(Recent::read(&recent.files()[0]).unwrap(), [mark(2, 30 * HOUR)]);
    }
}
