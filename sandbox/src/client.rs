//! The user's side: requests to a sandbox, as `lfs` and administrators make them.

use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lhsm_sandbox_protocol::{
    Action, AgentInfo, Connection, Counters, Fault, Fid, FileState, HsmControl, NodeEvent, NodeInfo, Reply, Request,
    RequestInfo, SOCKET, Tunable, UserChange, connect,
};

/// Between two looks at a file that is open.
const BUSY: Duration = Duration::from_millis(2);

/// A conversation with one sandbox.
#[derive(Debug)]
pub struct Client {
    mount: PathBuf,
    connection: Connection,
}

impl Client {
    /// To the sandbox mounted at `mount`.
    ///
    /// # Errors
    /// There is none.
    pub fn new(mount: &Path) -> io::Result<Self> {
        Ok(Self {
            mount: mount.to_owned(),
            connection: connect(mount)?,
        })
    }

    /// To the sandbox that `path` is in.
    ///
    /// # Errors
    /// It is in none.
    pub fn of(path: &Path) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        let mount = path
            .ancestors()
            .find(|dir| dir.join(SOCKET).exists())
            .ok_or_else(|| io::Error::other(format!("'{}' is in no sandbox", path.display())))?;
        Self::new(mount)
    }

    /// Where it is mounted.
    #[must_use]
    pub fn mount(&self) -> &Path {
        &self.mount
    }

    /// Any request.
    ///
    /// # Errors
    /// The coordinator's errno.
    pub fn ask(&mut self, request: &Request) -> io::Result<Reply> {
        self.connection.send(request, None)?;
        match self.connection.receive()? {
            Some((Reply::Errno(errno), _)) => Err(io::Error::from_raw_os_error(errno)),
            Some((reply, _)) => Ok(reply),
            None => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }

    /// The FID of a path.
    ///
    /// # Errors
    /// There is no such file.
    pub fn fid(&mut self, path: &Path) -> io::Result<Fid> {
        let relative = self.relative(path)?;
        match self.ask(&Request::FidOf(relative))? {
            Reply::Fid(fid) => Ok(fid),
            _ => Err(unexpected()),
        }
    }

    /// Makes a directory on an MDT; what is made below it is there, too.
    ///
    /// # Errors
    /// ENODEV: there is no such MDT.
    pub fn make_dir(&mut self, path: &Path, mdt: u32) -> io::Result<()> {
        let relative = self.relative(path)?;
        self.ask(&Request::MakeDir(relative, mdt)).map(drop)
    }

    fn relative(&self, path: &Path) -> io::Result<String> {
        let absolute = std::path::absolute(path)?;
        let relative = absolute
            .strip_prefix(&self.mount)
            .map_err(|_| io::Error::other(format!("'{}' is not in this sandbox", path.display())))?;
        String::from_utf8(relative.as_os_str().as_bytes().to_vec()).map_err(io::Error::other)
    }

    /// `llapi_hsm_request`
    ///
    /// # Errors
    /// The first file's refusal; those before it are accepted.
    pub fn request(&mut self, action: Action, archive_id: u32, fids: &[Fid]) -> io::Result<()> {
        self.ask(&Request::Hsm {
            action,
            archive_id,
            flags: 0,
            fids: fids.to_vec(),
            data: Vec::new(),
        })
        .map(drop)
    }

    /// `lfs hsm_release`
    ///
    /// # Errors
    /// The file can't be released.
    pub fn release(&mut self, fid: Fid) -> io::Result<()> {
        self.ask(&Request::Release(fid)).map(drop)
    }

    /// The same, for a file that its copytool may have open for a moment still: closed it is right behind the end of an
    /// archive, and some time after a stop.
    ///
    /// # Errors
    /// The file can't be released, or is open for longer than `limit` (EBUSY).
    pub fn release_closed(&mut self, fid: Fid, limit: Duration) -> io::Result<()> {
        let until = Instant::now() + limit;
        loop {
            match self.release(fid) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < until => {
                    std::thread::park_timeout(BUSY);
                }
                released => return released,
            }
        }
    }

    /// `lfs hsm_state`
    ///
    /// # Errors
    /// There is no such file.
    pub fn state(&mut self, fid: Fid) -> io::Result<FileState> {
        match self.ask(&Request::State(fid))? {
            Reply::State(state) => Ok(state),
            _ => Err(unexpected()),
        }
    }

    /// Waits until nothing is pending for `fids`. `false`: not in that time.
    ///
    /// # Errors
    /// The coordinator is gone.
    pub fn wait(&mut self, fids: &[Fid], limit: Duration) -> io::Result<bool> {
        self.came_true(&Request::Wait(fids.to_vec(), ms(limit)))
    }

    /// Waits until `count` copytools are registered. `false`: not in that time.
    ///
    /// # Errors
    /// The coordinator is gone.
    pub fn wait_agents(&mut self, count: usize, limit: Duration) -> io::Result<bool> {
        self.came_true(&Request::WaitAgents(count, ms(limit)))
    }

    /// Waits until `count` actions are out at copytools. `false`: not in that time.
    ///
    /// # Errors
    /// The coordinator is gone.
    pub fn wait_started(&mut self, count: usize, limit: Duration) -> io::Result<bool> {
        self.came_true(&Request::WaitStarted(count, ms(limit)))
    }

    /// Waits until `count` readers wait for a restore. `false`: not in that time.
    ///
    /// # Errors
    /// The coordinator is gone.
    pub fn wait_readers(&mut self, count: u64, limit: Duration) -> io::Result<bool> {
        self.came_true(&Request::WaitReaders(count, ms(limit)))
    }

    /// Waits until an action of that kind has ended for the file. `false`: not in that time.
    ///
    /// # Errors
    /// The coordinator is gone.
    pub fn wait_ended(&mut self, action: Action, fid: Fid, limit: Duration) -> io::Result<bool> {
        self.came_true(&Request::WaitEnded(action, fid, ms(limit)))
    }

    fn came_true(&mut self, wait: &Request) -> io::Result<bool> {
        match self.ask(wait)? {
            Reply::Ok(left) => Ok(left == 0),
            _ => Err(unexpected()),
        }
    }

    /// A `trusted.*` attribute.
    ///
    /// # Errors
    /// ENODATA when there is none.
    pub fn xattr(&mut self, fid: Fid, name: &str) -> io::Result<Vec<u8>> {
        match self.ask(&Request::GetXattr(fid, name.to_owned()))? {
            Reply::Bytes(bytes) => Ok(bytes),
            _ => Err(unexpected()),
        }
    }

    /// Sets an attribute of the file, as root can.
    ///
    /// # Errors
    /// The coordinator's.
    pub fn set_xattr(&mut self, fid: Fid, name: &str, value: &[u8]) -> io::Result<()> {
        self.ask(&Request::SetXattr(fid, name.to_owned(), value.to_owned()))?;
        Ok(())
    }

    /// All actions.
    ///
    /// # Errors
    /// The coordinator is gone.
    pub fn actions(&mut self) -> io::Result<Vec<RequestInfo>> {
        match self.ask(&Request::Actions)? {
            Reply::Actions(actions) => Ok(actions),
            _ => Err(unexpected()),
        }
    }

    /// Number of actions that are not over.
    ///
    /// # Errors
    /// The coordinator is gone.
    pub fn pending(&mut self) -> io::Result<u64> {
        match self.ask(&Request::Pending)? {
            Reply::Ok(n) => Ok(n),
            _ => Err(unexpected()),
        }
    }

    /// Registered copytools.
    ///
    /// # Errors
    /// The coordinator is gone.
    pub fn agents(&mut self) -> io::Result<Vec<AgentInfo>> {
        match self.ask(&Request::Agents)? {
            Reply::Agents(agents) => Ok(agents),
            _ => Err(unexpected()),
        }
    }

    /// What happened so far.
    ///
    /// # Errors
    /// The coordinator is gone.
    pub fn counters(&mut self) -> io::Result<Counters> {
        match self.ask(&Request::Counters)? {
            Reply::Counters(counters) => Ok(counters),
            _ => Err(unexpected()),
        }
    }

    /// `hsm_control`
    ///
    /// # Errors
    /// The coordinator is gone.
    pub fn control(&mut self, control: HsmControl) -> io::Result<()> {
        self.control_mdt(0, control)
    }

    /// `hsm_control` of one MDT.
    ///
    /// # Errors
    /// There is no such MDT.
    pub fn control_mdt(&mut self, mdt: u32, control: HsmControl) -> io::Result<()> {
        self.ask(&Request::Control(mdt, control)).map(drop)
    }

    /// A tunable.
    ///
    /// # Errors
    /// The coordinator is gone.
    pub fn set(&mut self, tunable: Tunable, value: u64) -> io::Result<()> {
        self.ask(&Request::Set(tunable, value)).map(drop)
    }

    /// `max_requests` of one MDT.
    ///
    /// # Errors
    /// The coordinator is gone.
    pub fn set_max_requests(&mut self, mdt: u32, requests: usize) -> io::Result<()> {
        self.ask(&Request::SetMaxRequests(mdt, requests)).map(drop)
    }

    /// Registers a reader of the first MDT's changelog; its name.
    ///
    /// # Errors
    /// As above.
    pub fn register_changelog(&mut self) -> io::Result<String> {
        self.register_changelog_on(0)
    }

    /// The same of another MDT's.
    ///
    /// # Errors
    /// ENOENT: there is no such MDT.
    pub fn register_changelog_on(&mut self, mdt: u32) -> io::Result<String> {
        match self.ask(&Request::ChangelogRegister(mdt))? {
            Reply::Text(name) => Ok(name),
            _ => Err(unexpected()),
        }
    }

    /// Does what a user does, with its record in the changelog.
    ///
    /// # Errors
    /// The operation's.
    pub fn change(&mut self, change: UserChange) -> io::Result<()> {
        self.ask(&Request::Change(change)).map(drop)
    }

    /// A node dies with everything: its processes are gone, and no kernel tells the servers. `name`: what its copytool is
    /// registered as.
    ///
    /// # Errors
    /// ENOENT: there was never one of that name. EINVAL: it is dead already.
    pub fn kill_node(&mut self, name: &str) -> io::Result<()> {
        self.node_event(name, NodeEvent::Kill)
    }

    /// A node is cut off from all servers.
    ///
    /// # Errors
    /// As above.
    pub fn cut_node(&mut self, name: &str) -> io::Result<()> {
        self.node_event(name, NodeEvent::Cut)
    }

    /// A node stands still.
    ///
    /// # Errors
    /// As above.
    pub fn pause_node(&mut self, name: &str) -> io::Result<()> {
        self.node_event(name, NodeEvent::Pause)
    }

    /// One that was cut off or stood still is heard again.
    ///
    /// # Errors
    /// As above.
    pub fn heal_node(&mut self, name: &str) -> io::Result<()> {
        self.node_event(name, NodeEvent::Heal)
    }

    /// The servers give a node up now. One that is heard comes back at once.
    ///
    /// # Errors
    /// ENOENT: there was never one of that name.
    pub fn evict(&mut self, name: &str) -> io::Result<()> {
        self.node_event(name, NodeEvent::Evict)
    }

    /// What becomes of a node.
    ///
    /// # Errors
    /// As above.
    pub fn node_event(&mut self, name: &str, event: NodeEvent) -> io::Result<()> {
        self.ask(&Request::NodeEvent(name.to_owned(), event)).map(drop)
    }

    /// All nodes that were ever heard of.
    ///
    /// # Errors
    /// The coordinator is gone.
    pub fn nodes(&mut self) -> io::Result<Vec<NodeInfo>> {
        match self.ask(&Request::Nodes)? {
            Reply::Nodes(nodes) => Ok(nodes),
            _ => Err(unexpected()),
        }
    }

    /// Waits until a silent node has been evicted. `false`: not in that time.
    ///
    /// # Errors
    /// The coordinator is gone.
    pub fn wait_evicted(&mut self, name: &str, limit: Duration) -> io::Result<bool> {
        self.came_true(&Request::WaitEvicted(name.to_owned(), ms(limit)))
    }

    /// Waits until an MDT's coordinator waits in a send to a silent node. `false`: not in that time.
    ///
    /// # Errors
    /// The coordinator is gone.
    pub fn wait_held_up(&mut self, mdt: u32, limit: Duration) -> io::Result<bool> {
        self.came_true(&Request::WaitHeldUp(mdt, ms(limit)))
    }

    /// Trouble.
    ///
    /// # Errors
    /// The coordinator is gone.
    pub fn inject(&mut self, fault: Fault) -> io::Result<()> {
        self.ask(&Request::Inject(fault)).map(drop)
    }
}

fn ms(limit: Duration) -> u64 {
    u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)
}

fn unexpected() -> io::Error {
    io::Error::other("unexpected reply of the sandbox")
}
