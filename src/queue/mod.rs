//! Who runs next. In: action handles from the intake. Out: jobs and parts of jobs for worker threads.
//!
//! Every action that is alive here, waiting or running, is in one table, so that a second delivery, a
//! cancel or a heartbeat finds it at once, among a million others too. One action per file runs at a
//! time; the next for the same file waits behind it. Restores go before removes and archives, some
//! threads serve nothing but restores, and within a class MDTs and archive ids take turns. No MDT gets all threads where
//! there are several, for one that is dead gives none of them back.

mod class;
mod fair;
mod holds;
mod offers;
mod processors;
mod reserved;
mod state;
mod work;

use std::sync::{Arc, PoisonError};
use std::time::Duration;

pub use class::{Class, ThreadRole};
pub use work::{Admission, Cancelled, Deferrals, Job, PutOff, QueueDepth, RunningAction, Work};

use self::processors::Processors;
use self::state::{ActionTable, Entry, Track};
use crate::action::{ActionHandle, ActionKey, Item, Verb};
use crate::sync::{Condvar, Instant, Mutex, MutexGuard};
use crate::transfer::{IdleThreads, SharedWork, Stop};
use crate::types::{ArchiveId, Domain, Fid, Mdt, OutOfReach, Sequences};

/// Between two looks of a thread that could help, at whether there are processors for it.
const LOOK: Duration = Duration::from_millis(50);

/// The table and its lines.
#[derive(Default)]
pub struct Queue {
    state: Mutex<ActionTable>,
    processors: Processors,
    /// For threads that serve everything.
    work: Condvar,
    /// For threads that serve restores: work for the others must not wake, and be lost on, one of these.
    restores: Condvar,
    /// For whoever waits until nothing runs.
    idle: Condvar,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.depth().fmt(f)
    }
}

impl Queue {
    /// A queue that tells actions apart by what is known of where files are. `threads` will serve it, `restores` of them
    /// nothing but restores.
    #[must_use]
    pub fn new(sequences: Sequences, threads: usize, restores: usize) -> Self {
        let queue = Self::default();
        let mut state = queue.lock();
        state.sequences = sequences;
        state.holds.set_threads(threads.saturating_sub(restores), restores);
        drop(state);
        queue
    }

    /// Takes a new action in. Its first heartbeat is due at `first_beat`.
    pub fn admit(&self, handle: Box<dyn ActionHandle>, first_beat: Instant) -> Admission {
        self.admit_asking(handle, first_beat, None)
    }

    /// The same; until then it is not given out, unless [`Queue::let_go`] comes before, or longer, if [`Queue::hold`] does.
    pub fn admit_asking(
        &self,
        handle: Box<dyn ActionHandle>,
        first_beat: Instant,
        until: Option<Instant>,
    ) -> Admission {
        let key = handle.item().key();
        let mut state = self.lock();
        let (admission, lined_up) = state.admit(handle, first_beat);
        let is_next = match (until, &admission) {
            (Some(until), Admission::Queued) => state.ask(key, until),
            _ => false,
        };
        drop(state);
        if is_next {
            self.wake_all();
        }
        lined_up.into_iter().for_each(|class| self.wake_one(class));
        admission
    }

    /// Keeps a place for an archive or a remove that is on its way here: what comes later of its file waits, until it was
    /// admitted and is over, or [`Queue::unreserve`]. So does what waits for other movers already.
    pub fn reserve(&self, item: &Item) {
        self.lock().reserve(item);
    }

    /// It does not come.
    pub fn unreserve(&self, key: ActionKey) {
        let lined_up = self.lock().unreserve(key);
        lined_up.into_iter().for_each(|class| self.wake_one(class));
    }

    /// Has an action wait until [`Queue::let_go`], also one that is on its way here: it is reported alive and can be cancelled,
    /// and holds no thread. `false`: it is under way.
    pub fn hold(&self, key: ActionKey) -> bool {
        self.lock().hold(key)
    }

    /// Has the archives and removes of a file that wait, but for that action, wait until [`Queue::let_go`]: those that did not
    /// before.
    pub fn hold_others(&self, key: ActionKey) -> Vec<ActionKey> {
        self.lock().hold_others(key)
    }

    /// Whether a held action is the first of its file, and one behind it is not held.
    pub fn holds_up(&self, key: ActionKey) -> bool {
        self.lock().holds_up(key)
    }

    /// It need not wait any more. Whether it has.
    pub fn let_go(&self, key: ActionKey) -> bool {
        let (lined_up, has_waited) = self.lock().let_go(key);
        lined_up.into_iter().for_each(|class| self.wake_one(class));
        has_waited
    }

