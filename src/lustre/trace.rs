//! What is left in the kernel and at the MDTs of a copytool that was killed, and how it goes.
//!
//! The kernel keeps the agent of a process that died, at every MDT, until a message meets its closed pipe. The MDT whose
//! message that was takes its action back. But then the client has no pipe any more: what the next MDT sends is counted
//! as delivered, to nobody, and a reader waits for it until `active_request_timeout`. So whoever comes first after such
//! a death has all MDTs forget the agent. The names that pipes have in the kernel are in a file of the state directory
//! from before they are given away until the end in order.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{AgentError, Mount, MountLock, UnreadyCoordinators, ioctl};

/// The file of one mount.
#[derive(Clone, Debug)]
pub struct AgentTrace(PathBuf);

impl AgentTrace {
    /// Of the daemon that serves `mount` with that state directory.
    #[must_use]
    pub fn new(state_dir: &Path, mount: &Path) -> Self {
        let mount: String = mount
            .to_string_lossy()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .collect();
        Self(state_dir.join(format!("agent{mount}")))
    }

    /// Pipes of these names may be in the kernel from now on. Without a place for it a death is mended by the next start.
    pub(super) fn leave(&self, uids: &[u32]) {
        let text: String = uids.iter().map(|uid| format!("{uid}\n")).collect();
        if let Err(error) = self.write(&text) {
            tracing::warn!(path = %self.0.display(), %error, "should this daemon be killed, nothing tells what it leaves in the \
                kernel; set `state_dir` in section [lustre]");
        }
    }

    fn write(&self, text: &str) -> io::Result<()> {
        if let Some(state_dir) = self.0.parent() {
            std::fs::create_dir_all(state_dir)?;
        }
        // Never half of it: this process may die here.
        let new = self.0.with_extension("new");
        std::fs::write(&new, text)?;
        std::fs::rename(new, &self.0)
    }

    /// Nothing is left.
    pub(super) fn wipe(&self) {
        match std::fs::remove_file(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::debug!(%error, "the names of the pipes stay in the state directory");
            }
            _ => {}
        }
    }

    fn read(&self) -> Vec<u32> {
        let text = std::fs::read_to_string(&self.0).unwrap_or_default();
        text.lines().filter_map(|line| line.trim().parse().ok()).collect()
    }

    /// Has all MDTs forget the agent of a dead daemon, if one left a trace. The caller holds the mount's lock: this would
    /// end a living one's registration as well.
    pub(super) fn forget(&self, mount: &Mount) -> bool {
        let left = self.read();
        if left.is_empty() {
            return false;
        }
        // A number that is in use again may be another copytool's name for its pipe. To the MDTs all names are the same.
        let mut uids: Vec<u32> = left.into_iter().filter(|uid| !is_alive(*uid)).collect();
        if uids.is_empty() {
            uids.push(std::process::id());
        }
        for uid in uids {
            if let Err(error) = ioctl::stop_copytool(mount.descriptor(), uid) {
                tracing::debug!(uid, %error, "there was no agent to forget");
            }
        }
        self.wipe();
        true
    }
}

fn is_alive(pid: u32) -> bool {
    pid != std::process::id() && Path::new("/proc").join(pid.to_string()).exists()
}

/// For whoever sees a daemon die: has all MDTs forget its agent, so that what they send waits for the next one. `false`:
/// there is nothing to do, for it ended in order, or another one serves the mount already. `patience`: for an MDT's answer.
///
/// # Errors
/// The lock of the mount. [`AgentError::Away`]: an MDT does not answer, and whoever asks it would hold the lock against
/// the next daemon, which does it when all answer.
pub fn forget_dead(mount: &Mount, trace: &AgentTrace, patience: Duration) -> Result<bool, AgentError> {
    if trace.read().is_empty() {
        return Ok(false);
    }
    // Whatever else an MDT says, to tell it that comes back.
    if let Ok(UnreadyCoordinators { silent, .. }) = UnreadyCoordinators::ask(mount, patience)
        && !silent.is_empty()
    {
        return Err(AgentError::Away(UnreadyCoordinators {
            silent,
            ..UnreadyCoordinators::default()
        }));
    }
    match MountLock::take(mount) {
        Ok(_lock) => Ok(trace.forget(mount)),
        Err(AgentError::Occupied(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_read_as_it_was_left_and_gone_once_wiped() {
        let dir = tempfile::tempdir().unwrap();
        let trace = AgentTrace::new(&dir.path().join("state"), Path::new("/mnt/a b"));
        assert!(trace.read().is_empty());
        trace.leave(&[7, 1 << 30]);
        trace.leave(&[8, 1 << 30]);
        assert_eq!(trace.read(), [8, 1 << 30]);
        let other = AgentTrace::new(&dir.path().join("state"), Path::new("/mnt/b"));
        assert!(other.read().is_empty());
        trace.wipe();
        assert!(trace.read().is_empty());
        trace.wipe();
    }
}
