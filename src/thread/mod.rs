//! The one kind of thread that the daemon is made of. It has a name and a stop; whoever waits for its end waits until a
//! deadline; and when it dies, by a panic or because it returned though nobody had asked it to, its [`Supervisor`] hears of
//! it: the daemon then ends in order and is started anew, instead of living on without that thread's work.
//!
//! A call of Lustre's can block for as long as its MDT is silent, and the kernel then lets go of the thread for nobody, not
//! even for SIGKILL. Such a thread is [`StuckThread`]: it is named and left behind.

mod guard;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

pub use guard::guarded;

use crate::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use crate::sync::{Condvar, Instant, Mutex, MutexGuard, thread, thread_number};

/// For a thread that is dropped: whoever can wait for longer joins it before.
const PATIENCE: Duration = Duration::from_secs(5);

/// What ends a thread; it must not wait for it.
type Stop = Box<dyn FnOnce() + Send>;

/// Makes threads and hears of their deaths. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Supervisor(Arc<ThreadRegistry>);

#[derive(Debug)]
struct ThreadRegistry {
    /// Those that are not over, by their number.
    living: Mutex<BTreeMap<u64, Arc<ThreadState>>>,
    made: AtomicU64,
    /// The first one; others mostly follow from it.
    death: watch::Sender<Option<ThreadDeath>>,
}

/// A thread that ended of itself.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the thread '{thread}' {end}")]
pub struct ThreadDeath {
    /// The name that the thread was made with.
    pub thread: String,
    /// How it ended.
    pub end: DeathCause,
}

/// How a thread died.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DeathCause {
    /// With these words.
    Panicked(String),
    /// It came to its end, and nobody had asked it to.
    Returned,
}

impl fmt::Display for DeathCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panicked(words) => write!(f, "panicked: {words}"),
            Self::Returned => f.write_str("ended though nobody had asked it to"),
        }
    }
}

/// A thread that was asked to end and has not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StuckThread {
    /// The name that the thread was made with.
    pub thread: String,
    /// What it does, as the kernel says it with one letter (`/proc/PID/task/TID/stat`); `None`: it can't be told.
    pub state: Option<char>,
    /// The kernel's function that it waits in, where that can be told.
    pub place: Option<String>,
}

impl StuckThread {
    /// Whether it waits in a way that no signal ends: the process is there until it comes back.
    #[must_use]
    pub const fn is_unkillable(&self) -> bool {
        matches!(self.state, Some('D' | 'I'))
    }
}

impl fmt::Display for StuckThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.thread)?;
        match (&self.place, self.is_unkillable()) {
            (Some(place), true) => write!(f, " (in the kernel's {place}, can't be killed)"),
            (None, true) => f.write_str(" (in the kernel, can't be killed)"),
            (Some(place), false) => write!(f, " (in the kernel's {place})"),
            (None, false) => Ok(()),
        }
    }
}

/// What is known of one thread.
#[derive(Debug)]
struct ThreadState {
    name: String,
    /// Its number in the kernel; 0 before it runs.
    tid: AtomicI32,
    /// Its end is no surprise.
    asked: AtomicBool,
    over: Mutex<bool>,
    ended: Condvar,
}

impl Default for ThreadRegistry {
    fn default() -> Self {
        Self {
            living: Mutex::default(),
            made: AtomicU64::new(0),
            death: watch::Sender::new(None),
        }
    }
}

