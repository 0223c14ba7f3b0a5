//! Who is told of actions as they come and go: an administrator's log, a site's monitor.

use std::fmt;
use std::sync::Arc;

use super::ActionEnd;
use crate::action::{FileSystem, Item};
use crate::thread::guarded;

/// Told by worker threads; what it does holds them up.
pub trait Observer: Send + Sync + fmt::Debug {
    /// A worker has taken an action of a file with so many bytes.
    fn started(&self, fs: &dyn FileSystem, item: &Item);

    /// An action was answered.
    fn ended(&self, fs: &dyn FileSystem, ending: &ActionEnd<'_>);
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub struct Observers(Arc<Vec<Box<dyn Observer>>>);

impl Observers {
    /// These.
    #[must_use]
    pub fn new(all: Vec<Box<dyn Observer>>) -> Self {
        Self(Arc::new(all))
    }

    pub(super) fn started(&self, fs: &dyn FileSystem, item: &Item) {
        self.each(|observer| observer.started(fs, item));
    }

    pub(super) fn ended(&self, fs: &dyn FileSystem, ending: &ActionEnd<'_>) {
        self.each(|observer| observer.ended(fs, ending));
    }

    /// One that panics is nobody else's matter.
    fn each(&self, tell: impl Fn(&dyn Observer)) {
        for observer in self.0.iter() {
            drop(guarded(|| tell(observer.as_ref())));
        }
    }
}
