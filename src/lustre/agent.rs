//! The mount's HSM agent: registration with the coordinator, and what keeps it registered.
//!
//! Registering while a coordinator is stopped crashes the client's kernel (2.17 and before), so a probe
//! comes first, always. A coordinator that is switched off and on forgets its agents without a sign on
//! the pipe; [`Agent::keep_alive`] brings the registration back without touching the pipe in use.
//!
//! Each call that goes to all MDTs comes back when a dead one does: none is made while one does not answer. It could also
//! come back to a coordinator that has not been started again yet.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;

use super::call::Call;
use super::handles::Copytool;
use super::mount::MountState;
use super::pipe::{self, Pipe};
use super::{AgentError, AgentTrace, Mount, MountLock, UnreadyCoordinators, ioctl};
use crate::action::HsmError;
use crate::types::ArchiveId;

/// Above every pid (at most 2^22): a pipe of ours must not share its kernel uid with another process.
const UID_SPACE: u32 = 1 << 30;

/// Registrations whose descriptors are kept open, where closing one would unregister the mount: then all are given up for
/// a new one.
const MOST_KEPT: usize = 60;
/// To unregister, from MDTs that may be dead.
const LEAVE: Duration = Duration::from_secs(5);

/// What a keepalive found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KeepaliveResult {
    /// All run, and know us.
    Running,
    /// Not all run or answer: nothing was done.
    Away(UnreadyCoordinators),
    /// They run; whether they know us, the client did not ask.
    Unasked,
}

/// A live registration. The last clone of its `Arc` unregisters, which blocks; action handles hold one each, so
/// that comes after the last action.
#[derive(Debug)]
pub struct Agent {
    mount: Arc<Mount>,
    /// The library's registration. Actions and the reader of its pipe hold it, too, and let go of it before they let go of
    /// this; `None` while this is dropped.
    copytool: Option<Arc<Copytool>>,
    archives: RwLock<Vec<ArchiveId>>,
    /// 0: the library's registration; else the uid of our own pipe.
    generation: AtomicU32,
    /// Whether answers reached the coordinator, as of the last one.
    heard: AtomicBool,
    /// It is told that no more messages are wanted.
    leaving: AtomicBool,
    trace: AgentTrace,
    /// For an MDT's answer.
    patience: Duration,
    kept: Mutex<RegisteredFds>,
    _lock: Arc<MountLock>,
}

/// Descriptors of the mount on which something was registered. Clients of 2.17.52 and later (LU-18238) let each do it once
/// (a second time is EEXIST, and no MDT is asked), and when one is closed they unregister the mount and drop its pipes.
#[derive(Debug, Default)]
struct RegisteredFds {
    descriptors: Vec<OwnedFd>,
    /// Whether this client is one of these; `None`: not known.
    once: Option<bool>,
}

impl Agent {
    /// Probes, registers for `archives` (never for "all") and widens the pipe. The mount is locked before anything else
    /// of it is used. `trace`: where what this leaves in the kernel is noted, for whoever comes after a death; and what a
    /// dead daemon left is taken away before. `patience`: for the answer of an MDT, now and later.
    ///
    /// # Errors
    /// Why not; see [`AgentError::is_transient`].
    pub fn register(
        mount: Arc<Mount>,
        lock: Arc<MountLock>,
        archives: Vec<ArchiveId>,
        trace: AgentTrace,
        patience: Duration,
    ) -> Result<Self, AgentError> {
        // Also where a coordinator is stopped: the others would go on sending to the dead one.
        let probed = UnreadyCoordinators::ask(&mount, patience);
        if !matches!(&probed, Ok(probed) if !probed.silent.is_empty()) {
            trace.forget(&mount);
        }
        let probed = probed?;
        if probed != UnreadyCoordinators::default() {
            return Err(AgentError::Away(probed));
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
        let copytool = Copytool::register(mount.library(), mount.path(), &mut ids)?;
        pipe::prepare(&copytool);
        Ok(Self {
            mount,
            copytool: Some(Arc::new(copytool)),
            archives: RwLock::new(archives),
            generation: AtomicU32::new(0),
            heard: AtomicBool::new(true),
            leaving: AtomicBool::new(false),
            trace,
            patience,
            kept: Mutex::default(),
            _lock: lock,
        })
    }

    /// Registers again for a stream that can't be followed or that ended: drops the old pipe, whose read
    /// end must still be drained, and gives the new one.
    ///
    /// # Errors
    /// As for [`Agent::register`].
    pub(super) fn register_again(&self) -> Result<Pipe, AgentError> {
        self.in_place()?;
        all_run(&self.mount, self.patience)?;
        let old = uid(self.generation.load(Ordering::Relaxed));
        let generation = self.generation.load(Ordering::Relaxed).wrapping_add(1).max(1);
        // Before the new one is made: where closing one unregisters the mount, the new pipe would go, too.
        // Which may take as long as an MDT does.
        let former = std::mem::take(&mut self.kept().descriptors);
        drop(former);
        // A pipe that the kernel has already forgotten is fine.
        if let Err(error) = ioctl::stop_copytool(self.mount.descriptor(), old) {
            tracing::debug!(%error, "the old pipe was already gone");
        }
        let (pipe, write) = Pipe::make().map_err(AgentError::Pipe)?;
        self.trace.leave(&[uid(0), uid(generation)]);
        let mount = self.mount.reopen()?;
        if self.leaving.load(Ordering::SeqCst) {
            return Err(HsmError::new("LL_IOC_HSM_CT_START", libc::ESHUTDOWN).into());
        }
        ioctl::start_copytool(mount.as_fd(), &write, uid(generation), &self.archives())?;
        self.kept().descriptors.push(mount);
        self.generation.store(generation, Ordering::Relaxed);
        // The MDTs took so long that nobody waited for this.
        if self.leaving.load(Ordering::SeqCst) {
            self.stop_messages()?;
        }
        Ok(pipe)
    }

    /// Makes sure that the coordinators know us, with a pipe that is thrown away at once: if one forgot us this
    /// registers, and messages come through the pipe in use; else nothing changes. Blocks while any pipe of this node is
    /// full, so never call it from the reader.
    ///
    /// # Errors
    /// The probe or the registration failed.
    pub fn keep_alive(&self) -> Result<KeepaliveResult, AgentError> {
        self.in_place()?;
        let probed = UnreadyCoordinators::ask(&self.mount, self.patience)?;
        if probed != UnreadyCoordinators::default() {
            return Ok(KeepaliveResult::Away(probed));
        }
        let (_read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|e| AgentError::Pipe(e.into()))?;
        let uid = uid(self.generation.load(Ordering::Relaxed));
        let archives = self.archives();
        // One that was used before may not be used again.
        let mount = self.mount.reopen()?;
        let start = || ioctl::start_copytool(mount.as_fd(), &write, uid, &archives);
        if self.leaving.load(Ordering::SeqCst) {
            return Ok(KeepaliveResult::Unasked);
        }
        match start() {
            Ok(()) => {}
            Err(error) if error.errno == libc::EEXIST => return Ok(KeepaliveResult::Unasked),
            Err(error) => return Err(error.into()),
        }
        let known = self.kept().once;
        let once = match known {
            Some(once) => once,
            None => matches!(start(), Err(error) if error.errno == libc::EEXIST),
        };
        // Behind both: the probe took so long that nobody waited for this.
        if self.leaving.load(Ordering::SeqCst) {
            self.stop_messages()?;
        }
        let mut kept = self.kept();
        kept.once = Some(once);
        if once {
            kept.descriptors.push(mount);
        }
        Ok(KeepaliveResult::Running)
    }

    /// Whether so much is kept open that a new registration is due.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.kept().descriptors.len() > MOST_KEPT
    }

