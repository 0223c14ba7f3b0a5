//! Regular files below some paths. What can't be read is told, and the walk goes on.

use std::convert::Infallible;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;

use super::{Rebind, RebindLine};
use crate::walk::{self, Named, Node, Order, Visit};

/// As directories give them.
pub(super) fn walk(rebind: &Rebind<'_>, paths: &[PathBuf], feed: &SyncSender<Named>, to: &SyncSender<RebindLine>) {
    let mut feeding = Feeding { rebind, feed, to };
    let Ok(()) = walk::walk(rebind.mount.path(), paths, Order::AsFound, &mut feeding);
}

struct Feeding<'a> {
    rebind: &'a Rebind<'a>,
    feed: &'a SyncSender<Named>,
    to: &'a SyncSender<RebindLine>,
}

impl Visit for Feeding<'_> {
    type Error = Infallible;

    fn is_over(&self) -> bool {
        self.rebind.control.stopped().is_some()
    }

    fn file(&mut self, file: Node) -> Result<bool, Infallible> {
        let path = file.path().to_owned();
        match file.into_named(self.rebind.mount) {
            Ok(file) => return Ok(self.feed.send(file).is_ok()),
            Err(error) if error.is_not_found() => {}
            Err(error) => self.rebind.unreadable(&path, &error, self.to),
        }
        Ok(true)
    }

    fn unread(&mut self, path: &Path, error: &std::io::Error) -> Result<(), Infallible> {
        // Renamed or unlinked meanwhile.
        if error.kind() != ErrorKind::NotFound {
            self.rebind.unreadable(path, error, self.to);
        }
        Ok(())
    }
}
