//! The table of live actions and the lines in which they wait, under the queue's lock.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::fair::{FairKey, FairQueue};
use super::holds::ThreadShares;
use super::offers::PartOffers;
use super::processors::Processors;
use super::{Admission, Class, Deferrals, Job, RunningAction, ThreadRole, Work};
use crate::action::{ActionHandle, ActionKey, Kind, Verb};
use crate::sync::Instant;
use crate::transfer::{Control, Stop};
use crate::types::{ArchiveId, Domain, Fid, OutOfReach, Sequences};

/// Of actions that no longer wait, before they are swept out.
const FORGOTTEN_ARRIVALS: usize = 1024;

pub(super) enum Entry {
    /// In a class's line, or behind another action of its file.
    Waiting(Box<dyn ActionHandle>),
    Running(Verb, Arc<Control>),
}

/// What goes one at a time: a file's restores, and apart from them its archives and removes. A restore
/// waits for neither of those, for an archive of a released file may itself wait for it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Track {
    pub(super) fid: Fid,
    pub(super) restore: bool,
}

impl Track {
    pub(super) fn of(key: ActionKey, class: Class) -> Self {
        Self {
            fid: key.fid,
            restore: matches!(class, Class::BlockingRestore | Class::Restore),
        }
    }
}

/// An action behind another one of its file.
#[derive(Clone, Copy)]
pub(super) struct Follower {
    pub(super) key: ActionKey,
    /// It came when the first one was being answered: it asks for what comes after.
    pub(super) ending: bool,
}

/// Why an action is not given out when it is its turn.
#[derive(Clone, Copy)]
pub(super) enum Hold {
    /// Nobody knows yet whether another mover is at its file. `parked`: its turn in the line has come.
    Asks { until: Instant, parked: bool },
    /// Another mover is.
    Waits { parked: bool },
    /// None is any more.
    Over,
}

#[derive(Default)]
pub(super) struct ActionTable {
    pub(super) live: HashMap<ActionKey, Entry>,
    /// The action of each file that runs or is in line; others of the same file are in `behind`.
    pub(super) first: HashMap<Track, ActionKey>,
    pub(super) behind: HashMap<Track, VecDeque<Follower>>,
    /// Sent again while the first delivery is being answered: new work once that is over.
    pub(super) again: HashMap<ActionKey, Box<dyn ActionHandle>>,
    pub(super) lines: HashMap<Class, FairQueue<ActionKey>>,
    pub(super) waiting: HashMap<Class, usize>,
    pub(super) running: HashMap<Class, usize>,
    pub(super) at_work: HashMap<ActionKey, RunningAction>,
    /// In the order in which they came; those that no longer wait go when they are met.
    pub(super) arrived: VecDeque<(Instant, ActionKey)>,
    pub(super) offers: PartOffers,
    pub(super) sequences: Sequences,
    pub(super) holds: ThreadShares,
    /// Waiting actions of each MDT by when they must next be reported alive.
    pub(super) beats: HashMap<Domain, VecDeque<(Instant, ActionKey)>>,
    /// When those that wait for a time are to be reported: their other entries in `beats` are of before.
    pub(super) late_beats: HashMap<ActionKey, Instant>,
    /// Waiting for a time, not for a thread.
    pub(super) deferred: BTreeSet<(Instant, ActionKey)>,
    /// How often each of those that ever were has been.
    pub(super) deferrals: HashMap<ActionKey, Deferrals>,
    /// Those that wait for other movers, or did.
    pub(super) held: HashMap<ActionKey, Hold>,
    /// Not here yet: places are kept for them.
    pub(super) reserved: HashSet<ActionKey>,
    /// In no line, for another mover may take them at any moment.
    pub(super) aside: HashSet<ActionKey>,
    pub(super) parts_turn: bool,
    /// Nothing that waits is given out any more, for that reason.
    pub(super) parked: Option<Stop>,
    pub(super) closed: bool,
}

impl ActionTable {
    pub(super) fn verb(&self, key: ActionKey) -> Option<Verb> {
        match self.live.get(&key)? {
            Entry::Running(verb, _) => Some(*verb),
            Entry::Waiting(handle) => match handle.item().kind {
                Kind::Do(verb) => Some(verb),
                Kind::Cancel | Kind::Unknown(_) => None,
            },
        }
    }

