//! Archives that the coordinator accepted and then forgot: it was stopped, or its MDT restarted. Somebody was told that
//! they are queued, and nobody sends them again; so they are asked for once more.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::action::{ActionKey, FileSystem, HsmError, Item, Kind, Verb};
use crate::transfer::Control;
use crate::types::{ArchiveId, Fid};

/// What waits to be asked for; more are only told of.
const MOST: usize = 1_000_000;

/// What to do about a forgotten archive.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnForgotten {
    /// Ask for it again.
    #[default]
    AskAgain,
    /// Say it.
    Log,
}

/// Those that nobody has asked for again yet.
#[derive(Debug)]
pub struct Forgotten {
    what: OnForgotten,
    /// Until the coordinator has been asked how it came: it may be stopped still.
    pause: Duration,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    due: BTreeSet<(Instant, ActionKey)>,
    archives: HashMap<ActionKey, Option<ArchiveId>>,
}

impl Forgotten {
    /// Nothing is forgotten yet.
    #[must_use]
    pub fn new(what: OnForgotten, pause: Duration) -> Self {
        Self {
            what,
            pause,
            waiting: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The coordinator says that it does not know an archive that it gave out. Does not wait.
    pub fn note(&self, key: ActionKey, id: Option<ArchiveId>) {
        if self.what == OnForgotten::Log {
            tracing::warn!(fid = %key.fid, cookie = %key.cookie, "the coordinator does not know an archive any more: ask for it again");
            return;
        }
        self.wait(key, id);
    }

    fn wait(&self, key: ActionKey, id: Option<ArchiveId>) {
        let mut waiting = self.lock();
        if waiting.archives.contains_key(&key) {
            return;
        }
        if waiting.archives.len() >= MOST {
            tracing::warn!(fid = %key.fid, "too many archives are forgotten: ask for this one again");
            return;
        }
        waiting.archives.insert(key, id);
        waiting.due.insert((Instant::now() + self.pause, key));
    }

    /// The same for what a worker ended.
    pub(super) fn note_end(&self, item: &Item, error: Option<&HsmError>) {
        if item.kind == Kind::Do(Verb::Archive) && error.is_some_and(HsmError::is_not_found) {
            self.note(item.key(), item.archive_id);
        }
    }

    fn next(&self, now: Instant) -> Option<(ActionKey, Option<ArchiveId>)> {
        let mut waiting = self.lock();
        let (_, key) = waiting.due.first().copied().filter(|(at, _)| *at <= now)?;
        waiting.due.pop_first();
        let id = waiting.archives.remove(&key)?;
        Some((key, id))
    }

    /// Asks for those whose time has come; blocks. Those of an MDT that does not answer wait for it.
    pub(super) fn look(&self, fs: &dyn FileSystem, control: &Control, is_silent: impl Fn(Fid) -> bool) {
        let now = Instant::now();
        while control.stopped().is_none()
            && let Some((key, id)) = self.next(now)
        {
            let fid = key.fid;
            if is_silent(fid) {
                self.wait(key, id);
                continue;
            }
            match fs.ask_again(fid, id) {
                Ok(true) => {
                    tracing::info!(%fid, cookie = %key.cookie, "the coordinator forgot an archive; it was asked for again");
                }
                // Ended by the coordinator itself, or done by somebody else.
                Ok(false) => tracing::debug!(%fid, cookie = %key.cookie, "not asked for again: nobody waits for it"),
                Err(error) if error.is_not_found() => {}
                // It is off still, or restarts.
                Err(error) if error.class().is_off() => self.wait(key, id),
                Err(error) => {
                    tracing::warn!(%fid, %error, "the coordinator forgot an archive, and it can't be asked for again");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Cookie;

    #[test]
    fn what_was_forgotten_twice_is_asked_for_once_and_after_a_while() {
        let key = |oid| ActionKey {
            cookie: Cookie(7),
            fid: Fid {
                seq: 0x2_0000_0401,
                oid,
                ver: 0,
            },
        };
        let forgotten = Forgotten::new(OnForgotten::AskAgain, Duration::from_secs(10));
        let id = ArchiveId::new(1);
        forgotten.note(key(1), id);
        forgotten.note(key(1), id);
        forgotten.note(key(2), id);
        assert_eq!(forgotten.next(Instant::now()), None);
        let later = Instant::now() + Duration::from_secs(20);
        let mut due: Vec<_> = std::iter::from_fn(|| forgotten.next(later))
            .map(|(key, _)| key.fid.oid)
            .collect();
        due.sort_unstable();
        assert_eq!(due, [1, 2]);
        let told = Forgotten::new(OnForgotten::Log, Duration::ZERO);
        told.note(key(1), id);
        assert_eq!(told.next(later), None);
    }
}
