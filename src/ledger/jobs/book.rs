//! What commands ask of the ledger about jobs, also those of other nodes.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use super::super::link::Link;
use super::super::schema::LedgerState;
use super::super::{LedgerError, LedgerOptions};
use super::silence::{Heard, Silence};
use super::{JobNotice, JobRow, JobState, rows};

/// Between two looks at a job that may be silent.
const SHORTEST_LOOK: Duration = Duration::from_millis(50);
const LONGEST_LOOK: Duration = Duration::from_secs(1);
/// To take one that others want as well.
const MOST_TRIES: u32 = 8;

/// Why a job can't be gone on with here.
#[derive(Debug, thiserror::Error)]
pub enum JobTakeError {
    /// The ledger's.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// Whoever is at it told of it while it was watched.
    #[error(
        "job '{id}' runs on node '{node}' (lhsmtool-s3 status {id} shows how far it is); lhsmtool-s3 jobs cancel {id} stops it \
         there"
    )]
    Lives {
        /// The job's name.
        id: String,
        /// Where it runs.
        node: String,
    },
}

/// What the ledger has of a job for whoever goes on with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TakenJob {
    /// What it is to do, in the words of whoever began it; `None`: only its node knows.
    pub spec: Option<String>,
    /// The names of its list; `None`: it has none, or only its node has them.
    pub names: Option<Vec<u8>>,
}

/// A connection that lasts, for questions by the way. Each has an answer or an error in time.
pub struct JobBook {
    options: LedgerOptions,
    patience: Duration,
    link: Option<Link>,
    runtime: Runtime,
}

impl fmt::Debug for JobBook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobBook").finish_non_exhaustive()
    }
}

/// A connection to a ledger that can be used. `file_system`: `None` where it may be any.
pub(super) async fn open(options: &LedgerOptions, file_system: Option<&str>) -> Result<Link, LedgerError> {
    let link = Box::pin(Link::open(options)).await?;
    let state = Box::pin(LedgerState::read(&link)).await?;
    state.must_be_of(file_system)?;
    state.must_be_usable()?;
    Ok(link)
}

impl JobBook {
    /// Nothing is asked yet. `patience`: for each answer.
    ///
    /// # Errors
    /// The system has nothing to wait with.
    pub fn new(options: &LedgerOptions, patience: Duration) -> io::Result<Self> {
        Ok(Self {
            options: options.clone(),
            patience,
            link: None,
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build()?,
        })
    }

    fn ask<T>(&mut self, work: impl AsyncFnOnce(&Link) -> Result<T, LedgerError>) -> Result<T, LedgerError> {
        let Self {
            options,
            patience,
            link,
            runtime,
        } = self;
        let asked = async {
            let connected = match link.take() {
                Some(connected) => connected,
                None => Box::pin(open(options, None)).await?,
            };
            let answer = Box::pin(work(&connected)).await?;
            *link = Some(connected);
            Ok(answer)
        };
        let answer = runtime.block_on(async { tokio::time::timeout(*patience, Box::pin(asked)).await });
        answer.unwrap_or_else(|_| {
            Err(LedgerError::Silent {
                place: options.address.place().to_owned(),
                seconds: patience.as_secs(),
            })
        })
    }

    /// Jobs that somebody is at, or all: those first, then the ones that were told of last, a thousand at most.
    ///
    /// # Errors
    /// The ledger can't be asked.
    pub fn list(&mut self, only_running: bool) -> Result<Vec<JobRow>, LedgerError> {
        use JobState::{Cancelled, Ended, Failed, Running, Stopped};
        let all = [Running, Stopped, Ended, Failed, Cancelled];
        let states = if only_running { &all[..1] } else { &all[..] };
        self.ask(async |link: &Link| rows::list(link, states).await)
    }

    /// One job; `None`: the ledger has none by that name.
    ///
    /// # Errors
    /// The ledger can't be asked.
    pub fn find(&mut self, id: &str) -> Result<Option<JobRow>, LedgerError> {
        self.ask(async |link: &Link| rows::find(link, id).await)
    }

    /// What is needed to go on with a job; `None`: the ledger has none by that name.
    ///
    /// # Errors
    /// The ledger can't be asked.
    pub fn kept(&mut self, id: &str) -> Result<Option<TakenJob>, LedgerError> {
        self.ask(async |link: &Link| rows::kept(link, id).await)
    }

    /// Has the process that is at a job stop it, and what it asked for. `false`: that one is not at it any more.
    ///
    /// # Errors
    /// The ledger can't be asked.
    pub fn stop(&mut self, row: &JobRow) -> Result<bool, LedgerError> {
        self.ask(async |link: &Link| rows::stop(link, &row.id, row.owner).await)
    }

    /// Says where a job is whose process, the `owner`, is over, if the ledger has it as that one's and in one of the states
    /// `from`; whether it had.
    ///
    /// # Errors
    /// The ledger can't be asked.
    pub fn settle(
        &mut self,
        (id, owner): (&str, i64),
        from: &[JobState],
        state: JobState,
        told: Option<&str>,
    ) -> Result<bool, LedgerError> {
        self.ask(async |link: &Link| rows::settle(link, (id, owner), from, (state, told)).await)
    }

    /// Makes a job this process's, from one of `known`, whose node says that they are over, from one that told of its end, or from one
    /// that is silent; that is watched for, and `told` once for how long at most. What it was; `None`: the ledger has no such job.
    ///
    /// # Errors
    /// It lives, or the ledger can't be asked.
    pub fn take_over(
        &mut self,
        notice: &JobNotice,
        known: &[i64],
        told: &mut dyn FnMut(&JobRow, Duration),
    ) -> Result<Option<JobRow>, JobTakeError> {
        let options = &self.options;
        self.runtime
            .block_on(async { Box::pin(take_over(options, notice, known, told)).await })
    }
}

async fn take_over(
    options: &LedgerOptions,
    notice: &JobNotice,
    known: &[i64],
    told: &mut dyn FnMut(&JobRow, Duration),
) -> Result<Option<JobRow>, JobTakeError> {
    // One connection from the first look to the last: with it all that was seen is over.
    let link = Box::pin(open(options, Some(&notice.file_system))).await?;
    let pause = (options.lease / 8).clamp(SHORTEST_LOOK, LONGEST_LOOK);
    let mut silence = Silence::new(options.lease);
    let (mut is_told, mut tries) = (false, 0);
    loop {
        let asked = Instant::now();
        let Some(row) = Box::pin(rows::look(&link, &notice.id)).await? else {
            return Ok(None);
        };
        let is_over = row.state != JobState::Running || known.contains(&row.owner);
        let heard = match is_over {
            true => Heard::Nothing,
            false => silence.look(asked, Instant::now(), &row),
        };
        if heard == Heard::Nothing {
            if Box::pin(rows::take(&link, notice, &row)).await? {
                return Ok(Some(row));
            }
            // Somebody was faster: the next looks say who has it.
            tries += 1;
        }
        if heard == Heard::Lives || tries == MOST_TRIES {
            return Err(JobTakeError::Lives {
                id: row.id,
                node: row.node,
            });
        }
        if let Heard::NotYet(left) = heard
            && !std::mem::replace(&mut is_told, true)
        {
            told(&row, left);
        }
        tokio::time::sleep(pause).await;
    }
}
