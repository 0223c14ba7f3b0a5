//! Parse > settings > logging > run > exit code.

use std::process::ExitCode;

use clap::Parser as _;
use lhsmtool_s3::cli::Cli;
use lhsmtool_s3::{config, daemon, telemetry};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The one place where an error meets a person.
            eprintln!("lhsmtool-s3: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<(), Box<dyn std::error::Error>> {
    let settings = config::load(&cli.config, cli.mount.as_deref())?;
    telemetry::init(&settings.log_level, settings.log_format);
    daemon::run(&settings)?;
    Ok(())
}
