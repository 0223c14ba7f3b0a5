//! Nodes: client mounts by name, each with the processes that speak for it. One that dies, is cut off or stands still says
//! nothing, not even that a pipe is closed: an MDT's coordinator waits in its send to it, and what the node holds on the
//! servers goes at its eviction. Results as seen on a live 2.17; where a count goes wrong, as in its source.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use lhsm_sandbox_protocol::{Fid, NodeEvent, NodeInfo, NodeState, Request, Step};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::dispatch::Letter;
use super::faults::mark_io;
use super::state::{Agent, Control, State};

/// Lustre's, whatever `timeout` is: ldlm_enqueue_min.
pub(super) const EVICTION: Duration = Duration::from_secs(100);

/// Device and number.
type FileId = (u64, u64);

/// All that were ever heard of, in the order in which they came; a conversation names its node by the place in here.
#[derive(Debug, Default)]
pub(super) struct Nodes(Vec<Node>);

#[derive(Debug)]
struct Node {
    name: String,
    state: NodeState,
    /// Its processes, with the number of their conversations. A dead node's stay: they are known by it.
    processes: BTreeMap<i32, usize>,
    /// Calls that wait until it is heard.
    calls: usize,
    silent_since: Option<Instant>,
    /// Since it was heard last.
    evicted: bool,
    evictions: u64,
    /// What its processes had open when it died: no server knows of their end.
    held: HashSet<FileId>,
    /// What was open at its eviction: the next call on each fails, once.
    stale: HashSet<FileId>,
    /// Volatile files that it made.
    volatiles: HashSet<Fid>,
}

/// How a message or a call gets on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Road {
    Open,
    /// Nobody answers: who sends waits.
    Silent,
    /// The servers have given the node up.
    Gone,
}

impl Node {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            state: NodeState::Up,
            processes: BTreeMap::new(),
            calls: 0,
            silent_since: None,
            evicted: false,
            evictions: 0,
            held: HashSet::new(),
            stale: HashSet::new(),
            volatiles: HashSet::new(),
        }
    }

    fn is_silent(&self) -> bool {
        self.state != NodeState::Up
    }

    /// Regular files that its processes have open.
    fn open_files(&self) -> HashSet<FileId> {
        let open = |pid: &i32| std::fs::read_dir(format!("/proc/{pid}/fd")).ok();
        let descriptors = self.processes.keys().filter_map(open).flatten().flatten();
        descriptors
            .filter_map(|descriptor| std::fs::metadata(descriptor.path()).ok())
            .filter(std::fs::Metadata::is_file)
            .map(|stat| (stat.dev(), stat.ino()))
            .collect()
    }

    /// To all its processes but this one, which a test may have speak for a node.
    fn signal(&self, signal: Signal) {
        for pid in self.processes.keys() {
            if *pid != Pid::this().as_raw() {
                // One that is gone is as it should be.
                let _gone = kill(Pid::from_raw(*pid), signal);
            }
        }
    }
}

impl Nodes {
    fn position(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|node| node.name == name)
    }

    /// To a node of that name.
    pub(super) fn road(&self, name: &str) -> Road {
        self.0
            .iter()
            .find(|node| node.name == name && node.is_silent())
            .map_or(Road::Open, |node| if node.evicted { Road::Gone } else { Road::Silent })
    }

    /// From a node: what becomes of a call.
    pub(super) fn is_heard(&self, at: usize) -> bool {
        self.0.get(at).is_none_or(|node| !node.is_silent())
    }

    pub(super) fn is_dead(&self, at: usize) -> bool {
        self.0.get(at).is_some_and(|node| node.state == NodeState::Dead)
    }

    pub(super) fn evictions(&self, at: usize) -> u64 {
        self.0.get(at).map_or(0, |node| node.evictions)
    }

    /// A call begins to wait, or has waited.
    pub(super) fn waits(&mut self, at: usize, begins: bool) {
        if let Some(node) = self.0.get_mut(at) {
            node.calls = if begins {
                node.calls + 1
            } else {
                node.calls.saturating_sub(1)
            };
        }
    }

    /// A conversation ends.
    pub(super) fn leave(&mut self, at: usize, pid: i32) {
        let Some(node) = self.0.get_mut(at).filter(|node| node.state != NodeState::Dead) else {
            return;
        };
        if let Some(conversations) = node.processes.get_mut(&pid) {
            *conversations -= 1;
            if *conversations == 0 {
                node.processes.remove(&pid);
            }
        }
    }

    /// Whether a node that died has a file open, as the servers see it.
    pub(super) fn hold(&self, file: FileId) -> bool {
        self.0.iter().any(|node| node.held.contains(&file))
    }

    /// What a node's call comes to before it is looked at: EIO for the first one on a file that was open at its eviction.
    pub(super) fn refusal(&mut self, at: usize, request: &Request) -> Option<i32> {
        let (Request::Read(dev, ino) | Request::Write(dev, ino)) = request else {
            return None;
        };
        let node = self.0.get_mut(at)?;
        node.stale.remove(&(*dev, *ino)).then_some(libc::EIO)
    }

    /// A node has made a volatile file.
    pub(super) fn made(&mut self, at: usize, volatile: Fid) {
        if let Some(node) = self.0.get_mut(at) {
            node.volatiles.insert(volatile);
            // It may get the inode of one that was open at the eviction, and is not that one.
            if !node.stale.is_empty() {
                let open = node.open_files();
                node.stale.retain(|file| open.contains(file));
            }
        }
    }

    /// It has handed it over, or will not.
    pub(super) fn ended(&mut self, at: usize, volatile: Fid) {
        if let Some(node) = self.0.get_mut(at) {
            node.volatiles.remove(&volatile);
        }
    }

    /// Whether the servers still wait for it.
    pub(super) fn is_awaited(&self, name: &str) -> bool {
        self.road(name) == Road::Silent
    }
}

