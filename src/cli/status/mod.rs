//! `lhsmtool-s3 status`: how far jobs and movers are, from any terminal.

mod fleet;
mod paths;
mod report;
mod screen;
mod text;

use std::io::{BufWriter, IsTerminal as _, Write as _};
use std::path::Path;
use std::time::Duration;

use clap::Args;

use self::paths::Paths;
use self::report::Report;
use super::ExitWith;
use super::jobs::FarJobs;
use super::mds::MDTS;
use crate::config::{Settings, is_host_and_port};
use crate::fleet::Fleet;
use crate::jobs;

/// Which, and how.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// One job (default: all that run; with a ledger also those of other nodes)
    job: Option<String>,
    /// All movers of the ledger, also of other nodes: who lives, what each has in hand, and what is wrong with whom
    #[arg(long, conflicts_with_all = ["job", "movers"])]
    fleet: bool,
    /// Until they end; a new report every ten seconds where this is no terminal
    #[arg(long)]
    watch: bool,
    /// A line of JSON for each job, and one for the movers where there are any
    #[arg(long)]
    json: bool,
    /// Movers to ask instead of those in the configuration
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    movers: Option<Vec<String>>,
}

type Failure = Box<dyn std::error::Error>;

pub(super) fn run(args: &StatusArgs, settings: &Settings) -> Result<(), Failure> {
    if args.fleet {
        return fleet::run(settings, args.watch, args.json);
    }
    let movers = args.movers.as_ref().unwrap_or(&settings.movers);
    if let Some(bad) = movers.iter().find(|mover| !is_host_and_port(mover)) {
        let text = format!("--movers: '{bad}' must be a host and a port, such as mover1:9818");
        return Err(ExitWith::usage(text).into());
    }
    let fleet = Fleet::new(movers.clone());
    let directory = jobs::directory(&settings.state_dir);
    let mut far = FarJobs::new(settings)?;
    let mut paths = Paths::new(&settings.library);
    let mut read = || -> Result<Report, Failure> {
        let mut report = Report::read(
            (&directory, &settings.state_dir),
            args.job.as_deref(),
            far.as_mut(),
            &fleet,
            Path::new(MDTS),
        )?;
        paths.fill(&mut report);
        Ok(report)
    };
    if args.watch && !args.json && std::io::stdout().is_terminal() {
        return screen::watch(&mut read);
    }
    let pause = Duration::from_secs(if args.json { 1 } else { 10 });
    let mut is_said = false;
    loop {
        let report = read()?;
        let mut out = BufWriter::new(super::output::Stdout);
        if args.json {
            if let Some(error) = report.far_error.as_ref().filter(|_| !is_said) {
                is_said = true;
                tracing::warn!(error, "jobs of other nodes are not shown");
            }
            text::json(&mut out, &report)?;
        } else {
            text::plain(&mut out, &report)?;
        }
        out.flush()?;
        if !args.watch || !report.goes_on() {
            return Ok(());
        }
        drop(out);
        std::thread::park_timeout(pause);
    }
}
