//! Who takes over what a former daemon had in hand, or another mover that is dead: a thread for each MDT, for one that is
//! dead answers nothing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SendError, Sender};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::action::{ActionKey, Arrival, Item, Kind, Verb};
use crate::intake::MdtFinder;
use crate::ledger::Ledger;
use crate::lustre::Agent;
use crate::queue::{Cancelled, Class, Queue};
use crate::thread::{Supervisor, Thread};
use crate::transfer::Stop;
use crate::types::{ArchiveId, Domain, Extent};
use crate::worker::Context;

/// Until actions are sorted by MDT as well as can be.
const FIND: Duration = Duration::from_secs(2);
/// For the ledger, to say which of them another mover has taken over since. Only what no reader waits for waits for that.
const ASK_LEDGER: Duration = Duration::from_secs(5);
/// Between two looks at whether they are.
const LOOK: Duration = Duration::from_millis(20);

/// What of the journal is of archives that can't be used yet.
pub(super) type UnclaimedItems = Arc<Mutex<BTreeMap<ArchiveId, Vec<Item>>>>;

/// Clones are the same one.
#[derive(Clone)]
pub(super) struct Takeover {
    pub(super) supervisor: Supervisor,
    /// It is not kept for what may never come.
    pub(super) agent: Weak<Agent>,
    pub(super) arrivals: Sender<Vec<Arrival>>,
    pub(super) context: Context,
    pub(super) queue: Arc<Queue>,
    pub(super) finder: Arc<MdtFinder>,
    pub(super) left: UnclaimedItems,
    /// Threads that are at it.
    pub(super) handing: Arc<AtomicUsize>,
    /// `None`: there is none, and no other mover has anything of this one's.
    pub(super) ledger: Option<Arc<Ledger>>,
}

/// Actions on their way to the queue, which keeps their places: they are sent one by one, or do not come.
struct OnTheWay {
    queue: Arc<Queue>,
    items: VecDeque<Item>,
}

impl OnTheWay {
    fn new(queue: &Arc<Queue>, items: Vec<Item>) -> Self {
        items.iter().for_each(|item| queue.reserve(item));
        Self {
            queue: Arc::clone(queue),
            items: items.into(),
        }
    }

    /// Those behind the first ones.
    fn split_off(&mut self, at: usize) -> Self {
        Self {
            queue: Arc::clone(&self.queue),
            items: self.items.split_off(at),
        }
    }
}

impl Drop for OnTheWay {
    fn drop(&mut self) {
        for item in &self.items {
            self.queue.unreserve(item.key());
        }
    }
}

/// One of them, until it is dropped.
struct HandingOver(Arc<AtomicUsize>);

impl HandingOver {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for HandingOver {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Takeover {
    /// Has what is of an archive taken over that can be used from now on. Call it before the coordinator is told of the
    /// archive: what comes then is new. Does not wait.
    pub(super) fn take_up(&self, id: ArchiveId) {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        let Some(items) = left else {
            return;
        };
        let actions = items.len();
        // Whatever it does not come to stays in the journal: nobody needs to wait for it.
        if let Err(error) = self.begin(items) {
            tracing::error!(%error, actions, "left in the journal: no thread to take them over");
        }
    }

    /// Has these taken over that a former daemon left in the journal, on a thread of their own.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn begin(&self, items: Vec<Item>) -> std::io::Result<Thread> {
        tracing::info!(actions = items.len(), "taking over from a former daemon");
        self.hand_over(items)
    }

    /// The same for what is in the journal, whoever had it before. What comes later of their files waits for them.
    ///
    /// # Errors
    /// There is no thread.
    pub(super) fn hand_over(&self, mut items: Vec<Item>) -> std::io::Result<Thread> {
        // Somebody may wait for a restore.
        items.sort_by_key(Class::of);
        let restores = items.partition_point(|item| item.kind == Kind::Do(Verb::Restore));
        let mut items = OnTheWay::new(&self.queue, items);
        let (takeover, handing) = (self.clone(), HandingOver::new(&self.handing));
        self.supervisor.errand("inherit", move || {
            let rest = items.split_off(restores);
            if !items.items.is_empty() {
                takeover.sort(items);
            }
            if !rest.items.is_empty() {
                takeover.wait_for_ledger();
                takeover.sort(rest);
            }
            drop(handing);
        })
    }

    /// An archive that two movers do at the same time is done by neither of them in peace.
    fn wait_for_ledger(&self) {
        let until = Instant::now() + ASK_LEDGER;
        while let Some(ledger) = &self.ledger
            && !ledger.has_looked()
            && Instant::now() < until
            && !self.queue.is_parked()
        {
            std::thread::park_timeout(LOOK);
        }
    }

