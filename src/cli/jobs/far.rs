//! Jobs of other nodes, as the ledger has them.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::Failure;
use super::owner::JobOwners;
use super::progress::line;
use crate::cli::ExitWith;
use crate::config::Settings;
use crate::jobs::{self, Phase, Summary};
use crate::ledger::{JobBook, JobRow, JobState, LedgerError};

/// For what the ledger is asked on behalf of one job.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);
/// For what is shown beside other things.
const SHOWN_WITHIN: Duration = Duration::from_secs(2);
/// For a job to stop, beyond a lease, and of one that was silent before.
const HEEDS_WITHIN: Duration = Duration::from_secs(30);
/// Between two looks at whether it has.
const LOOK: Duration = Duration::from_millis(200);

/// A job that no process of this node is or was the last to be at.
#[derive(Debug)]
pub(in crate::cli) struct FarJob {
    row: JobRow,
    /// How far it is; `None`: in words of another release.
    summary: Option<Summary>,
    is_silent: bool,
}

impl FarJob {
    fn new(row: JobRow, lease: Duration) -> Self {
        let summary = row.told.as_deref().and_then(|told| serde_json::from_str(told).ok());
        Self {
            is_silent: row.is_silent(lease),
            summary,
            row,
        }
    }

    /// Its name.
    pub(in crate::cli) fn id(&self) -> &str {
        &self.row.id
    }

    /// Where it is, in a word.
    pub(in crate::cli) const fn word(&self) -> &'static str {
        match self.is_silent {
            true => "silent",
            false => self.row.state.word(),
        }
    }

    /// Whether there will be more to see of it.
    pub(in crate::cli) fn goes_on(&self) -> bool {
        self.row.state == JobState::Running && !self.is_silent
    }

    /// How far it is, in one line.
    pub(in crate::cli) fn line(&self) -> String {
        let far = self.summary.as_ref().map(line);
        format!(
            "{}; on {}, told {} ago{}",
            far.as_deref().unwrap_or("how far it is that node knows"),
            self.row.node,
            ago(self.row.age),
            if self.row.is_to_stop { ", is to stop" } else { "" }
        )
    }

    /// All of it.
    pub(in crate::cli) fn json(&self) -> serde_json::Value {
        let mut all = serde_json::json!({ "id": self.row.id });
        if let Some(summary) = &self.summary
            && let Ok(summary) = serde_json::to_value(summary)
        {
            all = summary;
        }
        if let Some(all) = all.as_object_mut() {
            all.insert("state".into(), self.word().into());
            all.insert("node".into(), self.row.node.clone().into());
            all.insert("mover".into(), self.row.mover.clone().into());
            all.insert("age".into(), self.row.age.as_secs_f64().into());
            all.insert("renewals".into(), self.row.renewals.into());
            all.insert("is_to_stop".into(), self.row.is_to_stop.into());
        }
        all
    }
}

/// So long, in whole seconds.
pub(super) fn ago(length: Duration) -> String {
    humantime::format_duration(Duration::from_secs(length.as_secs())).to_string()
}

/// The ledger's jobs, less those of this node.
#[derive(Debug)]
pub(in crate::cli) struct FarJobs {
    book: JobBook,
    lease: Duration,
    directory: PathBuf,
}

impl FarJobs {
    /// `None`: there is no ledger.
    pub(in crate::cli) fn new(settings: &Settings) -> std::io::Result<Option<Self>> {
        Self::within(settings, SHOWN_WITHIN)
    }

    fn within(settings: &Settings, patience: Duration) -> std::io::Result<Option<Self>> {
        let Some(options) = &settings.ledger else {
            return Ok(None);
        };
        Ok(Some(Self {
            book: JobBook::new(options, patience)?,
            lease: options.lease,
            directory: jobs::directory(&settings.state_dir),
        }))
    }

    /// Those that run, or all; the oldest telling first.
    pub(in crate::cli) fn read(&mut self, only_running: bool) -> Result<Vec<FarJob>, LedgerError> {
        let mut far = Vec::new();
        for row in self.book.list(only_running)?.into_iter().rev() {
            far.extend(self.far(row)?);
        }
        Ok(far)
    }

    /// One of them.
    pub(in crate::cli) fn find(&mut self, id: &str) -> Result<Option<FarJob>, LedgerError> {
        match self.book.find(id)? {
            Some(row) => self.far(row),
            None => Ok(None),
        }
    }

    /// `None`: it is this node's, which then says how it ended, if the ledger has not heard of that.
    fn far(&mut self, row: JobRow) -> Result<Option<FarJob>, LedgerError> {
        let own = jobs::is_name(&row.id).then(|| JobOwners::read(&self.directory, &row.id));
        let Some(own) = own.flatten().filter(|own| own.has(row.owner)) else {
            return Ok(Some(FarJob::new(row, self.lease)));
        };
        if row.state == JobState::Running
            && own.are_over()
            && let Ok(summary) = Summary::find(&self.directory, &row.id)
        {
            let state = match summary.phase {
                Phase::Ended => JobState::Ended,
                Phase::Running | Phase::Stopped => JobState::Stopped,
            };
            let told = serde_json::to_string(&summary).ok();
            self.book
                .settle((&row.id, row.owner), &[JobState::Running], state, told.as_deref())?;
        }
        Ok(None)
    }
}

