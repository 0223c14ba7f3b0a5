//! `lhsmtool-s3 status`: how far jobs are, from any terminal.

use std::io::IsTerminal as _;
use std::time::Duration;

use clap::Args;

use super::jobs::line;
use crate::config::Settings;
use crate::jobs::{self, Phase, Summary};

/// Which, and how.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// One job (default: all that run)
    job: Option<String>,
    /// Until they end; a new line every ten seconds where this is no terminal
    #[arg(long)]
    watch: bool,
    /// A line of JSON for each job
    #[arg(long)]
    json: bool,
}

type Failure = Box<dyn std::error::Error>;

pub(super) fn run(args: &StatusArgs, settings: &Settings) -> Result<(), Failure> {
    let directory = jobs::directory(&settings.state_dir);
    let live = args.watch && !args.json && std::io::stdout().is_terminal();
    let pause = Duration::from_secs(if live || args.json { 1 } else { 10 });
    loop {
        let shown = match &args.job {
            Some(job) => vec![Summary::find(&directory, job)?],
            None => Summary::all(&directory)?,
        };
        let running = |summary: &&Summary| summary.phase == Phase::Running;
        let at_work = shown.iter().filter(running).count();
        if live {
            // From the top of an empty screen.
            print!("\x1b[H\x1b[2J");
        }
        for summary in shown.iter().filter(|summary| args.job.is_some() || running(summary)) {
            if args.json {
                println!("{}", serde_json::to_string(summary)?);
            } else {
                println!("{} ({}): {}", summary.id, summary.phase.word(), line(summary));
            }
        }
        if at_work == 0 && !args.json && args.job.is_none() {
            println!("no job runs; lhsmtool-s3 jobs list has those that have ended");
        }
        if !args.watch || at_work == 0 {
            return Ok(());
        }
        std::thread::park_timeout(pause);
    }
}
