//! Buffers that are filled, sent and filled again. A few of them stay in the CPU's cache; fresh memory for
//! each chunk would cost a page fault for every 4 KiB.

use std::sync::{Arc, PoisonError};
use std::task::Waker;

use bytes::Bytes;

use crate::sync::{Mutex, MutexGuard};

/// Read and not yet sent, of one request: one goes out while the next is read.
const IN_FLIGHT: usize = 2;

/// The buffers of one worker thread.
#[derive(Clone, Debug)]
pub(super) struct ChunkPool(Arc<FreeList>);

#[derive(Debug)]
struct FreeList {
    size: usize,
    free: Mutex<Vec<Box<[u8]>>>,
}

/// The chunks of one request. One that was given up may still hold some, which must not starve its successor.
#[derive(Debug)]
pub(super) struct ChunkLease {
    home: Arc<FreeList>,
    state: Arc<Mutex<LeaseState>>,
}

#[derive(Debug, Default)]
struct LeaseState {
    out: usize,
    waiting: Option<Waker>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ChunkPool {
    pub(super) fn new(size: usize) -> Self {
        let free = Mutex::default();
        Self(Arc::new(FreeList { size, free }))
    }

    /// Bytes of each.
    pub(super) fn size(&self) -> usize {
        self.0.size
    }

    /// For one request.
    pub(super) fn flight(&self) -> ChunkLease {
        ChunkLease {
            home: Arc::clone(&self.0),
            state: Arc::default(),
        }
    }
}

impl ChunkLease {
    /// A buffer to be filled. `None`: enough are on their way; `waker` is woken when one is back.
    pub(super) fn take(&self, waker: &Waker) -> Option<Chunk> {
        let mut state = lock(&self.state);
        if state.out >= IN_FLIGHT {
            state.waiting = Some(waker.clone());
            return None;
        }
        state.out += 1;
        drop(state);
        let bytes = lock(&self.home.free).pop();
        Some(Chunk {
            bytes: bytes.unwrap_or_else(|| vec![0; self.home.size].into_boxed_slice()),
            filled: 0,
            home: Arc::clone(&self.home),
            flight: Arc::clone(&self.state),
        })
    }
}

/// One buffer; it goes home when the last of its bytes was sent.
#[derive(Debug)]
pub(super) struct Chunk {
    bytes: Box<[u8]>,
    filled: usize,
    home: Arc<FreeList>,
    flight: Arc<Mutex<LeaseState>>,
}

impl Chunk {
    /// Room for `length` bytes, at most the chunk's size.
    pub(super) fn room(&mut self, length: usize) -> &mut [u8] {
        let length = length.min(self.bytes.len());
        &mut self.bytes[..length]
    }

    /// The first `filled` bytes, to be sent.
    pub(super) fn into_bytes(mut self, filled: usize) -> Bytes {
        self.filled = filled.min(self.bytes.len());
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        let mut free = lock(&self.home.free);
        if free.len() < IN_FLIGHT {
            free.push(std::mem::take(&mut self.bytes));
        }
        drop(free);
        let mut state = lock(&self.flight);
        state.out -= 1;
        let waiting = state.waiting.take();
        drop(state);
        if let Some(waker) = waiting {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_two_chunks_at_most_and_is_woken_when_one_was_sent() {
        struct Flag(std::sync::atomic::AtomicBool);
        impl std::task::Wake for Flag {
            fn wake(self: Arc<Self>) {
                self.0.store(true, std::sync::atomic::Ordering::SeqCst);
            }
        }
        let flag = Arc::new(Flag(false.into()));
        let waker = Waker::from(Arc::clone(&flag));
        let chunks = ChunkPool::new(8);
        let flight = chunks.flight();
        let mut one = flight.take(&waker).unwrap();
        one.room(5).copy_from_slice(b"hello");
        let one = one.into_bytes(5);
        let two = flight.take(&waker).unwrap();
        assert!(flight.take(&waker).is_none());
        assert!(chunks.flight().take(&waker).is_some(), "another request has its own");
        assert_eq!(&one[..], b"hello");
        drop(one);
        assert!(flag.0.load(std::sync::atomic::Ordering::SeqCst));
        assert!(flight.take(&waker).is_some());
        drop(two);
        assert_eq!(lock(&flight.state).out, 0);
        assert_eq!(lock(&chunks.0.free).len(), IN_FLIGHT);
    }
}
