//! Conversations: a thread for each connection.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lhsm_sandbox_protocol::{AgentInfo, Connection, Fid, HsmControl, Item, Reply, Request, Step, Tunable, ctime};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Shared;
use super::changelog::{Changelog, kind};
use super::dispatch::adopt;
use super::faults::{step, strike};
use super::namespace::{errno, fill, swap};
use super::nodes::Road;
use super::state::{Agent, Control, Pipe, State, mdt_of};

type Answer = Result<Reply, i32>;

/// Between two looks at whether the sandbox ends.
const SILENCE: Duration = Duration::from_secs(3600);
/// Between two looks at what nobody is woken for.
const LOOK: Duration = Duration::from_millis(2);

pub(super) fn start(shared: Arc<Shared>, listener: UnixListener) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("mdt-listener".into()).spawn(move || {
        for stream in listener.incoming() {
            if shared.lock().stopping {
                return;
            }
            let Ok(stream) = stream else {
                continue;
            };
            let shared = Arc::clone(&shared);
            let conversation = std::thread::Builder::new()
                .name("mdt".into())
                .spawn(move || converse(&shared, Connection::new(stream)));
            if let Err(error) = conversation {
                eprintln!("sandbox: {error}");
            }
        }
    })
}

fn converse(shared: &Shared, mut connection: Connection) {
    let _member = super::crew::join();
    let mut node = None;
    speak(shared, &mut connection, &mut node);
    if let (Some(at), Ok(peer)) = (node, connection.peer()) {
        shared.lock().nodes.leave(at, peer);
    }
}

