//! The mount's HSM agent: registration with the coordinator, and what keeps it registered.
//!
//! Registering while a coordinator is stopped crashes the client's kernel (2.17 and before), so a probe
//! comes first, always. A coordinator that is switched off and on forgets its agents without a sign on
//! the pipe; [`Agent::keep_alive`] brings the registration back without touching the pipe in use.

use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, OFlag};

use super::bindings::hsm_copytool_private;
use super::debt::Action;
use super::mount::Place;
use super::{Mount, OtherTool, Trace, ioctl};
use crate::action::{Debt, HsmError, Item};
use crate::types::{ArchiveId, Cookie, Extent};

/// No coordinator counts this far: cookies start at the wall clock's seconds.
const BOGUS_COOKIE: Cookie = Cookie(u64::MAX);
/// Slack for some 170 of the largest messages, on top of a reader that never stops.
const PIPE_BYTES: i32 = 1 << 20;
/// Until a lock that is held is another daemon's.
const FOR_A_MOMENT: Duration = Duration::from_secs(1);
const LOCK_PAUSE: Duration = Duration::from_millis(50);
/// Above every pid (at most 2^22): a pipe of ours must not share its kernel uid with another process.
const UID_SPACE: u32 = 1 << 30;

/// Whether the MDT's coordinator runs (`mdt.*.hsm_control`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Coordinator {
    /// It takes registrations.
    Running,
    /// On this MDT it does not: registering now would crash this node.
    Stopped {
        /// The MDT's index.
        mdt: u32,
    },
    /// It runs; whether it knows us, the client did not ask.
    Unasked,
}

/// Why there is no agent.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Another copytool of ours serves this mount.
    #[error(
        "another lhsmtool-s3 already serves this mount point. Lustre knows one agent per mount: give \
             one daemon all archive ids, or mount the file system a second time for a second daemon"
    )]
    Occupied,
    /// Another program serves it.
    #[error(
        "{0} serves this mount point as a copytool. Lustre knows one agent per mount: registering would take its messages \
             away without a sign, and its readers would wait for ever. Stop it, or mount the file system a second time \
             for this daemon. If it is none, set `other_tool = \"ignore\"` in section [lustre]"
    )]
    OtherTool(OtherTool),
    /// The lock itself failed.
    #[error("can't take the lock that keeps a second copytool off this mount: {0}")]
    Lock(std::io::Error),
    /// A coordinator is off.
    #[error(
        "the HSM coordinator of MDT {mdt:04x} is stopped. On its server: lctl set_param mdt.*-MDT{mdt:04x}.hsm_control=enabled"
    )]
    Stopped {
        /// The MDT's index.
        mdt: u32,
    },
    /// The mount point is another mount than the one that was opened.
    #[error("the file system was mounted anew: all that is open here belongs to the former mount")]
    MountedAnew,
    /// Nothing is mounted there.
    #[error("the file system is not mounted any more")]
    Unmounted,
    /// A call failed.
    #[error("{0}{hint}", hint = hint(.0))]
    Call(#[from] HsmError),
    /// The pipe's own errors.
    #[error("can't make the message pipe: {0}")]
    Pipe(std::io::Error),
}

impl AgentError {
    /// Whether waiting may help; the rest needs an administrator.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Stopped { .. } | Self::Unmounted => true,
            Self::Call(error) => !matches!(error.errno, libc::EPERM | libc::EACCES | libc::EINVAL | libc::ENOTTY),
            Self::MountedAnew | Self::Occupied | Self::OtherTool(_) | Self::Lock(_) | Self::Pipe(_) => false,
        }
    }
}

fn hint(error: &HsmError) -> &'static str {
    match error.errno {
        libc::EPERM | libc::EACCES => {
            ". A copytool needs CAP_SYS_ADMIN, and the nodemap's rbac role hsm_ops where nodemaps are used"
        }
        libc::EINVAL => ". Lustre 2.10 and its servers know archive ids 1 to 32 only",
        libc::ENXIO | libc::EAGAIN | libc::EINPROGRESS => {
            ". The coordinator is stopped or starting: on the MDS, lctl set_param mdt.*.hsm_control=enabled"
        }
        _ => "",
    }
}