    /// Has them taken over, MDT by MDT, each in the order in which they are given.
    fn sort(&self, mut items: OnTheWay) {
        let until = Instant::now() + FIND;
        let mut unknown: Vec<_> = items.items.iter().map(|item| item.fid).collect();
        unknown.sort_unstable_by_key(|fid| fid.seq);
        unknown.dedup_by_key(|fid| fid.seq);
        loop {
            unknown.retain(|fid| !self.finder.find(*fid));
            if unknown.is_empty() || Instant::now() > until {
                break;
            }
            std::thread::park_timeout(LOOK);
        }
        let sequences = self.context.fs.sequences();
        let mut by_mdt: BTreeMap<Domain, OnTheWay> = BTreeMap::new();
        while let Some(item) = items.items.pop_front() {
            let of_mdt = by_mdt.entry(sequences.domain(item.fid));
            let of_mdt = of_mdt.or_insert_with(|| OnTheWay::new(&self.queue, Vec::new()));
            of_mdt.items.push_back(item);
        }
        for (domain, items) in by_mdt {
            let actions = items.items.len();
            if let Err(error) = self.errand(domain, move |takeover| takeover.take_over(items)) {
                tracing::error!(%error, actions, "left in the journal: no thread to take them over");
            }
        }
    }

    /// Has actions go on that are aside in the queue, and that another mover may have done: those that the coordinator knows
    /// of still wait in line again. Until it was asked they are aside, and what is behind them of their files waits with them.
    /// Does not wait.
    pub(super) fn put_back(&self, keys: Vec<ActionKey>) {
        let sequences = self.context.fs.sequences();
        let mut by_mdt: BTreeMap<Domain, Vec<ActionKey>> = BTreeMap::new();
        for key in keys {
            by_mdt.entry(sequences.domain(key.fid)).or_default().push(key);
        }
        for (domain, keys) in by_mdt {
            let asked = keys.clone();
            let work = move |takeover: &Self| asked.into_iter().for_each(|key| takeover.ask_about(key));
            if let Err(error) = self.errand(domain, work) {
                tracing::error!(
                    %error,
                    actions = keys.len(),
                    "left in the journal: no thread to take up what was offered to other movers"
                );
                for key in keys {
                    if let Cancelled::Waiting(handle) = self.queue.cancel(key, Stop::HandOn) {
                        handle.disown();
                    }
                }
            }
        }
    }

    /// Has that done on a thread for the MDT, and counts as handing over until it is.
    fn errand(&self, domain: Domain, work: impl FnOnce(&Self) + Send + 'static) -> std::io::Result<Thread> {
        let name = domain.map_or_else(|| "inherit-?".to_owned(), |mdt| format!("inherit-{:x}", mdt.0));
        let (takeover, handing) = (self.clone(), HandingOver::new(&self.handing));
        self.supervisor.errand(name, move || {
            work(&takeover);
            drop(handing);
        })
    }

    fn ask_about(&self, key: ActionKey) {
        // It was cancelled; or all that waits is left to the next daemon.
        if !self.queue.is_aside(key) || self.queue.is_parked() {
            return;
        }
        match self.context.fs.progress(key, Extent::EMPTY) {
            Err(error) if error.is_not_found() => {
                tracing::info!(fid = %key.fid, cookie = %key.cookie, "the coordinator gave this action up");
                if self.queue.verb(key) == Some(Verb::Archive) {
                    self.context.forgotten.note(key, self.queue.archive_of(key));
                }
                if let Cancelled::Waiting(handle) = self.queue.cancel(key, Stop::Forgotten) {
                    handle.forgotten();
                }
            }
            Err(error) if error.is_cancelled() => {
                // Nobody takes it any more: it ends with all that waits.
                let _ended = self.arrivals.send(vec![Arrival::Cancel(key)]);
            }
            _ => self.queue.put_back(key),
        }
    }

    fn take_over(&self, mut items: OnTheWay) {
        // Without it all ends, and they stay in the journal.
        let Some(agent) = self.agent.upgrade() else {
            return;
        };
        while let Some(item) = items.items.pop_front() {
            let key = item.key();
            // What is not taken over yet stays in the journal, for the next daemon.
            if self.queue.is_parked() {
                return;
            }
            // A remove asks the coordinator only when it is done: what it gave up must not begin.
            let arrivals = match self.context.fs.progress(key, Extent::EMPTY) {
                Err(error) if error.is_not_found() => {
                    tracing::info!(fid = %key.fid, cookie = %key.cookie, "the coordinator gave this action up");
                    self.context.journal.ended(key);
                    self.queue.unreserve(key);
                    if item.kind == Kind::Do(Verb::Archive) {
                        self.context.forgotten.note(key, item.archive_id);
                    }
                    continue;
                }
                Err(error) if error.is_cancelled() => {
                    vec![Arrival::Inherited(agent.owe(item)), Arrival::Cancel(key)]
                }
                _ => vec![Arrival::Inherited(agent.owe(item))],
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
        if let Arrival::Inherited(handle) | Arrival::Owed(handle) = arrival {
            handle.disown();
        }
    }
}
