//! `lhsmtool-s3 jobs`: shows jobs, goes on with them, stops them.

use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Subcommand, ValueEnum};

use super::Failure;
use super::far::{self, FarJobs};
use super::progress::line;
use super::shared::{self, Given, Sharing};
use super::work::{cancel_requested, work};
use crate::cli::output::Stdout;
use crate::cli::session::open_mount;
use crate::config::Settings;
use crate::jobs::{self, JobSpec, Ledger, LedgerError, Outcome, Phase, Summary};
use crate::lustre::Identify;

/// What to do with jobs.
#[derive(Debug, Subcommand)]
pub enum JobsCommand {
    /// All jobs, the oldest first; with a ledger also those of other nodes
    List {
        /// A line of JSON for each
        #[arg(long)]
        json: bool,
    },
    /// One job, and the first of its failures
    Show {
        /// Its name
        job: String,
    },
    /// Go on with a job that was stopped or killed; with a ledger also with another node's
    Resume {
        /// Its name
        job: String,
        /// Where the file system is mounted here, if another node's job has it elsewhere
        #[arg(long, value_name = "MOUNT")]
        mount: Option<PathBuf>,
        /// The names of another node's job, where the ledger does not have them
        #[arg(long, value_name = "FILE")]
        from_file: Option<PathBuf>,
        /// Also what has failed before
        #[arg(long)]
        retry_failed: bool,
        /// One line of JSON at the end
        #[arg(long)]
        json: bool,
    },
    /// Stop a job, on whatever node it runs, and ask the coordinator to stop what it asked for
    Cancel {
        /// Its name
        job: String,
    },
    /// Every file of a job: state, bytes, seconds, reason
    Report {
        /// Its name
        job: String,
        /// How
        #[arg(long, value_enum, default_value = "csv")]
        format: Format,
        /// Only what has failed
        #[arg(long)]
        failed: bool,
        /// Where to (default: standard output)
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

/// Of a report.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Format {
    /// With a head.
    Csv,
    /// A line for each file.
    Json,
}

pub(in crate::cli) fn command(command: &JobsCommand, settings: &Settings) -> Result<(), Failure> {
    let directory = jobs::directory(&settings.state_dir);
    match command {
        JobsCommand::List { json } => list(&directory, settings, *json),
        JobsCommand::Show { job } => show(&directory, settings, job),
        JobsCommand::Resume {
            job,
            mount,
            from_file,
            retry_failed,
            json,
        } => {
            let (ledger, spec, sharing) = match Ledger::open(&directory, job) {
                Ok((ledger, mut spec)) => {
                    let sharing = Sharing::reclaim(&mut spec, settings, &directory)?;
                    (ledger, spec, sharing)
                }
                Err(LedgerError::None { .. }) => {
                    let given = Given {
                        mount: mount.as_deref(),
                        from_file: from_file.as_deref(),
                    };
                    shared::adopt(job, settings, &directory, &given)?
                }
                Err(error) => return Err(error.into()),
            };
            if *retry_failed {
                ledger.forget_failed()?;
            }
            work(&spec, &ledger, settings, &directory, sharing, *json)
        }
        JobsCommand::Cancel { job } => cancel(&directory, job, settings),
        JobsCommand::Report {
            job,
            format,
            failed,
            output,
        } => {
            let (ledger, _) = Ledger::open(&directory, job).map_err(|error| elsewhere(error, settings, job))?;
            report(&ledger, *format, *failed, output.as_deref())
        }
    }
}

fn list(directory: &Path, settings: &Settings, json: bool) -> Result<(), Failure> {
    let far = match FarJobs::new(settings)? {
        Some(mut jobs) => jobs.read(false),
        None => Ok(Vec::new()),
    };
    let far = far.unwrap_or_else(|error| {
        tracing::warn!(%error, "jobs of other nodes are not listed");
        Vec::new()
    });
    for summary in Summary::all(directory)? {
        // What another node has taken over is that one's.
        if far.iter().any(|job| job.id() == summary.id) {
            continue;
        }
        if json {
            outln!("{}", serde_json::to_string(&summary)?);
        } else {
            outln!("{:<36} {:<9} {}", summary.id, summary.phase.word(), line(&summary));
        }
    }
    for job in far {
        if json {
            outln!("{}", job.json());
        } else {
            outln!("{:<36} {:<9} {}", job.id(), job.word(), job.line());
        }
    }
    Ok(())
}

/// What this node has not may be another one's.
fn elsewhere(error: LedgerError, settings: &Settings, job: &str) -> Failure {
    match far::find(settings, job, false) {
        Ok(Some(far)) => format!(
            "what came of each file is on the node that did it: {}: {}",
            job,
            far.line()
        )
        .into(),
        _ => error.into(),
    }
}

fn show(directory: &Path, settings: &Settings, job: &str) -> Result<(), Failure> {
    const MOST: usize = 20;
    let summary = Summary::find(directory, job);
    match far::show(settings, job) {
        // Another node has taken it over, perhaps.
        Ok(Some(far)) => {
            outln!("{}", serde_json::to_string_pretty(&far)?);
            return Ok(());
        }
        Ok(None) => {}
        Err(error) if summary.is_ok() => tracing::warn!(job, %error, "whether another node has it now is not known"),
        Err(error) => return Err(error),
    }
    let summary = summary?;
    outln!("{}", serde_json::to_string_pretty(&summary)?);
    if summary.phase == Phase::Running || summary.counts.failed == 0 {
        return Ok(());
    }
    let (ledger, _) = Ledger::open(directory, job)?;
    let mut said = 0;
    ledger.rows::<Failure>(|path, row| {
        if row.outcome == Outcome::Failed && said < MOST {
            said += 1;
            outln!("{}: {}", String::from_utf8_lossy(path), row.reason);
        }
        Ok(())
    })
}

fn cancel(directory: &Path, job: &str, settings: &Settings) -> Result<(), Failure> {
    let summary = Summary::find(directory, job);
    match far::find(settings, job, summary.is_ok()) {
        Ok(Some(far)) => return far::cancel(settings, far),
        Ok(None) => {}
        // Of its own job this node needs no ledger, unless another one has that by now.
        Err(error) if summary.is_ok() => tracing::warn!(
            job,
            %error,
            "whether another node has taken the job over can't be known now: cancel it again when the ledger is back"
        ),
        Err(error) => return Err(error),
    }
    let summary = summary?;
    // Only a process that has the ledger is the job's: a pid may be another's by now.
    if let Err(LedgerError::Running(_)) = Ledger::open(directory, job) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(summary.pid)?);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
    }
    let (ledger, spec) = opened(directory, job)?;
    let mount = open_mount(settings, &spec.mount, Identify::Find)?;
    let asked = cancel_requested(&mount, &spec, &ledger)?;
    outln!("{job}: stopped; {asked} actions were asked to be cancelled");
    if let Err(error) = far::cancelled(settings, job) {
        tracing::warn!(job, %error, "to other nodes the job is not cancelled");
    }
    Ok(())
}