    /// Takes restores out of their lines that wait for an MDT or a store, or all others, after a look at no more than `most`.
    /// None of them begins before [`Queue::put_back`]; they are reported alive and can be cancelled. Nothing but a restore may
    /// have begun before.
    pub fn set_aside(&self, of: OutOfReach, restores: bool, most: usize) -> Vec<ActionKey> {
        let mut state = self.lock();
        match state.parked {
            Some(_) => Vec::new(),
            None => state.set_aside(of, restores, most),
        }
    }

    /// Puts one of these into its line again.
    pub fn put_back(&self, key: ActionKey) {
        let lined_up = self.lock().put_back(key);
        lined_up.into_iter().for_each(|class| self.wake_one(class));
    }

    /// Takes all of these out, to be left to whoever has them.
    pub fn take_aside(&self) -> Vec<Box<dyn ActionHandle>> {
        let mut state = self.lock();
        let keys = std::mem::take(&mut state.aside);
        keys.into_iter().filter_map(|key| state.take_waiting(key)).collect()
    }

    /// Whether an action is in no line, for another mover may have it.
    pub fn is_aside(&self, key: ActionKey) -> bool {
        self.lock().aside.contains(&key)
    }

    /// Stops an action, wherever it is.
    pub fn cancel(&self, key: ActionKey, reason: Stop) -> Cancelled {
        let mut state = self.lock();
        match state.live.get(&key) {
            None => Cancelled::Unknown,
            Some(Entry::Running(_, control)) => {
                control.stop(reason);
                Cancelled::Running
            }
            Some(Entry::Waiting(_)) => match state.take_waiting(key) {
                Some(handle) => {
                    state.late_beats.remove(&key);
                    state.deferrals.remove(&key);
                    let next = Class::of(handle.item()).and_then(|class| state.advance(key, class));
                    drop(state);
                    next.into_iter().for_each(|class| self.wake_one(class));
                    Cancelled::Waiting(handle)
                }
                None => Cancelled::Unknown,
            },
        }
    }

