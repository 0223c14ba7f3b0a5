//! The coordinator's thread: picks what waits, builds messages, writes them to the agents' pipes. The
//! write blocks when a pipe is full, and then so does everything behind it, as on a real MDT.

use std::collections::HashMap;
use std::io::{self, PipeWriter, Write as _};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lhsm_sandbox_protocol::{Action, ActionState, Fid, states};
use nix::fcntl::{FcntlArg, OFlag};
use nix::poll::{PollFd, PollFlags, PollTimeout};

use super::Shared;
use super::nodes::Road;
use super::state::{Agent, Control, Pipe, State, mdt_of};
use super::wire::{LARGEST, WireItem, item_size, message, overhead};

/// What a REMOVE after the last unlink has for the data's FID.
const NO_FID: Fid = Fid { seq: 0, oid: 0, ver: 0 };

/// One message on its way.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) client: String,
    mdt: u32,
    pipes: Vec<Pipe>,
    bytes: Vec<u8>,
    pub(super) records: Vec<u64>,
}

pub(super) fn start(shared: Arc<Shared>) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name("coordinator".into())
        .spawn(move || run(&shared))
}

fn run(shared: &Shared) {
    let _member = super::crew::join();
    let mut housekeeping = Instant::now();
    loop {
        let (letters, fragment) = {
            let mut state = shared.lock();
            if state.stopping {
                return;
            }
            if housekeeping.elapsed() >= state.loop_period {
                housekeeping = Instant::now();
                state.time_out();
                if state.remove_on_last_unlink {
                    for (fid, archive_id) in state.collect_unlinked() {
                        state.log(Action::Remove, fid, archive_id, 0, Vec::new());
                    }
                }
                shared.changed.notify_all();
            }
            if state.evict_silent() {
                shared.changed.notify_all();
            }
            let mut letters = state.go_on();
            letters.extend(state.letters());
            if letters.is_empty() {
                pause(shared, state);
                continue;
            }
            (letters, state.faults.fragment)
        };
        for letter in letters {
            deliver(shared, letter, fragment);
        }
    }
}

/// Until the next tick; sooner only when nothing is out and something waits (LU-7988).
fn pause(shared: &Shared, mut state: std::sync::MutexGuard<'_, State>) {
    let until = Instant::now() + state.tick.min(state.loop_period);
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left == Duration::ZERO || state.stopping {
            return;
        }
        state = shared.wait(state, left);
        if state.started.all() == 0
            && !state.waiting.is_empty()
            && state.agents.iter().any(|agent| !agent.known_by.is_empty())
        {
            return;
        }
    }
}

fn deliver(shared: &Shared, letter: Letter, fragment: usize) {
    let Some(letter) = shared.lock().way_of(letter) else {
        shared.changed.notify_all();
        return;
    };
    let mut blocked = Duration::ZERO;
    // A client's kernel that has no pipe any more says 0 to what is then delivered to nobody (seen on 2.17).
    let mut reached = letter.pipes.is_empty();
    for pipe in &letter.pipes {
        match write(&pipe.write, &letter.bytes, fragment, &mut blocked) {
            Ok(()) => reached = true,
            Err(_) => {
                let mut state = shared.lock();
                // It died in this moment with everything.
                if !reached && state.nodes.road(&letter.client) != Road::Open {
                    drop(state.way_of(letter));
                    return;
                }
                // "message send failed (-32)": this pipe is gone.
                for agent in &mut state.agents {
                    agent.pipes.retain(|other| !Arc::ptr_eq(&other.write, &pipe.write));
                }
            }
        }
    }
    let mut state = shared.lock();
    state.counters.messages += 1;
    let us = u64::try_from(blocked.as_micros()).unwrap_or(u64::MAX);
    state.counters.writer_blocked_us += us;
    state.counters.writer_blocked_longest_us = state.counters.writer_blocked_longest_us.max(us);
    if reached {
        state.delivered(&letter);
    } else {
        state.lose(&letter.client, letter.mdt);
        state.take_all_back(&letter);
    }
}

