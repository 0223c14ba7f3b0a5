//! Of the transfer what threads meet in: the strings of one that runs, a file's parts, turns at writing it, a request's
//! chunks.

#[path = "../../../src/transfer/chunk.rs"]
mod chunk;
#[path = "../../../src/transfer/control.rs"]
mod control;
#[path = "../../../src/transfer/parts.rs"]
mod parts;
#[path = "../../../src/transfer/write_slots.rs"]
mod write_slots;

use std::task::Waker;

use bytes::Bytes;

pub use control::{Control, Stop};
pub use parts::{IdleThreads, NoIdleThreads, SharedWork};

/// A worker thread's own; it shares nothing.
#[derive(Clone, Copy, Debug)]
pub struct Lane;

/// Why a transfer did not happen, as far as these files tell.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TransferError {
    /// From outside.
    Stopped(Stop),
    /// A defect.
    Panic,
    /// Whatever else.
    Changed,
}

/// `parts::run`: as the owner of a file does it.
///
/// # Errors
/// The first part's that failed.
pub fn in_parts<R: Send + 'static>(
    idle_threads: &dyn IdleThreads,
    urgent: bool,
    count: usize,
    work: impl Fn(&Lane, usize) -> Result<R, TransferError> + Send + Sync + 'static,
) -> Result<Vec<R>, TransferError> {
    parts::run(&Lane, idle_threads, urgent, count, Box::new(|| false), work)
}

/// The turns at writing one file.
#[derive(Debug)]
pub struct WriteSlots(write_slots::WriteSlots);

impl WriteSlots {
    /// So many writers at a time.
    #[must_use]
    pub fn of(writers: usize) -> Self {
        Self(write_slots::WriteSlots::of(writers))
    }

    /// Runs `write` when it is its turn.
    ///
    /// # Errors
    /// Stopped while waiting.
    pub fn take<R>(&self, control: &Control, write: impl FnOnce() -> R) -> Result<R, TransferError> {
        self.0.take(control, write)
    }
}

/// The chunks of one request.
#[derive(Debug)]
pub struct Request(chunk::ChunkLease);

/// Requests, one after the other, of one worker thread.
#[must_use]
pub fn requests(count: usize, chunk: usize) -> Vec<Request> {
    let chunks = chunk::ChunkPool::new(chunk);
    (0..count).map(|_| Request(chunks.flight())).collect()
}

impl Request {
    /// A chunk that is `byte` all over, to be sent. `None`: `waker` is woken when there may be one.
    #[must_use]
    pub fn fill(&self, waker: &Waker, byte: u8, length: usize) -> Option<Bytes> {
        let mut chunk = self.0.take(waker)?;
        chunk.room(length).fill(byte);
        Some(chunk.into_bytes(length))
    }
}
