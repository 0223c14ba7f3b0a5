//! Parse > settings > logging > run > exit code.

use std::cell::Cell;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use lhsmtool_s3::cli::{Cli, Command, ExitWith, told, watch_over};
use lhsmtool_s3::daemon::{Background, DaemonHooks, PidFile, RunMode, into_background};
use lhsmtool_s3::thread::Supervisor;
use lhsmtool_s3::{config, daemon, telemetry};

/// Small requests are small allocations, by the hundred: this one takes a quarter less time for a small file
/// than the C library's, and gives memory back.
// A sanitizer has to see each allocation: .ci/full builds without it.
#[cfg(not(lhsm_system_allocator))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// For the last lines of the log, at the end: whoever reads them may have stopped.
const LAST_LINES: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    telemetry::log_panics();
    let cli = Cli::parse();
    let code = match run(&cli) {
        Ok(code) => code,
        Err(error) => {
            // The one place where an error meets a person. Without words where nobody reads what the command tells.
            let words = error.to_string();
            if !words.is_empty() {
                telemetry::say(format!("lhsmtool-s3: {words}\n").as_bytes());
            }
            error
                .downcast_ref::<ExitWith>()
                .map_or(ExitCode::FAILURE, |with| ExitCode::from(with.code))
        }
    };
    telemetry::flush(LAST_LINES);
    code
}

fn run(cli: &Cli) -> Result<ExitCode, Box<dyn std::error::Error>> {
    if cli.command.is_none() && cli.reference.import.is_none() {
        return as_daemon(cli);
    }
    as_command(cli).map(|()| ExitCode::SUCCESS)
}

fn as_command(cli: &Cli) -> Result<(), Box<dyn std::error::Error>> {
    if let Some(command) = &cli.command {
        if let Some(mount) = &cli.mount {
            return Err(format!(
                "'{}' stands before the command; see lhsmtool-s3 --help",
                mount.display()
            )
            .into());
        }
        if let Command::Generate(args) = command {
            return args.run();
        }
        if let Command::PrintConfig(args) = command {
            return told(args.run(&cli.config));
        }
        // What is wrong with the configuration is among what it tells.
        if let Command::Check(args) = command {
            telemetry::init("error", telemetry::LogFormat::Text);
            return told(args.run(&cli.config));
        }
        // It has a mount point, as the daemon has.
        if let Command::ForgetAgent(args) = command {
            let settings = config::load(&cli.config, args.mount.as_deref())?;
            telemetry::init("warn", settings.log_format);
            return args.run(&settings);
        }
        // And so has this one.
        if let Command::Drain(args) = command {
            let settings = config::load(&cli.config, args.mount.as_deref())?;
            telemetry::init("warn", settings.log_format);
            return told(args.run(&settings));
        }
        if let Command::Ledger(args) = command {
            let settings = config::load(&cli.config, args.mount.as_deref())?;
            telemetry::init("warn", settings.log_format);
            return command.run(&settings, &cli.config);
        }
        // Only stores are needed: a mount point is not asked for.
        let settings = config::load(&cli.config, Some(Path::new("/")))?;
        telemetry::init(command.log_level(&settings), settings.log_format);
        return command.run(&settings, &cli.config);
    }
    match &cli.reference.import {
        Some(import) => as_import(cli, import),
        None => Ok(()),
    }
}

fn as_daemon(cli: &Cli) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let load = || {
        let mut settings = config::load(&cli.config, cli.mount.as_deref())?;
        cli.reference
            .apply(&mut settings)
            .map_err(|what| config::ConfigError::Flag { what })?;
        Ok(settings)
    };
    let settings = load()?;
    let pid_file = cli.reference.pid_file.as_deref();
    if let Some(path) = pid_file {
        PidFile::try_out(path)?;
    }
    // Before there is any thread.
    let starter = match cli.reference.daemon.then(into_background).transpose()? {
        Some(Background::Over(code)) => return Ok(code),
        Some(Background::Daemon(starter)) => Some(starter),
        None => None,
    };
    telemetry::init(&settings.log_level, settings.log_format);
    let supervisor = Supervisor::default();
    if let Err(error) = telemetry::write_by_thread(&supervisor) {
        tracing::warn!(%error, "the log has no thread: whoever logs waits for it");
    }
    for flag in cli.reference.without_meaning() {
        tracing::warn!(flag, "has no meaning here");
    }
    // Nobody else is told when this one dies. Held as long as it serves.
    let _guardian = starter.is_some().then(|| {
        watch_over(&cli.config, &settings.mount).inspect_err(|error| {
            tracing::warn!(%error, "nobody watches over this daemon: if it is killed, start it again soon");
        })
    });
    let how = RunMode {
        abort_on_error: cli.reference.abort_on_error,
        dry_run: cli.reference.dry_run,
    };
    // It goes with the daemon's end.
    let written = Cell::new(None);
    let registered = || -> Result<(), String> {
        written.set(pid_file.map(PidFile::write).transpose()?);
        if let Some(starter) = &starter {
            starter.tell();
        }
        Ok(())
    };
    let calls = DaemonHooks {
        reload: &load,
        registered: &registered,
    };
    daemon::run(&settings, how, calls, &supervisor)?;
    Ok(ExitCode::SUCCESS)
}

/// `--import SRC DST` as the reference copytool has it.
fn as_import(cli: &Cli, import: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    let mut settings = config::load(&cli.config, Some(Path::new("/")))?;
    cli.reference.apply(&mut settings)?;
    let [source, target] = import else {
        return Err("--import takes SRC and DST".into());
    };
    let path = (!source.starts_with("s3://")).then(|| source.trim_matches('/'));
    let url = if path.is_none() {
        source.clone()
    } else {
        let archive = settings.targets.first().ok_or("no [[archive]] section")?;
        format!(
            "s3://{}/{}{}",
            archive.bucket,
            archive.prefix,
            source.trim_start_matches('/')
        )
    };
    let config = cli.config.display().to_string();
    let mut arguments = vec!["lhsmtool-s3", "--config", &config, "import", &url, target];
    if cli.reference.dry_run {
        arguments.push("--dry-run");
    }
    if let Some(path) = path.filter(|path| !path.is_empty()) {
        arguments.extend(["--below", path]);
    }
    let command = Cli::parse_from(arguments).command.ok_or("no command")?;
    telemetry::init("warn", settings.log_format);
    command.run(&settings, &cli.config)
}
