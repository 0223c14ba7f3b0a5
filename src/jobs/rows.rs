//! Rows on their way to the ledger: many at a time, and those of failed actions once it was asked why they failed.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::ledger::{Ledger, LedgerError, Row};
use super::outcome::{JobCounts, Outcome};
use crate::fleet::{FailureReasons, Fleet};

/// Rows that go to the ledger at once, and how long they may wait.
const AT_ONCE: usize = 2000;
const PATIENCE: Duration = Duration::from_secs(1);

/// What came of files and is not in the ledger yet.
pub(super) struct Rows<'a> {
    ledger: &'a Ledger,
    waiting: Vec<(PathBuf, Row)>,
    /// Of a list: those without an end in the ledger.
    names: HashSet<PathBuf>,
    flushed: Instant,
    /// What the movers say of files that failed.
    reasons: FailureReasons<'a>,
}

impl<'a> Rows<'a> {
    pub(super) fn new(ledger: &'a Ledger, fleet: &'a Fleet) -> Self {
        Self {
            ledger,
            waiting: Vec::new(),
            names: HashSet::new(),
            flushed: Instant::now(),
            reasons: FailureReasons::new(fleet),
        }
    }

    /// A name of a list, where one can stand twice; `false`: it stood there before, and has no end in the ledger yet.
    pub(super) fn is_new(&mut self, name: &Path) -> bool {
        self.names.insert(name.to_owned())
    }

    /// Such a name needs no row, or has its last one.
    pub(super) fn forget(&mut self, name: &Path) {
        self.names.remove(name);
    }

    /// A former run's.
    pub(super) fn former(&self, path: &Path) -> Result<Option<Row>, LedgerError> {
        self.ledger.row(path)
    }

    pub(super) fn push(&mut self, path: PathBuf, row: Row) {
        self.waiting.push((path, row));
    }

    pub(super) fn is_due(&self) -> bool {
        self.waiting.len() >= AT_ONCE || self.flushed.elapsed() >= PATIENCE
    }

    /// Writes all that wait, with the counters after them.
    pub(super) fn flush(&mut self, counts: &JobCounts) -> Result<(), LedgerError> {
        self.flushed = Instant::now();
        if !self.waiting.is_empty() {
            self.explain();
            self.ledger.record(&self.waiting, counts)?;
            for (path, row) in self.waiting.drain(..) {
                if row.outcome != Outcome::Requested {
                    self.names.remove(&path);
                }
            }
        }
        Ok(())
    }

    /// Why actions failed is known where they ran.
    fn explain(&mut self) {
        let unexplained = |row: &Row| row.outcome == Outcome::Failed && row.reason.is_empty();
        if !self.waiting.iter().any(|(_, row)| unexplained(row)) {
            return;
        }
        self.reasons.renew();
        for (_, row) in self.waiting.iter_mut().filter(|(_, row)| unexplained(row)) {
            let known = row.fid.parse().ok().and_then(|fid| self.reasons.of(fid));
            match known {
                Some(failure) => {
                    row.errno = failure.errno;
                    row.reason = failure.reason.clone();
                }
                None => row.reason = format!("the action failed; the log of the mover says why (FID {})", row.fid),
            }
        }
    }
}
