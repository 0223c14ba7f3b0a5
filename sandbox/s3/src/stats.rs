//! What a server has been asked, and how much it moved.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// What a server has done since it was started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// How many requests there were of each operation, those that a fault refused included. A request that is not
    /// authorised never gets that far.
    pub requests: BTreeMap<String, u64>,
    /// Bytes of object bodies received, those of uploads that failed included.
    pub bytes_in: u64,
    /// Bytes of object bodies sent.
    pub bytes_out: u64,
}

impl Stats {
    /// How many requests of `op` there were.
    #[must_use]
    pub fn count(&self, op: &str) -> u64 {
        self.requests.get(op).copied().unwrap_or_default()
    }
}

tokio::task_local! {
    /// Whether what is done for the request of this task counts.
    static COUNTS: bool;
}

/// Serves a request that counts, or does not.
pub(crate) async fn counted<F: Future>(counts: bool, serving: F) -> F::Output {
    COUNTS.scope(counts, serving).await
}

fn counts() -> bool {
    COUNTS.try_with(|counts| *counts).unwrap_or(true)
}

/// The counters behind [`Stats`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    requests: Mutex<BTreeMap<&'static str, u64>>,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

impl Counters {
    pub(crate) fn request(&self, op: &'static str) {
        if !counts() {
            return;
        }
        *self
            .requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(op)
            .or_default() += 1;
    }

    pub(crate) fn received(&self, bytes: usize) {
        if counts() {
            self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self) -> Stats {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        Stats {
            requests: requests.iter().map(|(&op, &count)| (op.to_owned(), count)).collect(),
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.bytes_out.load(Ordering::Relaxed),
        }
    }
}
