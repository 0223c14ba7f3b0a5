//! `lhsmtool-s3 export`: directories and symlinks as objects, as FSx writes them. HSM archives files alone.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use clap::Args;

use super::site::{open_mount, runtime, stopped_by_signals};
use crate::config::Settings;
use crate::lustre::Mount;
use crate::store::{Condition, FileMetadata, ObjectKey, StoreError, Target, TargetOptions, Told};
use crate::transfer::{Control, Lane, TransferError, head, put_bytes};
use crate::types::Extras;

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
}

type Failure = Box<dyn std::error::Error>;

/// What came of it.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
struct Counts {
    directories: u64,
    links: u64,
    failed: u64,
}

struct Export<'a> {
    target: &'a TargetOptions,
    mount: &'a Path,
    control: Arc<Control>,
    counts: Mutex<Counts>,
    failure: Mutex<Option<TransferError>>,
}

pub(super) fn run(args: &ExportArgs, settings: &Settings) -> Result<(), Failure> {
    let options = settings
        .targets
        .iter()
        .find(|target| args.archive_id.is_none_or(|id| target.archive_id.get() == id))
        .ok_or("no [[archive]] section has that id")?;
    let mut directories = Vec::new();
    for directory in &args.directories {
        let found = directory
            .canonicalize()
            .map_err(|error| format!("'{}': {error}", directory.display()))?;
        directories.push(found);
    }
    let Some(first) = directories.first() else {
        return Err("no directory".into());
    };
    let mount = open_mount(settings, first)?;
    let runtime = runtime()?;
    let target = Arc::new(runtime.block_on(Target::resolve(options.clone()))?);
    let threads = args.threads.map_or(settings.threads, usize::from);
    let export = Export {
        target: options,
        mount: mount.path(),
        control: stopped_by_signals(&runtime),
        counts: Mutex::default(),
        failure: Mutex::default(),
    };
    let (sender, receiver) = sync_channel::<(PathBuf, Metadata)>(threads * 4);
    let receiver = Mutex::new(receiver);
    let lanes = (0..threads)
        .map(|_| Lane::new(&[Arc::clone(&target)], settings.transfer))
        .collect::<Result<Vec<_>, _>>()?;
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
        println!("{}", serde_json::json!(counts));
    } else {
        println!(
            "{} directories and {} symlinks written, {} failed",
            counts.directories, counts.links, counts.failed
        );
    }
    match counts.failed {
        0 => Ok(()),
        n => Err(format!("{n} could not be written").into()),
    }
}

/// Directories and symlinks, those above before those below.
fn walk(
    export: &Export<'_>,
    directories: Vec<PathBuf>,
    mut each: impl FnMut(PathBuf, Metadata) -> bool,
) -> Result<(), Failure> {
    let mut waiting = directories;
    while let Some(path) = waiting.pop() {
        if export.control.stopped().is_some() {
            break;
        }
        let failed = |error: std::io::Error| format!("can't read '{}': {error}", path.display());
        let stat = match path.symlink_metadata() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            stat => stat.map_err(failed)?,
        };
        if stat.is_dir() {
            if path.file_name().is_some_and(|name| name == ".lustre") {
                continue;
            }
            for entry in std::fs::read_dir(&path).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                // Files are told by their directory entry, without a stat.
                if !entry.file_type().is_ok_and(|kind| kind.is_file()) {
                    waiting.push(entry.path());
                }
            }
        } else if !stat.is_symlink() {
            continue;
        }
        if path != export.mount && !each(path, stat) {
            break;
        }
    }
    Ok(())
}

impl Export<'_> {
    fn work(&self, lane: &Lane, receiver: &Mutex<Receiver<(PathBuf, Metadata)>>) {
        loop {
            let next = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok((path, stat)) = next else {
                return;
            };
            if self.control.stopped().is_some() {
                continue;
            }
            let result = self.write(lane, &path, &stat);
            let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
            match result {
                Ok(()) if stat.is_dir() => counts.directories += 1,
                Ok(()) => counts.links += 1,
                Err(Trouble::This(why)) => {
                    counts.failed += 1;
                    tracing::warn!(path = %path.display(), why, "not written");
                }
                Err(Trouble::All(error)) => {
                    self.failure
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .get_or_insert(error);
                    self.control.stop(crate::transfer::Stop::Shutdown);
                }
            }
        }
    }

    fn write(&self, lane: &Lane, path: &Path, stat: &Metadata) -> Result<(), Trouble> {
        let this = |error: &dyn std::fmt::Display| Trouble::This(error.to_string());
        let below = path.strip_prefix(self.mount).map_err(|error| this(&error))?;
        let key = ObjectKey::from_path(&self.target.prefix, below).map_err(|error| this(&error))?;
        let (key, body, extras) = if stat.is_dir() {
            let key = ObjectKey::new(format!("{key}/")).map_err(|error| this(&error))?;
            let directory = File::open(path).map_err(|error| this(&error))?;
            let extras = Extras {
                xattrs: Mount::xattrs_of(&directory).map_err(|error| this(&error))?,
                ..Extras::default()
            };
            (key, Vec::new(), extras)
        } else {
            let target = std::fs::read_link(path).map_err(|error| this(&error))?;
            (key, target.as_os_str().as_bytes().to_vec(), Extras::default())
        };
        let (metadata, left_out) = FileMetadata::new(None, stat, extras).to_map();
        if !left_out.is_empty() {
            tracing::warn!(path = %path.display(), ?left_out, "an object's metadata is 2 KiB at most");
        }
        self.put(lane, key, &body, metadata)
    }

    /// What is no directory's or symlink's object is not replaced: it may be a file's only copy.
    fn put(&self, lane: &Lane, key: ObjectKey, body: &[u8], metadata: HashMap<String, String>) -> Result<(), Trouble> {
        let archive_id = self.target.archive_id;
        let mut condition = Condition::Absent;
        for _ in 0..3 {
            let to = (&key, condition.clone());
            let error = match put_bytes(lane, &self.control, archive_id, to, body, metadata.clone()) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let look = matches!(
                error,
                TransferError::Store(StoreError::Precondition { .. } | StoreError::Unsupported { .. })
            );
            if !look {
                return Err(Trouble::All(error));
            }
            condition = match head(lane, &self.control, archive_id, &key, None) {
                Ok(found) => {
                    let kind = Told::of(&found.metadata).mode.map_or(0, |mode| mode & libc::S_IFMT);
                    let empty_directory = key.as_str().ends_with('/') && found.size == 0;
                    if !empty_directory && !matches!(kind, libc::S_IFDIR | libc::S_IFLNK) {
                        return Err(Trouble::This(format!("'{key}' is another object")));
                    }
                    Condition::Match(found.etag)
                }
                Err(TransferError::Store(StoreError::NotFound { .. })) => Condition::Absent,
                Err(error) => return Err(Trouble::All(error)),
            };
            if !lane.store(archive_id).map_err(Trouble::All)?.has_conditions() {
                condition = Condition::None;
            }
            if matches!(error, TransferError::Store(StoreError::Unsupported { .. })) {
                lane.store(archive_id).map_err(Trouble::All)?.lacks_conditions();
                condition = Condition::None;
            }
        }
        Err(Trouble::This("other writers are at its key".into()))
    }
}

/// One entry's trouble, or everybody's.
enum Trouble {
    This(String),
    All(TransferError),
}
