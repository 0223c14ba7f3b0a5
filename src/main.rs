//! Parse > settings > logging > run > exit code.

use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;
use lhsmtool_s3::cli::{Cli, ExitWith};
use lhsmtool_s3::{config, daemon, telemetry};

/// Small requests are small allocations, by the hundred: this one takes a quarter less time for a small file
/// than the C library's, and gives memory back.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The one place where an error meets a person.
            eprintln!("lhsmtool-s3: {error}");
            error
                .downcast_ref::<ExitWith>()
                .map_or(ExitCode::FAILURE, |with| ExitCode::from(with.code))
        }
    }
}

fn run(cli: &Cli) -> Result<(), Box<dyn std::error::Error>> {
    if let Some(command) = &cli.command {
        if let Some(mount) = &cli.mount {
            return Err(format!(
                "'{}' stands before the command; see lhsmtool-s3 --help",
                mount.display()
            )
            .into());
        }
        // Only stores are needed: a mount point is not asked for.
        let settings = config::load(&cli.config, Some(Path::new("/")))?;
        telemetry::init("warn", settings.log_format);
        return command.run(&settings, &cli.config);
    }
    let settings = config::load(&cli.config, cli.mount.as_deref())?;
    telemetry::init(&settings.log_level, settings.log_format);
    daemon::run(&settings, &|| config::load(&cli.config, cli.mount.as_deref()))?;
    Ok(())
}
