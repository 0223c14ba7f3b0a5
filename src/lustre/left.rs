//! What C has of actions that were begun here and that somebody else may do by now: freeing one tells its MDT that the action
//! failed, by its cookie. So they wait until it is over.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Mount;
use super::handles::CopyAction;
use crate::action::{ActionKey, FileSystem as _};
use crate::types::{Extent, Fid};

/// Before the first look at whether an action is over, and between two of them.
const PAUSE: Duration = Duration::from_secs(60);
/// With more the oldest stay with C until this process ends: each has a descriptor.
const MOST: usize = 1000;

/// Those of an agent.
#[derive(Debug, Default)]
pub(super) struct LeftHandles(Mutex<Vec<LeftHandle>>);

#[derive(Debug)]
struct LeftHandle {
    key: ActionKey,
    handle: CopyAction,
    due: Instant,
}

impl LeftHandles {
    fn lock(&self) -> MutexGuard<'_, Vec<LeftHandle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what was begun of an action.
    pub(super) fn keep(&self, key: ActionKey, handles: impl Iterator<Item = CopyAction>) {
        let due = Instant::now() + PAUSE;
        let mut left = self.lock();
        left.extend(handles.map(|handle| LeftHandle { key, handle, due }));
        let over = left.len().saturating_sub(MOST);
        left.drain(..over).for_each(|oldest| oldest.handle.leave());
    }

    /// Frees those whose action is over, of the files on the MDT that this one is on: that has just answered. Blocks.
    pub(super) fn free(&self, mount: &Mount, beside: Fid) {
        let now = Instant::now();
        if self.lock().iter().all(|left| left.due > now) {
            return;
        }
        let sequences = mount.sequences();
        let mdt = sequences.domain(beside);
        let (due, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut *self.lock())
            .into_iter()
            .partition(|left| left.due <= now && sequences.domain(left.key.fid) == mdt);
        self.lock().extend(rest);
        for left in due {
            if !is_over(mount, left.key.fid) {
                self.keep(left.key, std::iter::once(left.handle));
            } else if let Err(error) = left.handle.end(Extent::EMPTY, false, libc::EIO) {
                // ENOENT, of an action that is over.
                tracing::debug!(%error, "what was begun of an action that another mover has done is freed");
            }
        }
    }

    /// Leaves all of them to C, until this process ends.
    pub(super) fn leave(&self) {
        self.lock().drain(..).for_each(|left| left.handle.leave());
    }
}

/// Whether no restore of a file is under way. The coordinator is not asked: it would take that for a sign of life of whoever has
/// the action.
fn is_over(mount: &Mount, fid: Fid) -> bool {
    match mount.is_released(fid) {
        Ok(released) => !released,
        Err(error) => error.is_not_found(),
    }
}