    /// Takes a new action in; the class in which a thread has something to do now.
    pub(super) fn admit(&mut self, handle: Box<dyn ActionHandle>, first_beat: Instant) -> (Admission, Option<Class>) {
        let key = handle.item().key();
        let Some(class) = Class::of(handle.item()) else {
            return (Admission::Declined(handle), None);
        };
        if let Some(entry) = self.live.get_mut(&key) {
            let is_new = match entry {
                Entry::Running(Verb::Restore, control) => !control.send_again(),
                Entry::Running(_, control) => control.is_ending(),
                // It may have begun, and wait for a thaw.
                Entry::Waiting(waiting) => {
                    waiting.renew();
                    false
                }
            };
            if !is_new || self.again.contains_key(&key) {
                self.reserved.remove(&key);
                return (Admission::Duplicate(handle), None);
            }
            self.again.insert(key, handle);
            return (Admission::Queued, None);
        }
        let track = Track::of(key, class);
        let was_reserved = self.reserved.remove(&key);
        match self.first.get(&track).copied() {
            Some(first) if first == key => self.line_up(class, handle.as_ref(), key),
            Some(_) if was_reserved => {}
            Some(first) => {
                let ending = self.is_ending(first);
                self.behind
                    .entry(track)
                    .or_default()
                    .push_back(Follower { key, ending });
            }
            None => {
                self.first.insert(track, key);
                self.line_up(class, handle.as_ref(), key);
            }
        }
        *self.waiting.entry(class).or_default() += 1;
        self.live.insert(key, Entry::Waiting(handle));
        self.beat(first_beat, key);
        self.note_arrival(key);
        (Admission::Queued, Some(class))
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

    pub(super) fn oldest_arrival(&mut self) -> Option<Instant> {
        while let Some((arrived, key)) = self.arrived.front() {
            if let Some(Entry::Waiting(_)) = self.live.get(key) {
                return Some(*arrived);
            }
            self.arrived.pop_front();
        }
        None
    }

    /// Puts those whose time has come into their lines; how long until the next.
    pub(super) fn line_up_due(&mut self, now: Instant) -> Option<Duration> {
        while let Some((at, key)) = self.deferred.first().copied() {
            if at > now {
                return Some(at - now);
            }
            self.deferred.pop_first();
            // A cancelled one is gone.
            let Some(Entry::Waiting(handle)) = self.live.get(&key) else {
                continue;
            };
            let (Some(class), archive_id) = (Class::of(handle.item()), handle.item().archive_id) else {
                continue;
            };
            if let Some(Hold::Asks { until, parked }) = self.held.get(&key).copied()
                && until == at
            {
                self.held.remove(&key);
                // It is in its line still, or behind another one of its file.
                if !parked {
                    continue;
                }
            }
            // A cancelled one came again, and is behind another one of its file; or it is in no line, for another mover's sake.
            if self.first.get(&Track::of(key, class)) != Some(&key) || self.aside.contains(&key) {
                continue;
            }
            self.push(class, archive_id, key);
        }
        None
    }

    /// It is not given out before it is known whether another mover is at its file, or until then. Whether that is the next
    /// thing that happens by itself.
    pub(super) fn ask(&mut self, key: ActionKey, until: Instant) -> bool {
        // The answer came first.
        if matches!(self.held.get(&key), Some(Hold::Waits { .. })) {
            return false;
        }
        self.held.insert(key, Hold::Asks { until, parked: false });
        self.deferred.insert((until, key));
        self.deferred.first() == Some(&(until, key))
    }

    /// It is not given out before [`ActionTable::let_go`]; it may come later. `false`: it is under way.
    pub(super) fn hold(&mut self, key: ActionKey) -> bool {
        let is_under_way = match self.live.get(&key) {
            Some(Entry::Running(..)) => true,
            // One that waits for its object has begun.
            Some(Entry::Waiting(_)) => self.deferrals.contains_key(&key) && self.verb(key) == Some(Verb::Restore),
            None => false,
        };
        if is_under_way {
            return false;
        }
        let parked = match self.held.get(&key).copied() {
            Some(Hold::Asks { until, parked }) => {
                self.deferred.remove(&(until, key));
                parked
            }
            Some(Hold::Waits { parked }) => parked,
            Some(Hold::Over) | None => false,
        };
        self.held.insert(key, Hold::Waits { parked });
        true
    }

    /// The same of the archives and removes of a file that wait, but for that one; those of which that is news.
    pub(super) fn hold_others(&mut self, key: ActionKey) -> Vec<ActionKey> {
        let track = Track {
            fid: key.fid,
            restore: false,
        };
        let first = self.first.get(&track).copied();
        let behind = self.behind.get(&track).into_iter().flatten();
        let all = first.into_iter().chain(behind.map(|follower| follower.key));
        let is_free = |other: &ActionKey| {
            *other != key
                && matches!(self.live.get(other), Some(Entry::Waiting(_)))
                && !matches!(self.held.get(other), Some(Hold::Waits { .. }))
        };
        let free: Vec<_> = all.filter(is_free).collect();
        free.into_iter().filter(|other| self.hold(*other)).collect()
    }

    /// The class in which a thread has something to do now, if it was its turn; and whether it has waited for somebody.
    pub(super) fn let_go(&mut self, key: ActionKey) -> (Option<Class>, bool) {
        let (parked, has_waited) = match self.held.remove(&key) {
            Some(Hold::Asks { until, parked }) => {
                self.deferred.remove(&(until, key));
                (parked, false)
            }
            Some(Hold::Waits { parked }) => (parked, true),
            Some(Hold::Over) => (false, true),
            None => return (None, false),
        };
        let Some(Entry::Waiting(handle)) = self.live.get(&key) else {
            return (None, false);
        };
        let (class, archive_id) = (Class::of(handle.item()), handle.item().archive_id);
        if has_waited {
            self.held.insert(key, Hold::Over);
        }
        let Some(class) = class.filter(|_| parked) else {
            return (None, has_waited);
        };
        self.push(class, archive_id, key);
        (Some(class), has_waited)
    }

    /// Whether it is the first of its file, and one behind it need not wait.
    pub(super) fn holds_up(&self, key: ActionKey) -> bool {
        let Some(Entry::Waiting(handle)) = self.live.get(&key) else {
            return false;
        };
        let track = Class::of(handle.item()).map(|class| Track::of(key, class));
        let Some(track) = track.filter(|track| self.first.get(track) == Some(&key)) else {
            return false;
        };
        let is_free = |key: &ActionKey| {
            self.live.contains_key(key) && !matches!(self.held.get(key), Some(Hold::Asks { .. } | Hold::Waits { .. }))
        };
        let behind = self.behind.get(&track);
        behind.is_some_and(|behind| behind.iter().any(|follower| is_free(&follower.key)))
    }

    /// Whether it is to wait still; its turn in the line has come.
    fn is_held(&mut self, key: ActionKey) -> bool {
        let held = match self.held.get_mut(&key) {
            Some(Hold::Asks { until, parked }) if *until > Instant::now() => parked,
            Some(Hold::Waits { parked }) => parked,
            Some(Hold::Asks { .. } | Hold::Over) | None => return false,
        };
        *held = true;
        true
    }

    /// Takes waiting restores of an MDT or of an archive out of their lines, or all others, after a look at no more than `most`.
    /// Nothing but a restore may have begun.
    pub(super) fn set_aside(&mut self, of: OutOfReach, restores: bool, most: usize) -> Vec<ActionKey> {
        let mut aside = Vec::new();
        let mut stay = Vec::new();
        let mut looks = 0;
        let classes = match restores {
            true => [Class::BlockingRestore, Class::Restore],
            false => [Class::Remove, Class::Archive],
        };
        for class in classes {
            while looks < most {
                let Some((lot, key)) = self
                    .lines
                    .get_mut(&class)
                    .and_then(|line| line.pop_of(|lot| may_be_of(of, lot)))
                else {
                    break;
                };
                looks += 1;
                // A cancelled one's place in the line is empty, also where it came again and is behind another one of its file;
                // one that waits for another mover is as good as out of it.
                let is_waiting = matches!(self.live.get(&key), Some(Entry::Waiting(_)));
                let is_first = self.first.get(&Track::of(key, class)) == Some(&key);
                if !is_waiting || !is_first || self.aside.contains(&key) || self.is_held(key) {
                    continue;
                }
                let has_begun = self.deferrals.contains_key(&key);
                if is_out(of, self.sequences.domain(key.fid)) && (restores || !has_begun) {
                    self.aside.insert(key);
                    aside.push(key);
                } else {
                    stay.push((class, lot.archive_id, key));
                }
            }
        }
        for (class, archive_id, key) in stay {
            self.push(class, archive_id, key);
        }
        aside
    }

    /// Puts one of these into its line again; the class in which a thread has something to do now.
    pub(super) fn put_back(&mut self, key: ActionKey) -> Option<Class> {
        if !self.aside.remove(&key) {
            return None;
        }
        let Some(Entry::Waiting(handle)) = self.live.get(&key) else {
            return None;
        };
        let (class, archive_id) = (Class::of(handle.item())?, handle.item().archive_id);
        self.push(class, archive_id, key);
        Some(class)
    }

    fn is_ending(&self, key: ActionKey) -> bool {
        matches!(self.live.get(&key), Some(Entry::Running(_, control)) if control.is_ending())
    }

    fn line_up(&mut self, class: Class, handle: &dyn ActionHandle, key: ActionKey) {
        self.push(class, handle.item().archive_id, key);
    }

    fn push(&mut self, class: Class, archive_id: Option<ArchiveId>, key: ActionKey) {
        let domain = self.sequences.domain(key.fid);
        self.holds.see(domain);
        let lot = FairKey { domain, archive_id };
        self.lines.entry(class).or_default().push(lot, key);
    }

    /// The next in line that a thread of these lanes may have.
    fn turn(&mut self, class: Class, lanes: ThreadRole) -> Option<(Domain, ActionKey)> {
        loop {
            let (lines, holds) = (&mut self.lines, &self.holds);
            let (lot, key) = lines.get_mut(&class)?.pop(|domain| holds.allow(domain, lanes))?;
            // Found out since it was put there.
            match self.sequences.domain(key.fid) {
                domain if domain == lot.domain => return Some((domain, key)),
                _ => self.push(class, lot.archive_id, key),
            }
        }
    }

    /// An action that is to be reported alive, later than those that are in line.
    pub(super) fn beat(&mut self, at: Instant, key: ActionKey) {
        let domain = self.sequences.domain(key.fid);
        self.beats.entry(domain).or_default().push_back((at, key));
    }

    /// The same before all others.
    pub(super) fn beat_now(&mut self, at: Instant, key: ActionKey) {
        let domain = self.sequences.domain(key.fid);
        self.beats.entry(domain).or_default().push_front((at, key));
    }

    /// No thread has it any more.
    pub(super) fn leaves(&mut self, key: ActionKey) {
        if let Some(at_work) = self.at_work.remove(&key) {
            self.holds.give_back(at_work.domain, at_work.lanes);
        }
    }

    pub(super) fn take_waiting(&mut self, key: ActionKey) -> Option<Box<dyn ActionHandle>> {
        match self.live.remove(&key)? {
            Entry::Waiting(handle) => {
                self.held.remove(&key);
                self.aside.remove(&key);
                if let Some(waiting) = Class::of(handle.item()).and_then(|class| self.waiting.get_mut(&class)) {
                    *waiting = waiting.saturating_sub(1);
                }
                Some(handle)
            }
            running @ Entry::Running(..) => {
                self.live.insert(key, running);
                None
            }
        }
    }

    /// What waits behind one that worked for the same, and was asked for before its answer.
    pub(super) fn take_served(
        &mut self,
        key: ActionKey,
        class: Class,
        id: Option<ArchiveId>,
    ) -> Vec<Box<dyn ActionHandle>> {
        let served: Vec<_> = self.served(key, class, id).collect();
        served.into_iter().filter_map(|key| self.take_waiting(key)).collect()
    }

    /// Which these are.
    pub(super) fn served(
        &self,
        key: ActionKey,
        class: Class,
        id: Option<ArchiveId>,
    ) -> impl Iterator<Item = ActionKey> + '_ {
        let track = Track::of(key, class);
        let behind = self.behind.get(&track).filter(|_| class != Class::Remove);
        behind
            .into_iter()
            .flatten()
            // Perhaps a remove.
            .take_while(move |follower| !self.reserved.contains(&follower.key))
            .filter(move |follower| self.live.contains_key(&follower.key))
            // An archive behind a remove is to be made anew.
            .take_while(move |follower| self.verb(follower.key) != Some(Verb::Remove))
            // A copy in another archive is another copy.
            .filter(move |follower| !follower.ending && (track.restore || self.archive_of(follower.key) == id))
            .map(|follower| follower.key)
    }