/// `node`: the one that speaks, once it has said so.
fn speak(shared: &Shared, connection: &mut Connection, node: &mut Option<usize>) {
    let is_own = connection.peer().is_ok_and(|peer| peer == Pid::this().as_raw());
    while let Ok(Some((request, fd))) = connection.receive::<Request>() {
        if let Request::Node(name) = &request {
            let entered = connection.peer().ok().and_then(|peer| shared.lock().enter(name, peer));
            if entered.is_none() {
                return;
            }
            *node = entered;
        }
        match reached(shared, *node, connection, step(&request)) {
            Road::Open => {}
            // Its client gave the call up.
            Road::Gone if connection.send(&Reply::Errno(libc::EIO), None).is_ok() => continue,
            Road::Gone | Road::Silent => return,
        }
        if matches!(request, Request::Node(_)) {
            if connection.send(&Reply::Ok(0), None).is_err() {
                return;
            }
            continue;
        }
        if !until_heard(shared, connection) || !heard(shared, &request, connection) {
            return;
        }
        if !is_own {
            let slow = shared.lock().met(&request);
            if !slow.is_zero() {
                std::thread::park_timeout(slow);
                shared.lock().is_over(&request);
            }
        }
        let deadly = step(&request).and_then(|step| shared.lock().faults.kill.take_if(|(at, _)| *at == step));
        if let Some((_, before)) = deadly {
            if !before {
                drop(answer_to(shared, *node, request, fd));
                shared.changed.notify_all();
            }
            if let Ok(pid) = connection.peer() {
                // One that is dead already is as it should be.
                let _gone = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            return;
        }
        let allowed = match request {
            Request::Register { .. } => may_register(connection),
            _ => true,
        };
        let reply = if allowed {
            answer_to(shared, *node, request, fd).unwrap_or_else(Reply::Errno)
        } else {
            Reply::Errno(libc::EPERM)
        };
        shared.changed.notify_all();
        // The answer does not get there either; of a call that was given up meanwhile nobody hears that it was done.
        let reply = match reached(shared, *node, connection, None) {
            Road::Open => reply,
            Road::Gone => Reply::Errno(libc::EIO),
            Road::Silent => return,
        };
        if connection.send(&reply, None).is_err() {
            return;
        }
    }
}

/// Waits while a node's calls reach no server. Gone: it was evicted meanwhile, and its client gave this one up. Silent: its
/// process is gone, or the sandbox ends. `step`: what the call is that arrives.
fn reached(shared: &Shared, node: Option<usize>, connection: &Connection, step: Option<Step>) -> Road {
    let Some(at) = node else {
        return Road::Open;
    };
    let mut state = shared.lock();
    if let Some(step) = step {
        state.cut_at(at, step);
    }
    if state.nodes.is_heard(at) {
        return Road::Open;
    }
    let evictions = state.nodes.evictions(at);
    state.nodes.waits(at, true);
    shared.changed.notify_all();
    while !(state.nodes.is_heard(at) || state.nodes.is_dead(at) || state.stopping) {
        state = shared.wait(state, SILENCE);
    }
    state.nodes.waits(at, false);
    if !state.nodes.is_heard(at) {
        return Road::Silent;
    }
    let evicted = state.nodes.evictions(at) != evictions;
    drop(state);
    let is_there = |peer: i32| Path::new(&format!("/proc/{peer}")).exists();
    match connection.peer() {
        Ok(peer) if is_there(peer) => {
            if evicted {
                Road::Gone
            } else {
                Road::Open
            }
        }
        _ => Road::Silent,
    }
}

/// As `answer`; what a node makes on a server, and what its eviction has spoiled.
fn answer_to(shared: &Shared, node: Option<usize>, request: Request, fd: Option<OwnedFd>) -> Answer {
    let Some(at) = node else {
        return answer(shared, request, fd);
    };
    if let Some(errno) = shared.lock().nodes.refusal(at, &request) {
        return Err(errno);
    }
    let ended = match &request {
        Request::CopyEnd { item, .. } => Some(item.dfid),
        _ => None,
    };
    let makes = matches!(request, Request::NewVolatile(_));
    let reply = answer(shared, request, fd);
    if let (true, Ok(Reply::Fid(volatile))) = (makes, &reply) {
        shared.lock().nodes.made(at, *volatile);
    }
    if let Some(volatile) = ended {
        shared.lock().nodes.ended(at, volatile);
    }
    reply
}

/// Waits while the MDTs are silent. `false`: who asked is gone.
fn until_heard(shared: &Shared, connection: &Connection) -> bool {
    let mut state = shared.lock();
    if !state.faults.silent {
        return true;
    }
    let Ok(peer) = connection.peer() else {
        return false;
    };
    if peer == Pid::this().as_raw() {
        return true;
    }
    while state.faults.silent && !state.stopping {
        state = shared.wait(state, SILENCE);
    }
    drop(state);
    Path::new(&format!("/proc/{peer}")).exists()
}

/// Waits until all MDTs that a request is for answer. `false`: whoever asked is gone by then, or the sandbox ends.
fn heard(shared: &Shared, request: &Request, connection: &Connection) -> bool {
    let mut state = shared.lock();
    if !state.is_silent_for(request) {
        return true;
    }
    let Ok(peer) = connection.peer() else {
        return false;
    };
    if peer == Pid::this().as_raw() {
        return true;
    }
    while state.is_silent_for(request) {
        if state.stopping {
            return false;
        }
        state = shared.wait(state, SILENCE);
    }
    drop(state);
    Path::new(&format!("/proc/{peer}")).exists()
}

/// `LL_IOC_HSM_CT_START` wants CAP_SYS_ADMIN; not asked for where the sandbox has none itself.
fn may_register(connection: &Connection) -> bool {
    connection.peer().is_ok_and(is_admin) || !is_admin(Pid::this().as_raw())
}

fn is_admin(pid: i32) -> bool {
    const CAP_SYS_ADMIN: u32 = 21;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective
        .is_some_and(|bits| u64::from_str_radix(bits.trim(), 16).is_ok_and(|bits| bits & (1 << CAP_SYS_ADMIN) != 0))
}

fn answer(shared: &Shared, request: Request, fd: Option<OwnedFd>) -> Answer {
    match request {
        Request::CopyEnd {
            item,
            flags,
            errval,
            asked,
            data_version,
            no_layout,
            layout,
        } => {
            let swap_in = Handover {
                volatile: fd.map(File::from),
                no_layout,
                layout,
                is_whole: asked == 0,
            };
            return copy_end(shared, &item, flags, errval, data_version, swap_in);
        }
        Request::Wait(fids, ms) => {
            return wait(shared, ms, |state| {
                fids.iter().filter(|fid| state.pending.contains_key(fid)).count()
            });
        }
        Request::WaitEnded(action, fid, ms) => {
            return wait(shared, ms, |state| usize::from(!state.has_ended(action, fid)));
        }
        Request::WaitAgents(count, ms) => {
            return wait(shared, ms, |state| {
                let mdts = state.mdts();
                count.saturating_sub(
                    state
                        .agents
                        .iter()
                        .filter(|agent| agent.known_by.keys().eq(&mdts))
                        .count(),
                )
            });
        }
        Request::WaitStarted(count, ms) => {
            return wait(shared, ms, |state| count.saturating_sub(state.started.all()));
        }
        Request::WaitEvicted(name, ms) => {
            return wait(shared, ms, |state| usize::from(state.nodes.is_awaited(&name)));
        }
        Request::WaitHeldUp(mdt, ms) => {
            return wait(shared, ms, |state| usize::from(!state.held.contains_key(&mdt)));
        }
        Request::WaitReaders(count, ms) => {
            return wait(shared, ms, |state| {
                let waiting = state.readers.as_ref().map_or(0, |readers| readers.waiting());
                usize::from(waiting < count)
            });
        }
        _ => {}
    }
    let mut state = shared.lock();
    match request {
        Request::Register {
            uid,
            archives,
            listed,
            client,
        } => register(&mut state, uid, archives, listed, client, fd),
        Request::Unregister { uid, client } => {
            state.unregister(uid, &client);
            Ok(Reply::Ok(0))
        }
        other => state.answer(other),
    }
}

struct Handover {
    volatile: Option<File>,
    no_layout: bool,
    layout: Option<Vec<u8>>,
    /// As its copytool says.
    is_whole: bool,
}

/// The data is copied without the lock: other actions go on.
fn copy_end(shared: &Shared, item: &Item, flags: u16, errval: i32, data_version: u64, handover: Handover) -> Answer {
    let (ending, path) = {
        let mut state = shared.lock();
        let is_restored = item.action == lhsm_sandbox_protocol::Action::Restore && errval == 0;
        // An MDT that is to restart first has sent the restore again when this goes on.
        if is_restored && std::mem::take(&mut state.faults.restart_at_end) {
            state.restart(mdt_of(item.fid));
            shared.changed.notify_all();
            while !state.is_out(item) && !state.stopping {
                state = shared.wait(state, LOOK);
            }
        }
        let was_synced = state.synced_volatiles.remove(&item.dfid);
        let ending = state.ending(item)?;
        let is_restore = ending.action == lhsm_sandbox_protocol::Action::Restore;
        if is_restore && handover.is_whole && was_synced && state.went_with_its_mdt(item.dfid) {
            state.spoil(&ending);
        }
        let path = if is_restore && state.is_lost(item.dfid) {
            Err(libc::ESTALE)
        } else {
            state.data_path(ending.fid)
        };
        (ending, path)
    };
    let restoring = ending.action == lhsm_sandbox_protocol::Action::Restore && errval == 0;
    let swapped = if restoring {
        match (&handover.volatile, path) {
            (Some(volatile), Ok(path)) => {
                keeping_ctime(&shared.mount, &path, || swap(&path, volatile, handover.no_layout))
                    .map(|()| handover.layout)
            }
            (None, _) => Err(libc::EINVAL),
            (_, Err(errno)) => Err(errno),
        }
    } else {
        Ok(None)
    };
    let mut state = shared.lock();
    state.end(&ending, errval, flags, data_version, swapped)?;
    state.write_late(ending.fid);
    Ok(Reply::Ok(0))
}

/// A restore's end puts the ctime back, too.
fn keeping_ctime(mount: &Path, path: &Path, work: impl FnOnce() -> Result<(), i32>) -> Result<(), i32> {
    let stat = std::fs::symlink_metadata(path).map_err(|error| errno(&error))?;
    let shown = ctime::shown(mount, stat.ino(), (stat.ctime(), stat.ctime_nsec()));
    work()?;
    ctime::show(mount, path, shown).map_err(|error| errno(&error))
}

/// Until `left` says 0; answers what it said last.
fn wait(shared: &Shared, ms: u64, left: impl Fn(&State) -> usize) -> Answer {
    let until = Instant::now() + Duration::from_millis(ms);
    let mut state = shared.lock();
    loop {
        let missing = left(&state);
        let time = until.saturating_duration_since(Instant::now());
        if missing == 0 || time == Duration::ZERO || state.stopping {
            return Ok(Reply::Ok(missing as u64));
        }
        state = shared.wait(state, time);
    }
}

fn register(
    state: &mut State,
    uid: u32,
    mut archives: Vec<u32>,
    listed: bool,
    client: String,
    fd: Option<OwnedFd>,
) -> Answer {
    if state.control == Control::Stopped || state.others.contains(&Control::Stopped) {
        state.counters.kernel_crashes += 1;
        return Err(libc::ENXIO);
    }
    if state.archive_bits && listed {
        // The count of the list is taken for the bits.
        let count = archives.len();
        archives = (1..=32).filter(|id| count & (1 << (id - 1)) != 0).collect();
    }
    if archives.contains(&0) {
        archives.clear();
    }
    let write = adopt(fd.ok_or(libc::EBADF)?).map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))?;
    let pipe = Pipe { uid, write };
    let mdts = state.mdts();
    match state.agents.iter_mut().find(|agent| agent.client == client) {
        // "already registered": the MDT keeps the first list; the client's kernel has one pipe more.
        Some(agent) => {
            agent.pipes.push(pipe);
            if agent.known_by.is_empty() {
                agent.archives = archives;
            }
            for mdt in mdts {
                agent.known_by.entry(mdt).or_default();
            }
        }
        None => state.agents.push(Agent {
            client,
            archives,
            pipes: vec![pipe],
            known_by: mdts.into_iter().map(|mdt| (mdt, 0)).collect(),
        }),
    }
    Ok(Reply::Ok(u64::from(state.start_once)))
}

