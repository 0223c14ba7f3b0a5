//! The command line.

use std::path::PathBuf;

use clap::Parser;

/// Lustre HSM copytool for S3: archives files to a bucket and restores them when they are opened.
#[derive(Debug, Parser)]
#[command(name = "lhsmtool-s3", version, about, long_about = None)]
pub struct Cli {
    /// Configuration file (a complete example is config/lhsmtool-s3.toml)
    #[arg(
        long,
        short = 'C',
        value_name = "FILE",
        default_value = "/etc/lhsmtool-s3/lhsmtool-s3.toml"
    )]
    pub config: PathBuf,

    /// Lustre mount point; goes before `mount` in the configuration
    #[arg(value_name = "MOUNT")]
    pub mount: Option<PathBuf>,
}
