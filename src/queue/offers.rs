//! Parts of running actions that other threads may help with.

use std::collections::VecDeque;
use std::sync::Arc;

use super::processors::Processors;
use super::{ThreadRole, Work};
use crate::transfer::SharedWork;

/// Of restores, and of all else.
#[derive(Default)]
pub(super) struct PartOffers {
    open: [VecDeque<Arc<dyn SharedWork>>; 2],
    /// Threads at work on what was offered.
    helping: usize,
}

impl PartOffers {
    pub(super) fn add(&mut self, parts: Arc<dyn SharedWork>, urgent: bool) {
        self.line(urgent).push_back(parts);
    }

    const fn line(&mut self, urgent: bool) -> &mut VecDeque<Arc<dyn SharedWork>> {
        let [restores, others] = &mut self.open;
        if urgent { restores } else { others }
    }

    pub(super) fn withdraw(&mut self, parts: &Arc<dyn SharedWork>) {
        for offers in &mut self.open {
            offers.retain(|offer| !Arc::ptr_eq(offer, parts));
        }
    }

    /// Threads at work on what was offered.
    pub(super) const fn helping(&self) -> usize {
        self.helping
    }

    /// A thread that helped is free again.
    pub(super) const fn helped(&mut self) {
        self.helping = self.helping.saturating_sub(1);
    }

    pub(super) fn are_there(&self, lanes: ThreadRole) -> bool {
        let [restores, others] = &self.open;
        !restores.is_empty() || lanes == ThreadRole::All && !others.is_empty()
    }

    /// Something to help with, if there are processors to spare beside `running` actions.
    pub(super) fn pick(&mut self, urgent: bool, running: usize, processors: &Processors) -> Option<Work> {
        let busy = running + self.helping;
        let offers = self.line(urgent);
        let n = if busy < processors.count() {
            0
        } else if processors.are_to_spare() {
            offers.iter().position(|parts| !parts.is_crowded())?
        } else {
            return None;
        };
        let parts = offers.remove(n)?;
        offers.push_back(Arc::clone(&parts));
        self.helping += 1;
        Some(Work::Parts(parts))
    }
}