impl State {
    /// Whether an MDT that it is for does not answer. What tests and administrators ask of the sandbox itself is always
    /// answered.
    fn is_silent_for(&self, request: &Request) -> bool {
        if self.silent.is_empty() {
            return false;
        }
        let on = |fid: &Fid| self.silent.contains(&mdt_of(*fid));
        match request {
            // Each MDT in turn, and there is one that does not answer.
            Request::Register { .. } | Request::Unregister { .. } => true,
            Request::Progress { fid, .. }
            | Request::DataVersion(fid)
            | Request::Sync(fid)
            | Request::VolatileTimes(fid)
            | Request::MdtOf(fid)
            | Request::PathOf(fid, _)
            | Request::GetXattr(fid, _)
            | Request::ListXattr(fid)
            | Request::SetXattr(fid, ..)
            | Request::RemoveXattr(fid, _)
            | Request::Release(fid)
            | Request::State(fid)
            | Request::SetState { fid, .. }
            | Request::SetTimes { fid, .. } => on(fid),
            Request::CopyStart(item) | Request::CopyEnd { item, .. } => on(&item.fid),
            Request::NewVolatile(mdt) | Request::MakeDir(_, mdt) => self.silent.contains(mdt),
            Request::FidOfInode { dev, ino } => self.by_inode.get(&(*dev, *ino)).is_some_and(on),
            Request::Hsm { fids, .. } => fids.iter().any(on),
            Request::ChangelogRead(mdt, _) | Request::ChangelogClear(mdt, ..) => self.silent.contains(mdt),
            _ => false,
        }
    }

