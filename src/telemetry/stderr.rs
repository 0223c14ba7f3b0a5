//! The one way to stderr, where the log goes. Whoever reads it may be full, slow or gone: nobody who owes an answer
//! waits for it, and no line is lost silently.
//!
//! A command writes its lines itself. The daemon's go through a buffer that has an end, and a thread.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags};

use super::sink::{LogFormat, Sink, line, lines_of};
use crate::thread::Supervisor;

/// Bytes of lines that wait for the thread.
const ROOM: usize = 1 << 20;
/// Between two tries to tell of lost lines while there is nothing else to say.
const AGAIN: Duration = Duration::from_secs(5);
/// Milliseconds for a descriptor that somebody made non-blocking; then lines are lost.
const WRITABLE: u16 = 10_000;
/// For the words of a panic: the process may be about to end.
const PANIC: Duration = Duration::from_secs(1);
const THREAD: &str = "log";

static OUT: Out = Out {
    queue: Mutex::new(Queue {
        served: false,
        waiting: Vec::new(),
        refused: 0,
        busy: false,
    }),
    changed: Condvar::new(),
    sink: Mutex::new(Sink::new(Descriptor)),
};
static JSON: AtomicBool = AtomicBool::new(false);
static LOST: AtomicU64 = AtomicU64::new(0);

struct Out {
    queue: Mutex<Queue>,
    changed: Condvar,
    /// Held while it is written, for as long as that takes: never by who holds the queue.
    sink: Mutex<Sink<Descriptor>>,
}

struct Queue {
    /// By a thread; else who has a line writes it.
    served: bool,
    waiting: Vec<u8>,
    /// Lines that found no room.
    refused: u64,
    /// The thread has lines that are not written.
    busy: bool,
}

impl Out {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, lines: &[u8], refused: u64) {
        let mut sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner);
        sink.refused(refused, "whoever reads it is too slow");
        LOST.fetch_add(sink.put(lines), Ordering::Relaxed);
    }
}

/// Descriptor 2. `std::io::Stderr` has a lock, which who waits in it holds.
#[derive(Debug)]
struct Descriptor;

impl Write for Descriptor {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let stderr = io::stderr();
        let write = || nix::unistd::write(&stderr, bytes).map_err(io::Error::from);
        match write() {
            // Whoever shares it made it so.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                nix::poll::poll(&mut [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)], WRITABLE)?;
                write()
            }
            written => written,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// For `tracing`, which gives each line in one piece. It never fails.
#[derive(Debug)]
pub(super) struct Lines;

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        say(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes whole lines to stderr. It neither fails nor panics; with [`write_by_thread`] it does not wait either.
pub fn say(lines: &[u8]) {
    let mut queue = OUT.queue();
    if !queue.served {
        drop(queue);
        OUT.put(lines, 0);
    } else if queue.waiting.len() + lines.len() <= ROOM {
        queue.waiting.extend_from_slice(lines);
        OUT.changed.notify_all();
    } else {
        let refused = lines_of(lines);
        queue.refused += refused;
        LOST.fetch_add(refused, Ordering::Relaxed);
    }
}

/// Lines of the log that could not be written so far.
pub(super) fn lost() -> u64 {
    LOST.load(Ordering::Relaxed)
}

pub(super) fn set_format(format: LogFormat) {
    JSON.store(format == LogFormat::Json, Ordering::Relaxed);
    let mut sink = OUT.sink.lock().unwrap_or_else(PoisonError::into_inner);
    sink.set_format(format);
}

/// From now on a thread writes: [`say`] only leaves lines for it. Call [`flush`] before the process ends.
///
/// # Errors
/// The thread could not be made; lines are written as before.
pub fn write_by_thread(supervisor: &Supervisor) -> io::Result<()> {
    // Nobody ends it: the last lines of all are its to write.
    supervisor.serve(THREAD, || {}, serve)?.detach();
    OUT.queue().served = true;
    Ok(())
}

/// While it is there, others leave their lines.
struct Served;

impl Drop for Served {
    fn drop(&mut self) {
        let mut queue = OUT.queue();
        queue.served = false;
        queue.busy = false;
        let left = std::mem::take(&mut queue.waiting);
        let refused = std::mem::take(&mut queue.refused);
        drop(queue);
        OUT.put(&left, refused);
        OUT.changed.notify_all();
    }
}

fn serve() {
    // Should it die, who has a line writes it again.
    let _served = Served;
    let mut lines = Vec::new();
    loop {
        let mut queue = OUT.queue();
        if queue.waiting.is_empty() {
            let woken = OUT.changed.wait_timeout(queue, AGAIN);
            queue = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        lines.clear();
        std::mem::swap(&mut queue.waiting, &mut lines);
        let refused = std::mem::take(&mut queue.refused);
        queue.busy = true;
        drop(queue);
        OUT.put(&lines, refused);
        OUT.queue().busy = false;
        OUT.changed.notify_all();
    }
}

/// Waits until all lines are written, for so long at most.
pub fn flush(limit: Duration) {
    let is_left = |queue: &mut Queue| queue.served && (queue.busy || queue.refused > 0 || !queue.waiting.is_empty());
    drop(OUT.changed.wait_timeout_while(OUT.queue(), limit, is_left));
}

/// Panics are told in the log. The standard library's own words would go past it.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("without a name");
        let panic = panic.to_string().replace('\n', " ");
        let mut text = format!("thread '{name}' {panic}. This is a defect: please report it");
        let trace = Backtrace::capture();
        if trace.status() == BacktraceStatus::Captured {
            text.push_str(&format!("; {trace}"));
        }
        say(&line(JSON.load(Ordering::Relaxed), &text));
        if name != THREAD {
            flush(PANIC);
        }
    }));
}
