//! The command line.

use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};

use crate::config::Settings;
use crate::lustre::UserAction;

#[macro_use]
mod output;

mod bench;
mod bucket;
mod check;
mod drain;
mod export;
mod follow;
mod forget;
mod generate;
mod import;
mod jobs;
mod ledger;
mod mds;
mod print_config;
mod progress;
mod rebind;
mod reference;
mod scrub;
mod session;
mod status;

pub use bench::BenchArgs;
pub use bucket::Bucket;
pub use check::CheckArgs;
pub use drain::DrainArgs;
pub use export::ExportArgs;
pub use follow::FollowArgs;
pub use forget::{ForgetArgs, watch_over};
pub use generate::GenerateArgs;
pub use import::{ImportArgs, RebuildArgs};
pub use jobs::{Format, JobArgs, JobsCommand};
pub use ledger::{LedgerArgs, LedgerCommand};
pub use output::told;
pub use print_config::PrintConfigArgs;
pub use rebind::RebindArgs;
pub use reference::ReferenceArgs;
pub use scrub::ScrubArgs;
use session::{Session, SessionPlan};
pub use status::StatusArgs;

/// Lustre HSM copytool for S3: archives files to a bucket and restores them when they are opened.
#[derive(Debug, Parser)]
#[command(name = "lhsmtool-s3", version, about, long_about = None)]
pub struct Cli {
    /// Configuration file (a complete example is config/lhsmtool-s3.toml)
    #[arg(
        long,
        short = 'C',
        value_name = "FILE",
        global = true,
        default_value = "/etc/lhsmtool-s3/lhsmtool-s3.toml"
    )]
    pub config: PathBuf,

    /// Lustre mount point; goes before `mount` in the configuration
    #[arg(value_name = "MOUNT")]
    pub mount: Option<PathBuf>,

    #[command(flatten)]
    pub reference: ReferenceArgs,

    /// What to do instead of serving as the copytool
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Everything beside the daemon.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Measure the configured store: throughput, requests a second, latencies; cleans up after itself
    Bench(BenchArgs),
    /// Look at everything that the daemon needs: configuration, Lustre, each store's permissions; what to do where it lacks
    Check(CheckArgs),
    /// What the configuration comes to: the file, what is in FILE.d beside it, the environment, the defaults
    PrintConfig(PrintConfigArgs),
    /// Have the daemon of a mount take nothing new, do what it has, and end: before a reboot, or for good
    Drain(DrainArgs),
    /// After the death of a daemon: have Lustre forget it, so that actions wait for the next one (the systemd unit does so)
    #[command(hide = true)]
    ForgetAgent(ForgetArgs),
    /// Man pages and completions, for packages
    #[command(hide = true)]
    Generate(GenerateArgs),
    /// Make a released file for each object of a bucket: the first read restores it
    Import(Box<ImportArgs>),
    /// The ledger in PostgreSQL that movers of one file system share: make it, look at it, bring it to this release
    Ledger(LedgerArgs),
    /// Re-create the files of a lost file system, released, from what their objects' metadata tells
    Rebuild(RebuildArgs),
    /// Write what has no data to the bucket: directories and symlinks, so that an import makes the same tree
    Export(ExportArgs),
    /// Archive files: of trees or lists, with one report of it all
    Archive(JobArgs),
    /// Bring files' data back, in the order of a list if one is given
    Restore(JobArgs),
    /// Give archived files' space back
    Release(JobArgs),
    /// Remove files' copies; the files stay
    Remove(JobArgs),
    /// Stop what goes on with files
    Cancel(JobArgs),
    /// Jobs that run or have run: list, show, resume, cancel, report
    #[command(subcommand)]
    Jobs(JobsCommand),
    /// How far jobs and movers are; with a ledger those of all nodes
    Status(StatusArgs),
    /// Compare what files say of their copies with what the bucket has; find what is lost and what is nobody's
    Scrub(ScrubArgs),
    /// After objects were copied to another bucket, prefix or store by other tools: renew what files say of their copies
    Rebind(RebindArgs),
}

/// An end with an exit code of its own: 1 some files failed, 2 the command is wrong, 3 stopped before the end.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ExitWith {
    /// For the shell.
    pub code: u8,
    message: String,
}

impl ExitWith {
    const fn failed(message: String) -> Self {
        Self { code: 1, message }
    }

    const fn usage(message: String) -> Self {
        Self { code: 2, message }
    }

    const fn stopped(message: String) -> Self {
        Self { code: 3, message }
    }
}

impl Command {
    /// The level of its log: what goes on until it is stopped tells of itself as the daemon does.
    #[must_use]
    pub fn log_level<'a>(&self, settings: &'a Settings) -> &'a str {
        match self {
            Self::Export(args) if args.goes_on() => &settings.log_level,
            _ => "warn",
        }
    }

    /// Does it.
    ///
    /// # Errors
    /// What went wrong, for a person.
    pub fn run(&self, settings: &Settings, config: &Path) -> Result<(), Box<dyn std::error::Error>> {
        output::begin(matches!(self, Self::Scrub(args) if args.only_tells()));
        told(self.perform(settings, config))
    }

    fn perform(&self, settings: &Settings, config: &Path) -> Result<(), Box<dyn std::error::Error>> {
        match self {
            Self::Archive(args) => jobs::run(args, UserAction::Archive, settings, config),
            Self::Restore(args) => jobs::run(args, UserAction::Restore, settings, config),
            Self::Release(args) => jobs::run(args, UserAction::Release, settings, config),
            Self::Remove(args) => jobs::run(args, UserAction::Remove, settings, config),
            Self::Cancel(args) => jobs::run(args, UserAction::Cancel, settings, config),
            Self::Jobs(command) => jobs::command(command, settings),
            Self::Status(args) => status::run(args, settings),
            Self::Check(args) => args.run(config),
            Self::Drain(args) => args.run(settings),
            Self::ForgetAgent(args) => args.run(settings),
            Self::Generate(args) => args.run(),
            Self::PrintConfig(args) => args.run(config),
            Self::Bench(args) => bench::run(args, settings),
            Self::Import(args) => import::import(args, settings),
            Self::Ledger(args) => args.run(settings),
            Self::Rebuild(args) => import::rebuild(args, settings),
            Self::Export(args) => export::run(args, settings),
            Self::Scrub(args) => scrub::run(args, settings),
            Self::Rebind(args) => rebind::run(args, settings),
        }
    }
}
