//! Who runs next. In: debts from the intake. Out: jobs and parts of jobs for worker threads.
//!
//! Every action that is alive here, waiting or running, is in one table, so that a second delivery, a
//! cancel or a heartbeat finds it at once, among a million others too. One action per file runs at a
//! time; the next for the same file waits behind it. Restores go before removes and archives, some
//! threads serve nothing but restores, and within a class the archive ids take turns.

mod fair;
mod processors;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use self::fair::Fair;
use self::processors::Processors;
use crate::action::{ActionKey, Debt, Item, Kind, Verb};
use crate::transfer::{Control, Helpers, Parts, Stop};
use crate::types::{ArchiveId, Fid};

/// Of actions that no longer wait, before they are swept out.
const FORGOTTEN_ARRIVALS: usize = 1024;

/// Between two looks of a thread that could help, at whether there are processors for it.
const LOOK: Duration = Duration::from_millis(50);

/// In the order of precedence.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Class {
    /// A restore that somebody's read waits for.
    BlockingRestore,
    /// A restore asked for by name.
    Restore,
    /// A remove.
    Remove,
    /// An archive.
    Archive,
}

impl Class {
    /// All, in the order of precedence.
    pub const ALL: [Self; 4] = [Self::BlockingRestore, Self::Restore, Self::Remove, Self::Archive];

    /// As metrics and reports say it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::BlockingRestore => "blocking_restore",
            Self::Restore => "restore",
            Self::Remove => "remove",
            Self::Archive => "archive",
        }
    }

    /// The class of an action; `None` for what is no job.
    #[must_use]
    pub const fn of(item: &Item) -> Option<Self> {
        match item.kind {
            Kind::Do(Verb::Restore) if item.blocking => Some(Self::BlockingRestore),
            Kind::Do(Verb::Restore) => Some(Self::Restore),
            Kind::Do(Verb::Remove) => Some(Self::Remove),
            Kind::Do(Verb::Archive) => Some(Self::Archive),
            Kind::Cancel | Kind::Unknown(_) => None,
        }
    }
}

/// What a worker thread serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lanes {
    /// Everything.
    All,
    /// Restores only, so that a flood of archives never delays an `open()`.
    Restores,
}

/// One action to be done.
#[derive(Debug)]
pub struct Job {
    /// The answer that is owed.
    pub debt: Box<dyn Debt>,
    /// Its strings.
    pub control: Arc<Control>,
}

/// What a worker thread does next.
pub enum Work {
    /// A whole action.
    Job(Job),
    /// A piece of a running one.
    Parts(Arc<dyn Parts>),
    /// Go home.
    Closed,
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Job(_) => "Job",
            Self::Parts(_) => "Parts",
            Self::Closed => "Closed",
        })
    }
}

/// What became of a new action.
#[derive(Debug)]
pub enum Admission {
    /// It waits for its turn.
    Queued,
    /// It is in hand already (delivered twice).
    Duplicate(Box<dyn Debt>),
    /// The same is being done for this file already.
    Declined(Box<dyn Debt>),
}

/// What a cancel found.
#[derive(Debug)]
pub enum Cancelled {
    /// It waited; it is now the caller's to end.
    Waiting(Box<dyn Debt>),
    /// It runs; its control was stopped and its worker will end it.
    Running,
    /// Nothing (it ended meanwhile, or never came).
    Unknown,
}

enum Entry {
    /// In a class's line, or behind another action of its file.
    Waiting(Box<dyn Debt>),
    Running(Verb, Arc<Control>),
}

/// An action that a worker has.
#[derive(Clone, Debug)]
pub struct AtWork {
    /// Which.
    pub key: ActionKey,
    /// What is done.
    pub verb: Verb,
    /// The archive that it is about.
    pub archive_id: Option<ArchiveId>,
    /// Since when.
    pub since: Instant,
    control: Arc<Control>,
}

impl AtWork {
    /// Bytes that it has moved so far.
    #[must_use]
    pub fn moved(&self) -> u64 {
        self.control.moved()
    }
}

/// What goes one at a time: a file's restores, and apart from them its archives and removes. A restore
/// waits for neither of those, for an archive of a released file may itself wait for it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Track {
    fid: Fid,
    restore: bool,
}

