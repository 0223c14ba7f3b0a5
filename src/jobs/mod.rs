//! Bulk jobs: archive, restore, release, remove or cancel for whole trees and long lists, with one ledger of what came
//! of each file.
//!
//! A `source` (a walk or a list) is filtered by `select`; `run` keeps the coordinator's queue no deeper than a `window`
//! that follows the completions, and each file is followed to its end (`active`). `ledger` is what survives, and `rows` are
//! on their way there: a job that was killed reads its source again and passes over what is done. `summary` is what
//! everybody else sees of it, also while it runs.

mod active;
mod hand;
mod ledger;
mod outcome;
mod rows;
mod run;
mod select;
mod source;
mod summary;
mod window;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::lustre::{HsmStates, UserAction};
use crate::types::{ArchiveId, ErrorClass, io_error};

pub use ledger::{Ledger, LedgerError, Row};
pub use outcome::{JobCounts, Outcome};
pub use run::{JobError, run};
pub use select::{FileFilter, HsmFilter, SelectError};
pub use summary::{Phase, Summary};

/// What a job is, as its ledger keeps it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct JobSpec {
    /// The name that `jobs show` and `jobs resume` take.
    pub id: String,
    /// What is asked for of each file.
    pub action: UserAction,
    /// The archive id that is asked for; `None`: the file's, or the coordinator's default.
    pub archive_id: Option<ArchiveId>,
    /// The mount point that the job's paths are below.
    pub mount: PathBuf,
    /// What is walked.
    pub roots: Vec<PathBuf>,
    /// Or the names in this file.
    pub list: Option<PathBuf>,
    /// Which end with NUL, not with a newline.
    pub nul: bool,
    /// Which files are meant.
    pub select: FileFilter,
    /// At most so many files are asked for and not done.
    pub window: usize,
    /// Calls at a time.
    pub threads: usize,
    /// Nothing is asked for; what would be counts as done.
    pub dry_run: bool,
    /// Seconds since 1970.
    pub created: i64,
    /// Another node began it, and what that one asked for is not known here.
    #[serde(default)]
    pub taken_over: bool,
}

/// Where jobs are kept.
#[must_use]
pub fn directory(state_dir: &Path) -> PathBuf {
    state_dir.join("jobs")
}

/// A name that is not another job's: what, when, and four digits.
#[must_use]
pub fn new_id(action: UserAction) -> String {
    let now = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
    let now: String = now.chars().filter(char::is_ascii_digit).collect();
    let (day, time) = now.split_at(now.len().min(8));
    format!("{}-{day}-{time}-{:04x}", word(action), fastrand::u16(..))
}

/// Whether it could be a job's: it may come from anywhere, and names files.
#[must_use]
pub fn is_name(id: &str) -> bool {
    !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// As on the command line.
#[must_use]
pub const fn word(action: UserAction) -> &'static str {
    match action {
        UserAction::Archive => "archive",
        UserAction::Restore => "restore",
        UserAction::Release => "release",
        UserAction::Remove => "remove",
        UserAction::Cancel => "cancel",
    }
}

/// What is to be done about a file in these states.
#[derive(Clone, PartialEq, Eq, Debug)]
enum NextStep {
    /// It is as it should be.
    Nothing,
    /// It can't be done: what Lustre would say, and why.
    Impossible(ErrorClass, &'static str),
    Ask,
}

fn need(action: UserAction, states: HsmStates) -> NextStep {
    match action {
        UserAction::Archive if states.is_clean() => NextStep::Nothing,
        UserAction::Restore if !states.released() => NextStep::Nothing,
        UserAction::Restore if states.lost() => NextStep::Impossible(
            ErrorClass::NoAttribute,
            "its copy is marked LOST (lhsmtool-s3 scrub says more)",
        ),
        UserAction::Release if states.released() => NextStep::Nothing,
        UserAction::Release if !states.archived() => {
            NextStep::Impossible(ErrorClass::Refused, "it is not archived: archive it first")
        }
        UserAction::Release if states.dirty() => NextStep::Impossible(
            ErrorClass::Refused,
            "it was changed after it was archived: archive it again first",
        ),
        UserAction::Release if states.lost() => NextStep::Impossible(ErrorClass::Refused, "its copy is marked LOST"),
        UserAction::Remove if states.released() => {
            NextStep::Impossible(ErrorClass::Refused, "its copy is all there is of it: restore it first")
        }
        UserAction::Remove if !states.archived() && !states.exists() => NextStep::Nothing,
        UserAction::Archive | UserAction::Restore | UserAction::Release | UserAction::Remove | UserAction::Cancel => {
            NextStep::Ask
        }
    }
}

/// An errno as a person reads it.
fn meaning(errno: i32) -> String {
    match ErrorClass::of(errno) {
        ErrorClass::Refused => {
            "EPERM: the file's state or archive does not allow it, or you may not (see `lfs hsm_state`)".into()
        }
        ErrorClass::Busy => "EBUSY: it is open, or changed meanwhile".into(),
        ErrorClass::Gone => "ENOENT: it is gone".into(),
        _ => io_error(errno).to_string(),
    }
}