/// A live registration. The last clone of its `Arc` unregisters, which blocks; debts hold one each, so
/// that comes after the last action.
#[derive(Debug)]
pub struct Agent {
    mount: Arc<Mount>,
    ct: CopytoolPtr,
    archives: RwLock<Vec<ArchiveId>>,
    /// 0: the library's registration; else the uid of our own pipe.
    generation: AtomicU32,
    /// Whether answers reached the coordinator, as of the last one.
    heard: AtomicBool,
    trace: Trace,
    _lock: UnixListener,
}

/// The library's handle of the registration.
#[derive(Debug)]
struct CopytoolPtr(NonNull<hsm_copytool_private>);

#[expect(unsafe_code, reason = "a C handle used from several threads")]
// SAFETY: liblustreapi ties nothing to a thread. After register the struct is only read: begin takes it
// const, end and progress use its mount descriptor; recv, which writes its buffer, is never called.
unsafe impl Send for CopytoolPtr {}
#[expect(unsafe_code, reason = "a C handle used from several threads")]
// SAFETY: as for Send; unregister, the one call that changes it, has the only reference (Drop).
unsafe impl Sync for CopytoolPtr {}

impl Agent {
    /// Asks on each MDT whether its coordinator runs; needs no registration. Each MDS logs one line for it.
    ///
    /// # Errors
    /// Neither answer came: an MDT can't be reached, or this is no Lustre client.
    pub fn probe(mount: &Mount) -> Result<Coordinator, HsmError> {
        for (mdt, fid) in mount.mdts()? {
            match ioctl::progress(mount.descriptor(), fid, BOGUS_COOKIE, Extent::EMPTY) {
                Ok(()) => {}
                Err(error) if error.errno == libc::ENOENT => {}
                Err(error) if error.errno == libc::EAGAIN => return Ok(Coordinator::Stopped { mdt }),
                Err(error) => {
                    mount.forget_mdt(mdt);
                    return Err(error);
                }
            }
        }
        Ok(Coordinator::Running)
    }

