//! Everything is looked at once: at the beginning, and when records were lost.

use std::path::{Path, PathBuf};

use super::{Counts, FollowError, State};
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
            drop(state.look(fids, &mut to_archive, true)?);
            tick(&state.counts);
            state.archive(to_archive)
        })?;
        let mut after = None;
        while !self.follow.stopped() {
            let fids = self.book.fids_after(after, LOT)?;
            let Some(last) = fids.last().copied() else {
                return Ok(());
            };
            after = Some(last);
            let gone = fids
                .into_iter()
                .filter(|fid| {
                    crate::action::FileSystem::path_of(self.follow.mount, *fid).is_err_and(|error| error.is_not_found())
                })
                .collect();
            let mut nothing = Vec::new();
            drop(self.look(gone, &mut nothing, false)?);
        }
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

    fn entries(&self, directory: &Path) -> Result<Vec<PathBuf>, FollowError> {
        let failed = |source| FollowError::Local {
            path: directory.to_owned(),
            source,
        };
        let entries = match std::fs::read_dir(directory) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let is_root = directory == self.follow.mount.path();
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            if !(is_root && entry.file_name() == ".lustre") {
                found.push(entry.path());
            }
        }
        Ok(found)
    }

    /// `None`: gone meanwhile.
    fn fid_of(&self, path: &Path) -> Result<Option<Fid>, FollowError> {
        match self.follow.mount.fid_at(path) {
            Ok(fid) => Ok(Some(fid)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(FollowError::Local {
                path: path.to_owned(),
                source: std::io::Error::from_raw_os_error(error.errno),
            }),
        }
    }
}