impl Track {
    fn of(key: ActionKey, class: Class) -> Self {
        Self {
            fid: key.fid,
            restore: matches!(class, Class::BlockingRestore | Class::Restore),
        }
    }
}

/// An action behind another one of its file.
#[derive(Clone, Copy)]
struct Follower {
    key: ActionKey,
    /// It came when the first one was being answered: it asks for what comes after.
    ending: bool,
}

#[derive(Default)]
struct State {
    live: HashMap<ActionKey, Entry>,
    /// The action of each file that runs or is in line; others of the same file are in `behind`.
    first: HashMap<Track, ActionKey>,
    behind: HashMap<Track, VecDeque<Follower>>,
    /// Sent again while the first delivery is being answered: new work once that is over.
    again: HashMap<ActionKey, Box<dyn Debt>>,
    lines: HashMap<Class, Fair<ActionKey>>,
    waiting: HashMap<Class, usize>,
    running: HashMap<Class, usize>,
    at_work: HashMap<ActionKey, AtWork>,
    /// In the order in which they came; those that no longer wait go when they are met.
    arrived: VecDeque<(Instant, ActionKey)>,
    offers: [VecDeque<Arc<dyn Parts>>; 2],
    /// Threads at work on what was offered.
    helping: usize,
    /// Waiting actions by when they must next be reported alive.
    beats: VecDeque<(Instant, ActionKey)>,
    /// When those that wait for a time are to be reported: their other entries in `beats` are of before.
    late_beats: HashMap<ActionKey, Instant>,
    /// Waiting for a time, not for a thread.
    deferred: BTreeSet<(Instant, ActionKey)>,
    parts_turn: bool,
    parked: bool,
    closed: bool,
}

/// How much there is of what.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Depth {
    /// Waiting actions by class.
    pub waiting: HashMap<Class, usize>,
    /// Running actions by class.
    pub running: HashMap<Class, usize>,
    /// Threads that help with the parts of another's action.
    pub helping: usize,
    /// How long the oldest waiting action has waited.
    pub oldest: Option<Duration>,
}

