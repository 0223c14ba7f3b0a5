//! The demo: real files go to S3 through the real daemon and come back when they are read.

mod report;
mod run;
mod tree;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Archives a directory of real files to S3, releases them, reads them back, and compares.
#[derive(Debug, Parser)]
#[command(name = "cargo demo")]
struct Cli {
    /// Files to take; default: this project's tree and one file of 256 MiB
    #[arg(long, value_name = "DIR")]
    source: Option<PathBuf>,
    /// One line of JSON on stdout instead of the table
    #[arg(long)]
    json: bool,
    /// A real store instead of the embedded one (credentials from the usual AWS variables)
    #[arg(long, value_name = "URL", requires = "bucket")]
    s3: Option<String>,
    /// Its bucket
    #[arg(long, value_name = "NAME")]
    bucket: Option<String>,
    /// Where the sandbox is made; default: the system's directory for temporary files
    #[arg(long, value_name = "DIR")]
    work_dir: Option<PathBuf>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = run::run(&cli);
    match outcome {
        Ok(report) => {
            if cli.json {
                println!("{}", report.json());
            } else {
                print!("{}", report.table());
            }
            if report.is_whole() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}
