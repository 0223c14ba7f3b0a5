//! A file system with its coordinator and a bucket, all in memory. Each call of the code that is tried is a step of its
//! thread's, and after each of them no file may be without its bytes.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::ARCHIVE;
use super::bucket::{Bucket, Object, error};
use super::fleet::Fleet;
use super::gate::{Gate, Here};
use crate::action::{ActionKey, CopyState, Deletions, HsmError, Item, Kind, Verb, Verdict};
use crate::mislaid::{ArchivedData, Likeness};
use crate::store::memory::{Answer, Asked, Remote};
use crate::store::{KeyLayout, Location, ObjectKey, Owner};
use crate::transfer::Control;
use crate::types::{Fid, Timestamp};

/// Of the file system.
pub(super) const NAME: &str = "lustre:1";
/// At most.
pub(super) const MOVERS: usize = 3;
/// Each one's thread.
pub(super) const MOVER_THREADS: [usize; MOVERS] = [0, 1, 4];
/// The thread of users and administrators.
pub(super) const USERS: usize = 2;
pub(super) const SCRUB: usize = 3;
/// With two movers one less.
pub(super) const THREADS: usize = 5;

/// A rule that is broken on purpose: the schedules have to find that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Broken {
    Nothing,
    /// A scrub takes files' records as they were when it first saw them.
    Scrub,
    /// So do movers, during an action.
    Movers,
    /// An archive does not look for announced deletions.
    Archives,
}

/// A file as the MDT has it.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) fid: Fid,
    pub(super) path: String,
    pub(super) data: Arc<File>,
    /// What the data is made of; no two writes have the same.
    pub(super) content: u64,
    pub(super) data_version: u64,
    pub(super) exists: bool,
    pub(super) archived: bool,
    pub(super) dirty: bool,
    pub(super) released: bool,
    /// The data version of the copy.
    pub(super) archived_version: u64,
    pub(super) record: Option<Vec<u8>>,
    /// What is said on it of deletions.
    pub(super) deletions: Deletions,
    pub(super) gone: bool,
    /// Has more to tell than fits into an object's metadata.
    pub(super) large: bool,
    /// It has had another name.
    pub(super) renamed: bool,
    /// A call that writes its record has been held up.
    pub(super) held_up: bool,
}

impl Node {
    pub(super) const fn is_clean(&self) -> bool {
        self.archived && !self.dirty
    }

    pub(super) const fn copy_state(&self) -> CopyState {
        CopyState {
            archived: self.archived,
            released: self.released,
            archive_id: Some(ARCHIVE),
        }
    }

    /// Where its copy is, without a record.
    pub(super) fn told(&self) -> Option<String> {
        (self.record.is_none() && (self.archived || self.released)).then(|| self.fid.bare())
    }

    pub(super) fn release(&mut self) {
        self.released = self.is_clean() && self.archived_version == self.data_version;
    }

    pub(super) fn written(&mut self) {
        self.data_version += 1;
        self.dirty |= self.exists;
        self.stamp();
    }

    /// The time of its last change, which no two changes share.
    fn stamp(&self) {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(self.content * 10_000 + self.data_version);
        self.data.set_modified(time).expect("a time of change");
    }

    pub(super) fn mtime(&self) -> Option<Timestamp> {
        let modified = self.data.metadata().ok()?.modified().ok()?;
        let since = modified.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(Timestamp {
            seconds: i64::try_from(since.as_secs()).ok()?,
            nanos: since.subsec_nanos(),
        })
    }
}

/// One that the coordinator knows.
#[derive(Clone, Debug)]
pub(super) struct Action {
    pub(super) item: Item,
    pub(super) mover: usize,
    pub(super) cancelled: bool,
}