/// A job of another node, for a command about one job, which waits for less if it has one of that name itself. Without a ledger
/// there is none.
///
/// # Errors
/// The ledger can't be asked.
pub(super) fn find(settings: &Settings, id: &str, is_here: bool) -> Result<Option<FarJob>, Failure> {
    match FarJobs::within(settings, if is_here { SHOWN_WITHIN } else { PATIENCE })? {
        Some(mut far) => Ok(far.find(id)?),
        None => Ok(None),
    }
}

/// Another node's job with what it is to do; `None`: it is this node's, or there is none.
///
/// # Errors
/// The ledger can't be asked.
pub(super) fn show(settings: &Settings, id: &str) -> Result<Option<serde_json::Value>, Failure> {
    let Some(mut jobs) = FarJobs::new(settings)? else {
        return Ok(None);
    };
    let Some(far) = jobs.find(id)? else {
        return Ok(None);
    };
    let mut all = far.json();
    let spec = jobs.book.kept(id)?.and_then(|kept| kept.spec);
    if let Some(all) = all.as_object_mut()
        && let Some(spec) = spec.and_then(|spec| serde_json::from_str(&spec).ok())
    {
        all.insert("spec".into(), spec);
    }
    Ok(Some(all))
}

/// This node's job was cancelled.
pub(super) fn cancelled(settings: &Settings, id: &str) -> Result<(), Failure> {
    let from = [JobState::Running, JobState::Stopped, JobState::Failed];
    if let Some(FarJobs {
        mut book, directory, ..
    }) = FarJobs::within(settings, PATIENCE)?
        && let Some(own) = JobOwners::read(&directory, id)
        && let Some(row) = book.find(id)?.filter(|row| own.has(row.owner))
    {
        book.settle((id, row.owner), &from, JobState::Cancelled, None)?;
    }
    Ok(())
}

/// Has the node that is at a job stop it.
pub(super) fn cancel(settings: &Settings, far: FarJob) -> Result<(), Failure> {
    const LEFT: &str = "what it had asked for goes on to its end; lhsmtool-s3 cancel PATH stops that";
    let FarJob { row, is_silent, .. } = far;
    let (id, node) = (&row.id, &row.node);
    let Some(FarJobs { mut book, lease, .. }) = FarJobs::within(settings, PATIENCE)? else {
        return Ok(());
    };
    match row.state {
        JobState::Ended => outln!("{id}: has ended on node '{node}'; nothing is left to be stopped"),
        JobState::Cancelled => outln!("{id}: was cancelled before"),
        JobState::Stopped | JobState::Failed => {
            book.settle((id, row.owner), &[row.state], JobState::Cancelled, None)?;
            outln!("{id}: was {} on node '{node}'; {LEFT}", row.state.word());
        }
        JobState::Running => {
            book.stop(&row)?;
            let until = Instant::now()
                + if is_silent {
                    HEEDS_WITHIN / 3
                } else {
                    lease + HEEDS_WITHIN
                };
            loop {
                let Some(now) = book.find(id)? else {
                    return Err(format!("the ledger has no job '{id}' any more").into());
                };
                if now.owner != row.owner {
                    let text = format!(
                        "node '{}' has taken job '{id}' over meanwhile: cancel it again",
                        now.node
                    );
                    return Err(ExitWith::failed(text).into());
                }
                if now.state != JobState::Running {
                    match now.state {
                        JobState::Cancelled => outln!("{id}: stopped on node '{node}', with what it had asked for"),
                        state => outln!("{id}: {} on node '{node}' before it could be cancelled", state.word()),
                    }
                    return Ok(());
                }
                if Instant::now() >= until {
                    let text = format!(
                        "node '{node}' has not told of job '{id}' for {}: it stops the job as soon as it has the ledger again. If it \
                         is dead, {LEFT}",
                        ago(now.age)
                    );
                    return Err(ExitWith::failed(text).into());
                }
                std::thread::park_timeout(LOOK);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
pub(in crate::cli) fn example() -> FarJob {
    let row = JobRow {
        id: "restore-1".into(),
        node: "node7".into(),
        mover: "mover7".into(),
        renewals: 9,
        age: Duration::from_secs(90),
        ..JobRow::default()
    };
    FarJob::new(row, Duration::from_secs(20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_of_another_node_is_told_with_its_node_and_how_old_the_news_are() {
        let mut job = example();
        assert_eq!((job.word(), job.goes_on()), ("silent", false));
        assert_eq!(job.line(), "how far it is that node knows; on node7, told 1m 30s ago");
        let json = job.json();
        assert_eq!(
            (
                &json["id"],
                &json["state"],
                &json["node"],
                &json["age"],
                &json["renewals"]
            ),
            (
                &"restore-1".into(),
                &"silent".into(),
                &"node7".into(),
                &90.0_f64.into(),
                &9.into()
            )
        );
        job.row.age = Duration::from_secs(1);
        job.row.is_to_stop = true;
        let job = FarJob::new(job.row, Duration::from_secs(20));
        assert_eq!((job.word(), job.goes_on()), ("running", true));
        assert!(job.line().ends_with("told 1s ago, is to stop"), "{}", job.line());
    }
}
