//! How many threads one MDT may have. A thread that has an action of a dead MDT does not come back before the MDT does;
//! those that are left must be enough for the others.

use std::collections::{BTreeSet, HashMap};

use super::ThreadRole;
use crate::sync::Instant;
use crate::types::{Domain, Mdt};

/// Threads by domain and lanes.
#[derive(Debug, Default)]
pub(super) struct ThreadShares {
    /// How many there are; 0: nobody said.
    threads: [usize; 2],
    held: HashMap<Domain, [usize; 2]>,
    /// Those that ever had an action here.
    seen: BTreeSet<Mdt>,
    /// Those that do not answer, and since when that is known.
    silent: HashMap<Domain, Instant>,
}

const fn index(lanes: ThreadRole) -> usize {
    match lanes {
        ThreadRole::All => 0,
        ThreadRole::Restores => 1,
    }
}

impl ThreadShares {
    /// So many serve everything, and so many restores alone.
    pub(super) const fn set_threads(&mut self, all: usize, restores: usize) {
        self.threads = [all, restores];
    }

    /// An action of it is here. Where all are of one MDT, it may have all threads.
    pub(super) fn see(&mut self, domain: Domain) {
        self.seen.extend(domain);
    }

    /// Whether a thread may take an action of it.
    pub(super) fn allow(&self, domain: Domain, lanes: ThreadRole) -> bool {
        if self.is_silent(domain) {
            return false;
        }
        let threads = self.threads.get(index(lanes)).copied().unwrap_or(0);
        let others = (threads / 4).max(if threads < 4 { 1 } else { 2 });
        self.seen.len() < 2 || threads < 2 || self.held(domain, lanes) < threads - others
    }

    fn held(&self, domain: Domain, lanes: ThreadRole) -> usize {
        let held = self.held.get(&domain);
        held.and_then(|held| held.get(index(lanes)).copied()).unwrap_or(0)
    }

    pub(super) fn take(&mut self, domain: Domain, lanes: ThreadRole) {
        if let Some(held) = self.held.entry(domain).or_default().get_mut(index(lanes)) {
            *held += 1;
        }
    }

    pub(super) fn give_back(&mut self, domain: Domain, lanes: ThreadRole) {
        if let Some(held) = self.held.get_mut(&domain).and_then(|held| held.get_mut(index(lanes))) {
            *held = held.saturating_sub(1);
        }
    }

    /// It does not answer, or does again. `false`: that was known.
    pub(super) fn set_silent(&mut self, domain: Domain, silent: bool) -> bool {
        let is_known = self.silent.contains_key(&domain);
        if !silent {
            self.silent.remove(&domain);
        } else if !is_known {
            self.silent.insert(domain, Instant::now());
        }
        is_known != silent
    }

    pub(super) fn is_silent(&self, domain: Domain) -> bool {
        self.silent.contains_key(&domain)
    }

    /// Those MDTs that do not answer, and since when that is known.
    pub(super) fn silent(&self) -> Vec<(Mdt, Instant)> {
        let silent = self.silent.iter();
        silent
            .filter_map(|(domain, since)| Some(((*domain)?, *since)))
            .collect()
    }

    /// Each MDT that had actions here, the threads that it has, and whether it answers.
    pub(super) fn all(&self) -> Vec<(Mdt, usize, bool)> {
        let each = self.seen.iter().map(|mdt| {
            let domain = Some(*mdt);
            let held = self.held.get(&domain).map_or(0, |held| held.iter().sum());
            (*mdt, held, !self.silent.contains_key(&domain))
        });
        each.collect()
    }
}