    /// A call of somebody else's: it is counted. How long it takes.
    fn met(&mut self, request: &Request) -> Duration {
        let name = request.name();
        *self.counters.calls.entry(name.to_owned()).or_default() += 1;
        if !self.faults.slow.is_zero() {
            let under_way = self.faults.under_way.entry(name).or_default();
            *under_way += 1;
            let most = self.counters.at_once.entry(name.to_owned()).or_default();
            *most = (*most).max(*under_way);
        }
        self.faults.slow
    }

    /// It took its time.
    fn is_over(&mut self, request: &Request) {
        if let Some(under_way) = self.faults.under_way.get_mut(request.name()) {
            *under_way = under_way.saturating_sub(1);
        }
    }

    /// Drops every pipe of that uid, and the node's agent; what it runs stays STARTED.
    fn unregister(&mut self, uid: u32, client: &str) {
        for agent in &mut self.agents {
            if agent.client == client {
                agent.pipes.retain(|pipe| uid != 0 && pipe.uid != uid);
                agent.known_by.clear();
            }
        }
        self.agents
            .retain(|agent| !agent.known_by.is_empty() || !agent.pipes.is_empty());
    }

    fn answer(&mut self, request: Request) -> Answer {
        let done = |()| Reply::Ok(0);
        match request {
            Request::FsName => Ok(Reply::Text(self.fsname.clone())),
            Request::Progress { fid, cookie, .. } => self.progress(fid, cookie).map(done),
            Request::CopyStart(item) => self.copy_start(&item).map(Reply::Ok),
            Request::NewVolatile(mdt) => self
                .has_room_on(mdt)
                .and_then(|()| self.new_fid_on(mdt))
                .map(Reply::Fid),
            Request::DataVersion(fid) => self.data_version(fid).map(Reply::Ok),
            Request::Sync(fid) => {
                let reply = self.sync(fid)?;
                self.synced_volatiles.insert(fid);
                Ok(reply)
            }
            // The MDT has no such file.
            Request::VolatileTimes(fid) if self.is_lost(fid) => Err(libc::ENOENT),
            Request::VolatileTimes(_) => strike(&mut self.faults.times_errno).map_or(Ok(Reply::Ok(0)), Err),
            Request::Read(..) => strike(&mut self.faults.read_errno).map_or(Ok(Reply::Ok(0)), Err),
            Request::Write(..) => strike(&mut self.faults.write_errno).map_or(Ok(Reply::Ok(0)), Err),
            Request::MdtCount => Ok(Reply::Ok(1 + self.others.len() as u64)),
            Request::MdtOf(fid) => Ok(Reply::Ok(u64::from(mdt_of(fid)))),
            Request::PathOf(fid, link) => self.name_of(fid, link).map(|(path, more)| Reply::Path(path, more)),
            Request::FidOf(path) => self.fid_of(Path::new(&path)).map(Reply::Fid),
            Request::MakeDir(path, mdt) => self.make_dir(Path::new(&path), mdt).map(Reply::Fid),
            Request::FidOfInode { dev, ino } => {
                let fid = self.by_inode.get(&(dev, ino)).copied();
                fid.map(Reply::Fid).ok_or(libc::ENODATA)
            }
            Request::GetXattr(fid, name) => self.xattr(fid, &name).map(Reply::Bytes),
            Request::ListXattr(fid) => self.xattr_names(fid).map(Reply::Bytes),
            Request::SetXattr(fid, name, value) => {
                self.set_xattr(fid, name, value)?;
                self.note(kind::XATTR, 0, fid);
                Ok(Reply::Ok(0))
            }
            Request::RemoveXattr(fid, name) => self.remove_xattr(fid, &name).map(done),
            Request::Hsm {
                action,
                archive_id,
                flags,
                fids,
                data,
            } => self.request(action, archive_id, flags, &fids, &data).map(done),
            Request::Import {
                path,
                archive_id,
                mode,
                uid,
                gid,
                size,
                times,
            } => {
                let path = Path::new(OsStr::from_bytes(&path));
                fill(&self.mount.join(path), mode, (uid, gid), size, times)?;
                self.import(path, archive_id).map(Reply::Fid)
            }
            Request::SetTimes {
                fid,
                atime,
                mtime,
                ctime,
            } => self.set_three_times(fid, (atime, mtime), ctime).map(done),
            Request::Release(fid) => self.release(fid).map(done),
            Request::State(fid) => self.state(fid).map(Reply::State),
            Request::SetState {
                fid,
                set,
                clear,
                archive_id,
            } => self.set_state(fid, set, clear, archive_id).map(done),
            Request::Control(mdt, control) => self.control(mdt, control).map(done),
            Request::Set(tunable, value) => self.set(tunable, value).map(done),
            Request::SetMaxRequests(mdt, value) => {
                self.max_requests_on.insert(mdt, value);
                Ok(Reply::Ok(0))
            }
            Request::Inject(fault) => self.inject(fault).map(done),
            Request::NodeEvent(name, event) => self.node_event(&name, event).map(done),
            Request::Nodes => Ok(Reply::Nodes(self.node_infos())),
            Request::Actions => Ok(Reply::Actions(self.infos())),
            Request::Pending => Ok(Reply::Ok(self.pending.values().map(Vec::len).sum::<usize>() as u64)),
            Request::ChangelogRegister(mdt) => Ok(Reply::Text(self.changelog(mdt)?.register())),
            Request::ChangelogRead(mdt, from) => self.changelog(mdt)?.read(from).map(Reply::Changes),
            Request::ChangelogClear(mdt, user, up_to) => self.changelog(mdt)?.clear(&user, up_to).map(done),
            Request::Change(change) => self.change(change).map(done),
            Request::Agents => Ok(Reply::Agents(self.agent_infos())),
            Request::Counters => {
                let mut counters = self.counters.clone();
                counters.changes = self.changelogs.values().map(Changelog::kept).sum();
                counters.readers = self.readers.as_ref().map_or(0, |readers| readers.waiting());
                Ok(Reply::Counters(counters))
            }
            Request::Stop => {
                self.stop();
                Ok(Reply::Ok(0))
            }
            Request::Node(_)
            | Request::Register { .. }
            | Request::Unregister { .. }
            | Request::WaitEvicted(..)
            | Request::WaitHeldUp(..)
            | Request::CopyEnd { .. }
            | Request::Wait(..)
            | Request::WaitAgents(..)
            | Request::WaitStarted(..)
            | Request::WaitEnded(..)
            | Request::WaitReaders(..) => Err(libc::EPROTO),
        }
    }

