//! The strings by which a running transfer is held: stop it, see how far it is.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

/// Why a transfer was stopped from outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// The coordinator sent a CANCEL.
    Cancelled,
    /// The coordinator sent it again: after a restart of the MDT what is open of it is lost, so it begins anew.
    SentAgain,
    /// The coordinator no longer knows the action.
    Forgotten,
    /// This daemon goes away.
    Shutdown,
}

/// Shared by the transfer, its parts, the intake and the heartbeat.
#[derive(Debug, Default)]
pub struct Control {
    token: CancellationToken,
    stop: Mutex<Option<Stop>>,
    moved: AtomicU64,
    ending: AtomicBool,
}

impl Control {
    /// Stops the transfer at its next wait. The first reason stays, unless it would have the action begin anew.
    pub fn stop(&self, reason: Stop) {
        let mut stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*stop, None | Some(Stop::SentAgain)) {
            *stop = Some(reason);
        }
        drop(stop);
        self.token.cancel();
    }

    /// Why it was stopped, if it was.
    #[must_use]
    pub fn stopped(&self) -> Option<Stop> {
        *self.stop.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves when it is stopped.
    pub async fn wait_stopped(&self) {
        self.token.cancelled().await;
    }

    /// The answer is about to be given. From now on another action for the file is no duplicate of this
    /// one: whoever asks for it may know already how this one ended.
    pub fn set_ending(&self) {
        self.ending.store(true, Ordering::SeqCst);
    }

    /// Whether the answer is being given or was given.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.ending.load(Ordering::SeqCst)
    }

    /// Bytes that have been stored or written.
    #[must_use]
    pub fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    pub(super) fn add_moved(&self, bytes: u64) {
        self.moved.fetch_add(bytes, Ordering::Relaxed);
    }
}
