//! Where a job's files come from: a walk in parallel, or a list.

use std::fs::Metadata;
use std::io::{BufRead as _, BufReader};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;
use std::sync::{Condvar, Mutex, PoisonError};

use super::JobSpec;
use super::select::CompiledFilter;
use crate::action::HsmError;
use crate::lustre::Mount;
use crate::transfer::Control;
use crate::types::{ErrorClass, errno_of, io_error};
use crate::walk::{Named, Node};

/// What a source comes across.
#[derive(Debug)]
pub(super) enum SourceItem {
    File {
        file: Named,
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
pub(super) fn send(
    mount: &Mount,
    spec: &JobSpec,
    selector: &CompiledFilter<'_>,
    control: &Control,
    to: &SyncSender<SourceItem>,
) {
    match &spec.list {
        Some(list) => send_listed(spec, list, selector, control, to),
        None => walk(
            &WalkScope {
                mount,
                spec,
                selector,
                control,
            },
            to,
        ),
    }
}

/// What a walk looks for, and where.
struct WalkScope<'a> {
    mount: &'a Mount,
    spec: &'a JobSpec,
    selector: &'a CompiledFilter<'a>,
    control: &'a Control,
}

impl WalkScope<'_> {
    /// Of one node; `None`: not meant.
    fn found(&self, node: Node, stat: &Metadata) -> Option<SourceItem> {
        if !is_meant(self.spec, self.selector, node.path(), stat) {
            return None;
        }
        let path = node.path().to_owned();
        match node.into_named(self.mount) {
            Ok(file) => Some(SourceItem::File { file, size: stat.len() }),
            Err(error) if error.is_not_found() => None,
            Err(HsmError { call, errno }) => Some(SourceItem::Bad {
                path,
                errno,
                reason: format!("{call}: {}", io_error(errno)),
            }),
        }
    }
}

fn is_meant(spec: &JobSpec, selector: &CompiledFilter<'_>, path: &Path, stat: &Metadata) -> bool {
    let below = path.strip_prefix(&spec.mount).unwrap_or(path);
    stat.is_file() && selector.wants(below, stat)
}

fn bad(path: PathBuf, error: &std::io::Error) -> SourceItem {
    SourceItem::Bad {
        path,
        errno: errno_of(error),
        reason: error.to_string(),
    }
}

fn send_listed(
    spec: &JobSpec,
    list: &Path,
    selector: &CompiledFilter<'_>,
    control: &Control,
    to: &SyncSender<SourceItem>,
) {
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
            Ok(stat) if !stat.is_file() => Some(SourceItem::Bad {
                path: name,
                errno: ErrorClass::Invalid.errno(),
                reason: "it is no regular file".into(),
            }),
            Ok(stat) => match below_mount(spec, name) {
                Ok(name) => is_meant(spec, selector, &name, &stat).then(|| SourceItem::File {
                    file: Named::new(name),
                    size: stat.len(),
                }),
                Err(name) => Some(SourceItem::Bad {
                    path: name,
                    errno: ErrorClass::Outside.errno(),
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
fn below_mount(spec: &JobSpec, name: PathBuf) -> Result<PathBuf, PathBuf> {
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
    waiting: Vec<Node>,
    reading: usize,
}

/// Depth first, so that what waits stays short.
fn walk(meant: &WalkScope<'_>, to: &SyncSender<SourceItem>) {
    let stack = Mutex::new(Stack {
        waiting: meant.spec.roots.iter().rev().cloned().map(Node::new).collect(),
        reading: 0,
    });
    let changed = Condvar::new();
    std::thread::scope(|scope| {
        for _ in 0..WALKERS {
            let to = to.clone();
            scope.spawn(|| walker(meant, to, &stack, &changed));
        }
    });
}

fn walker(meant: &WalkScope<'_>, to: SyncSender<SourceItem>, stack: &Mutex<Stack>, changed: &Condvar) {
    let lock = || stack.lock().unwrap_or_else(PoisonError::into_inner);
    let mut ended = false;
    loop {
        let mut locked = lock();
        let node = loop {
            if ended || meant.control.stopped().is_some() {
                locked.waiting.clear();
            }
            if let Some(node) = locked.waiting.pop() {
                locked.reading += 1;
                break node;
            }
            if locked.reading == 0 {
                changed.notify_all();
                return;
            }
            locked = changed.wait(locked).unwrap_or_else(PoisonError::into_inner);
        };
        drop(locked);
        let mut below = Vec::new();
        ended = !visit(meant, node, &to, &mut below);
        // The stack gives the last one first.
        below.sort_by(|a: &Node, b| b.path().cmp(a.path()));
        let mut locked = lock();
        locked.waiting.extend(below);
        locked.reading -= 1;
        drop(locked);
        changed.notify_all();
    }
}

/// `false`: nobody takes any more.
fn visit(meant: &WalkScope<'_>, node: Node, to: &SyncSender<SourceItem>, below: &mut Vec<Node>) -> bool {
    let tell = |path: &Path, error: &std::io::Error| to.send(bad(path.to_owned(), error)).is_ok();
    let is_root = meant.spec.roots.iter().any(|root| root == node.path());
    let stat = match node.stat() {
        Ok(stat) => stat,
        // Removed meanwhile; what was asked for by its name is not.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !is_root => return true,
        Err(error) => return tell(node.path(), &error),
    };
    if !stat.is_dir() {
        let found = meant.found(node, &stat);
        return found.is_none_or(|found| to.send(found).is_ok());
    }
    let path = node.path();
    let entries = match node.read() {
        Ok(entries) => entries,
        // Removed meanwhile.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return true,
        Err(error) => return tell(path, &error),
    };
    for entry in entries {
        let (found, entry) = match entry {
            Ok(entry) => entry,
            Err(error) => return tell(path, &error),
        };
        // Lustre's own, at the mount point.
        if entry.file_name().as_bytes() == b".lustre" && path == meant.spec.mount {
            continue;
        }
        let sent = match entry.file_type() {
            Ok(kind) if kind.is_dir() => {
                below.push(found);
                true
            }
            Ok(kind) if kind.is_file() => match entry.metadata() {
                Ok(stat) => meant.found(found, &stat).is_none_or(|found| to.send(found).is_ok()),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
                Err(error) => tell(found.path(), &error),
            },
            Ok(_) => true,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
            Err(error) => tell(found.path(), &error),
        };
        if !sent {
            return false;
        }
    }
    true
}
