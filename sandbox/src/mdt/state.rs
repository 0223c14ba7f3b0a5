//! What the MDT knows.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::io::PipeWriter;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lhsm_sandbox_protocol::{Action, ActionState, Counters, Fid};

use super::Options;
use super::changelog::Changelog;
use super::dispatch::Letter;
use super::faults::Faults;
use super::nodes::{EVICTION, Nodes};
use super::readers::Readers;

/// Of the first MDT's files; each other MDT has the next range.
const SEQUENCE: u64 = 0x2_0000_0401;
const SEQUENCES: u64 = 0x1_0000;

/// Which MDT a FID is on.
pub(super) fn mdt_of(fid: Fid) -> u32 {
    u32::try_from(fid.seq.saturating_sub(SEQUENCE) / SEQUENCES).unwrap_or(0)
}

/// Actions that are out, by MDT: each has `max_requests` of its own.
#[derive(Debug, Default)]
pub(super) struct Started(BTreeMap<u32, usize>);

impl Started {
    pub(super) fn add(&mut self, fid: Fid) {
        *self.0.entry(mdt_of(fid)).or_default() += 1;
    }

    pub(super) fn over(&mut self, fid: Fid) {
        let started = self.0.entry(mdt_of(fid)).or_default();
        *started = started.saturating_sub(1);
    }

    pub(super) fn on(&self, mdt: u32) -> usize {
        self.0.get(&mdt).copied().unwrap_or(0)
    }

    pub(super) fn all(&self) -> usize {
        self.0.values().sum()
    }
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) mount: PathBuf,
    pub(super) fsname: String,
    pub(super) files: HashMap<Fid, Inode>,
    pub(super) by_inode: HashMap<(u64, u64), Fid>,
    pub(super) next_oid: u32,
    /// Of each MDT: volatile files with a lower one went with its restart.
    pub(super) lost_volatiles: HashMap<u32, u32>,
    /// Of each MDT: all begin with the same one, so two of them give out equal ones.
    pub(super) next_cookies: HashMap<u32, u64>,
    /// The log, by record number: a cancel has a record of its own and the cookie of its target.
    pub(super) actions: BTreeMap<u64, Record>,
    /// By MDT and cookie.
    pub(super) by_cookie: HashMap<(u32, u64), u64>,
    /// Actions of each file that are not over, cancels left out.
    pub(super) pending: HashMap<Fid, Vec<u64>>,
    /// Waiting ones, in the order of the log.
    pub(super) waiting: VecDeque<u64>,
    /// Messages of an MDT for one client, to be written as they are.
    pub(super) outbox: Vec<(String, u32, Vec<u8>)>,
    /// By MDT: what its coordinator waits in sending to a silent node, and what comes behind that.
    pub(super) held: BTreeMap<u32, VecDeque<Letter>>,
    pub(super) nodes: Nodes,
    /// Silence until a node is evicted.
    pub(super) eviction: Duration,
    /// Volatile files of nodes that were evicted while they had them.
    pub(super) gone_volatiles: HashSet<Fid>,
    /// Volatile files that their copytools have synced themselves.
    pub(super) synced_volatiles: HashSet<Fid>,
    /// Sent, and not over.
    pub(super) started: Started,
    pub(super) agents: Vec<Agent>,
    pub(super) control: Control,
    /// Of the other MDTs, by index from 1.
    pub(super) others: Vec<Control>,
    /// MDTs that answer nobody: whoever asks one waits.
    pub(super) silent: BTreeSet<u32>,
    /// MDTs that make no new file.
    pub(super) full: BTreeSet<u32>,
    pub(super) archive_bits: bool,
    pub(super) start_once: bool,
    /// `trusted.*` attributes are the files' own.
    pub(super) keeps_trusted: bool,
    pub(super) max_requests: usize,
    /// Of MDTs that have another one than the others.
    pub(super) max_requests_on: HashMap<u32, usize>,
    pub(super) timeout: Duration,
    pub(super) loop_period: Duration,
    pub(super) tick: Duration,
    pub(super) remove_on_last_unlink: bool,
    pub(super) retry_action: bool,
    pub(super) counters: Counters,
    pub(super) faults: Faults,
    /// By MDT.
    pub(super) changelogs: HashMap<u32, Changelog>,
    pub(super) readers: Option<Readers>,
    pub(super) stopping: bool,
}

