//! What one worker thread has for itself: a runtime that only it drives, and connections on it.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use super::chunk::ChunkPool;
use super::{TransferError, TransferOptions};
use crate::store::{Connections, Store, Target, Targets};
use crate::types::ArchiveId;

/// A worker thread's own runtime and stores. One request is under way on it at a time; what waits in a
/// file's read or write makes nobody else wait.
#[derive(Debug)]
pub struct Lane {
    runtime: tokio::runtime::Runtime,
    stores: HashMap<ArchiveId, Store>,
    connections: Connections,
    chunks: ChunkPool,
    options: TransferOptions,
    targets: Vec<Arc<Target>>,
}

impl Lane {
    /// A lane to all `targets`.
    ///
    /// # Errors
    /// The runtime could not be made.
    pub fn new(targets: &[Arc<Target>], options: TransferOptions) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            // Name look-ups are its only use of them.
            .max_blocking_threads(1)
            .build()?;
        let mut lane = Self {
            runtime,
            stores: HashMap::new(),
            connections: Connections::default(),
            chunks: ChunkPool::new(options.chunk),
            options,
            targets: Vec::new(),
        };
        targets.iter().for_each(|target| lane.add(Arc::clone(target)));
        Ok(lane)
    }

    /// Leads also to what was added to `targets` since it was made of them, or since the last call.
    pub fn follow(&mut self, targets: &Targets) {
        if targets.count() > self.targets.len() {
            let added = targets.since(self.targets.len());
            added.into_iter().for_each(|target| self.add(target));
        }
    }

    fn add(&mut self, target: Arc<Target>) {
        let _on_it = self.runtime.enter();
        let store = target.connect(&mut self.connections);
        self.stores.insert(target.options().archive_id, store);
        self.targets.push(target);
    }

    /// A second lane to the same stores, for another thread.
    ///
    /// # Errors
    /// The runtime could not be made.
    pub fn another(&self) -> std::io::Result<Self> {
        Self::new(&self.targets, self.options)
    }

    /// The store of an archive id.
    ///
    /// # Errors
    /// None is configured.
    pub fn store(&self, archive_id: ArchiveId) -> Result<&Store, TransferError> {
        self.stores
            .get(&archive_id)
            .ok_or(TransferError::NoTarget(archive_id.get()))
    }

    /// How transfers are made.
    #[must_use]
    pub const fn options(&self) -> &TransferOptions {
        &self.options
    }

    pub(super) const fn chunks(&self) -> &ChunkPool {
        &self.chunks
    }

    /// Runs a request on this thread.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }
}