    /// Waits for something to do.
    pub fn next(&self, lanes: ThreadRole) -> Work {
        let mut state = self.lock();
        loop {
            if state.closed {
                return Work::Closed;
            }
            let now = Instant::now();
            if state.offers.are_there(lanes) && self.processors.is_due(now) {
                drop(state);
                self.processors.look(now);
                state = self.lock();
                continue;
            }
            let mut sleep = state.line_up_due(now);
            if let Some(work) = state.pick(lanes, &self.processors) {
                return work;
            }
            if state.offers.are_there(lanes) {
                // Nobody tells when there are processors to spare.
                sleep = Some(sleep.map_or(LOOK, |sleep| sleep.min(LOOK)));
            }
            let condition = match lanes {
                ThreadRole::All => &self.work,
                ThreadRole::Restores => &self.restores,
            };
            state = match sleep {
                None => condition.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(sleep) => {
                    let woken = condition.wait_timeout(state, sleep);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Takes a running action back that has nothing to do until then: it waits again, is reported alive and can
    /// be cancelled, and holds no thread.
    ///
    /// # Errors
    /// It was stopped meanwhile: it is the caller's to end.
    pub fn defer(
        &self,
        mut handle: Box<dyn ActionHandle>,
        until: Instant,
        why: PutOff,
    ) -> Result<(), (Box<dyn ActionHandle>, Stop)> {
        let key = handle.item().key();
        let Some(class) = Class::of(handle.item()) else {
            return Err((handle, Stop::Shutdown));
        };
        let mut state = self.lock();
        let stopped = match state.live.get(&key) {
            Some(Entry::Running(_, control)) => control.stopped().filter(|stop| *stop != Stop::SentAgain),
            _ => None,
        };
        // What waits is not looked at any more after this.
        if let Some(stop) = stopped.or(state.parked) {
            return Err((handle, stop));
        }
        if let Some(running) = state.running.get_mut(&class) {
            *running = running.saturating_sub(1);
        }
        *state.waiting.entry(class).or_default() += 1;
        state.leaves(key);
        // It was sent again when it seemed to end.
        let again = state.again.remove(&key);
        if again.is_some() {
            handle.renew();
        }
        state.live.insert(key, Entry::Waiting(handle));
        let now = Instant::now();
        state.late_beats.insert(key, now);
        state.beat_now(now, key);
        state.deferred.insert((until, key));
        state.deferrals.entry(key).or_default().count(why);
        drop(state);
        if let Some(again) = again {
            again.disown();
        }
        self.wake_all();
        self.idle.notify_all();
        Ok(())
    }

    /// Whether something waits behind an action that is done and not yet taken out, and wants the same of the file.
    pub fn may_serve(&self, item: &Item) -> bool {
        Class::of(item).is_some_and(|class| self.lock().served(item.key(), class, item.archive_id).next().is_some())
    }

    /// What waited for nothing behind such an action: the file is now as it wants it. The caller answers it.
    pub fn take_served(&self, item: &Item) -> Vec<Box<dyn ActionHandle>> {
        match Class::of(item) {
            Some(class) => self.lock().take_served(item.key(), class, item.archive_id),
            None => Vec::new(),
        }
    }

    /// Takes an ended action out.
    pub fn ended(&self, item: &Item) {
        let key = item.key();
        let Some(class) = Class::of(item) else {
            return;
        };
        let mut state = self.lock();
        state.live.remove(&key);
        state.leaves(key);
        state.late_beats.remove(&key);
        state.deferrals.remove(&key);
        if let Some(running) = state.running.get_mut(&class) {
            *running = running.saturating_sub(1);
        }
        let next = state.advance(key, class);
        // Under the same lock: who looks whether anything runs or waits, and ends the daemon, must not miss it.
        let again = state.again.remove(&key).map(|mut handle| {
            // The first run's answer took its entry of the journal along.
            handle.renew();
            state.admit(handle, Instant::now())
        });
        drop(state);
        let (admission, lined_up) = again.unzip();
        next.into_iter()
            .chain(lined_up.flatten())
            .for_each(|class| self.wake_one(class));
        if let Some(Admission::Duplicate(handle) | Admission::Declined(handle)) = admission {
            handle.disown();
        }
        self.idle.notify_all();
    }

    /// Waiting actions of an MDT whose heartbeat is due by `now`, at most `limit` of them; each is due again at
    /// `again`.
    pub fn due_waiting(&self, of: Domain, now: Instant, again: Instant, limit: usize) -> Vec<ActionKey> {
        let mut state = self.lock();
        let mut due = Vec::new();
        while due.len() < limit {
            let Some(beats) = state.beats.get_mut(&of) else {
                break;
            };
            match beats.front() {
                Some((at, _)) if *at <= now => {}
                _ => break,
            }
            let Some((at, key)) = beats.pop_front() else {
                break;
            };
            // Found out since it was put there.
            if state.sequences.domain(key.fid) != of {
                state.beat_now(at, key);
                continue;
            }
            match state.late_beats.get_mut(&key) {
                Some(late) if *late != at => continue,
                Some(late) => *late = again,
                None => {}
            }
            if let Some(Entry::Waiting(_)) = state.live.get(&key) {
                state.beat(again, key);
                due.push(key);
            }
        }
        due
    }

    /// The MDTs that have actions here, waiting or running.
    pub fn domains(&self) -> Vec<Domain> {
        let mut state = self.lock();
        state.beats.retain(|_, beats| !beats.is_empty());
        let mut domains: Vec<_> = state.beats.keys().copied().collect();
        domains.extend(state.at_work.keys().map(|key| state.sequences.domain(key.fid)));
        domains.sort_unstable();
        domains.dedup();
        domains
    }

    /// The running actions of one MDT.
    pub fn running_on(&self, domain: Domain) -> Vec<RunningAction> {
        let state = self.lock();
        let all = state.at_work.values();
        all.filter(|running| state.sequences.domain(running.key.fid) == domain)
            .cloned()
            .collect()
    }

    /// An MDT does not answer: no more threads are given to it. Or it does again. `false`: that was known.
    pub fn set_silent(&self, domain: Domain, silent: bool) -> bool {
        let changed = self.lock().holds.set_silent(domain, silent);
        if changed {
            self.work.notify_all();
            self.restores.notify_all();
            self.idle.notify_all();
        }
        changed
    }

    /// The MDTs that do not answer, and since when that is known.
    pub fn silent(&self) -> Vec<(Mdt, Instant)> {
        self.lock().holds.silent()
    }

    /// Whether the MDT that a file is on does not answer.
    pub fn is_silent(&self, fid: Fid) -> bool {
        let state = self.lock();
        state.holds.is_silent(state.sequences.domain(fid))
    }

    /// Each MDT that had actions here, the worker threads that have one of it, and whether it answers.
    pub fn mdts(&self) -> Vec<(Mdt, usize, bool)> {
        self.lock().holds.all()
    }

    /// All running actions; there are no more of them than threads.
    pub fn running(&self) -> Vec<RunningAction> {
        self.lock().at_work.values().cloned().collect()
    }

    /// Whether an action of that file waits or runs, or is on its way.
    pub fn has_file(&self, fid: Fid) -> bool {
        let state = self.lock();
        [true, false]
            .into_iter()
            .any(|restore| state.first.contains_key(&Track { fid, restore }))
    }

    /// The verb of a live action.
    pub fn verb(&self, key: ActionKey) -> Option<Verb> {
        self.lock().verb(key)
    }

    /// The archive of a live action.
    pub fn archive_of(&self, key: ActionKey) -> Option<ArchiveId> {
        self.lock().archive_of(key)
    }

    /// How much there is.
    pub fn depth(&self) -> QueueDepth {
        let mut state = self.lock();
        QueueDepth {
            oldest: state.oldest_arrival().map(|arrived| arrived.elapsed()),
            waiting: state.waiting.clone(),
            running: state.running.clone(),
            helping: state.offers.helping(),
        }
    }

    /// From now on no waiting action is given out, for that reason; running ones go on.
    pub fn park(&self, reason: Stop) {
        self.lock().parked = Some(reason);
    }

    /// Whether waiting actions are no longer given out.
    pub fn is_parked(&self) -> bool {
        self.lock().parked.is_some()
    }

    /// Takes all waiting actions out, to be ended by the caller.
    pub fn take_all_waiting(&self) -> Vec<Box<dyn ActionHandle>> {
        let mut state = self.lock();
        let keys: Vec<_> = state
            .live
            .iter()
            .filter_map(|(key, entry)| matches!(entry, Entry::Waiting(_)).then_some(*key))
            .collect();
        let mut handles: Vec<_> = keys.into_iter().filter_map(|key| state.take_waiting(key)).collect();
        let again: Vec<_> = state.again.drain().map(|(_, handle)| handle).collect();
        state.behind.clear();
        state.lines.clear();
        state.beats.clear();
        state.deferred.clear();
        state.held.clear();
        state.aside.clear();
        state.reserved.clear();
        state.late_beats.clear();
        state.deferrals.clear();
        let ActionTable { live, first, .. } = &mut *state;
        first.retain(|_, key| live.contains_key(key));
        drop(state);
        handles.extend(again.into_iter().map(|mut handle| {
            // The first run's answer takes its entry of the journal along.
            handle.renew();
            handle
        }));
        handles
    }

    /// Stops all running actions.
    pub fn stop_running(&self, reason: Stop) {
        for running in self.lock().at_work.values() {
            running.control.stop(reason);
        }
    }

    /// Waits until nothing runs; `false` when `deadline` came first.
    pub fn wait_idle(&self, deadline: Instant) -> bool {
        self.wait_until(deadline, |state| state.running.values().all(|n| *n == 0))
    }

    /// Waits until nothing runs but what a silent MDT holds; `false` when `deadline` came first.
    pub fn wait_done(&self, deadline: Instant) -> bool {
        self.wait_until(deadline, |state| {
            let mut keys = state.at_work.keys();
            keys.all(|key| state.holds.is_silent(state.sequences.domain(key.fid)))
        })
    }

    fn wait_until(&self, deadline: Instant, is_so: impl Fn(&ActionTable) -> bool) -> bool {
        let mut state = self.lock();
        loop {
            if is_so(&state) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return false;
            }
            state = self
                .idle
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Sends all worker threads home.
    pub fn close(&self) {
        self.lock().closed = true;
        self.work.notify_all();
        self.restores.notify_all();
    }

    /// A thread that helped with these is free again. `more`: they have something left to take.
    pub fn helped(&self, parts: &Arc<dyn SharedWork>, more: bool) {
        let mut state = self.lock();
        state.offers.helped();
        if !more {
            state.offers.withdraw(parts);
        }
    }

    /// Some sleep without an end: they must learn when to wake.
    fn wake_all(&self) {
        self.work.notify_all();
        self.restores.notify_all();
    }

    fn wake_one(&self, class: Class) {
        match class {
            Class::BlockingRestore | Class::Restore => {
                // Either kind may be the one that is free.
                self.restores.notify_one();
                self.work.notify_one();
            }
            Class::Remove | Class::Archive => self.work.notify_one(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, ActionTable> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl IdleThreads for Queue {
    fn offer(&self, parts: Arc<dyn SharedWork>, urgent: bool) {
        self.lock().offers.add(parts, urgent);
        self.work.notify_all();
        if urgent {
            self.restores.notify_all();
        }
    }

    fn withdraw(&self, parts: &Arc<dyn SharedWork>) {
        self.lock().offers.withdraw(parts);
    }
}

#[cfg(test)]
mod tests;
