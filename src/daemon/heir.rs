//! Who takes over what a former daemon had in hand: a thread for each MDT, for one that is dead answers nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{SendError, Sender};
use std::time::{Duration, Instant};

use crate::action::{Item, Kind, Verb};
use crate::intake::{Arrival, Finder};
use crate::lustre::Agent;
use crate::mdt::Domain;
use crate::queue::Queue;
use crate::thread::Supervisor;
use crate::types::Extent;
use crate::worker::Site;

/// Until actions are sorted by MDT as well as can be.
const FIND: Duration = Duration::from_secs(2);
/// Between two looks at whether they are.
const LOOK: Duration = Duration::from_millis(20);

#[derive(Clone)]
pub(super) struct Heir {
    pub(super) supervisor: Supervisor,
    pub(super) agent: Arc<Agent>,
    pub(super) arrivals: Sender<Vec<Arrival>>,
    pub(super) site: Site,
    pub(super) queue: Arc<Queue>,
}

impl Heir {
    /// Has them taken over, MDT by MDT, each in the order in which they are given.
    pub(super) fn sort(&self, items: Vec<Item>, finder: &Finder) {
        let until = Instant::now() + FIND;
        let mut unknown: Vec<_> = items.iter().map(|item| item.fid).collect();
        unknown.sort_unstable_by_key(|fid| fid.seq);
        unknown.dedup_by_key(|fid| fid.seq);
        loop {
            unknown.retain(|fid| !finder.find(*fid));
            if unknown.is_empty() || Instant::now() > until {
                break;
            }
            std::thread::park_timeout(LOOK);
        }
        let sequences = self.site.fs.sequences();
        let mut by_mdt: BTreeMap<Domain, Vec<Item>> = BTreeMap::new();
        for item in items {
            by_mdt.entry(sequences.domain(item.fid)).or_default().push(item);
        }
        for (domain, items) in by_mdt {
            let name = domain.map_or_else(|| "inherit-?".to_owned(), |mdt| format!("inherit-{:x}", mdt.0));
            let (heir, actions) = (self.clone(), items.len());
            if let Err(error) = self.supervisor.errand(name, move || heir.take_over(items)) {
                tracing::error!(%error, actions, "left in the journal: no thread to take them over");
            }
        }
    }

    fn take_over(&self, items: Vec<Item>) {
        for item in items {
            let key = item.key();
            // What is not taken over yet stays in the journal, for the next daemon.
            if self.queue.is_parked() {
                return;
            }
            // A remove asks the coordinator only when it is done: what it gave up must not begin.
            let arrivals = match self.site.fs.progress(key, Extent::EMPTY) {
                Err(error) if error.is_not_found() => {
                    tracing::info!(fid = %key.fid, cookie = %key.cookie, "the coordinator gave this action up");
                    self.site.journal.ended(key);
                    if item.kind == Kind::Do(Verb::Archive) {
                        self.site.forgotten.note(key, item.archive_id);
                    }
                    continue;
                }
                Err(error) if error.errno == libc::ECANCELED => {
                    vec![Arrival::Inherited(self.agent.owe(item)), Arrival::Cancel(key)]
                }
                _ => vec![Arrival::Inherited(self.agent.owe(item))],
            };
            // A stop came while it was asked.
            if self.queue.is_parked() {
                return leave(arrivals);
            }
            if let Err(SendError(lost)) = self.arrivals.send(arrivals) {
                return leave(lost);
            }
        }
    }
}

/// To the journal, which has them: to drop one would be to answer it.
fn leave(arrivals: Vec<Arrival>) {
    for arrival in arrivals {
        if let Arrival::Inherited(debt) | Arrival::Owed(debt) = arrival {
            debt.disown();
        }
    }
}
