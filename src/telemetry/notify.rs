//! systemd: ready, a line of status, and a watchdog that is fed only while there are signs of life.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use super::TelemetrySources;

/// Between two lines of status where no watchdog asks for more.
const EVERY: Duration = Duration::from_secs(10);
/// The reader wakes by itself far more often.
const READER: Duration = Duration::from_secs(60);
/// All workers are busy, and for so long nothing ended, no byte moved and nothing was tried again.
const WORKERS: Duration = Duration::from_secs(900);

/// For systemd's socket, when it is full: whoever tells it is the thread that hears of signals.
const PATIENCE: Duration = Duration::from_millis(50);
/// Lines that systemd has not taken and must hear of: they go before the next ones.
static OWED: Mutex<String> = Mutex::new(String::new());

fn notify(state: &[NotifyState<'_>]) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let mut owed = OWED.lock().unwrap_or_else(PoisonError::into_inner);
    let lines: String = state.iter().map(|state| format!("{state}\n")).collect();
    if let Err(error) = send(&socket, &format!("{owed}{lines}")) {
        tracing::debug!(%error, "systemd was not told");
        // A beat makes up for a beat, and a status for a status.
        let kept = lines.lines().filter(|line| matches!(*line, "READY=1" | "STOPPING=1"));
        owed.extend(kept.flat_map(|line| [line, "\n"]));
    } else {
        owed.clear();
    }
}

/// The crate's own waits for systemd without an end.
fn send(socket: &OsStr, text: &str) -> io::Result<()> {
    let sender = UnixDatagram::unbound()?;
    sender.set_write_timeout(Some(PATIENCE))?;
    match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => sender.send_to_addr(text.as_bytes(), &SocketAddr::from_abstract_name(name)?)?,
        None => sender.send_to(text.as_bytes(), socket)?,
    };
    Ok(())
}

/// How often systemd is told that the daemon lives, from its first [`ready`] to its end.
#[must_use]
pub fn beat_interval() -> Duration {
    let wanted = sd_notify::watchdog_enabled().map_or(EVERY, |watchdog| (watchdog / 3).min(EVERY));
    wanted.max(Duration::from_millis(1))
}

/// It lives, and waits for what it can do nothing about.
pub fn alive(status: &str) {
    notify(&[NotifyState::Watchdog, NotifyState::Status(status)]);
}

/// It serves, or waits for a coordinator that is stopped.
pub fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// It is about to end.
pub fn stopping() {
    notify(&[
        NotifyState::Stopping,
        NotifyState::Status("stopping; running actions may finish"),
    ]);
}

/// Looks at the daemon's numbers now and then.
#[derive(Debug)]
pub struct StatusNotifier {
    sources: TelemetrySources,
    watchdog: bool,
    reader: Sign,
    workers: Sign,
}

/// A number that changes while something lives.
#[derive(Debug)]
struct Sign {
    seen: u64,
    at: Instant,
}

impl Sign {
    fn new() -> Self {
        Self {
            seen: 0,
            at: Instant::now(),
        }
    }

    /// For how long it has been the same.
    fn look(&mut self, now: u64) -> Duration {
        if now != self.seen {
            self.seen = now;
            self.at = Instant::now();
        }
        self.at.elapsed()
    }
}

impl StatusNotifier {
    /// Over these numbers.
    #[must_use]
    pub fn new(sources: TelemetrySources) -> Self {
        Self {
            sources,
            watchdog: sd_notify::watchdog_enabled().is_some(),
            reader: Sign::new(),
            workers: Sign::new(),
        }
    }

    /// Tells systemd how it is; call it as often as [`beat_interval`] says.
    pub fn beat(&mut self) {
        let status = self.status();
        match self.lifeless() {
            None if self.watchdog => notify(&[NotifyState::Watchdog, NotifyState::Status(&status)]),
            None => notify(&[NotifyState::Status(&status)]),
            Some(what) => {
                tracing::error!(what, "no sign of life; systemd's watchdog is not fed any more");
                notify(&[NotifyState::Status(what)]);
            }
        }
    }

    fn status(&self) -> String {
        let depth = self.sources.queue.depth();
        let (waiting, running): (usize, usize) = (depth.waiting.values().sum(), depth.running.values().sum());
        let sums = self.sources.context.tally.sums();
        let (done, failed) = sums
            .values()
            .fold((0, 0), |(done, failed), sums| (done + sums.done, failed + sums.failed));
        let state = match (self.sources.link.get(), self.sources.queue.is_parked()) {
            (_, true) => "stopping",
            (Some(_), false) if self.sources.is_draining() => "draining",
            (Some(_), false) => "serving",
            (None, false) => "waiting for the coordinator",
        };
        format!("{state}: {waiting} waiting, {running} running, {done} done, {failed} failed")
    }

    /// What does not move although it should.
    fn lifeless(&mut self) -> Option<&'static str> {
        // Nothing more comes to one that is being drained: its reader is gone.
        if let Some(link) = self.sources.link.get().filter(|_| !self.sources.is_draining()) {
            let turns = link.reader.turns.load(Ordering::Relaxed);
            if self.reader.look(turns) > READER {
                return Some("the reader of the kernel's pipe does not move");
            }
        }
        let busy: usize = self.sources.queue.depth().running.values().sum();
        let stores = self.sources.targets.all().into_iter().map(|target| {
            let limits = target.limits();
            let moved = limits.upload.moved().total() + limits.download.moved().total();
            moved + limits.trouble.retries.load(Ordering::Relaxed)
        });
        let signs = stores.sum::<u64>() + self.sources.context.tally.ended().total();
        let still = self.workers.look(signs);
        (busy >= self.sources.threads.0 && still > WORKERS).then_some("no worker moves")
    }
}