impl State {
    /// A process of a node begins a conversation. `None`: it died with its node just now.
    pub(super) fn enter(&mut self, name: &str, pid: i32) -> Option<usize> {
        let at = match self.nodes.position(name) {
            Some(at) if !self.nodes.is_dead(at) => at,
            known => {
                if let Some(at) = known {
                    let node = self.nodes.0.get(at)?;
                    // This process may speak for several nodes, one after the other too.
                    if pid != Pid::this().as_raw() && node.processes.contains_key(&pid) {
                        return None;
                    }
                    self.set_apart(at);
                }
                self.nodes.0.push(Node::new(name));
                self.nodes.0.len() - 1
            }
        };
        *self.nodes.0.get_mut(at)?.processes.entry(pid).or_default() += 1;
        Some(at)
    }

    /// A node that died boots, as a client that no server knows: what was the dead one's stays that one's.
    fn set_apart(&mut self, at: usize) {
        let Some(node) = self.nodes.0.get_mut(at) else {
            return;
        };
        let name = format!("{}#{at}", node.name);
        let former = std::mem::replace(&mut node.name, name.clone());
        let agents = self.agents.iter_mut().map(|agent| &mut agent.client);
        let held = self.held.values_mut().flatten().map(|letter| &mut letter.client);
        let outbox = self.outbox.iter_mut().map(|(client, ..)| client);
        let records = self.actions.values_mut().filter_map(|record| record.agent.as_mut());
        for client in agents.chain(held).chain(outbox).chain(records) {
            if *client == former {
                client.clone_from(&name);
            }
        }
    }

    /// What a test or an administrator has become of a node.
    pub(super) fn node_event(&mut self, name: &str, event: NodeEvent) -> Result<(), i32> {
        if event == NodeEvent::Evict {
            return self.evict(name);
        }
        let at = self.nodes.position(name).ok_or(libc::ENOENT)?;
        mark_io(&self.mount, true)?;
        let node = self.nodes.0.get_mut(at).ok_or(libc::ENOENT)?;
        match (event, node.state) {
            (_, NodeState::Dead) => return Err(libc::EINVAL),
            (NodeEvent::Heal, _) => {
                node.signal(Signal::SIGCONT);
                node.state = NodeState::Up;
                node.silent_since = None;
                if std::mem::take(&mut node.evicted) {
                    self.register_again(name);
                }
                return Ok(());
            }
            (NodeEvent::Kill, _) => {
                // First, so that nobody takes its processes' end for one that a kernel tells of.
                node.state = NodeState::Dead;
                if !node.evicted {
                    node.held = node.open_files();
                }
                node.signal(Signal::SIGKILL);
            }
            (NodeEvent::Pause, _) => {
                node.state = NodeState::Paused;
                node.signal(Signal::SIGSTOP);
            }
            (NodeEvent::Cut | NodeEvent::Evict, _) => node.state = NodeState::Cut,
        }
        node.silent_since.get_or_insert_with(Instant::now);
        self.close_pipes(at);
        Ok(())
    }

    /// A node's call of that step is about to arrive: it is cut off where that was asked for.
    pub(super) fn cut_at(&mut self, at: usize, step: Step) {
        let name = self.nodes.0.get(at).map(|node| node.name.clone());
        if let Some(name) = name
            && self.faults.cut.take_if(|cut| *cut == step).is_some()
        {
            // One that is dead says nothing any more.
            self.node_event(&name, NodeEvent::Cut).unwrap_or_default();
        }
    }

