//! Moves one file's bytes between an open file and an object.
//!
//! In: a file, a place in the store, and what the transfer runs with ([`Transfer`]). Out: an object that the store
//! confirmed, or a file whose bytes were compared with the object's checksum. A chunk or two is held at a time, never a
//! part: chunks stay in the CPU's cache, and a retry reads again. Everything here runs on a worker thread that may block
//! ([`Lane`]), so that a stalled Lustre read holds its own thread and nothing else. On error and on cancel nothing is left
//! in the store by a write that failed.

mod announce;
mod body;
mod bytes;
mod chunk;
mod control;
mod deletion;
mod download;
mod error;
mod evidence;
mod heeds;
mod lane;
mod parts;
mod plan;
mod request;
mod retry;
mod sidecar;
mod sparse;
mod sweeper;
mod upload;
mod write_slots;

use std::fmt;
use std::sync::Arc;

pub use announce::{Bearer, Said};
pub use control::{Control, Stop};
pub use error::TransferError;
pub use lane::Lane;
pub use parts::{IdleThreads, NoIdleThreads, SharedWork};
pub use plan::{Part, Plan, PlanError, PlanOptions};
pub use retry::RetryOptions;
pub use sidecar::ObjectDescription;
pub use sweeper::SweptUploads;
pub use upload::{NoLog, Unfinished, Upload, UploadLog, UploadedObject};

use self::retry::{Activity, retry};
use crate::store::Store;
use crate::types::ArchiveId;

/// How transfers are made, as configured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TransferOptions {
    /// How files are cut.
    pub plan: PlanOptions,
    /// When and how often to try again.
    pub retry: RetryOptions,
    /// Between the first two looks at an object that thaws; the pauses grow.
    pub thaw_poll: std::time::Duration,
    /// Bytes read or written at a time.
    pub chunk: usize,
}

#[cfg(test)]
impl TransferOptions {
    /// For tests in which no byte moves.
    pub(crate) const IDLE: Self = {
        let second = std::time::Duration::from_secs(1);
        Self {
            plan: PlanOptions {
                threshold: 1,
                part_size: 1,
            },
            retry: RetryOptions {
                stall: second,
                give_up_after: second,
                first_pause: second,
                longest_pause: second,
                afterwards: second,
            },
            thaw_poll: second,
            chunk: 1,
        }
    };
}

/// What a transfer runs with. Its methods ask the store until it answers, with the patience that is configured, and end
/// when the control is stopped. What nobody waits for is a method of the [`Lane`]: one try, and a short time for it.
#[derive(Clone, Copy)]
pub struct Transfer<'a> {
    lane: &'a Lane,
    control: &'a Arc<Control>,
    idle_threads: &'a dyn IdleThreads,
}

impl fmt::Debug for Transfer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transfer")
            .field("control", self.control)
            .finish_non_exhaustive()
    }
}

impl<'a> Transfer<'a> {
    /// On one thread, by its lane.
    #[must_use]
    pub const fn new(lane: &'a Lane, control: &'a Arc<Control>) -> Self {
        Self {
            lane,
            control,
            idle_threads: &NoIdleThreads,
        }
    }

    /// With the idle threads for a large file's parts.
    #[must_use]
    pub const fn helped_by(self, idle_threads: &'a dyn IdleThreads) -> Self {
        Self { idle_threads, ..self }
    }

    /// Without them.
    const fn alone(self) -> Self {
        Self::new(self.lane, self.control)
    }

    /// The thread's lane.
    #[must_use]
    pub const fn lane(self) -> &'a Lane {
        self.lane
    }

    /// How it is made.
    #[must_use]
    pub const fn options(self) -> &'a TransferOptions {
        self.lane.options()
    }

    /// By which it is stopped.
    #[must_use]
    pub fn control(self) -> &'a Control {
        self.control
    }

    /// The store of an archive id.
    ///
    /// # Errors
    /// None is configured.
    pub fn store(self, archive_id: ArchiveId) -> Result<&'a Store, TransferError> {
        self.lane.store(archive_id)
    }

    /// Asks a store until it answers ([`mod@retry`]).
    ///
    /// # Errors
    /// The store's refusal, that it was given up, or the stop of the control.
    fn ask<T>(
        self,
        store: &Store,
        attempt: impl AsyncFnMut(Arc<Activity>) -> Result<T, TransferError>,
    ) -> Result<T, TransferError> {
        let options = &self.lane.options().retry;
        self.lane
            .block_on(retry(options, self.control, store.limits(), attempt))
    }
}