    /// Takes the mount's lock, probes, registers for `archives` (never for "all") and widens the pipe. `trace`: where what
    /// this leaves in the kernel is noted, for whoever comes after a death.
    ///
    /// # Errors
    /// Why not; see [`AgentError::is_transient`].
    pub fn register(mount: Arc<Mount>, archives: Vec<ArchiveId>, trace: Trace) -> Result<Self, AgentError> {
        let lock = lock_soon(&mount)?;
        trace.forget(&mount);
        if let Coordinator::Stopped { mdt } = Self::probe(&mount)? {
            return Err(AgentError::Stopped { mdt });
        }
        // Where a copytool was killed the MDT still has its agent, and with it the list of archives: of a second
        // registration it takes nothing (mdt_hsm_cdt_agent.c).
        if let Err(error) = ioctl::stop_copytool(mount.descriptor(), uid(0)) {
            tracing::debug!(%error, "there was no agent to forget");
        }
        let mut ids = archives
            .iter()
            .map(|id| i32::try_from(id.get()))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| HsmError::new("llapi_hsm_copytool_register", libc::EINVAL))?;
        trace.leave(&[uid(0)]);
        let ct = mount.library().register(mount.path(), &mut ids, libc::O_NONBLOCK)?;
        let ct = NonNull::new(ct).ok_or(HsmError::new("llapi_hsm_copytool_register", libc::EFAULT))?;
        let agent = Self {
            mount,
            ct: CopytoolPtr(ct),
            archives: RwLock::new(archives),
            generation: AtomicU32::new(0),
            heard: AtomicBool::new(true),
            trace,
            _lock: lock,
        };
        let pipe = agent.library_pipe()?;
        widen(&pipe);
        if let Err(error) = nix::fcntl::fcntl(&pipe, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)) {
            tracing::debug!(%error, "children inherit the message pipe");
        }
        Ok(agent)
    }

    /// Registers again for a stream that can't be followed or that ended: drops the old pipe, whose read
    /// end must still be drained, and gives the new one.
    ///
    /// # Errors
    /// As for [`Agent::register`].
    pub fn register_again(&self) -> Result<Pipe, AgentError> {
        self.in_place()?;
        if let Coordinator::Stopped { mdt } = Self::probe(&self.mount)? {
            return Err(AgentError::Stopped { mdt });
        }
        let old = uid(self.generation.load(Ordering::Relaxed));
        let generation = self.generation.load(Ordering::Relaxed).wrapping_add(1).max(1);
        // A pipe that the kernel has already forgotten is fine.
        if let Err(error) = ioctl::stop_copytool(self.mount.descriptor(), old) {
            tracing::debug!(%error, "the old pipe was already gone");
        }
        let (read, write) =
            nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).map_err(|e| AgentError::Pipe(e.into()))?;
        blocking(&write).map_err(AgentError::Pipe)?;
        widen(&read);
        self.trace.leave(&[uid(0), uid(generation)]);
        ioctl::start_copytool(self.mount.descriptor(), &write, uid(generation), &self.archives())?;
        self.generation.store(generation, Ordering::Relaxed);
        Ok(Pipe::Own(read))
    }

    /// Makes sure that the coordinator knows us, with a pipe that is thrown away at once: if it forgot
    /// us this registers, and messages come through the pipe in use; else nothing changes. Blocks while
    /// any pipe of this node is full, so never call it from the reader.
    ///
    /// # Errors
    /// The probe or the registration failed.
    pub fn keep_alive(&self) -> Result<Coordinator, AgentError> {
        self.in_place()?;
        if let stopped @ Coordinator::Stopped { .. } = Self::probe(&self.mount)? {
            return Ok(stopped);
        }
        let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|e| AgentError::Pipe(e.into()))?;
        let result = ioctl::start_copytool(
            self.mount.descriptor(),
            &write,
            uid(self.generation.load(Ordering::Relaxed)),
            &self.archives(),
        );
        drop((read, write));
        match result {
            Ok(()) => Ok(Coordinator::Running),
            // Said by newer clients without asking the MDT (LU-18238).
            Err(error) if error.errno == libc::EEXIST => Ok(Coordinator::Unasked),
            Err(error) => Err(error.into()),
        }
    }

    fn in_place(&self) -> Result<(), AgentError> {
        match self.mount.place() {
            Place::Same => Ok(()),
            Place::MountedAnew => Err(AgentError::MountedAnew),
            Place::Gone => Err(AgentError::Unmounted),
        }
    }

    /// No more messages: the pipe in use ends once its reader has read what is in it.
    ///
    /// # Errors
    /// The ioctl's.
    pub fn stop_messages(&self) -> Result<(), HsmError> {
        ioctl::stop_copytool(self.mount.descriptor(), uid(self.generation.load(Ordering::Relaxed)))
    }

    /// The pipe of the library's own registration.
    ///
    /// # Errors
    /// The library lost it.
    pub fn library_pipe(&self) -> Result<Pipe, HsmError> {
        self.mount.library().pipe_fd(self.ct.0.as_ptr()).map(Pipe::Library)
    }

    /// An action that is owed by this mount, whichever process took it in: it belongs to its cookie.
    #[must_use]
    pub fn owe(self: &Arc<Self>, item: Item) -> Box<dyn Debt> {
        Box::new(Action::new(Arc::clone(self), item))
    }

    /// The mount that it serves.
    #[must_use]
    pub const fn mount(&self) -> &Arc<Mount> {
        &self.mount
    }

    /// The archive ids that it is registered for, or is with the next registration.
    #[must_use]
    pub fn archives(&self) -> Vec<ArchiveId> {
        self.archives.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether an action of that archive is ours.
    #[must_use]
    pub fn serves(&self, id: ArchiveId) -> bool {
        let archives = self.archives.read().unwrap_or_else(PoisonError::into_inner);
        archives.contains(&id)
    }

    pub(super) fn is_heard(&self) -> bool {
        self.heard.load(Ordering::Relaxed)
    }

    pub(super) fn set_heard(&self, heard: bool) {
        self.heard.store(heard, Ordering::Relaxed);
    }

    /// For one archive more from the next registration on: the MDT has no call that changes the list of one
    /// (mdt_hsm_cdt_agent.c).
    pub(super) fn add(&self, id: ArchiveId) {
        let mut archives = self.archives.write().unwrap_or_else(PoisonError::into_inner);
        if !archives.contains(&id) {
            archives.push(id);
        }
    }

    /// Takes that back.
    pub(super) fn remove(&self, id: ArchiveId) {
        let mut archives = self.archives.write().unwrap_or_else(PoisonError::into_inner);
        archives.retain(|known| *known != id);
    }

    pub(super) const fn pointer(&self) -> *const hsm_copytool_private {
        self.ct.0.as_ptr()
    }
}

