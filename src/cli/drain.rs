//! `lhsmtool-s3 drain`: the mover of a mount takes nothing new, does what it has, and ends.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::ExitWith;
use crate::action::FileSystem as _;
use crate::config::Settings;
use crate::fleet::{Fleet, Mover, StopReport};
use crate::lustre::{Identify, Library, LockHolder, Mount};

/// Between two looks at whether it has ended.
const LOOK: Duration = Duration::from_secs(1);

/// Which mover.
#[derive(Debug, Args)]
pub struct DrainArgs {
    /// The mount point that it serves; by default the configuration's
    #[arg(value_name = "MOUNT")]
    pub mount: Option<PathBuf>,
    /// Wait until it has ended, and tell what it did
    #[arg(long)]
    wait: bool,
}

impl DrainArgs {
    /// Tells the mover, and with `--wait` waits for its end.
    ///
    /// # Errors
    /// Nobody serves the mount, or it is a release that can't be drained. With `--wait` also: something was left to a
    /// successor, or the mover ended in another way.
    pub fn run(&self, settings: &Settings) -> Result<(), Box<dyn std::error::Error>> {
        let mount = Mount::open(Library::open(&settings.library)?, &settings.mount, Identify::Find)?;
        let shown = settings.mount.display();
        let Some(mut holder) = LockHolder::find(&mount)? else {
            return Err(ExitWith::failed(format!(
                "no mover serves '{shown}' on this node: there is nothing to drain"
            ))
            .into());
        };
        let pid = holder.pid();
        if !takes(pid, Signal::SIGUSR2) {
            let text = format!(
                "process {pid} serves '{shown}' and can't be drained: it is of an older release, or about to end. SIGTERM \
                 ends it, and the next one goes on with what it has"
            );
            return Err(ExitWith::failed(text).into());
        }
        // From one second before: the report has whole seconds.
        let begun = now().saturating_sub(1);
        kill(Pid::from_raw(pid), Signal::SIGUSR2)?;
        outln!("process {pid} drains '{shown}': it takes nothing new, and ends when what it has is done");
        for archive in without_peer(settings, mount.name()) {
            outln!(
                "no other mover for archive id {archive} is known here (`movers` in section [fleet]): what is asked for from now \
                 on waits until one starts"
            );
        }
        if !self.wait {
            return Ok(());
        }
        while !holder.wait_gone(LOOK)? {}
        let report = StopReport::read(&settings.state_dir, mount.path())
            .filter(|report| i64::from(report.pid) == i64::from(pid) && report.at >= begun);
        let Some(report) = report else {
            let text =
                format!("process {pid} ended, and does not say how: what it had is left to the next one; see its log");
            return Err(ExitWith::failed(text).into());
        };
        if let Some(drained) = report.drained {
            outln!("it has ended: {drained}");
        }
        if report.waiting.is_empty() {
            return Ok(());
        }
        let waiting: Vec<_> = report.waiting.iter().map(ToString::to_string).collect();
        Err(ExitWith::failed(waiting.join("; ")).into())
    }
}

/// Whether a process handles that signal: another one ends it.
fn takes(pid: i32, signal: Signal) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    caught.is_some_and(|mask| (mask >> (signal as i32 - 1)) & 1 == 1)
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// The archive ids of the configuration that no other mover of the file system is known to serve.
fn without_peer(settings: &Settings, file_system: &str) -> Vec<u32> {
    let host = nix::unistd::gethostname().unwrap_or_default();
    let host = host.to_string_lossy();
    let peers: Vec<Mover> = Fleet::new(settings.movers.clone())
        .ask()
        .into_iter()
        .filter_map(|(_, mover)| mover.ok())
        .filter(|mover| mover.ready && mover.file_system == file_system)
        .filter(|mover| mover.host != host || Path::new(&mover.mount) != settings.mount)
        .collect();
    let ids = settings.targets.iter().map(|target| target.archive_id.get());
    ids.filter(|id| !peers.iter().any(|peer| peer.archives.contains(id)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_tells_which_signals_it_handles() {
        let pid = i32::try_from(std::process::id()).unwrap();
        // Rust's own handler for stacks that overflow.
        assert!(takes(pid, Signal::SIGSEGV));
        assert!(!takes(pid, Signal::SIGWINCH));
        assert!(!takes(i32::MAX, Signal::SIGSEGV));
    }
}
