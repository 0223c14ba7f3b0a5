//! What came of files, one by one and in numbers.

use serde::{Deserialize, Serialize};

/// How far a file is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The coordinator was asked.
    Requested,
    /// It was done.
    Done,
    /// Nothing had to be done.
    Already,
    /// It could not be done.
    Failed,
}

/// Files by what came of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct JobCounts {
    /// Files that the job brought to where it wants them.
    pub done: u64,
    /// Nothing had to be done.
    pub already: u64,
    /// Could not be done.
    pub failed: u64,
    /// Of those that were done.
    pub bytes: u64,
}

impl JobCounts {
    /// Files that have ended.
    #[must_use]
    pub const fn ended(&self) -> u64 {
        self.done + self.already + self.failed
    }

    pub(super) const fn add(&mut self, outcome: Outcome, size: u64) {
        match outcome {
            Outcome::Requested => {}
            Outcome::Done => {
                self.done += 1;
                self.bytes += size;
            }
            Outcome::Already => self.already += 1,
            Outcome::Failed => self.failed += 1,
        }
    }
}