impl Action {
    pub(super) const fn new(item: Item, mover: usize) -> Self {
        Self {
            item,
            mover,
            cancelled: false,
        }
    }
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) dice: fastrand::Rng,
    pub(super) nodes: Vec<Node>,
    /// How files' keys are made.
    pub(super) layout: KeyLayout,
    pub(super) bucket: Bucket,
    pub(super) actions: Vec<Action>,
    /// What movers were sent and have not begun.
    pub(super) inboxes: [VecDeque<Item>; MOVERS],
    /// What they have in hand.
    pub(super) hands: [Option<(ActionKey, Arc<Control>)>; MOVERS],
    /// Those that were killed, and whose threads are on their way out: nothing of what they do happens.
    pub(super) ghosts: [bool; MOVERS],
    /// Of these, those with a call under way when they were killed.
    pub(super) under_way: [bool; MOVERS],
    /// What they take away beside that.
    pub(super) sweeps: [Option<Arc<Control>>; MOVERS],
    /// `None`: two movers that know nothing of each other, and of nothing once they are killed.
    pub(super) fleet: Option<Fleet>,
    /// Others' objects: key and number.
    pub(super) foreign: Vec<(String, u64)>,
    /// Requests that were given up and are still on their way.
    pub(super) late: Vec<Asked>,
    pub(super) losses: Vec<String>,
    /// What happened, for whoever looks into a loss.
    pub(super) told: Vec<String>,
    pub(super) over: bool,
    /// As they were first seen, where that is the broken rule.
    pub(super) stale: [HashMap<Fid, Option<Vec<u8>>>; THREADS],
    contents: u64,
}

#[derive(Debug)]
pub(super) struct World {
    seed: u64,
    gate: Gate,
    broken: Broken,
    state: Mutex<State>,
}

thread_local! {
    static THREAD: Cell<usize> = const { Cell::new(USERS) };
    static WORLD: RefCell<Option<Arc<World>>> = const { RefCell::new(None) };
}

/// The number of the one who runs.
pub(super) fn thread() -> usize {
    THREAD.get()
}

pub(super) fn no_such_file(call: &'static str) -> HsmError {
    HsmError::new(call, libc::ENOENT)
}

/// Bytes of each file: so many that none can be taken for shortened.
pub(super) fn bytes_of(content: u64) -> Vec<u8> {
    format!("{content:032}").into_bytes()
}

impl State {
    /// Whether a call is none: its mover was killed before. One that was under way then takes place.
    fn is_void(&mut self, thread: usize) -> bool {
        let mover = MOVER_THREADS.iter().position(|of| *of == thread);
        mover.is_some_and(|mover| self.ghosts[mover] && !std::mem::take(&mut self.under_way[mover]))
    }

    pub(super) fn tell(&mut self, what: impl FnOnce() -> String) {
        self.told.push(what());
    }

    /// Makes a file; its place in the list.
    pub(super) fn create(&mut self, path: String) -> usize {
        self.contents += 1;
        let content = self.contents;
        let data = tempfile::tempfile().expect("a file for data");
        data.write_all_at(&bytes_of(content), 0).expect("room for data");
        let oid = u32::try_from(self.nodes.len()).expect("few files") + 1;
        let large = self.dice.u8(..4) == 0;
        self.nodes.push(Node {
            fid: Fid {
                seq: 0x2_0000_0401,
                oid,
                ver: 0,
            },
            path,
            data: Arc::new(data),
            content,
            data_version: 1,
            exists: false,
            archived: false,
            dirty: false,
            released: false,
            archived_version: 0,
            record: None,
            deletions: Deletions::default(),
            gone: false,
            large,
            renamed: false,
            held_up: false,
        });
        let index = self.nodes.len() - 1;
        self.nodes[index].stamp();
        index
    }

    /// New bytes.
    pub(super) fn write(&mut self, index: usize) {
        self.contents += 1;
        self.fill(index, self.contents);
        self.nodes[index].written();
    }

    /// `cp -a` as root: the bytes, and all attributes along with them.
    pub(super) fn copy(&mut self, from: usize, path: String) -> usize {
        let to = self.create(path);
        self.fill(to, self.nodes[from].content);
        self.nodes[to].record = self.nodes[from].record.clone();
        self.nodes[to].deletions = self.nodes[from].deletions.clone();
        to
    }

    fn fill(&mut self, index: usize, content: u64) {
        let node = &mut self.nodes[index];
        node.content = content;
        node.data.write_all_at(&bytes_of(content), 0).expect("room for data");
        node.stamp();
    }

    pub(super) fn node(&mut self, fid: Fid, call: &'static str) -> Result<&mut Node, HsmError> {
        let node = self.nodes.iter_mut().find(|node| node.fid == fid && !node.gone);
        node.ok_or_else(|| no_such_file(call))
    }

    fn unless_killed<T>(
        &mut self,
        call: &'static str,
        what: impl FnOnce(&mut Self) -> Result<T, HsmError>,
    ) -> Result<T, HsmError> {
        match self.is_void(thread()) {
            true => Err(HsmError::new(call, libc::EIO)),
            false => what(self),
        }
    }

