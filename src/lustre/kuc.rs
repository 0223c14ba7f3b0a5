//! The thread that reads the kernel's pipe. It waits for the pipe and for nothing else: a pipe that
//! fills up blocks the coordinator of the MDT and every mover on this node.

use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;

use nix::poll::{PollFd, PollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::Agent;
use super::handle::AgentAction;
use super::pipe::Pipe;
use super::wire::{Framer, Message, WireError};
use crate::action::{Arrival, Kind};
use crate::thread::{Supervisor, Thread, guarded};

/// Why nothing more will come through a pipe.
#[derive(Debug, thiserror::Error)]
pub(super) enum PipeLoss {
    /// The kernel dropped us.
    #[error("the kernel closed it")]
    Closed,
    /// The stream can't be followed; it is drained and thrown away until it is closed.
    #[error("its stream is damaged: {0}")]
    Damaged(#[from] WireError),
}

/// What the reader counts.
#[derive(Debug, Default)]
pub struct ReaderStats {
    /// Bytes read.
    pub bytes: AtomicU64,
    /// Whole messages.
    pub messages: AtomicU64,
    /// Items for us.
    pub items: AtomicU64,
    /// Messages for other archive ids or file systems, or of other kinds.
    pub foreign: AtomicU64,
    /// Streams that were damaged.
    pub damaged: AtomicU64,
    /// Registrations with the coordinator: one pipe for each.
    pub registrations: AtomicU64,
    /// Times that the reader woke, by itself some times a minute: a sign of life.
    pub turns: AtomicU64,
}

/// The running thread; dropping it stops it.
#[derive(Debug)]
pub(super) struct Reader {
    _thread: Thread,
}

/// Milliseconds.
const LONGEST_SLEEP: u16 = 10_000;

impl Reader {
    /// Starts reading `pipe` into `arrivals`, an unbounded channel: sending never waits. `lost` is
    /// called, once, when there is nothing more to come; it must not wait either. The thread is there until it is
    /// dropped.
    ///
    /// # Errors
    /// The thread or its wake-up descriptor could not be made.
    pub(super) fn start(
        supervisor: &Supervisor,
        agent: Arc<Agent>,
        pipe: Pipe,
        stats: Arc<ReaderStats>,
        arrivals: Sender<Vec<Arrival>>,
        lost: impl Fn(PipeLoss) + Send + 'static,
    ) -> std::io::Result<Self> {
        let wake = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        let stop = Arc::clone(&wake);
        let wakes = move || {
            if let Err(error) = wake.write(1) {
                tracing::error!(%error, "can't wake the pipe's reader");
            }
        };
        let thread = supervisor.serve("kuc-reader", wakes, move || {
            let mut source = Source {
                agent,
                stats,
                arrivals,
                lost: Box::new(lost),
                framer: Framer::default(),
                damaged: false,
                told: false,
            };
            source.run(&pipe, &stop);
            // The kernel must not write into what nobody reads.
            drop(pipe);
            source.rest(&stop);
        })?;
        Ok(Self { _thread: thread })
    }
}

struct Source {
    agent: Arc<Agent>,
    stats: Arc<ReaderStats>,
    arrivals: Sender<Vec<Arrival>>,
    lost: Box<dyn Fn(PipeLoss) + Send>,
    framer: Framer,
    damaged: bool,
    told: bool,
}

impl Source {
    fn run(&mut self, pipe: &Pipe, stop: &EventFd) {
        let mut buffer = vec![0u8; 256 << 10];
        loop {
            let mut fds = [
                PollFd::new(pipe.as_fd(), PollFlags::POLLIN),
                PollFd::new(stop.as_fd(), PollFlags::POLLIN),
            ];
            self.stats.turns.fetch_add(1, Ordering::Relaxed);
            match nix::poll::poll(&mut fds, LONGEST_SLEEP) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => {
                    tracing::error!(%error, "can't wait for the message pipe");
                    self.lose(PipeLoss::Closed);
                    return;
                }
            }
            let stopping = fds[1].any().unwrap_or(false);
            if !self.drain(pipe, &mut buffer) || stopping {
                return;
            }
        }
    }

    /// Its pipe is lost: until it is stopped there is nothing to do, and that is no reason to take it for dead.
    fn rest(&self, stop: &EventFd) {
        loop {
            self.stats.turns.fetch_add(1, Ordering::Relaxed);
            match nix::poll::poll(&mut [PollFd::new(stop.as_fd(), PollFlags::POLLIN)], LONGEST_SLEEP) {
                Ok(0) | Err(nix::errno::Errno::EINTR) => {}
                Ok(_) => return,
                Err(error) => {
                    tracing::error!(%error, "can't wait for the end");
                    return;
                }
            }
        }
    }

    /// Reads all there is. `false`: there is nothing more to come.
    fn drain(&mut self, pipe: &Pipe, buffer: &mut [u8]) -> bool {
        loop {
            match nix::unistd::read(pipe, buffer) {
                Ok(0) => {
                    if self.framer.partial() > 0 && !self.told {
                        tracing::warn!(bytes = self.framer.partial(), "the message pipe ended in mid-message");
                    }
                    self.lose(PipeLoss::Closed);
                    return false;
                }
                Ok(n) => {
                    let bytes = buffer.get(..n).unwrap_or_default();
                    // A full pipe would block the coordinator: it is read on, whatever was in it.
                    if guarded(|| self.take(bytes)).is_err() {
                        self.damage(WireError::Defect);
                    }
                }
                Err(nix::errno::Errno::EINTR) => {}
                Err(nix::errno::Errno::EAGAIN) => return true,
                Err(error) => {
                    tracing::warn!(%error, "can't read the message pipe");
                    self.lose(PipeLoss::Closed);
                    return false;
                }
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.stats.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if self.damaged {
            return;
        }
        self.framer.push(bytes);
        loop {
            match self.framer.next_message() {
                Ok(Some(message)) => self.message(message),
                Ok(None) => return,
                Err(error) => {
                    self.damage(error);
                    return;
                }
            }
        }
    }

    fn damage(&mut self, error: WireError) {
        self.damaged = true;
        self.stats.damaged.fetch_add(1, Ordering::Relaxed);
        self.lose(PipeLoss::Damaged(error));
    }

    fn message(&mut self, message: Message) {
        self.stats.messages.fetch_add(1, Ordering::Relaxed);
        match message {
            Message::Actions {
                fsname,
                archive_id,
                items,
            } if self.is_ours(&fsname) && archive_id.is_none_or(|id| self.agent.serves(id)) => {
                self.stats.items.fetch_add(items.len() as u64, Ordering::Relaxed);
                let arrivals = items
                    .into_iter()
                    .map(|item| match item.kind {
                        Kind::Cancel => Arrival::Cancel(item.key()),
                        Kind::Do(_) | Kind::Unknown(_) => {
                            Arrival::Owed(Box::new(AgentAction::new(Arc::clone(&self.agent), item)))
                        }
                    })
                    .collect();
                self.send(arrivals);
            }
            // Every copytool on a mount gets every message, and on clients of 2.10.0 to 2.10.3 those of other mounts, too;
            // another one serves these.
            Message::Actions { .. } | Message::Foreign { .. } => {
                self.stats.foreign.fetch_add(1, Ordering::Relaxed);
            }
            Message::Shutdown => self.lose(PipeLoss::Closed),
        }
    }

    /// Files of two file systems have the same FIDs.
    fn is_ours(&self, fsname: &str) -> bool {
        fsname == self.agent.mount().file_system_name()
    }

    fn send(&self, arrivals: Vec<Arrival>) {
        if let Err(lost) = self.arrivals.send(arrivals) {
            // The intake is gone, so is the daemon; dropping the message answers its actions.
            drop(lost);
        }
    }

    /// Said once: a second notice would be taken for the next pipe's.
    fn lose(&mut self, lost: PipeLoss) {
        if !std::mem::replace(&mut self.told, true) {
            (self.lost)(lost);
        }
    }
}