    /// fsync of a volatile file.
    fn sync(&mut self, fid: Fid) -> Answer {
        if self.went_with_its_mdt(fid) {
            return Err(libc::ESTALE);
        }
        if self.gone_volatiles.contains(&fid) {
            // As seen on 2.17: the MDT has deleted it.
            return Err(libc::ENOENT);
        }
        strike(&mut self.faults.sync_errno).map_or(Ok(Reply::Ok(0)), Err)
    }

    /// A volatile file that went with its MDT's restart, or with its node's eviction.
    fn is_lost(&self, fid: Fid) -> bool {
        self.went_with_its_mdt(fid) || self.gone_volatiles.contains(&fid)
    }

    fn went_with_its_mdt(&self, fid: Fid) -> bool {
        let lost = self.lost_volatiles.get(&mdt_of(fid));
        lost.is_some_and(|lost| fid.oid < *lost)
    }

    /// `hsm_control` of one MDT; the others know nothing of it.
    fn control(&mut self, mdt: u32, control: HsmControl) -> Result<(), i32> {
        let at = match mdt.checked_sub(1) {
            None => &mut self.control,
            Some(other) => self.others.get_mut(other as usize).ok_or(libc::ENODEV)?,
        };
        match control {
            HsmControl::Enabled => *at = Control::Enabled,
            HsmControl::Disabled => *at = Control::Disabled,
            HsmControl::Shutdown => {
                *at = Control::Stopped;
                self.shutdown(mdt);
            }
            HsmControl::Purge => self.purge(mdt),
        }
        Ok(())
    }

    fn set(&mut self, tunable: Tunable, value: u64) -> Result<(), i32> {
        match tunable {
            Tunable::MaxRequests => self.max_requests = usize::try_from(value).map_err(|_| libc::EINVAL)?,
            Tunable::ActiveRequestTimeoutMs => self.timeout = Duration::from_millis(value),
            Tunable::LoopPeriodMs => self.loop_period = Duration::from_millis(value),
            Tunable::TickMs => self.tick = Duration::from_millis(value),
            Tunable::RemoveArchiveOnLastUnlink => self.remove_on_last_unlink = value != 0,
            Tunable::RetryAction => self.retry_action = value != 0,
            Tunable::EvictionMs => self.eviction = Duration::from_millis(value),
        }
        Ok(())
    }

    fn agent_infos(&self) -> Vec<AgentInfo> {
        self.agents
            .iter()
            .filter(|agent| !agent.known_by.is_empty())
            .map(|agent| AgentInfo {
                client: agent.client.clone(),
                mdts: agent.known_by.keys().copied().collect(),
                archives: agent.archives.clone(),
                pipes: agent.pipes.len(),
                outstanding: agent.known_by.values().sum(),
            })
            .collect()
    }
}
