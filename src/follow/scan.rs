//! Everything is looked at once: at the beginning, and when records were lost.

use std::path::{Path, PathBuf};

use super::state::State;
use super::{Counts, FollowError, is_passing};
use crate::action::FileSystem as _;
use crate::types::Fid;

/// Looked at together.
const LOT: usize = 1000;

type Each<'a, S> = dyn FnMut(&mut S, Vec<Fid>) -> Result<(), FollowError> + 'a;

impl State<'_> {
    /// Files, directories and symlinks that are there; then what the book has of those that are not.
    pub(super) fn scan(&mut self, tick: &mut dyn FnMut(&Counts)) -> Result<(), FollowError> {
        tracing::info!("looking through the whole file system");
        self.counts.scans += 1;
        let root = self.follow.mount.path().to_owned();
        self.walk(&root, &mut |state, fids| {
            let mut to_archive = Vec::new();
            // All are walked to anyhow.
            for moved in state.look(fids, &mut to_archive, true)? {
                state.book.put(&[(moved.fid, Some(moved.known))])?;
                state.pending.settle(moved.fid);
            }
            tick(&state.counts);
            state.archive(to_archive)
        })?;
        let mut after = None;
        while !self.follow.stopped() {
            let fids = self.book.fids_after(after, LOT)?;
            let Some(last) = fids.last().copied() else {
                break;
            };
            after = Some(last);
            let is_gone = |fid: &Fid| self.follow.mount.path_of(*fid).is_err_and(|error| error.is_not_found());
            let gone: Vec<_> = fids.into_iter().filter(is_gone).collect();
            // Their ends wait for what happens meanwhile.
            for fid in &gone {
                self.pending.reopen(*fid, std::time::Instant::now());
            }
        }
        if self.follow.stopped() {
            return Ok(());
        }
        for (mdt, _) in &self.mdts {
            if self.book.place(*mdt)?.is_none() {
                self.book.set_place(*mdt, 0)?;
            }
        }
        self.book.owe_scan(false)?;
        Ok(())
    }

    /// Everything below a directory, some at a time.
    pub(super) fn walk(&mut self, root: &Path, each: &mut Each<'_, Self>) -> Result<(), FollowError> {
        let mut directories = vec![root.to_owned()];
        let mut lot = Vec::new();
        while let Some(directory) = directories.pop() {
            if self.follow.stopped() {
                return Ok(());
            }
            for entry in self.entries(&directory)? {
                let Some(fid) = self.fid_of(&entry)? else {
                    continue;
                };
                lot.push(fid);
                if lot.len() >= LOT {
                    each(self, std::mem::take(&mut lot))?;
                }
                if entry.symlink_metadata().is_ok_and(|stat| stat.is_dir()) {
                    directories.push(entry);
                }
            }
        }
        each(self, lot)
    }

    /// One that can't be read is said, and is tried again with the next scan.
    fn entries(&mut self, directory: &Path) -> Result<Vec<PathBuf>, FollowError> {
        let is_root = directory == self.follow.mount.path();
        let read = || -> std::io::Result<Vec<PathBuf>> {
            let mut found = Vec::new();
            for entry in std::fs::read_dir(directory)? {
                let entry = entry?;
                if !(is_root && entry.file_name() == ".lustre") {
                    found.push(entry.path());
                }
            }
            Ok(found)
        };
        match read() {
            Ok(found) => Ok(found),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => Ok(Vec::new()),
            // Without the file system, nothing would be found anywhere.
            Err(source) if is_root || source.raw_os_error().is_some_and(is_passing) => Err(FollowError::Local {
                path: directory.to_owned(),
                source,
            }),
            Err(error) => {
                tracing::warn!(directory = %directory.display(), %error, "can't be read");
                self.counts.failed += 1;
                Ok(Vec::new())
            }
        }
    }

    /// `None`: gone meanwhile.
    fn fid_of(&self, path: &Path) -> Result<Option<Fid>, FollowError> {
        match self.follow.mount.fid_at(path) {
            Ok(fid) => Ok(Some(fid)),
            Err(error) if matches!(error.errno, libc::ENOENT | libc::ENOTDIR) => Ok(None),
            Err(error) => Err(FollowError::Local {
                path: path.to_owned(),
                source: std::io::Error::from_raw_os_error(error.errno),
            }),
        }
    }
}
