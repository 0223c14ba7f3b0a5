//! What a mover tells when it ends, for whoever asks when it is gone: a small file in its state directory.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The names of these files.
const PREFIX: &str = "stopped";
const SUFFIX: &str = ".json";

/// The last words of a mover, until a successor of its mount serves.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct StopReport {
    /// The mount that it served.
    pub mount: String,
    /// Seconds since 1970.
    pub at: u64,
    /// Its process.
    pub pid: u32,
    /// What it did between `drain` and its end; `None`: it was not drained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drained: Option<DrainedActions>,
    /// What it left to a successor, by archive.
    #[serde(default)]
    pub waiting: Vec<WaitingActions>,
}

/// What a mover that was drained did before its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct DrainedActions {
    /// Ended as they were asked for.
    pub done: u64,
    /// With an error.
    pub failed: u64,
    /// By a cancel.
    pub cancelled: u64,
}

impl fmt::Display for DrainedActions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            done,
            failed,
            cancelled,
        } = self;
        write!(f, "{done} done, {failed} failed, {cancelled} cancelled")
    }
}

/// Actions that were taken in and are not answered: they are owed by whoever comes next.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WaitingActions {
    /// 0: they name none.
    pub archive: u32,
    /// All of them.
    pub actions: u64,
    /// Of these, restores: somebody may wait for each.
    pub restores: u64,
}

impl fmt::Display for WaitingActions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.actions, self.restores) {
            (1, 0) => f.write_str("1 action waits")?,
            (1, _) => f.write_str("1 action, a reader's restore, waits")?,
            (actions, 0) => write!(f, "{actions} actions wait")?,
            (actions, restores) => write!(f, "{actions} actions, {restores} of them readers' restores, wait")?,
        }
        match self.archive {
            0 => f.write_str(" until a mover starts"),
            id => write!(f, " until a mover for archive id {id} starts"),
        }
    }
}

impl StopReport {
    /// Writes it, or takes the former one away where there is nothing to tell.
    ///
    /// # Errors
    /// The directory takes no file.
    pub fn write(&self, state_dir: &Path) -> io::Result<()> {
        let path = path_of(state_dir, Path::new(&self.mount));
        if self.waiting.is_empty() && self.drained.is_none() {
            return wipe(&path);
        }
        let new = path.with_extension("new");
        std::fs::write(&new, serde_json::to_vec(self)?)?;
        std::fs::rename(new, path)
    }

    /// Takes the report of a former mover of that mount away.
    ///
    /// # Errors
    /// It stays.
    pub fn forget(state_dir: &Path, mount: &Path) -> io::Result<()> {
        wipe(&path_of(state_dir, mount))
    }

    /// The report of the mover that served that mount, if it left one.
    #[must_use]
    pub fn read(state_dir: &Path, mount: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(path_of(state_dir, mount)).ok()?).ok()
    }

    /// Those of all mounts with that state directory.
    #[must_use]
    pub fn all(state_dir: &Path) -> Vec<Self> {
        let Ok(entries) = std::fs::read_dir(state_dir) else {
            return Vec::new();
        };
        let is_report = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(PREFIX) && name.ends_with(SUFFIX)
        };
        let paths = entries.flatten().map(|entry| entry.path()).filter(is_report);
        let mut all: Vec<Self> = paths
            .filter_map(|path| serde_json::from_slice(&std::fs::read(path).ok()?).ok())
            .collect();
        all.sort_by(|a, b| a.mount.cmp(&b.mount));
        all
    }
}

/// Two daemons of one node may share the directory.
fn path_of(state_dir: &Path, mount: &Path) -> PathBuf {
    let mount: String = mount
        .to_string_lossy()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    state_dir.join(format!("{PREFIX}{mount}{SUFFIX}"))
}

fn wipe(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(archive: u32, actions: u64, restores: u64) -> WaitingActions {
        WaitingActions {
            archive,
            actions,
            restores,
        }
    }

    #[test]
    fn what_waits_is_told_in_words() {
        let words = |archive, actions, restores| waiting(archive, actions, restores).to_string();
        assert_eq!(
            words(1, 40, 7),
            "40 actions, 7 of them readers' restores, wait until a mover for archive id 1 starts"
        );
        assert_eq!(words(2, 3, 0), "3 actions wait until a mover for archive id 2 starts");
        assert_eq!(
            words(1, 1, 1),
            "1 action, a reader's restore, waits until a mover for archive id 1 starts"
        );
        assert_eq!(words(0, 1, 0), "1 action waits until a mover starts");
    }

    #[test]
    fn a_report_is_there_until_it_is_forgotten_and_one_without_words_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let report = |mount: &str, actions| StopReport {
            mount: mount.into(),
            at: 1,
            pid: 7,
            drained: None,
            waiting: vec![waiting(1, actions, 0)],
        };
        let (a, b) = (report("/mnt/a", 1), report("/mnt/b", 2));
        a.write(dir.path()).unwrap();
        b.write(dir.path()).unwrap();
        assert_eq!(StopReport::all(dir.path()), [a.clone(), b.clone()]);
        assert_eq!(StopReport::read(dir.path(), Path::new("/mnt/b")), Some(b));
        StopReport::forget(dir.path(), Path::new("/mnt/a")).unwrap();
        StopReport::forget(dir.path(), Path::new("/mnt/a")).unwrap();
        assert_eq!(StopReport::read(dir.path(), Path::new("/mnt/a")), None);
        let nothing = StopReport {
            waiting: Vec::new(),
            ..report("/mnt/b", 0)
        };
        nothing.write(dir.path()).unwrap();
        assert_eq!(StopReport::all(dir.path()), []);
        assert!(StopReport::all(&dir.path().join("none")).is_empty());
    }
}
