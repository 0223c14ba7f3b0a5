//! `lhsmtool-s3 export`: directories and symlinks as objects, as FSx writes them. HSM archives files alone.

use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use clap::Args;

use super::ExitWith;
use super::follow::FollowArgs;
use super::session::{lanes, open_mount, runtime, stopped_by_signals, target_of};
use crate::config::Settings;
use crate::lustre::{Identify, Mount};
use crate::nodes::{NodeError, write_node};
use crate::store::{Target, TargetOptions};
use crate::transfer::{Control, Lane, Transfer, TransferError};
use crate::walk::Node;

/// What to export.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Directories of one Lustre; everything below them, too
    #[arg(value_name = "DIR", required = true)]
    directories: Vec<PathBuf>,
    /// Whose bucket (default: the configuration's first archive)
    #[arg(long, value_name = "N")]
    archive_id: Option<u32>,
    /// Objects written at a time (default: `threads` of the configuration)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// One line of JSON at the end
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    follow: FollowArgs,
}

impl ExportArgs {
    pub(super) fn target<'a>(&self, settings: &'a Settings) -> Result<&'a TargetOptions, String> {
        target_of(settings, self.archive_id)
    }

    /// The only one.
    pub(super) fn directory(&self) -> Result<PathBuf, Failure> {
        let [directory] = self.directories.as_slice() else {
            return Err(ExitWith::usage("--follow takes one directory, the mount point".to_owned()).into());
        };
        canonical(directory)
    }

    pub(super) fn threads(&self, settings: &Settings) -> usize {
        self.threads.map_or(settings.threads, usize::from)
    }

    pub(super) const fn json(&self) -> bool {
        self.json
    }

    /// Whether it ends only when it is stopped.
    pub(super) const fn goes_on(&self) -> bool {
        self.follow.goes_on()
    }
}

type Failure = Box<dyn std::error::Error>;

fn canonical(directory: &Path) -> Result<PathBuf, Failure> {
    let found = directory.canonicalize();
    Ok(found.map_err(|error| format!("'{}': {error}", directory.display()))?)
}

/// How many entries ended in which way; the line of `--json`.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
struct ExportCounts {
    directories: u64,
    links: u64,
    failed: u64,
}

struct Export<'a> {
    target: &'a TargetOptions,
    mount: &'a Mount,
    control: Arc<Control>,
    counts: Mutex<ExportCounts>,
    failure: Mutex<Option<TransferError>>,
}

pub(super) fn run(args: &ExportArgs, settings: &Settings) -> Result<(), Failure> {
    if args.follow.is_wanted() {
        return super::follow::run(args, &args.follow, settings);
    }
    let options = args.target(settings)?;
    let found = args.directories.iter().map(|directory| canonical(directory));
    let directories = found.collect::<Result<Vec<_>, _>>()?;
    let Some(first) = directories.first() else {
        return Err("no directory".into());
    };
    let mount = open_mount(settings, first, Identify::Make)?;
    let runtime = runtime()?;
    let target = Arc::new(runtime.block_on(Target::resolve(options.clone()))?);
    let threads = args.threads(settings);
    let export = Export {
        target: options,
        mount: &mount,
        control: stopped_by_signals(&runtime),
        counts: Mutex::default(),
        failure: Mutex::default(),
    };
    let (sender, receiver) = sync_channel::<(PathBuf, Metadata)>(threads * 4);
    let receiver = Mutex::new(receiver);
    let lanes = lanes(&[target], settings, threads)?;
    let walked = std::thread::scope(|scope| {
        for lane in &lanes {
            let (export, receiver) = (&export, &receiver);
            scope.spawn(move || export.work(lane, receiver));
        }
        let sender = sender;
        walk(&export, directories, |path, stat| sender.send((path, stat)).is_ok())
    });
    walked?;
    if let Some(error) = export.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Err(error.into());
    }
    if export.control.stopped().is_some() {
        return Err("stopped; give the same command again".into());
    }
    let counts = *export.counts.lock().unwrap_or_else(PoisonError::into_inner);
    if args.json {
        outln!("{}", serde_json::json!(counts));
    } else {
        outln!(
            "{} directories and {} symlinks written, {} failed",
            counts.directories,
            counts.links,
            counts.failed
        );
    }
    match counts.failed {
        0 => Ok(()),
        n => Err(format!("{n} could not be written").into()),
    }
}

/// Directories and symlinks, those above before those below. What can't be read is told and counted, and the rest goes on.
fn walk(
    export: &Export<'_>,
    directories: Vec<PathBuf>,
    mut each: impl FnMut(PathBuf, Metadata) -> bool,
) -> Result<(), Failure> {
    let mut waiting: Vec<_> = directories.into_iter().map(Node::new).collect();
    while let Some(node) = waiting.pop() {
        if export.control.stopped().is_some() {
            break;
        }
        let path = node.path();
        let stat = match node.stat() {
            Ok(stat) => stat,
            Err(error) => {
                export.unread(path, &error)?;
                continue;
            }
        };
        if stat.is_dir() {
            if path == export.mount.path().join(".lustre") {
                continue;
            }
            let entries = match node.read() {
                Ok(entries) => entries,
                Err(error) => {
                    export.unread(path, &error)?;
                    continue;
                }
            };
            for entry in entries {
                match entry {
                    // Files are told by their directory entry, without a stat.
                    Ok((_, entry)) if entry.file_type().is_ok_and(|kind| kind.is_file()) => {}
                    Ok((found, _)) => waiting.push(found),
                    Err(error) => export.unread(path, &error)?,
                }
            }
        } else if !stat.is_symlink() {
            continue;
        }
        if path != export.mount.path() && !each(path.to_owned(), stat) {
            break;
        }
    }
    Ok(())
}

impl Export<'_> {
    /// Without the file system nothing can be read; without one directory, the others can.
    fn unread(&self, path: &Path, error: &std::io::Error) -> Result<(), Failure> {
        if !self.mount.is_there() {
            return Err(format!("'{}' is not mounted any more", self.mount.path().display()).into());
        }
        if error.kind() != std::io::ErrorKind::NotFound {
            self.fail(path, &format!("it can't be read: {error}"));
        }
        Ok(())
    }

    fn fail(&self, path: &Path, why: &str) {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).failed += 1;
        tracing::warn!(path = %path.display(), why, "not written");
    }

    fn work(&self, lane: &Lane, receiver: &Mutex<Receiver<(PathBuf, Metadata)>>) {
        let transfer = Transfer::new(lane, &self.control);
        loop {
            let next = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok((path, stat)) = next else {
                return;
            };
            if self.control.stopped().is_some() {
                continue;
            }
            let result = write_node(transfer, self.target, self.mount, &path, &stat);
            let counts = || self.counts.lock().unwrap_or_else(PoisonError::into_inner);
            match result {
                Ok(_) if stat.is_dir() => counts().directories += 1,
                Ok(_) => counts().links += 1,
                Err(NodeError::This(why)) => self.fail(&path, &why),
                Err(NodeError::All(error)) if transfer.is_of_one(self.target.archive_id, &error) => {
                    self.fail(&path, &error.to_string());
                }
                Err(NodeError::All(error)) => {
                    self.failure
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .get_or_insert(error);
                    self.control.stop(crate::transfer::Stop::Shutdown);
                }
            }
        }
    }
}
