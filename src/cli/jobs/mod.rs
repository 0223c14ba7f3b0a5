//! `lhsmtool-s3 archive`, `restore`, `release`, `remove`, `cancel`: bulk jobs; and `jobs`, which shows and resumes them.
//!
//! Where there is a ledger, each is told of there (`shared`), and those of other nodes are found there (`far`). Which of them are
//! this node's is said by a file beside each (`owner`).

mod args;
mod far;
mod manage;
mod owner;
mod progress;
mod shared;
mod work;

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

pub use self::args::JobArgs;
use self::args::{spec, usage};
#[cfg(test)]
pub(super) use self::far::example as far_example;
pub(super) use self::far::{FarJob, FarJobs};
pub(super) use self::manage::command;
pub use self::manage::{Format, JobsCommand};
pub(super) use self::progress::{bytes, line};
use self::shared::Sharing;
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
    // A dry run is nobody else's business.
    let sharing = match scratch {
        Some(_) => None,
        None => Sharing::begin(&spec, settings, &directory)?,
    };
    work(&spec, &ledger, settings, &directory, sharing, args.json)
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