    /// Where keys are paths, not of a file that has had another name: its copy may lie where nothing that is left tells of.
    fn is_held_up(&mut self, call: &'static str, fid: Fid) -> bool {
        let thread = thread();
        if self.fleet.is_none() || !MOVER_THREADS.contains(&thread) || self.dice.u8(..4) > 0 {
            return false;
        }
        let by_path = self.layout == KeyLayout::Path;
        let Ok(node) = self.node(fid, call) else {
            return false;
        };
        if by_path && node.renamed {
            return false;
        }
        node.held_up = true;
        self.tell(|| format!("{thread}: {call} of {fid} is held up"));
        true
    }

    pub(super) fn action(&self, key: ActionKey) -> Option<usize> {
        self.actions.iter().position(|action| action.item.key() == key)
    }

    /// A restore's end that was heard: the file has what it wrote.
    pub(super) fn restored(&mut self, fid: Fid, volatile: Option<File>) -> Result<(), HsmError> {
        let node = self.node(fid, "end")?;
        let (Some(volatile), true) = (volatile, node.released) else {
            return Err(HsmError::new("end", libc::EINVAL));
        };
        let mut bytes = vec![0; bytes_of(0).len() + 1];
        let read = volatile.read_at(&mut bytes, 0).unwrap_or_default();
        bytes.truncate(read);
        // The data is another one for the MDT, and the times are those of before.
        let time = node.data.metadata().and_then(|stat| stat.modified());
        time.and_then(|time| volatile.set_modified(time))
            .expect("a time of change");
        (node.released, node.data) = (false, Arc::new(volatile));
        node.data_version += 1;
        node.archived_version = node.data_version;
        if bytes != bytes_of(node.content) {
            let words = format!("{} ({fid}) was restored with other bytes than its own", node.path);
            self.lose(words);
        }
        Ok(())
    }

    /// A reader gets an error: not where the file is gone, or where somebody has cancelled it.
    pub(super) fn look_at_failure(&mut self, action: &Action, verdict: Verdict) {
        let fid = action.item.fid;
        let is_read = action.item.kind == Kind::Do(Verb::Restore) && !action.cancelled;
        if is_read && self.node(fid, "end").is_ok() {
            self.lose(format!("a reader of {fid} is told '{verdict}'"));
        }
    }

    /// The first one tells the most.
    pub(super) fn lose(&mut self, words: String) {
        if self.losses.is_empty() {
            self.tell(|| format!("lost: {words}"));
            self.losses.push(words);
        }
    }

    pub(super) fn has_action(&self, fid: Fid, kind: Kind) -> bool {
        let mut actions = self.actions.iter();
        actions.any(|action| action.item.fid == fid && action.item.kind == kind)
    }