/// Coordinator states.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Control {
    Enabled,
    Disabled,
    Stopped,
}

/// A file that HSM has to do with.
#[derive(Debug)]
pub(super) struct Inode {
    pub(super) inode: (u64, u64),
    /// The last path seen; a rename is found by looking.
    pub(super) path: PathBuf,
    pub(super) states: u32,
    pub(super) archive_id: u32,
    /// Of the archived copy.
    pub(super) archived_version: u64,
    /// Since EXISTS is set: a change makes the file dirty.
    pub(super) clean_version: u64,
    /// Those that are kept here.
    pub(super) xattrs: HashMap<String, Vec<u8>>,
}

/// One line of the coordinator's log.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) cookie: u64,
    pub(super) action: Action,
    pub(super) fid: Fid,
    pub(super) archive_id: u32,
    pub(super) flags: u64,
    pub(super) data: Vec<u8>,
    pub(super) state: ActionState,
    pub(super) errval: i32,
    pub(super) ends: u32,
    pub(super) sends: u32,
    /// When its message was in a pipe of the agent's, as it was sent last.
    pub(super) delivered: Option<Instant>,
    pub(super) progress: u32,
    /// Where it was sent last.
    pub(super) agent: Option<String>,
    /// In the coordinator's memory; an action that is STARTED only in the log is not.
    pub(super) in_memory: bool,
    pub(super) cancelled: bool,
    pub(super) last_progress: Instant,
    /// The first data FID that a restore reported is final.
    pub(super) data_fid: Option<Fid>,
    /// Its data went with a restart of the MDT, between its copytool's last look at them and the end.
    pub(super) spoiled: bool,
}

/// One registration of a client mount.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) client: String,
    /// Empty: all.
    pub(super) archives: Vec<u32>,
    /// In the client's kernel: they survive the MDT's forgetting the agent.
    pub(super) pipes: Vec<Pipe>,
    /// MDTs that know it, each with the actions that it counts out at it: a registration begins at 0, and the ends of
    /// actions from before it push it below. Each forgets it by itself: when it is stopped, or a message of its own meets
    /// closed pipes or an evicted node.
    pub(super) known_by: BTreeMap<u32, i64>,
}

#[derive(Clone, Debug)]
pub(super) struct Pipe {
    pub(super) uid: u32,
    pub(super) write: Arc<PipeWriter>,
}

