//! After the death of a daemon: has Lustre forget it. For the systemd unit and `--daemon`, not for persons.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use clap::Args;

use crate::config::Settings;
use crate::lustre::{AgentError, AgentTrace, Identify, Library, Mount, forget_dead, other_tool};

/// For an MDT's answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two tries of who waits for an MDT that does not answer.
const PAUSE: Duration = Duration::from_secs(30);

/// Whose death.
#[derive(Debug, Args)]
pub struct ForgetArgs {
    /// The mount point that it served; by default the configuration's
    #[arg(value_name = "MOUNT")]
    pub mount: Option<PathBuf>,
    /// Wait for the end of standard input before: whoever holds it is the daemon
    #[arg(long)]
    wait: bool,
    /// Instead: fail if another program serves the mount as a copytool. Before a start, by who may look at all processes
    #[arg(long, conflicts_with = "wait")]
    others: bool,
}

impl ForgetArgs {
    /// Does it. One that ended in order, and one that has a successor already, needs nothing.
    ///
    /// # Errors
    /// The mount point can't be opened, or an MDT does not answer.
    pub fn run(&self, settings: &Settings) -> Result<(), Box<dyn std::error::Error>> {
        if self.wait {
            std::io::stdin().read_to_end(&mut Vec::new())?;
        }
        let mount = Mount::open(Library::open(&settings.library)?, &settings.mount, Identify::Find)?;
        if self.others {
            return match other_tool(&mount).filter(|_| settings.heeds_other_tools) {
                Some(other) => Err(AgentError::OtherTool(other).into()),
                None => Ok(()),
            };
        }
        let trace = AgentTrace::new(&settings.state_dir, mount.path());
        let forgotten = loop {
            match forget_dead(&mount, &trace, PATIENCE) {
                // It may be that no other daemon comes that would do it.
                Err(AgentError::Away(_)) if self.wait => std::thread::park_timeout(PAUSE),
                forgotten => break forgotten?,
            }
        };
        if forgotten {
            tracing::warn!(
                mount = %settings.mount.display(),
                "the copytool died without unregistering; its agent is taken from the coordinators, and actions wait for the next one"
            );
        }
        Ok(())
    }
}

/// Starts a process that stays and does so when this one is dead, for a daemon that nobody else watches. What it waits
/// for is the end of its standard input: keep it. Nobody waits for it, for Lustre may hold it up.
///
/// # Errors
/// It can't be started.
pub fn watch_over(config: &Path, mount: &Path) -> std::io::Result<Child> {
    use std::os::unix::process::CommandExt as _;
    Command::new("/proc/self/exe")
        .arg("--config")
        .arg(config)
        .arg("forget-agent")
        .arg(mount)
        .arg("--wait")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .process_group(0)
        .spawn()
}
