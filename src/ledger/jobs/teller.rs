//! What a job's own process tells the ledger: how far it is, again and again, by a thread of its own on which nothing waits. The
//! answers are what others want of it: that it stops, or that another node has it by now.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::super::link::Link;
use super::super::moment::Moment;
use super::super::{LedgerError, LedgerOptions};
use super::{JobNotice, JobState, book, rows};
use crate::thread::{Supervisor, Thread};

/// Between two tellings: some of them in a lease, and often enough for who waits that a job stops.
const LONGEST_BETWEEN: Duration = Duration::from_secs(2);
/// Before another try, doubled from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// For a connection, and for a statement on it.
const LONGEST_TRY: Duration = Duration::from_secs(25);
/// Beyond a lease: less than whoever wants the job waits beyond one, and enough for a try that fails.
const SLACK: Duration = Duration::from_secs(15);

/// Why a job is to stop that others see.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum JobInterrupt {
    /// Somebody wants it, and what it asked for, stopped.
    Cancelled,
    /// It goes on elsewhere: nothing of it is this process's any more.
    Taken {
        /// Where.
        node: String,
    },
}

/// Ends the work at a job; it must not wait.
type Stop = Box<dyn Fn() + Send>;

/// Tells of one job until it is dropped.
pub struct JobTeller {
    shared: Arc<Shared>,
    thread: Thread,
}

impl fmt::Debug for JobTeller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobTeller").finish_non_exhaustive()
    }
}

struct Shared {
    state: Mutex<State>,
    /// It is to end.
    stirred: Notify,
    lease: Duration,
}

struct State {
    told: Option<String>,
    state: JobState,
    is_last: bool,
    /// The last word is written, or is nobody's business.
    is_over: bool,
    interrupt: Option<JobInterrupt>,
    /// When it was known last that nobody else has the job, or that nobody can have taken it.
    known_at: Moment,
    error: Option<String>,
}

