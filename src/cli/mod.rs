//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::config::Settings;

mod bench;
mod bucket;
mod export;
mod import;
mod scrub;
mod site;

pub use bench::BenchArgs;
pub use bucket::Bucket;
pub use export::ExportArgs;
pub use import::{ImportArgs, RebuildArgs};
pub use scrub::ScrubArgs;
use site::{Site, SitePlan};

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

    /// What to do instead of serving as the copytool
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Everything beside the daemon.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Measure the configured store: throughput, requests a second, latencies; cleans up after itself
    Bench(BenchArgs),
    /// Make a released file for each object of a bucket: the first read restores it
    Import(Box<ImportArgs>),
    /// Re-create the files of a lost file system, released, from what their objects' metadata tells
    Rebuild(RebuildArgs),
    /// Write what has no data to the bucket: directories and symlinks, so that an import makes the same tree
    Export(ExportArgs),
    /// Compare what files say of their copies with what the bucket has; find what is lost and what is nobody's
    Scrub(ScrubArgs),
}

impl Command {
    /// Does it.
    ///
    /// # Errors
    /// What went wrong, for a person.
    pub fn run(&self, settings: &Settings) -> Result<(), Box<dyn std::error::Error>> {
        match self {
            Self::Bench(args) => bench::run(args, settings),
            Self::Import(args) => import::import(args, settings),
            Self::Rebuild(args) => import::rebuild(args, settings),
            Self::Export(args) => export::run(args, settings),
            Self::Scrub(args) => scrub::run(args, settings),
        }
    }
}
