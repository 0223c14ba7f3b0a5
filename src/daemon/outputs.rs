//! Who is told of actions, beside the coordinator.

use std::sync::Arc;

use super::{DaemonError, RunMode};
use crate::action::{FileSystem, Item, Verdict};
use crate::config::Settings;
use crate::telemetry::{Completions, EventFifo, FifoObserver};
use crate::worker::{ActionEnd, Observer, Observers};

/// Who is told of actions.
pub(super) struct Outputs {
    pub(super) observers: Observers,
    pub(super) fifo: Option<Arc<EventFifo>>,
    /// Notified at the first failure, where that ends it.
    pub(super) failure: Arc<tokio::sync::Notify>,
}

impl Outputs {
    /// `uuid`: what servers know the mount by, for the events.
    pub(super) fn open(settings: &Settings, uuid: String, how: RunMode) -> Result<Self, DaemonError> {
        let mut all: Vec<Box<dyn Observer>> = Vec::new();
        if let Some(options) = &settings.completions {
            let log = Completions::open(options.clone()).map_err(|source| DaemonError::Output {
                key: "path in section [completions]",
                path: options.path.clone(),
                source,
            })?;
            all.push(Box::new(log));
        }
        let fifo = match &settings.event_fifo {
            None => None,
            Some(path) => {
                let fifo = EventFifo::open(path, &settings.mount, settings.targets.len(), uuid);
                let fifo = Arc::new(fifo.map_err(|source| DaemonError::Output {
                    key: "fifo in section [events]",
                    path: path.clone(),
                    source,
                })?);
                all.push(Box::new(FifoObserver(Arc::clone(&fifo))));
                Some(fifo)
            }
        };
        let failure = Arc::new(tokio::sync::Notify::new());
        if how.abort_on_error {
            all.push(Box::new(Abort(Arc::clone(&failure))));
        }
        Ok(Self {
            observers: Observers::new(all),
            fifo,
            failure,
        })
    }
}

/// Ends the daemon at the first failure.
#[derive(Debug)]
struct Abort(Arc<tokio::sync::Notify>);

impl Observer for Abort {
    fn started(&self, _: &dyn FileSystem, _: &Item) {}

    fn ended(&self, _: &dyn FileSystem, ending: &ActionEnd<'_>) {
        if let Verdict::Failed { .. } = ending.verdict {
            self.0.notify_one();
        }
    }
}