/// Waits for the process that was just told to end.
fn opened(directory: &Path, job: &str) -> Result<(Ledger, JobSpec), LedgerError> {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        match Ledger::open(directory, job) {
            Err(LedgerError::Running(_)) if Instant::now() < until => {
                std::thread::park_timeout(Duration::from_millis(100));
            }
            opened => return opened,
        }
    }
}

fn report(ledger: &Ledger, format: Format, only_failed: bool, output: Option<&Path>) -> Result<(), Failure> {
    let output: Box<dyn std::io::Write> = match output {
        Some(path) => Box::new(std::fs::File::create(path)?),
        None => Box::new(Stdout),
    };
    let mut output = BufWriter::new(output);
    let mut lines = csv::Writer::from_writer(Vec::new());
    if format == Format::Csv {
        writeln!(output, "path,state,fid,bytes,seconds,errno,reason")?;
    }
    ledger.rows::<Failure>(|path, row| {
        if only_failed && row.outcome != Outcome::Failed {
            return Ok(());
        }
        let path = String::from_utf8_lossy(path);
        match format {
            Format::Json => {
                let mut value = serde_json::to_value(&row)?;
                if let Some(value) = value.as_object_mut() {
                    value.insert("path".into(), path.into());
                }
                writeln!(output, "{value}")?;
            }
            Format::Csv => {
                let state = serde_json::to_value(row.outcome)?;
                lines.write_record([
                    path.as_ref(),
                    state.as_str().unwrap_or_default(),
                    &row.fid,
                    &row.size.to_string(),
                    &format!("{:.3}", row.seconds),
                    &row.errno.to_string(),
                    &row.reason,
                ])?;
                lines.flush()?;
                let done = std::mem::replace(&mut lines, csv::Writer::from_writer(Vec::new()));
                output.write_all(&done.into_inner().map_err(|error| error.into_error())?)?;
            }
        }
        Ok(())
    })?;
    output.flush()?;
    Ok(())
}
