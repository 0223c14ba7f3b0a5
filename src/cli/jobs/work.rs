//! A job is done before the user's eyes.

use std::path::Path;
use std::time::{Duration, Instant};

use super::Failure;
use super::progress::{bytes, progress, show};
use crate::cli::ExitWith;
use crate::cli::session::{open_mount, runtime, stopped_by_signals};
use crate::config::Settings;
use crate::fleet::Fleet;
use crate::jobs::{self, JobError, JobSpec, Ledger, Phase, Summary};
use crate::lustre::Identify;

/// Does what is left of it.
pub(super) fn work(
    spec: &JobSpec,
    ledger: &Ledger,
    settings: &Settings,
    directory: &Path,
    json: bool,
) -> Result<(), Failure> {
    let mount = open_mount(settings, &spec.mount, Identify::Find)?;
    let runtime = runtime()?;
    let control = stopped_by_signals(&runtime);
    let mut progress = progress(json);
    let mut written = None::<Instant>;
    let fleet = Fleet::new(settings.movers.clone());
    let result = jobs::run(&mount, spec, ledger, &control, &fleet, &mut |summary| {
        show(&mut progress, summary);
        if summary.phase != Phase::Running || written.is_none_or(|at| at.elapsed() >= Duration::from_secs(1)) {
            written = Some(Instant::now());
            if let Err(error) = summary.write(directory) {
                tracing::warn!(job = summary.id, %error, "others can't see how far the job is");
            }
        }
    });
    progress.end();
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
