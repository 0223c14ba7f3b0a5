//! Everything is looked at once: at the beginning, and when records were lost.

use std::io::ErrorKind;
use std::path::Path;

use super::state::{FollowState, POLL};
use super::{FollowCounts, FollowError};
use crate::action::FileSystem as _;
use crate::walk::Node;

/// Looked at together; whatever happens meanwhile waits for no more than these.
const LOT: usize = 1000;

type Each<'a, S> = dyn FnMut(&mut S, Vec<Node>) -> Result<(), FollowError> + 'a;

impl FollowState<'_> {
    /// Files, directories and symlinks that are there; then what the book has of those that are not.
    pub(super) fn scan(&mut self, tick: &mut dyn FnMut(&FollowCounts)) -> Result<(), FollowError> {
        tracing::info!("looking through the whole file system");
        self.counts.scans += 1;
        self.demanded = false;
        let root = self.follow.mount.path().to_owned();
        let had_none = self.copy_index.fids_after(None, 1)?.is_empty();
        self.walk(&root, &mut |state, nodes| {
            let mut to_archive = Vec::new();
            // All are walked to anyhow.
            for moved in state.look_at(&nodes, &mut to_archive)? {
                state.copy_index.put(&[(moved.fid, Some(moved.known))])?;
                state.pending.settle(moved.fid);
            }
            tick(&state.counts);
            state.archive(to_archive)?;
            state.meanwhile()?;
            let is_full = |state: &Self| !state.follow.once && state.asked.len() >= state.follow.window;
            while is_full(state) && !state.follow.stopped() {
                std::thread::park_timeout(POLL);
                state.meanwhile()?;
                tick(&state.counts);
            }
            Ok(())
        })?;
        let mut after = None;
        // What was written down since was there just now.
        while !had_none && !self.follow.stopped() {
            let fids = self.copy_index.fids_after(after, LOT)?;
            let Some(last) = fids.last().copied() else {
                break;
            };
            after = Some(last);
            let paths = self.each(&fids, |looker, fid| (*fid, looker.follow.mount.path_of(*fid)));
            // Their ends wait for what happens meanwhile.
            for (fid, path) in paths {
                if path.is_err_and(|error| error.is_not_found()) {
                    self.pending.reopen(fid, std::time::Instant::now());
                }
            }
        }
        if self.follow.stopped() {
            return Ok(());
        }
        for feed in &self.feeds {
            if self.copy_index.place(feed.mdt)?.is_none() {
                self.copy_index.set_place(feed.mdt, 0)?;
            }
        }
        if !self.demanded {
            self.copy_index.owe_scan(false)?;
        }
        Ok(())
    }

    /// Everything below a directory, some at a time.
    pub(super) fn walk(&mut self, root: &Path, each: &mut Each<'_, Self>) -> Result<(), FollowError> {
        let mut directories = vec![Node::new(root.to_owned())];
        let mut lot = Vec::new();
        while let Some(directory) = directories.pop() {
            if self.follow.stopped() {
                return Ok(());
            }
            for (found, is_dir) in self.entries(&directory)? {
                if is_dir {
                    directories.push(found.clone());
                }
                lot.push(found);
                if lot.len() >= LOT {
                    each(self, std::mem::take(&mut lot))?;
                }
            }
        }
        each(self, lot)
    }

    /// And whether each is a directory. One that can't be read is said, and is tried again with the next scan.
    fn entries(&mut self, directory: &Node) -> Result<Vec<(Node, bool)>, FollowError> {
        let is_root = directory.path() == self.follow.mount.path();
        let read = || -> std::io::Result<Vec<(Node, bool)>> {
            let mut found = Vec::new();
            for entry in directory.read()? {
                let (node, entry) = entry?;
                if !(is_root && entry.file_name() == ".lustre") {
                    found.push((node, entry.file_type().is_ok_and(|kind| kind.is_dir())));
                }
            }
            Ok(found)
        };
        match read() {
            Ok(found) => Ok(found),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) && !is_root => {
                Ok(Vec::new())
            }
            Err(error) => {
                self.pass_over(directory.path(), error)?;
                Ok(Vec::new())
            }
        }
    }

    /// Without the file system nothing would be found anywhere; without one name, all others are.
    pub(super) fn pass_over(&mut self, path: &Path, source: std::io::Error) -> Result<(), FollowError> {
        let mount = self.follow.mount;
        if path == mount.path() || !mount.is_there() {
            return Err(FollowError::Local {
                path: path.to_owned(),
                source,
            });
        }
        tracing::warn!(path = %path.display(), error = %source, "can't be read");
        self.counts.failed += 1;
        // Whoever has all of a directory dealt with learns that this was not all.
        self.put_back += 1;
        Ok(())
    }
}
