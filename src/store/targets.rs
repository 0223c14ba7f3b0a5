//! The archives' buckets that the daemon serves.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::Target;

/// All targets of a daemon, shared by its threads. More can be added while they work; none goes.
#[derive(Clone, Debug, Default)]
pub struct Targets(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    all: RwLock<Vec<Arc<Target>>>,
    /// Of `all`: what is looked at before each piece of work.
    count: AtomicUsize,
}

impl Targets {
    /// These, to begin with.
    #[must_use]
    pub fn new(all: Vec<Arc<Target>>) -> Self {
        let count = AtomicUsize::new(all.len());
        let all = RwLock::new(all);
        Self(Arc::new(Inner { all, count }))
    }

    /// One more. `false`: its archive id has a target already, which stays.
    pub fn add(&self, target: Arc<Target>) -> bool {
        let mut all = self.0.all.write().unwrap_or_else(PoisonError::into_inner);
        let id = target.options().archive_id;
        if all.iter().any(|known| known.options().archive_id == id) {
            return false;
        }
        all.push(target);
        self.0.count.store(all.len(), Ordering::Release);
        true
    }

    /// As of now, in the order in which they came.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Target>> {
        self.since(0)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.count.load(Ordering::Acquire)
    }

    /// Without the first `known`.
    #[must_use]
    pub fn since(&self, known: usize) -> Vec<Arc<Target>> {
        let all = self.0.all.read().unwrap_or_else(PoisonError::into_inner);
        all.iter().skip(known).cloned().collect()
    }
}