/// What names a pipe of ours in the kernel; the library's own is our pid.
fn uid(generation: u32) -> u32 {
    match generation {
        0 => std::process::id(),
        n => UID_SPACE | (std::process::id() & 0x3f_ffff) | ((n & 0x7f) << 22),
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let generation = self.generation.load(Ordering::Relaxed);
        if generation > 0
            && let Err(error) = ioctl::stop_copytool(self.mount.descriptor(), uid(generation))
        {
            tracing::warn!(%error, "could not drop the message pipe");
        }
        match self.mount.library().unregister(self.ct.0.as_ptr()) {
            Ok(()) => {
                self.trace.wipe();
                tracing::info!("unregistered from the coordinator");
            }
            Err(error) => tracing::warn!(%error, "could not unregister"),
        }
    }
}

/// Where messages come from.
#[derive(Debug)]
pub enum Pipe {
    /// The library's descriptor: read it, never close it.
    Library(RawFd),
    /// Ours.
    Own(OwnedFd),
}

impl Pipe {
    /// The descriptor to read.
    #[must_use]
    pub fn borrow(&self) -> BorrowedFd<'_> {
        match self {
            Self::Library(fd) => {
                #[expect(unsafe_code, reason = "the library lends its descriptor as a number")]
                // SAFETY: the library keeps it open until unregister (llapi_hsm_copytool_get_fd returns
                // its own, not a dup), and each Pipe is held beside the Agent that unregisters in Drop.
                unsafe {
                    BorrowedFd::borrow_raw(*fd)
                }
            }
            Self::Own(fd) => std::os::fd::AsFd::as_fd(fd),
        }
    }
}

impl std::os::fd::AsFd for Pipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.borrow()
    }
}

/// A larger pipe is only slack; a node that allows none works too.
fn widen(pipe: &impl std::os::fd::AsFd) {
    if let Err(error) = nix::fcntl::fcntl(pipe, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES)) {
        tracing::debug!(%error, "the message pipe keeps its default size");
    }
}

/// The kernel writes whole messages and waits for room: its end must not be O_NONBLOCK.
fn blocking(write: &OwnedFd) -> std::io::Result<()> {
    let flags = OFlag::from_bits_retain(nix::fcntl::fcntl(write, FcntlArg::F_GETFL)?);
    nix::fcntl::fcntl(write, FcntlArg::F_SETFL(flags - OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Whoever has a dead daemon forgotten holds it for a moment.
fn lock_soon(mount: &Mount) -> Result<UnixListener, AgentError> {
    let until = Instant::now() + FOR_A_MOMENT;
    loop {
        match lock(mount) {
            Err(AgentError::Occupied) if Instant::now() < until => std::thread::park_timeout(LOCK_PAUSE),
            other => return other,
        }
    }
}

/// An abstract socket name is freed by the kernel when we die, needs no directory that we may write,
/// and is the same from each path to this mount.
pub(super) fn lock(mount: &Mount) -> Result<UnixListener, AgentError> {
    let name = format!("lhsmtool-s3/{}", mount.instance().map_err(AgentError::Lock)?);
    let address = {
        use std::os::linux::net::SocketAddrExt as _;
        SocketAddr::from_abstract_name(name).map_err(AgentError::Lock)?
    };
    UnixListener::bind_addr(&address).map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => AgentError::Occupied,
        _ => AgentError::Lock(error),
    })
}