/// Writes all of it; counts the time for which the pipe was full.
fn write(pipe: &PipeWriter, bytes: &[u8], fragment: usize, blocked: &mut Duration) -> io::Result<()> {
    let pieces = bytes.chunks(if fragment == 0 { usize::MAX } else { fragment });
    for piece in pieces {
        let mut rest = piece;
        while !rest.is_empty() {
            match (&*pipe).write(rest) {
                Ok(n) => rest = rest.get(n..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let start = Instant::now();
                    let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLOUT)];
                    nix::poll::poll(&mut fds, PollTimeout::NONE)?;
                    *blocked += start.elapsed();
                }
                Err(error) => return Err(error),
            }
        }
        if fragment > 0 {
            // So that the reader has a chance to see the piece alone.
            std::thread::yield_now();
        }
    }
    Ok(())
}

impl State {
    fn letters(&mut self) -> Vec<Letter> {
        let mut letters = Vec::new();
        for bytes in std::mem::take(&mut self.faults.raw) {
            for agent in self.agents.iter().filter(|agent| !agent.known_by.is_empty()) {
                letters.push(Letter {
                    client: agent.client.clone(),
                    mdt: 0,
                    pipes: agent.pipes.clone(),
                    bytes: bytes.clone(),
                    records: Vec::new(),
                });
            }
        }
        self.flood(&mut letters);
        for (client, mdt, bytes) in std::mem::take(&mut self.outbox) {
            letters.push(Letter {
                pipes: self.pipes_of(&client),
                client,
                mdt,
                bytes,
                records: Vec::new(),
            });
        }
        let controls = [self.control].into_iter().chain(self.others.iter().copied());
        if !controls.into_iter().any(|control| control == Control::Enabled) {
            return letters;
        }
        let mut passed = Vec::new();
        let mut batch: Vec<u64> = Vec::new();
        // The agent that all of the batch are for; none: the best one.
        let mut to: Option<String> = None;
        // By MDT, those of the batch included.
        let mut out: HashMap<u32, usize> = HashMap::new();
        while let Some(number) = self.waiting.pop_front() {
            let has_room = |mdt| {
                let out = out.get(&mdt).copied().unwrap_or_else(|| self.started.on(mdt));
                out < self.max_requests(mdt) && self.sends(mdt)
            };
            if !(0..=self.others.len()).any(|mdt| u32::try_from(mdt).is_ok_and(has_room)) {
                self.waiting.push_front(number);
                break;
            }
            if !self.may_start(number) {
                continue;
            }
            let Some(record) = self.actions.get(&number) else {
                continue;
            };
            let (id, fid, size) = (record.archive_id, record.fid, item_size(&record.data));
            let mdt = mdt_of(fid);
            let is_away = self.control_of(fid) != Control::Enabled || !self.sends(mdt);
            let out = out.entry(mdt).or_insert_with(|| self.started.on(mdt));
            if is_away || *out >= self.max_requests(mdt) || self.best_agent(id, mdt).is_none() {
                passed.push(number);
                continue;
            }
            *out += 1;
            // One MDT, one archive id and 5 KiB for each message.
            let room = batch.iter().try_fold(overhead(&self.fsname), |size, other| {
                let record = self.actions.get(other)?;
                (record.archive_id == id && mdt_of(record.fid) == mdt_of(fid)).then(|| size + item_size(&record.data))
            });
            if room.is_none_or(|room| room + size > LARGEST) || self.holder(number) != to {
                letters.extend(self.post(&std::mem::take(&mut batch), to));
                // Known from now on, where it was in that batch.
                to = self.holder(number);
            }
            batch.push(number);
        }
        letters.extend(self.post(&batch, to));
        for number in passed.into_iter().rev() {
            self.waiting.push_front(number);
        }
        letters
    }

