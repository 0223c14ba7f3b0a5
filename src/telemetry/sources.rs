//! Where the daemon's numbers are.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::ledger::Ledger;
use crate::lustre::ReaderStats;
use crate::queue::Queue;
use crate::store::Targets;
use crate::worker::Context;

/// What there is once the daemon is registered.
#[derive(Debug)]
pub struct ReaderLink {
    /// The pipe's numbers.
    pub reader: Arc<ReaderStats>,
    /// Reports of live actions to the coordinator.
    pub heartbeats: Arc<AtomicU64>,
}

/// Everything that can be asked.
#[derive(Clone)]
pub struct TelemetrySources {
    /// The mount that is served.
    pub mount: PathBuf,
    /// Worker threads, and how many of them serve nothing but restores.
    pub threads: (usize, usize),
    /// The table of live actions.
    pub queue: Arc<Queue>,
    /// Counters and journal.
    pub context: Context,
    /// The stores.
    pub targets: Targets,
    /// The copy of the journal that other movers read, where there is one.
    pub ledger: Option<Arc<Ledger>>,
    /// Set once the daemon is registered.
    pub link: Arc<OnceLock<ReaderLink>>,
    /// It was told to take nothing new, and to end when what it has is done.
    pub draining: Arc<AtomicBool>,
}

impl fmt::Debug for TelemetrySources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").finish_non_exhaustive()
    }
}

impl TelemetrySources {
    /// Registered with the coordinator, and not on its way out.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.link.get().is_some() && !self.queue.is_parked() && !self.is_draining()
    }

    /// Whether it takes nothing new, and ends when what it has is done.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}