    /// For an MDT's answer.
    #[must_use]
    pub const fn patience(&self) -> Duration {
        self.patience
    }

    fn kept(&self) -> MutexGuard<'_, RegisteredFds> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn in_place(&self) -> Result<(), AgentError> {
        match self.mount.place() {
            MountState::Same => Ok(()),
            MountState::MountedAnew => Err(AgentError::MountedAnew),
            MountState::Gone => Err(AgentError::Unmounted),
        }
    }

    /// No more messages: the pipe in use ends once its reader has read what is in it.
    ///
    /// # Errors
    /// The ioctl's.
    pub fn stop_messages(&self) -> Result<(), HsmError> {
        self.leaving.store(true, Ordering::SeqCst);
        ioctl::stop_copytool(self.mount.descriptor(), uid(self.generation.load(Ordering::Relaxed)))
    }

    /// The library's registration.
    ///
    /// # Errors
    /// It is at its end, and so is this.
    pub(super) fn copytool(&self) -> Result<&Arc<Copytool>, HsmError> {
        let gone = HsmError::new("llapi_hsm_copytool_register", libc::ESHUTDOWN);
        self.copytool.as_ref().ok_or(gone)
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
}

/// What names a pipe of ours in the kernel; the library's own is our pid.
fn uid(generation: u32) -> u32 {
    match generation {
        0 => std::process::id(),
        n => UID_SPACE | (std::process::id() & 0x3f_ffff) | ((n & 0x7f) << 22),
    }
}

/// Nobody registers unless each coordinator has said just now that it runs.
fn all_run(mount: &Mount, patience: Duration) -> Result<(), AgentError> {
    let probed = UnreadyCoordinators::ask(mount, patience)?;
    if probed == UnreadyCoordinators::default() {
        Ok(())
    } else {
        Err(AgentError::Away(probed))
    }
}

impl Drop for Agent {
    /// On a thread of its own: an MDT that is dead may never answer, and nobody needs to wait for that.
    fn drop(&mut self) {
        // `None`: actions of it were left to a successor, and C has them until this process ends.
        let copytool = self.copytool.take().and_then(Arc::into_inner);
        let mount = Arc::clone(&self.mount);
        let generation = self.generation.load(Ordering::Relaxed);
        let (kept, trace) = (std::mem::take(&mut *self.kept()), self.trace.clone());
        let mut call = Call::new("unregister");
        let supervisor = mount.supervisor();
        call.begin(&supervisor, move || leave(&mount, copytool, generation, kept, &trace));
        if call.answer(Instant::now() + LEAVE).is_none() {
            tracing::warn!("an MDT does not answer: the coordinators are not told that this mount is served no more");
        }
    }
}

/// Without the library's registration, which is then not to be freed, the coordinators are told by the ioctl alone.
fn leave(mount: &Mount, copytool: Option<Copytool>, generation: u32, kept: RegisteredFds, trace: &AgentTrace) {
    let mut told = Ok(());
    if generation > 0 || copytool.is_none() {
        told = ioctl::stop_copytool(mount.descriptor(), uid(generation))
            .inspect_err(|error| tracing::warn!(%error, "could not drop the message pipe"));
    }
    drop(kept);
    match copytool.map_or(told, Copytool::unregister) {
        Ok(()) => {
            trace.wipe();
            tracing::info!("unregistered from the coordinator");
        }
        Err(error) => tracing::warn!(%error, "could not unregister"),
    }
}
