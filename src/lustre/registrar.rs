//! Keeps the mount registered: the first registration, the keepalive that heals a silent loss, and a new
//! pipe when the old one ended or can't be followed. A thread of its own, for all of these calls can
//! block while some pipe of this node is full; and each call on one more, for one to a dead MDT comes back when that does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use super::call::Call;
use super::kuc::{PipeLoss, Reader, ReaderStats};
use super::pipe::Pipe;
use super::{Agent, AgentError, KeepaliveResult, UnreadyCoordinators};
use crate::action::{Arrival, HsmError};
use crate::thread::{Supervisor, Thread};
use crate::types::ArchiveId;

/// Between tries to register, doubled from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Signs of a loss come by the thousand; one keepalive answers them all.
const NUDGE_PAUSE: Duration = Duration::from_millis(250);

/// What actions show is believed so many times before it is asked.
const MOST_SKIPPED: u32 = 9;
/// For a call, beside the time that its MDTs have to answer.
const MARGIN: Duration = Duration::from_secs(2);

/// Between two looks at whether all ends, while a call is out.
const LOOK: Duration = Duration::from_millis(100);

/// For a registration that is under way when all ends, an MDT's answer each.
const LAST_REGISTRATION: Duration = Duration::from_secs(2);
/// Until the kernel has closed a pipe that was told to end.
const LAST_MESSAGES: Duration = Duration::from_secs(2);

/// It may still come.
const NO_ANSWER: AgentError = AgentError::Call(HsmError::new("LL_IOC_HSM_CT_START", libc::ETIMEDOUT));

#[derive(Debug)]
pub(super) enum RegistrarMessage {
    /// The pipe of that number, counted from 1.
    Lost(u64, PipeLoss),
    Nudge,
    Add(ArchiveId),
    Stop,
}

/// The running thread.
#[derive(Debug)]
pub struct Registrar {
    notices: Sender<RegistrarMessage>,
    thread: Thread,
}

/// Asks for a keepalive now, or for another registration.
#[derive(Clone, Debug)]
pub struct RegistrarHandle(Sender<RegistrarMessage>);

impl RegistrarHandle {
    /// Does not wait.
    pub fn nudge(&self) {
        // A registrar that is gone needs none.
        let _gone = self.0.send(RegistrarMessage::Nudge);
    }

    /// Has the mount registered for one archive more; does not wait. Actions that run go on.
    pub fn add(&self, id: ArchiveId) {
        let _gone = self.0.send(RegistrarMessage::Add(id));
    }
}

impl Registrar {
    /// Starts reading the pipe of `agent` into `arrivals` and keeps it registered. `mounted_anew` is called
    /// once when the mount that the agent serves was replaced: only a new start helps then.
    ///
    /// # Errors
    /// A thread could not be made, or the library has no pipe.
    pub fn start(
        supervisor: &Supervisor,
        agent: Arc<Agent>,
        arrivals: Sender<Vec<Arrival>>,
        stats: Arc<ReaderStats>,
        keepalive: Duration,
        mounted_anew: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<Self> {
        let (notices, inbox) = channel();
        let pipe = Pipe::library(agent.copytool().map_err(std::io::Error::other)?);
        let mut watch = RegistrarLoop {
            supervisor: supervisor.clone(),
            agent,
            arrivals,
            stats,
            notices: notices.clone(),
            keepalive,
            mounted_anew: Some(Box::new(mounted_anew)),
            reader: None,
            pipes: 0,
            added: Vec::new(),
            away: UnreadyCoordinators::default(),
            skipped: 0,
            stopping: Arc::default(),
            held: false,
            keeping: Call::new("registrar-keep"),
            renewing: Call::new("registrar-new"),
            leaving: Call::new("registrar-end"),
        };
        watch.read(pipe)?;
        let (stop, stopping) = (notices.clone(), Arc::clone(&watch.stopping));
        let stop = move || {
            stopping.store(true, Ordering::Relaxed);
            let _gone = stop.send(RegistrarMessage::Stop);
        };
        let thread = supervisor.serve("registrar", stop, move || watch.run(&inbox))?;
        Ok(Self { notices, thread })
    }

    /// For whoever sees signs that the coordinator forgot us.
    #[must_use]
    pub fn nudge(&self) -> RegistrarHandle {
        RegistrarHandle(self.notices.clone())
    }

    /// The thread. At its end nothing is read any more; the agent unregisters with its last action.
    pub const fn thread(&mut self) -> &mut Thread {
        &mut self.thread
    }
}

struct RegistrarLoop {
    supervisor: Supervisor,
    agent: Arc<Agent>,
    arrivals: Sender<Vec<Arrival>>,
    stats: Arc<ReaderStats>,
    notices: Sender<RegistrarMessage>,
    keepalive: Duration,
    mounted_anew: Option<Box<dyn FnOnce() + Send>>,
    reader: Option<Reader>,
    /// How many there were: the number of the one that is read.
    pipes: u64,
    /// Archive ids that no registration had yet.
    added: Vec<ArchiveId>,
    /// The coordinators, when last seen.
    away: UnreadyCoordinators,
    /// Keepalives that were not needed, one after the other.
    skipped: u32,
    /// It is told to end.
    stopping: Arc<AtomicBool>,
    /// A keepalive has not come back.
    held: bool,
    keeping: Call<Result<KeepaliveResult, AgentError>>,
    renewing: Call<Result<Pipe, AgentError>>,
    leaving: Call<Result<(), HsmError>>,
}

/// What a keepalive leaves to be done.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Registered {
    /// Nothing, or nothing can be.
    Yes,
    /// Whether the coordinators know us was not asked.
    Unasked,
    /// They forgot us, or a new registration is due.
    Due,
}