    /// The archive that a live action is of.
    pub(super) fn archive_of(&self, key: ActionKey) -> Option<ArchiveId> {
        match self.live.get(&key)? {
            Entry::Waiting(handle) => handle.item().archive_id,
            Entry::Running(..) => self.at_work.get(&key)?.archive_id,
        }
    }

    /// Lets the next action of the track into its line, after `key` is gone; its class.
    pub(super) fn advance(&mut self, key: ActionKey, class: Class) -> Option<Class> {
        let track = Track::of(key, class);
        if self.first.get(&track) != Some(&key) {
            return None;
        }
        self.first.remove(&track);
        let behind = self.behind.get_mut(&track)?;
        // Cancelled ones are still in the line, and no longer alive.
        let next = std::iter::from_fn(|| behind.pop_front())
            .map(|follower| follower.key)
            .find(|next| self.live.contains_key(next) || self.reserved.contains(next));
        if behind.is_empty() {
            self.behind.remove(&track);
        }
        let next = next?;
        self.first.insert(track, next);
        let Some(Entry::Waiting(handle)) = self.live.get(&next) else {
            return None;
        };
        let (class, archive_id) = (Class::of(handle.item())?, handle.item().archive_id);
        self.push(class, archive_id, next);
        Some(class)
    }

    pub(super) fn pick(&mut self, lanes: ThreadRole, processors: &Processors) -> Option<Work> {
        self.parts_turn = !self.parts_turn;
        let parts_first = self.parts_turn;
        let restores = [Class::BlockingRestore, Class::Restore];
        let others = [Class::Remove, Class::Archive];
        let groups: &[(bool, &[Class])] = match lanes {
            ThreadRole::All => &[(true, &restores), (false, &others)],
            ThreadRole::Restores => &[(true, &restores)],
        };
        for (urgent, classes) in groups {
            // Taking turns, neither many small files nor the parts of a large one wait for the other.
            let work = if parts_first {
                self.pick_parts(*urgent, processors)
                    .or_else(|| self.pick_job(classes, lanes))
            } else {
                self.pick_job(classes, lanes)
                    .or_else(|| self.pick_parts(*urgent, processors))
            };
            if work.is_some() {
                return work;
            }
        }
        None
    }