    /// The next messages of a flood, a few hundred at a time.
    fn flood(&mut self, letters: &mut Vec<Letter>) {
        const LETTERS: usize = 256;
        const ITEMS: u64 = 70;
        for _ in 0..LETTERS {
            let count = self.counters.flood_left.min(ITEMS);
            let Some(agent) = self.agents.first().filter(|_| count > 0) else {
                return;
            };
            let (client, pipes) = (agent.client.clone(), agent.pipes.clone());
            let items: Vec<_> = (0..count)
                .map(|_| {
                    let fid = self.new_fid();
                    WireItem {
                        action: Action::Archive,
                        fid,
                        dfid: fid,
                        cookie: self.new_cookie(fid),
                        data: &[],
                    }
                })
                .collect();
            letters.push(Letter {
                client,
                mdt: 0,
                pipes,
                bytes: message(&self.fsname, 1, 0, &items),
                records: Vec::new(),
            });
            self.counters.flood_left -= count;
        }
    }

    /// Compatibility is looked at again when an action is sent; what no longer fits fails silently.
    fn may_start(&mut self, number: u64) -> bool {
        let Some(record) = self.actions.get(&number) else {
            return false;
        };
        if record.state != ActionState::Waiting {
            return false;
        }
        let (action, fid) = (record.action, record.fid);
        let fits = match action {
            Action::Archive => self.state(fid).is_ok_and(|file| file.states & states::NOARCHIVE == 0),
            Action::Restore => self.is_released(fid) && self.stat(fid).is_ok(),
            Action::Remove => !self.is_released(fid),
            Action::Cancel | Action::Other(_) => true,
        };
        if !fits {
            self.close(number, ActionState::Failed);
            if action == Action::Restore {
                self.wake_readers(fid, false);
            }
        }
        fits
    }

    /// EPIPE: this MDT forgets the agent; the others only when a message of theirs finds out.
    fn lose(&mut self, client: &str, mdt: u32) {
        let dead = |agent: &Agent| agent.client == client && agent.pipes.is_empty();
        for agent in self.agents.iter_mut().filter(|agent| dead(agent)) {
            agent.known_by.remove(&mdt);
        }
        self.agents.retain(|agent| !dead(agent) || !agent.known_by.is_empty());
    }

    /// A message that goes its way now. Behind a silent node, or behind what waits for one, it stays with its MDT, which does
    /// nothing else then; for an evicted one it is taken back, and the MDT forgets the agent.
    pub(super) fn way_of(&mut self, letter: Letter) -> Option<Letter> {
        let road = if self.held.contains_key(&letter.mdt) {
            Road::Silent
        } else {
            self.nodes.road(&letter.client)
        };
        match road {
            Road::Open => return Some(letter),
            Road::Silent => self.held.entry(letter.mdt).or_default().push_back(letter),
            Road::Gone => {
                for agent in self.agents.iter_mut().filter(|agent| agent.client == letter.client) {
                    agent.known_by.remove(&letter.mdt);
                }
                // One that is alive has its pipes, and comes back.
                self.agents
                    .retain(|agent| !agent.known_by.is_empty() || !agent.pipes.is_empty());
                self.take_all_back(&letter);
            }
        }
        None
    }

    /// Whether an MDT's coordinator sends anything.
    fn sends(&self, mdt: u32) -> bool {
        !self.silent.contains(&mdt) && !self.held.contains_key(&mdt)
    }

    /// The agent that a cancel is for: the one that its target was sent to, whoever may have taken it over since. A cancel
    /// that is sent again goes to any.
    fn holder(&self, number: u64) -> Option<String> {
        let record = self
            .actions
            .get(&number)
            .filter(|record| record.action == Action::Cancel)?;
        let target = self.by_cookie.get(&(mdt_of(record.fid), record.cookie))?;
        let target = self
            .actions
            .get(target)
            .filter(|target| target.in_memory && !target.cancelled)?;
        target.agent.clone()
    }

    fn pipes_of(&self, client: &str) -> Vec<Pipe> {
        let agent = self.agents.iter().find(|agent| agent.client == client);
        agent.map(|agent| agent.pipes.clone()).unwrap_or_default()
    }

    /// Of those that serve the archive, the one with the fewest actions.
    fn best_agent(&self, archive_id: u32, mdt: u32) -> Option<&str> {
        self.agents
            .iter()
            .filter(|agent| agent.archives.is_empty() || agent.archives.contains(&archive_id))
            .filter_map(|agent| Some((agent.known_by.get(&mdt)?, agent)))
            .min_by_key(|(out, _)| **out)
            .map(|(_, agent)| agent.client.as_str())
    }

