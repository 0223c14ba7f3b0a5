//! `lhsmtool-s3 archive`, `restore`, `release`, `remove`, `cancel`: bulk jobs; and `jobs`, which shows and resumes them.

mod args;
mod manage;
mod progress;
mod work;

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

pub use self::args::JobArgs;
use self::args::{spec, usage};
pub(super) use self::manage::command;
pub use self::manage::{Format, JobsCommand};
pub(super) use self::progress::{bytes, line};
use self::work::work;
use crate::config::Settings;
use crate::jobs::{self, Ledger};
use crate::lustre::UserAction;

type Failure = Box<dyn std::error::Error>;

pub(super) fn run(args: &JobArgs, action: UserAction, settings: &Settings, config: &Path) -> Result<(), Failure> {
    let directory = jobs::directory(&settings.state_dir);
    let scratch = args.dry_run.then(tempfile::tempdir).transpose()?;
    let directory = scratch.as_ref().map_or(directory, |scratch| scratch.path().to_owned());
    let spec = spec(args, action, settings, &directory)?;
    spec.select.check().map_err(|error| usage(error.to_string()))?;
    let ledger = Ledger::create(&directory, &spec)?;
    if args.detach {
        drop(ledger);
        return detach(&spec.id, config);
    }
    work(&spec, &ledger, settings, &directory, args.json)
}

/// The same job in a process of its own.
fn detach(id: &str, config: &Path) -> Result<(), Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("--config")
        .arg(config.canonicalize()?)
        .args(["jobs", "resume", id]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // Signals of this terminal are not its own.
    command.process_group(0).spawn()?;
    outln!("{id}");
    Ok(())
}