impl RegistrarLoop {
    fn read(&mut self, pipe: Pipe) -> std::io::Result<()> {
        let notices = self.notices.clone();
        self.pipes += 1;
        let number = self.pipes;
        self.stats.registrations.fetch_add(1, Ordering::Relaxed);
        self.reader = Some(Reader::start(
            &self.supervisor,
            Arc::clone(&self.agent),
            pipe,
            Arc::clone(&self.stats),
            self.arrivals.clone(),
            move |lost| {
                let _gone = notices.send(RegistrarMessage::Lost(number, lost));
            },
        )?);
        Ok(())
    }

    fn run(mut self, inbox: &Receiver<RegistrarMessage>) {
        let mut due = Instant::now() + self.keepalive;
        let mut nudged = false;
        loop {
            match inbox.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Ok(RegistrarMessage::Stop) | Err(RecvTimeoutError::Disconnected) => {
                    self.read_to_the_end(inbox);
                    return;
                }
                Ok(RegistrarMessage::Nudge) => {
                    nudged = true;
                    due = due.min(Instant::now() + NUDGE_PAUSE);
                }
                Err(RecvTimeoutError::Timeout) => {
                    let nudged = std::mem::take(&mut nudged);
                    if !nudged && self.is_proved() {
                        due = Instant::now() + self.keepalive;
                        continue;
                    }
                    let again = match self.keep_alive() {
                        Registered::Yes => false,
                        // There was a sign of a loss, and this client does not ask the MDT a second time.
                        Registered::Unasked => nudged,
                        Registered::Due => true,
                    };
                    if again && !self.register_again(inbox) {
                        // The pipe may have been in use until now.
                        self.read_to_the_end(inbox);
                        return;
                    }
                    due = Instant::now() + self.keepalive;
                }
                Ok(RegistrarMessage::Add(id)) => {
                    if !self.add(id) {
                        continue;
                    }
                    if !self.register_again(inbox) {
                        // The pipe was in use until now.
                        self.read_to_the_end(inbox);
                        return;
                    }
                    due = Instant::now() + self.keepalive;
                }
                // It was given up for a new one.
                Ok(RegistrarMessage::Lost(number, _)) if number != self.pipes => {}
                Ok(RegistrarMessage::Lost(_, lost)) => {
                    tracing::warn!(%lost, "the message pipe is lost; registering again");
                    if !self.register_again(inbox) {
                        // A new one may be under way.
                        self.read_to_the_end(inbox);
                        return;
                    }
                    due = Instant::now() + self.keepalive;
                }
            }
        }
    }

    /// Lets the kernel close the pipe and reads what is in it: an action that was sent is answered.
    fn read_to_the_end(&mut self, inbox: &Receiver<RegistrarMessage>) {
        // One that comes behind the end would have coordinators go on sending, to a pipe that nobody reads.
        let until = Instant::now() + LAST_REGISTRATION;
        drop(self.keeping.answer(until));
        if let Some(Ok(pipe)) = self.renewing.answer(until) {
            self.reader = None;
            if let Err(error) = self.read(pipe) {
                tracing::warn!(%error, "what the new registration brought is not read");
            }
        }
        let until = Instant::now() + LAST_MESSAGES;
        let agent = Arc::clone(&self.agent);
        self.leaving.begin(&self.supervisor, move || agent.stop_messages());
        if let Some(Err(error)) = self.leaving.answer(until) {
            tracing::debug!(%error, "the pipe was already gone");
        }
        loop {
            match inbox.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(RegistrarMessage::Lost(number, _)) if number == self.pipes => return,
                Ok(
                    RegistrarMessage::Stop
                    | RegistrarMessage::Nudge
                    | RegistrarMessage::Add(_)
                    | RegistrarMessage::Lost(..),
                ) => {}
                Err(_) => {
                    tracing::warn!("the message pipe was not closed by the kernel");
                    return;
                }
            }
        }
    }

    /// Whether actions show that all is well: a coordinator that forgot us has forgotten them, too, and that is heard of.
    fn is_proved(&mut self) -> bool {
        let is_proved = self.skipped < MOST_SKIPPED
            && self.away == UnreadyCoordinators::default()
            && self.agent.mount().are_mdts_proved(self.keepalive);
        self.skipped = if is_proved { self.skipped + 1 } else { 0 };
        is_proved
    }

    fn keep_alive(&mut self) -> Registered {
        let agent = Arc::clone(&self.agent);
        self.keeping.begin(&self.supervisor, move || agent.keep_alive());
        let until = Instant::now() + self.agent.patience() + MARGIN;
        let Some(answer) = answer(&mut self.keeping, until, &self.stopping) else {
            if !self.stopping.load(Ordering::Relaxed) && !std::mem::replace(&mut self.held, true) {
                tracing::warn!(
                    "the registration can't be confirmed: an MDT does not answer. Going on with those that do"
                );
            }
            return Registered::Yes;
        };
        self.held = false;
        match answer {
            Ok(KeepaliveResult::Away(away)) => {
                if away != self.away {
                    tracing::warn!(
                        "{}; waiting for it, and going on with the others",
                        AgentError::Away(away.clone())
                    );
                }
                self.away = away;
                Registered::Yes
            }
            Ok(KeepaliveResult::Running) => {
                if std::mem::take(&mut self.away) != UnreadyCoordinators::default() {
                    tracing::info!("all HSM coordinators run again and know us");
                }
                if self.agent.is_due() {
                    Registered::Due
                } else {
                    Registered::Yes
                }
            }
            Ok(KeepaliveResult::Unasked) => {
                // One that was stopped has forgotten us.
                let forgotten = std::mem::take(&mut self.away).stopped;
                if forgotten.is_empty() {
                    Registered::Unasked
                } else {
                    Registered::Due
                }
            }
            Err(AgentError::MountedAnew) => {
                self.give_way();
                Registered::Yes
            }
            Err(error) => {
                tracing::warn!(%error, "the registration could not be confirmed");
                Registered::Yes
            }
        }
    }

    /// `false`: it is registered for that already.
    fn add(&mut self, id: ArchiveId) -> bool {
        if self.agent.serves(id) {
            return false;
        }
        tracing::info!(archive = id.get(), "registering for it, too");
        self.agent.add(id);
        self.added.push(id);
        true
    }

    fn give_way(&mut self) {
        if let Some(tell) = self.mounted_anew.take() {
            tell();
        }
    }

    /// `false`: told to stop meanwhile.
    fn register_again(&mut self, inbox: &Receiver<RegistrarMessage>) -> bool {
        let mut pause = FIRST_PAUSE;
        loop {
            // The old reader drains its pipe until the kernel closes it, which this does.
            let agent = Arc::clone(&self.agent);
            self.renewing.begin(&self.supervisor, move || agent.register_again());
            let until = Instant::now() + self.agent.patience() + MARGIN;
            let answer = answer(&mut self.renewing, until, &self.stopping);
            let error = match answer.unwrap_or(Err(NO_ANSWER)) {
                Ok(pipe) => {
                    self.reader = None;
                    match self.read(pipe) {
                        Ok(()) => {
                            self.added.clear();
                            tracing::info!(archives = ?self.agent.archives(), "registered again");
                            return true;
                        }
                        Err(error) => AgentError::Pipe(error),
                    }
                }
                Err(error) => error,
            };
            if matches!(error, AgentError::MountedAnew) {
                self.give_way();
            }
            // One that this Lustre does not take must not keep us from those that it knows.
            if matches!(error, AgentError::Call(_)) && !error.is_transient() && !self.added.is_empty() {
                tracing::error!(archives = ?self.added, %error, "can't register for what was added; going on without");
                self.added.drain(..).for_each(|id| self.agent.remove(id));
                continue;
            }
            tracing::warn!(%error, retry_s = pause.as_secs_f64(), "can't register again");
            let until = Instant::now() + pause;
            loop {
                match inbox.recv_timeout(until.saturating_duration_since(Instant::now())) {
                    Ok(RegistrarMessage::Stop) | Err(RecvTimeoutError::Disconnected) => return false,
                    Ok(RegistrarMessage::Add(id)) => _ = self.add(id),
                    Ok(RegistrarMessage::Nudge | RegistrarMessage::Lost(..)) => {}
                    Err(RecvTimeoutError::Timeout) => break,
                }
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// What a call came back with; nobody waits for it when all ends.
fn answer<T: Send + 'static>(call: &mut Call<T>, until: Instant, stopping: &AtomicBool) -> Option<T> {
    loop {
        let answer = call.answer(until.min(Instant::now() + LOOK));
        if answer.is_some() || !call.is_out() || Instant::now() >= until || stopping.load(Ordering::Relaxed) {
            return answer;
        }
    }
}