    fn post(&mut self, batch: &[u64], to: Option<String>) -> Vec<Letter> {
        let Some(first) = batch.first().and_then(|number| self.actions.get(number)) else {
            return Vec::new();
        };
        let (id, mdt) = (first.archive_id, mdt_of(first.fid));
        let Some(client) = to.or_else(|| self.best_agent(id, mdt).map(str::to_owned)) else {
            return Vec::new();
        };
        for number in batch {
            self.start(*number, &client);
        }
        let records: Vec<_> = batch.iter().filter_map(|number| self.actions.get(number)).collect();
        let items: Vec<_> = records
            .iter()
            .map(|record| WireItem {
                action: record.action,
                fid: record.fid,
                dfid: match record.action {
                    Action::Remove if !self.files.contains_key(&record.fid) => NO_FID,
                    _ => record.fid,
                },
                cookie: record.cookie,
                data: &record.data,
            })
            .collect();
        // The last item's flags stand for all.
        let flags = records
            .last()
            .map_or(0, |record| record.flags & lhsm_sandbox_protocol::flags::REQ_BLOCKING);
        let bytes = message(&self.fsname, id, flags, &items);
        let pipes = self.pipes_of(&client);
        let mut copies = 1;
        if self.faults.duplicate > 0 {
            self.faults.duplicate -= 1;
            copies = 2;
        }
        (0..copies)
            .map(|_| Letter {
                client: client.clone(),
                mdt,
                pipes: pipes.clone(),
                bytes: bytes.clone(),
                records: batch.to_vec(),
            })
            .collect()
    }

    fn start(&mut self, number: u64, client: &str) {
        let Some(record) = self.actions.get_mut(&number) else {
            return;
        };
        record.state = ActionState::Started;
        record.sends += 1;
        record.delivered = None;
        let (action, fid, cookie, id) = (record.action, record.fid, record.cookie, record.archive_id);
        if action == Action::Cancel {
            if let Some(target) = self
                .by_cookie
                .get(&(mdt_of(fid), cookie))
                .and_then(|number| self.actions.get_mut(number))
            {
                target.cancelled = true;
            }
            return;
        }
        record.in_memory = true;
        record.agent = Some(client.to_owned());
        record.last_progress = Instant::now();
        record.data_fid = None;
        record.spoiled = false;
        self.started.add(fid);
        self.count(client, mdt_of(fid), 1);
        if action == Action::Archive {
            // Sending an archive already sets EXISTS: it says nothing about an object.
            let now = self.data_version(fid).unwrap_or_default();
            if let Some(file) = self.files.get_mut(&fid) {
                if file.states & states::EXISTS == 0 {
                    file.clean_version = now;
                }
                file.states |= states::EXISTS;
                file.archive_id = id;
            }
        }
    }

    fn delivered(&mut self, letter: &Letter) {
        let now = Instant::now();
        for number in &letter.records {
            if let Some(record) = self.actions.get_mut(number) {
                record.delivered = Some(now);
            }
        }
    }

    /// As `take_back`, of all in a message.
    pub(super) fn take_all_back(&mut self, letter: &Letter) {
        for number in &letter.records {
            self.take_back(*number);
        }
    }

    /// The message could not be sent: back to WAITING. The agent's count keeps it, as on Lustre.
    fn take_back(&mut self, number: u64) {
        let Some(record) = self.actions.get_mut(&number) else {
            return;
        };
        if std::mem::take(&mut record.in_memory) {
            record.agent = None;
            self.started.over(record.fid);
        }
        if record.state != ActionState::Started {
            return;
        }
        record.state = ActionState::Waiting;
        self.waiting.push_back(number);
    }
}

/// A pipe's write end as the coordinator uses it.
pub(super) fn adopt(write: std::os::fd::OwnedFd) -> io::Result<Arc<PipeWriter>> {
    nix::fcntl::fcntl(&write, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(Arc::new(write.into()))
}