impl ThreadRegistry {
    fn living(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<ThreadState>>> {
        self.living.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn died(&self, death: ThreadDeath) {
        tracing::error!(%death, "a thread died");
        self.death.send_if_modified(|first| {
            let is_first = first.is_none();
            if is_first {
                *first = Some(death);
            }
            is_first
        });
    }
}

impl ThreadState {
    fn over(&self) -> MutexGuard<'_, bool> {
        self.over.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn expect_end(&self) {
        self.asked.store(true, Ordering::SeqCst);
    }

    /// Whether it ended until then.
    fn ended_by(&self, deadline: Instant) -> bool {
        // Whoever drops the last of something may be the thread itself.
        if self.tid.load(Ordering::Relaxed) == thread_number() {
            return true;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let waited = self.ended.wait_timeout_while(self.over(), left, |over| !*over);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn held(&self) -> StuckThread {
        let task = format!("/proc/self/task/{}", self.tid.load(Ordering::Relaxed));
        let stat = std::fs::read_to_string(format!("{task}/stat")).unwrap_or_default();
        let place = std::fs::read_to_string(format!("{task}/wchan")).unwrap_or_default();
        StuckThread {
            thread: self.name.clone(),
            // The word before it is the name, in parentheses, whatever is in that.
            state: stat
                .rsplit_once(')')
                .and_then(|(_, rest)| rest.trim_start().chars().next()),
            // "0": it does not wait, or who asks may not know.
            place: Some(place.trim().to_owned()).filter(|place| !place.is_empty() && place != "0"),
        }
    }
}

impl Supervisor {
    /// Starts a thread that serves until it is asked to end: by `stop`, which is called once and must not wait. That it
    /// ends before is its death.
    ///
    /// # Errors
    /// The system has no thread for it.
    pub fn serve(
        &self,
        name: impl Into<String>,
        stop: impl FnOnce() + Send + 'static,
        work: impl FnOnce() + Send + 'static,
    ) -> io::Result<Thread> {
        let life = self.start(name.into(), false, work)?;
        Ok(Thread {
            life,
            stop: Some(Box::new(stop)),
            waits: true,
        })
    }

    /// Starts a thread that ends when its work is done. Nobody can ask it to, and to drop it waits for nothing; that it
    /// panics is its death as any other's.
    ///
    /// # Errors
    /// The system has no thread for it.
    pub fn errand(&self, name: impl Into<String>, work: impl FnOnce() + Send + 'static) -> io::Result<Thread> {
        let life = self.start(name.into(), true, work)?;
        Ok(Thread {
            life,
            stop: None,
            waits: false,
        })
    }

    fn start(&self, name: String, asked: bool, work: impl FnOnce() + Send + 'static) -> io::Result<Arc<ThreadState>> {
        let life = Arc::new(ThreadState {
            name: name.clone(),
            tid: AtomicI32::new(0),
            asked: AtomicBool::new(asked),
            over: Mutex::default(),
            ended: Condvar::new(),
        });
        let number = self.0.made.fetch_add(1, Ordering::Relaxed);
        self.0.living().insert(number, Arc::clone(&life));
        let (ward, own) = (Arc::clone(&self.0), Arc::clone(&life));
        let made = thread::Builder::new().name(name).spawn(move || {
            own.tid.store(thread_number(), Ordering::Relaxed);
            let end = match guarded(work) {
                Err(words) => Some(DeathCause::Panicked(words)),
                Ok(()) => (!own.asked.load(Ordering::SeqCst)).then_some(DeathCause::Returned),
            };
            ward.living().remove(&number);
            if let Some(end) = end {
                let thread = own.name.clone();
                ward.died(ThreadDeath { thread, end });
            }
            // Its number may be another one's soon.
            own.tid.store(0, Ordering::Relaxed);
            *own.over() = true;
            own.ended.notify_all();
        });
        match made {
            Ok(_runs) => Ok(life),
            Err(error) => {
                self.0.living().remove(&number);
                Err(error)
            }
        }
    }

    /// Waits for the first death; one that was before counts.
    pub async fn death(&self) -> ThreadDeath {
        let mut deaths = self.0.death.subscribe();
        if let Ok(death) = deaths.wait_for(Option::is_some).await
            && let Some(death) = &*death
        {
            return death.clone();
        }
        // The other side is here, in `self`.
        std::future::pending().await
    }

    /// The first death so far.
    #[must_use]
    pub fn first_death(&self) -> Option<ThreadDeath> {
        self.0.death.borrow().clone()
    }

    /// The threads that should have ended by now and have not.
    #[must_use]
    pub fn held(&self) -> Vec<StuckThread> {
        let living: Vec<_> = self.0.living().values().cloned().collect();
        let asked = living.iter().filter(|life| life.asked.load(Ordering::SeqCst));
        asked.map(|life| life.held()).collect()
    }
}

/// A thread. To drop one that serves asks it to end and waits for that a moment.
pub struct Thread {
    life: Arc<ThreadState>,
    stop: Option<Stop>,
    /// Whether to drop it waits.
    waits: bool,
}

impl fmt::Debug for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Thread").field(&self.life.name).finish()
    }
}

impl Thread {
    /// Asks it to end; does not wait.
    pub fn stop(&mut self) {
        self.life.expect_end();
        if let Some(stop) = self.stop.take() {
            stop();
        }
    }

    /// Asks it to end and waits until then. `false`: it has not ended, it is [`Supervisor::held`], and nobody waits for
    /// it any more.
    pub fn join(&mut self, deadline: Instant) -> bool {
        self.stop();
        self.waits = false;
        self.life.ended_by(deadline)
    }

    /// Lets it live as long as the process.
    pub fn detach(mut self) {
        self.stop = None;
        self.waits = false;
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        if self.waits && !self.join(Instant::now() + PATIENCE) {
            tracing::error!(thread = self.life.name, "a thread does not end; going on without it");
        }
    }
}

/// Threads that do the same and end together.
pub struct Threads {
    all: Vec<Thread>,
    stop: Option<Stop>,
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.all).finish()
    }
}