    /// What a restore would get.
    fn copy_of<'a>(&'a self, location: &Location) -> Option<&'a Object> {
        match &location.version {
            Some(version) => self.bucket.version(location.key.as_str(), version),
            None => self.bucket.current(location.key.as_str()),
        }
    }

    /// What a restore would get of a file without a record: where keys are FIDs, what says itself that it is the copy.
    fn told(&self, node: &Node) -> Option<&Object> {
        let key = node.told().filter(|_| self.layout == KeyLayout::Fid)?;
        let object = self.bucket.current(&key)?;
        let owner = Owner {
            fs: NAME.to_owned(),
            fid: node.fid,
        };
        let key = ObjectKey::new(key).expect("a key");
        Location::told_by(&object.info(), key.at(ARCHIVE), &owner).map(|_| object)
    }

    /// What a restore finds where what the record names is gone, or was not written of what was archived: in a fleet late calls
    /// change records.
    fn mislaid(&self, node: &Node, named: Option<&Location>) -> Option<&Object> {
        self.fleet.as_ref()?;
        let archived = ArchivedData {
            owner: Owner {
                fs: NAME.to_owned(),
                fid: node.fid,
            },
            size: bytes_of(0).len() as u64,
            mtime: node.mtime(),
            version: Some(node.archived_version),
        };
        let mut keys = vec![node.fid.bare(), self.key_of(node)];
        keys.extend(named.map(|named| named.key.as_str().to_owned()));
        keys.into_iter()
            .filter_map(|key| ObjectKey::new(key).ok())
            .flat_map(|key| {
                let beside = key.beside(node.fid).ok();
                let further = beside.as_ref().and_then(|beside| beside.beside(node.fid).ok());
                [Some(key), beside, further]
            })
            .flatten()
            .find_map(|key| {
                let likeness = |object: &Object| archived.likeness(key.at(ARCHIVE), &object.info());
                let current = self.bucket.current(key.as_str());
                let kept = || {
                    let mut kept = self.bucket.kept(key.as_str());
                    kept.find(|object| likeness(object) == Some(Likeness::Version))
                };
                current
                    .filter(|object| likeness(object) >= Some(Likeness::Time))
                    .or_else(kept)
            })
    }

    /// One of those that were given up.
    pub(super) fn arrive(&mut self, index: usize) {
        let asked = self.late.swap_remove(index);
        let words = format!("{} {}", asked.method, asked.key);
        let status = self.bucket.serve(asked).status;
        self.tell(|| format!("late: {words} {status}"));
    }

    /// The key that a file's copy would have.
    pub(super) fn key_of(&self, node: &Node) -> String {
        match self.layout {
            KeyLayout::Path => node.path.clone(),
            KeyLayout::Fid => node.fid.bare(),
        }
    }

    fn check(&mut self) {
        let mut found = Vec::new();
        for node in self.nodes.iter().filter(|node| !node.gone) {
            if !node.released && !node.is_clean() {
                continue;
            }
            let location = node.record.as_deref().map(Location::from_bytes).and_then(Result::ok);
            let by_record = location
                .as_ref()
                .and_then(|location| self.copy_of(location).filter(|copy| copy.etag == location.etag));
            let has_bytes = |copy: &&Object| copy.bytes == bytes_of(node.content);
            let copy = by_record.or_else(|| self.told(node)).filter(has_bytes);
            if copy.is_none() && self.mislaid(node, location.as_ref()).filter(has_bytes).is_none() {
                let state = if node.released { "released" } else { "archived" };
                found.push(format!(
                    "{} ({}) is {state}, and has not its copy: {location:?}",
                    node.path, node.fid
                ));
            }
        }
        for (key, serial) in &self.foreign {
            if self.bucket.current(key).is_none_or(|now| now.serial != *serial) {
                found.push(format!("others' object '{key}' is gone"));
            }
        }
        // The first one tells the most.
        if self.losses.is_empty() && !found.is_empty() {
            self.tell(|| format!("lost: {}", found.join(", ")));
            self.losses = found;
        }
    }

    /// Objects that are nobody's.
    pub(super) fn orphans(&self) -> Vec<String> {
        let records = self
            .nodes
            .iter()
            .filter(|node| !node.gone)
            .filter_map(|node| node.record.as_deref());
        let mut meant: Vec<String> = records
            .filter_map(|record| Location::from_bytes(record).ok())
            .flat_map(|location| [Some(location.key), location.sidecar])
            .flatten()
            .map(|key| key.as_str().to_owned())
            .collect();
        let there = self.nodes.iter().filter(|node| !node.gone);
        meant.extend(there.filter_map(Node::told));
        let mut orphans = self.bucket.listed();
        orphans.retain(|key| !meant.contains(key) && !self.foreign.iter().any(|(foreign, _)| foreign == key));
        orphans
    }
}

impl World {
    /// `fleet`: with three movers and a ledger.
    pub(super) fn new(seed: u64, broken: Broken, layout: KeyLayout, fleet: Option<Fleet>) -> Arc<Self> {
        let mut dice = fastrand::Rng::with_seed(seed);
        let bucket = Bucket::new(dice.bool());
        // Of one file most of all can go wrong.
        let names: &[&str] = if fleet.is_some() && dice.bool() {
            &["a"]
        } else {
            &["a", "b"]
        };
        let threads = if fleet.is_some() { THREADS } else { THREADS - 1 };
        let mut state = State {
            dice,
            nodes: Vec::new(),
            layout,
            bucket,
            actions: Vec::new(),
            inboxes: Default::default(),
            hands: Default::default(),
            ghosts: Default::default(),
            under_way: Default::default(),
            sweeps: Default::default(),
            fleet,
            foreign: Vec::new(),
            late: Vec::new(),
            losses: Vec::new(),
            told: Vec::new(),
            over: false,
            stale: Default::default(),
            contents: 0,
        };
        let versions = if state.bucket.versioned { "with" } else { "without" };
        state.tell(|| format!("a bucket {versions} versions"));
        for name in names {
            state.create((*name).to_owned());
        }
        Arc::new(Self {
            seed,
            gate: Gate::new(!seed, threads),
            broken,
            state: Mutex::new(state),
        })
    }