impl State {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            mount: options.mount.clone(),
            fsname: options.fsname.clone(),
            files: HashMap::new(),
            by_inode: HashMap::new(),
            next_oid: 1,
            lost_volatiles: HashMap::new(),
            next_cookies: HashMap::new(),
            actions: BTreeMap::new(),
            by_cookie: HashMap::new(),
            pending: HashMap::new(),
            outbox: Vec::new(),
            held: BTreeMap::new(),
            nodes: Nodes::default(),
            eviction: EVICTION,
            gone_volatiles: HashSet::new(),
            synced_volatiles: HashSet::new(),
            waiting: VecDeque::new(),
            started: Started::default(),
            agents: Vec::new(),
            control: Control::Enabled,
            others: (1..options.mdts).map(|_| Control::Enabled).collect(),
            silent: BTreeSet::new(),
            full: BTreeSet::new(),
            archive_bits: options.archive_bits,
            start_once: options.start_once,
            keeps_trusted: super::xattr::are_kept(&options.mount),
            max_requests: options.max_requests,
            max_requests_on: HashMap::new(),
            timeout: Duration::from_secs(3600),
            loop_period: Duration::from_secs(10),
            tick: options.tick,
            remove_on_last_unlink: false,
            retry_action: false,
            counters: Counters::default(),
            faults: Faults::default(),
            changelogs: HashMap::new(),
            readers: None,
            stopping: false,
        }
    }

    pub(super) fn stop(&mut self) {
        self.stopping = true;
        self.agents.clear();
        self.held.clear();
        if let Some(readers) = self.readers.take() {
            readers.close();
        }
    }

    pub(super) fn new_fid(&mut self) -> Fid {
        let oid = self.next_oid;
        self.next_oid += 1;
        Fid {
            seq: SEQUENCE,
            oid,
            ver: 0,
        }
    }

    /// All MDTs.
    pub(super) fn mdts(&self) -> BTreeSet<u32> {
        let others = u32::try_from(self.others.len()).unwrap_or(0);
        (0..=others).collect()
    }

    /// Actions that an MDT has at copytools at a time.
    pub(super) fn max_requests(&self, mdt: u32) -> usize {
        self.max_requests_on.get(&mdt).copied().unwrap_or(self.max_requests)
    }

    /// On one of the MDTs; ENODEV when there is none of that index.
    pub(super) fn new_fid_on(&mut self, mdt: u32) -> Result<Fid, i32> {
        if mdt as usize > self.others.len() {
            return Err(libc::ENODEV);
        }
        let seq = SEQUENCE + u64::from(mdt) * SEQUENCES;
        Ok(Fid { seq, ..self.new_fid() })
    }

    /// Whether that MDT has room for a new file.
    pub(super) fn has_room_on(&self, mdt: u32) -> Result<(), i32> {
        if self.full.contains(&mdt) {
            Err(libc::ENOSPC)
        } else {
            Ok(())
        }
    }

    /// Of the coordinator that a FID belongs to.
    pub(super) fn control_of(&self, fid: Fid) -> Control {
        self.control_on(mdt_of(fid))
    }

    pub(super) fn control_on(&self, mdt: u32) -> Control {
        let other = mdt.checked_sub(1).and_then(|n| self.others.get(n as usize));
        other.copied().unwrap_or(self.control)
    }

    /// How many more actions an MDT counts out at an agent, if it knows that one.
    pub(super) fn count(&mut self, client: &str, mdt: u32, change: i64) {
        let agent = self.agents.iter_mut().find(|agent| agent.client == client);
        if let Some(count) = agent.and_then(|agent| agent.known_by.get_mut(&mdt)) {
            *count += change;
        }
    }

    /// A record is out of the coordinator's memory: its slot is free, and it was one of its agent's.
    pub(super) fn free(&mut self, number: u64) {
        let Some(record) = self.actions.get_mut(&number) else {
            return;
        };
        if !std::mem::take(&mut record.in_memory) {
            return;
        }
        let (fid, agent) = (record.fid, record.agent.clone());
        self.started.over(fid);
        if let Some(client) = agent {
            self.count(&client, mdt_of(fid), -1);
        }
    }

    /// The file's action that is not over, the cancels left out.
    pub(super) fn pending_of(&self, fid: Fid) -> Option<&Record> {
        self.actions.get(self.pending.get(&fid)?.last()?)
    }
}

impl Record {
    pub(super) fn new(cookie: u64, action: Action, fid: Fid, archive_id: u32, flags: u64, data: Vec<u8>) -> Self {
        Self {
            cookie,
            action,
            fid,
            archive_id,
            flags,
            data,
            state: ActionState::Waiting,
            errval: 0,
            ends: 0,
            sends: 0,
            delivered: None,
            progress: 0,
            agent: None,
            in_memory: false,
            cancelled: false,
            last_progress: Instant::now(),
            data_fid: None,
            spoiled: false,
        }
    }

    pub(super) const fn is_pending(&self) -> bool {
        matches!(self.state, ActionState::Waiting | ActionState::Started)
    }
}
