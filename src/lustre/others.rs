//! Another copytool on the same mount. Lustre knows one agent for each, and whoever registers last gets all messages: the
//! other one hears nothing any more, without a sign, and its readers hang.
//!
//! No call tells who is registered, so the node's processes do: a copytool holds the mount's root open, and the read end of
//! a pipe into which no process can write, for the kernel does.

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};

use super::Mount;

const PROC: &str = "/proc";

/// A process that looks like one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OtherTool {
    /// Its id.
    pub pid: u32,
    /// Its name, as `ps` has it; empty where it can't be read.
    pub name: String,
}

impl OtherTool {
    /// The process of that id.
    pub(super) fn of(pid: u32) -> Self {
        let name = std::fs::read_to_string(of(pid).join("comm")).unwrap_or_default();
        Self {
            pid,
            name: name.trim().to_owned(),
        }
    }
}

impl fmt::Display for OtherTool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name.as_str() {
            "" => write!(f, "process {}", self.pid),
            name => write!(f, "process {} ({name})", self.pid),
        }
    }
}

/// An open descriptor of some process.
struct OpenDescriptor {
    target: PathBuf,
    writes: bool,
}

/// Looks for one on `mount`, as far as this process may look at others: that takes CAP_SYS_PTRACE. Ours are told apart by the
/// mount's lock.
#[must_use]
pub fn other_tool(mount: &Mount) -> Option<OtherTool> {
    let own = exe(std::process::id());
    let pids: Vec<u32> = std::fs::read_dir(PROC)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    let mut suspects = Vec::new();
    for pid in pids.iter().copied() {
        if pid == std::process::id() || own.is_some() && exe(pid) == own {
            continue;
        }
        let open = descriptors(pid);
        if open.iter().any(|open| open.target == mount.path()) {
            let pipes = open.into_iter().filter(|open| is_pipe(&open.target) && !open.writes);
            suspects.push((pid, pipes.map(|open| open.target).collect::<Vec<_>>()));
        }
    }
    suspects.retain(|(_, pipes)| !pipes.is_empty());
    if suspects.is_empty() {
        return None;
    }
    let written: HashSet<PathBuf> = pids
        .into_iter()
        .flat_map(descriptors)
        .filter(|open| open.writes && is_pipe(&open.target))
        .map(|open| open.target)
        .collect();
    let found = suspects
        .into_iter()
        .find(|(_, pipes)| pipes.iter().any(|pipe| !written.contains(pipe)));
    found.map(|(pid, _)| OtherTool::of(pid))
}

fn of(pid: u32) -> PathBuf {
    Path::new(PROC).join(pid.to_string())
}

/// Its program, also if it was replaced since.
fn exe(pid: u32) -> Option<String> {
    let exe = std::fs::read_link(of(pid).join("exe")).ok()?;
    Some(exe.to_str()?.trim_end_matches(" (deleted)").to_owned())
}

fn is_pipe(target: &Path) -> bool {
    target.to_str().is_some_and(|target| target.starts_with("pipe:"))
}

/// Nothing of a process that is gone, or that must not be looked at. No file is touched: one may be on what hangs.
fn descriptors(pid: u32) -> Vec<OpenDescriptor> {
    let entries = std::fs::read_dir(of(pid).join("fd")).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let target = std::fs::read_link(entry.path()).ok()?;
            let writes = is_pipe(&target) && may_write(pid, entry.file_name().to_str()?);
            Some(OpenDescriptor { target, writes })
        })
        .collect()
}

/// One whose mode can't be read may be.
fn may_write(pid: u32, number: &str) -> bool {
    let info = std::fs::read_to_string(of(pid).join("fdinfo").join(number)).unwrap_or_default();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok());
    flags.is_none_or(|flags| flags & libc::O_ACCMODE != libc::O_RDONLY)
}
