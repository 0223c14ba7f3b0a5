//! The strings by which a running transfer is held: stop it, see how far it is.

use std::sync::PoisonError;

use tokio_util::sync::CancellationToken;

use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Why a transfer was stopped from outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// The coordinator sent a CANCEL.
    Cancelled,
    /// The coordinator sent it again: after a restart of the MDT what is open of it is lost, so it begins anew.
    SentAgain,
    /// The coordinator no longer knows the action.
    Forgotten,
    /// This daemon goes away, and says so of each action.
    Shutdown,
    /// This daemon goes away, and its successor goes on with the action: nobody answers it here, and what was begun of it
    /// stays as a kill would leave it.
    HandOn,
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
        // What was sent again has nothing whole to be handed on: its volatile file, say, is lost. It is begun anew by whoever
        // gets it next.
        if stop.is_none() || (*stop == Some(Stop::SentAgain) && reason != Stop::HandOn) {
            *stop = Some(reason);
        }
        drop(stop);
        self.token.cancel();
    }

    /// Has the action begin anew, for the coordinator sent it again. `false`: its answer is being given already, and it is
    /// new work.
    #[must_use]
    pub fn send_again(&self) -> bool {
        let mut stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_ending() {
            return false;
        }
        stop.get_or_insert(Stop::SentAgain);
        drop(stop);
        self.token.cancel();
        true
    }

    /// The last look before the answer: why it was stopped, else [`Control::set_ending`] in the same moment. What is whole
    /// when a successor is to go on with it is answered: there is nothing left to hand on.
    #[must_use]
    pub fn end_unless_stopped(&self, is_whole: bool) -> Option<Stop> {
        let stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner);
        let stop = stop.filter(|stop| !(is_whole && *stop == Stop::HandOn));
        if stop.is_none() {
            self.set_ending();
        }
        stop
    }

    /// Whether a successor is to go on with it.
    #[must_use]
    pub fn is_handed_on(&self) -> bool {
        self.stopped() == Some(Stop::HandOn)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_is_either_answered_or_begun_anew() {
        let control = Control::default();
        assert!(control.send_again());
        assert_eq!(control.end_unless_stopped(true), Some(Stop::SentAgain));
        assert!(!control.is_ending());
        let control = Control::default();
        assert_eq!(control.end_unless_stopped(false), None);
        assert!(control.is_ending() && !control.send_again());
        assert_eq!(control.stopped(), None);
        // A cancel is more than that.
        control.stop(Stop::Cancelled);
        assert_eq!(control.stopped(), Some(Stop::Cancelled));
    }

    #[test]
    fn what_is_handed_on_is_answered_here_only_when_it_is_whole() {
        let control = Control::default();
        control.stop(Stop::HandOn);
        assert!(control.is_handed_on());
        assert_eq!(control.end_unless_stopped(false), Some(Stop::HandOn));
        assert!(!control.is_ending());
        assert_eq!(control.end_unless_stopped(true), None);
        assert!(control.is_ending());
        // What was sent again is not answered, whole or not.
        let control = Control::default();
        assert!(control.send_again());
        control.stop(Stop::HandOn);
        assert_eq!(control.end_unless_stopped(true), Some(Stop::SentAgain));
        // The coordinator waits for the answer to a cancel, whoever goes on.
        let control = Control::default();
        control.stop(Stop::Cancelled);
        control.stop(Stop::HandOn);
        assert_eq!(control.end_unless_stopped(true), Some(Stop::Cancelled));
    }
}
