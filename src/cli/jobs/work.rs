//! A job is done before the user's eyes.

use std::path::Path;
use std::time::{Duration, Instant};

use super::Failure;
use super::progress::{bytes, progress, show};
use super::shared::{self, Sharing};
use crate::cli::ExitWith;
use crate::cli::session::{open_mount, runtime, stopped_by_signals};
use crate::config::Settings;
use crate::fleet::Fleet;
use crate::jobs::{self, JobError, JobSpec, Ledger, Outcome, Phase, Summary};
use crate::ledger::{JobInterrupt, JobState, JobTeller};
use crate::lustre::{Identify, Mount, UserAction};

/// Does what is left of it.
pub(super) fn work(
    spec: &JobSpec,
    ledger: &Ledger,
    settings: &Settings,
    directory: &Path,
    sharing: Option<Sharing>,
    json: bool,
) -> Result<(), Failure> {
    let mount = open_mount(settings, &spec.mount, Identify::Find)?;
    let runtime = runtime()?;
    let control = stopped_by_signals(&runtime);
    let teller = match sharing {
        Some(sharing) => sharing.start(spec, settings, &mount, &control)?,
        None => None,
    };
    let mut progress = progress(json);
    let mut written = None::<Instant>;
    let mut last = None::<Summary>;
    let may_ask = || teller.as_ref().is_none_or(JobTeller::may_go_on);
    let fleet = Fleet::new(settings.movers.clone());
    let result = jobs::run(&mount, spec, ledger, &control, &fleet, &may_ask, &mut |summary| {
        show(&mut progress, summary);
        if summary.phase != Phase::Running || written.is_none_or(|at| at.elapsed() >= Duration::from_secs(1)) {
            written = Some(Instant::now());
            if let Err(error) = summary.write(directory) {
                tracing::warn!(job = summary.id, %error, "others can't see how far the job is");
            }
            if let Some(teller) = &teller
                && let Ok(told) = serde_json::to_string(summary)
            {
                teller.tell(told);
            }
            last = Some(summary.clone());
        }
    });
    progress.end();
    if let Some(teller) = teller {
        tell_end(teller, &result, last, (&mount, spec, ledger))?;
    }
    let summary = match result {
        Ok(summary) => summary,
        Err(error @ JobError::Stopped(_)) => return Err(ExitWith::stopped(error.to_string()).into()),
        Err(error) => return Err(error.into()),
    };
    if json {
        outln!("{}", serde_json::to_string(&summary)?);
    } else {
        outln!("{}", last_line(&summary, spec.dry_run));
    }
    match summary.counts.failed {
        0 => Ok(()),
        failed if spec.dry_run => Err(ExitWith::failed(format!("{failed} files can't be done")).into()),
        failed => Err(ExitWith::failed(format!(
            "{failed} files failed; lhsmtool-s3 jobs report --failed {} says why",
            spec.id
        ))
        .into()),
    }
}

/// Says how it ended. What others stopped is an error in their words.
fn tell_end(
    teller: JobTeller,
    result: &Result<Summary, JobError>,
    mut last: Option<Summary>,
    (mount, spec, ledger): (&Mount, &JobSpec, &Ledger),
) -> Result<(), Failure> {
    let id = &spec.id;
    let state = match result {
        Ok(_) => JobState::Ended,
        Err(JobError::Stopped(_)) => match teller.interrupt() {
            Some(JobInterrupt::Cancelled) => {
                // Whoever wants it waits for this.
                let asked = cancel_requested(mount, spec, ledger);
                shared::end(teller, id, JobState::Cancelled, last.as_ref());
                let words = format!(
                    "{id}: cancelled by way of the ledger; {} actions were asked to be cancelled",
                    asked?
                );
                return Err(ExitWith::stopped(words).into());
            }
            Some(JobInterrupt::Taken { node }) => {
                let words = format!(
                    "{id}: goes on on node '{node}', which has taken it over; this run has stopped (lhsmtool-s3 status {id} shows how \
                     far it is)"
                );
                return Err(ExitWith::stopped(words).into());
            }
            None => JobState::Stopped,
        },
        Err(error) => {
            if let Some(last) = &mut last {
                last.waits_for = error.to_string();
            }
            JobState::Failed
        }
    };
    shared::end(teller, id, state, last.as_ref());
    Ok(())
}

/// Asks the coordinator to stop what a job asked for that has not ended; how many those are.
pub(super) fn cancel_requested(mount: &Mount, spec: &JobSpec, ledger: &Ledger) -> Result<u64, Failure> {
    let mut asked = 0u64;
    ledger.rows::<Failure>(|_, row| {
        if row.outcome == Outcome::Requested
            && let Ok(fid) = row.fid.parse()
            && mount.has_action(fid).unwrap_or(false)
        {
            match mount.request(UserAction::Cancel, spec.archive_id, &[fid]) {
                Ok(()) => asked += 1,
                Err(error) => tracing::warn!(file = row.fid, %error, "can't be cancelled"),
            }
        }
        Ok(())
    })?;
    Ok(asked)
}

fn last_line(summary: &Summary, dry_run: bool) -> String {
    let counts = &summary.counts;
    let name = if dry_run {
        "dry run, nothing was asked for"
    } else {
        &summary.id
    };
    format!(
        "{name}: {} done ({}), {} had nothing to be done, {} failed, in {:.1} s",
        counts.done,
        bytes(counts.bytes),
        counts.already,
        counts.failed,
        summary.seconds
    )
}