    fn pick_parts(&mut self, urgent: bool, processors: &Processors) -> Option<Work> {
        let running = self.running.values().sum();
        self.offers.pick(urgent, running, processors)
    }

    fn pick_job(&mut self, classes: &[Class], lanes: ThreadRole) -> Option<Work> {
        if self.parked.is_some() {
            return None;
        }
        for class in classes {
            while let Some((domain, key)) = self.turn(*class, lanes) {
                // One that came from elsewhere has its place.
                let is_first = self.first.get(&Track::of(key, *class)) == Some(&key);
                if !is_first || self.aside.contains(&key) || self.is_held(key) {
                    continue;
                }
                let has_waited = matches!(self.held.get(&key), Some(Hold::Over));
                // A cancelled action's place in the line is empty.
                let Some(handle) = self.take_waiting(key) else {
                    continue;
                };
                let Kind::Do(verb) = handle.item().kind else {
                    continue;
                };
                let control = Arc::new(Control::default());
                self.live.insert(key, Entry::Running(verb, Arc::clone(&control)));
                let at_work = RunningAction {
                    key,
                    verb,
                    archive_id: handle.item().archive_id,
                    since: Instant::now(),
                    control: Arc::clone(&control),
                    domain,
                    lanes,
                };
                self.holds.take(domain, lanes);
                self.at_work.insert(key, at_work);
                *self.running.entry(*class).or_default() += 1;
                let deferrals = self.deferrals.get(&key).copied().unwrap_or_default();
                return Some(Work::Job(Job {
                    handle,
                    control,
                    deferrals,
                    has_waited,
                }));
            }
        }
        None
    }
}

/// Whether a lot's actions may want what is out of reach: where the files of some are may have been found out since.
fn may_be_of(out: OutOfReach, lot: FairKey) -> bool {
    match out {
        OutOfReach::Mdt(mdt) => lot.domain.is_none_or(|of| of == mdt),
        OutOfReach::Archive(id) => lot.archive_id == Some(id),
    }
}

/// Whether one of these does. Where it is not known which MDT has a file, nobody else can know whether it reaches that.
fn is_out(out: OutOfReach, domain: Domain) -> bool {
    match out {
        OutOfReach::Mdt(mdt) => domain == Some(mdt),
        OutOfReach::Archive(_) => domain.is_some(),
    }
}