    /// This thread is one of it from now on, until what is given is dropped.
    pub(super) fn enter(self: &Arc<Self>, thread: usize) -> Here<'_> {
        self.stand_in(thread);
        self.gate.enter(thread)
    }

    /// The same after the end of all, for who need not wait.
    pub(super) fn stand_in(self: &Arc<Self>, thread: usize) {
        THREAD.set(thread);
        WORLD.set(Some(Arc::clone(self)));
        // What the code draws is drawn again with the same seed.
        fastrand::seed(self.seed.wrapping_mul(8) + thread as u64);
    }

    /// Without a step.
    pub(super) fn with<T>(&self, what: impl FnOnce(&mut State) -> T) -> T {
        what(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// One step.
    pub(super) fn at<T>(&self, what: impl FnOnce(&mut State) -> T) -> T {
        self.gate.step(thread());
        self.now(what)
    }

    /// In the same step as what was before.
    pub(super) fn now<T>(&self, what: impl FnOnce(&mut State) -> T) -> T {
        self.with(|state| {
            let result = what(state);
            state.check();
            result
        })
    }

    /// An action, or a scrub, begins on this thread.
    pub(super) fn begins(&self) {
        let thread = thread();
        self.with(|state| {
            state.stale[thread].clear();
        });
    }

    /// A call of the code that is tried: one step, and nothing where its mover was killed.
    pub(super) fn call<T>(
        &self,
        call: &'static str,
        what: impl FnOnce(&mut State) -> Result<T, HsmError>,
    ) -> Result<T, HsmError> {
        self.at(|state| state.unless_killed(call, what))
    }

    /// A call that writes a file's record, in the same step as the look before it. In a fleet its node is held up between the two
    /// now and then, and whatever others do meanwhile comes before: it was cut off from the MDT, or paused.
    pub(super) fn call_now<T>(
        &self,
        call: &'static str,
        fid: Fid,
        what: impl FnOnce(&mut State) -> Result<T, HsmError>,
    ) -> Result<T, HsmError> {
        match self.with(|state| state.is_held_up(call, fid)) {
            true => self.call(call, what),
            false => self.now(|state| state.unless_killed(call, what)),
        }
    }

    /// Whether what is said of deletions is not heard.
    pub(super) fn is_deaf(&self) -> bool {
        self.broken == Broken::Archives
    }

    pub(super) fn takes_stale(&self, thread: usize) -> bool {
        match self.broken {
            Broken::Nothing | Broken::Archives => false,
            Broken::Scrub => thread == SCRUB,
            Broken::Movers => MOVER_THREADS.contains(&thread),
        }
    }
}

/// The store of whichever world this thread is in.
#[derive(Debug)]
pub(super) struct Door;

impl Remote for Door {
    fn ask(&self, asked: Asked) -> Option<Answer> {
        let thread = thread();
        let world = WORLD.with_borrow(Clone::clone).expect("a world");
        let answer = world.at(|state| {
            if state.is_void(thread) {
                // Nobody hears it; what is worth another try would be tried for ever.
                return Some(match asked.method.as_str() {
                    "HEAD" => Answer {
                        status: 404,
                        ..Answer::default()
                    },
                    _ => error(404, "NoSuchBucket"),
                });
            }
            let words = format!("{thread}: {} {}", asked.method, asked.key);
            match state.dice.u8(..) {
                0..3 => {
                    let answer = state.bucket.serve(asked);
                    state.tell(|| format!("{words} {}, not heard", answer.status));
                    None
                }
                3 => {
                    state.tell(|| format!("{words} does not arrive"));
                    None
                }
                4 => {
                    state.tell(|| format!("{words} is given up, and arrives later"));
                    state.late.push(asked);
                    None
                }
                _ => {
                    let answer = state.bucket.serve(asked);
                    state.tell(|| format!("{words} {}", answer.status));
                    Some(answer)
                }
            }
        });
        // Whether it is stopped, for one, is found out later than it was done.
        world.at(|_| ());
        answer
    }
}