    /// `evict_client`: of the silent ones of that name, those that died and booted since among them; else of the one that is
    /// heard, which comes back at once.
    fn evict(&mut self, name: &str) -> Result<(), i32> {
        let booted = format!("{name}#");
        let is_meant = |node: &Node| node.name == name || node.name.starts_with(&booted);
        let silent: Vec<usize> = self.nodes_that(|node| is_meant(node) && node.is_silent() && !node.evicted);
        let known = self.nodes.position(name);
        if silent.is_empty() && known.is_none() && self.nodes_that(is_meant).is_empty() {
            return Err(libc::ENOENT);
        }
        mark_io(&self.mount, true)?;
        let heard = known.filter(|at| silent.is_empty() && self.nodes.is_heard(*at));
        for at in silent.into_iter().chain(heard) {
            self.give_up(at);
        }
        Ok(())
    }

    /// Those that have been silent for too long. Whether there were any.
    pub(super) fn evict_silent(&mut self) -> bool {
        let after = self.eviction;
        let is_late = |since: &Instant| since.elapsed() >= after;
        let late = self.nodes_that(|node| !node.evicted && node.silent_since.as_ref().is_some_and(is_late));
        for at in &late {
            self.give_up(*at);
        }
        !late.is_empty()
    }

    fn nodes_that(&self, is_one: impl Fn(&Node) -> bool) -> Vec<usize> {
        let all = self.nodes.0.iter().enumerate();
        all.filter(|(_, node)| is_one(node)).map(|(at, _)| at).collect()
    }

    /// What it held goes. Its agent stays listed until a send to it fails.
    fn give_up(&mut self, at: usize) {
        let Some(node) = self.nodes.0.get_mut(at) else {
            return;
        };
        node.evictions += 1;
        node.evicted = node.is_silent();
        node.held.clear();
        self.gone_volatiles.extend(node.volatiles.drain());
        node.stale = match node.state {
            NodeState::Dead => HashSet::new(),
            _ => node.open_files(),
        };
        self.close_pipes(at);
    }

    /// Nobody is left to read a dead node's pipes, and nobody will send to it any more.
    fn close_pipes(&mut self, at: usize) {
        let gone = |node: &&Node| node.state == NodeState::Dead && node.evicted;
        let Some(node) = self.nodes.0.get(at).filter(gone) else {
            return;
        };
        for agent in self.agents.iter_mut().filter(|agent| agent.client == node.name) {
            agent.pipes.clear();
        }
        self.agents
            .retain(|agent| !agent.known_by.is_empty() || !agent.pipes.is_empty());
    }

    /// A client that was evicted connects by itself when it is heard again, and registers the copytool that it has pipes of.
    fn register_again(&mut self, name: &str) {
        let running: Vec<u32> = self
            .mdts()
            .into_iter()
            .filter(|mdt| self.control_on(*mdt) != Control::Stopped)
            .collect();
        let registered = |agent: &&mut Agent| agent.client == name && !agent.pipes.is_empty();
        for agent in self.agents.iter_mut().filter(registered) {
            for mdt in &running {
                agent.known_by.entry(*mdt).or_default();
            }
        }
    }

    /// Messages that a coordinator held because of a silent node, as far as it goes on now. The one that it waited in fails
    /// at an eviction (EIO), and leaves the agent where it is.
    pub(super) fn go_on(&mut self) -> Vec<Letter> {
        let mut letters = Vec::new();
        let mdts: Vec<u32> = self.held.keys().copied().collect();
        for mdt in mdts {
            let road = self.held.get(&mdt).and_then(VecDeque::front);
            let road = road.map_or(Road::Open, |letter| self.nodes.road(&letter.client));
            if road == Road::Silent {
                continue;
            }
            let mut held = self.held.remove(&mdt).unwrap_or_default();
            if road == Road::Gone
                && let Some(failed) = held.pop_front()
            {
                self.take_all_back(&failed);
            }
            for letter in held {
                letters.extend(self.way_of(letter));
            }
        }
        letters
    }

    pub(super) fn node_infos(&self) -> Vec<NodeInfo> {
        let holds_up = |node: &Node| -> Vec<u32> {
            let held = self.held.iter();
            held.filter_map(|(mdt, letters)| (letters.front()?.client == node.name).then_some(*mdt))
                .collect()
        };
        let ms = |since: Instant| u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.nodes
            .0
            .iter()
            .map(|node| NodeInfo {
                name: node.name.clone(),
                state: node.state,
                evicted: node.evicted,
                processes: match node.state {
                    NodeState::Dead => 0,
                    _ => node.processes.len(),
                },
                calls: node.calls,
                silent_ms: node.silent_since.map(ms),
                holds_up: holds_up(node),
            })
            .collect()
    }
}
