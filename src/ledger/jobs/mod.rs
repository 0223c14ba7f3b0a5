//! Bulk jobs in the ledger: seen from all nodes, stopped from each of them, gone on with on another one. To the ledger a job is a
//! row of whoever is at it, with words that mean nothing here.
//!
//! `rows` are the statements; `teller` is the thread of a job's own process that tells how far it is and hears what others want;
//! `book` is what commands ask. Who wants to go on with a job that says nothing any more finds out by `silence` whether it lives.
//! A ledger that is away costs a job nothing but that others see it.

mod book;
mod rows;
mod silence;
mod teller;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

pub use book::{JobBook, JobTakeError, TakenJob};
pub use teller::{JobInterrupt, JobTeller};

/// Where a job is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum JobState {
    /// Somebody is at it, if that one lives.
    #[default]
    Running,
    /// Its process ended before the job did.
    Stopped,
    /// It came to its end, whatever came of its files.
    Ended,
    /// Something ended it that is no single file's trouble.
    Failed,
    /// Somebody stopped it for good.
    Cancelled,
}

impl JobState {
    /// As a person reads it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Ended => "ended",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    const fn number(self) -> i16 {
        match self {
            Self::Running => 1,
            Self::Stopped => 2,
            Self::Ended => 3,
            Self::Failed => 4,
            Self::Cancelled => 5,
        }
    }

    /// What a later release may say is taken for somebody being at it.
    const fn of(number: i16) -> Self {
        match number {
            2 => Self::Stopped,
            3 => Self::Ended,
            4 => Self::Failed,
            5 => Self::Cancelled,
            _ => Self::Running,
        }
    }
}

/// A job as the ledger has it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct JobRow {
    /// Its name.
    pub id: String,
    /// The process that is or was at it.
    pub owner: i64,
    /// That one's node.
    pub node: String,
    /// What the mover by that process's configuration is called.
    pub mover: String,
    /// How often it was told of.
    pub renewals: i64,
    /// Where it is.
    pub state: JobState,
    /// How far it is, in its process's words.
    pub told: Option<String>,
    /// Somebody wants it stopped.
    pub is_to_stop: bool,
    /// Since it was told of last, by the ledger's own clock.
    pub age: Duration,
}

impl JobRow {
    /// Whether it should have told of itself since. That it is dead is not said by this: the clock is only the ledger's.
    #[must_use]
    pub fn is_silent(&self, lease: Duration) -> bool {
        self.state == JobState::Running && self.age > lease
    }
}

/// A job whose process tells of it.
#[derive(Clone)]
pub struct JobNotice {
    /// Its name.
    pub id: String,
    /// Of this process: random.
    pub owner: i64,
    /// This node.
    pub node: String,
    /// What the mover by this configuration is called.
    pub mover: String,
    /// The file system that its files are in, with its incarnation.
    pub file_system: String,
    /// What it is to do, for whoever goes on with it.
    pub spec: String,
    /// Where its names are, if it works off a list.
    pub list: Option<PathBuf>,
}

impl fmt::Debug for JobNotice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobNotice")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_written_as_numbers_and_what_is_not_known_counts_as_running() {
        use JobState::{Cancelled, Ended, Failed, Running, Stopped};
        for state in [Running, Stopped, Ended, Failed, Cancelled] {
            assert_eq!(JobState::of(state.number()), state, "{}", state.word());
        }
        assert_eq!(JobState::of(99), Running);
    }

    #[test]
    fn only_a_job_that_somebody_is_at_is_silent() {
        let lease = Duration::from_secs(20);
        let mut row = JobRow {
            age: lease * 2,
            ..JobRow::default()
        };
        assert!(row.is_silent(lease));
        row.state = JobState::Ended;
        assert!(!row.is_silent(lease));
        row.state = JobState::Running;
        row.age = lease;
        assert!(!row.is_silent(lease));
    }
}