/// The table and its lines.
#[derive(Default)]
pub struct Queue {
    state: Mutex<State>,
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
    /// Takes a new action in. Its first heartbeat is due at `first_beat`.
    pub fn admit(&self, debt: Box<dyn Debt>, first_beat: Instant) -> Admission {
        let key = debt.item().key();
        let Some(class) = Class::of(debt.item()) else {
            return Admission::Declined(debt);
        };
        let mut state = self.lock();
        if state.live.contains_key(&key) {
            if !state.is_ending(key) || state.again.contains_key(&key) {
                return Admission::Duplicate(debt);
            }
            state.again.insert(key, debt);
            return Admission::Queued;
        }
        let track = Track::of(key, class);
        match state.first.get(&track).copied() {
            Some(first) => {
                let ending = state.is_ending(first);
                if class == Class::Archive && state.verb(first) == Some(Verb::Archive) && !ending {
                    return Admission::Declined(debt);
                }
                state
                    .behind
                    .entry(track)
                    .or_default()
                    .push_back(Follower { key, ending });
            }
            None => {
                state.first.insert(track, key);
                state.line_up(class, debt.as_ref(), key);
            }
        }
        *state.waiting.entry(class).or_default() += 1;
        state.live.insert(key, Entry::Waiting(debt));
        state.beats.push_back((first_beat, key));
        state.note_arrival(key);
        drop(state);
        self.wake_one(class);
        Admission::Queued
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
                Some(debt) => {
                    state.late_beats.remove(&key);
                    let next = Class::of(debt.item()).and_then(|class| state.advance(key, class));
                    drop(state);
                    next.into_iter().for_each(|class| self.wake_one(class));
                    Cancelled::Waiting(debt)
                }
                None => Cancelled::Unknown,
            },
        }
    }

    /// Waits for something to do.
    pub fn next(&self, lanes: Lanes) -> Work {
        let mut state = self.lock();
        loop {
            if state.closed {
                return Work::Closed;
            }
            let now = Instant::now();
            if state.has_offers(lanes) && self.processors.is_due(now) {
                drop(state);
                self.processors.look(now);
                state = self.lock();
                continue;
            }
            let mut sleep = state.line_up_due(now);
            if let Some(work) = state.pick(lanes, &self.processors) {
                return work;
            }
            if state.has_offers(lanes) {
                // Nobody tells when there are processors to spare.
                sleep = Some(sleep.map_or(LOOK, |sleep| sleep.min(LOOK)));
            }
            let condition = match lanes {
                Lanes::All => &self.work,
                Lanes::Restores => &self.restores,
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
    pub fn defer(&self, debt: Box<dyn Debt>, until: Instant) -> Result<(), (Box<dyn Debt>, Stop)> {
        let key = debt.item().key();
        let Some(class) = Class::of(debt.item()) else {
            return Err((debt, Stop::Shutdown));
        };
        let mut state = self.lock();
        let stopped = match state.live.get(&key) {
            Some(Entry::Running(_, control)) => control.stopped(),
            _ => None,
        };
        // What waits is not looked at any more after this.
        if let Some(stop) = stopped.or(state.parked.then_some(Stop::Shutdown)) {
            return Err((debt, stop));
        }
        if let Some(running) = state.running.get_mut(&class) {
            *running = running.saturating_sub(1);
        }
        *state.waiting.entry(class).or_default() += 1;
        state.at_work.remove(&key);
        state.live.insert(key, Entry::Waiting(debt));
        let now = Instant::now();
        state.late_beats.insert(key, now);
        state.beats.push_front((now, key));
        state.deferred.insert((until, key));
        drop(state);
        // Some sleep without an end: they must learn when to wake.
        self.work.notify_all();
        self.restores.notify_all();
        self.idle.notify_all();
        Ok(())
    }

    /// Takes an ended action out. Gives back those that waited behind it for nothing: `done` says that
    /// the file now is as they want it.
    pub fn ended(&self, item: &Item, done: bool) -> Vec<Box<dyn Debt>> {
        let key = item.key();
        let Some(class) = Class::of(item) else {
            return Vec::new();
        };
        let mut state = self.lock();
        state.live.remove(&key);
        state.at_work.remove(&key);
        state.late_beats.remove(&key);
        if let Some(running) = state.running.get_mut(&class) {
            *running = running.saturating_sub(1);
        }
        let served = if done {
            state.take_served(key, class)
        } else {
            Vec::new()
        };
        let next = state.advance(key, class);
        let again = state.again.remove(&key);
        drop(state);
        next.into_iter().for_each(|class| self.wake_one(class));
        if let Some(debt) = again
            && let Admission::Duplicate(debt) | Admission::Declined(debt) = self.admit(debt, Instant::now())
        {
            // Another of its file came first: it is then like any that was sent twice.
            debt.disown();
        }
        self.idle.notify_all();
        served
    }

    /// Waiting actions whose heartbeat is due by `now`, at most `limit` of them; each is due again at
    /// `again`.
    pub fn due_waiting(&self, now: Instant, again: Instant, limit: usize) -> Vec<ActionKey> {
        let mut state = self.lock();
        let mut due = Vec::new();
        while due.len() < limit {
            match state.beats.front() {
                Some((at, _)) if *at <= now => {}
                _ => break,
            }
            let Some((at, key)) = state.beats.pop_front() else {
                break;
            };
            match state.late_beats.get_mut(&key) {
                Some(late) if *late != at => continue,
                Some(late) => *late = again,
                None => {}
            }
            if let Some(Entry::Waiting(_)) = state.live.get(&key) {
                state.beats.push_back((again, key));
                due.push(key);
            }
        }
        due
    }

    /// All running actions; there are no more of them than threads.
    pub fn running(&self) -> Vec<AtWork> {
        self.lock().at_work.values().cloned().collect()
    }

    /// Whether an action of that file waits or runs.
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

    /// How much there is.
    pub fn depth(&self) -> Depth {
        let mut state = self.lock();
        Depth {
            oldest: state.oldest_arrival().map(|arrived| arrived.elapsed()),
            waiting: state.waiting.clone(),
            running: state.running.clone(),
            helping: state.helping,
        }
    }

    /// From now on no waiting action is given out; running ones go on.
    pub fn park(&self) {
        self.lock().parked = true;
    }

    /// Whether waiting actions are no longer given out.
    pub fn is_parked(&self) -> bool {
        self.lock().parked
    }

    /// Takes all waiting actions out, to be ended by the caller.
    pub fn take_all_waiting(&self) -> Vec<Box<dyn Debt>> {
        let mut state = self.lock();
        let keys: Vec<_> = state
            .live
            .iter()
            .filter_map(|(key, entry)| matches!(entry, Entry::Waiting(_)).then_some(*key))
            .collect();
        let mut debts: Vec<_> = keys.into_iter().filter_map(|key| state.take_waiting(key)).collect();
        debts.extend(state.again.drain().map(|(_, debt)| debt));
        state.behind.clear();
        state.lines.clear();
        state.beats.clear();
        state.deferred.clear();
        state.late_beats.clear();
        let State { live, first, .. } = &mut *state;
        first.retain(|_, key| live.contains_key(key));
        debts
    }

    /// Stops all running actions.
    pub fn stop_running(&self, reason: Stop) {
        for running in self.lock().at_work.values() {
            running.control.stop(reason);
        }
    }

    /// Waits until nothing runs; `false` when `deadline` came first.
    pub fn wait_idle(&self, deadline: Instant) -> bool {
        let mut state = self.lock();
        loop {
            if state.running.values().all(|n| *n == 0) {
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
    pub fn helped(&self, parts: &Arc<dyn Parts>, more: bool) {
        let mut state = self.lock();
        state.helping = state.helping.saturating_sub(1);
        if !more {
            state.withdraw(parts);
        }
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

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Helpers for Queue {
    fn offer(&self, parts: Arc<dyn Parts>, urgent: bool) {
        if let Some(offers) = self.lock().offers.get_mut(usize::from(!urgent)) {
            offers.push_back(parts);
        }
        self.work.notify_all();
        if urgent {
            self.restores.notify_all();
        }
    }

    fn withdraw(&self, parts: &Arc<dyn Parts>) {
        self.lock().withdraw(parts);
    }
}

impl State {
    fn verb(&self, key: ActionKey) -> Option<Verb> {
        match self.live.get(&key)? {
            Entry::Running(verb, _) => Some(*verb),
            Entry::Waiting(debt) => match debt.item().kind {
                Kind::Do(verb) => Some(verb),
                Kind::Cancel | Kind::Unknown(_) => None,
            },
        }
    }

    fn note_arrival(&mut self, key: ActionKey) {
        // One that waits for long must not hold all that came after it.
        if self.arrived.len() > 2 * self.live.len() + FORGOTTEN_ARRIVALS {
            let live = &self.live;
            self.arrived
                .retain(|(_, key)| matches!(live.get(key), Some(Entry::Waiting(_))));
        }
        self.arrived.push_back((Instant::now(), key));
    }

    fn oldest_arrival(&mut self) -> Option<Instant> {
        while let Some((arrived, key)) = self.arrived.front() {
            if let Some(Entry::Waiting(_)) = self.live.get(key) {
                return Some(*arrived);
            }
            self.arrived.pop_front();
        }
        None
    }

    /// Puts those whose time has come into their lines; how long until the next.
    fn line_up_due(&mut self, now: Instant) -> Option<Duration> {
        while let Some((at, key)) = self.deferred.first().copied() {
            if at > now {
                return Some(at - now);
            }
            self.deferred.pop_first();
            // A cancelled one is gone.
            let Some(Entry::Waiting(debt)) = self.live.get(&key) else {
                continue;
            };
            let (Some(class), archive_id) = (Class::of(debt.item()), debt.item().archive_id) else {
                continue;
            };
            self.lines.entry(class).or_default().push(archive_id, key);
        }
        None
    }

    fn is_ending(&self, key: ActionKey) -> bool {
        matches!(self.live.get(&key), Some(Entry::Running(_, control)) if control.is_ending())
    }

    fn line_up(&mut self, class: Class, debt: &dyn Debt, key: ActionKey) {
        self.lines.entry(class).or_default().push(debt.item().archive_id, key);
    }

    fn take_waiting(&mut self, key: ActionKey) -> Option<Box<dyn Debt>> {
        match self.live.remove(&key)? {
            Entry::Waiting(debt) => {
                if let Some(waiting) = Class::of(debt.item()).and_then(|class| self.waiting.get_mut(&class)) {
                    *waiting = waiting.saturating_sub(1);
                }
                Some(debt)
            }
            running @ Entry::Running(..) => {
                self.live.insert(key, running);
                None
            }
        }
    }

    /// Restores behind one that worked, and that were asked for before its answer.
    fn take_served(&mut self, key: ActionKey, class: Class) -> Vec<Box<dyn Debt>> {
        let track = Track::of(key, class);
        if !track.restore {
            return Vec::new();
        }
        let behind = self.behind.get(&track).cloned().unwrap_or_default();
        behind
            .into_iter()
            .filter(|follower| !follower.ending)
            .filter_map(|follower| self.take_waiting(follower.key))
            .collect()
    }

    /// Lets the next action of the track into its line, after `key` is gone; its class.
    fn advance(&mut self, key: ActionKey, class: Class) -> Option<Class> {
        let track = Track::of(key, class);
        if self.first.get(&track) != Some(&key) {
            return None;
        }
        self.first.remove(&track);
        let behind = self.behind.get_mut(&track)?;
        // Cancelled ones are still in the line, and no longer alive.
        let next = std::iter::from_fn(|| behind.pop_front())
            .map(|follower| follower.key)
            .find(|next| self.live.contains_key(next));
        if behind.is_empty() {
            self.behind.remove(&track);
        }
        let next = next?;
        self.first.insert(track, next);
        let Some(Entry::Waiting(debt)) = self.live.get(&next) else {
            return None;
        };
        let (class, archive_id) = (Class::of(debt.item())?, debt.item().archive_id);
        self.lines.entry(class).or_default().push(archive_id, next);
        Some(class)
    }

    fn withdraw(&mut self, parts: &Arc<dyn Parts>) {
        for offers in &mut self.offers {
            offers.retain(|offer| !Arc::ptr_eq(offer, parts));
        }
    }

    fn has_offers(&self, lanes: Lanes) -> bool {
        let offers = match lanes {
            Lanes::All => &self.offers[..],
            Lanes::Restores => &self.offers[..1],
        };
        offers.iter().any(|offers| !offers.is_empty())
    }

    fn pick(&mut self, lanes: Lanes, processors: &Processors) -> Option<Work> {
        self.parts_turn = !self.parts_turn;
        let parts_first = self.parts_turn;
        let restores = [Class::BlockingRestore, Class::Restore];
        let others = [Class::Remove, Class::Archive];
        let groups: &[(usize, &[Class])] = match lanes {
            Lanes::All => &[(0, &restores), (1, &others)],
            Lanes::Restores => &[(0, &restores)],
        };
        for (offers, classes) in groups {
            // Taking turns, neither many small files nor the parts of a large one wait for the other.
            let work = if parts_first {
                self.pick_parts(*offers, processors).or_else(|| self.pick_job(classes))
            } else {
                self.pick_job(classes).or_else(|| self.pick_parts(*offers, processors))
            };
            if work.is_some() {
                return work;
            }
        }
        None
    }

    fn pick_parts(&mut self, offers: usize, processors: &Processors) -> Option<Work> {
        let busy = self.running.values().sum::<usize>() + self.helping;
        let offers = self.offers.get_mut(offers)?;
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

    fn pick_job(&mut self, classes: &[Class]) -> Option<Work> {
        if self.parked {
            return None;
        }
        for class in classes {
            while let Some(key) = self.lines.get_mut(class).and_then(Fair::pop) {
                // A cancelled action's place in the line is empty.
                let Some(debt) = self.take_waiting(key) else {
                    continue;
                };
                let Kind::Do(verb) = debt.item().kind else {
                    continue;
                };
                let control = Arc::new(Control::default());
                self.live.insert(key, Entry::Running(verb, Arc::clone(&control)));
                let at_work = AtWork {
                    key,
                    verb,
                    archive_id: debt.item().archive_id,
                    since: Instant::now(),
                    control: Arc::clone(&control),
                };
                self.at_work.insert(key, at_work);
                *self.running.entry(*class).or_default() += 1;
                return Some(Work::Job(Job { debt, control }));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