impl Threads {
    /// None yet. `stop` ends all of them; it is called once and must not wait.
    #[must_use]
    pub fn new(stop: impl FnOnce() + Send + 'static) -> Self {
        Self {
            all: Vec::new(),
            stop: Some(Box::new(stop)),
        }
    }

    /// Starts one more, which serves until all are asked to end.
    ///
    /// # Errors
    /// The system has no thread for it.
    pub fn add(
        &mut self,
        supervisor: &Supervisor,
        name: impl Into<String>,
        work: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        self.all.push(supervisor.serve(name, || {}, work)?);
        Ok(())
    }

    /// Asks them to end; does not wait.
    pub fn stop(&mut self) {
        // All of them first: each is ended by what ends the others.
        self.all.iter_mut().for_each(Thread::stop);
        if let Some(stop) = self.stop.take() {
            stop();
        }
    }

    /// Asks them to end and waits until then. `false`: not all have.
    pub fn join(&mut self, deadline: Instant) -> bool {
        self.stop();
        // Each is waited for, also after one that has not ended.
        let stuck = self
            .all
            .iter_mut()
            .filter_map(|thread| (!thread.join(deadline)).then_some(()));
        stuck.count() == 0
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if self.all.iter().any(|thread| thread.waits) && !self.join(Instant::now() + PATIENCE) {
            tracing::error!(threads = ?self, "threads do not end; going on without them");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn soon() -> Instant {
        Instant::now() + LONG
    }

    fn death_of(supervisor: &Supervisor) -> ThreadDeath {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime
            .block_on(async { tokio::time::timeout(LONG, supervisor.death()).await })
            .unwrap()
    }

    /// Serves until its channel ends.
    fn serving(supervisor: &Supervisor, name: &str) -> Thread {
        let (stop, stopped): (Sender<()>, Receiver<()>) = channel();
        supervisor
            .serve(
                name,
                || drop(stop),
                move || {
                    let _ended = stopped.recv();
                },
            )
            .unwrap()
    }

    #[test]
    fn a_thread_that_is_asked_to_end_is_no_death() {
        let supervisor = Supervisor::default();
        let mut thread = serving(&supervisor, "asked");
        assert!(thread.join(soon()));
        drop(serving(&supervisor, "dropped"));
        assert_eq!((supervisor.first_death(), supervisor.held()), (None, Vec::new()));
    }

    #[test]
    fn a_thread_that_returns_unasked_is_a_death_that_the_supervisor_hears_of() {
        let supervisor = Supervisor::default();
        let thread = supervisor.serve("tired", || {}, || {}).unwrap();
        let death = death_of(&supervisor);
        assert_eq!((death.thread.as_str(), &death.end), ("tired", &DeathCause::Returned));
        assert_eq!(
            death.to_string(),
            "the thread 'tired' ended though nobody had asked it to"
        );
        drop(thread);
    }

    #[test]
    fn a_panic_is_a_death_also_of_one_that_was_asked_to_end_or_would_have_ended_by_itself() {
        for asked in [false, true] {
            let supervisor = Supervisor::default();
            let (go, gone): (Sender<()>, Receiver<()>) = channel();
            let work = move || {
                let _gone = gone.recv();
                panic!("as told");
            };
            let mut thread = if asked {
                supervisor.serve("serves", || drop(go), work).unwrap()
            } else {
                drop(go);
                supervisor.errand("runs", work).unwrap()
            };
            assert!(thread.join(soon()));
            let death = death_of(&supervisor);
            assert_eq!(death.end, DeathCause::Panicked("as told".into()));
            assert!(death.to_string().contains("panicked: as told"), "{death}");
        }
    }

    #[test]
    fn an_errand_may_end_and_the_first_death_is_the_one_that_is_told() {
        let supervisor = Supervisor::default();
        let mut errand = supervisor.errand("errand", || {}).unwrap();
        assert!(errand.join(soon()));
        assert_eq!(supervisor.first_death(), None);
        for name in ["first", "second"] {
            let mut thread = supervisor.errand(name, || panic!("as told")).unwrap();
            assert!(thread.join(soon()));
        }
        assert_eq!(death_of(&supervisor).thread, "first");
    }

    #[test]
    fn a_join_ends_at_its_deadline_and_the_thread_that_hangs_is_named() {
        let supervisor = Supervisor::default();
        let (release, released): (Sender<()>, Receiver<()>) = channel();
        let (begun, begins) = channel();
        let mut stuck = supervisor
            .serve(
                "stuck",
                || {},
                move || {
                    begun.send(()).unwrap();
                    let _released = released.recv();
                },
            )
            .unwrap();
        let _other = serving(&supervisor, "serves");
        begins.recv().unwrap();
        let start = Instant::now();
        assert!(!stuck.join(start + Duration::from_millis(50)));
        assert!(start.elapsed() >= Duration::from_millis(50));
        let held = supervisor.held();
        assert_eq!(held.len(), 1, "one that serves and was not asked is not held: {held:?}");
        assert!(held[0].to_string().starts_with("stuck"), "{}", held[0]);
        // Soon it sleeps, in a way that a signal would end.
        while supervisor.held()[0].state != Some('S') {
            thread::yield_now();
        }
        assert!(!supervisor.held()[0].is_unkillable());
        // And nobody waits for it a second time.
        let start = Instant::now();
        drop(stuck);
        assert!(start.elapsed() < PATIENCE);
        drop(release);
        while !supervisor.held().is_empty() {
            thread::yield_now();
        }
        assert_eq!(supervisor.first_death(), None);
    }

    #[test]
    fn what_can_not_be_killed_is_said_to_be_so() {
        let held = |state, place: Option<&str>| StuckThread {
            thread: "registrar".into(),
            state,
            place: place.map(str::to_owned),
        };
        assert_eq!(
            held(Some('D'), Some("ptlrpc_set_wait")).to_string(),
            "registrar (in the kernel's ptlrpc_set_wait, can't be killed)"
        );
        assert!(held(Some('I'), None).is_unkillable());
        assert_eq!(held(Some('S'), None).to_string(), "registrar");
        assert_eq!(held(None, None).to_string(), "registrar");
    }

    #[test]
    fn threads_that_end_together_are_none_of_them_dead() {
        let supervisor = Supervisor::default();
        for _ in 0..50 {
            let (stop, stopped) = channel::<()>();
            let stopped = Arc::new(Mutex::new(stopped));
            let mut threads = Threads::new(move || drop(stop));
            for n in 0..4 {
                let stopped = Arc::clone(&stopped);
                threads
                    .add(&supervisor, format!("worker-{n}"), move || {
                        let _ended = stopped.lock().unwrap().recv();
                    })
                    .unwrap();
            }
            assert!(threads.join(soon()));
        }
        assert_eq!(supervisor.first_death(), None);
    }

    /// Scoped ones, which end with the call that makes them, are the commands' own.
    #[test]
    fn no_thread_is_made_outside_the_one_kind() {
        fn look(dir: &Path, found: &mut Vec<String>) {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    look(&path, found);
                } else if path.extension().is_some_and(|ext| ext == "rs") && !path.ends_with("src/thread/mod.rs") {
                    let text = std::fs::read_to_string(&path).unwrap();
                    for word in [
                        "thread::Builder",
                        "thread::spawn",
                        "thread::JoinHandle",
                        "spawn_blocking",
                    ] {
                        if text.contains(word) {
                            found.push(format!("{}: {word}", path.display()));
                        }
                    }
                }
            }
        }
        let mut found = Vec::new();
        look(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
        assert_eq!(found, Vec::<String>::new());
    }
}
