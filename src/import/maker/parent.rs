//! The directory that an object goes into, and what makes way for it.

use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{Maker, Trouble, location_at, lock};
use crate::import::path::TreePath;
use crate::import::report::Outcome;
use crate::import::tree::Dir;
use crate::types::ErrorClass;

/// Of a file that is in a directory's way, while another thread may be making it.
const TRIES: u32 = 400;
const BETWEEN_TRIES: Duration = Duration::from_millis(5);

impl Maker<'_> {
    /// The directory that an object goes into.
    pub(super) fn parent(&self, path: &TreePath) -> Result<Arc<Dir>, Trouble> {
        let mut tries = 0;
        loop {
            tries += 1;
            let error = match self.shared.tree.dir(path.parent()) {
                Ok(dir) => return Ok(dir),
                Err(error) => error,
            };
            match ErrorClass::of_io(&error) {
                // `a` came before `a/b`: the directory wins, whatever the order.
                ErrorClass::NoDirectory if tries < TRIES && self.clear_way(path.parent())? => {}
                ErrorClass::NoDirectory => {
                    return Err(Trouble::Conflict("a file is where its directory must be".into()));
                }
                ErrorClass::Symlink | ErrorClass::Outside => {
                    return Err(Trouble::Refused("a symlink is where its directory must be".into()));
                }
                _ => return Err(self.error(path, "open the directory of", error)),
            }
        }
    }

    /// Whether a file made way for a directory of its name, and is counted as refused.
    pub(super) fn made_way(&self, key: &[u8]) -> bool {
        let cleared = lock(&self.shared.cleared);
        !cleared.is_empty() && std::str::from_utf8(key).is_ok_and(|key| cleared.contains(key))
    }

    /// Takes a released file of this import away where a directory must be. `false`: it is none.
    fn clear_way(&self, dir: &Path) -> Result<bool, Trouble> {
        let mut ancestors: Vec<_> = dir.ancestors().collect();
        ancestors.reverse();
        for ancestor in ancestors {
            let Ok(path) = TreePath::recorded(ancestor.as_os_str().as_bytes()) else {
                continue;
            };
            let parent = match self.shared.tree.dir(path.parent()) {
                Ok(parent) => parent,
                Err(error) => return Err(self.error(&path, "open the directory of", error)),
            };
            let stat = parent.stat(path.name()).ok().flatten();
            let Some(stat) = stat.filter(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFREG) else {
                continue;
            };
            let at = parent.at(path.name()).path();
            let key = format!("{}{}", self.shared.prefix, path.as_path().display());
            let ours = self.shared.mount.states_at(&at).is_ok_and(|states| states.released())
                && location_at(&at).is_some_and(|location| location.key.as_str() == key);
            if !ours {
                // Its maker may be at it this moment, and takes it away itself then.
                let being_made = lock(&self.shared.cleared).contains(&key);
                if being_made {
                    std::thread::park_timeout(BETWEEN_TRIES);
                }
                return Ok(being_made);
            }
            // Said before it is done: whoever makes the file meanwhile finds it.
            let first = lock(&self.shared.cleared).insert(key.clone());
            match parent.remove(path.name()) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(self.error(&path, "remove", error)),
            }
            if first {
                self.count(|counts| {
                    if stat.st_ctime > self.shared.began {
                        // It was counted when it was made.
                        counts.imported = counts.imported.saturating_sub(1);
                    }
                    counts.refused += 1;
                });
                let reason = "the bucket has keys below it as well: the directory wins";
                self.shared.report.say(Outcome::Refused, key.as_bytes(), reason);
            }
            return Ok(true);
        }
        Ok(false)
    }
}
