//! What arrives becomes a job, a cancel, or a refusal.
//!
//! In: events of the pipe, through an unbounded channel, so that whoever reads the pipe never waits.
//! Out: the queue filled, and answers for what will not run. One thread; it never blocks on Lustre or S3.

mod finder;
mod heartbeat;

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

pub use finder::MdtFinder;
pub use heartbeat::{Heartbeat, HeartbeatEvent, HeartbeatOptions};

use crate::action::{ActionHandle, Arrival, Kind, Verdict};
use crate::journal::{Journal, JournaledAction};
use crate::ledger::Turns;
use crate::queue::{Admission, Cancelled, Queue};
use crate::thread::guarded;
use crate::transfer::Stop;
use crate::types::HsmErrno;
use crate::worker::Responder;

/// The intake's side of the queue.
#[derive(Debug)]
pub struct Intake {
    queue: Arc<Queue>,
    responder: Arc<Responder>,
    journal: Arc<Journal>,
    finder: Arc<MdtFinder>,
    turns: Option<Turns>,
    first_beat: Duration,
}

impl Intake {
    /// An intake for `queue`; an action that waits longer than `first_beat` is reported alive. `turns`: who waits for other
    /// movers; `None`: nobody.
    #[must_use]
    pub const fn new(
        queue: Arc<Queue>,
        responder: Arc<Responder>,
        journal: Arc<Journal>,
        finder: Arc<MdtFinder>,
        turns: Option<Turns>,
        first_beat: Duration,
    ) -> Self {
        Self {
            queue,
            responder,
            journal,
            finder,
            turns,
            first_beat,
        }
    }

    /// Takes in all that comes, until the last: there may be senders that hang in a call and never go.
    pub fn run(&self, arrivals: &Receiver<Vec<Arrival>>) {
        while let Ok(message) = arrivals.recv() {
            for arrival in message {
                if let Arrival::Last = arrival {
                    return;
                }
                let reserved = match &arrival {
                    Arrival::Inherited(handle) => Some(handle.item().key()),
                    _ => None,
                };
                // A handle that is dropped on the way answers EIO; the others are taken in.
                if guarded(|| self.take(arrival)).is_err()
                    && let Some(key) = reserved
                {
                    self.queue.unreserve(key);
                }
            }
        }
    }

    fn take(&self, arrival: Arrival) {
        match arrival {
            Arrival::Owed(handle) => self.take_in(handle),
            Arrival::Inherited(handle) => self.inherit(handle),
            Arrival::Last => {}
            Arrival::Cancel(key) => match self.queue.cancel(key, Stop::Cancelled) {
                Cancelled::Waiting(handle) => self.responder.settle(handle, Verdict::Cancelled),
                Cancelled::Running => {
                    tracing::info!(fid = %key.fid, cookie = %key.cookie, "cancelling a running action");
                }
                // It ended while the cancel was on its way, or another mover has it.
                Cancelled::Unknown => {
                    tracing::debug!(fid = %key.fid, cookie = %key.cookie, "cancel for an action that is not here");
                }
            },
        }
    }

    fn take_in(&self, handle: Box<dyn ActionHandle>) {
        let item = handle.item();
        if let Kind::Unknown(number) = item.kind {
            tracing::warn!(fid = %item.fid, cookie = %item.cookie, number, "unknown action refused");
            self.responder.settle(handle, Verdict::failed(HsmErrno::EINVAL));
            return;
        }
        self.admit(JournaledAction::new(handle, Arc::clone(&self.journal)), self.first_beat);
    }

    fn inherit(&self, handle: Box<dyn ActionHandle>) {
        match JournaledAction::inherited(handle, Arc::clone(&self.journal)) {
            // Nobody has reported it alive for as long as no daemon had it.
            Ok(action) => self.admit(action, Duration::ZERO),
            Err(handle) => {
                let key = handle.item().key();
                tracing::info!(fid = %key.fid, cookie = %key.cookie, "another mover has this action by now");
                self.queue.unreserve(key);
                handle.disown();
            }
        }
    }

    fn admit(&self, action: JournaledAction, first_beat: Duration) {
        self.finder.find(action.item().fid);
        // The journal has it, and who writes its row knows.
        let until = self.turns.as_ref().and_then(|turns| turns.asks_until(action.item()));
        let first_beat = Instant::now() + first_beat;
        match self.queue.admit_asking(Box::new(action), first_beat, until) {
            Admission::Queued => {}
            Admission::Duplicate(handle) => {
                tracing::debug!(fid = %handle.item().fid, cookie = %handle.item().cookie, "delivered twice; already in hand");
                handle.disown();
            }
            Admission::Declined(handle) => self.responder.settle(handle, Verdict::failed(HsmErrno::EINVAL)),
        }
    }
}
