//! What the daemon does about other movers' actions: those of a dead one come to its queue as those of its own journal do, and
//! what others have taken from it is let go of, without an answer.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::reach::Reach;
use super::takeover::Takeover;
use crate::action::{ActionKey, Item, Verb};
use crate::ledger::Heir;
use crate::queue::Cancelled;
use crate::store::Targets;
use crate::transfer::Stop;
use crate::types::{ArchiveId, Fid, Mdt, OutOfReach};

/// Threads that ask the coordinators about what was taken over; with more nothing is taken over meanwhile.
const MOST_HANDING: usize = 64;

/// The daemon's queue and journal.
pub(super) struct FleetHeir {
    takeover: Takeover,
    reach: Reach,
    /// It takes nothing new.
    draining: Arc<AtomicBool>,
    /// Others have them, and a worker here has not let go of them yet.
    leaving: Mutex<Vec<Leaving>>,
}

/// An action that another mover has.
struct Leaving {
    key: ActionKey,
    /// That one died meanwhile, and it is this mover's again: it comes to the queue once the worker has let go of it.
    back: Option<Item>,
}

impl fmt::Debug for FleetHeir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FleetHeir").finish_non_exhaustive()
    }
}

impl FleetHeir {
    pub(super) fn new(takeover: Takeover, targets: Targets, draining: Arc<AtomicBool>) -> Self {
        Self {
            reach: Reach::new(takeover.clone(), targets),
            takeover,
            draining,
            leaving: Mutex::new(Vec::new()),
        }
    }
}

impl Heir for FleetHeir {
    fn archives(&self) -> Vec<ArchiveId> {
        let Takeover {
            agent, queue, handing, ..
        } = &self.takeover;
        if self.draining.load(Ordering::Relaxed) || queue.is_parked() || handing.load(Ordering::SeqCst) >= MOST_HANDING
        {
            return Vec::new();
        }
        agent.upgrade().map(|agent| agent.archives()).unwrap_or_default()
    }

    fn inherit(&self, peer: &str, mut items: Vec<Item>) {
        let mut leaving = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
        items.retain(|item| {
            let here = leaving.iter_mut().find(|leaving| leaving.key == item.key());
            let is_here = here.is_some();
            if let Some(here) = here {
                here.back = Some(item.clone());
                self.takeover.queue.reserve(item);
            }
            !is_here
        });
        drop(leaving);
        if items.is_empty() {
            return;
        }
        let actions = items.len();
        // Whatever it does not come to stays in the journal.
        if let Err(error) = self.takeover.hand_over(items) {
            tracing::error!(%error, mover = peer, actions, "left in the journal: no thread to take them over");
        }
    }

    fn give_up(&self, keys: Vec<ActionKey>) -> Vec<ActionKey> {
        let Takeover { context, queue, .. } = &self.takeover;
        let mut held = Vec::new();
        for key in keys {
            // Before it goes, and the next of its file gets its place.
            held.extend(queue.hold_others(key));
            match queue.cancel(key, Stop::HandOn) {
                Cancelled::Waiting(handle) => {
                    handle.disown();
                    context.journal.lost(key, false);
                }
                Cancelled::Running => {
                    queue.unreserve(key);
                    let mut leaving = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
                    leaving.retain(|leaving| leaving.key != key);
                    leaving.push(Leaving { key, back: None });
                }
                // It may be on its way there, from the journal of a former daemon.
                Cancelled::Unknown => context.journal.lost(key, true),
            }
        }
        self.look();
        // Of several of one file each holds the others.
        held.retain(|key| queue.verb(*key).is_some());
        held
    }

    fn hold(&self, key: ActionKey, mover: &str) -> bool {
        let is_held = self.takeover.queue.hold(key);
        if is_held {
            tracing::info!(
                fid = %key.fid, cookie = %key.cookie, mover,
                "another mover has an action of the file: this one waits for it"
            );
        }
        is_held
    }

    fn holds_up(&self, key: ActionKey) -> bool {
        self.takeover.queue.holds_up(key)
    }

    fn let_go(&self, key: ActionKey) {
        if self.takeover.queue.let_go(key) {
            tracing::info!(fid = %key.fid, cookie = %key.cookie, "no other mover is at the file any more");
        }
    }

    fn out_of_reach(&self) -> Vec<(OutOfReach, Duration)> {
        self.reach.out()
    }

    fn set_aside(&self, of: OutOfReach, restores: bool, most: usize) -> Vec<ActionKey> {
        self.takeover.queue.set_aside(of, restores, most)
    }

    fn put_back(&self, key: ActionKey) {
        self.takeover.queue.put_back(key);
    }

    fn take_up(&self, keys: Vec<ActionKey>) {
        let queue = &self.takeover.queue;
        let mut asked = Vec::new();
        for key in keys {
            // A reader waits, and to restore a file twice does no harm.
            if queue.verb(key) == Some(Verb::Restore) {
                queue.put_back(key);
            } else if queue.is_aside(key) {
                asked.push(key);
            }
        }
        self.takeover.put_back(asked);
    }

    fn is_aside(&self, key: ActionKey) -> bool {
        self.takeover.queue.is_aside(key)
    }

    fn reaches(&self, mdt: Mdt, archive_id: ArchiveId, fid: Fid) -> bool {
        self.reach.is_there(mdt, archive_id, fid)
    }

    fn look(&self) {
        let Takeover { context, queue, .. } = &self.takeover;
        let mut back = Vec::new();
        let mut leaving = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
        leaving.retain_mut(|leaving| {
            let is_here = queue.verb(leaving.key).is_some();
            match leaving.back.take_if(|_| !is_here) {
                Some(item) => back.push(item),
                None if !is_here => context.journal.lost(leaving.key, false),
                None => {}
            }
            is_here
        });
        drop(leaving);
        if !back.is_empty()
            && let Err(error) = self.takeover.hand_over(back)
        {
            tracing::error!(%error, "left in the journal: no thread to take over what came back from another mover");
        }
    }
}
