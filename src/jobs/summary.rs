//! What everybody can see of a job, also while it runs: a small file beside its ledger, replaced at once.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::JobSpec;
use super::ledger::LedgerError;
use super::outcome::JobCounts;
use crate::disk::replace;
use crate::lustre::UserAction;

/// Where a job is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// At work; if its process still is.
    #[default]
    Running,
    /// Stopped by a signal, by `jobs cancel` or by an error.
    Stopped,
    /// It came to its end, whatever came of its files.
    Ended,
}

impl Phase {
    /// As a person reads it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Ended => "ended",
        }
    }
}

/// A job at one moment.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Summary {
    /// The name that `jobs show` and `jobs resume` take.
    pub id: String,
    /// What is asked for of each file.
    pub action: UserAction,
    /// How far the job itself is.
    pub phase: Phase,
    /// The process that is at it.
    pub pid: u32,
    /// Seconds since 1970.
    pub created: i64,
    /// Seconds since 1970.
    pub updated: i64,
    /// Seconds of work, of this run.
    pub seconds: f64,
    /// What came of files so far.
    #[serde(flatten)]
    pub counts: JobCounts,
    /// Files that were found so far; all of them once `complete`.
    pub found: u64,
    /// Bytes of these.
    pub found_bytes: u64,
    /// Every file was found.
    pub complete: bool,
    /// Asked for and not ended.
    pub active: u64,
    /// The most that may be.
    pub window: u64,
    /// The most that were.
    pub peak: u64,
    /// Ends a second, of late.
    pub rate: f64,
    /// Ends a second, of this run.
    pub average: f64,
    /// Seconds that are left, once every file was found.
    pub eta: Option<f64>,
    /// What it waits for, if it is not the files.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub waits_for: String,
}

impl Summary {
    pub(super) fn new(spec: &JobSpec) -> Self {
        Self {
            id: spec.id.clone(),
            action: spec.action,
            phase: Phase::Running,
            pid: std::process::id(),
            created: spec.created,
            updated: 0,
            seconds: 0.0,
            counts: JobCounts::default(),
            found: 0,
            found_bytes: 0,
            complete: false,
            active: 0,
            window: 0,
            peak: 0,
            rate: 0.0,
            average: 0.0,
            eta: None,
            waits_for: String::new(),
        }
    }

    /// Replaces the job's file.
    ///
    /// # Errors
    /// The directory takes no file.
    pub fn write(&self, directory: &Path) -> std::io::Result<()> {
        replace(&directory.join(format!("{}.json", self.id)), &serde_json::to_vec(self)?)
    }

    /// All jobs, the oldest first.
    ///
    /// # Errors
    /// The directory can't be read.
    pub fn all(directory: &Path) -> std::io::Result<Vec<Self>> {
        let entries = match std::fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut all = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "json")
                && let Ok(summary) = serde_json::from_slice::<Self>(&std::fs::read(&path)?)
            {
                all.push(summary.seen_now());
            }
        }
        all.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        Ok(all)
    }

    /// One job.
    ///
    /// # Errors
    /// There is none, or it can't be read.
    pub fn find(directory: &Path, id: &str) -> Result<Self, LedgerError> {
        let all = Self::all(directory).map_err(|source| LedgerError::Directory {
            path: directory.to_owned(),
            source,
        })?;
        let found = all.into_iter().find(|summary| summary.id == id);
        found.ok_or_else(|| LedgerError::None {
            id: id.to_owned(),
            directory: directory.to_owned(),
        })
    }

    /// One whose process is gone does not run.
    fn seen_now(mut self) -> Self {
        let alive = Path::new("/proc").join(self.pid.to_string()).exists();
        if self.phase == Phase::Running && !alive {
            self.phase = Phase::Stopped;
        }
        self
    }
}
