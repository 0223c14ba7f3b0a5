//! `lhsmtool-s3 jobs`: shows jobs, goes on with them, stops them.

use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Subcommand, ValueEnum};

use super::Failure;
use super::progress::line;
use super::work::work;
use crate::cli::output::Stdout;
use crate::cli::session::open_mount;
use crate::config::Settings;
use crate::jobs::{self, JobSpec, Ledger, LedgerError, Outcome, Phase, Summary};
use crate::lustre::{Identify, UserAction};

/// What to do with jobs.
#[derive(Debug, Subcommand)]
pub enum JobsCommand {
    /// All jobs, the oldest first
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
    /// Go on with a job that was stopped or killed
    Resume {
        /// Its name
        job: String,
        /// Also what has failed before
        #[arg(long)]
        retry_failed: bool,
        /// One line of JSON at the end
        #[arg(long)]
        json: bool,
    },
    /// Stop a job, and ask the coordinator to stop what it asked for
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
        JobsCommand::List { json } => list(&directory, *json),
        JobsCommand::Show { job } => show(&directory, job),
        JobsCommand::Resume {
            job,
            retry_failed,
            json,
        } => {
            let (ledger, spec) = Ledger::open(&directory, job)?;
            if *retry_failed {
                ledger.forget_failed()?;
            }
            work(&spec, &ledger, settings, &directory, *json)
        }
        JobsCommand::Cancel { job } => cancel(&directory, job, settings),
        JobsCommand::Report {
            job,
            format,
            failed,
            output,
        } => {
            let (ledger, _) = Ledger::open(&directory, job)?;
            report(&ledger, *format, *failed, output.as_deref())
        }
    }
}

fn list(directory: &Path, json: bool) -> Result<(), Failure> {
    for summary in Summary::all(directory)? {
        if json {
            outln!("{}", serde_json::to_string(&summary)?);
        } else {
            outln!("{:<36} {:<8} {}", summary.id, summary.phase.word(), line(&summary));
        }
    }
    Ok(())
}

fn show(directory: &Path, job: &str) -> Result<(), Failure> {
    const MOST: usize = 20;
    let summary = Summary::find(directory, job)?;
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
    let summary = Summary::find(directory, job)?;
    // Only a process that has the ledger is the job's: a pid may be another's by now.
    if let Err(LedgerError::Running(_)) = Ledger::open(directory, job) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(summary.pid)?);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
    }
    let (ledger, spec) = opened(directory, job)?;
    let mount = open_mount(settings, &spec.mount, Identify::Find)?;
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
    outln!("{job}: stopped; {asked} actions were asked to be cancelled");
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
