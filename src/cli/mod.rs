//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::config::Settings;

mod bench;

pub use bench::BenchArgs;

/// Lustre HSM copytool for S3: archives files to a bucket and restores them when they are opened.
#[derive(Debug, Parser)]
#[command(name = "lhsmtool-s3", version, about, long_about = None, args_conflicts_with_subcommands = true)]
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

/// What needs no Lustre.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Measure the configured store: throughput, requests a second, latencies; cleans up after itself
    Bench(BenchArgs),
}

impl Command {
    /// Does it.
    ///
    /// # Errors
    /// What went wrong, for a person.
    pub fn run(&self, settings: &Settings) -> Result<(), Box<dyn std::error::Error>> {
        match self {
            Self::Bench(args) => bench::run(args, settings),
        }
    }
}