impl Shared {
    fn new(lease: Duration) -> Self {
        Self {
            state: Mutex::new(State {
                told: None,
                state: JobState::Running,
                is_last: false,
                is_over: false,
                interrupt: None,
                known_at: Moment::now(),
                error: None,
            }),
            stirred: Notify::new(),
            lease,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_last(&self) -> bool {
        self.lock().is_last
    }

    fn end(&self) {
        let mut state = self.lock();
        if state.state == JobState::Running {
            state.state = JobState::Stopped;
        }
        state.is_last = true;
        drop(state);
        self.stirred.notify_one();
    }

    /// No longer than that, and until the end at most.
    async fn pause(&self, length: Duration) {
        let until = Instant::now() + length;
        while !self.is_last() {
            let stirred = tokio::time::timeout_at(until.into(), self.stirred.notified());
            if stirred.await.is_err() {
                return;
            }
        }
    }

    async fn until_last(&self) {
        while !self.is_last() {
            self.stirred.notified().await;
        }
    }

    /// A telling that began then was taken.
    fn renewed(&self, began: Moment) {
        let mut state = self.lock();
        state.known_at = began;
        state.error = None;
    }

    /// One was not; whether that is news.
    fn away(&self, began: Moment, error: &str) -> bool {
        let mut state = self.lock();
        // Nobody takes a job over without the ledger. Of a try in which this process stood still nothing is known.
        if began.elapsed() <= LONGEST_TRY {
            state.known_at = Moment::now();
        }
        let is_news = state.error.as_deref() != Some(error);
        state.error = Some(error.to_owned());
        is_news
    }

    fn may_go_on(&self) -> bool {
        self.lock().known_at.elapsed() <= self.lease + SLACK
    }
}

impl JobTeller {
    /// Begins to tell of a job, of which `stop` ends the work. `unclaimed`: the ledger was away when this process began, and may
    /// have the job as one of these; `None`: it is this process's there, or new. Whether the ledger can be reached makes no
    /// difference here.
    ///
    /// # Errors
    /// The system has no thread for it.
    pub fn start(
        options: &LedgerOptions,
        notice: JobNotice,
        unclaimed: Option<Vec<i64>>,
        stop: impl Fn() + Send + 'static,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let shared = Arc::new(Shared::new(options.lease));
        let tellings = Tellings {
            options: options.clone(),
            notice,
            unclaimed,
            began: Moment::now(),
            shared: Arc::clone(&shared),
            stop: Box::new(stop),
        };
        let ending = Arc::clone(&shared);
        let thread = Supervisor::default().serve(
            "job-ledger",
            move || ending.end(),
            move || {
                runtime.block_on(tellings.run());
                // A look-up of a name may be under way; nobody wants it.
                runtime.shutdown_background();
            },
        )?;
        Ok(Self { shared, thread })
    }

    /// How far the job is, for the next telling.
    pub fn tell(&self, told: String) {
        self.shared.lock().told = Some(told);
    }

    /// Whether something new may be begun: no other node has the job, as far as can be known. A process that stood still for long
    /// finds that out first.
    #[must_use]
    pub fn may_go_on(&self) -> bool {
        self.shared.may_go_on()
    }

    /// Why the job was stopped by others; `None`: it was not.
    #[must_use]
    pub fn interrupt(&self) -> Option<JobInterrupt> {
        self.shared.lock().interrupt.clone()
    }

    /// Says how the job ended; `false`: the ledger did not take that in time, and shows it as silent.
    #[must_use]
    pub fn finish(mut self, state: JobState, told: Option<String>, deadline: Instant) -> bool {
        {
            let mut shared = self.shared.lock();
            shared.state = state;
            shared.told = told.or(shared.told.take());
        }
        self.thread.join(deadline) && self.shared.lock().is_over
    }
}

/// What the thread has.
struct Tellings {
    options: LedgerOptions,
    notice: JobNotice,
    unclaimed: Option<Vec<i64>>,
    /// The last try.
    began: Moment,
    shared: Arc<Shared>,
    stop: Stop,
}

impl Tellings {
    async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let mut pause = FIRST_PAUSE;
        loop {
            let is_last = shared.is_last();
            let Err(error) = Box::pin(self.session(&mut pause)).await else {
                return;
            };
            let words = error.to_string();
            if shared.away(self.began, &words) && !is_last {
                tracing::warn!(
                    job = self.notice.id,
                    error = words,
                    "other nodes can't see how far the job is, nor stop it: it goes on, and tells them when the ledger takes it"
                );
            }
            if is_last {
                return;
            }
            shared.pause(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// One connection. `Ok`: nothing is to be told any more.
    async fn session(&mut self, pause: &mut Duration) -> Result<(), LedgerError> {
        self.began = Moment::now();
        let link = Box::pin(book::open(&self.options, Some(&self.notice.file_system))).await?;
        loop {
            let (state, told, is_last) = {
                let shared = self.shared.lock();
                (shared.state, shared.told.clone(), shared.is_last)
            };
            self.began = Moment::now();
            if let Some(node) = Box::pin(self.tell(&link, state, told.as_deref())).await? {
                self.shared.lock().is_over = true;
                self.interrupt(JobInterrupt::Taken { node });
                self.shared.until_last().await;
                return Ok(());
            }
            self.shared.renewed(self.began);
            *pause = FIRST_PAUSE;
            if is_last {
                self.shared.lock().is_over = true;
                return Ok(());
            }
            self.shared.pause((self.options.lease / 4).min(LONGEST_BETWEEN)).await;
        }
    }

    /// The node that has the job; `None`: this one.
    async fn tell(&mut self, link: &Link, state: JobState, told: Option<&str>) -> Result<Option<String>, LedgerError> {
        if let Some(is_to_stop) = rows::renew(link, &self.notice, (state, told)).await? {
            self.unclaimed = None;
            if is_to_stop {
                self.interrupt(JobInterrupt::Cancelled);
            }
            return Ok(None);
        }
        let Some(row) = rows::find(link, &self.notice.id).await? else {
            // It is new, or it was lost with a server.
            let names = rows::names(&self.notice).unwrap_or_else(|error| {
                tracing::warn!(
                    job = self.notice.id, %error,
                    "the names of the job's list can't be read: it can't be gone on with on another node without them"
                );
                None
            });
            rows::insert(link, &self.notice, names.as_deref(), (state, told)).await?;
            self.unclaimed = None;
            return Ok(None);
        };
        let unclaimed = self.unclaimed.as_ref();
        let is_free = unclaimed.is_some_and(|known| row.state != JobState::Running || known.contains(&row.owner));
        if is_free && rows::take(link, &self.notice, &row).await? {
            self.unclaimed = None;
            return Ok(None);
        }
        Ok(Some(row.node))
    }

    fn interrupt(&self, why: JobInterrupt) {
        self.shared.lock().interrupt.get_or_insert(why);
        (self.stop)();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(20);

    #[test]
    fn a_process_that_stood_still_begins_nothing_before_it_knows_that_it_has_the_job() {
        let shared = Shared::new(LEASE);
        assert!(shared.may_go_on());
        let Some(long_ago) = Moment::now().checked_sub(LEASE * 2) else {
            return;
        };
        shared.lock().known_at = long_ago;
        assert!(!shared.may_go_on());
        // A try that began before it stood still shows nothing.
        shared.renewed(long_ago);
        assert!(!shared.may_go_on());
        assert!(shared.away(long_ago, "no answer"));
        assert!(!shared.may_go_on());
        assert!(!shared.away(Moment::now(), "no answer"), "it was said");
        assert!(shared.may_go_on(), "nobody has taken it without a ledger");
        shared.lock().known_at = long_ago;
        shared.renewed(Moment::now());
        assert!(shared.may_go_on());
    }

    #[test]
    fn whoever_wants_a_job_waits_longer_than_one_goes_on_that_knows_nothing() {
        assert!(SLACK < super::super::super::peers::RETURN);
    }

    #[test]
    fn a_teller_that_is_dropped_says_that_the_job_was_stopped() {
        let shared = Shared::new(LEASE);
        shared.end();
        assert_eq!(shared.lock().state, JobState::Stopped);
        assert!(shared.is_last());
        let shared = Shared::new(LEASE);
        shared.lock().state = JobState::Cancelled;
        shared.end();
        assert_eq!(shared.lock().state, JobState::Cancelled);
    }
}
