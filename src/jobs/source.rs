//! Where a job's files come from: a walk in parallel, or a list.

use std::fs::Metadata;
use std::io::{BufRead as _, BufReader};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;
use std::sync::{Condvar, Mutex, PoisonError};

use super::Spec;
use super::select::Selector;
use crate::transfer::Control;

/// What a source comes across.
#[derive(Debug)]
pub(super) enum Found {
    File {
        path: PathBuf,
        size: u64,
    },
    /// It could not be looked at: errno and why.
    Bad {
        path: PathBuf,
        errno: i32,
        reason: String,
    },
}

/// Directories read at a time.
const WALKERS: usize = 4;

/// Sends all until the end, or until nobody takes them or the job is stopped.
pub(super) fn send(spec: &Spec, selector: &Selector<'_>, control: &Control, to: &SyncSender<Found>) {
    match &spec.list {
        Some(list) => send_listed(spec, list, selector, control, to),
        None => walk(spec, selector, control, to),
    }
}

/// Of one path; `None`: not meant.
fn found(spec: &Spec, selector: &Selector<'_>, path: PathBuf, stat: &Metadata) -> Option<Found> {
    let below = path.strip_prefix(&spec.mount).unwrap_or(&path);
    (stat.is_file() && selector.wants(below, stat)).then_some(Found::File { size: stat.len(), path })
}

fn bad(path: PathBuf, error: &std::io::Error) -> Found {
    Found::Bad {
        path,
        errno: error.raw_os_error().unwrap_or(libc::EIO),
        reason: error.to_string(),
    }
}

fn send_listed(spec: &Spec, list: &Path, selector: &Selector<'_>, control: &Control, to: &SyncSender<Found>) {
    let file = match std::fs::File::open(list) {
        Ok(file) => file,
        Err(error) => {
            // A job that can't read its list has failed, and nobody to tell means that it has ended.
            let _told = to.send(bad(list.to_owned(), &error));
            return;
        }
    };
    let end = if spec.nul { 0 } else { b'\n' };
    let mut names = BufReader::new(file).split(end);
    while let Some(name) = names.next()
        && control.stopped().is_none()
    {
        let name = match name {
            Ok(name) if name.is_empty() => continue,
            Ok(name) => PathBuf::from(std::ffi::OsString::from_vec(name)),
            Err(error) => {
                let _told = to.send(bad(list.to_owned(), &error));
                return;
            }
        };
        let found = match name.symlink_metadata() {
            Ok(stat) if !stat.is_file() => Some(Found::Bad {
                path: name,
                errno: libc::EINVAL,
                reason: "it is no regular file".into(),
            }),
            Ok(stat) => match below_mount(spec, name) {
                Ok(name) => found(spec, selector, name, &stat),
                Err(name) => Some(Found::Bad {
                    path: name,
                    errno: libc::EXDEV,
                    reason: format!("it is not in '{}'", spec.mount.display()),
                }),
            },
            Err(error) => Some(bad(name, &error)),
        };
        if let Some(found) = found
            && to.send(found).is_err()
        {
            return;
        }
    }
}

/// The name as the mount point has it; it may lead there by a symlink.
fn below_mount(spec: &Spec, name: PathBuf) -> Result<PathBuf, PathBuf> {
    if name.starts_with(&spec.mount) {
        return Ok(name);
    }
    let real = name.parent().and_then(|parent| parent.canonicalize().ok());
    match (real, name.file_name()) {
        (Some(real), Some(last)) if real.starts_with(&spec.mount) => Ok(real.join(last)),
        _ => Err(name),
    }
}

/// Directories that wait, and how many are being read.
#[derive(Default)]
struct Stack {
    waiting: Vec<PathBuf>,
    reading: usize,
}

/// Depth first, so that what waits stays short.
fn walk(spec: &Spec, selector: &Selector<'_>, control: &Control, to: &SyncSender<Found>) {
    let stack = Mutex::new(Stack {
        waiting: spec.roots.iter().rev().cloned().collect(),
        reading: 0,
    });
    let changed = Condvar::new();
    std::thread::scope(|scope| {
        for _ in 0..WALKERS {
            scope.spawn(|| walker(spec, selector, control, &to.clone(), &stack, &changed));
        }
    });
}

fn walker(
    spec: &Spec,
    selector: &Selector<'_>,
    control: &Control,
    to: &SyncSender<Found>,
    stack: &Mutex<Stack>,
    changed: &Condvar,
) {
    let lock = || stack.lock().unwrap_or_else(PoisonError::into_inner);
    let mut ended = false;
    loop {
        let mut locked = lock();
        let path = loop {
            if ended || control.stopped().is_some() {
                locked.waiting.clear();
            }
            if let Some(path) = locked.waiting.pop() {
                locked.reading += 1;
                break path;
            }
            if locked.reading == 0 {
                changed.notify_all();
                return;
            }
            locked = changed.wait(locked).unwrap_or_else(PoisonError::into_inner);
        };
        drop(locked);
        let mut below = Vec::new();
        ended = !visit(spec, selector, &path, to, &mut below);
        // The stack gives the last one first.
        below.sort_by(|a, b| b.cmp(a));
        let mut locked = lock();
        locked.waiting.extend(below);
        locked.reading -= 1;
        drop(locked);
        changed.notify_all();
    }
}

/// `false`: nobody takes any more.
fn visit(spec: &Spec, selector: &Selector<'_>, path: &Path, to: &SyncSender<Found>, below: &mut Vec<PathBuf>) -> bool {
    let stat = match path.symlink_metadata() {
        Ok(stat) => stat,
        Err(error) => return to.send(bad(path.to_owned(), &error)).is_ok(),
    };
    if !stat.is_dir() {
        let found = found(spec, selector, path.to_owned(), &stat);
        return found.is_none_or(|found| to.send(found).is_ok());
    }
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        // Removed meanwhile.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return true,
        Err(error) => return to.send(bad(path.to_owned(), &error)).is_ok(),
    };
    for entry in entries {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => return to.send(bad(path.to_owned(), &error)).is_ok(),
        };
        // Lustre's own, at the mount point.
        if entry.file_name().as_bytes() == b".lustre" && path == spec.mount {
            continue;
        }
        let sent = match entry.file_type() {
            Ok(kind) if kind.is_dir() => {
                below.push(entry.path());
                true
            }
            Ok(kind) if kind.is_file() => match entry.metadata() {
                Ok(stat) => found(spec, selector, entry.path(), &stat).is_none_or(|found| to.send(found).is_ok()),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
                Err(error) => to.send(bad(entry.path(), &error)).is_ok(),
            },
            Ok(_) => true,
            Err(error) => to.send(bad(entry.path(), &error)).is_ok(),
        };
        if !sent {
            return false;
        }
    }
    true
}
